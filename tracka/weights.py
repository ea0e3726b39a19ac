"""Whether a checkpoint's weights can be read by lerobot 0.6.1, by the headers of its files: no weights are read.

lerobot reads one file, model.safetensors. Every other form is named with the way to bring it into this one.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from . import checkpoint, files, form, tensors
from .campaign import Campaign
from .check import Check, guarded
from .errors import Finding, TrackaError

CHECK = "weights:"  # before the path of a checkpoint: the name of its check
ADAPTER = "adapter_config.json"


def check(spec: Campaign, policy_path: str) -> Check:
    """The check `weights:POLICY_PATH`: every safetensors file is whole, and none of them is an adapter."""
    return guarded(f"{CHECK}{policy_path}", partial(_read, spec, policy_path))


def _read(spec: Campaign, policy_path: str) -> str:
    folder = checkpoint.resolve(policy_path, spec.layout.root, spec.policy_roots).folder
    require(folder)
    weights = tensors.read(folder / form.WEIGHTS).tensors
    return f"{len(weights)} tensors, {sum(tensor.end - tensor.start for tensor in weights.values())} bytes"


def require(folder: Path) -> None:
    """Raises TrackaError naming everything that keeps lerobot from the weights and statistics in `folder`."""
    if found := list(findings(folder)):
        raise TrackaError(found)


def findings(folder: Path) -> Iterator[Finding]:
    """What is wrong with the checkpoint's safetensors files, and with an adapter in the place of a policy."""
    for path in files.walk_files(folder):
        if path.suffix == ".safetensors":
            try:
                tensors.read(path)
            except TrackaError as error:
                yield from error.findings
    config = folder / "config.json"
    if (folder / ADAPTER).is_file() or files.read_json(config).get("use_peft"):
        where = folder / ADAPTER if (folder / ADAPTER).is_file() else f"{config}, key use_peft"
        yield Finding(str(where), "this is an adapter (LoRA), which Track A does not evaluate yet", form.ADAPTER)
