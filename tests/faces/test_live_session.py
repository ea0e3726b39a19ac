"""What shows while a session runs: a table on a terminal, a line a minute elsewhere, and nothing where it is off."""

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import campaigns
import pytest
from campaigns import REPOSITORY, Made

from fixtures import terminal, watching
from fixtures.terminal import CTRL_C, Terminal
from tracka import live_session
from tracka.core import lock
from tracka.execution import gpu, lease

ROWS = (
    "baseline_b1_e2,libero_object,1,2,cpu,7,egl,checkpoints/fake,1",
    "long_b1_e6,libero_object,1,6,cpu,7,egl,checkpoints/fake,1",
    "wide_b2_e4,libero_object,2,4,cpu,7,egl,checkpoints/fake,1",
    "short_b1_e2,libero_object,1,2,cpu,7,egl,checkpoints/fake,1",
)
GPU_ROWS = (
    "baseline_b1_e2,libero_object,1,2,cpu,7,egl,checkpoints/fake,1",
    "first_b1_e6,libero_object,1,6,0,7,egl,checkpoints/fake,1",
    "second_b1_e2,libero_object,1,2,0,7,egl,checkpoints/fake,1",
    "third_b1_e2,libero_object,1,2,1,7,egl,checkpoints/fake,1",
)
PACED = {name: ["paced:0.8"] for name in (row.partition(",")[0] for row in ROWS + GPU_ROWS)}
TABLE = re.compile(r"elapsed +left|rows ended|waiting: ")
# Runs a program whose table is drawn, and whose line is written, every so many seconds, whatever that costs.
BRIEF = """
import runpy, sys
from tracka import live_view
live_view.TABLE_SECS = live_view.LINE_SECS = float(sys.argv[1])
live_view.SHARE = 1.0
sys.argv = sys.argv[2:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


def brief(seconds: float, *words: str) -> list[str]:
    return [sys.executable, "-c", BRIEF, str(seconds), *words]


def gates(made: Made, *words: str) -> list[str]:
    cache = ("-o", f"cache_dir={made.root / '.cache'}")
    return ["pytest", "acceptance", "--campaign", str(made.root), *cache, *words]


def environment(made: Made, **more: str) -> dict[str, str]:
    """The environment of a user on a terminal: this one may be CI's."""
    environ = {name: value for name, value in os.environ.items() if name not in ("CI", "BUILD_NUMBER", "NO_COLOR")}
    return environ | made.environ | more


def ready(folder: Path, rows: Sequence[str] = ROWS, **environ: str) -> Made:
    """A campaign after phases 1 and 2, whose stand-in plays an episode or a batch in less than a second."""
    gpus = environ.get(gpu.PRETEND, "0")
    settings = campaigns.SETTINGS.replace("expected_gpus = 0", f"expected_gpus = {gpus}")
    made = campaigns.make(folder / "campaign", rows, settings)
    made.behave(**PACED)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (made.environ | environ).items():
            patch.setenv(name, value)
        made.pass_preflight()
    return made


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """The campaign of the CPU after phases 1 and 2, to be copied."""
    return ready(tmp_path_factory.mktemp("fresh"))


@dataclass(frozen=True)
class Watched:
    """A session that has ended on a terminal: its exit status, all moments of the screen, and the lines left on it."""

    made: Made
    code: int
    moments: list[str]
    lines: list[str]
    written: bytes

    def showed(self, pattern: str) -> bool:
        return any(re.search(pattern, moment) for moment in self.moments)


def ended(made: Made, session: Terminal) -> Watched:
    lines = session.end()
    return Watched(made, session.process.wait(), session.moments, lines, session.written)


# on a terminal


@pytest.fixture(scope="module")
def watched(fresh: Made, tmp_path_factory: pytest.TempPathFactory) -> Watched:
    """Phases 3 and 4 on two workers of xdist."""
    made = campaigns.copied(fresh, tmp_path_factory.mktemp("watched"))
    words = gates(made, "-n2", "-m", "phase3 or phase4", f"--junitxml={made.root / 'junit.xml'}")
    with terminal.opened(brief(0.1, *words), REPOSITORY, environment(made)) as session:
        return ended(made, session)


def test_a_worker_has_a_line_with_its_row_episodes_rate_with_interval_and_times(watched: Watched) -> None:
    assert watched.showed(r"device +worker +row +episodes +succeeded +elapsed +left\n")
    assert watched.showed(r"cpu +gw[01] +long_b1_e6 +[1-5] of 6 +\d+% \(\d+ to \d+\) +0:\d\d +0:\d\d")
    assert watched.showed(r"cpu +gw[01] +wide_b2_e4 +2 of 4 +50% \(9 to 91\)")  # a batch, of which one succeeds


def test_the_first_line_has_the_progress_and_the_time_left_of_the_campaign(watched: Watched) -> None:
    assert watched.showed(r"campaign phase3, 0 of 4 rows ended, [012] of 14 episodes")
    assert watched.showed(
        r"campaign phase4, [12] of 4 rows ended, \d+ of 14 episodes, about 0:\d\d left, elapsed 0:\d\d"
    )


def test_the_last_lines_say_what_waits_for_what(watched: Watched) -> None:
    assert watched.showed(r"waiting: 3 rows for the end of phase3: long_b1_e6, wide_b2_e4, short_b1_e2")
    assert watched.showed(r"waiting: 1 row for a free worker: short_b1_e2")


def test_pytests_own_output_is_whole_and_nothing_else_is_left_on_the_terminal(watched: Watched) -> None:
    assert watched.code == 0
    text = "\n".join(watched.lines)
    assert not TABLE.search(text)
    (dots,) = [line for line in watched.lines if line.startswith("..")]
    (passed,) = re.findall(r"(\d+) passed", watched.lines[-1])
    assert dots.split() == ["." * int(passed), "[100%]"]
    assert "\n" not in re.sub(r".*\n=+ campaign campaign =+\n", "", text, flags=re.DOTALL).partition("run  ")[0]
    assert watched.written.rfind(b"\x1b[r") > watched.written.rfind(b"\x1b[1;")  # all lines scroll again


def test_neither_junit_nor_an_artifact_has_anything_of_it(watched: Watched) -> None:
    junit = (watched.made.root / "junit.xml").read_text()
    assert "test_row[long_b1_e6]" in junit and not TABLE.search(junit)
    texts = [path.read_bytes() for path in watched.made.layout.artifacts.rglob("*") if path.is_file()]
    assert len(texts) > 30
    assert not any(TABLE.search(text.decode(errors="replace")) for text in texts)


@pytest.mark.slow
def test_after_ctrl_c_the_terminal_is_clean(fresh: Made, tmp_path: Path) -> None:
    """Without xdist, uncaptured and with a line a test. The row goes on until Ctrl-C, however slow this host is."""
    made = campaigns.copied(fresh, tmp_path)
    made.behave(**PACED | {"baseline_b1_e2": ["batches:0 1 0=0"]})
    words = gates(made, "-n0", "-s", "-v", "-m", "phase3 or phase4")
    with terminal.opened([sys.executable, "-m", *words], REPOSITORY, environment(made)) as session:
        shown = session.until(lambda text: bool(re.search(r"cpu +gw0 +baseline_b1_e2 +1 of 2 +", text)))
        session.send(CTRL_C)
        stopped = ended(made, session)
    assert "waiting: " in shown
    assert stopped.code == pytest.ExitCode.INTERRUPTED
    text = "\n".join(stopped.lines)
    assert "KeyboardInterrupt" in text and not TABLE.search(text)
    assert re.search(r"test_the_baseline_runs_and_leaves_valid_evidence \^C", text)
    assert stopped.written.rfind(b"\x1b[r") > stopped.written.rfind(b"\x1b[1;")
    assert made.statuses()["baseline_b1_e2"] == ("fail", "interrupted")


@pytest.fixture(scope="module")
def resumable(watched: Watched) -> Made:
    """A campaign whose rows have passed, so that a session is short."""
    return watched.made


@pytest.mark.slow
@pytest.mark.parametrize(("word", "shows"), [("--tb=short", True), ("-q", False), ("--no-live", False)])
def test_an_option_turns_it_off(resumable: Made, word: str, shows: bool) -> None:
    command = brief(0.02, *gates(resumable, "-n0", "-m", "phase3", word))
    with terminal.opened(command, REPOSITORY, environment(resumable)) as session:
        done = ended(resumable, session)
    assert done.code == 0
    assert done.showed(TABLE.pattern) == shows
    assert (b"\x1b[1;" in done.written) == shows


# without a terminal


@pytest.fixture(scope="module", params=["-n0", "-n2"])
def logged(
    request: pytest.FixtureRequest, resumable: Made, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Made, subprocess.CompletedProcess[str]]:
    """Phase 3, whose row runs again, with a line every tenth of a second."""
    made = campaigns.copied(resumable, tmp_path_factory.mktemp("logged"))
    made.change_weights()
    report = f"--junitxml={made.root / 'junit.xml'}"
    command = brief(0.1, *gates(made, request.param, "-m", "phase3", "--allow-overwrite", report))
    return made, subprocess.run(command, cwd=REPOSITORY, env=environment(made), capture_output=True, text=True)


LINE = re.compile(r"^\[\d\d:\d\d:\d\d\] campaign phase3, [01] of 1 rows ended, [012] of 2 episodes.*$\n", re.MULTILINE)


@pytest.mark.slow
def test_a_line_says_what_the_table_would(logged: tuple[Made, subprocess.CompletedProcess[str]]) -> None:
    _, done = logged
    lines = LINE.findall(done.stdout)
    assert any("; cpu baseline_b1_e2 (attempt 2) 1 of 2 episodes, 100% (21 to 100)" in line for line in lines), (
        done.stdout
    )
    assert "\x1b" not in done.stdout


@pytest.mark.slow
def test_pytests_own_lines_are_whole_beside_it(logged: tuple[Made, subprocess.CompletedProcess[str]]) -> None:
    _, done = logged
    assert done.returncode == 0, done.stdout + done.stderr
    other_lines = LINE.sub("", done.stdout)
    assert "rows ended" not in other_lines
    (passed,) = re.findall(r"= (\d+) passed", other_lines)
    progress = re.split(r"^[-=]", other_lines.partition("\n\n")[2] or other_lines.partition(" items]")[2], flags=re.M)[
        0
    ]
    assert re.sub(r"acceptance/\S+|\[ *\d+%\]|\s", "", progress) == "." * int(passed)


@pytest.mark.slow
def test_junit_has_none_of_the_lines(logged: tuple[Made, subprocess.CompletedProcess[str]]) -> None:
    made, _ = logged
    junit = (made.root / "junit.xml").read_text()
    assert "baseline" in junit and not TABLE.search(junit)


# a sweep


@pytest.fixture(scope="module")
def with_gpus(tmp_path_factory: pytest.TempPathFactory) -> tuple[Made, dict[str, str]]:
    """A campaign for two pretended GPUs after preflight, and its environment."""
    folder = tmp_path_factory.mktemp("gpus")
    environ = {gpu.PRETEND: "2", lease.LOCKS: str(folder / "locks")}
    made = ready(folder, GPU_ROWS, **environ)
    made.behave(**PACED | {"first_b1_e6": ["paced:2"], "third_b1_e2": ["paced:5"]})  # longer than the table ever rests
    return made, environment(made, **environ)


@pytest.fixture(scope="module")
def swept(with_gpus: tuple[Made, dict[str, str]]) -> Watched:
    """A sweep of three rows, one of which waits until this process gives GPU 1 away."""
    made, environ = with_gpus
    command = [sys.executable, "-m", "tracka", *made.sweep_words("--rows", "first_b1_e6,second_b1_e2,third_b1_e2")]
    path = Path(environ[lease.LOCKS]) / f"{gpu.PRETENDED}1.lock"
    with terminal.opened(command, REPOSITORY, environ) as session:
        with lock.hold(path, "GPU 1", shared=True) as file:
            lock.sign(file, f"process {os.getpid()}")
            session.until(lambda text: f"waits for process {os.getpid()}" in text)
        return ended(made, session)


@pytest.mark.slow
def test_a_gpu_has_a_line_with_its_row(swept: Watched) -> None:
    assert swept.showed(r"\nGPU 0 +gw\d +first_b1_e6 +[1-5] of 6 +\d+% ")
    assert swept.showed(r"\nGPU 1 +gw\d +third_b1_e2 +[12] of 2 +\d+% ")


@pytest.mark.slow
def test_a_row_says_which_process_has_its_gpu_and_which_row_runs_there(swept: Watched) -> None:
    assert swept.showed(rf"\nGPU 1 +third_b1_e2 +waits for process {os.getpid()} ")
    assert swept.showed(r"waiting: 1 row for GPU 0, where first_b1_e6 runs: second_b1_e2")


@pytest.mark.slow
def test_a_gpu_without_a_row_is_idle(swept: Watched) -> None:
    assert swept.showed(r"\nGPU 1 +idle")


@pytest.mark.slow
def test_a_sweep_leaves_its_own_lines_alone_on_the_terminal(swept: Watched) -> None:
    assert swept.code == 0
    assert not TABLE.search("\n".join(swept.lines))
    assert [line.partition(":")[0] for line in swept.lines[:5]][3:] == ["3 of 3 rows passed", "replay"]


def test_without_a_terminal_a_sweep_writes_its_lines_to_stderr(fresh: Made, tmp_path: Path) -> None:
    made = campaigns.copied(fresh, tmp_path)
    words = ("tracka", *made.sweep_words("--rows", "baseline_b1_e2"))
    done = subprocess.run(brief(0.1, *words), cwd=REPOSITORY, env=environment(made), capture_output=True, text=True)
    assert done.returncode == 0
    assert re.search(
        r"^\[[\d:]+\] campaign, 0 of 1 rows ended, 1 of 2 episodes.*; cpu baseline_b1_e2 ", done.stderr, re.M
    )
    assert "rows ended" not in done.stdout


@pytest.mark.parametrize("word", ["-q", pytest.param("--no-live", marks=pytest.mark.slow)])
def test_an_option_turns_it_off_in_a_sweep(fresh: Made, tmp_path: Path, word: str) -> None:
    made = campaigns.copied(fresh, tmp_path)
    words = ("tracka", *made.sweep_words("--rows", "baseline_b1_e2", word))
    done = subprocess.run(brief(0.02, *words), cwd=REPOSITORY, env=environment(made), capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


# the record


def test_a_record_has_the_last_table_before_each_change_of_phase_or_of_ended_rows() -> None:
    heads = [f"c {phase}, {ended} of 3 rows ended, 1 of 6 episodes, elapsed 0:0{second}" for phase, ended, second in (
        ("phase3", 0, 1), ("phase3", 0, 2), ("phase4", 1, 3), ("phase4", 1, 4), ("phase4", 2, 5),
    )]  # fmt: skip
    moments = ["nothing yet", *(f"dots...   \n\n{head}\ngw0  a_row \n" for head in heads), "the end"]
    assert list(watching.tables(moments)) == [f"{heads[number]}\ngw0  a_row" for number in (1, 3, 4)]


@pytest.mark.parametrize(
    ("test", "words"),
    [
        ("phase1_contracts.py::test_the_matrix_scales", "the check of the campaign's files"),
        ("phase2_preflight.py::test_the_report_has_the_plans_keys", "preflight, the check of this host,"),
        ("phase3_baseline.py::test_the_engine_plays_the_episodes[x]", "the proof of the resident engine"),
    ],
)
def test_what_runs_besides_rows_is_named_by_what_it_does_and_not_by_its_test(made: Made, test: str, words: str) -> None:
    config: Any = SimpleNamespace(getoption=lambda *_: False)
    session = live_session.LiveSession(config, made.spec)
    nodeid, another = f"acceptance/test_{test}", f"acceptance/test_{test.partition('::')[0]}::test_another"
    session.pytest_runtest_logstart(nodeid)
    assert [*session.rows.steps] == [words]
    session.pytest_runtest_logstart(another)
    report: Any = SimpleNamespace(nodeid=another, failed=False, when="teardown")
    session.pytest_runtest_logreport(report)
    assert [*session.rows.steps] == [words]
    report.nodeid = nodeid
    session.pytest_runtest_logreport(report)
    assert session.rows.steps == {}
