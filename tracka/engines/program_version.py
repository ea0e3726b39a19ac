"""Asks a lerobot-eval for its own version, and finds the Python that it runs in.

Measured on lerobot 0.6.1: `lerobot-eval --version` imports lerobot for 20 s of a core, as long as a help takes, and
then ends with exit code 2 ("unrecognized arguments: --version"). The program alone knows whether it answers, so it is
asked once, beside its help and in a process of its own; the answer is cached as the help is. Guarantee: only exit code
0 and a line that is a version and nothing else is an answer.
"""

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from ..core import held_folder, log_cause, reading, system_errors
from ..execution import environment, process
from ..execution.process import Bounds

VERSION_SECS = 120  # a program that ends later is not waited for: its package's metadata has a version too
# A name, the word "version", the version, and something in brackets; all but the version may be missing.
_VERSION = re.compile(r"(?:[A-Za-z][\w.-]*[,:]? )?(?:version:? )?v?\d+(?:\.\d+)+[\w.+!-]*(?: \([^()]{1,80}\))?")
_INTERPRETER = re.compile(rb"(?:#!|')\s*(/\S*?/python[\d.]*)(?=['\s])")


def ask(command: Sequence[str]) -> str | None:
    """Returns the version that `command --version` prints, and an empty text where that is no version.

    Returns None where the program did not end within its time, or the system started no process.
    """
    with held_folder.make() as folder:
        out, err = folder / "out", folder / "err"
        try:
            ended = process.run(
                [*command, "--version"],
                cwd=Path.cwd(),  # where a command of a relative path is found
                env=environment.base(),
                stdout=out,
                stderr=err,
                bounds=Bounds(VERSION_SECS, grace=2),
            )
        except OSError as error:
            return None if system_errors.limit(error) else ""
        if ended.stopped:
            return None
        lines = map(str.strip, log_cause.read(out, err).splitlines())
        return next((line for line in lines if _VERSION.fullmatch(line)), "") if ended.code == 0 else ""


def python_of(program: str) -> Path | None:
    """Returns the Python that a program runs in: itself, or that of its first line; None where it names none."""
    path = Path(shutil.which(program) or program)
    if re.fullmatch(r"python[\d.]*", path.name):
        return path
    try:
        with reading.opened(path, reading.OUTPUT) as file:
            named = _INTERPRETER.search(file.read(1024))
    except OSError:
        return None
    return Path(named[1].decode(errors="surrogateescape")) if named else None
