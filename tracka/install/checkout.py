"""Says why set-up cannot install lerobot from a folder in place of the lock's lerobot.

Preflight would refuse a checkout of another version too, but only after minutes of installing. Standard library only:
the set-up runs this module before anything is installed.
"""

import os
from pathlib import Path

from ..core import parsing, reading
from ..core.files import Json
from . import folders

NO_CHECKOUT = "is not a checkout of lerobot"


def fault(folder: Path, version: str) -> str:
    """Returns why lerobot `version` cannot be installed from `folder`, to be read after its name; empty where it can.

    Git is not asked: what is not in version control can be installed too.
    """
    try:
        project = _project(folder / "pyproject.toml")
    except OSError as error:
        return f"{NO_CHECKOUT} (pyproject.toml: {error.strerror})"
    except (ValueError, RecursionError) as error:
        return f"{NO_CHECKOUT} (pyproject.toml is broken: {error})"
    if project.get("name") != "lerobot":
        return f"{NO_CHECKOUT} (pyproject.toml names the project {project.get('name')!r})"
    if project.get("version") != version:
        return f"holds lerobot {project.get('version') or 'without a fixed version'}, not {version}"
    return "" if os.access(folder, os.W_OK) else "cannot be written, and the installation writes there"


def default_fault(folder: Path, version: str) -> str:
    """Returns the same for a folder that nobody named.

    Such a folder must be a Git checkout too: nobody says that an unpacked or copied folder is what its version says.
    """
    return fault(folder, version) or ("" if folders.exists(folder / ".git") else "is not a Git checkout")


def _project(path: Path) -> Json:
    """Returns the table `project` of a pyproject.toml; empty where there is none."""
    table = parsing.toml_table(reading.content(path, reading.SETTINGS)).get("project")
    return table if isinstance(table, dict) else {}
