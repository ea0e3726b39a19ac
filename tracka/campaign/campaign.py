"""Loads a campaign: the folder that holds a matrix, a `campaign.toml` and, later, the artifacts.

Guarantees: loading a campaign is a pure function of its `configs/` folder, imports nothing heavy and starts nothing;
everything wrong with the campaign's files is reported at once.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ..core import close_match, files, parsing, reading
from ..core.errors import Finding, UsageError, collect_findings, joined_names
from ..core.lerobot_facts import EPISODE_STEPS, FRAME_SIDE, SUITE_TASKS
from . import matrix, metrics_settings, nearby, settings_faults, slurm_settings, tiers, verdict_settings
from .layout import Layout
from .matrix import Row
from .metrics_settings import MetricsSettings
from .slurm_settings import Launcher, SlurmSettings
from .tiers import Tier
from .verdict_settings import VerdictSettings, task_name

RESIDENT = "resident"
RESIDENT_FAST = "resident (fast)"  # its fast mode, in manifests and what is made of them
RESIDENT_NAMES = (RESIDENT, RESIDENT_FAST)


@dataclass(frozen=True)
class EvalSettings:
    """The settings of lerobot-eval that the matrix does not hold. None leaves lerobot's own default in force."""

    policy_type: str | None = None
    n_action_steps: int | None = None
    episode_length: int | None = None  # control steps
    task_ids: tuple[int, ...] | None = None  # tasks of the suite; None means all
    rename_map: Mapping[str, str] = field(default_factory=dict)
    observation_height: int | None = None  # pixels
    observation_width: int | None = None  # pixels
    use_async_envs: bool | None = None
    timeout_secs: int | None = None
    record_actions: bool | None = None  # of lerobot-eval's episodes; the resident engine always records
    flags: Mapping[str, str | float | bool] = field(default_factory=dict)  # further flags of lerobot-eval

    @property
    def frame(self) -> tuple[int, int]:
        """Height and width of the frames, in pixels."""
        return self.observation_height or FRAME_SIDE, self.observation_width or FRAME_SIDE

    def updated(self, table: Mapping[str, Any]) -> "EvalSettings":
        """Returns these settings, overridden by the keys of a row's own table."""
        values: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in table.items()
        }
        return replace(self, **values)


@dataclass(frozen=True)
class Campaign:
    """A loaded campaign, or one of its tiers. `rows` includes the disabled rows, which a tier leaves out among them."""

    layout: Layout
    rows: tuple[Row, ...]
    baseline: str
    expected_gpus: int
    engine: str = "lerobot-eval"
    resident: Mapping[str, Any] = field(default_factory=dict)  # settings of the resident engine
    defaults: EvalSettings = field(default_factory=EvalSettings)
    row_tables: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    row_secs: int = 10800
    grace_secs: int = 10
    probe_secs: int = 600
    min_success_rate: float = 0.0
    row_success_rates: Mapping[str, float] = field(default_factory=dict)
    # Expected outcomes, for policies whose outcome is known beforehand: row -> LIBERO task -> episodes that succeed.
    known_answers: Mapping[str, Mapping[int, tuple[int, ...]]] = field(default_factory=dict)
    log_mib: int = 256
    build: Mapping[str, str] = field(default_factory=dict)
    cuda_to_egl: Mapping[int, int] = field(default_factory=dict)
    policy_roots: tuple[Path, ...] = ()  # folders where policies may lie although everybody can write there
    trusted: tuple[str, ...] = ()  # names of plug-ins, classes, files and keys that may run code
    executable: tuple[str, ...] = ()
    accept_invalid_sim: bool = False  # whether rows run despite a simulator mismatch
    strict: bool = False  # whether a finding of the linter blocks the campaign
    film: str = "none"  # which episodes without a video the page's making films by replay: none, failures or all
    verdict: VerdictSettings | None = None  # what the policies have to show, if the campaign says so
    metrics: MetricsSettings | None = None  # where metrics are sent, if the campaign says so
    launcher: Launcher = "local"  # where rows run
    slurm: SlurmSettings = field(default_factory=SlurmSettings)
    tiers: Mapping[str, Tier] = field(default_factory=dict)  # by name; a tier has them too
    digests: Mapping[str, str] = field(default_factory=dict)  # hashes of the files read, by path in the campaign

    @property
    def name(self) -> str:
        """Returns the campaign's name as people read it, with that of its tier."""
        return f"{self.layout.root.name}, tier {self.tier.name}" if self.tier else self.layout.root.name

    @property
    def tier(self) -> Tier | None:
        """Returns the tier that this campaign is cut to; None for the whole campaign."""
        return self.tiers[self.layout.tier] if self.layout.tier else None

    def of_tier(self, name: str) -> "Campaign":
        """Returns the campaign cut to its tier `name`. Raises UsageError where it has no such tier."""
        tier = tiers.require(self.tiers, name, self.layout.settings)
        rows = tier.cut_rows(self.rows, self.baseline)
        answers = tiers.cut_answers(self.known_answers, rows)
        cut = replace(self, layout=replace(self.layout, tier=name), rows=rows, known_answers=answers)
        return replace(cut, verdict=verdict_settings.of_tier(self.verdict, tier.verdict, cut.compared_tasks))

    @property
    def is_resident(self) -> bool:
        """Returns whether the resident engine plays the campaign's episodes."""
        return self.engine == RESIDENT

    @property
    def is_fast(self) -> bool:
        """Returns whether the resident engine is asked for its fast mode."""
        return self.is_resident and self.resident.get("precision") == "fast"

    @property
    def engine_name(self) -> str:
        """Returns the engine as artifacts name it, so that episodes of fast mode are never taken for exact ones."""
        return RESIDENT_FAST if self.is_fast else self.engine

    def launched_by(self, launcher: Launcher | None) -> "Campaign":
        """Returns the campaign with the launcher that a command line names; as it is where that names none."""
        return self if launcher is None else replace(self, launcher=launcher)

    @property
    def is_on_slurm(self) -> bool:
        """Returns whether the campaign's rows run on a Slurm cluster."""
        return self.launcher == "slurm"

    @property
    def host_gpus(self) -> int:
        """Returns how many GPUs a host must have on which rows run: on a cluster, where Slurm gives them, one."""
        return min(1, self.expected_gpus) if self.is_on_slurm else self.expected_gpus

    @cached_property
    def enabled(self) -> tuple[Row, ...]:
        return tuple(row for row in self.rows if row.enabled)

    @cached_property
    def _rows_by_id(self) -> dict[str, Row]:
        return {row.run_id: row for row in self.rows}

    def row(self, run_id: str) -> Row:
        """Returns the row called `run_id`. Raises UsageError where the matrix has no such row."""
        if run_id in self._rows_by_id:
            return self._rows_by_id[run_id]
        names = [row.run_id for row in self.rows]
        remedy = f"{close_match.asked_name(run_id, names)}Name one of {joined_names(names)}"
        raise UsageError(Finding(str(self.layout.matrix), f"the matrix has no row {run_id!r}", remedy))

    def settings(self, row: Row) -> EvalSettings:
        """Returns the row's settings: the campaign's own, overridden by the row's own table."""
        return self.defaults.updated(self.row_tables.get(row.run_id, {}))

    def task_ids(self, row: Row) -> tuple[int, ...]:
        """The LIBERO tasks that the row evaluates, in order."""
        return tuple(sorted(self.settings(row).task_ids or range(SUITE_TASKS[row.task_suite])))

    def threshold(self, row: Row) -> float:
        """Returns the lowest success rate, from 0 to 1, with which the row is accepted."""
        return self.row_success_rates.get(row.run_id, self.min_success_rate)

    def settings_of(self, policy_path: str) -> list[EvalSettings]:
        """Returns the settings of the policy's enabled rows, or the campaign's own if the policy has none."""
        rows = [row for row in self.enabled if row.policy_path == policy_path]
        return [self.settings(row) for row in rows] or [self.defaults]

    def steps(self, row: Row) -> int:
        """The control steps after which an episode of the row ends."""
        return self.settings(row).episode_length or EPISODE_STEPS[row.task_suite]

    def is_judged(self, row: Row) -> bool:
        """Returns whether a success rate above 0 or an expected outcome defines what the row has to reach."""
        return self.threshold(row) > 0 or row.run_id in self.known_answers

    def is_compared(self, row: Row) -> bool:
        """Returns whether the row is one of `compared_rows`."""
        return row.enabled and row.run_id != self.baseline

    @cached_property
    def compared_rows(self) -> tuple[Row, ...]:
        """Returns the enabled rows whose results count: all but the baseline, which only shows that rows run."""
        return tuple(filter(self.is_compared, self.rows))

    @cached_property
    def compared_by_subject(self) -> Mapping[tuple[str, str], Sequence[Row]]:
        """Returns the compared rows of each policy and suite, in the order of the matrix."""
        rows: dict[tuple[str, str], list[Row]] = {}
        for row in self.compared_rows:
            rows.setdefault((row.policy_path, row.task_suite), []).append(row)
        return rows

    @property
    def compared_tasks(self) -> frozenset[str]:
        """Returns the tasks that the compared rows play, by their names in `[verdict.tasks]`."""
        return frozenset(task_name(row.task_suite, task) for row in self.compared_rows for task in self.task_ids(row))

    def timeout(self, row: Row) -> int:
        """Returns the row's timeout in seconds."""
        return self.settings(row).timeout_secs or self.row_secs

    def cost(self, row: Row) -> int:
        """Returns a row's length by the matrix, in consecutive control steps.

        The length orders rows that have not run before.
        """
        return -(-row.n_episodes // row.batch_size) * len(self.task_ids(row)) * self.steps(row)


def load(root: Path, tier: str | None = None) -> Campaign:
    """Returns the campaign in the folder `root`, cut to `tier` if one is named.

    Raises UsageError with all findings in the matrix, in the settings, and between the two, and where the campaign has
    no such tier.
    """
    layout = Layout(root.resolve())
    digests = _digests(layout)  # before reading, so that a change between the two is noticed
    if not layout.settings.parent.is_dir():
        lacks = "it has no configs folder" if layout.root.is_dir() else "there is no such folder"
        remedy = f"Name a campaign's folder (--campaign of pytest), or make one: {nearby.smoke_command(Path())}"
        asked = "" if layout.root.is_dir() else close_match.asked(root)
        raise UsageError(Finding(str(root), f"this is not a campaign: {lacks}", f"{asked}{remedy}"))
    findings: list[Finding] = []
    rows = collect_findings(findings, lambda: matrix.load(layout.matrix))
    table = collect_findings(findings, lambda: _read_toml(layout.settings))
    if rows is None or table is None:
        raise UsageError([*findings, *(settings_faults.findings(table, layout.settings) if table else ())])
    schema_findings = settings_faults.findings(table, layout.settings)
    findings += [*schema_findings, *_unknown_names(str(layout.settings), rows, table)]
    if schema_findings:
        raise UsageError(findings)
    campaign = replace(_campaign(layout, rows, table), digests=digests)
    findings += [
        *_wrong_builds(campaign),
        *_wrong_tasks(campaign),
        *_wrong_expected_outcomes(campaign),
        *_unsupported_settings(campaign),
        *_wrong_slurm(campaign),
    ]
    verdict_findings = [*_wrong_verdict(campaign)]
    findings += [*verdict_findings, *tiers.faults(campaign.tiers, rows, campaign.baseline, layout.settings)]
    if not verdict_findings:  # each tier would repeat them
        findings += [fault for name in campaign.tiers for fault in _wrong_verdict(campaign.of_tier(name))]
    if findings:
        raise UsageError(findings)
    return campaign if tier is None else campaign.of_tier(tier)


def load_at(layout: Layout) -> Campaign:
    """Returns the campaign of `layout`, or its tier, whose artifacts lie where `layout` says.

    Raises UsageError as `load` does.
    """
    campaign = load(layout.root, layout.tier)
    return replace(campaign, layout=replace(layout, todo_name=campaign.layout.todo_name))


def load_named(folder: Path) -> Campaign:
    """Returns the campaign in `folder`, or the tier whose artifacts are in `folder`, `CAMPAIGN/artifacts/tiers/NAME`.

    Raises UsageError as `load` does.
    """
    layout = Layout.of_artifacts(folder)
    return load_at(layout) if layout.tier else load(folder)


def _digests(layout: Layout) -> dict[str, str]:
    paths = [path for path in (layout.matrix, layout.settings, layout.run_schema) if path.is_file()]
    return {layout.relative(path): files.sha256_file(path) for path in paths}


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return parsing.toml_table(reading.content(path, reading.SETTINGS))
    except FileNotFoundError:
        remedy = "Write the file, or make a campaign with `tracka init NAME`"
        raise UsageError(Finding(str(path), "the settings do not exist", remedy)) from None
    except OSError as error:
        raise UsageError(Finding(str(path), f"the settings cannot be read ({error})", "Write them anew")) from None
    except parsing.Malformed as error:
        raise UsageError(Finding(str(path), f"this is not TOML ({error})", "Correct that line")) from None


def _campaign(layout: Layout, rows: tuple[Row, ...], table: dict[str, Any]) -> Campaign:
    timeouts, thresholds = table.get("timeouts", {}), table.get("thresholds", {})
    layout = replace(layout, todo_name=table.get("progress", {}).get("todo", layout.todo_name))
    optional: dict[str, Any] = {key: table[key] for key in ("engine", "resident", "build", "launcher") if key in table}
    optional |= timeouts | table.get("limits", {})
    if "min_success_rate" in thresholds:
        optional["min_success_rate"] = thresholds["min_success_rate"]
    return Campaign(
        layout,
        rows,
        baseline=table["baseline"],
        expected_gpus=table["expected_gpus"],
        defaults=EvalSettings().updated(table.get("lerobot_eval", {})),
        row_tables=table.get("rows", {}),
        row_success_rates=thresholds.get("rows", {}),
        known_answers={run_id: _expected_outcome(tasks) for run_id, tasks in table.get("known_answers", {}).items()},
        cuda_to_egl={int(cuda): egl for cuda, egl in table.get("egl", {}).get("cuda_to_egl", {}).items()},
        policy_roots=tuple(Path(root).resolve() for root in table.get("security", {}).get("policy_roots", ())),
        trusted=tuple(table.get("security", {}).get("trusted", ())),
        executable=tuple(table.get("executable", ())),
        accept_invalid_sim=table.get("preflight", {}).get("accept_invalid_sim", False),
        strict=table.get("preflight", {}).get("strict", False),
        film=table.get("report", {}).get("videos", "none"),
        verdict=verdict_settings.of_table(table.get("verdict")),
        metrics=metrics_settings.of_table(table.get("metrics")),
        slurm=slurm_settings.of_table(table.get("slurm")),
        tiers=tiers.of_tables(table.get("tiers", {})),
        **optional,
    )


def _expected_outcome(tasks: Mapping[str, Sequence[int]]) -> dict[int, tuple[int, ...]]:
    return {int(task): tuple(sorted(episodes)) for task, episodes in tasks.items()}


def _unknown_names(where: str, rows: Sequence[Row], table: Mapping[str, Any]) -> Iterator[Finding]:
    """Yields run ids in the settings that the matrix does not have. The settings may still break their schema."""
    rows_by_id = {row.run_id: row for row in rows}
    thresholds = table.get("thresholds")
    rates = thresholds.get("rows") if isinstance(thresholds, dict) else None
    tables = [table.get("rows"), rates, table.get("known_answers")]
    for run_id in dict.fromkeys(name for section in tables if isinstance(section, dict) for name in section):
        if run_id not in rows_by_id:
            remedy = f"{close_match.asked_name(run_id, rows_by_id)}Name a run id of the matrix"
            yield Finding(f"{where}, row {run_id}", "the matrix has no such row", remedy)
    baseline = table.get("baseline")
    if isinstance(baseline, str) and not (baseline in rows_by_id and rows_by_id[baseline].enabled):
        what = f"the baseline {baseline!r} is not an enabled row of the matrix"
        asked = "" if baseline in rows_by_id else close_match.asked_name(baseline, rows_by_id)
        yield Finding(f"{where}, key baseline", what, f"{asked}Name an enabled row: phase 3 runs it")


def _wrong_tasks(campaign: Campaign) -> Iterator[Finding]:
    where = str(campaign.layout.settings)
    for row in campaign.rows:
        if row.run_id == campaign.baseline and len(campaign.task_ids(row)) != 1:
            remedy = f"Pin one task, such as task_ids = [0] under [rows.{row.run_id}]"
            yield Finding(f"{where}, row {row.run_id}", "the baseline runs several LIBERO tasks", remedy)
        if beyond := [task for task in campaign.task_ids(row) if task >= SUITE_TASKS[row.task_suite]]:
            what = f"{row.task_suite} has no task {beyond}"
            yield Finding(
                f"{where}, row {row.run_id}, key task_ids", what, f"Use 0 to {SUITE_TASKS[row.task_suite] - 1}"
            )


def _wrong_builds(campaign: Campaign) -> Iterator[Finding]:
    """Yields folders in `[build]` that are not in the campaign, or where the campaign keeps other things."""
    root = campaign.layout.root.resolve()
    for name in campaign.build:
        where, folder = f"{campaign.layout.settings}, build.{name}", campaign.layout.root / name
        kept_for_others = (root, *(root / part for part in ("artifacts", "configs", "todo")))
        is_plain = not Path(name).is_absolute() and ".." not in Path(name).parts and "\0" not in name
        remedy = "Name a folder of the campaign, such as checkpoints/NAME"
        if not is_plain or not _resolved(folder).is_relative_to(root):
            leads = f", which is {_resolved(folder)}" if is_plain else ""
            yield Finding(where, f"a checkpoint is built inside of the campaign, not in {name}{leads}", remedy)
        elif folder.resolve() in kept_for_others or folder.resolve().is_relative_to(root / "artifacts"):
            yield Finding(where, f"the campaign keeps other things in {name}", remedy)


def _resolved(path: Path) -> Path:
    """Returns `path` without links; as it stands where its links go round in circles."""
    try:
        return path.resolve(strict=False)
    except (OSError, RuntimeError):
        return path


def _wrong_verdict(campaign: Campaign) -> Iterator[Finding]:
    if campaign.verdict is not None:
        table = f"tiers.{campaign.tier.name}.verdict" if campaign.tier else "verdict"
        where = f"{campaign.layout.settings}, {table}"
        yield from verdict_settings.faults(campaign.verdict, where, campaign.compared_tasks)


def _wrong_expected_outcomes(campaign: Campaign) -> Iterator[Finding]:
    """Yields expected outcomes that a row cannot have: of other tasks than the row runs, or of more episodes."""
    for row in campaign.rows:
        outcome = campaign.known_answers.get(row.run_id)
        if outcome is None:
            continue
        where = f"{campaign.layout.settings}, known_answers.{row.run_id}"
        if tuple(sorted(outcome)) != campaign.task_ids(row):
            what = f"the answer is for tasks {sorted(outcome)}, but the row runs tasks {list(campaign.task_ids(row))}"
            yield Finding(where, what, "Give an answer for each task that the row runs")
        for task, episodes in outcome.items():
            if beyond := [episode for episode in episodes if episode >= row.n_episodes]:
                what = f"task {task} has no episode {joined_names([str(episode) for episode in beyond])}"
                yield Finding(where, what, f"Use 0 to {row.n_episodes - 1}")


def slots(workers: int, batch_size: int) -> int:
    """Returns the number of environment slots for a row of the resident engine that sets none.

    The number is one slot per worker, or two batches if that is more, but at most two slots per worker: while the
    policy computes actions for one batch another batch is played, which never needs more. A slot costs seconds to build
    and 0.7 GB.
    """
    return min(2 * workers, max(workers, 2 * batch_size))


# The flags of lerobot-eval that the resident engine supports with a single value only, and that value.
SUPPORTED_VALUES = {"eval.recording": False, "env.hard_reset": True, "env.init_states": True}


def _unsupported_settings(campaign: Campaign) -> Iterator[Finding]:
    """Yields settings that the campaign's engine cannot follow, so that they are reported before a row runs."""
    if not campaign.is_resident:
        yield from _unrecordable_rows(campaign)
        return
    for row in campaign.enabled:
        settings, where = campaign.settings(row), f"{campaign.layout.settings}, row {row.run_id}"
        if settings.use_async_envs is False and row.batch_size > 1:
            what = "sync environments skip init states in lerobot-eval if batch_size is above 1"
            yield Finding(f"{where}, key use_async_envs", what, "Leave the key out, or set batch_size to 1")
        for name, value in settings.flags.items():
            if value is not SUPPORTED_VALUES.get(name, value):
                what = f"the resident engine does not support {name}={value}"
                yield Finding(f"{where}, key flags", what, "Leave the flag out, or set engine = 'lerobot-eval'")


def _wrong_slurm(campaign: Campaign) -> Iterator[Finding]:
    """Yields what is wrong with `[slurm]`, whatever the launcher is, since a command line may name another."""
    rows = campaign.enabled if campaign.slurm.time_minutes else ()  # nothing else depends on the rows
    deadlines = {row.run_id: float(campaign.timeout(row) + campaign.grace_secs) for row in rows}
    yield from slurm_settings.faults(campaign.slurm, f"{campaign.layout.settings}, [slurm]", deadlines)


def _unrecordable_rows(campaign: Campaign) -> Iterator[Finding]:
    """Yields the rows that ask for a record of a program of the campaign's own, to which Track A cannot listen."""
    recorded = [row.run_id for row in campaign.enabled if campaign.settings(row).record_actions]
    if campaign.executable and recorded:
        where = f"{campaign.layout.settings}, key record_actions, rows {joined_names(recorded)}"
        what = "only lerobot's own lerobot-eval can be recorded, and the campaign names another program (executable)"
        yield Finding(where, what, "Take record_actions out, or the executable")


def effective(settings: EvalSettings) -> dict[str, Any]:
    """Returns the settings that are set, as plain data for manifests and hashes.

    `record_actions` is left out: it changes no episode, so a run with a record stands for one without.
    """
    values = {item.name: getattr(settings, item.name) for item in fields(settings) if item.name != "record_actions"}
    plain = {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}
    return {key: dict(value) if isinstance(value, Mapping) else value for key, value in plain.items() if _is_set(value)}


def _is_set(value: Any) -> bool:
    return value is not None and value != {}
