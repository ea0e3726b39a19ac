"""The policy: loaded once, and asked for chunks of actions in one of three batching modes.

The batching mode follows from what is known of the policy:
- mixing: its chunk depends on one observation and on given noise alone, so observation requests of any episodes share
  a call;
- lockstep: it may remember earlier observations, so each batch of lerobot-eval goes through a copy of the policy of its
  own, all episodes in step; observations are requested once a chunk where the policy is known to read none in between;
- reference: lockstep, one batch after the other, on the policy itself, so that it draws random numbers as in
  lerobot-eval. A single batch of a policy that takes given noise may mix, since the numbers that lerobot-eval draws are
  known beforehand.
"""

import contextlib
import copy
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from lerobot.envs.factory import make_env_pre_post_processors
from lerobot.policies.factory import make_pre_post_processors
from lerobot.policies.pretrained import PreTrainedPolicy
from lerobot.processor import TokenizerProcessorStep
from lerobot.utils.constants import ACTION, OBS_LANGUAGE_ATTENTION_MASK

from . import noise
from .episode import Array, ObservationRequest
from .graphs import GraphedCalls, Inputs, Recorder
from .loading import load
from .observations import ObservationBatches
from .settings import EXACT, FAST, ResidentConfig

if TYPE_CHECKING:
    from .fast_calls import FastCalls

# Policies whose predict_action_chunk is a function of one observation and, for those in NOISY, of given noise. Each has
# the condition that its configuration must meet.
MIXING: Mapping[str, Callable[[Any], bool]] = {
    "act": lambda config: config.temporal_ensemble_coeff is None,
    "pi0": lambda config: config.rtc_config is None and not config.use_relative_actions,
    "pi05": lambda config: config.rtc_config is None and not config.use_relative_actions,
    "smolvla": lambda config: config.n_obs_steps == 1 and config.rtc_config is None,
}
NOISY = ("pi0", "pi05", "smolvla")  # policies that take given noise
NOISE = "noise"  # the name of given noise among the arguments of predict_action_chunk
Shapes = tuple[tuple[str, tuple[int, ...]], ...]  # input of a policy -> its shape
# The class attribute by which a policy of a plug-in may declare that its select_action reads an observation only when
# its queue of actions is empty, and draws nothing at random.
DECLARATION = "reads_once_per_chunk"


@dataclass(frozen=True)
class BatchingMode:
    """A batching mode: how a policy may be asked for actions, and the reasons why not in a faster way."""

    mixing: bool  # requests of any episodes share a call
    lazy: bool  # an observation is requested once a chunk, else at each step
    concurrent: bool  # several batches are played at once
    reasons: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Returns the batching mode's name in timings and parity certificates."""
        batching = "mixing" if self.mixing else "lockstep" if self.concurrent else "lockstep, one batch at a time"
        return f"{batching}, {'a look a chunk' if self.lazy else 'a look a step'}"


def batching_mode(policy: PreTrainedPolicy, noise_setting: str, batches: int) -> BatchingMode:
    """Returns the batching mode of `policy` for an evaluation of so many batches of lerobot-eval.

    `noise_setting` is the setting `noise`: `episode` or `reference`.
    """
    is_known = policy.name in MIXING and MIXING[policy.name](policy.config)
    is_declared = bool(getattr(policy, DECLARATION, False))
    if noise_setting == "reference" and (policy.name in NOISY or (not is_known and not is_declared)) and batches > 1:
        return BatchingMode(False, is_known or is_declared, False)
    if is_known:
        return BatchingMode(True, True, True)
    if is_declared:
        return BatchingMode(False, True, True)
    reason = f"policy {policy.name} is not known to read only one observation per chunk, so each step is rendered, and "
    return BatchingMode(False, False, False, (reason + "batches are played one at a time as in lerobot-eval",))


class PolicyRunner:
    """Holds a loaded policy with its processors, and asks it for actions.

    `seconds` is the time that loading took for this evaluation, 0 where the policy was kept from an earlier one.
    """

    def __init__(self, cfg: ResidentConfig, batches: int) -> None:
        start = time.perf_counter()
        self.cfg = cfg
        self.batch_size: int = cfg.eval.batch_size
        self.policy, reasons = load(cfg)
        self.mode = batching_mode(self.policy, cfg.resident.noise, batches)
        self._fallbacks = (*reasons, *self.mode.reasons)
        self.device = str(self.policy.config.device)
        before, self.after = make_pre_post_processors(
            policy_cfg=cfg.policy,
            pretrained_path=cfg.policy.pretrained_path,
            preprocessor_overrides={
                "device_processor": {"device": self.device},
                "rename_observations_processor": {"rename_map": cfg.rename_map},
            },
        )
        env_before, self.env_after = make_env_pre_post_processors(env_cfg=cfg.env, policy_cfg=cfg.policy)
        self.batches = ObservationBatches((env_before, before), self.device, bytes_travel=self._is_on_gpu)
        self.graphs = self._graphed_calls()
        self.fast = self._fast_calls()
        self.answered = EXACT  # the mode that answered the last call
        self.free_shapes: set[Shapes | None] = set()  # shapes of requests that may have any place in a call
        self.cut_shapes: dict[str, Shapes] = {}  # instruction -> what observation requests with it have in common
        self.spare: list[PreTrainedPolicy] = []
        self.draws = noise.ReferenceNoise()
        tokenizers = [step for step in before.steps if isinstance(step, TokenizerProcessorStep)]
        self.pads_to_longest = any(step.padding != "max_length" for step in tokenizers)
        self.seconds = time.perf_counter() - start

    @property
    def _is_on_gpu(self) -> bool:
        return self.device.partition(":")[0] == "cuda"

    @property
    def fallbacks(self) -> tuple[str, ...]:
        """Returns why the policy is loaded, asked or answered in a slower way, as far as is known by now."""
        answering = [calls for calls in (self.graphs, self.fast) if calls]
        return (*self._fallbacks, *self.batches.reasons, *(reason for calls in answering for reason in calls.reasons))

    @property
    def graphs_proven(self) -> int:
        """Returns how many CUDA graphs answer calls, in exact and in fast mode."""
        graphs = (self.graphs, self.fast.graphs if self.fast else None)
        return sum(each.proven for each in graphs if each)

    @property
    def precision(self) -> str:
        """Returns the mode that answers calls, as far as is known by now."""
        return FAST if self.fast and self.fast.is_used else EXACT

    @property
    def gpu_gib(self) -> float | None:
        """Returns how much memory of a GPU torch has held at most; None on the CPU."""
        return round(torch.cuda.max_memory_reserved() / 2**30, 2) if self._is_on_gpu else None

    @property
    def draws_nothing(self) -> bool:
        """Returns whether no action depends on a random generator of this process."""
        takes_own_noise = self.mode.mixing and (self.policy.name not in NOISY or self.cfg.resident.noise == "episode")
        return takes_own_noise or bool(getattr(self.policy, DECLARATION, False))

    def reconfigure(self, cfg: ResidentConfig) -> None:
        """Takes the settings of the next evaluation, which must ask for the same policy in the same way."""
        self.cfg, self.seconds = cfg, 0.0

    @property
    def chunk(self) -> int:
        """Returns the number of actions for each observation request."""
        return int(self.policy.config.n_action_steps) if self.mode.lazy else 1

    def call_shapes(self, request: ObservationRequest) -> Shapes:
        """Returns what all observation requests of a call must have in common.

        Where the policy's tokenizer pads to the longest instruction of a call, these are the shapes of the policy's
        inputs for this request alone, since padding changes how a policy rounds; else the tuple is empty. Fast mode
        cuts instructions of pi0, by a length that the task alone decides.
        """
        if not self.pads_to_longest:
            return self._cut_shapes(request) if self.fast is not None and self.fast.cuts_by_task else ()
        tensors = {name: value for name, value in self.batches([request]).items() if isinstance(value, torch.Tensor)}
        return tuple(sorted((name, tuple(value.shape)) for name, value in tensors.items()))

    def _cut_shapes(self, request: ObservationRequest) -> Shapes:
        """Returns the shape of the attention mask of a request's instruction, as fast mode cuts it."""
        if request.description not in self.cut_shapes:
            from . import fast_calls

            length = fast_calls.words(self.batches([request])[OBS_LANGUAGE_ATTENTION_MASK])
            self.cut_shapes[request.description] = ((OBS_LANGUAGE_ATTENTION_MASK, (length,)),)
        return self.cut_shapes[request.description]

    def copy(self) -> PreTrainedPolicy:
        """Returns the policy for one batch in lockstep, reset: a copy with a memory of its own and shared weights.

        The policy itself is returned where batches run one after the other.
        """
        if not self.mode.concurrent:
            policy_copy = self.policy
        elif self.spare:
            policy_copy = self.spare.pop()
        else:
            tensors = [*self.policy.parameters(), *self.policy.buffers()]
            policy_copy = copy.deepcopy(self.policy, {id(tensor): tensor for tensor in tensors})
        policy_copy.reset()
        return policy_copy

    def keep_copy(self, policy_copy: PreTrainedPolicy) -> None:
        """Keeps a copy whose batch has ended for a later batch."""
        self.spare.append(policy_copy)

    def has_free_places(self, shapes: Shapes | None) -> bool:
        """Returns whether requests with these shapes may have any place in a call, since no number depends on it."""
        return shapes in self.free_shapes

    def mixed_actions(self, requests: Sequence[ObservationRequest], shapes: Shapes | None = None) -> list[Array]:
        """Returns the next actions for each observation request, of shape (chunk, 7), by one call of the policy.

        The call is as large as lerobot-eval's, and each request has the place that its episode has there: a policy's
        rounding depends on both, and so on nothing else. No two requests may be for the same place, unless requests
        with their `shapes` have free places.
        """
        if not self.has_free_places(shapes):
            request_at = {request.episode.position: request for request in requests}
            actions = self._actions_at(request_at)
            if shapes is not None and self._last_call_had_free_places:
                self.free_shapes.add(shapes)
            return [actions[request.episode.position] for request in requests]
        actions = self._actions_at(dict(enumerate(requests)))
        if self.answered == FAST:
            return list(actions[: len(requests)])
        self.free_shapes.discard(shapes)  # exact mode had to answer, whose numbers depend on the place
        return [self.mixed_actions([request], shapes)[0] for request in requests]

    @property
    def _last_call_had_free_places(self) -> bool:
        return self.draws_nothing and self.answered == FAST and self.fast is not None and self.fast.has_free_places

    def _actions_at(self, request_at: Mapping[int, ObservationRequest]) -> Array:
        """Returns the actions of a call with requests at some places, of shape (batch size, chunk, 7)."""
        filler = next(iter(request_at.values()))
        batch_requests = [request_at.get(place, filler) for place in range(self.batch_size)]
        with self._asking():
            actions = self.policy_actions(self.batches(batch_requests), self.given_noise(batch_requests))
            flat = self._finish(actions.reshape(-1, actions.shape[-1]))
        return flat.reshape(len(batch_requests), -1, flat.shape[-1])

    def lockstep_actions(self, policy: PreTrainedPolicy, requests: Sequence[ObservationRequest]) -> list[Array]:
        """Returns the same as `mixed_actions` for one whole batch, by lerobot-eval's own call, `select_action`.

        Episodes that have ended stay in the batch.
        """
        batch_requests = [*requests, *[requests[0]] * (self.batch_size - len(requests))]
        steps = []
        with self._asking():
            batch = self.batches(batch_requests)
            for _ in range(self.chunk):
                steps.append(self._finish(policy.select_action(batch)))
        return list(np.stack(steps, axis=1)[: len(requests)])

    @contextlib.contextmanager
    def _asking(self) -> Iterator[None]:
        amp = self.cfg.policy.use_amp
        kind = torch.device(self.device).type
        with torch.inference_mode(), torch.autocast(device_type=kind) if amp else contextlib.nullcontext():
            yield

    def _graphed_calls(self) -> GraphedCalls | None:
        """Returns what answers calls by CUDA graphs; None where the policy does not mix or is not on a GPU."""
        settings = self.cfg.resident
        is_plain = not (settings.compile or self.cfg.policy.use_amp)  # both keep tensors that a graph would not see
        if not (settings.cuda_graphs and self._is_on_gpu and self.mode.mixing and is_plain):
            return None
        return GraphedCalls(self._actions_of_tensors, Recorder(self.policy, self.device))

    def _fast_calls(self) -> "FastCalls | None":
        """Returns what answers calls in fast mode; None where it was not asked for, or cannot be had."""
        settings = self.cfg.resident
        if settings.precision != FAST:
            return None
        from . import fast_calls  # it imports transformers and two policies

        if why := fast_calls.unavailable(self.policy, self.mode.mixing, settings.compile or self.cfg.policy.use_amp):
            self._fallbacks = (*self._fallbacks, f"precision = fast, the exact mode answers: {why}")
            return None
        return fast_calls.fast_calls(self.policy, self.device, self.chunk, settings.cuda_graphs)

    def policy_actions(self, batch: Mapping[str, Any], noise_input: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Returns the policy's actions of shape (observations, chunk, size), in fast mode or by a graph where it is."""

        def own_call() -> torch.Tensor:
            actions: torch.Tensor = self.policy.predict_action_chunk(dict(batch), **noise_input)
            return actions[:, : self.chunk]

        tensors = {name: value for name, value in batch.items() if isinstance(value, torch.Tensor)} | dict(noise_input)
        self.answered = EXACT
        if self.fast is not None and (actions := self.fast(tensors, own_call)) is not None:
            self.answered = FAST
            return actions
        return own_call() if self.graphs is None else self.graphs(tensors, own_call)

    def _actions_of_tensors(self, inputs: Inputs) -> torch.Tensor:
        batch = dict(inputs)
        noise_input = {NOISE: batch.pop(NOISE)} if NOISE in batch else {}
        actions: torch.Tensor = self.policy.predict_action_chunk(batch, **noise_input)
        return actions[:, : self.chunk]

    def _finish(self, actions: torch.Tensor) -> Array:
        """Returns the policy's output as actions for the environment, of shape (n, 7)."""
        transition = self.env_after({ACTION: self.after(actions)})
        return np.asarray(transition[ACTION].to("cpu").numpy())

    def given_noise(self, requests: Sequence[ObservationRequest]) -> dict[str, Any]:
        """Returns the noise for a call of the policy by its argument's name; empty for a policy that takes none."""
        if self.policy.name not in NOISY:
            return {}
        shape = (self.policy.config.chunk_size, self.policy.config.max_action_dim)
        if self.cfg.resident.noise == "episode":
            return {NOISE: noise.noise_for_requests(requests, shape).to(self.device)}
        return {NOISE: self.draws.noise_for_requests(requests, (self.batch_size, *shape), self.device)}
