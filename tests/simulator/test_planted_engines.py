"""Engines with a planted fault against the parity gate; `make planted-engines` has all of them."""

import inspect
import re
import subprocess
import sys

import pytest
from campaigns import REPOSITORY

from fixtures.planted import fast
from fixtures.planted.__main__ import MARKS, POLICIES
from fixtures.planted.fast_faults import FAULTS
from fixtures.planted.fast_outcomes import OUTCOMES
from fixtures.planted.fast_plays import TAKEN

PAGE = (REPOSITORY / "docs" / "parity.md").read_text()
FAST_PAGE = (REPOSITORY / "docs" / "fast-mode.md").read_text()
TABLE = PAGE.split(MARKS[0])[1].split(MARKS[1])[0]


def test_each_fault_stands_in_for_a_function_that_is_there_and_takes_its_arguments(libero: None) -> None:
    from fixtures.planted import faults

    for fault in faults.FAULTS:
        stock = getattr(fault.owner, fault.name)
        inspect.signature(fault.wrap).bind(stock, *inspect.signature(stock).parameters)


@pytest.mark.simulator
@pytest.mark.slow
@pytest.mark.repeated
@pytest.mark.timeout(1200)
def test_some_planted_faults_are_refused_by_name_and_the_honest_engine_is_proven() -> None:
    command = [sys.executable, "-m", "fixtures.planted", "--policies", "act", "--honest", "4"]
    ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert "4 of 4 runs with every fault planted and none in effect are proven" in ended.stdout


def test_the_page_has_at_least_twelve_faults_each_refused_for_a_policy_that_shows_it() -> None:
    lines = [re.split(r" *\| *", line.strip("| ")) for line in TABLE.splitlines() if line.startswith("| ")][2:]
    assert len(lines) >= 12
    assert {kind for _, kinds, _ in lines for kind in kinds.split(", ")} == set(POLICIES)
    assert all(re.search(r"the [a-z ]+ differs", refusal) for _, _, refusal in lines)
    assert re.search(r"(\d+) of \1 runs with a fault are refused", TABLE)
    honest = re.search(r"(\d+) of \1 runs with every fault planted and none in effect are proven", TABLE)
    assert honest and int(honest[1]) >= 50


def test_the_page_of_fast_mode_has_each_planted_fault_and_says_which_of_them_the_gate_cannot_find() -> None:
    table = FAST_PAGE.split(fast.MARKS[0])[1].split(fast.MARKS[1])[0]
    lines = [re.split(r" *\| *", line.strip("| ")) for line in table.splitlines() if line.startswith("| ")][2:]
    assert [title for title, *_ in lines] == [each.title for each in (*FAULTS, *OUTCOMES)]
    not_found = [title for title, at_start, in_gate in lines if {at_start, in_gate} <= {TAKEN, "-"}]
    assert not_found == [outcomes.title for outcomes in OUTCOMES if not outcomes.should]
    honest = re.search(r"(\d+) of \1 honest fast modes are taken by both", table)
    assert honest and int(honest[1]) >= 10
