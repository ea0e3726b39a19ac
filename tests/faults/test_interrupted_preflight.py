"""Ctrl-C while preflight waits for its probes: they end at once, and nobody takes an old failure for today's."""

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import campaigns
import psutil
import pytest
from campaigns import REPOSITORY, Made
from processes import of_campaign, wait_for_the_end_of, wait_until

from tracka.campaign import commands
from tracka.core import files
from tracka.gates import handoff

OLD = "no frame (last stage: none), the process took too long: last week"
ROW = "wide_b4_e4"


@dataclass(frozen=True)
class Interrupted:
    """A campaign whose session was interrupted in preflight: its folder, exit code and output.

    `seconds` is how long the probes lived after that.
    """

    made: Made
    code: int
    seconds: float
    output: str


def fail_preflight(made: Made) -> None:
    """Leaves what a session of last week leaves whose renderer took too long."""
    report = files.read_json(made.layout.preflight_report)
    first, *others = report["checks"]
    failed = first | {"status": "fail", "evidence": OLD, "remedy": "Wait"}
    changed = report | {"status": "blocked", "blocker": OLD, "checks": [failed, *others]}
    files.write_json(made.layout.preflight_report, changed)
    handoff.hand_over(made.spec, "phase2")
    assert OLD in made.layout.handoff("phase2").read_text()


def probes(made: Made) -> list[int]:
    """Returns the ids of the processes by which preflight renders and settles."""
    found = []
    for pid in of_campaign(made.root):
        try:
            words = psutil.Process(pid).cmdline()
        except psutil.Error:
            continue
        found += [pid] if any(word.startswith("tracka.preflight.probes") for word in words) else []
    return found


# The first interrupt is dropped, as Python does in the callback of a weak reference, which imports use.
LOSING = """
import contextlib, signal

def register(number, handler, register=signal.signal):
    kind, call = type(handler), type(handler).__call__
    def drop(*args):
        kind.__call__ = call
        with contextlib.suppress(KeyboardInterrupt):
            call(*args)
    if kind.__module__.startswith("tracka"):
        kind.__call__ = drop if number == signal.SIGINT else call
    return register(number, handler)

signal.signal = register
"""


def interrupted(root: Path, lib: dict[str, str]) -> Interrupted:
    """Returns the campaign after Ctrl-C in its preflight, whose processes import the modules of `lib` from their text.

    The probes hang where they import lerobot.
    """
    made = Made(root, campaigns.environment(root))
    made.behave()
    fail_preflight(made)
    for name, text in {"lerobot/__init__.py": "import time; time.sleep(120)", **lib}.items():
        files.write_text(root / "hanging" / name, text)
    environ = {**os.environ, **made.environ, "CUDA_VISIBLE_DEVICES": ""}
    environ["PYTHONPATH"] = f"{root / 'hanging'}{os.pathsep}{environ['PYTHONPATH']}"
    words = ["-m", "pytest", "acceptance", "--campaign", str(root), "-n0", "-p", "no:cacheprovider"]
    log = root.parent / f"{root.name}.txt"
    with log.open("wb") as out:
        process = subprocess.Popen([sys.executable, *words], cwd=REPOSITORY, env=environ, stdout=out, stderr=out)
    wait_until(lambda: len(probes(made)) >= 2 or process.poll() is not None, 60)
    assert process.poll() is None, log.read_text()
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    try:
        wait_until(lambda: not probes(made), 60)
        seconds = time.monotonic() - began
        process.wait(60)
    finally:
        process.kill()
    return Interrupted(made, process.returncode, seconds, log.read_text())


@pytest.fixture(scope="module")
def session(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Interrupted:
    root = tmp_path_factory.mktemp("interrupted") / "first"
    shutil.copytree(prepared, root)
    return interrupted(root, {})


def test_the_probes_end_within_seconds_and_the_session_leaves_no_process(session: Interrupted) -> None:
    assert session.code == 2, session.output
    assert session.seconds < 10, session.output  # one on a quiet machine; the probes would have taken two minutes
    wait_for_the_end_of(session.made.root, 5)


def test_an_interrupt_that_python_drops_ends_the_session_as_well(prepared: Path, tmp_path: Path) -> None:
    ended = interrupted(shutil.copytree(prepared, tmp_path / "losing"), {"sitecustomize.py": LOSING})
    assert ended.code == 2 and ended.seconds < 12, ended.output
    assert "phase2: blocked, interrupted" in ended.output


def test_the_last_lines_say_that_preflight_was_interrupted_and_how_to_go_on(session: Interrupted) -> None:
    again = commands.gates(session.made.layout, "--lf")
    (phase,) = [line for line in session.output.splitlines() if line.startswith("phase2: ")]
    assert phase == "phase2: blocked, interrupted  artifacts/state/phase2_handoff.json"
    (step,) = [line for line in session.output.splitlines() if line.startswith("next: ")]
    assert step == f"next: {again} goes on where the session was interrupted, in phase2"
    assert "mend" not in step and "Traceback" not in session.output


def test_an_old_failure_is_not_shown_as_todays(session: Interrupted) -> None:
    layout = session.made.layout
    for text in (session.output, layout.preflight_report.read_text(), layout.handoff("phase2").read_text()):
        assert "took too long" not in text and "interrupted: preflight began at " in text
    assert files.read_json(layout.handoff("phase2"))["notes"][0].endswith(commands.gates(layout, "--lf"))


def test_validate_advises_no_phase_that_cannot_pass_yet(session: Interrupted) -> None:
    layout = session.made.layout
    said = session.made.call("validate", "--phase", "all", "--root", str(layout.root)).stderr
    advice = f"Run the phases from phase2 on, which has not passed: {commands.gates(layout)}"
    assert f"the handoff of phase3 does not exist. {advice}" in said
    assert not [phase for phase in ("phase3", "phase4", "phase5") if f"-m {phase}" in said]


@pytest.mark.parametrize("words", [("--root", "first"), ()], ids=["named", "found"])
def test_why_says_which_phase_keeps_a_row_from_running(session: Interrupted, words: tuple[str, ...]) -> None:
    root = session.made.root
    ended = session.made.call("why", ROW, *words, cwd=root.parent)
    assert ended.returncode == 2
    assert "the row has not run, since phase2 is blocked: " in ended.stderr
    assert "interrupted: preflight began at " in ended.stderr
    assert f"Mend that first, then run the campaign: {commands.gates(session.made.layout, '--lf')}" in ended.stderr


def test_a_comparison_of_rows_that_have_not_run_says_the_same(session: Interrupted, tmp_path: Path) -> None:
    other = shutil.copytree(session.made.root, tmp_path / "other")
    ended = session.made.call("compare", str(session.made.root), str(other))
    assert ended.returncode == 2
    assert f"{ROW}: not run)" in ended.stderr and ", since phase2 is blocked: " in ended.stderr
    assert " --lf" in ended.stderr
