"""Builds the environment of a row's process: what is passed on, what is set, and what a manifest may show of it."""

import os
import re
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from ..campaign.campaign import Campaign
from ..campaign.matrix import CPU
from ..core import files, hashing, reading, redaction
from ..core.hashing import Kind
from ..install import setup
from . import gpu, orphans, warm_request
from .gpu import Device

# An allow list, because a CI job's environment holds secrets that an evaluated policy must not read. The hub's token
# is passed on, because gated tokenizers need it.
INHERITED = re.compile(
    r"PATH|HOME|USER|LOGNAME|SHELL|LANG|LC_\w+|TMPDIR|LD_LIBRARY_PATH|PYTHONPATH|PYTHONHASHSEED|SSL_CERT_\w+"
    r"|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE|(?:https?|no)_proxy|(?:HTTPS?|NO)_PROXY|XDG_\w+|DISPLAY|XAUTHORITY|HF_\w+"
    r"|HUGGINGFACE_\w+|TRANSFORMERS_\w+|TORCH\w*|PYTORCH_\w+|CUDA_\w+|NVIDIA_\w+|NCCL_\w+|OMP_\w+|MKL_\w+|OPENBLAS_\w+"
    r"|NUMBA_\w+|MUJOCO_\w+|LIBERO_\w+|PYOPENGL_\w+|MESA_\w+|LIBGL_\w+|GALLIUM_\w+|LP_\w+|EGL_\w+|__EGL_\w+|__GLX_\w+"
    r"|VK_\w+|SLURM_(?!JWT)\w+|TRACKA_\w+"
)
# Variables that an evaluation needs and that a reader must set to run the evaluation again.
REQUIRED_VARIABLES = (
    "CUDA_DEVICE_ORDER",
    "CUDA_VISIBLE_DEVICES",
    "HF_HOME",
    "HF_HUB_OFFLINE",
    "LIBERO_CONFIG_PATH",
    "MUJOCO_EGL_DEVICE_ID",
    "MUJOCO_GL",
    "PYTHONPATH",
    "PYTHONUNBUFFERED",
    "TZ",
)
# Variables that a child inherits but that are not part of a row's identity by their value. Some change no outcome:
# folders, secrets, the node, the job. The identity has others by other means: backend, device, code on PYTHONPATH,
# folders of LIBERO_CONFIG_PATH.
NOT_IN_IDENTITY = re.compile(
    r"PATH|HOME|USER|LOGNAME|SHELL|LANG|LC_\w+|TMPDIR|LD_LIBRARY_PATH|PYTHONPATH|SSL_CERT_\w+|REQUESTS_CA_BUNDLE"
    r"|CURL_CA_BUNDLE|\w+_(?:proxy|PROXY)|XDG_\w+|DISPLAY|XAUTHORITY|HF_(?:ENDPOINT|TOKEN\w*|HUB_\w+|XET_\w+)"
    r"|HF_(?:USER|DEBUG|(?:DATASETS|LEROBOT|INFERENCE)_\w+)|HUGGINGFACE_\w+|\w+_(?:HOME|PATH|DIR|ROOT|CACHE|CACHE_\w+)"
    r"|\w+_(?:OFFLINE|VERBOSITY|VERBOSE|LOGS|LOG_LEVEL|DEBUG|WARNINGS|VERSION|STACKTRACES)|OMP_DISPLAY_\w+"
    r"|CUDA_(?:VISIBLE_DEVICES|DEVICE_ORDER|MPS_\w+)|NVIDIA_(?:VISIBLE_DEVICES|DRIVER_CAPABILITIES|REQUIRE_\w+)"
    r"|NVIDIA_(?:BUILD|PRODUCT)_\w+|TORCH_CUDA_ARCH_LIST|TORCHELASTIC_\w+|(?:TORCH_)?NCCL_\w+"
    r"|MUJOCO_(?:GL|EGL_DEVICE_ID)|SLURM_\w+|TRACKA_\w+"
)
# These variables choose the GL driver by the files that they name. The files count by their content.
DRIVER_VARIABLES = re.compile(
    r"__EGL_VENDOR_LIBRARY_\w+|__EGL_EXTERNAL_PLATFORM_CONFIG_\w+|VK_\w*(?:FILENAMES|FILES|PATH)"
    r"|(?:LIBGL|EGL)_DRIVERS_(?:PATH|DIR)"
)
DRIVERS = Kind((".json", ".so"), follows_links=True)
ROWS_AT_ONCE = "TRACKA_ROWS_AT_ONCE"  # the resident engine divides this host's cores by this number
# Variables that a row does not inherit: robosuite refuses an EGL id that does not fit the leased device.
DEVICE_VARIABLES = ("CUDA_VISIBLE_DEVICES", "MUJOCO_EGL_DEVICE_ID")
# Variables that belong to one session or to one row.
NOT_INHERITED = (orphans.SESSION, warm_request.SOCKET)


def for_row(campaign: Campaign, device: Device, backend: str) -> dict[str, str]:
    """Returns the environment of a process that renders with `backend` and computes on `device`.

    On a cluster the step on the node adds the GPU that Slurm gives, and Slurm's own variables are not passed on.
    """
    inherited = {name: value for name, value in base().items() if name not in DEVICE_VARIABLES}
    if campaign.is_on_slurm:
        inherited = {name: value for name, value in inherited.items() if not name.startswith("SLURM_")}
    shared = {ROWS_AT_ONCE: "1" if campaign.is_on_slurm else str(max(1, campaign.expected_gpus))}
    given_there = campaign.is_on_slurm and device.gpu_id != CPU
    return inherited | {"MUJOCO_GL": backend} | shared | ({} if given_there else devices(campaign, device, backend))


def base() -> dict[str, str]:
    """Returns the environment that every child gets.

    It holds the allow-listed part of this process's environment, and the paths and switches that lerobot needs.
    """
    inherited = _inherited_variables()
    overrides = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{inherited.get('PATH', os.defpath)}",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",  # CUDA's own order is by speed, NVML's is by bus
        "HF_HOME": hf_home(),
        "LIBERO_CONFIG_PATH": libero_config_path(),
        "PYTHONUNBUFFERED": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "TZ": "UTC",
    }
    return inherited | overrides


def _inherited_variables() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if is_inheritable(name) and name not in NOT_INHERITED}


def outcome_variables() -> dict[str, str]:
    """Returns the variables that a row's process gets and that may decide its outcome, such as OMP_NUM_THREADS."""
    inherited = _inherited_variables()
    drivers = {name: _contents(value) for name, value in inherited.items() if DRIVER_VARIABLES.fullmatch(name)}
    others = {
        name: value for name, value in inherited.items() if name not in drivers and not NOT_IN_IDENTITY.fullmatch(name)
    }
    return manifest_environment(others) | drivers


def _contents(paths: str) -> str:
    """Returns one hash of the files that a variable names, and of the driver files in the folders that it names."""
    return files.sha256(
        files.canonical([hashing.of_kind(Path(path), DRIVERS) for path in paths.split(os.pathsep) if path])
    )


def is_inheritable(name: str) -> bool:
    """Returns whether a child inherits the variable `name`: it is listed, and it is not a secret or it is the hub's."""
    is_hub_variable = name.startswith(("HF_", "HUGGING"))
    return bool(INHERITED.fullmatch(name)) and (is_hub_variable or not redaction.NAME.fullmatch(name))


def hf_home() -> str:
    """Returns the folder of the hub's cache.

    The folder is the caller's HF_HOME, else the one that set-up was given for this environment, else the client's own.
    """
    cache_file = setup.hub_cache_file(Path(sys.prefix))
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return os.environ.get("HF_HOME") or reading.text_or_empty(cache_file).strip() or str(cache / "huggingface")


def libero_config_path() -> str:
    """Returns the folder of LIBERO's config.yaml.

    The folder is the caller's LIBERO_CONFIG_PATH, else the one that set-up wrote into this environment.
    """
    return os.environ.get("LIBERO_CONFIG_PATH") or str(Path(sys.prefix) / "etc" / "libero")


def libero_assets() -> Path | None:
    """Returns the folder of the installed LIBERO's assets, or None without LIBERO.

    The folder may be missing. LIBERO is not imported.
    """
    package = find_spec("libero")
    places = (package.submodule_search_locations or ()) if package else ()
    folders = [Path(place) / "libero" / "assets" for place in places]
    return next((folder for folder in folders if folder.is_dir()), folders[0] if folders else None)


def devices(campaign: Campaign, device: Device, backend: str) -> dict[str, str]:
    """Returns CUDA_VISIBLE_DEVICES and, for EGL, MUJOCO_EGL_DEVICE_ID, in the form that robosuite 1.4 accepts.

    robosuite takes CUDA_VISIBLE_DEVICES for an EGL index where the EGL id is unset, and asserts that the EGL id is part
    of that string. A CPU row hides all GPUs with an empty string and names an EGL device, because robosuite would crash
    without an EGL id.
    """
    if device.gpu_id == CPU and backend == "egl":
        return {"CUDA_VISIBLE_DEVICES": "", "MUJOCO_EGL_DEVICE_ID": os.environ.get("MUJOCO_EGL_DEVICE_ID", "0")}
    return gpu.variables(device.visible, backend, campaign.cuda_to_egl)


def manifest_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Returns the part of an environment that a manifest may hold, without possible secrets and passwords in URLs."""
    names = sorted(name for name in environment if not redaction.NAME.fullmatch(name))
    return {name: files.without_password(environment[name]) for name in names}
