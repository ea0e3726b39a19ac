"""A row that cannot start leaves what every failed row leaves: a manifest, a result with its reason, and a marker."""

import csv
import errno
import os
import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import campaigns
import pytest
from campaigns import RESUME, ROWS, Made, contents, fake_checkpoint, run_words

from tracka.checkpoints import checkpoint, hub, python_dependencies
from tracka.checkpoints.hub import MissingFolder, Unresolved
from tracka.checkpoints.python_dependencies import NotInstalled
from tracka.core import files, schema
from tracka.core.errors import Finding, TrackaError
from tracka.core.files import Json
from tracka.execution import gpu, slurm
from tracka.gates import validate
from tracka.reporting import collect
from tracka.runs import refusal, row_state, run, slurm_row
from tracka.runs.refusal import RowRefused

ROW = "bad_b1_e2"
BAD = "checkpoints/none"


FINDING = Finding("here", "it is wrong", "Mend it")


def gated(*_: object) -> None:
    raise Unresolved("gated", FINDING)


def not_installed(*_: object) -> None:
    raise NotInstalled(FINDING)


def unreachable(*_: object) -> None:
    raise slurm.Unreachable(FINDING)


def out_of(number: int, *_: object) -> None:
    raise OSError(number, os.strerror(number))


OF_THE_SYSTEM = {
    "disk_full": errno.ENOSPC,
    "read_only": errno.EROFS,
    "file_limit": errno.EMFILE,
    "process_limit": errno.EAGAIN,
}


def refuse(made: Made, patch: pytest.MonkeyPatch, reason: str) -> None:
    """Lets the row be refused for this reason; its checkpoint is missing."""
    lines = {
        "hub": f"{ROW},libero_object,1,2,cpu,7,egl,somebody/gated,1",
        "import": f"{ROW},libero_object,1,2,cpu,7,egl,checkpoints/fake,1",
        "device": f"{ROW},libero_object,1,2,auto,7,egl,checkpoints/fake,1",
        "controller_lost": f"{ROW},libero_object,1,2,cpu,7,egl,checkpoints/fake,1",
    }
    if reason in lines:
        text = made.layout.matrix.read_text()
        made.layout.matrix.write_text(text.replace(f"{ROW},libero_object,1,2,cpu,7,egl,{BAD},1", lines[reason]))
    patch.setenv(gpu.PRETEND, "0")
    patch.setattr(hub, "fetch", gated)
    if reason == "controller_lost":
        patch.setattr(slurm_row, "end_left_behind", unreachable)
    if reason == "import":
        patch.setattr(python_dependencies, "require", not_installed)
    if reason in OF_THE_SYSTEM:
        patch.setattr(checkpoint, "resolve", partial(out_of, OF_THE_SYSTEM[reason]))


@pytest.fixture
def bad(prepared: Path, make_campaign: Callable[..., Made], tmp_path: Path) -> Made:
    """A campaign after phases 1 and 2, with a row whose checkpoint is not there."""
    shutil.copytree(prepared, tmp_path / "campaign")
    return make_campaign([*ROWS, f"{ROW},libero_object,1,2,cpu,7,egl,{BAD},1"])


def refused(made: Made, row: str = ROW) -> RowRefused:
    with pytest.raises(RowRefused) as caught:
        made.run_row(row)
    return caught.value


def marker(made: Made) -> Json:
    return files.read_json(made.layout.marker(ROW))


def steps(made: Made) -> list[tuple[str, int]]:
    return [(step["status"], step["attempt"]) for step in marker(made)["history"]]


@pytest.mark.parametrize("reason", refusal.REASONS)
def test_each_thing_that_keeps_a_row_from_starting_has_its_reason_in_every_file(
    bad: Made, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    refuse(bad, monkeypatch, reason)
    error, top = refused(bad), bad.layout.run(ROW)
    assert (error.result["status"], error.result["reason"]) == ("fail", reason)
    for place in (top, top.attempt(1)):
        manifest = schema.read("run_manifest", place.manifest)
        assert manifest["outcome"] == {"status": "fail", "reason": reason}
        assert (manifest["row_hash"], manifest["command"], manifest["checkpoint"]["tree_sha256"]) == (None, None, None)
        assert schema.read("result", place.result) == error.result
        assert str(error.findings[0]) in place.stderr.read_text()
    assert (marker(bad)["status"], marker(bad)["reason"], marker(bad)["gpu_id"]) == ("fail", reason, None)
    assert steps(bad) == [("pending", 0), ("fail", 1)]
    assert bad.evidence(ROW) == [] and bad.started() == []
    (line,) = [each for each in collect.campaign_results(bad.spec) if each.run_id == ROW]
    assert (line.status, line.reason, line.exit_code) == ("fail", reason, collect.NO_EXIT)


def test_an_adapters_missing_package_is_an_import_and_a_corrupt_cache_is_the_checkpoints(bad: Made) -> None:
    errors: Mapping[str, TrackaError] = {
        "import": NotInstalled(FINDING),
        "hub": Unresolved("missing", FINDING),
        "checkpoint": Unresolved("corrupt", FINDING),
    }
    assert {name: refusal.of_error(error).reason for name, error in errors.items()} == {name: name for name in errors}
    assert refusal.of_error(MissingFolder(FINDING)).reason == "checkpoint"


def test_the_reasons_of_the_schemas_are_those_of_the_code() -> None:
    for name in ("run_manifest", "result"):
        (condition,) = [
            each for each in schema.load(name)["allOf"] if each["if"]["properties"].get("row_hash") == {"type": "null"}
        ]
        properties = condition["then"]["properties"]
        reason = properties.get("reason") or properties["outcome"]["properties"]["reason"]
        assert reason == {"enum": list(refusal.REASONS)}


def test_it_runs_as_a_further_attempt_once_its_checkpoint_is_there(bad: Made) -> None:
    refused(bad)
    refused(bad)
    fake_checkpoint(bad.root / BAD)
    assert bad.run_row(ROW)["attempt"] == 3
    assert bad.results(ROW) == [("fail", "checkpoint"), ("fail", "checkpoint"), ("pass", None)]
    assert [status for status, _ in steps(bad)] == ["pending", "fail", "pending", "fail", "running", "pass"]
    assert bad.evidence(ROW) == []


def test_after_a_failed_attempt_it_is_a_further_one_and_the_failed_one_is_kept(ready: Made) -> None:
    ready.behave(long_b1_e6=["crash"])
    ready.run_row("long_b1_e6", retry_index=1)
    before = contents(ready.layout.run("long_b1_e6").attempt(1).path)
    shutil.rmtree(ready.root / "checkpoints" / "fake")
    refused(ready, "long_b1_e6")
    assert ready.results("long_b1_e6") == [("fail", "crash"), ("fail", "checkpoint")]
    assert contents(ready.layout.run("long_b1_e6").attempt(1).path) == before
    assert ready.evidence("long_b1_e6") == []


@pytest.mark.parametrize("policy", [RESUME, run.RerunPolicy(allow_overwrite=True)], ids=["resume", "overwrite"])
def test_a_refusal_of_today_never_hides_a_passed_run(ready: Made, policy: run.RerunPolicy) -> None:
    ready.run_row("long_b1_e6")
    before = contents(ready.layout.artifacts)
    shutil.rmtree(ready.root / "checkpoints" / "fake")
    with pytest.raises(TrackaError, match="there is no folder") as caught:
        ready.run_row("long_b1_e6", policy)
    assert not isinstance(caught.value, RowRefused)
    assert contents(ready.layout.artifacts) == before


def test_an_attempt_that_could_not_start_is_not_in_the_way_of_the_next_and_one_that_did_is(bad: Made) -> None:
    words = run_words(bad, policy_path=BAD)
    assert [bad.call(*words).returncode for _ in range(2)] == [1, 1]
    assert not run.is_in_the_way(bad.layout, "long_b1_e6")
    assert bad.call(*run_words(bad)).returncode == 0
    again = bad.call(*words)  # before the checkpoint is looked at
    assert again.returncode == 2 and "the run folder exists" in again.stderr
    assert bad.results("long_b1_e6") == [("fail", "checkpoint"), ("fail", "checkpoint"), ("pass", None)]


def test_a_refusal_that_a_crash_cut_short_is_no_attempt(bad: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("tracka.runs.attempt.close", killed)
        with pytest.raises(KeyboardInterrupt):
            bad.run_row(ROW)
    fake_checkpoint(bad.root / BAD)
    assert bad.run_row(ROW)["attempt"] == 1
    assert bad.evidence(ROW) == []


EDITS: dict[str, tuple[str, Json]] = {
    "a command": ("manifest", {"command": ["lerobot-eval"]}),
    "a row hash of the manifest": ("manifest", {"row_hash": "0" * 64}),
    "an environment": ("manifest", {"env": {"HOME": "/home"}}),
    "a GPU": ("manifest", {"gpu_id": 3}),
    "a GPU's name": ("manifest", {"gpu_uuid": "GPU-1"}),
    "another end": ("manifest", {"outcome": {"status": "fail", "reason": "crash"}}),
    "a dry run": ("manifest", {"dry_run": True}),
    "another seed": ("manifest", {"seed": 8}),
    "a row hash of the result": ("result", {"row_hash": "0" * 64}),
    "an exit code": ("result", {"exit_code": 0}),
    "a duration": ("result", {"duration_sec": 1.0}),
    "episodes": ("result", {"episodes": 2, "successes": 2, "success_rate": 1.0}),
    "a video": ("result", {"video_paths": ["a.mp4"]}),
    "another reason": ("result", {"reason": "crash"}),
    "a pass": ("result", {"status": "pass", "reason": None, "error_message": None}),
    "no files": ("result", {"files": {}}),
}


@pytest.mark.parametrize(("name", "values"), EDITS.values(), ids=EDITS)
def test_validation_accepts_of_such_a_row_what_cannot_be_known_and_nothing_else(
    refused_once: Made, copy_of: Callable[[Made], Made], name: str, values: Json
) -> None:
    made = copy_of(refused_once)
    top = made.layout.run(ROW)
    for place in (top, top.attempt(1)):
        path: Path = getattr(place, name)
        files.write_json(path, files.read_json(path) | values)
    if name == "result":
        state = files.read_json(made.layout.marker(ROW))
        files.write_json(made.layout.marker(ROW), state | {"result_sha256": files.sha256_file(top.result)})
    assert made.evidence(ROW) != []


@pytest.fixture(scope="module")
def refused_once(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A campaign with a row that could not start, for copies."""
    folder = tmp_path_factory.mktemp("refused")
    shutil.copytree(prepared, folder / "campaign")
    made = campaigns.make(folder / "campaign", [*ROWS, f"{ROW},libero_object,1,2,cpu,7,egl,{BAD},1"])
    refused(made)
    assert made.evidence(ROW) == []
    return made


def test_why_says_that_it_could_not_start(refused_once: Made) -> None:
    ended = refused_once.call("why", ROW, "--root", str(refused_once.root))
    assert ended.returncode == 2
    assert f"the row could not start: {BAD}: there is no folder" in ended.stderr


def test_a_sweep_exits_with_1_and_its_table_says_the_reason(bad: Made) -> None:
    ended = bad.tracka(*bad.sweep_words("--rows", ROW))
    assert ended.returncode == 1 and "replay: tracka sweep" in ended.stdout
    assert f"error: row {ROW}: {BAD}: there is no folder" in ended.stderr
    tables = [f"--{name}={bad.root / name}" for name in ("summary-csv", "summary-md", "failures-csv")]
    assert bad.call("collect", "--runs-root", str(bad.layout.runs), *tables).returncode == 0
    with (bad.root / "failures-csv").open() as file:
        assert {line["run_id"]: line["reason"] for line in csv.DictReader(file)}[ROW] == "checkpoint"
    (finding,) = validate.row_contract_findings(bad.spec, bad.spec.row(ROW), "result")
    assert "the run failed (checkpoint)" in finding.what


def test_the_marker_is_made_again_where_no_run_writes_such_a_one(bad: Made) -> None:
    refused(bad)
    files.write_json(bad.layout.marker(ROW), marker(bad) | {"status": "pass"})
    refused(bad)
    state = row_state.read(bad.layout, ROW)
    assert state is not None and row_state.broken_steps(state) == []
    assert bad.evidence(ROW) == []
