"""The parts of the resident engine that need no simulator: episodes, noise, weights, records, flags."""

import hashlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tracka.campaign import campaign
from tracka.engines import comparison, lerobot_eval, listener, reference
from tracka.engines.resident import evaluation, noise, weights
from tracka.engines.resident.episode import (
    Episode,
    EpisodeOutcome,
    ObservationRequest,
    digest,
    episodes,
    observation_sha,
)
from tracka.engines.resident.player import batching_mode
from tracka.engines.resident.record import Record
from tracka.engines.resident.settings import ResidentConfig, ResidentSettings
from tracka.runs import recording

SHAPE = (5, 3)


def look(number: int = 0, chunk: int = 0, task_id: int = 0, seed: int = 7) -> ObservationRequest:
    return ObservationRequest(Episode("libero_object", task_id, number, seed + number, 2), chunk, "pick it up", {})


def outcome(success: bool, steps: int = 4) -> EpisodeOutcome:
    return EpisodeOutcome(success, float(success), float(success), np.ones((steps, 7), np.float32), "e" * 64, "f" * 64)


# episodes


def test_episodes_have_the_seeds_init_states_and_resets_of_lerobot_evals_slots() -> None:
    found = [(each.seed, each.init_state, each.ordinal, each.position) for each in episodes("s", (4,), 5, 2, 7)]
    assert found == [(7, 0, 0, 0), (8, 1, 0, 1), (9, 2, 1, 0), (10, 3, 1, 1), (11, 4, 2, 0)]


# noise


def test_an_episodes_noise_is_its_own_whoever_stands_beside_it() -> None:
    alone = noise.noise_for_requests([look(3)], SHAPE)
    torch.manual_seed(99)
    beside = noise.noise_for_requests([look(0), look(3), look(1)], SHAPE)
    assert torch.equal(alone[0], beside[1])


@pytest.mark.parametrize("other", [look(1), look(chunk=1), look(task_id=1), look(seed=8)])
def test_another_episode_or_chunk_has_other_noise(other: ObservationRequest) -> None:
    assert not torch.equal(noise.noise_for_requests([look()], SHAPE), noise.noise_for_requests([other], SHAPE))


def test_the_noise_is_standard_normal() -> None:
    drawn = noise.noise_for_requests([look(number) for number in range(50)], (50, 32))
    assert abs(float(drawn.mean())) < 0.01 and abs(float(drawn.std()) - 1) < 0.01


def test_reference_noise_is_what_lerobot_eval_draws_chunk_by_chunk() -> None:
    torch.manual_seed(3)
    wanted = [torch.normal(0.0, 1.0, (2, *SHAPE)) for _ in range(3)]
    torch.manual_seed(3)
    reference = noise.ReferenceNoise()
    late = reference.noise_for_requests([look(0, chunk=2), look(1, chunk=0)], (2, *SHAPE), "cpu")
    early = reference.noise_for_requests([look(0, chunk=1), look(1, chunk=1)], (2, *SHAPE), "cpu")
    assert torch.equal(late, torch.stack([wanted[2][0], wanted[0][1]])) and torch.equal(early, wanted[1])


# how a policy may be asked


def policy(name: str, declared: bool = False, **config: Any) -> Any:
    known = {"temporal_ensemble_coeff": None, "rtc_config": None, "use_relative_actions": False, "n_obs_steps": 1}
    words = {"reads_once_per_chunk": True} if declared else {}
    return SimpleNamespace(name=name, config=SimpleNamespace(**known | config), **words)


@pytest.mark.parametrize("name", ["act", "pi0", "pi05", "smolvla"])
def test_policies_whose_chunk_is_a_function_of_one_observation_mix(name: str) -> None:
    assert batching_mode(policy(name), "episode", 5).mixing


@pytest.mark.parametrize(
    ("name", "config"),
    [("act", {"temporal_ensemble_coeff": 0.01}), ("pi0", {"use_relative_actions": True}), ("diffusion", {})],
)
def test_a_policy_that_needs_every_observation_gets_it_and_that_is_said(name: str, config: dict[str, Any]) -> None:
    found = batching_mode(policy(name, **config), "episode", 5)
    assert not found.lazy and not found.mixing and not found.concurrent and name in found.reasons[0]


def test_a_plug_in_may_declare_that_it_looks_once_a_chunk() -> None:
    found = batching_mode(policy("replay", declared=True), "episode", 5)
    assert found.lazy and found.concurrent and not found.mixing


def test_reference_noise_of_several_batches_is_drawn_one_after_the_other() -> None:
    assert not batching_mode(policy("pi0"), "reference", 2).concurrent
    assert batching_mode(policy("pi0"), "reference", 1).mixing
    assert batching_mode(policy("act"), "reference", 2).mixing  # it draws none


# weights


class Half(nn.Module):
    """A policy as pi0's loader makes it: random float32, then a type of its own, then the file."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8), nn.Embedding(4, 8))
        self.register_buffer("waves", 1 / 10000 ** (torch.arange(8) / 8), persistent=False)
        self.to(torch.bfloat16)
        self.inner[1].weight.data = self.inner[1].weight.data.to(torch.float32)
        self.to("cpu")

    @classmethod
    def load(cls, path: Path) -> "Half":
        import safetensors.torch

        made = cls()
        made.load_state_dict(safetensors.torch.load_file(path), strict=True)
        return made


def saved(folder: Path) -> Path:
    import safetensors.torch

    torch.manual_seed(1)
    path = folder / "model.safetensors"
    safetensors.torch.save_file({key: value.float() for key, value in Half().state_dict().items()}, path)
    return path


def test_weights_straight_from_the_file_are_those_of_lerobots_loader(tmp_path: Path) -> None:
    path = saved(tmp_path)
    slow = Half.load(path)
    with weights.straight_to("cpu"):
        fast = Half.load(path)
    assert weights.unloaded_names(fast) == []
    pairs = zip(slow.named_parameters(), fast.named_parameters(), strict=True)
    assert all(a[0] == b[0] and a[1].dtype == b[1].dtype and torch.equal(a[1], b[1]) for a, b in pairs)
    assert torch.equal(slow.waves, fast.waves) and slow.waves.dtype == fast.waves.dtype


def test_nothing_random_is_drawn_on_the_way(tmp_path: Path) -> None:
    path = saved(tmp_path)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    with weights.straight_to("cpu"):
        Half.load(path)
    assert torch.equal(before, torch.get_rng_state())


def test_a_weight_that_is_in_no_file_is_named() -> None:
    with weights.straight_to("cpu"):
        empty = Half()
    assert weights.unloaded_names(empty)[0] == "inner.0.weight"


def test_torch_is_itself_again_afterwards() -> None:
    with weights.straight_to("cpu"):
        pass
    assert not nn.Linear(2, 2).weight.is_meta


# records


def test_what_is_recorded_is_read_as_lerobot_evals_metrics(tmp_path: Path) -> None:
    record = Record(tmp_path / "eval", 4)
    played = [(each, outcome(each.number == 1)) for each in episodes("libero_object", (2, 5), 2, 1, 7)]
    for each in reversed(played):
        record(*each, {})
    record.close({2: ["a.mp4"]})
    metrics = lerobot_eval.read_metrics(tmp_path / "eval", ())
    assert metrics.warnings == () and (metrics.episodes, metrics.successes) == (4, 2)
    records = lerobot_eval.episode_records(metrics, 1, 2, 7)
    assert {(each["steps"], each["actions_sha"]) for each in records} == {(4, outcome(True).actions_sha)}
    lines = list(map(json.loads, (tmp_path / "eval" / "episodes.jsonl").read_text().splitlines()))
    for line in lines:
        (same,) = [each for each in records if (each["task"], each["episode"]) == (line["task"], line["episode"])]
        keys = ("suite", "init_state", "seed", "reset_ordinal", "success", "steps", "actions_sha")
        assert {key: line[key] for key in keys} == {key: same[key] for key in keys}


def test_a_record_that_is_closed_returns_what_it_has_written(tmp_path: Path) -> None:
    record = Record(tmp_path, 1)
    record(Episode("libero_object", 3, 0, 7, 1), outcome(True), {})
    told = record.close({3: ["a.mp4"]})
    assert told == json.loads((tmp_path / "eval_info.json").read_text())
    assert (told["overall"]["n_episodes"], told["overall"]["video_paths"]) == (1, ["a.mp4"])


# the reference


class TwoSlots:
    """A vector environment of two slots whose state counts its steps."""

    num_envs = 2

    def __init__(self) -> None:
        self.steps = 0

    def reset(self, **_: object) -> tuple[dict[str, Any], dict[str, Any]]:
        self.steps = 0
        return self._seen(), {}

    def step(self, action: object) -> tuple[Any, ...]:
        self.steps += 1
        return self._seen(), None, None, None, {}

    def _seen(self) -> dict[str, Any]:
        return {"pixels": {"image": np.full((2, 4, 4, 3), self.steps, np.uint8)}, "state": np.array([[0.0], [1.0]])}

    def call(self, name: str) -> tuple[Any, ...]:
        return {
            "task_id": (3, 3),
            "beginning": ({"first_state_sha": "a"}, {"first_state_sha": "b"}),
            "state_sha": ("c", "d"),
        }[name]


def rollout_of(env: TwoSlots, policy: Any, seeds: list[int]) -> dict[str, torch.Tensor]:
    """What lerobot's rollout returns of two episodes: one succeeds in its second step, one ends in its fourth."""
    env.reset(seed=seeds)
    for _ in range(4):
        env.step(None)
    done = torch.tensor([[False, True, True, True], [False, False, False, True]])
    success = torch.tensor([[False, True, True, True], [False, False, False, False]])
    actions = torch.arange(2 * 4 * 7, dtype=torch.float64).view(2, 4, 7)
    return {"done": done, "success": success, "action": actions, "reward": success.double()}


@pytest.fixture
def recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> comparison.PlayedEpisodes:
    """Three episodes at batch 2 by the reference around a lerobot-eval of numbers."""
    stock = SimpleNamespace(rollout=rollout_of)
    stock.main = lambda: [stock.rollout(TwoSlots(), None, seeds=seeds) for seeds in ([7, 8], [9, 10])]
    monkeypatch.setitem(sys.modules, "lerobot.scripts", SimpleNamespace(lerobot_eval=stock))  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "lerobot.envs", SimpleNamespace(libero=SimpleNamespace()))  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "tracka.engines.resident.recorded", SimpleNamespace(RecordedEnv=None))  # type: ignore[arg-type]
    words = ("--env.task=libero_object", f"--output_dir={tmp_path / 'eval'}", "--eval.n_episodes=3")
    monkeypatch.setattr("sys.argv", ["reference", *words])
    reference.main()
    return comparison.read(tmp_path / "eval")


def test_the_reference_notes_each_episode_up_to_the_step_that_ended_it(recorded: comparison.PlayedEpisodes) -> None:
    lines = [episode.line for episode in recorded.values()]
    told = [(line["task"], line["episode"], line["seed"], line["success"], line["steps"]) for line in lines]
    assert told == [(3, 0, 7, True, 2), (3, 1, 8, False, 4), (3, 2, 9, True, 2)]
    actions = rollout_of(TwoSlots(), None, [])["action"].numpy().astype(np.float32)
    assert [line["actions_sha"] for line in lines] == [
        digest(actions[0, :2]),
        digest(actions[1]),
        digest(actions[0, :2]),
    ]
    assert np.array_equal(recorded[3, 1].actions, actions[1])
    assert [line["sum_reward"] for line in lines] == [1.0, 0.0, 1.0]


def test_the_reference_notes_what_was_seen_before_each_step_and_both_states(
    recorded: comparison.PlayedEpisodes,
) -> None:
    line = recorded[3, 1].line
    seen = {"pixels": {"image": np.full((4, 4, 3), 2, np.uint8)}, "state": np.array([1.0])}
    assert line["observations"]["2"] == observation_sha(seen) and list(line["observations"]) == ["0", "1", "2", "3"]
    assert (line["first_state_sha"], line["final_state_sha"]) == ("b", "d")
    assert recorded[3, 0].line["observations"].keys() == {"0", "1"}


@pytest.mark.parametrize("engine", ["reference", "resident"])
def test_both_engines_draw_the_noise_of_an_episode_by_the_rule_that_is_written_down(engine: str) -> None:
    """docs/resident.md: SHA-256 of suite/task/seed/init state/chunk, its first seven bytes a seed of torch's CPU."""
    seed = int.from_bytes(hashlib.sha256(b"libero_object/0/10/3/1").digest()[:7], "big")
    wanted = torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))
    if engine == "resident":
        assert torch.equal(noise.noise_for_requests([look(3, chunk=1)], SHAPE)[0], wanted)
        return
    policy = SimpleNamespace(model=SimpleNamespace(sample_noise=lambda shape, device: None))
    with reference._noise_by_episode(policy, ["libero_object/0/10/3"]):
        drawn = [policy.model.sample_noise((1, *SHAPE), "cpu") for _ in range(2)]
    assert torch.equal(drawn[1][0], wanted) and policy.model.sample_noise((1, *SHAPE), "cpu") is None


class OneStep:
    """A vector environment of one slot, and lerobot-eval's rollout in it, one step long."""

    num_envs = 1

    def __init__(self) -> None:
        self.benchmark: list[bool] = []

    def reset(self) -> Any:
        return {}, {}

    step = reset

    def call(self, name: str) -> Any:
        return ({} if name == "beginning" else 0,)

    def rollout(self, env: Any, policy: Any, seeds: Any) -> Any:
        self.benchmark.append(torch.backends.cudnn.benchmark)
        env.reset()
        flags = {name: torch.ones(1, 1) for name in ("done", "success", "reward")}
        return flags | {"action": torch.zeros(1, 1, 7)}


def test_the_gates_plays_do_without_cudnns_choice_by_timing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    env = OneStep()
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    flags = {"env.task": "libero_object", "output_dir": tmp_path, "eval.n_episodes": 1}
    monkeypatch.setattr(sys, "argv", ["reference", *(f"--{name}={value}" for name, value in flags.items())])
    as_compared = lambda policy, keys: reference.as_compared(policy, ())  # noqa: E731
    listener.listening_rollout(env.rollout, as_compared, hash_observations=True)(env, None, seeds=[7])
    assert env.benchmark == [False]
    for chosen in (True, False):
        cfg: Any = SimpleNamespace(seed=7, resident=SimpleNamespace(cudnn_benchmark=chosen))
        player: Any = SimpleNamespace(reconfigure=lambda cfg: None)
        evaluation._policy_runner(cfg, evaluation.EvaluationCache(runner=player), 1)
        assert torch.backends.cudnn.benchmark is chosen
    assert recording.IN_THE_GATE == {"hash_looks": True, "share_calls": True, "cudnn_benchmark": False}


def test_what_ended_before_a_crash_is_on_disk(tmp_path: Path) -> None:
    record = Record(tmp_path, 9)
    record(Episode("libero_object", 0, 0, 7, 1), outcome(True), {})
    assert json.loads((tmp_path / "episodes.jsonl").read_text())["success"] is True
    assert np.load(tmp_path / "actions" / "libero_object_0_0.npy").shape == (4, 7)
    assert not (tmp_path / "eval_info.json").exists()


def test_lines_that_tell_otherwise_than_the_sums_are_found(tmp_path: Path) -> None:
    record = Record(tmp_path, 1)
    record(Episode("libero_object", 0, 0, 7, 1), outcome(True), {})
    record.close({})
    lines = (tmp_path / "episodes.jsonl").read_text()
    (tmp_path / "episodes.jsonl").write_text(lines.replace('"success": true', '"success": false'))
    assert "episodes.jsonl has 0 successes in 1 episodes" in lerobot_eval.read_metrics(tmp_path, ()).warnings[0]


# flags


def config(**changed: Any) -> Any:
    env = {"type": "libero", "task": "libero_object", "init_states": True, "hard_reset": True}
    run = {"recording": False, "use_async_envs": True, "batch_size": 2}
    parts = {"env": env, "eval": run}
    for name, value in changed.items():
        part, key = name.split("_", 1)
        parts[part][key] = value
    made = SimpleNamespace(env=SimpleNamespace(**env), eval=SimpleNamespace(**run), policy=object(), seed=7)
    return made


@pytest.mark.parametrize(
    "changed",
    [
        {"env_type": "aloha"},
        {"env_task": "libero_object,libero_goal"},
        {"env_hard_reset": False},
        {"env_init_states": False},
        {"eval_recording": True},
        {"eval_use_async_envs": False},
    ],
)
def test_a_flag_that_cannot_be_obeyed_is_refused_with_a_remedy(changed: dict[str, Any]) -> None:
    assert ResidentConfig.problems(config()) == []
    (problem,) = ResidentConfig.problems(config(**changed))
    assert ":" in problem or "must" in problem


@pytest.mark.parametrize("wrong", [{"noise": "own"}, {"workers": -1}, {"slots": -1}, {"videos": -1}, {"renderers": -1}])
def test_a_setting_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="resident"):
        ResidentSettings(**wrong)


@pytest.mark.parametrize(
    ("workers", "batch_size", "slots"),
    [(16, 1, 16), (16, 8, 16), (16, 10, 20), (16, 16, 32), (16, 20, 32), (2, 1, 2), (2, 5, 4), (1, 1, 2)],
)
def test_a_row_has_a_slot_a_worker_or_two_batches_and_never_more_than_two_a_worker(
    workers: int, batch_size: int, slots: int
) -> None:
    assert campaign.slots(workers, batch_size) == slots


# environment processes


@pytest.mark.parametrize(
    ("device", "workers", "own", "renderers"),
    [
        ("cpu", 16, {}, 0),
        ("cpu", 2, {"renderers": 1}, 1),
        ("cuda", 2, {}, 1),
        ("cuda:0", 8, {}, 2),
        ("cuda", 64, {}, 4),
        ("cuda", 64, {"renderers": 9}, 9),
        ("cuda", 64, {"renderers": 0}, 0),
        ("cuda", 64, {"renderers": 9, "fast_reset": False}, 0),  # a hard reset makes graphics of its own
    ],
)
def test_renderers_draw_on_a_gpu_one_for_four_cores_and_where_asked_for(
    device: str, workers: int, own: dict[str, Any], renderers: int
) -> None:
    cfg = SimpleNamespace(policy=SimpleNamespace(device=device), n_workers=workers, resident=ResidentSettings(**own))
    assert ResidentConfig.n_renderers.fget(cfg) == renderers  # type: ignore[attr-defined]


def test_slots_begin_with_a_task_each_where_tasks_mix_and_with_a_batch_where_they_do_not() -> None:
    todo = episodes("libero_object", (0, 4), 2, 2, 7)
    for kind, noise_of, wanted in (
        ("act", "episode", [0, 4]),
        ("replay", "episode", [0, 0]),
        ("pi0", "reference", [0, 0]),
    ):
        cfg: Any = SimpleNamespace(policy=SimpleNamespace(type=kind), resident=SimpleNamespace(noise=noise_of))
        assert [episode.task_id for episode in evaluation.expected_order(cfg, todo)[:2]] == wanted
