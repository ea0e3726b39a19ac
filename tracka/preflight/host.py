"""Checks this host: GPUs and their driver, installed software, LIBERO's files, disk space, limits and clock."""

import os
import re
import resource
import shutil
import tempfile
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from packaging.version import Version

from ..campaign.campaign import Campaign
from ..campaign.matrix import Row
from ..core import installation
from ..core.check import Check, advisory_check, required_check
from ..core.lerobot_facts import FILMED_EPISODES, LEROBOT_VERSION
from ..engines import cli_capabilities, software
from ..execution import environment, gpu

# What a run leaves on disk, estimated from above. Measured: 0.8 KB for a frame of 360 x 360 pixels, at most
# 520 frames, and 0.2 MB of logs for 90 episodes. A log over the output limit is cut at 8 MiB, and its row has failed.
VIDEO_MIB, ROW_MIB = 0.5, 1.0
CACHE_MIB = 12 * 1024  # for a checkpoint from the hub: 9 GB for a pi0, the rest for its tokenizer and partial downloads
ROW_FILES = 40
OPEN_FILES = 1024  # for the pipes and shared memory of eight rows of ten environments, and torch's own files
SKEW_SECS = 2.0
FEWER_GPUS = (
    "Use a host with these GPUs, name them in CUDA_VISIBLE_DEVICES, or name fewer in the matrix and as expected_gpus in"
    " campaign.toml"
)
NO_GPU = (
    "Use a host with GPUs, see that CUDA_VISIBLE_DEVICES hides none, or make a campaign for the CPU:"
    " `tracka init NAME --gpus 0`"
)


def checks(gpu_ids: Sequence[int], gpus: Sequence[gpu.Gpu], campaign: Campaign, requested: str) -> list[Check]:
    """Returns the checks of this host, which must have the GPUs `gpu_ids` and all that the campaign expects.

    `requested` is the GL backend that the campaign asks for.
    """
    return [
        visible(gpu_ids, gpus, campaign.host_gpus),
        cuda(bool(gpu_ids) or campaign.expected_gpus > 0),
        lerobot(),
        packages(),
        *libero(),
        *_disk_checks(campaign),
        limits(),
        clock(campaign.layout.root),
        _display(requested),
    ]


def visible(gpu_ids: Sequence[int], gpus: Sequence[gpu.Gpu], expected: int) -> Check:
    """Checks that the GPUs `gpu_ids`, and the first `expected` GPUs that the campaign needs, are visible."""
    required_ids = sorted({*gpu_ids, *range(expected)})
    missing = [gpu.device_name(number) for number in required_ids if number >= len(gpus)]
    evidence = f"{len(gpus)} visible, {len(required_ids)} expected{'; missing: ' * bool(missing)}{', '.join(missing)}"
    if problem := gpu.problem():
        return required_check("gpus", False, f"{evidence}; {problem.where}: {problem.what}", problem.remedy or "")
    evidence += "".join(f"; in use: {line}" for visible_gpu in gpus for line in _users(visible_gpu))
    return required_check("gpus", not missing, evidence, FEWER_GPUS if gpus else NO_GPU)


def _users(visible_gpu: gpu.Gpu) -> list[str]:
    """Returns the other processes that compute on a GPU. They block nothing, but the user should know of them."""
    return [f"{gpu.device_name(visible_gpu.gpu_id)} by {user}" for user in gpu.processes(visible_gpu.uuid)]


def lerobot() -> Check:
    """Compares the installed lerobot with the version whose command line Track A knows."""
    version = software.versions()["lerobot"]
    remedy = f"Run `{installation.SETUP}`: the command line differs between lerobot versions"
    return required_check(
        "version:lerobot", version.split("+")[0] == LEROBOT_VERSION, f"{version}, pinned {LEROBOT_VERSION}", remedy
    )


def libero() -> list[Check]:
    """Checks that LIBERO's files, whose hashes set-up checked, are in place.

    Without these files, LIBERO asks on stdin or downloads.
    """
    config = Path(environment.libero_config_path()) / "config.yaml"
    assets = environment.libero_assets()
    evidence = str(assets or "LIBERO is not installed")
    return [
        required_check("libero_config", config.is_file(), str(config), f"Run `{installation.SETUP}`"),
        required_check("libero_assets", bool(assets and assets.is_dir()), evidence, f"Run `{installation.SETUP}`"),
    ]


def cuda(needs_gpu: bool) -> Check:
    """Compares torch's CUDA with the newest CUDA that the driver runs. Within a major version, every version runs."""
    torch_cuda, driver = _torch_cuda() or "unknown", gpu.driver()
    evidence = f"torch is made for CUDA {torch_cuda}, " + (
        f"driver {driver[0]} runs up to {driver[1]}" if driver else "there is no NVIDIA driver"
    )
    if not needs_gpu or os.environ.get(gpu.PRETEND):
        return Check("cuda", "pass", f"{evidence}; the campaign needs no real GPU")
    good = driver is not None and torch_cuda[0].isdigit() and Version(driver[1]).major >= Version(torch_cuda).major
    return required_check(
        "cuda", good, evidence, "Install a newer NVIDIA driver, or a torch made for a CUDA that the driver runs"
    )


def _torch_cuda() -> str | None:
    """Returns the CUDA version that torch was made for, from its version.py, since importing torch takes seconds."""
    package = find_spec("torch")
    text = Path(package.origin).with_name("version.py").read_text() if package and package.origin else ""
    match = re.search(r"^cuda\b.*= '([\d.]+)'", text, re.MULTILINE)
    return match[1] if match else None


def packages() -> Check:
    """Compares the installed packages with requirements.lock, unless the lock is missing."""
    lock = installation.lock_folder() / installation.LOCK
    if not lock.is_file():
        return Check("packages", "pass", f"not compared: {lock} is missing", required=False)
    pinned_versions: dict[str, str] = dict(re.findall(r"^([\w.-]+)==([^\s;\\]+)", lock.read_text(), re.MULTILINE))
    installed: dict[str, str] = {
        name.lower().replace("_", "-"): version
        # Of two distributions with one name, Python imports the first in sys.path.
        for name, version, _ in reversed(cli_capabilities.distributions())
    }
    differences = [
        f"{name} {installed[name]} instead of {version}"
        for name, version in pinned_versions.items()
        if not _is_same_release(installed.get(name, version), version)
    ]
    evidence = f"{len(pinned_versions)} packages pinned, {len(differences)} differ"
    evidence += f": {', '.join(differences[:10])}" if differences else ""
    return advisory_check(
        "packages",
        not differences,
        evidence,
        f"Run `{installation.SETUP}`: other packages can change outcomes",
    )


def _is_same_release(version: str, other_version: str) -> bool:
    """Returns whether two versions are the same release, without the part that says what it was built for."""
    return Version(version).public == Version(other_version).public


def _disk_checks(campaign: Campaign) -> list[Check]:
    """Checks the disk space for what the campaign will write, and for a checkpoint in the hub's cache."""
    files = sum(_videos(campaign, row) for row in campaign.enabled) + len(campaign.enabled) * ROW_FILES
    artifacts = disk("disk:artifacts", campaign.layout.root, artifacts_mib(campaign), files)
    cache = _existing(Path(environment.hf_home()))
    hub = any(not (campaign.layout.root / row.policy_path).is_dir() for row in campaign.enabled)
    return [artifacts, disk("disk:cache", cache, CACHE_MIB if hub else 0, 1000)]


def artifacts_mib(campaign: Campaign) -> int:
    """Returns the MiB that the runs of all enabled rows leave at most, without logs that reach the output limit."""
    return round(sum(_videos(campaign, row) * VIDEO_MIB + ROW_MIB for row in campaign.enabled))


def _videos(campaign: Campaign, row: Row) -> int:
    """Returns how many videos a run of the row leaves."""
    filmed = int(campaign.resident.get("videos", 1)) if campaign.is_resident else FILMED_EPISODES
    return len(campaign.task_ids(row)) * min(row.n_episodes, filmed)


def disk(name: str, folder: Path, mib: int, inodes: int) -> Check:
    """Checks that the disk of `folder` has so many MiB, and room for so many files."""
    status = os.statvfs(_existing(folder))
    free, free_inodes = status.f_bavail * status.f_frsize >> 20, status.f_favail
    evidence = f"{free} MiB and {free_inodes} inodes free in {folder}, {mib} MiB and {inodes} files needed"
    enough = free >= mib and (free_inodes >= inodes or status.f_files == 0)  # some file systems do not count inodes
    return required_check(name, enough, evidence, "Free space on that disk, or move the folder to a larger disk")


def _existing(folder: Path) -> Path:
    """Returns the folder, or the nearest existing folder above it."""
    return next(place for place in (folder, *folder.parents) if place.is_dir())


def limits() -> Check:
    """Checks how many files a process may open, and how much memory processes can share."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    evidence = f"{soft} open files per process (up to {hard})"
    good = soft == resource.RLIM_INFINITY or soft >= OPEN_FILES
    shared = Path("/dev/shm")
    free = os.statvfs(shared).f_bavail * os.statvfs(shared).f_frsize >> 20 if shared.is_dir() else 0
    good = good and free >= 64
    evidence += f", {free} MiB of shared memory"
    return advisory_check("limits", good, evidence, "Run `ulimit -n 4096`; start a container with --shm-size=1g")


def clock(root: Path) -> Check:
    """Compares the host's clock with the file system's, since resume and handoffs compare times of both."""
    with tempfile.NamedTemporaryFile(dir=_existing(root), prefix=".clock-") as file:
        skew = abs(Path(file.name).stat().st_mtime - time.time())
    evidence = f"{time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime())} UTC, {skew:.1f} s off the file system's"
    good = skew < SKEW_SECS and time.time() > Path(__file__).stat().st_mtime - 86400
    return advisory_check("clock", good, evidence, "Set the host's clock (NTP), and that of the file server")


def _display(requested: str) -> Check:
    display, xvfb = os.environ.get("DISPLAY"), shutil.which("xvfb-run")
    evidence = f"DISPLAY is {display or 'not set'}, xvfb-run is {'installed' if xvfb else 'not installed'}"
    remedy = "Install xvfb: GLX needs a display, and preflight tries GLX where EGL fails"
    return advisory_check("display", bool(display or xvfb) or requested != "glx", evidence, remedy)
