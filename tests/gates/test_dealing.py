"""The gates under xdist on a host with GPUs, which are pretended: who runs what, where, and after failures."""

from collections.abc import Callable
from pathlib import Path

import campaigns
import pytest
from campaigns import SETTINGS, Made, judged
from journals import overlaps

from tracka.core import files
from tracka.execution import gpu, lease

BASELINE = "base,libero_object,1,1,cpu,7,egl,checkpoints/fake,1"
# run id, episodes, gpu_id: the two rows of GPU 0 take longest together
ROWS = (("a0", 5, "0"), ("b0", 4, "0"), ("c1", 3, "1"), ("d", 8, "auto"), ("e", 7, "auto"), ("f", 2, "cpu"))
LATER = ("-m", "phase4 or phase5")
Host = Callable[..., Made]


@pytest.fixture(scope="module")
def prepared_host(tmp_path_factory: pytest.TempPathFactory) -> Host:
    """Returns the campaign of ROWS after phases 1 to 3, on a host with so many GPUs; all tests share it."""

    def made(gpus: int) -> Made:
        lines = [
            f"{name},libero_object,1,{episodes},{where},7,egl,checkpoints/fake,1" for name, episodes, where in ROWS
        ]
        environ = {gpu.PRETEND: str(gpus), lease.LOCKS: str(tmp_path_factory.mktemp("locks"))}
        settings = SETTINGS.replace('"baseline_b1_e2"', '"base"').replace("expected_gpus = 0", "expected_gpus = 2")
        gates = ("-n0", "-m", "phase1 or phase2 or phase3")
        base, rows = tmp_path_factory.getbasetemp(), [BASELINE, *lines]
        return campaigns.finished(base, f"host_{gpus}", rows, settings, gates, environ=environ)

    return made


@pytest.fixture
def host(prepared_host: Host, copy_of: Callable[[Made], Made], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """The campaign of ROWS after phases 1 to 3, whose rows take a moment, on a host with so many GPUs."""

    def made(gpus: int, **words: list[str]) -> Made:
        made = copy_of(prepared_host(gpus))
        assert judged(prepared_host(gpus)).returncode == 0
        monkeypatch.setenv(gpu.PRETEND, str(gpus))
        monkeypatch.setenv(lease.LOCKS, str(tmp_path / "locks"))
        made.behave(**{name: ["slow:0.4"] for name, _, _ in ROWS} | words)
        return made

    return made


def ran_on(made: Made, run_id: str) -> tuple[int, str]:
    """The GPU of the row, and the worker that ran it."""
    manifest = files.read_json(made.layout.run(run_id).manifest)
    return manifest["gpu_id"], manifest["worker"]


def shared(made: Made) -> list[tuple[str, str]]:
    """Two rows that were on one GPU at one time."""
    running: list[str] = []
    found = []
    for line in made.journal():
        run_id, _, event = line.split()
        if event == "start":
            here = ran_on(made, run_id)[0]
            found += [(other, run_id) for other in running if here >= 0 and ran_on(made, other)[0] == here]
            running.append(run_id)
        elif run_id in running:
            running.remove(run_id)
    return found


@pytest.mark.parametrize(
    ("workers", "gpus"),
    [pytest.param(*pair, marks=pytest.mark.slow) for pair in ((3, 2), (0, 8), (1, 8), (3, 8), (8, 8), (5, 2))],
)
def test_every_row_runs_once_on_its_gpu_whatever_the_number_of_workers(host: Host, workers: int, gpus: int) -> None:
    made = host(gpus)
    ended = made.pytest(f"-n{workers}", *LATER)
    assert ended.returncode == 0, ended.stdout
    assert sorted(made.started()) == ["a0", "b0", "base", "c1", "d", "e", "f"]
    assert [ran_on(made, name)[0] for name in ("a0", "b0", "c1", "f")] == [0, 0, 1, -1]
    assert shared(made) == []
    if workers == 1:
        assert made.started()[1:] == ["a0", "b0", "d", "e", "c1", "f"]  # on its own GPU what is pinned comes first
    if 1 < workers <= gpus:
        assert [ran_on(made, name)[1] for name in ("a0", "b0", "c1")] == ["gw0", "gw0", "gw1"]
        assert all(ran_on(made, name)[1] == f"gw{ran_on(made, name)[0]}" for name in "de")


def test_after_a_crash_the_rows_of_that_gpu_go_on_and_last_failed_runs_the_lost_one_alone(
    host: Host, tmp_path: Path
) -> None:
    made = host(2, a0=["kill_harness", "ok"])
    ended = made.pytest("-n2", *LATER)
    assert ended.returncode == 1
    assert sorted(set(made.started())) == ["a0", "b0", "base", "c1", "d", "e", "f"]
    assert ran_on(made, "b0")[0] == 0
    assert overlaps(tmp_path / "locks") == []
    before = len(made.started())
    again = made.pytest("-n2", "--lf")
    assert again.returncode == 0, again.stdout
    assert made.started()[before:] == ["a0"]
    assert ran_on(made, "a0")[0] == 0


@pytest.mark.slow
def test_with_x_a_row_under_way_elsewhere_is_ended_and_last_failed_plays_what_is_left(host: Host) -> None:
    made = host(2, a0=["crash", "crash_after:2", "ok"], c1=["slow:60", "ok"])
    ended = made.pytest("-n2", "-x", *LATER)
    assert ended.returncode != 0
    assert made.results("c1") == [("fail", "session_stop")]
    assert "the session stops before its end (-x, --maxfail), so Track A ended the evaluation" in ended.stdout
    assert made.evidence("c1") == []
    assert sorted(set(made.started())) == ["a0", "base", "c1"]
    again = made.pytest("-n2", "--lf")
    assert again.returncode == 0, again.stdout
    assert made.results("c1") == [("fail", "session_stop"), ("pass", None)]


@pytest.mark.slow
def test_rows_chosen_with_k_run_alone(host: Host) -> None:
    made = host(2)
    made.pytest("-n3", "-m", "phase4", "-k", "b0 or c1")
    assert sorted(made.started()) == ["b0", "base", "c1"]
    assert [ran_on(made, name) for name in ("b0", "c1")] == [(0, "gw0"), (1, "gw1")]


@pytest.mark.slow
def test_a_row_that_took_long_before_goes_first(host: Host) -> None:
    made = host(2)
    made.behave()
    assert made.pytest("-n0", *LATER).returncode == 0
    result = files.read_json(made.layout.run("f").result)
    files.write_json(made.layout.run("f").result, {**result, "duration_sec": 9999.0})
    made.configure("[rows.f]\nepisode_length = 9\n[rows.c1]\nepisode_length = 9")
    before = len(made.started())
    made.pytest("-n1", "--allow-overwrite")
    assert made.started()[before:] == ["f", "c1"]
