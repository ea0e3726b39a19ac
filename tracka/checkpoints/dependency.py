"""Whether what lerobot 0.6.1 imports for a policy is installed: it imports late, so a row would end minutes after its
start. Packages are looked for, and none is imported.
"""

import importlib.metadata
import re
import sys
from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from ..campaign.campaign import Campaign
from ..core import files
from ..core.check import Check, guarded
from ..core.errors import Finding, TrackaError
from ..install import provision
from . import adapter, checkpoint
from .checkpoint import Checkpoint

CHECK = "imports:"  # before the path of a checkpoint: the name of its check
LEROBOT = "lerobot"
# Policy type -> lerobot's extra, and the distributions of it that loading and playing a policy imports: by what
# policies/*/*.py require (require_package), and what transformers requires for them (SmolVLM's processor num2words, and
# accelerate for weights with low_cpu_mem_usage). A type that is not here is a plug-in's.
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
# What a policy imports only if one of these keys of its config.json says so.
ONLY_IF = {
    ("gaussian_actor", "transformers"): ("vision_encoder_name",),
    ("molmoact2", "peft"): ("enable_lora_vlm",),
}
PEFT = "peft"  # lerobot's extra of that name, and the distribution: for adapters of any type
MODULES = {"dm-tree": "tree", "qwen-vl-utils": "qwen_vl_utils"}  # where the module has another name


def check(spec: Campaign, policy_path: str) -> Check:
    """The check `imports:POLICY_PATH`: what its policy imports is installed."""
    return guarded(f"{CHECK}{policy_path}", partial(_look, spec, policy_path))


def _look(spec: Campaign, policy_path: str) -> str:
    point = checkpoint.resolve(policy_path, spec.layout.root, spec.policy_roots)
    require(point, spec)
    if point.policy_type not in TYPES:
        return f"{point.policy_type} is a plug-in's type, whose distribution names what it imports"
    return f"{point.policy_type}: {', '.join(of(point)) or 'nothing beyond lerobot itself'}"


def require(point: Checkpoint, spec: Campaign) -> None:
    """Raises TrackaError naming what the policy would import and is not installed, with the command that installs it.

    A campaign with a program of its own (executable) has packages of its own.
    """
    lacking = [] if spec.executable else [name for name in of(point) if not _is_here(name)]
    if lacking:
        what = (
            f"a {point.policy_type}{' with an adapter' if PEFT in lacking else ''} imports {', '.join(lacking)}, which"
        )
        are = "are" if len(lacking) > 1 else "is"
        raise TrackaError(Finding(point.source, f"{what} {are} not installed", _remedy(point, lacking)))


def of(point: Checkpoint) -> list[str]:
    """The distributions beyond lerobot's own requirements that loading and playing this policy imports."""
    config = files.read_or_empty(point.folder / "config.json")
    _, names = TYPES.get(point.policy_type, ("", ()))
    asked = {name: ONLY_IF.get((point.policy_type, name)) for name in names}
    needed = [name for name, keys in asked.items() if keys is None or any(config.get(key) for key in keys)]
    return list(dict.fromkeys([*needed, *([PEFT] if adapter.is_one(point.folder) else [])]))


def _is_here(name: str) -> bool:
    """Whether lerobot finds the package: it looks for the module, then for the distribution's version."""
    try:
        return find_spec(MODULES.get(name, name)) is not None and bool(importlib.metadata.version(name))
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return False


def _remedy(point: Checkpoint, lacking: Sequence[str]) -> str:
    """The set-up where the lock has all that is lacking, else the command that adds lerobot's extras to this Python."""
    if set(lacking) <= _locked():
        return "Run `make setup`, which installs what requirements.lock has"
    extra, names = TYPES.get(point.policy_type, ("", ()))
    extras = [extra] if set(lacking) & set(names) else []
    extras += [PEFT] if set(lacking) - set(names) else []
    wanted = f"'{LEROBOT}[{','.join(extras)}]=={importlib.metadata.version(LEROBOT)}'"
    return f"Run `{_installer()} {wanted}`; `make setup` would take it away again"


def _installer() -> str:
    """The command that installs packages into the environment of this Python, by pip or by the uv beside it."""
    if find_spec("pip"):
        return f"{sys.executable} -m pip install"
    beside = Path(sys.executable).parent / "uv"
    return f"{beside if beside.is_file() else 'uv'} pip install --python {sys.executable}"


def _locked() -> set[str]:
    """The distributions that requirements.lock has; none where Track A does not run from a checkout."""
    lock = Path(__file__).parents[2] / provision.LOCK
    return set(re.findall(r"^([\w.-]+)==", lock.read_text(), re.MULTILINE)) if lock.is_file() else set()
