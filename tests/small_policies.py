"""Makes small checkpoints of lerobot's own policy types, with processors and statistics, for LIBERO's state and action.

Usage: python small_policies.py FOLDER KIND ... makes FOLDER/KIND of each kind: tdmpc, vqbet.
"""

import sys
from pathlib import Path
from typing import Any

SIDE = 96  # pixels of a side of their one camera's frames
STATE, ACTION = "observation.state", "action"
CAMERAS = {"tdmpc": "observation.image", "vqbet": "observation.images.image"}  # tdmpc's code knows no other name
_GPT = {f"gpt_{name}": 64 for name in ("hidden_dim", "input_dim", "output_dim")} | {"gpt_n_layer": 1, "gpt_n_head": 2}
WORDS: dict[str, dict[str, Any]] = {
    "tdmpc": {"use_mpc": False},
    "vqbet": {"pretrained_backbone_weights": None, "crop_shape": (84, 84), **_GPT},
}


def build(folder: Path, kind: str) -> None:
    """Saves a policy with random weights, and its processors with statistics for every mode of normalising."""
    import torch
    from lerobot.configs import FeatureType, PolicyFeature
    from lerobot.policies.factory import get_policy_class, make_policy_config, make_pre_post_processors

    torch.manual_seed(0)
    inputs = {
        CAMERAS[kind]: PolicyFeature(FeatureType.VISUAL, (3, SIDE, SIDE)),
        STATE: PolicyFeature(FeatureType.STATE, (8,)),
    }
    outputs = {ACTION: PolicyFeature(FeatureType.ACTION, (7,))}
    config = make_policy_config(
        kind, input_features=inputs, output_features=outputs, device="cpu", push_to_hub=False, **WORDS[kind]
    )
    get_policy_class(kind)(config).save_pretrained(folder)
    for processor in make_pre_post_processors(policy_cfg=config, dataset_stats=statistics(CAMERAS[kind])):
        processor.save_pretrained(folder)


def statistics(camera: str) -> dict[str, dict[str, Any]]:
    """Returns means of zero, deviations of one and bounds from -1 to 1; the bounds of frames are from 0 to 1."""
    import torch

    shapes = {camera: (3, 1, 1), STATE: (8,), ACTION: (7,)}
    lowest = {camera: 0.0, STATE: -1.0, ACTION: -1.0}
    return {
        key: {
            "mean": torch.zeros(shape),
            "std": torch.ones(shape),
            "min": torch.full(shape, lowest[key]),
            "max": torch.ones(shape),
        }
        for key, shape in shapes.items()
    }


if __name__ == "__main__":
    for kind in sys.argv[2:]:
        build(Path(sys.argv[1]) / kind, kind)
