"""The pytest plug-in: options, the order of the phases, handoffs and summaries by the controller, the final verdict.

conftest.py loads it in a checkout. Elsewhere `pytest_entry.py` loads it for `pytest --pyargs tracka.acceptance`. The
controller writes a handoff once a phase, from what is on disk. After phase 5 the strict validation of all phases
decides the exit status.
"""

import contextlib
import getpass
import inspect
import os
import shlex
import time
import uuid
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from . import cli_request, last_failed, live_session, session_exports, session_summary, xdist_scheduling
from .campaign import campaign as campaigns
from .campaign import commands, nearby, path_safety, slurm_settings
from .campaign.campaign import Campaign
from .campaign.layout import PHASES
from .campaign.matrix import Row
from .core import close_match, escaping, files, lock, system_errors
from .core.counting import counted
from .core.errors import Busy, Finding, TrackaError, UsageError, joined_names, screen
from .execution import ending_signals, environment, harness_session, prctl, process_setup
from .exports import attachments
from .gates import derived_files, handoff, validate
from .live_session import LiveSession
from .reporting import healed, progress
from .runs import parity, row_durations, unplayed_jobs
from .runs.row_scheduler import Job, RowScheduler
from .stages import HANDED_OVER, is_closing, phase_of, run_id_of, stage_of
from .xdist_scheduling import PhasedScheduling, RowLoop

CAMPAIGN = pytest.StashKey[Campaign]()
TOKEN = pytest.StashKey[str]()
START = pytest.StashKey[float]()  # of the session, by the host's monotonic clock
SESSION_STOPS = pytest.StashKey[Callable[[], bool]]()  # of a worker: whether the session stops before its end
WARNINGS = pytest.StashKey[Sequence[str]]()  # of what dead sessions left
LAST_STAGE = f"{PHASES[-1]}{HANDED_OVER}"
ROW_PHASES = frozenset({"phase3", "phase4"})  # in which rows run
PARITY_ROW = "parity_row"
DEFAULT_PLACE = "the default"  # where the embedded campaign is named, which needs no name
# The names under which the controller tells its workers when the session began, and its own process id.
SESSION_START, CONTROLLER = "tracka_session_start", "tracka_controller"
# A test that takes one of these is collected only for a campaign that has something for it.
CONDITIONAL: dict[str, Callable[[Campaign], object]] = {
    PARITY_ROW: parity.rows_to_prove,
    "registration": lambda campaign: campaign.verdict,
    "record_verdict": lambda campaign: campaign.verdict,
}
ROWS: dict[str, Callable[[Campaign], Sequence[Row]]] = {
    "row": lambda campaign: campaign.enabled,
    PARITY_ROW: parity.rows_to_prove,
}


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("Track A")
    group.addoption("--campaign", help="the campaign: a folder, or a name below tasks/")
    group.addoption("--tier", help="a tier of the campaign, [tiers.NAME] in its campaign.toml; by default all of it")
    group.addoption(
        "--allow-overwrite", action="store_true", help="run the rows again that passed with inputs other than today's"
    )
    group.addoption(
        "--accept-invalid-sim",
        action="store_true",
        help="run on a simulator that preflight finds invalid; the results and the verdict say `invalid`",
    )
    group.addoption(
        "--launcher",
        choices=slurm_settings.LAUNCHERS,
        help="where rows run: on this host or on a Slurm cluster; by default as campaign.toml says",
    )
    group.addoption("--strict-preflight", action="store_true", help="treat the preflight linter's findings as errors")
    group.addoption("--no-live", action="store_true", help="show neither the live table nor its line a minute")
    group.addoption("--owner", default=_user(), help="the owner in the plan's progress lines (default: %(default)s)")
    unset = f"the campaign if neither --campaign nor TRACKA_CAMPAIGN is set (default {commands.DEFAULT})"
    parser.addini("campaign", unset)


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
        cli_request.require_text([_named(config)[0]])
        with system_errors.as_own_errors():
            config.stash[CAMPAIGN] = campaigns.load(_folder(config), config.getoption("tier")).launched_by(
                config.getoption("launcher")
            )
    except UsageError as error:
        raise pytest.UsageError(files.redacted(screen(error.findings, head=""))) from None
    process_setup.prepare()
    files.keep_private()
    os.environ["HF_HOME"] = environment.hf_home()  # set before anything imports the hub's client
    ending_signals.interrupt_once()  # TERM and a closed terminal, like Ctrl-C, end rows and write JUnit
    if is_controller(config):
        config.stash[TOKEN], config.stash[START] = uuid.uuid4().hex, time.monotonic()
        if not config.option.collectonly:
            if findings := xdist_scheduling.refusals(config):
                raise pytest.UsageError(screen(findings, head=""))
            _lock_campaign(config)
            last_failed.restore(config, config.stash[CAMPAIGN].layout)
            _begin_session(config)
        config.pluginmanager.register(Controller(config), "tracka-controller")
        if live_session.is_on(config):
            config.pluginmanager.register(LiveSession(config, config.stash[CAMPAIGN]), "tracka-live")
    else:
        # The workers of a killed controller would go on for seconds, and start rows.
        prctl.end_with_parent(config.workerinput[CONTROLLER])  # type: ignore[attr-defined]
        config.stash[TOKEN] = config.workerinput["testrunuid"]  # type: ignore[attr-defined]
        config.stash[START] = config.workerinput[SESSION_START]  # type: ignore[attr-defined]
        row_loop = RowLoop()
        config.stash[SESSION_STOPS] = row_loop.is_told_to_end.is_set
        config.pluginmanager.register(row_loop, "tracka-row-loop")


def _lock_campaign(config: pytest.Config) -> None:
    """Holds the campaign for this session, since two sessions would judge each other's half-done phases."""
    layout, session_lock = config.stash[CAMPAIGN].layout, contextlib.ExitStack()
    try:
        with system_errors.as_own_errors():
            path_safety.require(layout)
        session_lock.enter_context(lock.session(layout.locks, config.stash[CAMPAIGN].name))
    except (Busy, UsageError) as error:
        raise pytest.UsageError(screen(error.findings, head="")) from None
    except OSError as error:
        raise pytest.UsageError(str(system_errors.finding(error, where=str(layout.locks)))) from None
    config.add_cleanup(session_lock.close)


def _begin_session(config: pytest.Config) -> None:
    """Ends what dead sessions left behind, and marks all that this session will start as its own."""
    session_processes = contextlib.ExitStack()
    campaign, survivors = config.stash[CAMPAIGN], session_processes.enter_context(harness_session.hold())
    config.stash[WARNINGS] = [*harness_session.warnings(survivors), *unplayed_jobs.end(campaign, campaign.enabled)]
    config.add_cleanup(session_processes.close)


def is_controller(config: pytest.Config) -> bool:
    """Returns whether this process owns the session; a worker of xdist does not."""
    return not hasattr(config, "workerinput")


def _named(config: pytest.Config) -> tuple[str, str]:
    """Returns the campaign as it is named, and where it is named: by an option, a variable, an ini file or nowhere."""
    places = {
        "--campaign": config.getoption("campaign"),
        "TRACKA_CAMPAIGN": os.environ.get("TRACKA_CAMPAIGN"),
        "pytest.ini": config.getini("campaign"),
    }
    return next(((name, place) for place, name in places.items() if name), (commands.DEFAULT, DEFAULT_PLACE))


def _folder(config: pytest.Config) -> Path:
    """Returns the folder of the session's campaign, or where it was looked for. Raises UsageError where none is named.

    The embedded campaign runs without a name only where it is: in a checkout.
    """
    name, place = _named(config)
    here, below = config.invocation_params.dir / name, config.rootpath / "tasks" / name
    if found := next(filter(Path.is_dir, (here, below)), None):
        return found
    if place == DEFAULT_PLACE:
        raise UsageError(_no_name(config.invocation_params.dir))
    if close_match.folder(below) and not close_match.folder(here):
        return below
    return below if "/" not in name and below.parent.is_dir() and not close_match.folder(here) else Path(name)


def _no_name(here: Path) -> Finding:
    """Returns the finding for a session without the name of a campaign, with the campaigns that are here."""
    names = [str(path.relative_to(here)) for path in nearby.campaigns(here)]
    command = f"Name one, as in: pytest --pyargs tracka.acceptance --campaign {shlex.quote(names[0])}" if names else ""
    listed = f". Here are: {joined_names(names)}" if len(names) > 1 else ""
    remedy = f"{command}{listed}" or f"Make one, {nearby.smoke_command(here)}, and name it: --campaign NAME"
    return Finding("--campaign", "no campaign is named", remedy)


def pytest_pycollect_makeitem(collector: pytest.Collector, obj: object) -> list[pytest.Item] | None:
    """Collects no parity test where no engine has to be proven, and no test of `[verdict]` where there is none.

    pytest would collect these tests and skip them.
    """
    if not inspect.isfunction(obj):
        return None
    conditions = CONDITIONAL.keys() & set(inspect.signature(obj).parameters)
    return None if all(CONDITIONAL[name](collector.config.stash[CAMPAIGN]) for name in conditions) else []


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Makes one test per enabled row of a test that takes `row`.

    A test that takes `parity_row` becomes one test per row to be proven.
    """
    for name in ROWS.keys() & set(metafunc.fixturenames):
        rows = ROWS[name](metafunc.config.stash[CAMPAIGN])
        metafunc.parametrize(name, rows, ids=[row.run_id for row in rows])


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Sorts the tests by phase, the closing test of a phase last, and gives the test of a row a timeout.

    The timeout is longer than those of all rows together: it is a backstop, should the harness itself hang.
    """
    items.sort(key=lambda item: stage_of(item.nodeid))
    campaign = config.stash[CAMPAIGN]
    # A row may have to wait for its GPU until every other row is done with that GPU.
    backstop = sum(2 * (campaign.timeout(row) + campaign.grace_secs) + 600 for row in campaign.enabled)
    for item in items:
        if ROWS.keys() & getattr(getattr(item, "callspec", None), "params", {}).keys():
            item.add_marker(pytest.mark.timeout(backstop, func_only=True))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    """Reports a gate that a fixture refused as failed; pytest would report an error, as if the harness were broken.

    The JUnit report of a row's test that fails names the files to attach.
    """
    if call.when == "call" and call.excinfo is not None and not call.excinfo.errisinstance(pytest.skip.Exception):
        _attach_files(item)
    report = yield
    _clean_report(report)
    if call.when == "setup" and call.excinfo is not None and call.excinfo.errisinstance(pytest.fail.Exception):
        report.when = "call"
    return report


def _attach_files(item: pytest.Item) -> None:
    campaign = item.config.stash[CAMPAIGN]
    if run_id := run_id_of(item.nodeid, campaign.baseline):
        item.add_report_section("call", "stdout", attachments.text(campaign, run_id, os.environ))


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


def pytest_keyboard_interrupt() -> None:
    """Says that pytest ends the session, so that nothing interrupts it once more while the rows are closed."""
    ending_signals.mark_as_handled()


@pytest.hookimpl(tryfirst=True)
def pytest_internalerror(excinfo: pytest.ExceptionInfo[BaseException]) -> None:
    """Ends the session with one line where a limit of the system is met, such as by a worker that cannot be started.

    pytest would print a traceback, as if the harness were broken.
    """
    if error := system_errors.limit(excinfo.value):
        pytest.exit(f"error: {system_errors.finding(error)}", returncode=int(pytest.ExitCode.TESTS_FAILED))


class Controller:
    """The hooks of the process that owns the session; with -n0 this process runs the tests too.

    Attributes:
        config: pytest's configuration of the session
        campaign: the session's campaign
        open_phase: the phase that has begun and is not handed over yet; None where there is none
        nodeid: that of the last test that began
        interrupted: the phase in which Ctrl-C, or another signal to end, has ended the session; None where none has
        ended_phases: the phases whose end was reached, in order, whether or not their handoff could be written
        findings: what the strict validation of all phases found; empty until phase 5 has ended
        judged: the tests that have run, or have failed before they could
        valid: whether the last test was that of the verdict, and found nothing in the strict validation
        scheduling: xdist's scheduler; None in a session without workers
        accepted: whether every gate passed, that validation found nothing, and the campaign's box could be ticked
        trouble: what kept a handoff or a page from being written, one sentence each
        page_line: what the terminal says of report.html; empty until phase 5 has ended
        exports: what the session shows elsewhere: a CI job's summary, and metrics
        ended_jobs: a line for each job that Slurm still had when the session's rows had ended
    """

    def __init__(self, config: pytest.Config) -> None:
        self.config, self.campaign = config, config.stash[CAMPAIGN]
        self.open_phase: str | None = None
        self.nodeid = ""
        self.interrupted: str | None = None
        self.ended_phases: list[str] = []
        self.findings: list[Finding] = []
        self.judged: set[str] = set()
        self.valid = False
        self.scheduling: PhasedScheduling | None = None
        self.accepted = False
        self.trouble: list[str] = []
        self.page_line = ""
        self.exports = session_exports.SessionExports(self.campaign)
        self.ended_jobs: list[str] = []

    @pytest.hookimpl(trylast=True)  # so that it is the header's first line
    def pytest_report_header(self) -> list[str]:
        campaign, (_, place) = self.campaign, _named(self.config)
        folder = os.path.relpath(campaign.layout.root, self.config.invocation_params.dir)
        other = (
            ""
            if place == "--campaign"
            else f" ({place}; for another: {commands.program(campaign.layout)} --campaign NAME)"
        )
        rows = f"{len(campaign.enabled)} of {len(campaign.rows)} rows enabled"
        tier = f", tier {campaign.tier.in_words}" if campaign.tier else ""
        where = f"{campaign.engine_name}, on Slurm" if campaign.is_on_slurm else campaign.engine_name
        line = f"campaign: {folder}{other}{tier}, {rows}, {counted(campaign.expected_gpus, 'GPU')}, engine {where}"
        warnings = self.config.stash.get(WARNINGS, [])
        return [line, *map(_clean_text, warnings)]

    def phase_end(self, phase: str) -> None:
        """Writes the phase's handoff, once: after its last test, or at the end of a session that was cut short.

        The end of a phase's closing test, which is a stage of its own, leaves no handoff.
        """
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
        stage = stage_of(item.nodeid)
        if is_closing(item.nodeid) and phase_of(item.nodeid) not in self.ended_phases:
            self.phase_end(phase_of(item.nodeid))
        elif not is_closing(item.nodeid):
            self.open_phase = stage
        result = yield
        if nextitem is None or stage_of(nextitem.nodeid) != stage:
            self.phase_end(stage)
        return result

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Tells a worker when the session began, from which a tier's time budget counts, and with whom it ends."""
        node.workerinput |= {SESSION_START: self.config.stash[START], CONTROLLER: os.getpid()}

    @pytest.hookimpl(optionalhook=True, tryfirst=True)
    def pytest_xdist_make_scheduler(self, config: pytest.Config, log: Any) -> PhasedScheduling:
        scheduler = RowScheduler(row_durations.gpus(self.campaign, self.campaign.enabled))
        self.scheduling = PhasedScheduling(config, log, scheduler, self._jobs, self.phase_end)
        return self.scheduling

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
        self.nodeid = nodeid
        if not is_closing(nodeid):
            self.open_phase = phase_of(nodeid) or self.open_phase

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or not report.passed:
            self.judged.add(report.nodeid)
            self.valid = report.passed and stage_of(report.nodeid) == LAST_STAGE
        if report.when == "call" and (run_id := run_id_of(report.nodeid, self.campaign.baseline)):
            self.exports.row_ended(run_id)

    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        if excinfo.type is KeyboardInterrupt:  # xdist and -x end a session by a class of their own below it
            self.interrupted = self.open_phase

    def _not_run(self, session: pytest.Session) -> set[str]:
        """Returns the selected tests that the session did not come to, after an interrupt or with -x."""
        here = [item.nodeid for item in session.items]
        selected = (self.scheduling.collection or []) if self.scheduling else here
        return set(selected) - self.judged

    @pytest.hookimpl(trylast=True)  # after xdist has ended its workers, which close their rows first
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        if self.open_phase:
            self.phase_end(self.open_phase)
        if PHASES[-1] in self.ended_phases:
            self._close(session)
        elif not ROW_PHASES.isdisjoint(self.ended_phases):
            self._refresh_derived_files()
        if self.trouble and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        self.exports.end(self.ended_phases, self.accepted)
        if not (self.interrupted or ROW_PHASES.isdisjoint(self.ended_phases)):
            self.ended_jobs = unplayed_jobs.end(self.campaign, self.campaign.enabled, unplayed_jobs.PATIENCE_SECS)
        if session.exitstatus == pytest.ExitCode.TESTS_FAILED:
            last_failed.add_refused_rows(self.config, self.campaign, self.nodeid)
        self._shorten_failures()
        if not self.config.option.collectonly:
            last_failed.save(self.config, self.campaign.layout, self._not_run(session))

    def _refresh_derived_files(self) -> None:
        """Writes anew what an earlier session left of phases that this one did not end: rows have run meanwhile."""
        try:
            derived_files.refresh(self.campaign)
        except (TrackaError, OSError) as error:
            self.trouble.append(f"the tables and pages could not be written anew: {error}")

    def _close(self, session: pytest.Session) -> None:
        """Validates all phases strictly, which decides the exit status, and last of all ticks the campaign's box.

        Where the campaign is not accepted, the box is cleared.
        """
        self.findings = [] if self.valid else validate.validate(self.campaign, PHASES, strict=True)
        if (self.findings or self.trouble) and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        self.accepted = session.exitstatus == pytest.ExitCode.OK
        try:
            progress.close(self.campaign.layout, self.accepted)
        except (TrackaError, OSError) as error:
            self.accepted = False
            page = self.campaign.layout.relative(self.campaign.layout.todo_list)
            self.trouble.append(f"{page} could not be ticked: {error}")
        self._write_page()

    def _write_page(self) -> None:
        """Writes report.html, whose verdict is this session's. A page that cannot be written changes no verdict."""
        from .report_page import films, page  # imported here, since comparisons load numpy and scipy

        try:
            filmed = films.film(self.campaign, self.campaign.film)
            written = page.write(self.campaign, accepted=self.accepted)
            self.page_line = f"page: {self.campaign.layout.display_name}/{written.name}" + (filmed and f"; {filmed}")
        except Exception as error:  # a fault in a page must not take the session's verdict with it
            self.page_line = f"warning: report.html could not be written: {type(error).__name__}: {error}"

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.config.getoption("lf", False) and not terminalreporter.stats:
            terminalreporter.write_line("none of the selected tests failed in the last session")
        if not self.ended_phases:
            return
        terminalreporter.section(f"campaign {self.campaign.name}")
        known = (self.campaign, self.ended_phases, self.findings, self.trouble, self.accepted, self.interrupted)
        for line in session_summary.lines(*known):
            terminalreporter.write_line(_clean_text(line))
        began = time.time() - (time.monotonic() - self.config.stash[START])
        for line in healed.lines(self.campaign, began):
            terminalreporter.write_line(_clean_text(line))
        if self.page_line:
            terminalreporter.write_line(_clean_text(self.page_line))
        for line in (*self.ended_jobs, *(f"warning: {line}" for line in self.exports.warnings)):
            terminalreporter.write_line(_clean_text(line))

    @pytest.hookimpl(specname="pytest_terminal_summary", wrapper=True, tryfirst=True)
    def pytest_after_the_summary(self, terminalreporter: pytest.TerminalReporter) -> Generator[None]:
        """Writes why the campaign is not accepted below pytest's own list of failed tests, which one cause can fill."""
        yield
        if self.ended_phases and (not self.accepted or PHASES[-1] in self.ended_phases):
            failed = len(terminalreporter.stats.get("failed", ()))
            for line in session_summary.last_lines(self.campaign, self.accepted, failed, self.interrupted):
                terminalreporter.write_line(_clean_text(line))

    def _shorten_failures(self) -> None:
        """Takes off the terminal's failures what the summary shows.

        The JUnit report is written by now, and has everything in each test.
        """
        reporter = self.config.pluginmanager.get_plugin("terminalreporter")
        if reporter and (failed := reporter.stats.get("failed")):
            texts = session_summary.FailureTexts(self.campaign, self.ended_phases, self.findings)
            for report in failed:
                report.sections = [each for each in report.sections if not each[1].startswith(attachments.START)]
                if (shorter := texts.shortened(whole := str(report.longrepr))) != whole:
                    report.longrepr = shorter


def _parameter(nodeid: str) -> str:
    return nodeid.rsplit("[", 1)[-1].rstrip("]")
