"""`[metrics]`: what a client is told of a session, and that no client is ever in the way of one."""

import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import campaigns
import pytest
from campaigns import SETTINGS, Made, judged

from tracka import session_exports
from tracka.campaign.metrics_settings import MetricsSettings
from tracka.exports import metrics
from tracka.exports.metrics import MetricsProcess
from tracka.session_exports import SessionExports

SECRET = "hf_0123456789abcdef"
# A client that writes down what it is told; {} is what else it does when it is asked to begin.
CLIENT = """
import json, os, pathlib, sys, time
seen = pathlib.Path(__file__).with_name("seen.jsonl")
class Settings:
    model_fields = {{"console": None}}
    def __init__(self, **words): self.words = words
def note(**values):
    with seen.open("a") as file: file.write(json.dumps(values) + "\\n")
def init(**words):
    print("noise of a client")
    note(project=words["project"], name=words["name"])
    {}
def log(values): note(log=values)
def finish(): note(end=True)
"""


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Returns a function that puts a stand-in for wandb in its place, and returns what it is going to write down."""

    def put(begin: str = "pass") -> Path:
        (tmp_path / "wandb.py").write_text(CLIENT.format(begin))
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        return tmp_path / "seen.jsonl"

    return put


@pytest.fixture
def closed(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return campaigns.below_threshold(tmp_path_factory.getbasetemp())


def process(folder: Path, seconds: float = 60) -> MetricsProcess:
    return MetricsProcess(MetricsSettings("wandb", "robots", seconds), "smoke", folder / "metrics")


def lines(seen: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in seen.read_text().splitlines()]


def test_a_session_tells_each_row_once_with_its_rate_and_the_verdict_last(
    client: Callable[..., Path], copy_of: Callable[[Made], Made], closed: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = copy_of(closed)
    made.configure('[metrics]\nto = "wandb"\nproject = "robots"')
    seen = client()
    session = SessionExports(made.spec)
    for run_id in ("baseline_b1_e2", "wide_b4_e4", "baseline_b1_e2", "off_b1_e1"):
        session.row_ended(run_id)
    session.end(("phase3", "phase4", "phase5"), accepted=False)
    begin, baseline, wide, verdict, end = lines(seen)
    assert begin == {"project": "robots", "name": made.root.name}
    assert (baseline["log"]["success_rate/baseline_b1_e2"], baseline["log"]["rows_ended"]) == (0, 1)  # type: ignore[index]
    assert (wide["log"]["success_rate/wide_b4_e4"], wide["log"]["episodes/wide_b4_e4"]) == (0.5, 4)  # type: ignore[index]
    assert verdict == {"log": {"accepted": False, "verdict": "not accepted"}}
    assert (end, session.warnings) == ({"end": True}, [])


def test_nothing_is_started_for_a_campaign_that_does_not_ask(client: Callable[..., Path], closed: Made) -> None:
    seen = client()
    session = SessionExports(closed.spec)
    session.row_ended("wide_b4_e4")
    session.end((), accepted=False)
    assert (session.metrics, seen.exists(), session.warnings) == (None, False, [])


def test_a_fault_of_our_own_is_one_warning_too(
    client: Callable[..., Path],
    copy_of: Callable[[Made], Made],
    closed: Made,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    made = copy_of(closed)
    made.configure('[metrics]\nto = "wandb"\nproject = "robots"')
    client()
    session = SessionExports(made.spec)
    (tmp_path / "file").touch()
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "file" / "summary.md"))
    monkeypatch.setattr(session_exports.run, "read_result", lambda *_: 1 / 0)
    for run_id in ("baseline_b1_e2", "wide_b4_e4"):
        session.row_ended(run_id)
    session.end(("phase3",), accepted=False)
    first, second = session.warnings
    assert first == "metrics are not complete: ZeroDivisionError: division by zero"
    assert second.startswith("the summary of the job could not be written: ")


@pytest.mark.parametrize(
    ("begin", "warning"),
    [
        ("raise RuntimeError('no network')", "RuntimeError: no network"),
        ("raise ModuleNotFoundError(name='wandb')", "the client is not installed. Install it: pip install wandb"),
        ("sys.exit('leaving')", "SystemExit: leaving"),
        ("os._exit(3)", "ended with 3"),
        ("time.sleep(600)", "the client was not done after 1 s and has been ended"),
        (f"raise RuntimeError('bad key {SECRET}')", "RuntimeError: bad key [redacted]"),
    ],
    ids=["fails", "missing", "leaves", "dies", "hangs", "tells a secret"],
)
def test_whatever_a_client_does_gives_one_warning_and_an_end(
    client: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begin: str, warning: str
) -> None:
    monkeypatch.setenv("HF_TOKEN", SECRET)
    client(begin)
    sent = process(tmp_path, seconds=1 if "sleep" in begin else 60)
    sent.log({"rows_ended": 1})
    sent.end()
    assert sent.warning.startswith("metrics are not complete in wandb: ") and warning in sent.warning


def test_a_client_that_takes_nothing_never_makes_a_session_wait(client: Callable[..., Path], tmp_path: Path) -> None:
    client("time.sleep(600)")
    sent = process(tmp_path, seconds=0.1)
    start = time.monotonic()
    for _ in range(1000):
        sent.log({"text": "x" * 1000})  # a pipe holds 64 KiB
    assert time.monotonic() - start < 5
    sent.end()
    assert "metrics are not complete in wandb: the client" in sent.warning


def test_no_secret_of_the_environment_is_sent(
    client: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", SECRET)
    seen = client()
    sent = process(tmp_path)
    sent.summarize({"sentence": f"A checkpoint of https://me:{SECRET}@hub failed."})
    sent.end()
    assert SECRET not in seen.read_text() and "[redacted]" in seen.read_text()


def test_a_client_ends_although_its_session_was_killed(client: Callable[..., Path], tmp_path: Path) -> None:
    client("time.sleep(600)")
    environ = {**os.environ, metrics.FOLDER: str(tmp_path)}
    words = ["-m", "tracka.exports.metrics_client", "wandb", "robots", "smoke", "0.5"]
    left = subprocess.Popen([sys.executable, *words], stdin=subprocess.PIPE, env=environ, start_new_session=True)
    assert left.stdin is not None
    left.stdin.close()
    assert left.wait(timeout=60) == -9


@pytest.mark.parametrize(
    "table", ['to = "mlflow"\nproject = "a"', 'to = "wandb"', 'to = "wandb"\nproject = "a b"', 'project = "a"\nx = 1']
)
def test_a_wrong_table_is_refused_with_2(made: Made, table: str) -> None:
    made.configure(f"[metrics]\n{table}")
    ended = made.call("summary", str(made.root))
    assert (ended.returncode, "metrics" in ended.stderr) == (2, True)


@pytest.mark.slow
@pytest.mark.parametrize("to", ["wandb", "trackio"])
def test_the_real_client_keeps_a_session_on_the_disk_without_a_network(to: str, tmp_path: Path) -> None:
    if importlib.util.find_spec(to) is None:
        pytest.skip(f"{to} is not installed")
    settings = f'{SETTINGS}\n[metrics]\nto = "{to}"\nproject = "robots"\ntimeout_secs = 300\n'
    environ = {"WANDB_MODE": "offline", "TRACKIO_DIR": str(tmp_path / "trackio"), "HF_HUB_OFFLINE": "1"}
    made = campaigns.finished(tmp_path, to, settings=settings, gates=("-n2",), environ=environ, wide_b4_e4=["ok:2"])
    assert "metrics are not complete" not in judged(made).stdout
    place = made.layout.artifacts / "metrics" if to == "wandb" else tmp_path / "trackio"
    kept = b"".join(path.read_bytes() for path in place.rglob("*") if path.is_file())
    assert b"success_rate/wide_b4_e4" in kept and b"complete, no threshold set" in kept
    summary = Path(made.environ["GITHUB_STEP_SUMMARY"]).read_text()
    assert summary.count("## campaign: complete, no threshold set") == 1  # by the controller, not by its workers
