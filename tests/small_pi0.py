"""Small models of lerobot's pi0 and pi0.5, which know no small variant: the table of variants with small ones in it."""

from types import ModuleType

import pytest
from lerobot.policies.pi0 import modeling_pi0
from transformers import PaliGemmaConfig

SMALL = modeling_pi0.GemmaConfig(width=32, depth=2, mlp_dim=64, num_heads=2, num_kv_heads=1, head_dim=16)


def paligemma() -> PaliGemmaConfig:
    made = PaliGemmaConfig()
    made.vision_config.num_hidden_layers = 1
    return made


def put(patch: pytest.MonkeyPatch, module: ModuleType = modeling_pi0) -> None:
    """Gives lerobot's module of pi0 or pi0.5 the small numbers, for as long as `patch` lasts."""
    patch.setattr(module, "get_gemma_config", lambda variant: SMALL)
    known = module.CONFIG_MAPPING
    patch.setattr(module, "CONFIG_MAPPING", {"paligemma": paligemma, "gemma": known["gemma"]})
