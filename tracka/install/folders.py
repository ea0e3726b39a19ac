"""Says of folders whether they are there and can be used, also where nobody may look.

Standard library only: the set-up runs this module before anything is installed.
"""

import os
from pathlib import Path

from ..core.files import make_folder


def exists(path: Path) -> bool:
    """Returns whether something lies at `path`, also a broken link, and also where nobody may look what it is."""
    try:
        path.lstat()
    except PermissionError:
        return True
    except OSError:
        return False
    return True


def can_be_written(folder: Path) -> bool:
    """Returns whether files may be made in `folder`, or the folder in the nearest place above it that exists."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if exists(path))
    return os.access(there, os.W_OK | os.X_OK) and there.is_dir()


def why_not_made(folder: Path) -> str:
    """Makes a missing folder, and returns why it could not be made; empty where it is there now."""
    try:
        make_folder(folder)
    except OSError as error:
        return str(error.strerror)
    return ""
