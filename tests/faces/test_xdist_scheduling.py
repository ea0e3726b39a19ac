"""The order of the gates under xdist: real pytest sessions on made-up modules, one a phase, with the installed xdist.

Every made-up test writes its start and its end into a journal, and so does each end of a phase.
"""

import importlib
import inspect
import os
import subprocess
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from campaigns import REPOSITORY, Made
from packaging.specifiers import SpecifierSet
from xdist import remote
from xdist.scheduler import LoadScheduling

from tracka import xdist_scheduling
from tracka.campaign.layout import PHASES
from tracka.stages import CLOSING, phase_of, stage_of
from tracka.xdist_scheduling import PhasedScheduling

CONFTEST = """
import os, time
from pathlib import Path
import pytest
from tracka.runs.row_scheduler import RowScheduler, Job
from tracka.xdist_scheduling import PhasedScheduling, RowLoop

JOURNAL = Path(__file__).with_name("journal")

def write(line):
    with JOURNAL.open("a") as journal:
        journal.write(line + "\\n")

def cost(nodeid):  # test_2[9] takes 9
    return float(nodeid.rsplit("[", 1)[-1].rstrip("]")) if nodeid.endswith("]") else 0.0

def pytest_configure(config):
    if hasattr(config, "workerinput"):
        config.pluginmanager.register(RowLoop())

@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    def jobs(nodeids):
        return [Job(index, cost(nodeid)) for index, nodeid in nodeids.items()]

    return PhasedScheduling(config, log, RowScheduler(0), jobs, lambda phase: write("END " + phase))

@pytest.fixture(autouse=True)
def journal(request):
    write("start " + request.node.name)
    yield
    write("end " + request.node.name)
"""
MODULE = """
import os, time
import pytest

@pytest.mark.parametrize("number", range({count}))
def test_{phase}(number):
    time.sleep(0.05)

def test_{phase}_special():
    {special}
"""
CRASH = 'os._exit(1) if not os.path.exists("calm") else None'
FAIL = 'assert os.path.exists("calm")'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of made-up tests, four a phase, that all pass."""
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = -p no:anyio -p no:hydra_pytest\n")
    write_modules(tmp_path, {})
    return tmp_path


def write_modules(folder: Path, special: Mapping[str, str], count: int = 3) -> None:
    """Writes a module a phase; `special` is what its special test does."""
    for phase in PHASES:
        text = MODULE.format(phase=phase, count=count, special=special.get(phase, "pass"))
        (folder / f"test_{phase}_x.py").write_text(text)


def pytest_in(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return subprocess.run(
        [sys.executable, "-m", "pytest", *words],
        cwd=folder,
        env={**environ, "PYTHONPATH": str(REPOSITORY)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,
    )


def journal(folder: Path) -> list[str]:
    path = folder / "journal"
    return path.read_text().splitlines() if path.exists() else []


def starts(folder: Path) -> list[str]:
    return [line.split()[1] for line in journal(folder) if line.startswith("start")]


def ends_of_phases(folder: Path) -> list[str]:
    return [line.split()[1] for line in journal(folder) if line.startswith("END")]


def strays(folder: Path) -> list[str]:
    """The lines of tests outside their phase, which begins with the end of the phase before."""
    found, open_phases = [], list(PHASES)
    for line in journal(folder):
        what, name = line.split()
        if what == "END":
            open_phases.remove(name)
        elif not name.startswith(f"test_{open_phases[0] if open_phases else '?'}"):
            found.append(line)
    return found


def outcome(ended: subprocess.CompletedProcess[str]) -> str:
    return ended.stdout.strip().splitlines()[-1]


# phases


@pytest.mark.parametrize("workers", [3, *(pytest.param(count, marks=pytest.mark.slow) for count in (1, 8))])
def test_a_phase_begins_when_the_one_before_has_ended(folder: Path, workers: int) -> None:
    ended = pytest_in(folder, f"-n{workers}")
    assert ended.returncode == 0, ended.stdout
    assert "20 passed" in outcome(ended)
    assert ends_of_phases(folder) == list(PHASES)
    assert strays(folder) == []
    assert len(starts(folder)) == len(set(starts(folder))) == 20


@pytest.mark.parametrize(
    ("nodeid", "phase"),
    [
        ("acceptance/test_phase3_baseline.py::test_phase_2_has_passed", "phase3"),
        ("tracka/acceptance/test_phase4_sweep.py::test_row[a_b1_e2]", "phase4"),
        ("test_phase6_x.py::test_it", ""),
        ("tests/test_xdist_scheduling.py::test_it", ""),
    ],
)
def test_a_tests_phase_is_that_of_its_module(nodeid: str, phase: str) -> None:
    assert phase_of(nodeid) == phase


def test_tests_of_no_phase_run_before_the_phases(folder: Path) -> None:
    (folder / "test_other.py").write_text("def test_other(): pass")
    ended = pytest_in(folder, "-n2")
    assert "21 passed" in outcome(ended)
    assert starts(folder)[0] == "test_other"
    assert [line for line in journal(folder) if line.startswith("END")][1:] == [f"END {phase}" for phase in PHASES]


def test_some_phases_alone_keep_their_order(folder: Path) -> None:
    ended = pytest_in(folder, "-n3", "test_phase4_x.py", "test_phase2_x.py")
    assert "8 passed" in outcome(ended)
    assert ends_of_phases(folder) == ["phase2", "phase4"]
    assert [name for name in starts(folder) if "phase4" in name] == starts(folder)[4:]


def test_more_workers_than_tests_end_all_the_same(folder: Path) -> None:
    ended = pytest_in(folder, "-n3", "-k", "special", "test_phase1_x.py", "test_phase2_x.py")
    assert "2 passed" in outcome(ended)
    assert ends_of_phases(folder) == ["phase1", "phase2"]


CLOSINGS = "def test_{phase}_special(): pass\ndef {closing}(): pass\n"


def write_closings(folder: Path) -> None:
    """Writes a module a phase, with one test and the closing test, which stands last although its name comes first."""
    for phase in PHASES:
        text = CLOSINGS.format(phase=phase, closing=CLOSING[phase])
        (folder / f"test_{phase}_x.py").write_text(text)


@pytest.mark.parametrize("workers", [2, pytest.param(1, marks=pytest.mark.slow)])
def test_a_closing_test_runs_after_its_phase_has_ended_and_before_the_next(folder: Path, workers: int) -> None:
    write_closings(folder)
    assert "10 passed" in outcome(pytest_in(folder, f"-n{workers}"))
    events = [line for line in journal(folder) if not line.startswith("end")]
    assert [line for line in events if "handed over" not in line] == [
        line for phase in PHASES for line in (f"start test_{phase}_special", f"END {phase}", f"start {CLOSING[phase]}")
    ]


def test_a_closing_test_alone_has_its_phase_ended_first(folder: Path) -> None:
    write_closings(folder)
    assert "1 passed" in outcome(pytest_in(folder, "-n2", "-k", CLOSING["phase5"]))
    assert journal(folder)[:2] == ["END phase5", f"start {CLOSING['phase5']}"]


@pytest.mark.parametrize(
    ("nodeid", "stage"),
    [
        ("acceptance/test_phase4_sweep.py::test_row[a_b1_e2]", "phase4"),
        (f"acceptance/test_phase4_sweep.py::{CLOSING['phase4']}", "phase4 handed over"),
        (f"tests/test_other.py::{CLOSING['phase4']}", ""),
        ("tests/test_other.py::test_it", ""),
    ],
)
def test_the_stages_of_a_phase_are_its_tests_and_its_closing_test(nodeid: str, stage: str) -> None:
    assert stage_of(nodeid) == stage


# who runs what


LONG = """
import time
import pytest

@pytest.mark.parametrize("cost", [1, 9, 4, 4.0, 30])
def test_row(cost):
    time.sleep({seconds})
"""


def test_the_longest_test_of_a_phase_starts_first_and_equals_keep_their_order(folder: Path) -> None:
    (folder / "test_phase4_x.py").write_text(LONG.format(seconds=0))
    pytest_in(folder, "-n1")
    assert [name for name in starts(folder) if name.startswith("test_row")] == [
        f"test_row[{cost}]" for cost in ("30", "9", "4", "4.0", "1")
    ]


def test_no_test_waits_behind_a_long_one_while_a_worker_is_free(folder: Path) -> None:
    (folder / "test_phase4_x.py").write_text(LONG.format(seconds="1.5 if cost == 30 else 0"))
    assert pytest_in(folder, "-n2", "test_phase4_x.py").returncode == 0
    assert journal(folder)[-2:] == ["end test_row[30]", "END phase4"]


# failures


ALL = [*((phase, 2) for phase in PHASES), ("phase2", 1), ("phase5", 1)]
DOSE = [("phase1", 2), ("phase2", 1)]  # a crash in each of the others is in the test below


@pytest.mark.parametrize(
    ("phase", "workers"), [*DOSE, *(pytest.param(*pair, marks=pytest.mark.slow) for pair in ALL if pair not in DOSE)]
)
def test_a_crash_costs_its_test_alone(folder: Path, phase: str, workers: int) -> None:
    write_modules(folder, {phase: CRASH})
    ended = pytest_in(folder, f"-n{workers}")
    assert ended.returncode == 1
    assert "1 failed, 19 passed" in outcome(ended)
    assert ends_of_phases(folder) == list(PHASES)
    assert strays(folder) == []
    assert starts(folder).count(f"test_{phase}_special") == 1


def test_a_crash_in_every_phase_costs_five_tests(folder: Path) -> None:
    write_modules(folder, dict.fromkeys(PHASES, CRASH))
    ended = pytest_in(folder, "-n3")
    assert "5 failed, 15 passed" in outcome(ended)
    assert (ends_of_phases(folder), strays(folder)) == (list(PHASES), [])


def test_when_no_worker_may_be_replaced_the_session_ends(folder: Path) -> None:
    write_modules(folder, {"phase2": CRASH})
    ended = pytest_in(folder, "-n1", "--max-worker-restart=0")
    assert ended.returncode != 0
    assert "1 failed" in outcome(ended)
    assert not [name for name in starts(folder) if name.startswith("test_phase3")]


@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_with_x_a_failure_keeps_the_next_phase_from_starting(folder: Path, workers: int) -> None:
    write_modules(folder, {"phase2": FAIL})
    ended = pytest_in(folder, f"-n{workers}", "-x")
    assert ended.returncode != 0
    assert "1 failed" in outcome(ended) or "1 failed" in ended.stdout
    assert not [name for name in starts(folder) if name.startswith(("test_phase3", "test_phase4", "test_phase5"))]
    assert ends_of_phases(folder) in (["phase1"], ["phase1", "phase2"])


def test_a_failure_stops_nothing_and_last_failed_runs_the_failed_tests_in_the_order_of_their_phases(
    folder: Path,
) -> None:
    write_modules(folder, {"phase2": FAIL, "phase4": CRASH})
    assert "2 failed, 18 passed" in outcome(pytest_in(folder, "-n2"))
    assert ends_of_phases(folder) == list(PHASES)
    before = len(journal(folder))
    (folder / "calm").touch()
    ended = pytest_in(folder, "-n2", "--lf")
    assert ended.returncode == 0, ended.stdout
    assert [line for line in journal(folder)[before:] if not line.startswith("end")] == [
        "start test_phase2_special",
        "END phase2",
        "start test_phase4_special",
        "END phase4",
    ]


@pytest.mark.parametrize("words", [("-k", "nothing"), ("--deselect", "test_phase1_x.py", "test_phase1_x.py")])
def test_an_empty_selection_ends_at_once_and_ends_no_phase(folder: Path, words: tuple[str, ...]) -> None:
    ended = pytest_in(folder, "-n2", *words)
    assert ended.returncode == pytest.ExitCode.NO_TESTS_COLLECTED
    assert journal(folder) == []


@pytest.mark.parametrize("phase", ["phase1", "phase5"])
def test_a_module_that_cannot_be_collected_fails_the_session_and_stops_no_other(folder: Path, phase: str) -> None:
    (folder / f"test_{phase}_x.py").write_text("import a_module_that_nobody_has")
    ended = pytest_in(folder, "-n2")
    assert ended.returncode == pytest.ExitCode.TESTS_FAILED
    assert "16 passed, 1 error" in outcome(ended)
    assert ends_of_phases(folder) == [other for other in PHASES if other != phase]


def test_workers_that_collect_different_tests_end_the_session_before_any_test(folder: Path) -> None:
    (folder / "test_phase3_x.py").write_text(
        "import os, pytest\n@pytest.mark.parametrize('pid', [os.getpid()])\ndef test_it(pid): pass\n"
    )
    ended = pytest_in(folder, "-n2")
    assert ended.returncode != 0
    assert "Different tests were collected" in ended.stdout
    assert starts(folder) == []


# what is known of the installed xdist


def test_the_installed_xdist_is_the_one_whose_private_names_are_known() -> None:
    assert metadata.version("pytest-xdist") in SpecifierSet(">=3.8,<4")


def test_the_installed_xdist_has_all_that_is_used() -> None:
    assert xdist_scheduling.missing_xdist_names() is None


@pytest.mark.parametrize(
    "name", [name for name in vars(PhasedScheduling) if inspect.isroutine(getattr(PhasedScheduling, name))]
)
def test_a_method_overrides_one_that_is_checked_or_has_a_name_that_xdist_does_not_use(name: str) -> None:
    assert (name in xdist_scheduling.METHODS["xdist.scheduler.LoadScheduling"]) == hasattr(LoadScheduling, name)


LACKS = [
    (path, name)
    for table in (xdist_scheduling.METHODS, xdist_scheduling.PROPERTIES)
    for path, names in table.items()
    for name in (names if isinstance(names, dict) else names.split())
    if (path, name) != ("xdist.remote.Marker", "SHUTDOWN")  # a member of an enum cannot be taken away
]


@pytest.mark.parametrize(("path", "name"), LACKS)
def test_a_lost_name_of_xdist_is_told(monkeypatch: pytest.MonkeyPatch, path: str, name: str) -> None:
    module, _, kind = path.rpartition(".")
    monkeypatch.delattr(getattr(importlib.import_module(module), kind), name)
    assert f"{path}.{name}" in (xdist_scheduling.missing_xdist_names() or "")


def test_a_method_with_other_parameters_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LoadScheduling, "remove_node", lambda self, gone: None)
    assert xdist_scheduling.missing_xdist_names() == "xdist.scheduler.LoadScheduling.remove_node(self, node)"


def test_state_under_other_names_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(self: Any, config: Any, log: Any = None) -> None:
        self.collection, self.waiting, self.node2collection = None, [], {}

    monkeypatch.setattr(LoadScheduling, "__init__", init)
    wanted = ", ".join(f"xdist.scheduler.LoadScheduling().{name}" for name in ("node2pending", "pending"))
    assert xdist_scheduling.missing_xdist_names() == wanted


def test_a_lost_class_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(remote, "Marker")
    assert xdist_scheduling.missing_xdist_names() == "xdist.remote.Marker.SHUTDOWN, xdist.remote.Marker"


CHANGED = [
    "from xdist.scheduler import LoadScheduling; del LoadScheduling.mark_test_complete",
    pytest.param("import xdist.scheduler; del xdist.scheduler.LoadScheduling", marks=pytest.mark.slow),
    pytest.param("import xdist.remote; del xdist.remote.Marker", marks=pytest.mark.slow),
]


@pytest.mark.parametrize("change", CHANGED)
def test_where_xdist_has_changed_workers_are_refused_and_gates_without_them_run(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    (tmp_path / "changed.py").write_text(change)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{made.environ['PYTHONPATH']}")
    made.environ["PYTHONPATH"] = os.environ["PYTHONPATH"]
    words = ("-p", "changed", "-m", "phase1")
    refused = made.pytest("-n2", *words)
    assert refused.returncode == pytest.ExitCode.USAGE_ERROR
    assert (
        f"-n: the gates cannot run in parallel with pytest-xdist {metadata.version('pytest-xdist')}" in refused.stderr
    )
    assert change.rsplit(".", 1)[-1] in refused.stderr
    assert "Install pytest-xdist>=3.8,<4, or run with -n0" in refused.stderr
    assert not made.layout.state.exists()
    for alone in (("-n0",), ()):
        assert made.pytest(*alone, *words).returncode == 0


# other ways to deal


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("-n2", "--dist", "loadgroup"), "--dist loadgroup: Track A always deals rows one at a time"),
        (("-n2", "--dist", "worksteal"), "--dist worksteal: Track A always deals rows one at a time"),
        (("-n2", "--dist", "each"), "--dist each: Track A always deals rows one at a time"),
        (("-n2", "--maxschedchunk", "4"), "--maxschedchunk: a worker gets one test at a time"),
        (("--dist", "load", "--tx", "ssh=elsewhere"), "--tx, --px: such a worker may not share"),
        (("--dist", "load", "--tx", "popen//python=python3"), "--tx, --px: such a worker may not share"),
        (("-n2", "--px", "id=there//popen"), "--tx, --px: such a worker may not share"),
    ],
)
def test_options_that_the_gates_cannot_obey_are_refused_before_anything_starts(
    made: Made, words: tuple[str, ...], what: str
) -> None:
    ended = made.pytest(*words)
    assert ended.returncode == pytest.ExitCode.USAGE_ERROR
    assert what in ended.stderr
    assert not made.layout.state.exists()


TAKEN = [
    ("-n0", "--dist", "loadgroup"),
    pytest.param(("-n2", "--dist", "no"), marks=pytest.mark.slow),
    ("--tx", "2*popen", "-d"),
]


@pytest.mark.parametrize("words", TAKEN)
def test_options_that_change_nothing_are_taken(made: Made, words: tuple[str, ...]) -> None:
    assert made.pytest(*words, "-m", "phase1").returncode == 0
