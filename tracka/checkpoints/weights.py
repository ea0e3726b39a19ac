"""Checks whether lerobot 0.6.1 can read a checkpoint's weights, by the headers of its files: no weights are read.

lerobot reads one file, model.safetensors. Every other form is reported with the way to bring it into this form.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from ..campaign.campaign import Campaign
from ..core import files
from ..core.check import Check, run_check
from ..core.errors import Finding, TrackaError
from . import adapter, checkpoint, checkpoint_format, tensors

CHECK = "weights:"  # the check's name is this, followed by the checkpoint's path


def check(campaign: Campaign, policy_path: str) -> Check:
    """Returns the check `weights:POLICY_PATH`: every safetensors file is whole, and an adapter has its base."""
    return run_check(f"{CHECK}{policy_path}", partial(_read, campaign, policy_path))


def _read(campaign: Campaign, policy_path: str) -> str:
    folder = checkpoint.resolve(policy_path, campaign.layout.root, campaign.policy_roots).folder
    require(folder, campaign.layout.root)
    base_folder = adapter.base(folder, campaign.layout.root)
    if base_folder is None:
        return _size(folder / checkpoint_format.WEIGHTS)
    base_size = _size(base_folder / checkpoint_format.WEIGHTS)
    return f"{_size(folder / checkpoint_format.ADAPTER_WEIGHTS)} over a base of {base_size}"


def _size(path: Path) -> str:
    weights = tensors.read(path).tensors
    return f"{len(weights)} tensors, {sum(tensor.end - tensor.start for tensor in weights.values())} bytes"


def require(folder: Path, root: Path) -> None:
    """Raises TrackaError naming everything that keeps lerobot from loading the weights and statistics in `folder`.

    `root` is the campaign's folder, from which an adapter's base is looked for.
    """
    if faults := list(findings(folder, root)):
        raise TrackaError(faults)


def findings(folder: Path, root: Path) -> Iterator[Finding]:
    """Yields what is wrong with the checkpoint's safetensors files, and with an adapter and its base."""
    for path in files.walk_files(folder):
        if path.suffix.casefold() == ".safetensors":
            yield from tensors.faults(path)
    adapter_files = [name for name in checkpoint.ADAPTER if (folder / name).is_file()]
    if adapter.is_adapter(folder):
        yield from adapter.findings(folder, root)
    elif adapter_files:
        what = f"the policy has an adapter (LoRA) beside it, but lerobot loads only {checkpoint_format.WEIGHTS}"
        yield Finding(str(folder / adapter_files[0]), what, checkpoint_format.USE_PEFT)
