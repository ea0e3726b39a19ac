"""Makes LoRA adapters for the tiny ACT checkpoint: written here in a moment, or made by lerobot and PEFT themselves.

Usage: python adapters.py POLICY FOLDER NAME=JSON ... makes an adapter in FOLDER as lerobot-train saves one, with these
values in PEFT's configuration. The adapter names its base as POLICY is given. The adapter's tensors are random, so the
adapter changes what the policy does.
"""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from tracka.core import files

RANK = 2
LAYER = "base_model.model.model.encoder.layers.0"  # a layer of ACT that is small, and neither attention nor a backbone
SHAPES = {
    f"{LAYER}.linear1.lora_A.weight": (RANK, 64),
    f"{LAYER}.linear1.lora_B.weight": (128, RANK),
    f"{LAYER}.linear2.lora_A.weight": (RANK, 128),
    f"{LAYER}.linear2.lora_B.weight": (64, RANK),
}
TARGETS = r".*encoder\.layers\.0\.linear[12]"
CONFIG = {
    "auto_mapping": {"base_model_class": "ACTPolicy", "parent_library": "lerobot.policies.act.modeling_act"},
    "init_lora_weights": True,
    "lora_alpha": 8,
    "megatron_core": "megatron.core",
    "peft_type": "LORA",
    "r": RANK,
    "revision": None,
    "target_modules": TARGETS,
}


def write(base: Path, folder: Path, named: str) -> None:
    """Writes an adapter of the ACT in `base` to `folder`; the adapter's base is named `named`."""
    files.write_json(folder / "config.json", {**json.loads((base / "config.json").read_text()), "use_peft": True})
    files.write_json(folder / "adapter_config.json", {**CONFIG, "base_model_name_or_path": named})
    generator = np.random.default_rng(0)
    arrays = {name: generator.normal(0, 0.1, shape).astype(np.float32) for name, shape in SHAPES.items()}
    save_file(arrays, folder / "adapter_model.safetensors")
    for path in base.glob("policy_p*processor*"):
        shutil.copy(path, folder)


def build(policy_path: str, folder: Path, **words: Any) -> None:
    """Saves an adapter of the policy, made by lerobot and PEFT, with the policy's configuration and processors."""
    import torch
    from lerobot.configs import PreTrainedConfig
    from lerobot.policies.factory import get_policy_class

    torch.manual_seed(0)
    config = PreTrainedConfig.from_pretrained(policy_path)
    config.device, config.pretrained_path = "cpu", policy_path
    policy = get_policy_class(config.type).from_pretrained(policy_path, config=config)
    adapted = policy.wrap_with_peft(peft_cli_overrides={"target_modules": TARGETS, "r": RANK, **words})
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    adapted.save_pretrained(folder)
    adapted.config.save_pretrained(folder)
    for path in Path(policy_path).glob("policy_p*processor*"):
        shutil.copy(path, folder)


if __name__ == "__main__":
    pairs = (word.split("=", 1) for word in sys.argv[3:])
    build(sys.argv[1], Path(sys.argv[2]), **{name: json.loads(value) for name, value in pairs})
