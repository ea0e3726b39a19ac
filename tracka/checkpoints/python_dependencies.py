"""Checks whether the packages that lerobot 0.6.1 imports for a policy are installed; none of them is imported here.

lerobot imports them late, so a row without them would end minutes after its start.
"""

import importlib.metadata
import re
import sys
from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from ..campaign.campaign import Campaign
from ..core import files, installation
from ..core.check import Check, run_check
from ..core.errors import Finding, TrackaError
from . import adapter, checkpoint
from .checkpoint import Checkpoint

CHECK = "imports:"  # the check's name is this, followed by the checkpoint's path
LEROBOT = "lerobot"
# Policy type -> lerobot's extra, and the distributions of that extra that loading and playing a policy imports. The
# sources are what policies/*/*.py require (require_package) and what transformers requires for them (num2words for
# SmolVLM's processor, accelerate for weights with low_cpu_mem_usage). A type that is not listed is a plug-in's.
TYPES: dict[str, tuple[str, tuple[str, ...]]] = {
    "act": ("", ()),
    "diffusion": ("diffusion", ("diffusers",)),
    "eo1": ("eo1", ("transformers",)),
    "evo1": ("evo1", ("transformers",)),
    "fastwam": ("fastwam", ("transformers", "diffusers")),
    "gaussian_actor": ("hilserl", ("transformers",)),
    "groot": ("groot", ("transformers", "diffusers", "dm-tree")),
    "lingbot_va": ("lingbot-va", ("transformers", "diffusers", "accelerate")),
    "molmoact2": ("molmoact2", ("transformers", "scipy", "peft")),
    "multi_task_dit": ("multi-task-dit", ("transformers", "diffusers")),
    "pi0": ("pi", ("transformers",)),
    "pi05": ("pi", ("transformers",)),
    "pi0_fast": ("pi", ("transformers", "scipy")),
    "smolvla": ("smolvla", ("transformers", "num2words", "accelerate")),
    "tdmpc": ("", ()),
    "vla_jepa": ("vla-jepa", ("transformers", "diffusers")),
    "vqbet": ("", ()),
    "wall_x": ("wallx", ("transformers", "peft", "torchdiffeq", "qwen-vl-utils")),
    "xvla": ("xvla", ("transformers",)),
}
# (Policy type, distribution) -> keys of config.json: the policy imports the distribution only if one of them is set.
ONLY_IF = {
    ("gaussian_actor", "transformers"): ("vision_encoder_name",),
    ("molmoact2", "peft"): ("enable_lora_vlm",),
}
PEFT = "peft"  # both lerobot's extra and the distribution, for adapters of any policy type
MODULES = {"dm-tree": "tree", "qwen-vl-utils": "qwen_vl_utils"}  # distribution -> module, where the names differ


def check(campaign: Campaign, policy_path: str) -> Check:
    """Returns the check `imports:POLICY_PATH`: the packages that the policy imports are installed."""
    return run_check(f"{CHECK}{policy_path}", partial(_evidence, campaign, policy_path))


def _evidence(campaign: Campaign, policy_path: str) -> str:
    point = checkpoint.resolve(policy_path, campaign.layout.root, campaign.policy_roots)
    require(point, campaign)
    if point.policy_type not in TYPES:
        return f"{point.policy_type} is a plug-in's policy type; the plug-in's distribution names what it imports"
    return f"{point.policy_type}: {', '.join(required_packages(point)) or 'nothing beyond lerobot itself'}"


class NotInstalled(TrackaError):
    """Raised where a package is missing that the policy would import."""


def require(point: Checkpoint, campaign: Campaign) -> None:
    """Raises NotInstalled naming the missing packages that the policy imports, with the command that installs them.

    A campaign with its own `executable` is not checked, because that program has packages of its own.
    """
    missing = [] if campaign.executable else [name for name in required_packages(point) if not _is_installed(name)]
    if missing:
        what = (
            f"a {point.policy_type}{' with an adapter' if PEFT in missing else ''} imports {', '.join(missing)}, which"
        )
        are = "are" if len(missing) > 1 else "is"
        raise NotInstalled(Finding(point.source, f"{what} {are} not installed", _remedy(point, missing)))


def required_packages(point: Checkpoint) -> list[str]:
    """Returns the distributions beyond lerobot's own requirements that loading and playing this policy imports."""
    config = files.read_or_empty(point.folder / "config.json")
    _, names = TYPES.get(point.policy_type, ("", ()))
    conditions = {name: ONLY_IF.get((point.policy_type, name)) for name in names}
    needed = [name for name, keys in conditions.items() if keys is None or any(config.get(key) for key in keys)]
    return list(dict.fromkeys([*needed, *([PEFT] if adapter.is_adapter(point.folder) else [])]))


def _is_installed(name: str) -> bool:
    """Returns whether lerobot finds the package: lerobot looks for the module, then for the distribution's version."""
    try:
        return find_spec(MODULES.get(name, name)) is not None and bool(importlib.metadata.version(name))
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return False


def _remedy(point: Checkpoint, missing: Sequence[str]) -> str:
    """Returns the remedy for packages that are lacking.

    The remedy is set-up where the lock has all of them, else the command that adds lerobot's extras to this Python.
    """
    if set(missing) <= _locked_packages():
        return f"Run `{installation.SETUP}`, which installs the packages of requirements.lock"
    extra, names = TYPES.get(point.policy_type, ("", ()))
    extras = [extra] if set(missing) & set(names) else []
    extras += [PEFT] if set(missing) - set(names) else []
    requirement = f"'{LEROBOT}[{','.join(extras)}]=={importlib.metadata.version(LEROBOT)}'"
    until = "; the next `make setup` removes it again" if installation.IS_CHECKOUT else ""
    return f"Run `{_installer()} {requirement}`{until}"


def _installer() -> str:
    """Returns the command that installs packages into the environment of this Python, by pip or by the uv beside it."""
    if find_spec("pip"):
        return f"{sys.executable} -m pip install"
    uv = Path(sys.executable).parent / "uv"
    return f"{uv if uv.is_file() else 'uv'} pip install --python {sys.executable}"


def _locked_packages() -> set[str]:
    """Returns the distributions in requirements.lock; empty where the lock is missing."""
    lock = installation.lock_folder() / installation.LOCK
    return set(re.findall(r"^([\w.-]+)==", lock.read_text(), re.MULTILINE)) if lock.is_file() else set()
