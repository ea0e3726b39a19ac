"""Says which extra of Track A brings a package that this installation lacks.

Without extras Track A is small: it verifies, validates and bundles. `report` adds figures and statistics. What plays
episodes comes from the lock, by `tracka setup`.
"""

import importlib.metadata

from . import installation, parsing
from .errors import Finding

PACKAGES = {  # extra -> the modules that are imported from its packages
    "report": ("av", "matplotlib", "numpy", "pandas", "scipy", "statsmodels"),
    "sign": ("cryptography", "securesystemslib"),
    "rerun": ("rerun",),
    "wandb": ("wandb",),
    "trackio": ("trackio",),
}
LOCKED = (
    *("huggingface_hub", "lerobot", "libero", "mujoco", "pynvml", "pytest", "rich", "robosuite", "safetensors"),
    *("torch", "transformers", "xdist", "yaml"),
)


def finding(error: ModuleNotFoundError) -> Finding | None:
    """Returns what to install for a module that is missing; None for a module of no extra."""
    module = (error.name or "").partition(".")[0]
    extra = next((extra for extra, modules in PACKAGES.items() if module in modules), None)
    if extra is None and module not in LOCKED:
        return None
    what = f"this installation of Track A lacks {module}"
    return Finding("tracka", what, f"Run `{install_command(extra) if extra else installation.SETUP}`")


def install_command(extra: str) -> str:
    """Returns the command that adds an extra to this installation, from its own wheel if that is known.

    What pip adds to the environment of a `uvx` is not there the next time, so `uvx` itself is asked for the extra.
    """
    package = f"'tracka[{extra}]{_origin()}'"
    return f"uvx --from {package} tracka" if installation.IS_UVX else f"pip install {package}"


def _origin() -> str:
    """Returns ` @ URL` of the wheel that was installed, as pip has recorded it; empty for an index or a checkout."""
    try:
        text = importlib.metadata.distribution("tracka").read_text("direct_url.json")
    except importlib.metadata.PackageNotFoundError:
        return ""
    origin = parsing.json_value(text.encode()) if text else {}
    return f" @ {origin['url']}" if isinstance(origin, dict) and "archive_info" in origin else ""
