"""Checks whether lerobot 0.6.1 loads a LoRA adapter (PEFT) and its base as they were meant.

The base is the policy that the adapter is for. lerobot makes the base by the adapter's config.json, gives the base the
weights in the base's model.safetensors, and lets PEFT put the adapter over the base (policies/factory.py, make_policy).
The base's own config.json and processors are not used.
"""

from collections.abc import Iterator
from pathlib import Path

from ..core import files
from ..core.errors import Finding, TrackaError
from ..core.files import Json
from . import checkpoint, checkpoint_format, hub_dependencies, tensors
from .hub_dependencies import NamedDependency

# The types whose from_pretrained asks the hub for weights without a revision (pi0/modeling_pi0.py and its likes).
WITHOUT_REVISION = ("pi0", "pi05", "pi0_fast")
MAIN = "main"
# Values of init_lora_weights with which PEFT changes the base's own weights, again at every loading
# (tuners/lora/layer.py).
CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
PLAIN = (
    "Save the adapter as a plain LoRA: call PEFT's save_pretrained with path_initial_model_for_weight_conversion, and "
    "save the processors in the same folder"
)
NAME = (
    "Set base_model_name_or_path in adapter_config.json to the policy that the adapter was trained on: a hub "
    "repository, or a folder that is absolute or relative to the campaign's folder"
)


def is_adapter(folder: Path) -> bool:
    """Returns whether lerobot loads the checkpoint in `folder` as an adapter."""
    return bool(files.read_or_empty(folder / "config.json").get("use_peft"))


def base(folder: Path, root: Path) -> Path | None:
    """Returns the folder of the adapter's base, downloaded if need be.

    Returns None where there is no adapter or the adapter names no base. `root` is the campaign's folder, where rows
    start. Raises TrackaError where the named base is missing.
    """
    dependency = hub_dependencies.adapter_base(folder) if is_adapter(folder) else None
    return dependency.folder(root) if dependency else None


def findings(folder: Path, root: Path) -> Iterator[Finding]:
    """Yields what is wrong with the adapter in `folder` and with its base; `root` is the campaign's folder."""
    config = folder / checkpoint_format.ADAPTER_CONFIG
    adapter_config = files.read_or_empty(config)
    yield from _initialisation_findings(config, adapter_config)
    dependency = hub_dependencies.adapter_base(folder)
    if dependency is None:
        what = "the adapter does not name the policy that it is for, so lerobot loads no policy"
        yield Finding(f"{config}, key base_model_name_or_path", what, NAME)
        return
    kind = checkpoint.policy_type(folder / "config.json")
    if not (root / dependency.name).is_dir() and kind in WITHOUT_REVISION and dependency.revision not in (None, MAIN):
        yield _ignored_revision(config, kind, dependency)
        return
    try:
        base_folder = dependency.folder(root)
    except TrackaError as error:
        yield from error.findings
        return
    yield from _base_findings(base_folder, kind)


def _initialisation_findings(config: Path, adapter_config: Json) -> Iterator[Finding]:
    """Yields a finding where PEFT changes the weights of the base by `init_lora_weights`.

    PEFT computes these changes anew at every loading, some at random; none of the changes is in the adapter's file.
    """
    initial = str(adapter_config.get("init_lora_weights", "")).lower()
    if initial.startswith(CHANGES_BASE):
        what = f"with init_lora_weights {initial!r}, PEFT changes the base's weights each time it loads the adapter"
        yield Finding(f"{config}, key init_lora_weights", what, PLAIN)


def _ignored_revision(config: Path, kind: str, dependency: NamedDependency) -> Finding:
    what = (
        f"the adapter pins {dependency.name} at {dependency.revision}, but lerobot 0.6.1 ignores the revision of a "
        f"{kind}'s base and would load the hub's main branch"
    )
    remedy = (
        f"Run `hf download {dependency.name} --revision {dependency.revision} --local-dir FOLDER` and name that folder "
        "as base_model_name_or_path in adapter_config.json"
    )
    return Finding(f"{config}, key revision", what, remedy)


def _base_findings(base_folder: Path, kind: str) -> Iterator[Finding]:
    """Yields what keeps a policy in the folder `base_folder` from being the base of an adapter of this type."""
    config = files.read_or_empty(base_folder / "config.json")
    if policy_folder := None if config else checkpoint_format.trained_policy_folder(base_folder):
        yield Finding(
            str(base_folder),
            f"the adapter's base is the folder of a training run; the policy is in {policy_folder}",
            NAME,
        )
    elif config.get("use_peft") or (base_folder / checkpoint_format.ADAPTER_CONFIG).is_file():
        what = "the adapter's base is itself an adapter, but lerobot loads only one adapter over a policy"
        yield Finding(
            str(base_folder), what, f"{checkpoint_format.MERGE_ADAPTER}; do so for the base, then name its new folder"
        )
    elif missing_names := [
        name for name in ("config.json", checkpoint_format.WEIGHTS) if not (base_folder / name).is_file()
    ]:
        yield from (checkpoint_format.missing_file_finding(base_folder, name) for name in missing_names)
    elif config.get("type") != kind:
        what = f"the adapter's base is a {config.get('type')}, but the adapter's config.json says {kind}"
        yield Finding(f"{base_folder / 'config.json'}, key type", what, NAME)
    else:
        yield from tensors.faults(base_folder / checkpoint_format.WEIGHTS)
