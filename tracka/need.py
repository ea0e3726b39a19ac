"""What a policy loads by name beside its checkpoint, as lerobot 0.6.1 does: tokenizers, base models, a backbone.

Read from the checkpoint's JSON files; nothing is imported and no weights are loaded.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from . import files
from .checkpoint import Checkpoint

PALIGEMMA = "google/paligemma-3b-pt-224"
# Policy type -> key of its config.json -> what is loaded where it does not say (test_hub.py holds it against lerobot).
TOKENIZERS = {
    "pi0_fast": {"text_tokenizer_name": PALIGEMMA, "action_tokenizer_name": "lerobot/fast-action-tokenizer"},
    "xvla": {"tokenizer_name": "facebook/bart-large"},
}
BASE_MODELS = {
    "eo1": {"vlm_base": "Qwen/Qwen2.5-VL-3B-Instruct"},
    "evo1": {"vlm_model_name": "OpenGVLab/InternVL3-1B-hf"},
    "multi_task_dit": dict.fromkeys(("vision_encoder_name", "text_encoder_name"), "openai/clip-vit-base-patch16"),
    "smolvla": {"vlm_model_name": "HuggingFaceTB/SmolVLM2-500M-Video-Instruct"},
    "vla_jepa": {
        "qwen_model_name": "Qwen/Qwen3-VL-2B-Instruct",
        "jepa_encoder_name": "facebook/vjepa2-vitl-fpc64-256",
    },
}
# Of these the weights are loaded too: always, or where a key of the config says so; of the others the config alone.
WEIGHTS: dict[str, str | None] = {
    "evo1": None,
    "multi_task_dit": None,
    "smolvla": "load_vlm_weights",
    "vla_jepa": None,
}
# In their processors' code, so that no config can say otherwise.
FIXED = dict.fromkeys(("pi0", "pi05", "pi0_fast"), PALIGEMMA)
STEP_KEYS = ("tokenizer_name", "action_tokenizer_name", "paligemma_tokenizer_name")


@dataclass(frozen=True)
class Need:
    """One thing loaded by name. `kind` is tokenizer, base_model or backbone (torchvision's weights)."""

    kind: str
    name: str
    weights: bool = False


def of_type(kind: str, config: Mapping[str, Any]) -> Iterator[Need]:
    """What a policy of this type loads with this config."""
    for key, default in TOKENIZERS.get(kind, {}).items():
        yield Need("tokenizer", str(config.get(key) or default))
    weights = kind in WEIGHTS and bool(config.get(WEIGHTS[kind] or "", WEIGHTS[kind] is None))
    for key, default in BASE_MODELS.get(kind, {}).items():
        yield Need("base_model", str(config.get(key) or default), weights)
    if backbone := config.get("pretrained_backbone_weights"):
        yield Need("backbone", str(backbone))


def unseen(kind: str) -> list[Need]:
    """What a policy of this type loads as far as its checkpoint, which is not here, cannot say otherwise."""
    fixed = [Need("tokenizer", FIXED[kind])] if kind in FIXED else []
    return list(dict.fromkeys([*fixed, *of_type(kind, {})]))


def of(checkpoint: Checkpoint) -> list[Need]:
    """What the checkpoint's config and processors load by name."""
    steps: list[Any] = files.read_json(checkpoint.folder / "policy_preprocessor.json").get("steps", [])
    configs = [step.get("config") or {} for step in steps if isinstance(step, dict)]
    named = sorted({str(config[key]) for config in configs for key in STEP_KEYS if config.get(key)})
    models = list(of_type(checkpoint.policy_type, files.read_json(checkpoint.folder / "config.json")))
    # lerobot does not save the second tokenizer of the step that makes action tokens: it loads its own.
    if any(config.get("action_tokenizer_name") for config in configs):
        named.append(PALIGEMMA)
    return list(dict.fromkeys([*(Need("tokenizer", name) for name in named), *models]))
