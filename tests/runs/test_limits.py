"""A full disk, a read-only one and the limits of processes and files have reasons of their own, with a remedy."""

import errno
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import campaigns
import pytest
from campaigns import REPOSITORY, Made

from tracka.core import files, system_errors
from tracka.execution import process
from tracka.report_page import matrix_rows
from tracka.runs import worker

ROW = "long_b1_e6"
LIMITS = {
    errno.EAGAIN: "process_limit",
    errno.ENOMEM: "process_limit",
    errno.EMFILE: "file_limit",
    errno.ENFILE: "file_limit",
    errno.ENOSPC: "disk_full",
    errno.EDQUOT: "disk_full",
    errno.EROFS: "read_only",
}


def refuse_to_start(number: int, patch: pytest.MonkeyPatch) -> None:
    """Makes the system refuse the supervisor of an evaluation; fork() and pipe() name no file."""

    def launch(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    patch.setattr(process, "_launch", launch)


@pytest.mark.parametrize("number", LIMITS, ids=lambda number: errno.errorcode[number].lower())
def test_an_evaluation_that_the_system_refuses_to_start_has_the_limits_reason_and_names_its_command(
    ready: Made, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_to_start(number, monkeypatch)
    result = ready.run_row(ROW)
    assert (result["status"], result["reason"]) == ("fail", LIMITS[number])
    message = str(result["error_message"])
    assert "lerobot_eval.py" in message and os.strerror(number) in message and "None" not in message
    assert files.read_json(ready.layout.marker(ROW))["reason"] == LIMITS[number]


@pytest.mark.parametrize("reason", sorted(set(LIMITS.values())))
def test_each_limit_has_a_remedy_that_the_page_shows(reason: str) -> None:
    assert matrix_rows.REMEDIES[reason] == system_errors.REMEDIES[reason]
    assert re.search(r"`(df|ulimit) -[hnu]`|Mount", system_errors.REMEDIES[reason])


def test_a_command_that_may_open_too_few_files_says_so_in_one_line(ready: Made) -> None:
    def few_files() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (8, 8))

    words = ready.sweep_words("--rows", ROW, "--resume")
    ended = subprocess.run(
        [sys.executable, "-m", "tracka", *words], cwd=REPOSITORY, preexec_fn=few_files, capture_output=True, text=True
    )
    assert ended.returncode == 1
    print(ended.stdout, ended.stderr)
    assert "(file_limit)" in ended.stdout and "Too many open files" in ended.stdout
    assert "Traceback" not in ended.stderr and "None" not in ended.stdout + ended.stderr


# The limit of processes binds nobody who is root, so that these tests become a user who has no other process.

USER = 61000 + os.getpid() % 4000
BECOME = (
    "setpriv",
    f"--reuid={USER}",
    "--clear-groups",
    *(f"--{kind}-caps=+dac_override" for kind in ("inh", "ambient")),
)
QUIET = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}  # these libraries start threads as they are imported
needs_root = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("setpriv"), reason="only root can become a user without other processes"
)


@pytest.fixture
def reachable(prepared: Path) -> Iterator[Made]:
    """The usual campaign after phases 1 and 2, in a folder that every user can reach."""
    with tempfile.TemporaryDirectory(prefix="tracka-test-", dir="/tmp") as name:
        Path(name).chmod(0o755)
        yield campaigns.copied(Made(prepared, {}), Path(name))


def with_few_processes(made: Made, most: int, *words: str) -> subprocess.CompletedProcess[str]:
    """Runs Python as a user who may have `most` processes and threads in all."""
    for path in (made.root, *made.root.rglob("*")):
        os.chown(path, USER, -1, follow_symlinks=False)
    (made.root / "tmp").mkdir(exist_ok=True)
    os.chown(made.root / "tmp", USER, -1)
    environ = {**os.environ, **made.environ, **QUIET, "TMPDIR": str(made.root / "tmp"), "HOME": str(made.root)}
    limit = ("prlimit", f"--nproc={most}:{most}", "--", sys.executable, *words)
    ended = subprocess.run(
        [*BECOME, "--", *limit], cwd=REPOSITORY, env=environ, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    print(ended.stdout[-3000:], ended.stderr[-3000:])
    assert "Traceback" not in ended.stdout + ended.stderr and "INTERNALERROR" not in ended.stdout
    return ended


@needs_root
@pytest.mark.parametrize("most", [1, 2, 3, 4, 5, 6])
def test_a_row_for_which_no_process_can_be_started_fails_with_process_limit(reachable: Made, most: int) -> None:
    """The harness, its row, their threads, the supervisor, its guard: each in turn is what cannot be started."""
    ended = with_few_processes(reachable, most, "-m", "tracka", *reachable.sweep_words("--rows", ROW, "--resume"))
    assert ended.returncode == 1 and "0 of 1 rows passed" in ended.stdout
    assert set(reachable.results(ROW)) == {("fail", "process_limit")}
    assert reachable.statuses()[ROW] == ("fail", "process_limit")


def test_a_sweep_that_may_start_no_further_process_runs_fewer_rows_at_a_time(
    ready: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare, running = worker.prepare, list[subprocess.Popen[bytes]]()

    def prepare_one_at_a_time(slot: int) -> subprocess.Popen[bytes]:
        if any(child.poll() is None for child in running):
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        running.append(prepare(slot))
        return running[-1]

    monkeypatch.setattr(worker, "prepare", prepare_one_at_a_time)
    ended = ready.call(*ready.sweep_words("--max-parallel", "3"))
    assert (ended.returncode, len(running)) == (0, 3)


@needs_root
@pytest.mark.parametrize("name", ["gates", "preflight"])
def test_a_command_that_may_start_no_process_says_so_in_one_line(reachable: Made, name: str) -> None:
    gates = ("pytest", "acceptance", "-n2", "--campaign", str(reachable.root), "-p", "no:cacheprovider")
    ended = with_few_processes(reachable, 1, "-m", *{"gates": gates, "preflight": preflight(reachable)}[name])
    assert ended.returncode == 1
    assert re.search(r"error: .*(Resource temporarily unavailable|can't start new thread)", ended.stderr)
    assert system_errors.REMEDIES["process_limit"] in ended.stderr


def preflight(made: Made) -> tuple[str, ...]:
    return ("tracka", *made.preflight_words())
