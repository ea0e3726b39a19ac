"""A passed row whose evidence is refused runs again: by a resumed sweep, by the gates, and by `--lf`."""

import shutil
from collections.abc import Callable
from pathlib import Path

import campaigns
import pytest
from campaigns import Made, contents

from tracka.core import files
from tracka.gates import validate
from tracka.runs import row_state, run

BASELINE, LONG, WIDE = "baseline_b1_e2", "long_b1_e6", "wide_b4_e4"


@pytest.fixture
def passed(tmp_path_factory: pytest.TempPathFactory, copy_of: Callable[[Made], Made]) -> Made:
    """A copy of an accepted campaign."""
    return copy_of(campaigns.finished(tmp_path_factory.getbasetemp(), "passed"))


def edit(made: Made, run_id: str, name: str, **values: object) -> None:
    """Edits a JSON file of a run, at the top and in the attempt alike."""
    top = made.layout.run(run_id)
    for place in (top, top.attempt(1)):
        path: Path = getattr(place, name)
        files.write_json(path, files.read_json(path) | values)


def edit_result_and_marker(made: Made) -> None:
    edit(made, WIDE, "result", per_task=[{"suite": "libero_object", "task_id": 0, "successes": 4, "episodes": 4}])
    edit_marker(made, result_sha256=files.sha256_file(made.layout.run(WIDE).result))


def edit_marker(made: Made, **values: object) -> None:
    path = made.layout.marker(WIDE)
    files.write_json(path, files.read_json(path) | values)


def swap_videos(made: Made) -> None:
    (video, *_) = made.layout.run(WIDE).attempt(1).videos()
    video.write_bytes(video.read_bytes()[:-8] + b"swapped.")


def remove_folder(path: Path) -> None:
    shutil.rmtree(path)


DAMAGES: dict[str, Callable[[Made], object]] = {
    "no eval_info.json": lambda made: (made.layout.run(WIDE).attempt(1).output / "eval_info.json").unlink(),
    "another video": swap_videos,
    "no log": lambda made: made.layout.run(WIDE).stdout.unlink(),
    "an attempt's log": lambda made: made.layout.run(WIDE).attempt(1).stderr.write_text(""),
    "an edited result": lambda made: edit(made, WIDE, "result", duration_sec=0.5),
    "an edited result with its marker": edit_result_and_marker,
    "a message in a passed result": lambda made: edit(made, WIDE, "result", error_message="nothing to see"),
    "an edited manifest": lambda made: edit(made, WIDE, "manifest", settings={}),
    "a manifest of another seed": lambda made: edit(made, WIDE, "manifest", seed=8),
    "a marker that says fail": lambda made: edit_marker(made, status="fail"),
    "a marker of another GPU": lambda made: edit_marker(made, gpu_id=3),
    "no attempt": lambda made: remove_folder(made.layout.run(WIDE).attempts),
    "no attempt's result": lambda made: made.layout.run(WIDE).attempt(1).result.unlink(),
    "an attempt too many": lambda made: shutil.copytree(
        made.layout.run(WIDE).attempt(1).path, made.layout.run(WIDE).attempt(2).path
    ),
    "a file that cannot be read": lambda made: made.layout.run(WIDE).episodes.write_bytes(b"\xff"),
    "an identity that is another's": lambda made: shutil.copy(
        made.layout.run(LONG).attempt(1).path / "identity.json",
        made.layout.run(WIDE).attempt(1).path / "identity.json",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_the_contract_of_a_passed_row_refuses_a_resumed_call_runs_again(passed: Made, damage: str) -> None:
    spec = passed.spec
    row, host = spec.row(WIDE), run.load_host(spec.layout)
    assert not run.would_run(spec, row, host)
    DAMAGES[damage](passed)
    assert validate.row_contract_findings(spec, row, "evidence") != []
    assert run.would_run(spec, row, host)


def test_a_resumed_sweep_runs_again_only_those_rows_and_keeps_their_old_attempts(passed: Made) -> None:
    DAMAGES["an edited result with its marker"](passed)
    state = files.read_json(passed.layout.marker(LONG))
    state["history"] = [{"status": "pass", "at_utc": "2099-01-01T00:00:00Z", "attempt": 1}]
    files.write_json(passed.layout.marker(LONG), state)
    before = {run_id: contents(passed.layout.run(run_id).attempt(1).path) for run_id in (LONG, WIDE)}
    started = len(passed.started())
    listed = passed.call(*passed.sweep_words("--resume", "--dry-run")).stdout
    assert [line.split(":")[0] for line in listed.splitlines()] == [LONG, WIDE]
    assert "2 of 2" in passed.tracka(*passed.sweep_words("--resume", "--rows", f"{LONG},{WIDE}")).stdout
    assert sorted(passed.started()[started:]) == [LONG, WIDE]
    assert passed.evidence(BASELINE, LONG, WIDE) == []
    for run_id, kept in before.items():
        assert passed.layout.run(run_id).numbers() == [1, 2]
        assert contents(passed.layout.run(run_id).attempt(1).path) == kept


def test_a_lost_marker_alone_is_restored_without_a_run(passed: Made) -> None:
    passed.layout.marker(WIDE).write_bytes(passed.layout.marker(LONG).read_bytes())
    started = passed.started()
    row_state.ensure_pending(passed.layout, [passed.spec.row(WIDE)])  # as a session does before its rows
    assert passed.run_row(WIDE)["attempt"] == 1
    assert passed.evidence(WIDE) == [] and passed.started() == started


def test_last_failed_runs_such_rows_again_though_phase_5_alone_has_failed(passed: Made) -> None:
    DAMAGES["another video"](passed)
    (passed.layout.run(BASELINE).attempt(1).output / "eval_info.json").unlink()
    started = len(passed.started())
    assert passed.pytest("-n0", "-m", "phase5").returncode == 1
    assert passed.started()[started:] == []
    ended = passed.pytest("-n0", "--lf")
    assert ended.returncode == 0, ended.stdout
    assert passed.started()[started:] == [BASELINE, WIDE]
    assert [passed.layout.run(run_id).numbers() for run_id in (BASELINE, LONG, WIDE)] == [[1, 2], [1], [1, 2]]
