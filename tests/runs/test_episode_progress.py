"""How far an attempt is, by what lerobot-eval prints and by what the resident engine writes while they play."""

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from campaigns import REPOSITORY

from tracka.campaign.layout import Layout
from tracka.core import files
from tracka.core.files import Json
from tracka.runs import episode_progress
from tracka.runs.episode_progress import Progress, Reader

LOGS = REPOSITORY / "tests" / "data" / "lerobot-eval-logs"
BAR = "\rStepping through eval batches: {percent:3d}%|{bar:10}| {count}/{batches} [{times}]"


def attempt(root: Path, engine: str = "lerobot-eval", number: int = 1, **changed: object) -> Path:
    """Makes an attempt of tasks 0 and 3, 4 episodes each and two at a time, and returns its folder."""
    folder = Layout(root).run("row").attempt(number)
    manifest: Json = {"task_suite": "libero_object", "task_ids": [0, 3], "n_episodes": 4, "batch_size": 2}
    files.write_json(folder.manifest, manifest | {"engine": engine, "command": ["lerobot-eval"]} | changed)
    return folder.path


def now(root: Path) -> Progress:
    progress = episode_progress.read(Layout(root), "row")
    assert progress is not None
    return progress


def counts(progress: Progress | None) -> list[tuple[int, int, int]]:
    """Returns task, episodes and successes of each task."""
    return [] if progress is None else [(task.task_id, task.played, task.successes) for task in progress.tasks]


def bars(*counts: tuple[int, str | None], batches: int = 2) -> str:
    """Returns what lerobot-eval prints on one task: the bar before each update shows the rate after it."""
    text, before = "", 0
    for count, rate in counts:
        shown = f"01:00<00:30, 30.00s/it, running_success_rate={rate}%" if rate else "00:00<?, ?it/s"
        drawn = [before, count] if rate else [count]
        text += "".join(
            BAR.format(percent=100 * n // batches, bar="█" * (10 * n // batches), count=n, batches=batches, times=shown)
            for n in drawn
        )
        before = count
    return text + "\n"


def episode_lines(*episodes: tuple[int, int, bool]) -> str:
    return "".join(
        json.dumps({"task": task, "episode": episode, "success": success}) + "\n" for task, episode, success in episodes
    )


# Real logs: tasks, episodes of each, batch size, and the successes of each task by their eval_info.json.
REAL_LOGS = {
    "lerobot-0.4.0-libero.stderr.log": (range(10), 1, 1, [0] * 10),
    "lerobot-0.4.4-libero-half-success.stderr.log": ([0, 3], 2, 1, [0, 2]),
    "lerobot-0.6.0-libero.stderr.log": ([0, 3], 2, 1, [0, 0]),
    "lerobot-0.6.1-libero.stderr.log": ([2], 2, 2, [0]),
    "h100-pi0-30-episodes-3-tasks-batch-10.log": ([0, 1, 2], 10, 10, [0, 0, 0]),
    "cpu-act-1-episode.log": ([0], 1, 1, [0]),
}


@pytest.mark.parametrize("name", REAL_LOGS)
def test_every_episode_of_a_real_evaluation_is_read_from_its_progress_bars(tmp_path: Path, name: str) -> None:
    tasks, episodes, batch, successes = REAL_LOGS[name]
    folder = attempt(tmp_path, task_ids=list(tasks), n_episodes=episodes, batch_size=batch)
    (folder / "stderr.log").write_bytes((LOGS / name).read_bytes())
    assert counts(now(tmp_path)) == [(task, episodes, won) for task, won in zip(tasks, successes, strict=True)]


@pytest.mark.parametrize("name", REAL_LOGS)
def test_the_step_of_the_batch_that_plays_is_read_until_the_batch_has_ended(tmp_path: Path, name: str) -> None:
    tasks, episodes, batch, _ = REAL_LOGS[name]
    folder = attempt(tmp_path, task_ids=list(tasks), n_episodes=episodes, batch_size=batch)
    text = (LOGS / name).read_bytes()
    (folder / "stderr.log").write_bytes(text)
    assert now(tmp_path).steps is None
    bar = re.search(rb"Running rollout with at most (\d+) steps: +\d+%\|[^|]*\| ([1-9]\d*)/\d+ [^\r\n]*[\r\n]", text)
    assert bar is not None
    (folder / "stderr.log").write_bytes(text[: bar.end()])
    assert now(tmp_path).steps == (int(bar[2]), int(bar[1]))


def test_a_bar_counts_when_its_batch_has_ended(tmp_path: Path) -> None:
    log, reader = attempt(tmp_path) / "stderr.log", Reader(Layout(tmp_path), "row")
    played = []
    for printed in (bars((0, None)), bars((1, "50.0")), bars((2, "25.0")), bars((0, None)), bars((1, "100.0"))):
        with log.open("a") as file:
            file.write(printed)
        played.append(counts(reader.read()))
    first = [[(0, 0, 0), (3, 0, 0)], [(0, 2, 1), (3, 0, 0)], [(0, 4, 1), (3, 0, 0)]]
    assert played == [*first, first[2], [(0, 4, 1), (3, 2, 2)]]
    assert counts(now(tmp_path)) == played[-1]  # one look at the whole log gives the same


def test_the_bar_that_shows_the_next_batchs_rate_early_is_not_counted(tmp_path: Path) -> None:
    text = bars((0, None), (1, "50.0")) + bars((1, "25.0"))
    (attempt(tmp_path) / "stderr.log").write_text(text)
    assert counts(now(tmp_path))[0] == (0, 2, 1)


def test_a_bar_is_read_from_stdout_where_xvfb_run_sends_it(tmp_path: Path) -> None:
    (attempt(tmp_path) / "stdout.log").write_text(bars((0, None), (1, "50.0")))
    assert counts(now(tmp_path))[0] == (0, 2, 1)


def test_a_bar_that_is_cut_counts_when_its_rest_has_come(tmp_path: Path) -> None:
    log, reader = attempt(tmp_path) / "stderr.log", Reader(Layout(tmp_path), "row")
    text = bars((0, None), (1, "50.0"), (2, "75.0"))
    seen = []
    for end in range(0, len(text) + 1, 7):
        log.write_text(text[:end])
        seen.append(counts(reader.read())[0][1:])
    log.write_text(text)
    assert counts(reader.read())[0] == (0, 4, 3)
    assert set(seen) <= {(0, 0), (2, 1), (4, 3)}


CONTRADICTIONS = {
    "a rate that no number of successes gives": bars((0, None), (1, "33.3")),
    "more batches than the row has": bars((0, None), (1, "50.0"), batches=7),
    "a batch that took successes away": bars((0, None), (1, "100.0"), (2, "25.0")),
    "a rate above 100%": bars((0, None), (1, "150.0")),
    "a bar of no task": bars((1, "50.0")),
}


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_a_bar_that_contradicts_the_row_ends_what_is_known(tmp_path: Path, name: str) -> None:
    (attempt(tmp_path) / "stderr.log").write_text(CONTRADICTIONS[name] + bars((0, None), (1, "50.0"), (2, "50.0")))
    assert sum(played for _, played, _ in counts(now(tmp_path))) <= 2


def test_a_task_that_begins_before_the_last_one_has_ended_is_not_counted(tmp_path: Path) -> None:
    """Bars of several tasks at a time cannot be told apart."""
    text = bars((0, None), (1, "50.0")) + bars((0, None), (1, "100.0"))
    (attempt(tmp_path) / "stderr.log").write_text(text)
    assert counts(now(tmp_path)) == [(0, 2, 1), (3, 0, 0)]


def test_an_evaluation_of_several_tasks_at_a_time_has_no_progress(tmp_path: Path) -> None:
    folder = attempt(tmp_path, command=["lerobot-eval", "--env.max_parallel_tasks=2"])
    (folder / "stderr.log").write_text(bars((0, None), (1, "50.0")))
    assert now(tmp_path).played == 0


def test_the_resident_engines_episodes_are_read_one_by_one(tmp_path: Path) -> None:
    lines = attempt(tmp_path, engine="resident") / "eval" / "episodes.jsonl"
    lines.parent.mkdir()
    reader = Reader(Layout(tmp_path), "row")
    assert counts(reader.read()) == [(0, 0, 0), (3, 0, 0)]
    lines.write_text(episode_lines((0, 0, True), (3, 1, False)))
    assert counts(reader.read()) == [(0, 1, 1), (3, 1, 0)]
    with lines.open("a") as file:
        file.write(episode_lines((3, 0, True)))
    assert counts(reader.read()) == [(0, 1, 1), (3, 2, 1)]


def test_episodes_after_one_that_still_plays_are_none_of_the_first(tmp_path: Path) -> None:
    lines = attempt(tmp_path, engine="resident") / "eval" / "episodes.jsonl"
    files.write_text(lines, episode_lines((0, 0, False), (0, 2, True), (0, 3, True)))
    task = now(tmp_path).tasks[0]
    assert (task.played, task.successes, task.looks) == (3, 2, ((1, 0),))


def test_the_counts_of_the_first_episodes_are_known_after_each_batch(tmp_path: Path) -> None:
    (attempt(tmp_path) / "stderr.log").write_text(bars((0, None), (1, "50.0"), (2, "75.0")))
    assert [task.looks for task in now(tmp_path).tasks] == [((2, 1), (4, 3)), ()]


@pytest.mark.parametrize(
    "line",
    [
        "no JSON",
        "[1]",
        '{"task": 7, "episode": 0, "success": true}',
        '{"task": 0, "episode": 4, "success": true}',
        '{"task": 0, "episode": "0", "success": true}',
        '{"task": [0], "episode": 0, "success": true}',
        '{"task": 0, "episode": 0, "success": 1}',
    ],
)
def test_a_line_that_is_no_episode_of_the_row_is_left_out(tmp_path: Path, line: str) -> None:
    lines = attempt(tmp_path, engine="resident") / "eval" / "episodes.jsonl"
    files.write_text(lines, line + "\n" + episode_lines((3, 0, True)))
    assert counts(now(tmp_path)) == [(0, 0, 0), (3, 1, 1)]


def test_an_episode_counts_once(tmp_path: Path) -> None:
    lines = attempt(tmp_path, engine="resident") / "eval" / "episodes.jsonl"
    files.write_text(lines, episode_lines((0, 0, False), (0, 0, True)))
    assert counts(now(tmp_path))[0] == (0, 1, 0)


def test_a_reader_goes_on_with_the_next_attempt(tmp_path: Path) -> None:
    reader = Reader(Layout(tmp_path), "row")
    assert reader.read() is None
    (attempt(tmp_path) / "stderr.log").write_text(bars((0, None), (1, "50.0")))
    assert counts(reader.read())[0] == (0, 2, 1)
    attempt(tmp_path, number=2)
    progress = reader.read()
    assert progress is not None
    assert (progress.attempt, progress.played, progress.expected) == (2, 0, 8)


def test_an_attempt_that_could_not_start_has_no_progress(tmp_path: Path) -> None:
    attempt(tmp_path, command=None)
    assert episode_progress.read(Layout(tmp_path), "row") is None


def unreadable(kind: str, path: Path) -> None:
    """Makes something at `path` that is no regular file but leads to bars, or would never end."""
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "link":
        other = path.with_name("other")
        other.write_text(bars((0, None), (1, "50.0")))
        path.symlink_to(other)
    else:
        path.mkdir()


@pytest.mark.parametrize("kind", ["fifo", "link", "folder"])
def test_only_regular_files_are_read(tmp_path: Path, kind: str) -> None:
    unreadable(kind, attempt(tmp_path) / "stderr.log")
    assert now(tmp_path).played == 0


def test_a_call_reads_a_bounded_part_of_a_large_log_and_the_next_call_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(episode_progress, "MOST_BYTES", 4096)
    monkeypatch.setattr(episode_progress, "CHUNK_BYTES", 1024)
    text = bars((0, None)) + "x" * 6000 + "\n" + bars((1, "50.0"))
    (attempt(tmp_path) / "stderr.log").write_text(text)
    reader = Reader(Layout(tmp_path), "row")
    seen: Sequence[list[tuple[int, int, int]]] = [counts(reader.read()) for _ in range(2)]
    assert [each[0][1] for each in seen] == [0, 2]
