"""The pytest plug-in that shows where a session of the gates stands: as a table on a terminal, else a line a minute.

tracka/plugin.py registers it in the process that owns the session, unless `-q` or `--no-live` is given.
"""

import contextlib
import os
import sys
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import Any

import pytest

from . import live_view
from .campaign.campaign import Campaign
from .runs.session_rows import SessionRows
from .stages import phase_of, run_id_of

# What the tests of a phase do that are no row's, in words for the line `... runs`.
STEPS = {
    "phase1": "the check of the campaign's files",
    "phase2": "preflight, the check of this host,",
    "phase3": "the check of the baseline",
    "phase4": "the check of all rows",
    "phase5": "the closure of the campaign",
}
PARITY_TEST, ENGINE = "test_the_engine_plays_", "the proof of the resident engine"


def is_on(config: pytest.Config) -> bool:
    """Returns whether a session is shown: not with -q, where nothing runs, or where a debugger has the terminal."""
    silent = ("no_live", "collectonly", "usepdb", "trace", "setupplan")
    return config.getoption("verbose", 0) >= 0 and not any(config.getoption(name, False) for name in silent)


class LiveSession:
    """The hooks that follow a session.

    Attributes:
        config: pytest's configuration of the session
        campaign: the session's campaign
        rows: which rows the session has begun and ended
        failed: the tests that have failed
        stream: the descriptor of stdout while tests run; a copy, since pytest replaces stdout while a test runs
        nodes: the names of xdist's workers
        steps: the running tests that are no row's -> what they do, in words
    """

    def __init__(self, config: pytest.Config, campaign: Campaign) -> None:
        self.config, self.campaign = config, campaign
        self.rows = SessionRows(resume=not config.getoption("allow_overwrite"))
        self.failed: set[str] = set()
        self.stream = -1
        self.nodes: tuple[str, ...] = ()
        self.steps: dict[str, str] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtestloop(self, session: pytest.Session) -> Generator[None, Any, Any]:
        """Shows the session while its tests run; whatever ends them, the terminal is clean before anything else."""
        self._select(item.nodeid for item in session.items)
        with self._shown():
            return (yield)

    @contextlib.contextmanager
    def _shown(self) -> Iterator[None]:
        try:
            self.stream = os.dup(sys.stdout.fileno())
        except (AttributeError, OSError, ValueError):  # stdout is closed, or no file
            yield
            return
        try:
            with live_view.shown(self.campaign, self.rows, self.stream, self._write_line):
                yield
        finally:
            os.close(self.stream)

    def _write_line(self, text: str) -> None:
        """Writes a line below what pytest has written, and lets pytest go on at the beginning of the next line.

        While a test runs in this process, pytest's own writer would write into what it captures of the test.
        """
        reporter: Any = self.config.pluginmanager.get_plugin("terminalreporter")
        writer = getattr(reporter, "_tw", None)
        start = "\n" if getattr(writer, "width_of_current_line", 0) else ""
        os.write(self.stream, f"{start}{text}\n".encode())
        if writer is not None:
            writer._current_line, reporter.currentfspath = "", None

    def _select(self, nodeids: Iterable[str]) -> None:
        run_ids = {run_id_of(nodeid, self.campaign.baseline) for nodeid in nodeids}
        self.rows.rows = [row for row in self.campaign.enabled if row.run_id in run_ids]

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: Sequence[str]) -> None:
        self._select(ids)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodeready(self, node: Any) -> None:
        self.nodes = (*self.nodes, node.gateway.id)
        self.rows.workers = self.nodes

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        self.nodes = tuple(name for name in self.nodes if name != node.gateway.id)
        self.rows.workers = self.nodes

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.rows.phase = phase_of(nodeid) or self.rows.phase
        if run_id := run_id_of(nodeid, self.campaign.baseline):
            self.rows.begin(run_id)
        else:
            self.steps[nodeid] = _in_words(nodeid)
            self.rows.steps.setdefault(self.steps[nodeid], time.time())

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed.add(report.nodeid)
        if report.when in ("setup", "call"):
            return
        if run_id := run_id_of(report.nodeid, self.campaign.baseline):  # after its teardown, or its worker's crash
            self.rows.end(run_id, report.nodeid not in self.failed)
        words = self.steps.pop(report.nodeid, "")
        if words not in self.steps.values():
            self.rows.steps.pop(words, None)


def _in_words(nodeid: str) -> str:
    """Returns what a test that is no row's does, for people who know the phases and not the tests."""
    return ENGINE if nodeid.partition("::")[2].startswith(PARITY_TEST) else STEPS.get(phase_of(nodeid) or "", "a check")
