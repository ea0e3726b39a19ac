"""The contracts against a disk that somebody has meddled with: what is lost, cut or edited is found."""

import csv
import functools
import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import campaigns
import pytest
from campaigns import Made
from contracts_page import table, words

from tracka.campaign import campaign
from tracka.campaign.layout import PHASES, Layout
from tracka.campaign.matrix import AUTO
from tracka.core import errors, files, schema
from tracka.core.errors import Finding
from tracka.core.files import Json
from tracka.engines import cli_capabilities
from tracka.gates import validate

BASELINE, FAILED = "baseline_b1_e2", "long_b1_e6"
STATE, PREFLIGHT, SUMMARY = "artifacts/state", "artifacts/preflight", "artifacts/summary"
RUN, MARKER = f"artifacts/runs/{BASELINE}", f"{STATE}/rows/{BASELINE}.json"
GATES = "pytest --pyargs tracka.acceptance"  # of a campaign outside of a checkout
RESULT, MANIFEST, EPISODES = f"{RUN}/result.json", f"{RUN}/run_manifest.json", f"{RUN}/episodes.jsonl"
ATTEMPT = f"{RUN}/attempts/1"
VIDEO = f"{ATTEMPT}/eval/videos/libero_object_0/eval_episode_0.mp4"
RUN_IDS = (BASELINE, "long_b1_e6", "wide_b4_e4")


def places(name: str) -> list[str]:
    """The files that a path of the page stands for, in the campaign of this module."""
    plain = name.replace("NAME", "campaign").replace("/K/", "/1/")
    runs = [plain.replace("RUN_ID", run_id) for run_id in RUN_IDS] if "RUN_ID" in plain else [plain]
    return [path.replace("phaseN", phase) for path in runs for phase in (PHASES if "phaseN" in path else PHASES[:1])]


def pathed(heading: str) -> list[str]:
    return [path for line in table(heading) for word in words(line["file"]) for path in places(word)]


FILES = [*pathed("Required files"), VIDEO]
SCHEMAS = {
    path: words(line["schema"])[0]
    for line in table("Required keys")
    for path in places(words(line["file"])[0])
    if ("runs/" not in path and "rows/" not in path) or BASELINE in path
}
KEYS = [(name, key) for name, kind in SCHEMAS.items() for key in schema.load(kind)["required"]]


@pytest.fixture(scope="module", autouse=True)
def installed_once() -> Iterator[None]:
    """The installed packages are listed once for this module: nobody installs any meanwhile."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli_capabilities, "_distributions", functools.cache(cli_capabilities._distributions))
        yield


@pytest.fixture(scope="module")
def passed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A campaign that was accepted."""
    return campaigns.finished(tmp_path_factory.getbasetemp(), "passed").root


@pytest.fixture(scope="module")
def partial(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A campaign one of whose rows failed twice."""
    return campaigns.finished(tmp_path_factory.getbasetemp(), "partial", **{FAILED: ["crash"]}).root


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], Path]:
    """Copies a campaign, so that a test may meddle with it."""
    for name, value in campaigns.environment(tmp_path / "campaign").items():
        monkeypatch.setenv(name, value)
    return lambda original: Path(shutil.copytree(original, tmp_path / "campaign"))


@pytest.fixture
def root(passed: Path, copy: Callable[[Path], Path]) -> Path:
    """A copy of the accepted campaign."""
    return copy(passed)


@pytest.fixture
def partial_root(partial: Path, copy: Callable[[Path], Path]) -> Path:
    """A copy of the campaign with the failed row."""
    return copy(partial)


def found(root: Path, *phases: str) -> list[Finding]:
    """What the strict validation of all phases finds, or of `phases` alone, which is part of that and quicker."""
    try:
        return validate.validate(campaign.load(root), phases or PHASES, strict=True)
    except errors.UsageError as error:
        return list(error.findings)


def phase_of(name: str) -> str:
    """The phase whose contracts a file of the baseline or of the host stands in, or whose handoff it is."""
    if name.endswith("_handoff.json"):
        return Path(name).name.removesuffix("_handoff.json")
    places = {RUN: "phase3", MARKER: "phase3", PREFLIGHT: "phase2", STATE: "phase1", "configs": "phase1"}
    return next(phase for place, phase in places.items() if name.startswith(place))


def edit(path: Path, **values: object) -> None:
    files.write_json(path, files.read_json(path) | values)


def command(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """`tracka validate` of the campaign."""
    return Made(root, {}).call("validate", "--root", str(root), *words)


def in_place(path: Path, **values: object) -> None:
    """Edits a file as an editor might that keeps its inode: the copy at the top and the attempt's are one file."""
    path.write_bytes(files.pretty(files.read_json(path) | values))


RECORDS: dict[str, Json] = {
    "command": {"command": ["/bin/true"]},
    "versions": {"versions": {"lerobot": "0.1"}},
    "settings": {"settings": {"n_action_steps": 50}},
    "policy_path": {"policy_path": "checkpoints/better"},
    "retry": {"batch_size": 2, "comparable": False, "retry_index": 0},
}


@pytest.mark.parametrize("values", RECORDS.values(), ids=RECORDS)
def test_a_record_that_its_hash_does_not_stand_for_is_found(root: Path, values: Json) -> None:
    manifest = root / "artifacts/runs/wide_b4_e4/run_manifest.json"
    in_place(manifest, **values)
    assert any(str(manifest) in finding.where for finding in found(root, "phase4"))


@pytest.mark.parametrize("outcome", [None, {"status": "fail", "reason": "crash"}, {"status": "pass", "reason": "oom"}])
def test_an_outcome_that_tells_otherwise_than_the_result_is_found(root: Path, outcome: Json | None) -> None:
    in_place(root / MANIFEST, outcome=outcome)
    assert any(finding.where == f"{root / MANIFEST}, key outcome" for finding in found(root, "phase3"))


def test_another_checkpoint_in_the_manifest_is_found(root: Path) -> None:
    manifest = files.read_json(root / MANIFEST)
    in_place(root / MANIFEST, checkpoint=manifest["checkpoint"] | {"tree_sha256": "0" * 64})
    assert any("checkpoint" in finding.where for finding in found(root))


def of_another_suite(root: Path) -> None:
    """Has lerobot-eval's own file tell of episodes of libero_goal."""
    info = files.read_json(root / ATTEMPT / "eval" / "eval_info.json")
    edit(root / ATTEMPT / "eval" / "eval_info.json", per_task=[info["per_task"][0] | {"task_group": "libero_goal"}])


def test_episodes_of_another_suite_are_found(root: Path) -> None:
    of_another_suite(root)
    assert {"key per_task", "key task_group"} <= {finding.where.split(", ")[-1] for finding in found(root)}


def test_episodes_of_another_suite_are_found_where_every_copy_tells_so(root: Path) -> None:
    of_another_suite(root)
    for folder in (root / RUN, root / ATTEMPT):
        result = files.read_json(folder / "result.json")
        edit(folder / "result.json", per_task=[result["per_task"][0] | {"suite": "libero_goal"}])
        episodes = folder / "episodes.jsonl"
        episodes.write_text(episodes.read_text().replace("libero_object", "libero_goal"))
    told = [(finding.where, finding.what) for finding in found(root)]
    what = "the value is ['libero_goal'], but the other files say ['libero_object']"
    assert (f"{root / ATTEMPT / 'eval'}, key task_group", what) in told


def test_videos_of_another_run_are_found(root: Path) -> None:
    in_place(root / RESULT, video_paths=files.read_json(root / "artifacts/runs/wide_b4_e4/result.json")["video_paths"])
    assert any("video_paths" in finding.where for finding in found(root))


def test_a_later_attempt_that_the_run_does_not_show_is_found(root: Path) -> None:
    shutil.copytree(root / ATTEMPT, root / ATTEMPT.replace("/1", "/2"))
    assert [finding.what for finding in found(root)] == [
        "the manifest is not of the last attempt",
        "attempt 2 has a folder, but the row's marker does not tell of its end",
    ]


def test_a_log_that_tells_of_other_successes_is_found(root: Path) -> None:
    for folder in (RUN, ATTEMPT):
        with (root / folder / "stderr.log").open("a") as log:
            log.write("\n{'pc_success': 100.0, 'n_episodes': 2, 'eval_s': 1.0}\n")
    assert any("the log reports 2 of 2 successes" in finding.what for finding in found(root))


def test_a_handoff_that_tells_otherwise_than_the_disk_is_found(root: Path) -> None:
    for phase in PHASES:
        path = Layout(root).handoff(phase)
        before = path.read_bytes()
        for key, value in {"inputs": {}, "outputs": [], "details": {}}.items():
            edit(path, **{key: value})
            assert any(f"{path}, key {key}" in finding.where for finding in found(root, phase))
            path.write_bytes(before)


def test_a_page_whose_commands_or_figures_were_changed_is_found(root: Path) -> None:
    runbook, results = root / "runbook.md", root / "results.md"
    runbook.write_text(runbook.read_text().replace("--eval.n_episodes=4", "--eval.n_episodes=40"))
    tree = files.read_json(root / MANIFEST)["checkpoint"]["tree_sha256"]
    results.write_text(results.read_text().replace(tree, "0" * 64))
    assert {Path(finding.where).name for finding in found(root)} == {"runbook.md", "results.md"}


@pytest.mark.parametrize("name", ["plan.md", "todo/campaign.md", "todo/TODO.md", "runbook.md", "results.md"])
def test_a_page_that_is_no_text_is_a_finding_and_no_traceback(root: Path, name: str) -> None:
    (root / name).write_bytes((root / name).read_bytes() + b"\xe9\xff")
    assert any("UTF-8" in finding.what for finding in found(root))


@pytest.mark.parametrize("value", [[{}], ["gpus"], None, "all"], ids=str)
def test_checks_of_another_form_are_a_finding_and_no_traceback(root: Path, value: object) -> None:
    edit(root / f"{PREFLIGHT}/preflight.json", checks=value)
    assert any("$.checks" in finding.where for finding in found(root, "phase2"))


def test_fewer_gpus_than_the_campaign_expects_are_found(root: Path) -> None:
    wanting = replace(campaign.load(root), expected_gpus=2)
    assert [finding.what[:21] for finding in validate.contract_findings(wanting, "phase2", "gpu_list")] == [
        "the file lists 0 GPUs"
    ]
    assert any(
        "gpu_count" in finding.where for finding in validate.contract_findings(wanting, "phase2", "preflight_checks")
    )


def test_a_campaign_of_its_baseline_alone_is_found(root: Path) -> None:
    spec = campaign.load(root)
    assert validate.contract_findings(replace(spec, rows=(spec.row(BASELINE),)), "phase1", "scales")
    assert not validate.contract_findings(spec, "phase1", "scales")


@pytest.mark.parametrize(("gpu_id", "expected", "least"), [(3, 0, 4), (3, 3, 4), (0, 0, 1), (AUTO, 0, 1)])
def test_a_row_that_asks_for_a_gpu_that_the_campaign_does_not_expect_is_found(
    root: Path, gpu_id: int, expected: int, least: int
) -> None:
    spec = campaign.load(root)
    rows = (*spec.rows[:1], replace(spec.rows[1], gpu_id=gpu_id), *spec.rows[2:])
    wrong = validate.contract_findings(replace(spec, rows=rows, expected_gpus=expected), "phase1", "gpus")
    assert [finding.where for finding in wrong] == [f"{spec.layout.matrix}, line 3, column gpu_id"]
    assert f"row {FAILED} asks for" in wrong[0].what and f"to {least} or more" in wrong[0].remedy
    assert not validate.contract_findings(replace(spec, rows=rows, expected_gpus=least), "phase1", "gpus")


def test_a_disabled_row_may_ask_for_any_gpu(root: Path) -> None:
    spec = campaign.load(root)
    rows = tuple(row if row.enabled else replace(row, gpu_id=7) for row in spec.rows)
    assert rows != spec.rows and not validate.contract_findings(replace(spec, rows=rows), "phase1", "gpus")


def test_a_baseline_that_is_disabled_or_not_small_is_found(root: Path) -> None:
    spec = campaign.load(root)
    tables = {BASELINE: {"task_ids": (0, 1)}}
    rows = tuple(replace(row, enabled=row.run_id != BASELINE) for row in spec.rows)
    for wrong, what in ((replace(spec, rows=rows), "disabled"), (replace(spec, row_tables=tables), "2 LIBERO tasks")):
        (finding,) = validate.contract_findings(wrong, "phase1", "baseline")
        assert what in finding.what and BASELINE in finding.where


def test_remedies_name_the_campaign(partial_root: Path) -> None:
    (partial_root / MARKER).unlink()
    remedies = [finding.remedy for finding in found(partial_root) if GATES in finding.remedy]
    assert len(remedies) > 5
    assert [remedy for remedy in remedies if f"{GATES} --campaign {partial_root}" not in remedy] == []


def test_a_phase_that_another_stopped_names_that_phase_and_not_its_reasons_again(partial_root: Path) -> None:
    of_handoffs = [finding.what for finding in found(partial_root) if finding.what.startswith("phase")]
    assert len(of_handoffs) == 2
    assert sum("the run failed (crash)" in what for what in of_handoffs) == 1


def test_a_help_text_of_other_flags_is_found(root: Path) -> None:
    (root / STATE / "lerobot_eval_help.txt").write_text("--seed")
    assert any("other flags" in finding.what for finding in found(root, "phase1"))


def test_figures_that_disagree_are_found(root: Path) -> None:
    """lerobot-eval's own total says otherwise than its list of episodes, in every copy of the evidence."""
    info = root / ATTEMPT / "eval" / "eval_info.json"
    value = files.read_json(info)
    edit(info, overall=value["overall"] | {"n_episodes": 7})
    said = ["overall.n_episodes is 7, but 2 episodes are listed"]
    edit(root / ATTEMPT / "result.json", parser_warnings=said)
    shutil.copy(root / ATTEMPT / "result.json", root / RESULT)
    assert any(
        finding.what == f"the result says pass, but the attempt's files show invalid_result: {said[0]}"
        for finding in found(root)
    )


# the untouched campaigns


def test_an_untouched_copy_is_valid(root: Path) -> None:
    assert found(root) == []


def test_a_failed_row_is_found_in_its_own_phase_and_at_the_end(partial_root: Path) -> None:
    spec = campaign.load(partial_root)
    assert [phase for phase in PHASES if validate.phase_findings(spec, phase)] == ["phase4", "phase5"]


@pytest.mark.parametrize(("name", "kind"), SCHEMAS.items())
def test_every_key_that_is_written_is_required(passed: Path, name: str, kind: str) -> None:
    since_then = {"precision"} if kind == "result" else set()  # results of earlier versions lack it
    assert set(files.read_json(passed / name)) - since_then == set(schema.load(kind)["required"])


# what is lost


@pytest.mark.parametrize("name", FILES)
def test_a_lost_file_is_found(root: Path, name: str) -> None:
    (root / name).unlink()
    assert found(root)


@pytest.mark.parametrize("name", ["run_manifest.json", "result.json", "stderr.log", "eval/eval_info.json"])
def test_a_lost_file_of_the_attempt_that_passed_is_found(root: Path, name: str) -> None:
    (root / ATTEMPT / name).unlink()
    assert found(root)


def lose(path: Path, key: str) -> None:
    value = files.read_json(path)
    del value[key]
    files.write_json(path, value)


def said_of_a_lost_key(name: str, key: str) -> str:
    """A damaged marker is set aside and counts as none."""
    return "marker is missing or damaged" if name == MARKER else f"'{key}' is a required property"


@pytest.mark.parametrize(("name", "key"), KEYS)
def test_a_lost_key_is_found_and_named(root: Path, name: str, key: str) -> None:
    lose(root / name, key)
    assert any(said_of_a_lost_key(name, key) in finding.what for finding in found(root, phase_of(name)))


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_lost_key_is_found_and_named_by_the_validation_of_all_phases_too(root: Path, name: str) -> None:
    key = schema.load(SCHEMAS[name])["required"][-1]
    lose(root / name, key)
    assert any(said_of_a_lost_key(name, key) in finding.what for finding in found(root))


@pytest.mark.parametrize("name", [*SCHEMAS, "configs/campaign.toml", "configs/eval_matrix.csv"])
@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe"], ids=["empty", "cut", "no_text"])
def test_a_file_that_cannot_be_read_is_found(root: Path, name: str, content: bytes) -> None:
    (root / name).write_bytes(content)
    assert found(root)


@pytest.mark.parametrize("share", [0, 0.5, 0.8])
def test_a_truncated_video_is_found(root: Path, share: float) -> None:
    whole = (root / VIDEO).read_bytes()
    (root / VIDEO).write_bytes(whole[: int(share * len(whole))])
    assert any("does not play" in finding.what for finding in found(root, "phase3"))


# what is edited


HISTORIES = {
    "no_run": ["pending", "pass"],
    "never_pending": ["running", "pass"],
    "passed_twice": ["pending", "running", "pass", "pass"],
    "failure_turned_pass": ["pending", "running", "fail", "pass"],
    "pass_turned_failure": ["pending", "running", "pass", "fail", "running", "fail", "pass"],
    "two_at_once": ["pending", "running", "running", "pass"],
    "given_back": ["pending", "running", "pending", "running", "pass"],
    "not_its_end": ["pending", "running", "fail"],
    "still_running": ["pending", "running"],
}


@pytest.mark.parametrize("statuses", HISTORIES.values(), ids=HISTORIES)
def test_an_impossible_history_is_found(root: Path, statuses: list[str]) -> None:
    steps = [{"status": status, "at_utc": "2026-01-01T00:00:00Z", "attempt": 1} for status in statuses]
    edit(root / MARKER, history=steps)
    assert found(root, "phase3")


STATUSES = ("pending", "running", "pass", "fail")
POSSIBLE = {(line["from"], line["to"]) for line in table("Row transitions")}
TO_PASS = {"nothing": ["pending", "running", "pass"], "pending": ["running", "pass"], "running": ["pass"], "pass": []}
TO_PASS["fail"] = ["running", "pass"]


def history(before: str, after: str) -> list[str]:
    """A way over the step from `before` to `after`, possible but for that step, which ends with pass."""
    start = {"nothing": [], "pending": ["pending"], "running": ["pending", "running"]}
    ended = [*start["running"], before] if before in ("pass", "fail") else start[before]
    return [*ended, after, *TO_PASS[after]]


@pytest.mark.parametrize(
    ("before", "after"), [(before, after) for before in ("nothing", *STATUSES) for after in STATUSES]
)
def test_a_step_that_no_run_makes_is_found(root: Path, before: str, after: str) -> None:
    steps = [{"status": status, "at_utc": "2026-01-01T00:00:00Z", "attempt": 1} for status in history(before, after)]
    edit(root / MARKER, history=steps)
    told = [finding for finding in found(root, "phase3") if "an impossible step" in finding.what]
    assert bool(told) == ((before, after) not in POSSIBLE)


MARKERS: dict[str, Json] = {
    "status": {"status": "fail"},
    "running": {"status": "running"},
    "run_id": {"run_id": "wide_b4_e4"},
    "retry_index": {"retry_index": 1},
    "reason": {"reason": "crash"},
    "result_path": {"result_path": "artifacts/runs/wide_b4_e4/result.json"},
}


@pytest.mark.parametrize("values", MARKERS.values(), ids=MARKERS)
def test_a_marker_that_disagrees_with_its_run_is_found(root: Path, values: Json) -> None:
    edit(root / MARKER, **values)
    assert found(root, "phase3")


def test_a_marker_that_tells_of_another_attempt_is_found(root: Path) -> None:
    steps = files.read_json(root / MARKER)["history"]
    edit(root / MARKER, history=[*steps[:-1], steps[-1] | {"attempt": 7}])
    assert found(root, "phase3")


RESULTS: dict[str, Json] = {
    "rate": {"success_rate": 1.0},
    "successes": {"successes": 2},
    "rate_and_successes": {"success_rate": 1.0, "successes": 2},
    "tasks": {"per_task": [{"suite": "libero_object", "task_id": 0, "successes": 2, "episodes": 2}]},
    "another_task": {"per_task": [{"suite": "libero_object", "task_id": 5, "successes": 0, "episodes": 2}]},
    "no_tasks": {"per_task": []},
    "fewer_episodes": {"episodes": 1},
    "status": {"status": "fail", "reason": "crash", "error_message": "no"},
    "reason": {"reason": "crash"},
    "exit_code": {"exit_code": 1},
    "attempt": {"attempt": 2},
    "run_id": {"run_id": "wide_b4_e4"},
    "row_hash": {"row_hash": "0" * 64},
    "videos": {"video_paths": []},
    "dry_run": {"dry_run": True},
    "source": {"metrics_source": "log"},
}


@pytest.mark.parametrize("values", RESULTS.values(), ids=RESULTS)
def test_a_result_edited_by_hand_is_found(root: Path, values: Json) -> None:
    edit(root / RESULT, **values)
    assert found(root, "phase3")


MANIFESTS: dict[str, Json] = {
    "backend": {"mujoco_gl": "glx"},
    "attempt": {"attempt": 2},
    "retry_index": {"retry_index": 1},
    "run_id": {"run_id": "wide_b4_e4"},
    "row_hash": {"row_hash": "0" * 64},
    "dry_run": {"dry_run": True},
    "seed": {"seed": 8},
    "n_episodes": {"n_episodes": 50},
    "not_comparable": {"batch_size": 4},
}


@pytest.mark.parametrize("values", MANIFESTS.values(), ids=MANIFESTS)
def test_a_manifest_edited_by_hand_is_found(root: Path, values: Json) -> None:
    edit(root / MANIFEST, **values)
    assert found(root, "phase3")


def flipped(lines: list[Json]) -> list[Json]:
    return [lines[0] | {"success": not lines[0]["success"]}, *lines[1:]]


def without_one(lines: list[Json]) -> list[Json]:
    return lines[1:]


def one_twice(lines: list[Json]) -> list[Json]:
    return [lines[1], *lines[1:]]


@pytest.mark.parametrize("change", [flipped, without_one, one_twice], ids=lambda change: change.__name__)
def test_an_edited_list_of_episodes_is_found(root: Path, change: Callable[[list[Json]], list[Json]]) -> None:
    lines = [json.loads(line) for line in (root / EPISODES).read_text().splitlines()]
    (root / EPISODES).write_text("".join(json.dumps(line) + "\n" for line in change(lines)))
    assert found(root, "phase3")


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("notes", [[], ["somebody says so"]], ids=["silent", "noted"])
@pytest.mark.parametrize("status", ["blocked", "partial", "accepted"])
def test_a_handoff_that_does_not_say_pass_is_found(root: Path, phase: str, status: str, notes: list[str]) -> None:
    edit(Layout(root).handoff(phase), status=status, notes=notes)
    assert found(root, phase)


@pytest.mark.parametrize("line", table("Phase transitions"), ids=lambda line: line["phase"])
def test_a_status_that_its_phase_cannot_have_is_found(root: Path, line: dict[str, str]) -> None:
    path, possible = Layout(root).handoff(line["phase"]), line["statuses"].split(", ")
    for status in ("pass", "blocked", "partial"):
        value = files.read_json(path) | {"status": status, "notes": ["a reason"]}
        assert bool(schema.findings("handoff", value, "")) is (status not in possible)


@pytest.mark.parametrize("line", table("Phase transitions")[1:], ids=lambda line: line["phase"])
@pytest.mark.parametrize("status", ["pass", "blocked", "partial"])
def test_a_phase_starts_after_the_statuses_on_the_page_alone(root: Path, line: dict[str, str], status: str) -> None:
    before = PHASES[PHASES.index(line["phase"]) - 1]
    edit(Layout(root).handoff(before), status=status, notes=["a reason"])
    blocked = bool(validate.blockers(campaign.load(root), line["phase"]))
    assert blocked is (status not in line["starts after"].split(", "))


@pytest.mark.parametrize("phases", [["phase4"], ["phase5"], ["phase4", "phase5"]], ids="+".join)
def test_handoffs_that_hide_a_failed_row_are_found(partial_root: Path, phases: list[str]) -> None:
    for phase in phases:
        edit(Layout(partial_root).handoff(phase), status="pass", notes=[])
    assert any(FAILED in str(finding) for finding in found(partial_root))


def rewrite(path: Path, change: Callable[[dict[str, str]], dict[str, str] | None]) -> None:
    """Edits a table line by line; None drops the line."""
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        lines = [line for record in reader if (line := change(record)) is not None]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, reader.fieldnames or [])
        writer.writeheader()
        writer.writerows(lines)


@pytest.mark.parametrize("run_id", [BASELINE, "long_b1_e6", "wide_b4_e4"])
def test_a_row_that_is_not_in_the_table_is_found(root: Path, run_id: str) -> None:
    rewrite(root / SUMMARY / "all_runs.csv", lambda line: None if line["run_id"] == run_id else line)
    assert any(run_id in finding.what for finding in found(root))


@pytest.mark.parametrize("name", ["all_runs.csv", "baseline_summary.csv"])
@pytest.mark.parametrize(("column", "value"), [("success_rate", "1.0"), ("status", "fail")])
def test_a_table_that_disagrees_with_the_results_is_found(root: Path, name: str, column: str, value: str) -> None:
    rewrite(root / SUMMARY / name, lambda line: line | {column: value})
    assert found(root)


def test_a_failure_that_is_not_listed_is_found(partial_root: Path) -> None:
    path = partial_root / SUMMARY / "failures.csv"
    rewrite(path, lambda line: None)
    assert any(finding.where == str(path) for finding in found(partial_root))


def test_a_failure_hidden_from_handoffs_and_table_is_found(partial_root: Path) -> None:
    rewrite(partial_root / SUMMARY / "failures.csv", lambda line: None)
    for phase in ("phase4", "phase5"):
        edit(Layout(partial_root).handoff(phase), status="pass", notes=[])
    assert found(partial_root)


def test_a_listed_failure_that_did_not_happen_is_found(partial_root: Path, passed: Path) -> None:
    shutil.copy(partial_root / SUMMARY / "failures.csv", partial_root.with_name("failures.csv"))
    shutil.rmtree(partial_root)
    shutil.copytree(passed, partial_root)
    shutil.copy(partial_root.with_name("failures.csv"), partial_root / SUMMARY / "failures.csv")
    assert found(partial_root)


REPORTS: dict[str, Json] = {
    "imports": {"lerobot_import_ok": False},
    "help": {"lerobot_eval_help_ok": False},
    "policy": {"policy_resolve_ok": False},
    "no_attempt": {"backend_attempts": []},
    "status": {"status": "blocked", "blocker": "gpus: 0 visible"},
    "backend": {"mujoco_gl_effective": "glx"},
    "no_backend": {"mujoco_gl_effective": None},
    "no_checks": {"checks": []},
}


@pytest.mark.parametrize("values", REPORTS.values(), ids=REPORTS)
def test_a_preflight_report_edited_by_hand_is_found(root: Path, values: Json) -> None:
    edit(root / PREFLIGHT / "preflight.json", **values)
    assert found(root, "phase2")


def test_a_failed_check_is_found_with_its_remedy(root: Path) -> None:
    path = root / PREFLIGHT / "preflight.json"
    checks = files.read_json(path)["checks"]
    edit(path, checks=[checks[0] | {"status": "fail", "remedy": "Buy a GPU"}, *checks[1:]])
    assert any(finding.remedy == "Buy a GPU" for finding in found(root, "phase2"))


def test_a_flag_that_lerobot_eval_does_not_have_is_found(root: Path) -> None:
    path = root / STATE / "cli_capabilities.json"
    edit(path, supported_flags=[flag for flag in files.read_json(path)["supported_flags"] if flag != "--seed"])
    assert any("--seed" in finding.where for finding in found(root, "phase1"))


@pytest.mark.parametrize("name", ["configs/eval_matrix.csv", "configs/campaign.toml", "configs/run_schema.json"])
def test_a_definition_that_changed_after_acceptance_is_found(root: Path, name: str) -> None:
    (root / name).write_text((root / name).read_text().replace("episode", "episode ", 1) + "\n")
    assert found(root)


@pytest.mark.parametrize("word", ["lerobot-eval", "success rate", "artifacts", "MUJOCO_GL", "rerun", "libero_object"])
def test_a_runbook_without_what_it_must_say_is_found(root: Path, word: str) -> None:
    (root / "runbook.md").write_text((root / "runbook.md").read_text().replace(word, "..."))
    assert any(repr(word) in finding.what for finding in found(root, "phase5"))


@pytest.mark.parametrize("figure", ["", "tree sha256 `", "| wide_b4_e4 | libero_object | pass | "])
def test_results_in_the_words_of_another_version_are_compared_by_their_figures(root: Path, figure: str) -> None:
    page = root / "results.md"
    other_words = page.read_text().replace("enabled rows ran", "rows that are enabled have run")
    page.write_text(other_words)
    assert found(root, "phase5")
    page.write_text(re.sub(r"<!-- words \w+ -->", "<!-- words of-another-version -->", other_words))
    assert found(root, "phase5") == []
    page.write_text(page.read_text().replace(figure, f"{figure}1", 1) if figure else other_words)
    assert found(root, "phase5")


@pytest.mark.parametrize("word", ["success rate", "artifacts", "wide_b4_e4", "checkpoints/fake", "libero_object"])
def test_results_without_what_they_must_say_are_found(root: Path, word: str) -> None:
    (root / "results.md").write_text((root / "results.md").read_text().replace(word, "..."))
    assert any(repr(word) in finding.what for finding in found(root, "phase5"))


# the command


def test_the_command_calls_an_accepted_campaign_valid(root: Path) -> None:
    ended = Made(root, {}).tracka("validate", "--phase", "all", "--root", str(root), "--strict")
    said = "all: valid\nverdict: complete, no threshold set\n"
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, said, "")


def test_the_command_prints_each_finding_on_a_line_and_fails(root: Path) -> None:
    (root / "results.md").unlink()
    ended = Made(root, {}).tracka("validate", "--phase", "all", "--root", str(root), "--strict")
    assert ended.returncode == 1
    assert ended.stdout == f"all: {len(ended.stderr.splitlines())} findings\nverdict: not accepted\n"
    assert f"{root / 'results.md'}: the file does not exist" in ended.stderr


@pytest.mark.parametrize(
    ("name", "phase"),
    [
        ("artifacts/preflight/preflight.json", "phase2"),
        (f"artifacts/runs/{BASELINE}/result.json", "phase3"),
        ("artifacts/runs/wide_b4_e4/run_manifest.json", "phase4"),
    ],
)
def test_a_missing_file_is_found_with_the_command_that_writes_it(root: Path, name: str, phase: str) -> None:
    (root / name).unlink()
    remedies = [finding.remedy for finding in found(root)]
    assert f"Run {phase}: {GATES} --campaign {root} -m {phase}" in remedies
    assert files.WRITE_IT not in remedies


def test_a_row_that_is_not_accepted_is_found_with_the_place_of_its_reason(partial_root: Path) -> None:
    table = partial_root / SUMMARY / "failures.csv"
    assert any(f"Read the reason in {table}, then rerun" in finding.remedy for finding in found(partial_root))


def test_the_command_looks_at_a_phase_and_the_handoffs_before_it_alone(root: Path) -> None:
    (root / "results.md").unlink()
    assert command(root, "--phase", "phase4").returncode == 0
    Layout(root).handoff("phase2").unlink()
    ended = command(root, "--phase", "phase4")
    assert (ended.returncode, ended.stdout) == (1, "phase4: 1 finding\n")


@pytest.mark.parametrize("words", [("--phase", "phase6"), ("--phase", "all", "--root", "nowhere")], ids="_".join)
def test_the_command_refuses_what_it_does_not_know(root: Path, words: tuple[str, ...]) -> None:
    ended = command(root, *words)
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: ")
    assert "Traceback" not in ended.stderr
