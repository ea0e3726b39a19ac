"""A run judged again: what its files say now, against what they said when it ended, and against the campaign then."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import campaigns
import pytest
from campaigns import Made

from tracka.campaign import campaign
from tracka.core import files, hashing
from tracka.core.errors import Finding
from tracka.engines import failure, lerobot_eval
from tracka.engines.lerobot_eval import Metrics, TaskOutcome
from tracka.execution import gpu
from tracka.execution.process import Exit
from tracka.gates import handoff, row_contracts, validate
from tracka.reporting import caveats
from tracka.runs import judgement

BASELINE, WIDE = "baseline_b1_e2", "wide_b4_e4"


@pytest.fixture
def passed(tmp_path_factory: pytest.TempPathFactory, copy_of: Callable[[Made], Made]) -> Made:
    """A copy of an accepted campaign."""
    return copy_of(campaigns.finished(tmp_path_factory.getbasetemp(), "passed"))


def found(made: Made, phase: str = "phase4") -> list[str]:
    return [f"{finding.where}: {finding.what}" for finding in validate.phase_findings(made.spec, phase)]


def edit(path: Path, **values: object) -> None:
    """Edits a file as an editor might that keeps its inode: the copy at the top and the attempt's are one file."""
    path.write_bytes(files.pretty(files.read_json(path) | values))


def result_of(made: Made, run_id: str = WIDE) -> Path:
    return made.layout.run(run_id).result


# the files of an attempt

ATTEMPT = {
    "a log": "stdout.log",
    "metrics": "eval/eval_info.json",
    "episodes": "episodes.jsonl",
    "a video": "eval/videos/libero_object_0/eval_episode_0.mp4",
}


@pytest.mark.parametrize("name", ATTEMPT.values(), ids=ATTEMPT)
@pytest.mark.parametrize("how", ["changed", "gone"])
def test_a_file_of_an_attempt_that_is_not_as_its_run_left_it_is_named(passed: Made, name: str, how: str) -> None:
    path = passed.layout.run(WIDE).attempt(1).path / name
    if how == "changed":
        with path.open("ab") as file:
            file.write(b" ")
    else:
        path.unlink()
    what = {"changed": "changed", "gone": "removed"}[how]
    assert f"{path}: the file was {what} after the attempt ended" in found(passed)


def test_a_file_that_came_later_is_named(passed: Made) -> None:
    path = passed.layout.run(WIDE).attempt(1).output / "more.json"
    path.write_text("{}")
    assert f"{path}: the file was added after the attempt ended" in found(passed)


# its result


def test_an_edited_result_is_found_by_its_marker_and_by_both_handoffs(passed: Made) -> None:
    edit(result_of(passed), error_message="nothing to see")
    assert any("key result_sha256" in line for line in found(passed))
    told = [str(each) for phase in ("phase4", "phase5") for each in validate.handoff_findings(passed.spec, phase)]
    assert [line.split(": ")[0].split("/")[-1] for line in told if "key details" in line] == [
        "phase4_handoff.json, key details",
        "phase5_handoff.json, key details",
    ]


def test_no_table_and_no_page_is_made_of_an_edited_result(passed: Made) -> None:
    before = campaigns.contents(passed.layout.summary), passed.layout.results.read_text()
    edit(result_of(passed), successes=3, success_rate=0.75)
    for phase in ("phase3", "phase4", "phase5"):
        handoff.hand_over(passed.spec, phase)
    assert (campaigns.contents(passed.layout.summary), passed.layout.results.read_text()) == before
    assert files.read_json(passed.layout.handoff("phase4"))["status"] == "partial"


def test_tracka_collect_makes_no_table_of_an_edited_result(passed: Made) -> None:
    edit(result_of(passed), successes=3, success_rate=0.75)
    tables = [f"--summary-{kind}={passed.root / kind}" for kind in ("csv", "md")]
    ended = passed.call("collect", "--runs-root", str(passed.layout.runs), *tables)
    assert ended.returncode == 2 and "the file has changed since its run ended" in ended.stderr
    assert not (passed.root / "csv").exists()


def test_logs_that_tell_of_a_failure_are_no_pass_whatever_the_result_says(passed: Made) -> None:
    attempt = passed.layout.run(WIDE).attempt(1)
    attempt.stderr.write_text(attempt.stderr.read_text() + f"WARNING: {failure.BAD_ACTION}\n")
    assert any("the attempt's files show bad_action" in line for line in found(passed))


def test_fewer_tasks_or_episodes_than_the_manifest_asks_for_are_no_pass(passed: Made) -> None:
    edit(passed.layout.run(WIDE).manifest, task_ids=[0, 1])
    assert any("the attempt's files show invalid_result: episodes by task" in line for line in found(passed))


@pytest.mark.parametrize("key", ["invalid", "unproven"])
def test_a_mark_that_the_manifest_has_and_the_result_has_lost_is_found(passed: Made, key: str) -> None:
    edit(passed.layout.run(WIDE).manifest, **{key: "task 3: it falls"})
    assert any(f"result.json, key {key}" in line for line in found(passed))


TIMES = {
    "the run ended at 2020-01-01T00:00:00Z, before it began": {"end_time_utc": "2020-01-01T00:00:00Z"},
    "the run ended at 2099-01-01T00:00:00Z, which is in the future": {"end_time_utc": "2099-01-01T00:00:00Z"},
    "the run took 9000 s, but": {"duration_sec": 9000.0},
}


@pytest.mark.parametrize(("told", "values"), TIMES.items())
def test_times_that_no_run_has_are_found(passed: Made, told: str, values: dict[str, object]) -> None:
    edit(result_of(passed), **values)
    assert any(told in line for line in found(passed))


def test_steps_of_a_marker_out_of_order_are_found(passed: Made) -> None:
    path = passed.layout.marker(WIDE)
    value = files.read_json(path)
    value["history"][0]["at_utc"] = "2090-01-01T00:00:00Z"
    files.write_json(path, value)
    assert any("steps out of order" in line for line in found(passed))


# the device

LOST_GPU = "WARNING 2026-11-28 Device 'cuda' is not available. Switching to 'cpu'."
GOOD = Metrics("eval_info.json", 1, 1, 1.0, (TaskOutcome("libero_object", 0, (True,)),))


@pytest.mark.parametrize(("device", "reason"), [("cuda", "device"), ("cpu", None)])
def test_a_row_of_a_gpu_that_went_on_with_the_cpu_has_failed(tmp_path: Path, device: str, reason: str | None) -> None:
    log = tmp_path / "stderr.log"
    log.write_text(f"{LOST_GPU}\n{'later' * 20000}\n")
    told = failure.diagnose(Exit(0, "", 1.0), GOOD, "libero_object", {0: 1}, [log], device)
    assert (told and told.reason) == reason
    assert failure.next_batch("device", 4) is None


def test_a_pretended_gpu_is_accepted_under_a_stand_in_alone(passed: Made) -> None:
    path = passed.layout.run(WIDE).manifest
    manifest = files.read_json(path) | {"gpu_uuid": f"{gpu.PRETENDED}0"}
    own, spec = passed.spec, passed.spec
    assert list(judgement.pretended_gpus(own, path, manifest)) == []
    object.__setattr__(spec, "executable", ())
    (finding,) = judgement.pretended_gpus(spec, path, manifest)
    assert "TRACKA_PRETEND_GPUS pretends" in finding.what


# the checkpoint


def test_a_file_edited_in_place_with_its_time_put_back_has_another_hash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "policy" / "model.safetensors"
    path.parent.mkdir()
    path.write_bytes(b"one")
    before, status = hashing.of_tree(path.parent), path.stat()
    path.write_bytes(b"two")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert hashing.of_tree(path.parent) != before


# what was changed when the result was known


@pytest.fixture
def below(tmp_path_factory: pytest.TempPathFactory, copy_of: Callable[[Made], Made]) -> Made:
    """A copy of a campaign whose row wide_b4_e4 reached 50% of 75%."""
    return copy_of(campaigns.below_threshold(tmp_path_factory.getbasetemp()))


@pytest.fixture
def crashed(tmp_path_factory: pytest.TempPathFactory, copy_of: Callable[[Made], Made]) -> Made:
    """A copy of a campaign whose row long_b1_e6 failed twice."""
    return copy_of(campaigns.finished(tmp_path_factory.getbasetemp(), "partial", long_b1_e6=["crash"]))


def history(made: Made) -> list[str]:
    return [f"{each.where}: {each.what}" for each in caveats.of_history(made.spec)]


def disable(made: Made, run_id: str) -> None:
    lines = made.layout.matrix.read_text().splitlines()
    made.layout.matrix.write_text("\n".join(line[:-1] + "0" if line.startswith(run_id) else line for line in lines))


def test_a_campaign_of_which_nothing_was_changed_has_no_such_caveat(below: Made) -> None:
    assert history(below) == []


@pytest.mark.slow
def test_a_row_that_was_disabled_after_it_failed_is_told(crashed: Made) -> None:
    disable(crashed, "long_b1_e6")
    assert history(crashed) == ["row long_b1_e6: the row is no longer enabled, and its run failed (crash)"]


@pytest.mark.parametrize("how", ["disabled", "removed"])
def test_a_row_that_was_left_out_after_it_fell_short_is_told(below: Made, how: str) -> None:
    if how == "disabled":
        disable(below, WIDE)
    else:
        settings = below.layout.settings
        settings.write_text(settings.read_text().replace("[thresholds.rows]\nwide_b4_e4 = 0.75", ""))
        lines = below.layout.matrix.read_text().splitlines()
        below.layout.matrix.write_text("\n".join(line for line in lines if not line.startswith(WIDE)))
    assert history(below) == [f"row {WIDE}: the row is no longer enabled, and its run reached 50.0% of 75%"]


def test_a_threshold_that_was_lowered_after_the_run_is_told(below: Made) -> None:
    settings = below.layout.settings
    settings.write_text(settings.read_text().replace("0.75", "0.4"))
    assert history(below) == [f"row {WIDE}: the row's threshold was lowered to 40% after its run reached 50.0% of 75%"]


@pytest.mark.parametrize("attempts", [[1], [1, 2]])
def test_attempts_that_were_taken_away_are_told(crashed: Made, attempts: list[int]) -> None:
    for number in attempts:
        shutil.rmtree(crashed.layout.run("long_b1_e6").attempt(number).path)
    gone = "1 of the row's attempts is" if len(attempts) == 1 else "2 of the row's attempts are"
    assert history(crashed) == [f"row long_b1_e6: {gone} no longer in the run folder"]


def test_such_caveats_stand_in_the_handoff_and_on_the_page(below: Made) -> None:
    settings = below.layout.settings
    settings.write_text(settings.read_text().replace("0.75", "0.4"))
    for phase in ("phase1", "phase2", "phase3", "phase4", "phase5"):
        handoff.hand_over(below.spec, phase)
    words = "the row's threshold was lowered to 40% after its run reached 50.0% of 75%"
    assert words in below.layout.results.read_text()
    assert any(words in note for note in files.read_json(below.layout.handoff("phase4"))["notes"])


def test_a_slower_way_that_the_engine_took_is_told_with_its_reason(passed: Made) -> None:
    for run_id in (BASELINE, WIDE):
        output = passed.layout.run(run_id).attempt(1).output
        (output / "timings.json").write_text(json.dumps({"fallbacks": ["policy vqbet: each step is drawn"]}))
    (told,) = [str(each) for each in caveats.of_results(passed.spec) if "fallback" in each.what]
    assert f"rows {BASELINE}, {WIDE}: fallback: policy vqbet: each step is drawn" in told


# logs


@pytest.mark.parametrize(
    ("percent", "episodes", "said"),
    [
        ("50.0", 10, ""),
        ("33.333333333333336", 3, ""),
        ("33.0", 10, "is not a whole number"),
        ("150.0", 10, "is not a possible success rate"),
    ],
)
def test_a_log_whose_numbers_cannot_all_be_true_is_a_warning(
    tmp_path: Path, percent: str, episodes: int, said: str
) -> None:
    (tmp_path / "stdout.log").write_text(f"{{'pc_success': {percent}, 'n_episodes': {episodes}, 'eval_s': 1.0}}\n")
    warnings = lerobot_eval.read_metrics(tmp_path / "eval", [tmp_path / "stdout.log"]).warnings
    assert (said in warnings[-1]) if said else len(warnings) == 2


# certificates


def test_an_engine_that_is_no_longer_proven_is_a_finding_of_a_strict_validation(
    passed: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = campaign.load(passed.root)
    monkeypatch.setattr(row_contracts, "_unproven_reason_today", lambda *_: "no parity run")
    (finding,) = row_contracts.proven_engine(spec, spec.row(WIDE))
    assert isinstance(finding, Finding) and finding.warning and "unproven: no parity run" in finding.what
