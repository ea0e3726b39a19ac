"""Loads a policy as lerobot-eval makes it, where that is possible in a quicker way."""

import logging

from lerobot.policies.factory import make_policy
from lerobot.policies.pretrained import PreTrainedPolicy

from .. import load_warnings
from ..load_warnings import IncompleteWeights
from . import weights
from .settings import ResidentConfig


def load(cfg: ResidentConfig) -> tuple[PreTrainedPolicy, tuple[str, ...]]:
    """Returns the policy as lerobot-eval makes it, and the reasons why the faster way failed, if it did.

    Raises IncompleteWeights where lerobot's loader says that weights are missing, or left unused in the file.
    """
    if cfg.resident.compile and hasattr(cfg.policy, "compile_model"):
        cfg.policy.compile_model = True
    reasons: tuple[str, ...] = ()
    # With noise = "reference" on the CPU, the generator must have drawn lerobot's random weights before the noise.
    fast = cfg.resident.fast_load and cfg.policy.type in weights.LARGE
    if fast and not (cfg.resident.noise == "reference" and cfg.policy.device == "cpu") and not cfg.policy.use_peft:
        try:
            return _load_straight(cfg).eval(), ()
        except IncompleteWeights:  # lerobot's own way of loading would go on with random weights
            raise
        except Exception as error:  # lerobot's own way of loading is slower, and its errors are clearer
            reasons = (f"fast_load: {type(error).__name__}: {error}",)
            logging.warning("loading as lerobot-eval does: %s", reasons[0])
    with load_warnings.require_complete_weights():
        policy = make_policy(cfg=cfg.policy, env_cfg=cfg.env, rename_map=cfg.rename_map)
    return policy.eval(), reasons


def _load_straight(cfg: ResidentConfig) -> PreTrainedPolicy:
    with load_warnings.require_complete_weights(), weights.straight_to(str(cfg.policy.device)):
        policy = make_policy(cfg=cfg.policy, env_cfg=cfg.env, rename_map=cfg.rename_map)
    if missing := weights.unloaded_names(policy):
        raise ValueError(f"the file lacks {len(missing)} of the policy's weights; the first is {missing[0]}")
    return policy
