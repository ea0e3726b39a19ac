"""Builds the wheel and the source distribution of this working tree, for tests."""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from campaigns import REPOSITORY


def build(out: Path, *options: str) -> Path:
    """Builds both distributions into `out`, or what `options` ask for, and returns `out`.

    The build has a copy of the tree, since setuptools writes beside the sources, where other tests read meanwhile.
    """
    with tempfile.TemporaryDirectory(dir=out) as folder:
        tree = Path(folder)
        _copy_tree(tree)
        command = [sys.executable, "-m", "build", "--no-isolation", *options, "--outdir", str(out), str(tree)]
        ended = subprocess.run(command, capture_output=True, text=True, cwd=tree)
    assert ended.returncode == 0, ended.stderr
    return out


def _copy_tree(target: Path) -> None:
    """Copies the files that are, or are about to be, in the repository."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        if (REPOSITORY / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, target / name)
