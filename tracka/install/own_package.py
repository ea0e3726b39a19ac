"""Makes what brings this Track A into another environment, where it runs as an installed package, not from a checkout.

The wheel from which Track A was installed may be gone. So its installed files are packed again: the other environment
gets the same bytes, and no index is asked. Standard library only: this module runs while packages are exchanged.
"""

import base64
import hashlib
import importlib.metadata
import shutil
import zipfile
from pathlib import Path, PurePosixPath

from ..core import installation
from ..core.errors import Finding, ToolMissing

NAME = "tracka"
MADE_BY_INSTALLERS = ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json")


def wheel(folder: Path) -> Path:
    """Packs the installed files of Track A into a wheel in `folder` and returns the wheel.

    Raises ToolMissing where Track A was not installed, but merely found on PYTHONPATH.
    """
    distribution = _distribution()
    tag = f"{NAME}-{distribution.version}"
    target, record = folder / f"{tag}-py3-none-any.whl", f"{tag}.dist-info/RECORD"
    lines = []
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in filter(_is_of_wheel, distribution.files or ()):
            data = Path(str(distribution.locate_file(file))).read_bytes()
            archive.writestr(str(file), data)
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
            lines.append(f"{file},sha256={digest},{len(data)}\n")
        archive.writestr(record, "".join([*lines, f"{record},,\n"]))
    return target


def record() -> str:
    """Returns the list of Track A's installed files with their hashes; empty where it was not installed."""
    try:
        return _distribution().read_text("RECORD") or ""
    except ToolMissing:
        return ""


def requirements() -> list[str]:
    """Returns the requirements of the installed Track A and of its extras; none where it is not installed."""
    try:
        return _distribution().requires or []
    except ToolMissing:
        return []


def plugins(folder: Path) -> list[Path]:
    """Copies the projects of lerobot's policy plug-ins into `folder` and returns the copies.

    A project is built where it lies, which would leave files in the installed package.
    """
    projects = sorted(path.parent for path in installation.fixtures().glob("lerobot_policy_*/pyproject.toml"))
    return [Path(shutil.copytree(project, folder / project.name)) for project in projects]


def _distribution() -> importlib.metadata.Distribution:
    try:
        return importlib.metadata.distribution(NAME)
    except importlib.metadata.PackageNotFoundError:
        remedy = "Install the wheel first: pip install tracka-VERSION-py3-none-any.whl"
        raise ToolMissing(Finding(str(installation.PACKAGE), "Track A is not installed here", remedy)) from None


def _is_of_wheel(file: PurePosixPath) -> bool:
    """Returns whether an installed file came from the wheel; scripts and bytecode are made by each installer."""
    return ".." not in file.parts and file.suffix != ".pyc" and file.name not in MADE_BY_INSTALLERS
