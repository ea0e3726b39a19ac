"""Recognises the form of a checkpoint's files, and names the way from another form into lerobot's own."""

import re
from pathlib import Path

from ..campaign import commands
from ..campaign.layout import Layout
from ..core.errors import Finding, TrackaError, shortened
from . import tensors

WEIGHTS = "model.safetensors"
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
# Where lerobot-train puts the policy, below the folder of one checkpoint, of a run's checkpoints, or of the run.
TRAINED = ("pretrained_model", "last/pretrained_model", "checkpoints/last/pretrained_model")
MERGE_ADAPTER = (
    "Merge the adapter into its policy with PeftModel.from_pretrained(policy, folder).merge_and_unload(), then save "
    "the merged policy with save_pretrained, and the processors in the same folder"
)
USE_PEFT = (
    "Set use_peft to true in config.json, as lerobot-train does, if you want to evaluate the adapter; otherwise remove "
    "adapter_config.json and the adapter's weights"
)
ADAPTER_FILES = (
    "Copy adapter_config.json and adapter_model.safetensors from the training run into this folder; or set use_peft to "
    "false if model.safetensors is the whole policy"
)
OLD_STATISTICS = re.compile(r"(?:.*\.)?(?:un)?normalize_(?:inputs|outputs|targets)\.buffer_")
MIGRATE = (
    "Convert the checkpoint, then name the folder that the conversion writes: "
    "python -m lerobot.processor.migrate_policy_normalization --pretrained-path {}"
)
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
NAME_FOLDER = "Name the folder that save_pretrained wrote, or a repository of the hub as owner/name"
SAVE = "Save the policy and the processors with save_pretrained of lerobot 0.6"
MERGE = (
    'Merge them: python -c "from pathlib import Path; from safetensors.torch import load_file, save_file; '
    "d = Path('{0}'); save_file({{k: v for f in sorted(d.glob('model-*-of-*.safetensors')) "
    "for k, v in load_file(f).items()}}, d / 'model.safetensors', {{'format': 'pt'}})\""
)


def trained_policy_folder(folder: Path) -> Path | None:
    """Returns the policy's folder below one that lerobot-train made (a run, its checkpoints or one of them) or None."""
    return next((folder / name for name in TRAINED if (folder / name / "config.json").is_file()), None)


def folder_finding(folder: Path, named: str = "") -> Finding | None:
    """Returns a finding if `folder` is not a policy's own but one around it: a campaign's, a training run's, or one of
    checkpoints.

    The finding names the policy's folder, or what to do with a campaign. `named` is how the user calls `folder`, by
    default its path.
    """
    named = named or str(folder)
    if (folder / "config.json").is_file():
        return None
    if (layout := Layout(folder.resolve())).has_settings:
        what = "this is the folder of a campaign, not of a checkpoint"
        remedy = f"Run the campaign: {commands.gates(layout)}; or name a checkpoint, such as a policy_path of"
        return Finding(shortened(named), what, f"{remedy} {layout.matrix}")
    if policy_folder := trained_policy_folder(folder):
        what = f"this is the folder of a training run; the policy is in {policy_folder}"
        return Finding(shortened(named), what, f"Give {policy_folder} as policy_path")
    inside = sorted(path.parent.name for path in folder.glob("*/config.json"))
    if not inside or (folder / ADAPTER_CONFIG).exists():
        return None
    what = "the folder has no config.json, so it is not a checkpoint"
    return Finding(shortened(named), what, f"Did you mean {Path(named) / inside[0]}? {NAME_FOLDER}")


def missing_file_finding(folder: Path, name: str) -> Finding:
    """Returns the finding about a missing file.

    The finding says where another form of the file is, if there is one, and how to bring that form into lerobot's.
    """
    if name == WEIGHTS:
        return _other_weights(folder) or Finding(str(folder / name), "the checkpoint lacks this file", SAVE)
    if name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS):
        return _other_adapter(folder, name)
    old = old_statistics(folder) if name.startswith("policy_") else None
    return old or Finding(str(folder / name), "the checkpoint lacks this file", SAVE)


def _other_weights(folder: Path) -> Finding | None:
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    shards = [name for name in names if re.fullmatch(r"model-\d+-of-\d+\.safetensors", name)]
    if shards or f"{WEIGHTS}.index.json" in names:
        what = f"the weights are spread over {len(shards)} files, but lerobot 0.6.1 reads only {WEIGHTS}"
        return Finding(str(folder / (shards or names)[0]), what, MERGE.format(folder))
    if ADAPTER_WEIGHTS in names:
        what = f"this is an adapter (LoRA), but config.json does not set use_peft, so lerobot looks for {WEIGHTS}"
        return Finding(str(folder / ADAPTER_WEIGHTS), what, USE_PEFT)
    if pickles := [name for name in names if Path(name).suffix in PICKLES]:
        what = f"the weights are a pickle, but lerobot 0.6.1 reads only {WEIGHTS}"
        remedy = (
            "In a sandbox, because a pickle can run code, load it with the lerobot that wrote it, and save it with "
            "save_pretrained"
        )
        return Finding(str(folder / pickles[0]), what, remedy)
    return None


def _other_adapter(folder: Path, name: str) -> Finding:
    if name == ADAPTER_WEIGHTS and (pickles := sorted(folder.glob("adapter_model.bin"))):
        what = "the adapter's weights are a pickle, which can run code when PEFT loads it"
        remedy = f"In a sandbox, because a pickle can run code, load it, then write {name} with save_pretrained"
        return Finding(str(pickles[0]), what, remedy)
    what = "config.json sets use_peft, but this file of the adapter is missing"
    return Finding(str(folder / name), what, ADAPTER_FILES)


def old_statistics(folder: Path) -> Finding | None:
    """Returns a finding if the statistics are inside the weights, where lerobot wrote them before it had processors."""
    try:
        names = tensors.read(folder / WEIGHTS).tensors
    except (OSError, TrackaError):
        return None
    if old_names := [name for name in names if OLD_STATISTICS.match(name)]:
        what = f"the statistics are inside the weights ({old_names[0]}), where lerobot 0.6 does not look for them"
        return Finding(str(folder / WEIGHTS), what, MIGRATE.format(folder))
    return None
