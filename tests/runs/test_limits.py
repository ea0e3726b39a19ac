"""A full disk, a read-only one and the limits of processes and files have reasons of their own, with a remedy."""

import errno
import os
import re
import resource
import subprocess
import sys

import pytest
from campaigns import REPOSITORY, Made

from tracka.core import files, system_errors
from tracka.execution import process
from tracka.report_page import matrix_rows

ROW = "long_b1_e6"
LIMITS = {
    errno.EAGAIN: "process_limit",
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
