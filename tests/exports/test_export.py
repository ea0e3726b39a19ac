"""`tracka export`: what each format's own reader finds in the file, and what keeps one from being written."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from subprocess import CompletedProcess

import campaigns
import jsonschema
import numpy as np
import pytest
import yaml
from campaigns import SETTINGS, Made
from huggingface_hub import parse_eval_result_entries

from tracka.core import files
from tracka.core.files import Json
from tracka.exports import rerun_recording
from tracka.report_page.episodes import Recorded

LONG, SHORT = "long", "short"  # 21 episodes of task 0, of which 8 succeed, and 5 of task 1, of which all do
ROWS = [
    f"{name},libero_object,1,{episodes},cpu,7,egl,checkpoints/fake,1"
    for name, episodes in (("baseline_b1_e2", 2), (LONG, 21), (SHORT, 5))
]
HUB = ("--dataset", "robots/libero", "--partial")
TIMES = ("--source-url", "https://example.org/report", "--source-name", "Report")
# What the format's schema (github.com/ctrf-io/ctrf, schema/ctrf.schema.json) asks of the parts that are written here.
NUMBER, TEXT = {"type": "integer"}, {"type": "string", "minLength": 1}
STATUSES = ["passed", "failed", "skipped", "pending", "other"]


def closed_object(required: Json, optional: Json | None = None) -> Json:
    properties = required | (optional or {})
    return {"type": "object", "required": [*required], "properties": properties, "additionalProperties": False}


ATTACHMENT = closed_object({"name": TEXT, "contentType": TEXT, "path": TEXT})
CTRF_TEST = closed_object(
    {"name": TEXT, "status": {"enum": STATUSES}, "duration": NUMBER},
    {
        **dict.fromkeys(("start", "stop", "retries"), NUMBER),
        **dict.fromkeys(("message", "rawStatus", "device"), TEXT),
        **{name: {"type": "array", "minItems": 1, "items": TEXT} for name in ("suite", "tags")},
        "attachments": {"type": "array", "items": ATTACHMENT},
        "flaky": {"type": "boolean"},
        "parameters": {"type": "object"},
        "extra": {"type": "object"},
    },
)
CTRF = closed_object(
    {
        "reportFormat": {"const": "CTRF"},
        "specVersion": {"pattern": r"^[0-9]+\.[0-9]+\.[0-9]+$"},
        "results": closed_object(
            {
                "tool": closed_object({"name": TEXT}, {"version": TEXT}),
                "summary": closed_object(dict.fromkeys(("tests", *STATUSES, "start", "stop"), NUMBER)),
                "tests": {"type": "array", "items": CTRF_TEST},
            },
            {"environment": closed_object({}, {"reportName": TEXT})},
        ),
    },
    {"reportId": {"type": "string", "format": "uuid"}, "generatedBy": TEXT},
)


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory, prepared: Path) -> Made:
    """A campaign whose two rows have run, and whose baseline has not."""
    root = tmp_path_factory.mktemp("exported") / "campaign"
    shutil.copytree(prepared, root)
    made = campaigns.make(root, ROWS, f"{SETTINGS}\n[rows.short]\ntask_ids = [1]\n")
    made.behave(long=["episodes:0=0,1,2,3,4,5,6,7"], short=["episodes:1=0,1,2,3,4"])
    with pytest.MonkeyPatch.context() as environ:
        for variable, value in made.environ.items():
            environ.setenv(variable, value)
        for run_id in (LONG, SHORT):
            made.run_row(run_id)
    return made


def export(made: Made, form: str, *words: str) -> CompletedProcess[str]:
    return made.call("export", str(made.root), "--format", form, *words)


def exported(made: Made, form: str, *words: str) -> Path:
    ended = export(made, form, *words)
    assert ended.returncode == 0, ended.stderr
    return Path(ended.stdout.strip())


def refused(made: Made, form: str, *words: str) -> str:
    ended = export(made, form, *words)
    assert (ended.returncode, ended.stdout) == (2, ""), ended.stderr
    return ended.stderr


# eval_info.json


@pytest.fixture(scope="module")
def eval_info(played: Made) -> Path:
    return exported(played, "eval-info")


def test_the_eval_info_of_all_rows_is_a_side_of_compare_with_the_campaigns_episodes(
    played: Made, eval_info: Path
) -> None:
    ended = played.call("compare", str(played.root), str(eval_info), "--format", "json")
    assert ended.returncode == 0, ended.stderr
    comparison = json.loads(ended.stdout)
    assert [(task["baseline"], task["task"]) for task in comparison["tasks"]] == [
        (task["candidate"], number) for number, task in enumerate(comparison["tasks"])
    ]
    assert comparison["overall"]["candidate"] == {"successes": 13, "episodes": 26, "rate": 0.5}
    assert comparison["flips"] == []
    assert eval_info == played.layout.artifacts / "exports" / "eval_info.json"


def test_it_has_lerobots_keys_and_arithmetic(eval_info: Path) -> None:
    info = files.read_json(eval_info)
    rates = {"avg_sum_reward", "avg_max_reward", "pc_success", "n_episodes", "video_paths", "predicted_video_paths"}
    assert info.keys() == {"per_task", "per_group", "overall"}
    assert info["overall"].keys() == rates | {"eval_s", "eval_ep_s"}
    assert info["per_group"].keys() == {"libero_object"} and info["per_group"]["libero_object"].keys() == rates
    assert [task.keys() for task in info["per_task"]] == [{"task_group", "task_id", "metrics"}] * 2
    for task in info["per_task"]:
        assert task["metrics"].keys() == {
            "sum_rewards",
            "max_rewards",
            "successes",
            "video_paths",
            "predicted_video_paths",
        }
    assert (info["overall"]["pc_success"], info["overall"]["avg_sum_reward"]) == (50.0, 0.5)
    assert (info["overall"]["eval_s"], info["overall"]["eval_ep_s"]) == (2.0, 2 / 26)


def test_its_videos_are_named_relative_to_the_file_and_are_there(eval_info: Path) -> None:
    info = files.read_json(eval_info)
    videos = [path for task in info["per_task"] for path in task["metrics"]["video_paths"]]
    assert videos == info["overall"]["video_paths"] and len(videos) == 2
    assert all((eval_info.parent / path).is_file() and not Path(path).is_absolute() for path in videos)


@pytest.mark.parametrize("words", [("eval-info",), ("ctrf",), ("hub", *HUB)], ids=["eval-info", "ctrf", "hub"])
def test_the_same_results_give_the_same_file(played: Made, tmp_path: Path, words: tuple[str, ...]) -> None:
    names = [exported(played, *words, "--output", str(tmp_path / name)) for name in ("first", "second")]
    first, second = (path.read_bytes() for path in names)
    assert first == second


# the hub


def test_the_hubs_own_reader_finds_one_entry_a_suite_with_the_rate_in_percent(played: Made) -> None:
    target = exported(played, "hub", *HUB, *TIMES, "--dataset-revision", "0123abc")
    (entry,) = parse_eval_result_entries(yaml.safe_load(target.read_text()))
    assert target == played.layout.artifacts / "exports" / ".eval_results" / "tracka.yaml"
    assert (entry.dataset_id, entry.task_id, entry.value) == ("robots/libero", "libero_object", 50.0)
    assert (entry.dataset_revision, entry.source_url, entry.source_name) == ("0123abc", TIMES[1], "Report")
    assert entry.date == files.read_json(played.layout.run(SHORT).result)["end_time_utc"]
    assert entry.notes.startswith("success rate in percent: 13 of 26 episodes, 95% interval 32.1 to 67.9; 2 of the 10")
    assert "batch size 1, seed 7; engine lerobot-eval; lerobot 0.6.1" in entry.notes


def test_one_row_and_another_name_of_the_task_can_be_asked_for(played: Made, tmp_path: Path) -> None:
    words = ("--row", SHORT, "--task-id", "default", "--output", str(tmp_path / "a.yaml"))
    (entry,) = parse_eval_result_entries(yaml.safe_load(exported(played, "hub", *HUB, *words).read_text()))
    assert (entry.task_id, entry.value) == ("default", 100.0)


def test_everything_that_is_wrong_is_said_at_once_with_2(played: Made, tmp_path: Path) -> None:
    target = tmp_path / "a.yaml"
    words = ("--row", "none", "--row", SHORT, "--source-name", "Report", "--episode", "1", "--output", str(target))
    said = refused(played, "hub", *words).splitlines()
    assert [line.split(": ")[1] for line in said] == [
        "--episode",
        "--row",
        "--dataset",
        "--source-name",
        str(played.layout.matrix),
    ]
    assert not target.exists()


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("--dataset", "libero"), "names no organisation"),
        (("--dataset", "a b/c"), "is not the name of a dataset"),
        ((*HUB, "--dataset-revision", "main"), "is not a hash of a commit"),
        ((*HUB, "--source-url", "report.html"), "is not a URL"),
        (("--dataset", "robots/libero"), "8 of the 10 tasks of libero_object were not played"),
    ],
)
def test_what_the_hub_would_not_take_is_refused(played: Made, words: tuple[str, ...], what: str) -> None:
    assert what in refused(played, "hub", *words)


# what cannot be exported


def test_a_row_that_has_not_passed_is_named_and_can_be_left_out(
    copy_of: Callable[[Made], Made], played: Made, tmp_path: Path
) -> None:
    made = copy_of(played)
    shutil.rmtree(made.layout.run(SHORT).path)
    assert "a row has no passed result: short: not run" in refused(made, "eval-info")
    info = files.read_json(exported(made, "eval-info", "--row", LONG, "--output", str(tmp_path / "eval_info.json")))
    assert [task["task_id"] for task in info["per_task"]] == [0]


def test_a_row_whose_evidence_is_refused_is_not_exported(copy_of: Callable[[Made], Made], played: Made) -> None:
    made = copy_of(played)
    path = made.layout.run(LONG).attempt(1).output / "eval_info.json"
    path.write_text(path.read_text().replace("true", "false", 1))
    said = refused(made, "eval-info")
    assert str(path.relative_to(made.root)) in said or "eval_info.json" in said


def test_a_task_that_two_rows_have_played_is_refused(made: Made) -> None:
    said = refused(made, "eval-info")
    assert "libero_object 0 is played by long_b1_e6, wide_b4_e4, and an export has each task once" in said


@pytest.mark.parametrize("form", ["hub", "eval-info", "ctrf"])
def test_a_campaign_that_has_not_run_is_refused(made: Made, form: str) -> None:
    assert "Run the campaign" in refused(made, form)


@pytest.mark.parametrize("words", [("csv",), ("ctrf", "--row", LONG), ("eval-info", "--task", "0"), ("ctrf", *HUB)])
def test_words_that_mean_nothing_are_refused(played: Made, words: tuple[str, ...]) -> None:
    assert "means nothing for" in (said := refused(played, *words)) or "'csv' is unknown" in said


# CTRF


def test_each_row_is_a_test_of_the_common_format_with_its_counts_and_files(played: Made) -> None:
    report = files.read_json(exported(played, "ctrf"))
    jsonschema.validate(report, CTRF, format_checker=jsonschema.FormatChecker())
    baseline, long, short = report["results"]["tests"]
    assert [test["status"] for test in (baseline, long, short)] == ["pending", "passed", "passed"]
    summary = report["results"]["summary"]
    assert [summary[name] for name in ("tests", *STATUSES)] == [3, 2, 0, 0, 1, 0]
    assert long["extra"] == {"episodes": 21, "successes": 8, "success_rate": 8 / 21}
    assert all((played.root / each["path"]).is_file() for each in long["attachments"])
    assert {each["contentType"] for each in long["attachments"]} == {"text/plain", "application/json", "video/mp4"}
    assert summary["start"] == min(long["start"], short["start"]) < summary["stop"]


def test_a_row_below_its_threshold_has_failed_and_says_why(copy_of: Callable[[Made], Made], played: Made) -> None:
    made = copy_of(played)
    made.configure("[thresholds.rows]\nlong = 0.9")
    tests = {test["name"]: test for test in files.read_json(exported(made, "ctrf"))["results"]["tests"]}
    assert (tests[LONG]["status"], tests[LONG]["message"]) == ("failed", "below_threshold")
    assert "message" not in tests[SHORT]


# Rerun


def test_without_rerun_the_command_says_how_to_install_it_with_3(played: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rerun_recording, "find_spec", lambda name: None)
    ended = export(played, "rerun", "--row", LONG, "--task", "0", "--episode", "0")
    assert (ended.returncode, ended.stdout) == (3, "")
    assert "pip install 'rerun-sdk>=0.24,<0.34'" in ended.stderr


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("--row", LONG), "a recording is of one episode"),
        (("--row", LONG, "--row", SHORT, "--task", "0", "--episode", "0"), "a recording is of one episode"),
        (("--row", "none", "--task", "0", "--episode", "0"), "no enabled row 'none'"),
        (("--row", LONG, "--task", "1", "--episode", "0"), "has played no such episode"),
        (("--row", LONG, "--task", "0", "--episode", "3"), "neither a video nor recorded actions"),
    ],
)
def test_an_episode_that_cannot_be_shown_is_refused(played: Made, words: tuple[str, ...], what: str) -> None:
    assert what in refused(played, "rerun", *words)


def test_a_video_that_does_not_play_is_refused(copy_of: Callable[[Made], Made], played: Made) -> None:
    made = copy_of(played)
    (film,) = made.layout.run(LONG).attempt(1).videos()
    film.write_bytes(b"no video")
    assert "the video does not play" in refused(made, "rerun", "--row", LONG, "--task", "0", "--episode", "0")


def contents(path: Path) -> dict[str, object]:
    """Returns the values of a recording by entity and component; only row ids differ between two recordings."""
    from rerun.experimental import RrdReader

    found: dict[str, object] = {}
    for chunk in RrdReader(path).store().stream().to_chunks():
        table = chunk.to_record_batch()
        for name, column in zip(table.schema.names, table.columns, strict=True):
            if "RowId" not in name:
                found[f"{chunk.entity_path} {name}"] = column.to_pylist()
    return found


@pytest.mark.slow
def test_a_recording_has_the_video_the_actions_and_the_instruction(played: Made, tmp_path: Path) -> None:
    pytest.importorskip("rerun")
    actions = np.arange(21, dtype=np.float32).reshape(3, 7) / 10
    np.save(tmp_path / "actions.npy", actions)
    episode = rerun_recording.find(played.spec, LONG, 0, 0)
    assert episode is not None
    np.save(tmp_path / "states.npy", actions[:, :2])
    recorded = replace(
        episode,
        actions=Recorded(tmp_path / "actions.npy", ""),
        states=Recorded(tmp_path / "states.npy", ""),
    )
    for name in ("first.rrd", "second.rrd"):
        rerun_recording.write(played.spec, recorded, tmp_path / name)
    first, second = (contents(tmp_path / name) for name in ("first.rrd", "second.rrd"))
    assert first == second
    assert first["/instruction TextDocument:text"] == [["pick up the alphabet soup and place it in the basket"]]
    assert first["/actions/gripper Scalars:scalars"] == [[pytest.approx(value)] for value in actions[:, 6]]
    assert first["/states/number_1 Scalars:scalars"] == [[pytest.approx(value)] for value in actions[:, 1]]
    assert first["/video step"] == [0, 1, 2]
    assert bytes(first["/video AssetVideo:blob"][0][0]) == episode.film.read_bytes()  # type: ignore[index]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["actions.npy", "first.rrd", "second.rrd", "states.npy"]
