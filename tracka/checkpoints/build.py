"""Builds the checkpoints that a campaign defines itself, by the lines of `[build]` in campaign.toml.

Such a line names folder, builder and arguments. A builder is a program in `fixtures/` whose first argument is the
folder to fill. The builder runs in a process of its own, because it imports torch, and the folder appears whole or not
at all. A file beside the folder says what built it: another line, another builder or other data builds the folder anew.
"""

import os
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

from ..campaign.campaign import Campaign
from ..core import files, lock
from ..core.errors import Finding, TrackaError
from ..execution import environment, gpu, process
from ..execution.process import Bounds

BUILD_SECS = 600


def ensure(campaign: Campaign, policy_path: str) -> None:
    """Builds the checkpoint `policy_path` if the campaign has a builder for it and has not built the same already.

    Raises TrackaError with the cause that the builder's output names where the builder fails.
    """
    builder = campaign.build.get(policy_path)
    target = campaign.layout.root / policy_path
    if builder is None or (target.is_dir() and not _recipe_file(target).is_file()):
        return  # a folder that was not built here is left alone
    recipe = f"{builder}\n{_digest(program(builder.split()[0]))}\n"
    if not _is_due(recipe, target):
        return
    with lock.hold(target.parent / f".{target.name}.lock", f"building {policy_path}", wait=True):
        if _is_due(recipe, target):
            _build(campaign, builder, target, recipe)


def _recipe_file(target: Path) -> Path:
    return target.with_name(f".{target.name}.built")


def _is_due(recipe: str, target: Path) -> bool:
    """Returns whether the folder is missing, or was built by another line, by another program or from other data."""
    return not target.is_dir() or files.read_text(_recipe_file(target)) != recipe


def _digest(builder: Path) -> str:
    """Returns the hash of all code and data beside a builder, because the builder may read any of it."""
    sources = (path for kind in ("*.py", "*.jsonl") for path in builder.parent.rglob(kind))
    digests = {path.relative_to(builder.parent).as_posix(): files.sha256_file(path) for path in sources}
    return files.sha256(files.canonical(digests))


def _build(campaign: Campaign, builder: str, target: Path, recipe: str) -> None:
    name, *arguments = builder.split()
    partial, log = target.with_name(f".{target.name}.partial"), target.with_name(f"{target.name}.log")
    shutil.rmtree(partial, ignore_errors=True)
    builder_exit = process.run(
        [sys.executable, str(program(name)), str(partial), *arguments],
        cwd=target.parent,
        env=environment.for_row(campaign, gpu.CPU_DEVICE, "egl"),
        stdout=log.with_suffix(".out"),
        stderr=log,
        bounds=Bounds(BUILD_SECS),
    )
    if builder_exit.code != 0 or not partial.is_dir():
        cause = process.cause_of_end(builder_exit, log.with_suffix(".out"), log)
        what = f"the builder {builder} made no checkpoint, {cause}"
        raise TrackaError(Finding(str(log), what, "Read this log and mend the builder"))
    shutil.rmtree(target, ignore_errors=True)
    # The file is written while there is no folder, so that it never describes another folder.
    files.write_text(_recipe_file(target), recipe)
    os.replace(partial, target)


def program(builder: str) -> Path:
    """Returns the file of a builder, in the repository's `fixtures/` or in the installed `tracka.fixtures`.

    Raises TrackaError where neither folder has the builder.
    """
    spec = find_spec("tracka.fixtures")
    folders = [Path(place) for place in (spec.submodule_search_locations or [])] if spec else []
    repository_folder = Path(__file__).resolve().parents[2] / "fixtures"
    for folder in [repository_folder, *folders]:
        if (folder / f"{builder}.py").is_file():
            return folder / f"{builder}.py"
    raise TrackaError(Finding(f"builder {builder}", "fixtures/ has no such builder", "Mend [build] in campaign.toml"))
