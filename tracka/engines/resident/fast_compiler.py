"""Compiles functions by torch.compile, and keeps what was compiled in the user's cache for later processes."""

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ...core import user_cache

RECOMPILATIONS = 64  # one for each set of shapes: a few batch sizes and lengths of instructions, in a few functions


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns the function, to be compiled in its first call with each set of shapes.

    Raises OSError where the cache's folder cannot be made, or where others than the user may write into it: it holds
    code that is run.
    """
    import torch._dynamo.config
    import torch._inductor.config

    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(_folder())
    os.environ.pop("TRITON_CACHE_DIR", None)  # below the same folder then
    torch._inductor.config.compile_threads = 1  # no processes beside this one
    torch._dynamo.config.recompile_limit = RECOMPILATIONS
    compiled_function: Callable[..., Any] = torch.compile(function, dynamic=False, fullgraph=True)
    return compiled_function


def _folder() -> Path:
    """Returns the cache's folder for this torch and this kind of GPU; torch keys what is in it by code and shapes."""
    capability = "".join(str(number) for number in torch.cuda.get_device_capability())
    folder = user_cache.folder() / "compiled" / f"torch-{torch.__version__}-sm{capability}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.stat()
    if status.st_uid != os.geteuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PermissionError(f"others may write into {folder}, which holds code that is run")
    return folder
