"""Finds the system's OpenGL libraries that are missing, and installs them where this process may install packages.

Guarantees: nothing is loaded into this process; packages are installed by root alone, with apt-get; a library that no
package of this release provides is only a warning as long as something can draw.
"""

import logging
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass

from ..core import log_cause
from ..core.errors import Finding, InstallFailed, ToolMissing

LOG = logging.getLogger("tracka.setup")
PROBE = """
import ctypes, glob, sys
def exists(name):
    if "/" in name:
        return bool(glob.glob(name))
    try:
        return bool(ctypes.CDLL(name))
    except OSError:
        return False
for names in sys.argv[1:]:
    print(int(any(exists(name) for name in names.split())))
"""


@dataclass(frozen=True)
class GlLibrary:
    """One library to find under any of its names, sonames or file patterns, and the Debian package that provides it."""

    names: tuple[str, ...]
    package: str
    needed: bool = False

    def __str__(self) -> str:
        return self.names[0].rsplit("/", 1)[-1]


LIBRARIES = (
    GlLibrary(("libEGL.so.1",), "libegl1", needed=True),
    GlLibrary(("libEGL_mesa.so.0", "libEGL_nvidia.so.0"), "libegl-mesa0", needed=True),
    GlLibrary(("libGL.so.1",), "libgl1", needed=True),
    GlLibrary(("libOpenGL.so.0",), "libopengl0", needed=True),
    GlLibrary(("libGLESv2.so.2",), "libgles2"),
    GlLibrary(("libOSMesa.so.8", "libOSMesa.so.6"), "libosmesa6"),
    GlLibrary(("/usr/share/glvnd/egl_vendor.d/*mesa.json", "/etc/glvnd/egl_vendor.d/*mesa.json"), "libegl-mesa0"),
    GlLibrary(
        ("/usr/lib*/dri/swrast_dri.so", "/usr/lib/*/dri/swrast_dri.so", "/usr/lib/*/libgallium*"), "libgl1-mesa-dri"
    ),
)


def missing_gl_libraries(needed_only: bool = False) -> list[str]:
    """Returns the names of the libraries that are missing, or only of those that drawing needs if `needed_only`."""
    return [str(library) for library in _missing(needed_only)]


def install_command(needed_only: bool = False) -> str:
    """Returns the command that installs the missing libraries, or all of them where none is missing."""
    return f"apt-get install --no-install-recommends {' '.join(_packages(_missing(needed_only) or list(LIBRARIES)))}"


def _missing(needed_only: bool = False) -> list[GlLibrary]:
    libraries = [library for library in LIBRARIES if library.needed or not needed_only]
    argv = [sys.executable, "-I", "-S", "-c", PROBE, *(" ".join(library.names) for library in libraries)]
    answers = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True).stdout.split()
    # A library may end the process that loads it. Each library without an answer then counts as missing.
    answers += ["0"] * (len(libraries) - len(answers))
    return [library for library, answer in zip(libraries, answers, strict=True) if answer != "1"]


def ensure_gl(install_optional: bool = True) -> None:
    """Installs missing libraries, or warns in one line which packages to install.

    Raises InstallFailed or ToolMissing where nothing could draw. Without `install_optional` the function acts only if a
    library that drawing needs is missing, but then on all missing libraries at once.
    """
    if not _missing(needed_only=not install_optional):
        return
    missing = _missing()
    installs = os.geteuid() == 0 and shutil.which("apt-get") is not None
    log = _apt_install(_packages(missing)) if installs else ""
    still_missing = _missing() if installs else missing
    if any(library.needed for library in still_missing):
        raise (InstallFailed if installs else ToolMissing)(_finding(still_missing, log))
    if still_missing:
        LOG.warning("warning: %s", _finding(still_missing, ""))


def _finding(missing: list[GlLibrary], log: str) -> Finding:
    names = ", ".join(map(str, missing))
    remedy = f"Install the packages as root: apt-get install --no-install-recommends {' '.join(_packages(missing))}"
    return Finding("OpenGL", f"the system lacks {names}" + (f"; apt-get said: {log}" if log else ""), remedy)


def _packages(missing: list[GlLibrary]) -> list[str]:
    return sorted({library.package for library in missing})


def _apt_install(packages: list[str]) -> str:
    """Installs `packages`, one by one if not all are available.

    Returns the cause of the last failure, or an empty text.
    """
    LOG.info("set-up: apt-get install %s ...", " ".join(packages))
    failure = _apt_get("update")
    if not _apt_get("install", "--yes", "--no-install-recommends", *packages):
        return ""
    for package in packages:
        failure = _apt_get("install", "--yes", "--no-install-recommends", package) or failure
    return failure


def _apt_get(*words: str) -> str:
    """Runs apt-get and returns how a failed run ended and why, or an empty text after success."""
    argv = ["apt-get", "--quiet", "--option", "DPkg::Lock::Timeout=120", *words]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    completed = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environment)
    if completed.returncode == 0:
        return ""
    return log_cause.how_it_ended(completed.returncode, completed.stderr or completed.stdout)
