"""How xdist deals out the gates: phase after phase, one test at a time per worker, the longest first.

Everything that Track A knows of xdist's private names is in this module; they are those of pytest-xdist 3.8 (the
project pins >=3.8,<4). Stock scheduling hands a worker its next test before the current one ends, so a short row
would wait behind a long one, and it mixes the phases.
"""

import re
import time
from collections.abc import Callable
from typing import Any

import pytest
from xdist.scheduler import LoadScheduling

Cost = Callable[[str], float]  # of a test, by node id, in any unit
PhaseEnd = Callable[[str], None]


def phase_of(nodeid: str) -> str:
    """The phase of a test by its module's name, `phase3` for test_phase3_baseline.py; empty for other tests."""
    found = re.search(r"test_(phase[1-5])_", nodeid)
    return found[1] if found else ""


class PhasedScheduling(LoadScheduling):  # type: ignore[misc]
    """The controller's side. `phase_end` is called once the last test of a phase has ended, before the next begins."""

    def __init__(self, config: pytest.Config, log: Any, cost: Cost, phase_end: PhaseEnd) -> None:
        super().__init__(config, log)
        self.cost, self.phase_end = cost, phase_end
        self.left: dict[str, set[int]] = {}  # phase -> indices of its tests that have not ended
        self.phase: str | None = None

    def schedule(self) -> None:
        if self.collection is None:
            if not self._check_nodes_have_same_collection():
                return
            self.collection: list[str] | None = next(iter(self.node2collection.values()))
            for index, nodeid in enumerate(self.collection or []):
                self.left.setdefault(phase_of(nodeid), set()).add(index)
            self._next_phase()
        self._feed()

    def _next_phase(self) -> None:
        if self.phase is not None:
            self.phase_end(self.phase)
            del self.left[self.phase]
        self.phase = min(self.left, default=None)
        if self.phase is not None and self.collection is not None:
            nodeids = self.collection
            self.pending[:] = sorted(self.left[self.phase], key=lambda index: (-self.cost(nodeids[index]), index))

    def _feed(self) -> None:
        for node in self.nodes:
            self.check_schedule(node)

    def check_schedule(self, node: Any, duration: float = 0) -> None:
        if node.shutting_down or self.node2pending[node]:
            return
        if self.pending:
            self._send_tests(node, 1)
        elif self.phase is None:
            node.shutdown()

    def mark_test_complete(self, node: Any, item_index: int, duration: float = 0) -> None:
        self.node2pending[node].remove(item_index)
        self._done(item_index)
        self._feed()

    def _done(self, index: int) -> None:
        if self.phase is None:
            return
        self.left[self.phase].discard(index)
        if not self.left[self.phase]:
            self._next_phase()

    def remove_node(self, node: Any) -> str | None:
        """Drops a worker that ended; returns the test that a crash took with it, which counts as done (and failed)."""
        pending = self.node2pending.pop(node)
        if not pending or self.collection is None:
            return None
        crashed = pending.pop(0)
        self.pending.extend(pending)
        self._done(crashed)
        self._feed()
        return str(self.collection[crashed])

    @property
    def tests_finished(self) -> bool:
        return self.collection_is_completed and self.phase is None and not self.has_pending


class RowLoop:
    """The worker's side: takes a test, runs it, reports, and only then takes the next."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        worker = _interactor(session.config)
        shutdown = type(worker).handle_command.__globals__["Marker"].SHUTDOWN
        worker.channel.setcallback(worker.handle_command, endmarker=shutdown)
        while (index := worker.torun.get()) is not shutdown:
            start = time.perf_counter()
            worker.item_index = index
            session.config.hook.pytest_runtest_protocol(item=session.items[index], nextitem=None)
            worker.sendevent("runtest_protocol_complete", item_index=index, duration=time.perf_counter() - start)
            if session.shouldfail or session.shouldstop:
                break
        return True


def _interactor(config: pytest.Config) -> Any:
    plugins = config.pluginmanager.get_plugins()
    return next(plugin for plugin in plugins if type(plugin).__name__ == "WorkerInteractor")
