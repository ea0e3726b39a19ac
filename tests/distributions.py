"""Builds the wheel and the source distribution of this working tree, for tests."""

import subprocess
import sys
from pathlib import Path

from campaigns import REPOSITORY

from tracka.core import lock


def build(out: Path, *options: str) -> Path:
    """Builds both distributions into `out`, or what `options` ask for, and returns `out`.

    One build at a time: setuptools writes beside the sources, where another build would find half of its files.
    """
    command = [sys.executable, "-m", "build", "--no-isolation", *options, "--outdir", str(out), str(REPOSITORY)]
    with lock.hold(REPOSITORY / "reports" / "build.lock", "the build", wait=True):
        ended = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY / "reports")
    assert ended.returncode == 0, ended.stderr
    return out
