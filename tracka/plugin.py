"""The pytest plug-in: options, the order of the phases, handoffs and summaries by the controller, the final verdict.

conftest.py loads it; another repository loads it with `pytest -p tracka.plugin -p tracka.fixtures.gates --pyargs
tracka.acceptance --campaign DIR`. The controller writes a handoff once a phase, from what is on disk. After phase 5 the
strict validation of all phases decides the exit status.
"""

import contextlib
import getpass
import inspect
import os
import signal
import uuid
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from . import last_failed, xdist_scheduling
from .campaign import campaign as campaigns
from .campaign import path_safety
from .campaign.campaign import Campaign
from .campaign.layout import PHASES
from .campaign.matrix import Row
from .core import escaping, files, lock
from .core.errors import Busy, Finding, TrackaError, UsageError, screen
from .execution import environment, process_setup, supervisor, warm_process
from .gates import handoff, validate
from .reporting import progress, verdict
from .runs import parity, row_durations, row_state, run
from .runs.row_scheduler import Job, RowScheduler
from .xdist_scheduling import PhasedScheduling, RowLoop, phase_of

SMOKE = "smoke-libero-object"
CAMPAIGN = pytest.StashKey[Campaign]()
TOKEN = pytest.StashKey[str]()
PARITY_ROW = "parity_row"
ROWS: dict[str, Callable[[Campaign], Sequence[Row]]] = {
    "row": lambda campaign: campaign.enabled,
    PARITY_ROW: parity.rows_to_prove,
}


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("Track A")
    group.addoption("--campaign", help="the campaign: a folder, or a name below tasks/")
    group.addoption(
        "--allow-overwrite", action="store_true", help="run the rows again that passed with inputs other than today's"
    )
    group.addoption(
        "--accept-invalid-sim",
        action="store_true",
        help="run on a simulator that preflight finds invalid; the results and the verdict say `invalid`",
    )
    group.addoption("--strict-preflight", action="store_true", help="treat the preflight linter's findings as errors")
    group.addoption("--owner", default=_user(), help="the owner in the plan's progress lines (default: %(default)s)")
    parser.addini("campaign", f"the campaign if neither --campaign nor TRACKA_CAMPAIGN is set (default {SMOKE})")


def _user() -> str:
    try:
        return os.environ.get("TRACKA_OWNER") or getpass.getuser()
    except (KeyError, OSError):  # the user of a container may have no name
        return "unknown"


def pytest_configure(config: pytest.Config) -> None:
    for phase in PHASES:
        config.addinivalue_line("markers", f"{phase}: the gate of {phase}")
    if config.option.help or config.option.version:
        return
    try:
        process_setup.refuse_nested_run()
        config.stash[CAMPAIGN] = campaigns.load(_folder(config))
    except UsageError as error:
        raise pytest.UsageError(files.redacted(screen(error.findings, head=""))) from None
    process_setup.prepare()
    files.keep_private()
    os.environ["HF_HOME"] = environment.hf_home()  # set before anything imports the hub's client
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that TERM, like INT, ends rows and writes JUnit
    if is_controller(config):
        config.stash[TOKEN] = uuid.uuid4().hex
        if not config.option.collectonly:
            if findings := xdist_scheduling.refusals(config):
                raise pytest.UsageError(screen(findings, head=""))
            _lock_campaign(config)
            _keep_rows_processes(config)
        config.pluginmanager.register(Controller(config), "tracka-controller")
    else:
        supervisor.end_with_parent()  # the workers of a killed controller would go on for seconds, and start rows
        config.stash[TOKEN] = config.workerinput["testrunuid"]  # type: ignore[attr-defined]
        config.pluginmanager.register(RowLoop(), "tracka-row-loop")


def _lock_campaign(config: pytest.Config) -> None:
    """Holds the campaign for this session, since two sessions would judge each other's half-done phases."""
    layout, session_lock = config.stash[CAMPAIGN].layout, contextlib.ExitStack()
    try:
        path_safety.require(layout)
        session_lock.enter_context(lock.session(layout.locks, layout.root.name))
    except (Busy, UsageError) as error:
        raise pytest.UsageError(screen(error.findings, head="")) from None
    except OSError as error:
        raise pytest.UsageError(f"{error.filename}: {error.strerror}. Make the campaign's folder writable") from None
    config.add_cleanup(session_lock.close)


def _keep_rows_processes(config: pytest.Config) -> None:
    """Keeps warm worker processes while this session lasts, so that the resident engine's rows share what is loaded."""
    if config.stash[CAMPAIGN].is_resident:
        session_processes = contextlib.ExitStack()
        session_processes.enter_context(warm_process.session())
        config.add_cleanup(session_processes.close)


def is_controller(config: pytest.Config) -> bool:
    """Returns whether this process owns the session; a worker of xdist does not."""
    return not hasattr(config, "workerinput")


def _folder(config: pytest.Config) -> Path:
    name = config.getoption("campaign") or os.environ.get("TRACKA_CAMPAIGN") or config.getini("campaign") or SMOKE
    folder = config.invocation_params.dir / name
    return folder if folder.is_dir() else config.rootpath / "tasks" / name


def pytest_pycollect_makeitem(collector: pytest.Collector, obj: object) -> list[pytest.Item] | None:
    """Collects no parity test where no engine has to be proven; pytest would collect one and skip it."""
    if not inspect.isfunction(obj) or PARITY_ROW not in inspect.signature(obj).parameters:
        return None
    return None if parity.rows_to_prove(collector.config.stash[CAMPAIGN]) else []


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Makes one test per enabled row of a test that takes `row`.

    A test that takes `parity_row` becomes one test per row to be proven.
    """
    for name in ROWS.keys() & set(metafunc.fixturenames):
        rows = ROWS[name](metafunc.config.stash[CAMPAIGN])
        metafunc.parametrize(name, rows, ids=[row.run_id for row in rows])


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Sorts the tests by phase, and gives a test of a row a timeout beyond those of all rows together.

    The timeout is a backstop, should the harness itself hang.
    """
    items.sort(key=lambda item: phase_of(item.nodeid))
    campaign = config.stash[CAMPAIGN]
    # A row may have to wait for its GPU until every other row is done with that GPU.
    backstop = sum(2 * (campaign.timeout(row) + campaign.grace_secs) + 600 for row in campaign.enabled)
    for item in items:
        if ROWS.keys() & getattr(getattr(item, "callspec", None), "params", {}).keys():
            item.add_marker(pytest.mark.timeout(backstop, func_only=True))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    """Reports a gate that a fixture refused as failed; pytest would report an error, as if the harness were broken."""
    report = yield
    _clean_report(report)
    if call.when == "setup" and call.excinfo is not None and call.excinfo.errisinstance(pytest.fail.Exception):
        report.when = "call"
    return report


def _clean_report(report: pytest.TestReport) -> None:
    """Removes secrets and control characters from what a terminal and the JUnit report show of a test.

    The text of a failure often comes from a log.
    """
    if report.longrepr is not None and _clean_text(text := str(report.longrepr)) != text:
        report.longrepr = _clean_text(text)
    report.sections = [(name, _clean_text(words)) for name, words in report.sections]
    report.user_properties = [
        (name, _clean_text(value) if isinstance(value, str) else value) for name, value in report.user_properties
    ]


def _clean_text(words: str) -> str:
    return escaping.plain(files.redacted(words))


class Controller:
    """The hooks of the process that owns the session; with -n0 this process runs the tests too.

    Attributes:
        config: pytest's configuration of the session
        campaign: the session's campaign
        open_phase: the phase that has begun and is not handed over yet; None where there is none
        nodeid: that of the last test that began
        ended_phases: the phases whose end was reached, in order, whether or not their handoff could be written
        findings: what the strict validation of all phases found; empty until phase 5 has ended
        accepted: whether every gate passed, that validation found nothing, and the campaign's box could be ticked
        trouble: what kept a handoff or a page from being written, one sentence each
    """

    def __init__(self, config: pytest.Config) -> None:
        self.config, self.campaign = config, config.stash[CAMPAIGN]
        self.open_phase: str | None = None
        self.nodeid = ""
        self.ended_phases: list[str] = []
        self.findings: list[Finding] = []
        self.accepted = False
        self.trouble: list[str] = []

    def pytest_report_header(self) -> str:
        campaign = self.campaign
        folder = os.path.relpath(campaign.layout.root, self.config.invocation_params.dir)
        rows = f"{len(campaign.enabled)} of {len(campaign.rows)} rows enabled"
        return f"campaign: {folder}, {rows}, {campaign.expected_gpus} GPUs, engine {campaign.engine}"

    def phase_end(self, phase: str) -> None:
        """Writes the phase's handoff, once: after its last test, or at the end of a session that was cut short."""
        self.open_phase = None
        if phase not in PHASES:
            return
        try:
            handoff.hand_over(self.campaign, phase, self.config.getoption("owner"))
        except (TrackaError, OSError) as error:
            self.trouble.append(f"the handoff of {phase} could not be written: {error}")
        self.ended_phases.append(phase)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None, Any, Any]:
        self.open_phase = phase_of(item.nodeid)
        result = yield
        if nextitem is None or phase_of(nextitem.nodeid) != self.open_phase:
            self.phase_end(self.open_phase)
        return result

    @pytest.hookimpl(optionalhook=True, tryfirst=True)
    def pytest_xdist_make_scheduler(self, config: pytest.Config, log: Any) -> PhasedScheduling:
        return PhasedScheduling(
            config, log, RowScheduler(row_durations.gpus(self.campaign.enabled)), self._jobs, self.phase_end
        )

    def _jobs(self, nodeids: Mapping[int, str]) -> list[Job]:
        """Returns the tests of a phase as jobs; a test that belongs to no row is short and goes last."""
        rows_by_id = {row.run_id: row for row in self.campaign.enabled}
        rows = {
            index: rows_by_id[name] for index, nodeid in nodeids.items() if (name := _parameter(nodeid)) in rows_by_id
        }
        other_jobs = [Job(index) for index in nodeids if index not in rows]
        return [
            *row_durations.jobs(self.campaign, rows, resume=not self.config.getoption("allow_overwrite")),
            *other_jobs,
        ]

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.open_phase, self.nodeid = phase_of(nodeid) or self.open_phase, nodeid

    @pytest.hookimpl(trylast=True)  # after xdist has ended its workers, which close their rows first
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        if self.open_phase:
            self.phase_end(self.open_phase)
        if PHASES[-1] in self.ended_phases:
            self._close(session)
        if self.trouble and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        if session.exitstatus == pytest.ExitCode.TESTS_FAILED:
            last_failed.add_refused_rows(self.config, self.campaign, self.nodeid)
        self._leave_findings_to_the_summary()

    def _close(self, session: pytest.Session) -> None:
        """Validates all phases strictly, which decides the exit status, and last of all ticks the campaign's box.

        Where the campaign is not accepted, the box is cleared.
        """
        self.findings = validate.validate(self.campaign, PHASES, strict=True)
        if (self.findings or self.trouble) and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        self.accepted = session.exitstatus == pytest.ExitCode.OK
        try:
            progress.close(self.campaign.layout, self.accepted)
        except (TrackaError, OSError) as error:
            self.accepted = False
            page = self.campaign.layout.relative(self.campaign.layout.todo_list)
            self.trouble.append(f"{page} could not be ticked: {error}")

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.config.getoption("lf", False) and not terminalreporter.stats:
            terminalreporter.write_line("none of the selected tests failed in the last session")
        if not self.ended_phases:
            return
        terminalreporter.section(f"campaign {self.campaign.name}")
        for line in self._summary():
            terminalreporter.write_line(_clean_text(line))

    def _summary(self) -> Iterator[str]:
        yield from row_table(self.campaign)
        shown_notes: list[str] = []
        for phase in PHASES:
            path = self.campaign.layout.handoff(phase)
            value = files.read_or_empty(path)
            if value:
                yield f"{phase}: {value.get('status')}  {self.campaign.layout.relative(path)}"
                yield from (f"    {note}" for note in value.get("notes", []) if note not in shown_notes)
                shown_notes += value.get("notes", [])
        if all(validate.valid_handoff(self.campaign, phase).get("status") == "pass" for phase in PHASES):
            yield from (f"    {finding}" for finding in self.findings if str(finding) not in shown_notes)
        yield from (f"error: {line}" for line in self.trouble)
        if PHASES[-1] in self.ended_phases:
            yield f"verdict: {verdict.words(self.campaign, self.accepted)} (strict validation of all phases)"

    def _leave_findings_to_the_summary(self) -> None:
        """Removes what the handoffs note from the failures on the terminal, so that it is shown there once, at the end.

        The JUnit report is written by now, and has the notes in each test.
        """
        layout = self.campaign.layout
        handoffs = [files.read_or_empty(layout.handoff(phase)) for phase in self.ended_phases if phase in PHASES]
        handoff_notes = {note for value in handoffs for note in value.get("notes", [])}
        reporter = self.config.pluginmanager.get_plugin("terminalreporter")
        for report in reporter.stats.get("failed", []) if reporter else ():
            lines = report.longreprtext.splitlines()
            remaining_lines = [line for line in lines if layout.with_relative_paths(line.strip()) not in handoff_notes]
            if len(remaining_lines) < len(lines):
                report.longrepr = "\n".join([*remaining_lines, f"  see below, campaign {self.campaign.name}"])


def _parameter(nodeid: str) -> str:
    return nodeid.rsplit("[", 1)[-1].rstrip("]")


def row_table(campaign: Campaign) -> list[str]:
    """Returns the enabled rows as aligned lines of text: run, status, episodes, successes, device, seconds, folder."""
    head = ("run", "status", "episodes", "successes", "device", "seconds", "artifacts")
    cells = [head, *(_row_cells(campaign, row) for row in campaign.enabled)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(map(str.ljust, line, widths)).rstrip() for line in cells]


def _row_cells(campaign: Campaign, row: Row) -> tuple[str, ...]:
    folder = campaign.layout.relative(campaign.layout.run(row.run_id).path)
    result = run.read_result(campaign.layout, row.run_id)
    if result is None:
        return (row.run_id, "not run", "", "", "", "", folder)
    status = row_state.status_text(result["status"], result["reason"], result["invalid"], result["unproven"])
    counts = ("" if result[key] is None else str(result[key]) for key in ("episodes", "successes"))
    return (
        row.run_id,
        status,
        *counts,
        run.device_name(campaign.layout, row.run_id),
        f"{result['duration_sec']:.0f}",
        folder,
    )
