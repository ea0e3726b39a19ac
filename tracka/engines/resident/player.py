"""The policy: loaded once, asked for chunks of actions.

Three ways to ask, by what is known of a policy:
- mixing: its chunk depends on one observation and given noise alone, so looks of any episodes share a call;
- lockstep: it may remember, so a batch of lerobot-eval goes through a copy of its own, in step; looked at once a chunk
  where the policy is known to read nothing in between;
- reference: lockstep, one batch after the other, on the policy itself, so that it draws as in lerobot-eval; a single
  batch of a policy that takes given noise may mix, for what lerobot-eval draws is known beforehand.
"""

import contextlib
import copy
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from lerobot.envs.factory import make_env_pre_post_processors
from lerobot.envs.utils import preprocess_observation
from lerobot.policies.factory import make_policy, make_pre_post_processors
from lerobot.policies.pretrained import PreTrainedPolicy
from lerobot.processor import TokenizerProcessorStep
from lerobot.utils.constants import ACTION

from .. import loading
from ..loading import IncompleteWeights
from . import noise, weights
from .episode import Array, Look, Observation
from .settings import ResidentConfig

# Policies whose predict_action_chunk is a function of one observation and, where it says so, of given noise.
MIXING: Mapping[str, Callable[[Any], bool]] = {
    "act": lambda config: config.temporal_ensemble_coeff is None,
    "pi0": lambda config: config.rtc_config is None and not config.use_relative_actions,
    "pi05": lambda config: config.rtc_config is None and not config.use_relative_actions,
    "smolvla": lambda config: config.n_obs_steps == 1 and config.rtc_config is None,
}
NOISY = ("pi0", "pi05", "smolvla")
Shapes = tuple[tuple[str, tuple[int, ...]], ...]  # input of a policy -> its shape
# What a policy class of a plug-in may say of itself: its select_action reads an observation only when its queue is
# empty, and draws nothing at random.
DECLARATION = "reads_once_per_chunk"


@dataclass(frozen=True)
class Manner:
    """How a policy may be asked, and why not better."""

    mixing: bool
    lazy: bool  # looked at once a chunk
    concurrent: bool  # several batches at once
    reasons: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        """What the manner is called in timings and certificates."""
        asked = "mixing" if self.mixing else "lockstep" if self.concurrent else "lockstep, one batch at a time"
        return f"{asked}, {'a look a chunk' if self.lazy else 'a look a step'}"


def manner(policy: PreTrainedPolicy, draws: str, batches: int) -> Manner:
    """How `policy` may be asked with `draws`, `episode` or `reference`, for so many batches of lerobot-eval."""
    known = policy.name in MIXING and MIXING[policy.name](policy.config)
    declared = bool(getattr(policy, DECLARATION, False))
    if draws == "reference" and (policy.name in NOISY or (not known and not declared)) and batches > 1:
        return Manner(False, known or declared, False)
    if known:
        return Manner(True, True, True)
    if declared:
        return Manner(False, True, True)
    reason = f"policy {policy.name}: it is not known to read one observation a chunk, so each step is drawn, and its "
    return Manner(False, False, False, (reason + "batches are played one after the other as in lerobot-eval",))


class Player:
    """A loaded policy with its processors. `seconds` is what the last load took."""

    def __init__(self, cfg: ResidentConfig, batches: int) -> None:
        start = time.perf_counter()
        self.cfg = cfg
        self.batch_size: int = cfg.eval.batch_size
        self.policy, reasons = load(cfg)
        self.manner = manner(self.policy, cfg.resident.noise, batches)
        self.fallbacks = (*reasons, *self.manner.reasons)
        self.device = str(self.policy.config.device)
        self.before, self.after = make_pre_post_processors(
            policy_cfg=cfg.policy,
            pretrained_path=cfg.policy.pretrained_path,
            preprocessor_overrides={
                "device_processor": {"device": self.device},
                "rename_observations_processor": {"rename_map": cfg.rename_map},
            },
        )
        self.env_before, self.env_after = make_env_pre_post_processors(env_cfg=cfg.env, policy_cfg=cfg.policy)
        self.spare: list[PreTrainedPolicy] = []
        self.draws = noise.Reference()
        tokenizers = [step for step in self.before.steps if isinstance(step, TokenizerProcessorStep)]
        self.pads_to_longest = any(step.padding != "max_length" for step in tokenizers)
        self.seconds = time.perf_counter() - start

    @property
    def draws_nothing(self) -> bool:
        """Whether no generator of this process decides an action."""
        known = self.manner.mixing and (self.policy.name not in NOISY or self.cfg.resident.noise == "episode")
        return known or bool(getattr(self.policy, DECLARATION, False))

    def turn_to(self, cfg: ResidentConfig) -> None:
        """Plays another evaluation, which asks for the same policy in the same way."""
        self.cfg, self.seconds = cfg, 0.0

    @property
    def chunk(self) -> int:
        """Actions a look."""
        return int(self.policy.config.n_action_steps) if self.manner.lazy else 1

    def company(self, look: Look) -> Shapes:
        """What all looks of a call must have in common: the shapes of the policy's inputs for each look alone, where
        its tokenizer pads to the longest of a call, since padding changes how a policy rounds."""
        if not self.pads_to_longest:
            return ()
        tensors = {name: value for name, value in self._batch([look]).items() if isinstance(value, torch.Tensor)}
        return tuple(sorted((name, tuple(value.shape)) for name, value in tensors.items()))

    def copy(self) -> PreTrainedPolicy:
        """A policy with a memory of its own, for one batch in lockstep; weights are shared."""
        if not self.manner.concurrent:
            mine = self.policy
        elif self.spare:
            mine = self.spare.pop()
        else:
            tensors = [*self.policy.parameters(), *self.policy.buffers()]
            mine = copy.deepcopy(self.policy, {id(tensor): tensor for tensor in tensors})
        mine.reset()
        return mine

    def give_back(self, mine: PreTrainedPolicy) -> None:
        self.spare.append(mine)

    def mixed(self, looks: Sequence[Look]) -> list[Array]:
        """The next actions of each look, shape (chunk, 7), in one call; no two looks may have the same position.

        The call is as large as lerobot-eval's, and each look has its place there, since a policy's rounding depends on
        both: so it depends on nothing else.
        """
        placed = {look.episode.position: look for look in looks}
        filled = [placed.get(position, looks[0]) for position in range(self.batch_size)]
        with self._asking():
            batch = self._batch(filled)
            actions = self.policy.predict_action_chunk(batch, **self._noise(filled))[:, : self.chunk]
            flat = self._finish(actions.reshape(-1, actions.shape[-1]))
        chunks = flat.reshape(len(filled), -1, flat.shape[-1])
        return [chunks[look.episode.position] for look in looks]

    def in_step(self, policy: PreTrainedPolicy, looks: Sequence[Look]) -> list[Array]:
        """The same by lerobot-eval's own way to ask, for one whole batch; ended episodes stay in it."""
        padded = [*looks, *[looks[0]] * (self.batch_size - len(looks))]
        steps = []
        with self._asking():
            batch = self._batch(padded)
            for _ in range(self.chunk):
                steps.append(self._finish(policy.select_action(batch)))
        return list(np.stack(steps, axis=1)[: len(looks)])

    @contextlib.contextmanager
    def _asking(self) -> Iterator[None]:
        amp = self.cfg.policy.use_amp
        kind = torch.device(self.device).type
        with torch.inference_mode(), torch.autocast(device_type=kind) if amp else contextlib.nullcontext():
            yield

    def _batch(self, looks: Sequence[Look]) -> dict[str, Any]:
        batch = preprocess_observation(_stacked([look.observation for look in looks]))
        batch["task"] = [look.description for look in looks]
        return dict(self.before(self.env_before(batch)))

    def _finish(self, actions: torch.Tensor) -> Array:
        """Actions of shape (n, 7) as the environment takes them."""
        transition = self.env_after({ACTION: self.after(actions)})
        return np.asarray(transition[ACTION].to("cpu").numpy())

    def _noise(self, looks: Sequence[Look]) -> dict[str, Any]:
        if self.policy.name not in NOISY:
            return {}
        shape = (self.policy.config.chunk_size, self.policy.config.max_action_dim)
        if self.cfg.resident.noise == "episode":
            return {"noise": noise.of_looks(looks, shape).to(self.device)}
        return {"noise": self.draws.of_looks(looks, (self.batch_size, *shape), self.device)}


def load(cfg: ResidentConfig) -> tuple[PreTrainedPolicy, tuple[str, ...]]:
    """The policy as lerobot-eval makes it, and why a faster way was not taken."""
    if cfg.resident.compile and hasattr(cfg.policy, "compile_model"):
        cfg.policy.compile_model = True
    reasons: tuple[str, ...] = ()
    # In reference draws on the CPU, the generator must have made lerobot's random weights before.
    fast = cfg.resident.fast_load and cfg.policy.type in weights.LARGE
    if fast and not (cfg.resident.noise == "reference" and cfg.policy.device == "cpu") and not cfg.policy.use_peft:
        try:
            return _load_straight(cfg).eval(), ()
        except IncompleteWeights:  # lerobot's own way would go on with random ones
            raise
        except Exception as error:  # lerobot's own way is slower, and says better what is wrong
            reasons = (f"fast_load: {type(error).__name__}: {error}",)
            logging.warning("loading as lerobot-eval does: %s", reasons[0])
    with loading.held():
        policy = make_policy(cfg=cfg.policy, env_cfg=cfg.env, rename_map=cfg.rename_map)
    return policy.eval(), reasons


def _load_straight(cfg: ResidentConfig) -> PreTrainedPolicy:
    with loading.held(), weights.straight_to(str(cfg.policy.device)):
        policy = make_policy(cfg=cfg.policy, env_cfg=cfg.env, rename_map=cfg.rename_map)
    if missing := weights.unloaded(policy):
        raise ValueError(f"{len(missing)} weights are in no file, first {missing[0]}")
    return policy


def _stacked(observations: Sequence[Observation]) -> Observation:
    """A batch of observations: arrays of equal shape put into one with a first dimension more."""
    first = observations[0]
    return {
        key: _stacked([each[key] for each in observations])
        if isinstance(first[key], dict)
        else np.stack([each[key] for each in observations])
        for key in first
    }
