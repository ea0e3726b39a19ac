"""Schedules the gates' tests on xdist's workers: phase after phase, one test at a time per worker, by `RowScheduler`.

All of xdist's private names that Track A uses are in this module. The names are those of pytest-xdist 3.8 (the project
pins >=3.8,<4), and `missing_xdist_names` reports where the installed version has other names. xdist's own scheduling
hands a worker its next test before the current one ends, so that a short row would wait behind a long one, and it mixes
the phases.
"""

import importlib
import inspect
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import metadata
from typing import Any

import pytest

from .core.errors import Finding
from .runs.row_scheduler import Job, RowScheduler
from .stages import phase_of, stage_of

try:
    from xdist.scheduler import LoadScheduling
except ImportError:  # `missing_xdist_names` reports that where workers are asked for
    LoadScheduling = object

Jobs = Callable[[Mapping[int, str]], Iterable[Job]]  # takes the tests of a phase, index -> node id
PhaseEnd = Callable[[str], None]  # takes the stage that has ended

# What the two classes below use: methods with their parameters, properties, and what __init__ sets on an instance.
METHODS = {
    "xdist.scheduler.LoadScheduling": {
        "__init__": "self config log",
        "_check_nodes_have_same_collection": "self",
        "add_node": "self node",
        "add_node_collection": "self node collection",
        "check_schedule": "self node duration",
        "mark_test_complete": "self node item_index duration",
        "mark_test_pending": "self item",
        "remove_node": "self node",
        "schedule": "self",
    },
    "xdist.workermanage.WorkerController": {"send_runtest_some": "self indices", "shutdown": "self"},
    "xdist.remote.WorkerInteractor": {
        "handle_command": "self command",
        "pytest_runtestloop": "self session",
        "sendevent": "self name kwargs",
    },
}
PROPERTIES = {
    "xdist.scheduler.LoadScheduling": "collection_is_completed has_pending nodes tests_finished",
    "xdist.workermanage.WorkerController": "shutting_down",
    "xdist.remote.Marker": "SHUTDOWN",
}
STATE = {
    "xdist.scheduler.LoadScheduling": "collection node2collection node2pending pending",
    "xdist.workermanage.WorkerController": "gateway",
    "xdist.remote.WorkerInteractor": "channel torun",
}


def missing_xdist_names() -> str | None:
    """Returns what this module uses and the installed xdist lacks; None where xdist has all of it."""
    names = list(dict.fromkeys(_missing_names()))
    return ", ".join(names) if names else None


def _missing_names() -> Iterator[str]:
    for path, methods in METHODS.items():
        for name, parameters in methods.items():
            installed_parameters = _signature(getattr(_load(path), name, None))
            if installed_parameters != parameters:
                yield f"{path}.{name}({parameters.replace(' ', ', ')})"
    for path, names in PROPERTIES.items():
        yield from (f"{path}.{name}" for name in names.split() if not hasattr(_load(path), name))
    for path, names in STATE.items():
        code = getattr(getattr(_load(path), "__init__", None), "__code__", None)
        instance_names = getattr(code, "co_names", ())
        yield from (f"{path}().{name}" for name in names.split() if name not in instance_names)
    if "Marker" not in getattr(
        getattr(_load("xdist.remote.WorkerInteractor"), "handle_command", None), "__globals__", ()
    ):
        yield "xdist.remote.Marker"


def _load(path: str) -> Any:
    module, _, name = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name, None)
    except ImportError:
        return None


def _signature(function: Any) -> str | None:
    try:
        return " ".join(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return None


def refusals(config: pytest.Config) -> list[Finding]:
    """Returns why these options of xdist cannot be obeyed; an empty list where no workers are asked for."""
    dist, chunk, workers, proxies = (config.getoption(name, None) for name in ("dist", "maxschedchunk", "tx", "px"))
    if dist in (None, "no") or not workers:
        return []
    findings = []
    if dist != "load":
        what = "Track A always deals rows one at a time, the longest first"
        findings.append(Finding(f"--dist {dist}", what, "Leave the option out"))
    if chunk is not None:
        findings.append(Finding("--maxschedchunk", "a worker gets one test at a time", "Leave the option out"))
    if proxies or any(re.fullmatch(r"(\d+\*)?popen", spec) is None for spec in workers):
        what = "such a worker may not share this host's locks, GPUs and files"
        findings.append(Finding("--tx, --px", what, "Use -n, which starts every worker on this host"))
    if missing_names := missing_xdist_names():
        what = f"the gates cannot run in parallel with pytest-xdist {_version()}, which lacks {missing_names}"
        findings.append(Finding("-n", what, "Install pytest-xdist>=3.8,<4, or run with -n0"))
    return findings


def _version() -> str:
    try:
        return metadata.version("pytest-xdist")
    except metadata.PackageNotFoundError:
        return "(unknown)"


class PhasedScheduling(LoadScheduling):  # type: ignore[misc]
    """The controller's scheduler: deals the tests of one stage until all have ended, then those of the next stage.

    A phase is a stage, and so is its closing test, which runs after the phase has been handed over.

    Attributes:
        scheduler: decides which job a free worker gets next
        jobs: returns the jobs of a stage's tests; called when the stage begins, since the stages before have then left
            their results
        phase_end: called with a stage once its last test has ended, before the next stage begins
        unfinished: stage -> indices of its tests that have not ended
        stage: the stage that is running; None before the first stage and after the last
        collection: the node ids of all tests, by index; None until all workers have collected the same (xdist's)
        node2collection: worker -> the node ids that it has collected (xdist's)
        node2pending: worker -> the index of the test that it runs, in a list; empty for a free worker (xdist's)
        pending: indices of the stage's tests that no worker has got yet (xdist's)
    """

    def __init__(
        self, config: pytest.Config, log: Any, scheduler: RowScheduler, jobs: Jobs, phase_end: PhaseEnd
    ) -> None:
        super().__init__(config, log)
        self.scheduler, self.jobs, self.phase_end = scheduler, jobs, phase_end
        self.unfinished: dict[str, set[int]] = {}
        self.stage: str | None = None

    def schedule(self) -> None:
        """Begins the first stage once all workers have collected the same tests, and gives free workers a test."""
        if self.collection is None:
            if not self._check_nodes_have_same_collection():
                return
            self.collection: list[str] | None = next(iter(self.node2collection.values()))
            for index, nodeid in enumerate(self.collection or []):
                self.unfinished.setdefault(stage_of(nodeid), set()).add(index)
                self.unfinished.setdefault(phase_of(nodeid), set())  # so that its phase is handed over in any case
            self._next_stage()
        self._assign()

    def _next_stage(self) -> None:
        if self.stage is not None:
            self.phase_end(self.stage)
            del self.unfinished[self.stage]
        self.stage = min(self.unfinished, default=None)
        if self.stage is not None:
            self._enqueue(sorted(self.unfinished[self.stage]))
            if not self.unfinished[self.stage]:
                self._next_stage()

    def _enqueue(self, indices: Iterable[int]) -> None:
        nodeids = {index: self.collection[index] for index in indices if self.collection}
        self.pending += nodeids
        self.scheduler.add(self.jobs(nodeids))

    def _assign(self) -> None:
        nodes = {_number(node): node for node in self.nodes if not node.shutting_down}
        for number, job in self.scheduler.assign(nodes.keys()).items():
            self.pending.remove(job.index)
            self.node2pending[nodes[number]].append(job.index)
            nodes[number].send_runtest_some([job.index])
        for node in nodes.values():
            self.check_schedule(node)

    def check_schedule(self, node: Any, duration: float = 0) -> None:
        """Ends a worker for which no test is left; a free worker stays until all stages are over."""
        if self.stage is None and not self.has_pending and not node.shutting_down:
            node.shutdown()

    def mark_test_complete(self, node: Any, item_index: int, duration: float = 0) -> None:
        """Takes an ended test off its worker, ends the stage after its last test, and gives free workers a test."""
        self.node2pending[node].remove(item_index)
        self.scheduler.done(_number(node))
        self._done(item_index)
        self._assign()

    def mark_test_pending(self, item: str) -> None:
        """Puts a test that has to run again among those that wait for a worker."""
        if self.collection is not None:
            self._enqueue([self.collection.index(item)])
            self._assign()

    def _done(self, index: int) -> None:
        if self.stage is None:
            return
        self.unfinished[self.stage].discard(index)
        if not self.unfinished[self.stage]:
            self._next_stage()

    def remove_node(self, node: Any) -> str | None:
        """Removes a worker that ended, and returns the test that was running if the worker crashed.

        The test of a crashed worker counts as done, and as failed.
        """
        running_tests = self.node2pending.pop(node)
        self.scheduler.done(_number(node))
        if not running_tests or self.collection is None:
            return None
        (crashed_index,) = running_tests
        self._done(crashed_index)
        self._assign()
        return str(self.collection[crashed_index])

    @property
    def tests_finished(self) -> bool:
        """Whether all workers have collected and every stage has ended."""
        return self.collection_is_completed and self.stage is None and not self.has_pending


def _number(node: Any) -> int:
    """Returns a worker's number, 3 for gw3; `lease.worker_number` returns the same number in the worker."""
    return int(node.gateway.id.removeprefix("gw"))


class RowLoop:
    """The worker's loop: takes a test, runs it, reports it, and only then takes the next.

    Attributes:
        is_told_to_end: set once the controller has told this worker to end. While a test runs, the controller does so
            only where the session stops before its end: after the failures that -x and --maxfail allow, and after the
            crashes that --max-worker-restart allows. The end of the controller itself does not count.
    """

    def __init__(self) -> None:
        self.is_told_to_end = threading.Event()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        worker = _interactor(session.config)
        shutdown = type(worker).handle_command.__globals__["Marker"].SHUTDOWN

        def take(command: Any) -> None:
            if command is not shutdown and command[0] == "shutdown":
                self.is_told_to_end.set()
            worker.handle_command(command)

        worker.channel.setcallback(take, endmarker=shutdown)
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
