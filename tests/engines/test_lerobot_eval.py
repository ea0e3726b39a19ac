"""The engine lerobot-eval: its argv, and what its files and logs say."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from campaigns import REPOSITORY

from tracka.campaign import campaign
from tracka.campaign.campaign import EvalSettings
from tracka.campaign.matrix import Row
from tracka.core.errors import ToolMissing
from tracka.engines import cli_capabilities, lerobot_eval
from tracka.engines.lerobot_eval import Metrics, TaskOutcome
from tracka.reporting import collect

DATA = REPOSITORY / "tests" / "data" / "lerobot-eval-logs"
PI0_HELP = (DATA / "help-env-libero-policy-pi0.txt").read_text()
ROW = Row("r", "libero_object", 10, 50, 0, 7, "egl", "org/policy", True)
# Synthetic, as lerobot before 0.6.1 prints its metrics; NumPy 2 shows its numbers with their type.
PRINTED = """Overall Aggregated Metrics:
{'avg_sum_reward': np.float64(0.5), 'avg_max_reward': np.float64(0.5), 'pc_success': np.float64(37.5), \
'n_episodes': 8, 'eval_s': 12.5, 'eval_ep_s': 1.56, 'video_paths': ['out/videos/libero_object_0/eval_episode_0.mp4']}
"""


def argv(row: Row, settings: EvalSettings, batch_size: int = 10) -> list[str]:
    paths = {"policy": Path("checkpoints/p"), "output": Path("artifacts/runs/r/attempts/1/eval")}
    return lerobot_eval.command(["lerobot-eval"], row, settings, device="cuda", batch_size=batch_size, **paths)


def shipped(name: str, run_id: str) -> list[str]:
    spec = campaign.load(REPOSITORY / "tasks" / name)
    return argv(spec.row(run_id), spec.settings(spec.row(run_id)), spec.row(run_id).batch_size)


def log(folder: Path, text: str, name: str = "stdout.log") -> Path:
    (folder / name).write_text(text)
    return folder / name


# argv


def test_the_argv_of_the_pi0_campaign() -> None:
    assert shipped("20260210-track-a-lerobot-pi0-libero", "object_t3_b10_e50") == [
        "lerobot-eval",
        "--policy.path=checkpoints/p",
        "--policy.device=cuda",
        "--policy.n_action_steps=10",
        "--env.type=libero",
        "--env.task=libero_object",
        "--env.task_ids=[3]",
        "--eval.batch_size=10",
        "--eval.n_episodes=50",
        "--seed=7",
        "--output_dir=artifacts/runs/r/attempts/1/eval",
    ]


def test_the_argv_of_the_smoke_campaign() -> None:
    words = shipped("smoke-libero-object", "object_t34_b1_s23")
    assert {"--env.task_ids=[3, 4]", "--env.episode_length=120", "--seed=23", "--eval.batch_size=1"} <= set(words)
    assert {"--env.observation_height=128", "--env.observation_width=128"} <= set(words)


@pytest.mark.parametrize("run_id", ["baseline_b1_e2", "object_t9_b10_e50"])
def test_lerobot_eval_knows_every_flag_of_the_pi0_campaign(run_id: str) -> None:
    words = shipped("20260210-track-a-lerobot-pi0-libero", run_id)
    lerobot_eval.check_flags(
        words, {"supported_flags": cli_capabilities.flags(PI0_HELP), "version_text": "lerobot 0.6.1"}
    )


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        (EvalSettings(use_async_envs=True), "--eval.use_async_envs=true"),
        (EvalSettings(use_async_envs=False), "--eval.use_async_envs=false"),
        (EvalSettings(task_ids=(0, 12)), "--env.task_ids=[0, 12]"),
        (EvalSettings(rename_map={"a.b": 'c "d"'}), '--rename_map={"a.b": "c \\"d\\""}'),
        (EvalSettings(flags={"policy.use_amp": True}), "--policy.use_amp=true"),
        (EvalSettings(flags={"env.fps": 20}), "--env.fps=20"),
        (EvalSettings(flags={"job_name": "with space"}), "--job_name=with space"),
    ],
)
def test_a_setting_is_written_as_lerobot_eval_reads_it(settings: EvalSettings, word: str) -> None:
    assert word in argv(ROW, settings)


@pytest.mark.parametrize("name", ["task_ids", "rename_map", "use_async_envs", "n_action_steps", "episode_length"])
def test_a_setting_that_is_not_set_is_left_to_lerobot(name: str) -> None:
    assert not [word for word in argv(ROW, EvalSettings()) if name in word]


def test_a_further_flag_takes_the_place_of_the_usual_one() -> None:
    words = argv(ROW, EvalSettings(n_action_steps=10, flags={"policy.n_action_steps": 50}))
    assert [word for word in words if "n_action_steps" in word] == ["--policy.n_action_steps=50"]


def test_flags_that_lerobot_eval_lacks_are_named_together() -> None:
    words = argv(ROW, EvalSettings(flags={"eval.colour": 1, "policy.mood": "good"}))
    known = {"supported_flags": cli_capabilities.flags(PI0_HELP), "version_text": "lerobot 9.9"}
    with pytest.raises(ToolMissing) as caught:
        lerobot_eval.check_flags(words, known)
    assert [finding.where for finding in caught.value.findings] == ["--eval.colour", "--policy.mood"]
    assert caught.value.findings[0].what == "lerobot 9.9 has no such flag"
    assert [finding.remedy for finding in caught.value.findings] == [lerobot_eval.TAKE_OUT, lerobot_eval.TYPE]
    with pytest.raises(ToolMissing, match=r"policy\.mood: lerobot 9\.9 has no such flag\. Remove the flag"):
        lerobot_eval.check_flags(words[-1:], known | {"policy_types": ["pi0"]})
    assert caught.value.exit_code == 3


# eval_info.json


def info(folder: Path, **changed: Any) -> Path:
    """An output folder with the real eval_info.json, but for the keys `changed`."""
    value = json.loads((DATA / "cpu-act-1-episode.eval_info.json").read_text())
    (folder / "eval_info.json").write_text(json.dumps(value | changed))
    return folder


def task(task_id: int, *successes: object) -> dict[str, Any]:
    return {"task_group": "libero_object", "task_id": task_id, "metrics": {"successes": list(successes)}}


def overall(episodes: int, percent: float) -> dict[str, Any]:
    return {"n_episodes": episodes, "pc_success": percent}


def test_the_real_eval_info_is_read(tmp_path: Path) -> None:
    outcome = TaskOutcome("libero_object", 0, (False,))
    assert lerobot_eval.read_metrics(info(tmp_path), []) == Metrics("eval_info.json", 1, 0, 0.0, (outcome,))


def test_episodes_of_several_tasks_are_counted_together(tmp_path: Path) -> None:
    tasks = [task(0, True, False), task(3, True, True)]
    found = lerobot_eval.read_metrics(info(tmp_path, per_task=tasks, overall=overall(4, 75.0)), [])
    assert (found.episodes, found.successes, found.success_rate, found.warnings) == (4, 3, 0.75, ())
    assert [(item.task_id, item.successes) for item in found.tasks] == [(0, (True, False)), (3, (True, True))]


@pytest.mark.parametrize(
    ("summary", "warning"),
    [
        (overall(3, 50.0), "overall.n_episodes is 3, but 2 episodes are listed"),
        (overall(2, 100.0), "overall.pc_success is 100.0, but 1 of 2 listed episodes succeeded"),
        (overall(2, float("nan")), "overall.pc_success is nan, but 1 of 2 listed episodes succeeded"),
        (overall(2, 0.5), "overall.pc_success is 0.5, but 1 of 2 listed episodes succeeded"),
        ({}, "overall.n_episodes is None, but 2 episodes are listed"),
    ],
)
def test_an_overall_that_its_episodes_do_not_give_is_warned_of(
    tmp_path: Path, summary: dict[str, Any], warning: str
) -> None:
    found = lerobot_eval.read_metrics(info(tmp_path, per_task=[task(0, True, False)], overall=summary), [])
    assert warning in found.warnings
    assert (found.episodes, found.successes) == (2, 1)


def test_an_evaluation_without_episodes_has_no_rate(tmp_path: Path) -> None:
    found = lerobot_eval.read_metrics(info(tmp_path, per_task=[], overall=overall(0, float("nan"))), [])
    assert (found.episodes, found.success_rate) == (0, None)
    assert found.warnings == ("eval_info.json holds no episodes",)


@pytest.mark.parametrize(
    "changed",
    [
        {"per_task": [task(0, 1)]},
        {"per_task": [task(0, "true")]},
        {"per_task": [task(0, None)]},
        {"per_task": [{"task_id": 0}]},
        {"per_task": {"0": []}},
        {"per_task": None},
        {"overall": None},
        {"overall": []},
    ],
    ids=str,
)
def test_an_eval_info_of_another_shape_is_warned_of(tmp_path: Path, changed: dict[str, Any]) -> None:
    assert any("eval_info.json" in text for text in lerobot_eval.read_metrics(info(tmp_path, **changed), []).warnings)


@pytest.mark.parametrize("content", [None, b"", b'{"per_task": [', b"[]"], ids=["missing", "empty", "cut", "a list"])
def test_without_eval_info_the_log_is_read_and_both_are_warned_of(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "eval_info.json").write_bytes(content)
    real = DATA / "cpu-act-1-episode.log"
    found = lerobot_eval.read_metrics(tmp_path, [tmp_path / "none.log", real])
    assert (found.source, found.episodes, found.successes, found.success_rate) == ("log", 1, 0, 0.0)
    assert found.warnings[0].startswith("eval_info.json: ")
    assert found.warnings[1:] == ("per-task outcomes are missing",)


def test_with_neither_file_nor_log_there_are_no_metrics(tmp_path: Path) -> None:
    found = lerobot_eval.read_metrics(tmp_path, [log(tmp_path, "nothing")])
    assert (found.source, found.episodes, found.success_rate) == (None, None, None)
    assert found.warnings[-1] == "logs: no metrics found"


# logs


@pytest.mark.parametrize(
    ("name", "metrics"),
    [
        ("cpu-act-1-episode", (0, 1, 0.0)),
        ("h100-pi0-8-episodes-batch-8", (0, 8, 0.0)),
        ("h100-pi0-30-episodes-3-tasks-batch-10", (0, 30, 0.0)),
        ("h100-missing-module", None),
        ("h100-broken-numpy-import", None),
    ],
)
def test_the_metrics_of_real_logs_are_found(name: str, metrics: tuple[int, int, float] | None) -> None:
    assert lerobot_eval.parse_log(DATA / f"{name}.log") == metrics


def test_metrics_on_stderr_are_found_beside_an_empty_stdout(tmp_path: Path) -> None:
    shutil.copy(DATA / "h100-pi0-8-episodes-batch-8.log", tmp_path / "stderr.log")
    assert collect.parse_success_metrics(log(tmp_path, "")) == (0, 8, 0.0)


def test_metrics_that_are_printed_on_stdout_are_found(tmp_path: Path) -> None:
    assert collect.parse_success_metrics(log(tmp_path, PRINTED)) == (3, 8, 0.375)


@pytest.mark.parametrize(
    ("text", "metrics"),
    [
        ("", None),
        ("Overall Aggregated Metrics:\n", None),
        ("{'avg_sum_reward': 0.0, 'pc_succ", None),
        ("{'pc_success': nan, 'n_episodes': 0, 'eval_s': 1.0}", (None, 0, None)),
        ("{'pc_success': np.float64(nan), 'n_episodes': 0, 'eval_s': 1.0}", (None, 0, None)),
        ("{'pc_success': np.float32(12.5), 'n_episodes': 8, 'eval_s': 1.0}", (1, 8, 0.125)),
        ("{'pc_success': 100, 'n_episodes': 3, 'eval_s': 1.0}", (3, 3, 1.0)),
        ("{'pc_success': 50.0, 'n_epis", (None, None, 0.5)),
        ("{'avg_sum_reward': 0.0, 'pc_success': ", (None, None, None)),
        ("{'avg_sum_reward': 0.0, 'pc_success': 5", (None, None, None)),
        ("{'pc_success': 50.0, 'n_episodes': 1", (None, None, 0.5)),
        ("{'pc_success': 6.25e1, 'n_episodes': 8, 'eval_s': 1.0}", (5, 8, 0.625)),
        ("0/1\r{'pc_success': 50.0, 'n_episodes': 2, 'eval_s': 1.0}\r1/1", (1, 2, 0.5)),
        ("{'g': {'pc_success': 9.0, 'n_episodes': 9}}\n" + PRINTED + "{'h': {'pc_success': 1.0}}", (3, 8, 0.375)),
        (PRINTED + "{'pc_success': 25.0, 'n_episodes': 4, 'eval_s': 1.0}\n", (1, 4, 0.25)),
    ],
)
def test_metrics_of_a_log(
    tmp_path: Path, text: str, metrics: tuple[int | None, int | None, float | None] | None
) -> None:
    assert lerobot_eval.parse_log(log(tmp_path, text)) == metrics
    assert collect.parse_success_metrics(tmp_path / "stdout.log") == (metrics or (None, None, None))


def test_a_missing_log_has_no_metrics(tmp_path: Path) -> None:
    assert lerobot_eval.parse_log(tmp_path / "none.log") is None
    assert collect.parse_success_metrics(tmp_path / "stdout.log") == (None, None, None)


# episodes


def records(tasks: Sequence[TaskOutcome], batch_size: int, n_episodes: int, seed: int = 7) -> list[dict[str, Any]]:
    return lerobot_eval.episode_records(Metrics(tasks=tuple(tasks)), batch_size, n_episodes, seed)


@pytest.mark.parametrize(
    ("batch_size", "slots", "resets"),
    [
        (1, [0, 0, 0, 0, 0, 0], [0, 1, 2, 3, 4, 5]),
        (4, [0, 1, 2, 3, 0, 1], [0, 0, 0, 0, 1, 1]),
        (10, [0, 1, 2, 3, 4, 5], [0, 0, 0, 0, 0, 0]),
    ],
)
def test_six_episodes_fall_into_slots_and_resets(batch_size: int, slots: list[int], resets: list[int]) -> None:
    found = records([TaskOutcome("libero_object", 0, (False,) * 6)], batch_size, 6)
    assert [record["slot"] for record in found] == slots
    assert [record["reset_ordinal"] for record in found] == resets
    assert [record["seed"] for record in found] == [7, 8, 9, 10, 11, 12]
    assert [record["init_state"] for record in found] == [0, 1, 2, 3, 4, 5]


def test_init_states_begin_again_after_50() -> None:
    found = records([TaskOutcome("libero_object", 0, (False,) * 52)], 4, 52)
    assert [record["init_state"] for record in found] == [*range(50), 0, 1]
    assert found[51]["seed"] == 58


def test_each_task_begins_at_its_first_episode() -> None:
    tasks = [TaskOutcome("libero_object", 3, (True, False)), TaskOutcome("libero_object", 4, (False, True))]
    found = [(item["task"], item["episode"], item["seed"], item["success"]) for item in records(tasks, 1, 2)]
    assert found == [(3, 0, 7, True), (3, 1, 8, False), (4, 0, 7, False), (4, 1, 8, True)]


def test_what_lerobot_eval_does_not_report_is_null() -> None:
    (record,) = records([TaskOutcome("libero_goal", 1, (True,))], 1, 1)
    assert record == {
        "suite": "libero_goal",
        "task": 1,
        "episode": 0,
        "init_state": 0,
        "seed": 7,
        "reset_ordinal": 0,
        "slot": 0,
        "success": True,
        "steps": None,
        "actions_sha": None,
    }
