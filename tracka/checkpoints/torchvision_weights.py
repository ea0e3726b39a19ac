"""Fetches torchvision's weights of a backbone, which ACT, diffusion and vqbet policies load by name before their own.

These weights are in no hub repository, and HF_HUB_OFFLINE does not stop their download: a row without network would
fail on the download.
"""

import os
import re
import urllib.request
from http.client import HTTPException
from importlib.util import find_spec
from pathlib import Path

from ..core import files
from ..core.errors import Finding
from .hub import Unresolved

NULL = "or set pretrained_backbone_weights to null in config.json, since the checkpoint's own weights replace them"


def fetch(name: str) -> Path:
    """Returns the file of weights such as ResNet18_Weights.IMAGENET1K_V1, from torch's cache or torchvision's server.

    The file's name ends with the beginning of its sha256, so a damaged file is fetched again. Raises Unresolved where
    the server cannot be reached, the bytes are wrong, or torchvision has no such weights.
    """
    address = _address(name)
    path = _cache() / address.rsplit("/", 1)[-1]
    if _matches_its_name(path):
        return path
    try:
        with urllib.request.urlopen(address, timeout=60) as answer, files.as_open_as(path.parent):
            files.write_atomic(path, answer.read())
    except (OSError, HTTPException) as error:
        what = f"{path} is missing, and {address} cannot be reached ({error})"
        raise Unresolved(
            "unreachable", Finding(name, what, f"Copy the file there from another host, {NULL}")
        ) from error
    if not _matches_its_name(path):
        raise Unresolved(
            "refused",
            Finding(name, f"the content of {path} does not match the hash in its name", f"Delete the file, {NULL}"),
        )
    return path


def content(name: str) -> str:
    """Returns what distinguishes these weights from others.

    That is the name of their file, or the file's hash where the file in torch's cache has other bytes than its name
    says.
    """
    path = _cache() / _address(name).rsplit("/", 1)[-1]
    return path.stem if not path.is_file() or _matches_its_name(path) else files.sha256_file(path)


def _address(name: str) -> str:
    """Returns the download address from torchvision's source text, because importing torchvision takes seconds."""
    kind, _, version = name.partition(".")
    package = find_spec("torchvision")
    source = Path(package.origin).parent / "models" / "resnet.py" if package and package.origin else Path("/nowhere")
    text = files.read_text(source).partition(f"class {kind}(")[2]
    match = re.search(
        rf'^    {re.escape(version)} = Weights\(\s*url="([^"]+)"', text.split("\nclass ")[0], re.MULTILINE
    )
    if match is None:
        raise Unresolved(
            "missing", Finding(name, f"{source} does not define these weights", f"Correct the name, {NULL}")
        )
    return match[1]


def _cache() -> Path:
    """Returns the folder in which torch keeps its downloads."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("TORCH_HOME") or Path(base) / "torch") / "hub" / "checkpoints"


def _matches_its_name(path: Path) -> bool:
    return path.is_file() and files.sha256_file(path).startswith(path.stem.rpartition("-")[2])
