"""Makes a new campaign: `tasks/NAME/configs/` with a matrix, its settings and the run schema, ready to be edited."""

import csv
import io
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from .campaign import campaign, matrix, preset
from .campaign.campaign import Campaign
from .campaign.layout import Layout
from .campaign.matrix import COLUMNS, RUN_ID
from .checkpoints import checkpoint, mistyped_folder
from .core import files, installation, schema
from .core.errors import Finding, RunExists, UsageError, collect_findings, joined_names, shortened
from .core.lerobot_facts import SUITE_TASKS
from .reporting import progress

BASELINE = "baseline_b1_e2"


@dataclass(frozen=True)
class CampaignOptions:
    """What a new campaign shall evaluate."""

    policy_path: str = "lerobot/pi0_libero_finetuned"
    suite: str = "libero_object"
    policy_type: str | None = None  # None: the preset's, or the checkpoint's own
    gpus: int = 1  # 0 is the CPU
    batch_size: int = 10
    n_episodes: int = 50  # of each LIBERO task
    seed: int = 7
    preset: str | None = None  # a policy type whose settings are known
    min_success_rate: float = 0.0  # of each row but the baseline; 0 is no threshold
    task_ids: tuple[int, ...] = ()  # of the suite; empty is all
    episode_length: int | None = None  # control steps; None is the suite's own
    threshold: float | None = None  # that each policy must show to reach in the suite; None asks for nothing
    frame_size: tuple[int, int] | None = None  # height and width; None is lerobot's own
    further_policies: tuple[str, ...] = ()  # these play the same episodes

    @property
    def policy_paths(self) -> tuple[str, ...]:
        return (self.policy_path, *self.further_policies)


@dataclass(frozen=True)
class NewRow:
    """One row of a new campaign."""

    task: int
    batch_size: int
    n_episodes: int
    policy_path: str


def create(root: Path, options: CampaignOptions) -> Campaign:
    """Writes the campaign's folder `root` and returns the campaign, loaded.

    Raises UsageError with everything that is wrong in `root` and `options`, such as a bad name or suite, and RunExists
    where the folder has a configs folder already.
    """
    layout = Layout(root.absolute())
    findings = list(_faults(root, options))
    options = collect_findings(findings, lambda: _with_preset(root, options)) or options
    # A known suite takes the place of an unknown one, so that everything else that is wrong is found too.
    with_known_suite = options if options.suite in SUITE_TASKS else replace(options, suite=CampaignOptions.suite)
    matrix_text = collect_findings(findings, lambda: _matrix(with_known_suite))
    if findings or matrix_text is None:
        raise UsageError(findings)
    return _write(layout, matrix_text, _settings(root, options))


def create_smoke(root: Path) -> Campaign:
    """Writes the embedded campaign into the folder `root` and returns the campaign, loaded.

    Its policy plays recorded demonstrations on the CPU, so the campaign shows that an installation works. Raises
    UsageError for a bad name, and RunExists where the folder has a configs folder already.
    """
    if findings := list(_name_faults(root)):
        raise UsageError(findings)
    configs = installation.smoke_configs()
    matrix_text, settings = ((configs / name).read_text("utf-8") for name in ("eval_matrix.csv", "campaign.toml"))
    return _write(Layout(root.absolute()), matrix_text, settings)


def _write(layout: Layout, matrix_text: str, settings: str) -> Campaign:
    """Writes a campaign's definition and its pages and returns the campaign. Raises RunExists where there is one."""
    if layout.settings.parent.exists():
        raise RunExists(Finding(str(layout.settings.parent), "the campaign exists already", "Choose another name"))
    layout.settings.parent.mkdir(parents=True)  # by the user's umask, since a definition is shared, unlike artifacts
    for path, text in {layout.matrix: matrix_text, layout.settings: settings}.items():
        path.write_text(text, encoding="utf-8")
    write_schema(layout)
    progress.ensure(layout)
    return campaign.load(layout.root)


def _name_faults(root: Path) -> Iterator[Finding]:
    if re.fullmatch(RUN_ID, root.name) is None:
        yield Finding(
            shortened(root.name), "the name is not a plain folder name", "Use letters, digits, '.', '_' and '-'"
        )


def _faults(root: Path, options: CampaignOptions) -> Iterator[Finding]:
    yield from _name_faults(root)
    if options.suite not in SUITE_TASKS:
        yield Finding(
            "--suite", f"LIBERO has no suite {shortened(options.suite)!r}", f"Use one of {', '.join(SUITE_TASKS)}"
        )
    elif unknown_tasks := [task for task in options.task_ids if not 0 <= task < SUITE_TASKS[options.suite]]:
        what = f"{options.suite} has no task {joined_names([str(task) for task in unknown_tasks])}"
        yield Finding("--task-ids", what, f"Use numbers from 0 to {SUITE_TASKS[options.suite] - 1}, such as 0,3")
    for policy_path in options.policy_paths:
        if policy_path != CampaignOptions.policy_path and (finding := mistyped_folder.finding(policy_path, root)):
            yield finding
    if repeated := {path for path in options.policy_paths if options.policy_paths.count(path) > 1}:
        yield Finding("--policy-path", f"{joined_names(sorted(repeated))} is given twice", "Name each policy once")
    if not 0 <= options.min_success_rate <= 1:
        yield Finding(
            "--min-success-rate", f"{options.min_success_rate} is not a success rate", "Use 0 to 1, such as 0.9"
        )
    if options.threshold is not None and not 0 < options.threshold < 1:
        yield Finding("--threshold", f"{options.threshold:g} is not between 0 and 1", "Give a share, such as 0.9")


def _with_preset(root: Path, options: CampaignOptions) -> CampaignOptions:
    """Returns `options` with the preset's checkpoint where no other checkpoint is named.

    Raises UsageError where the preset is unknown, or is for another policy type than the checkpoint's or the named one.
    """
    if options.preset is None:
        return options
    known_preset = preset.find(options.preset)
    if options.policy_path == CampaignOptions.policy_path:
        options = replace(options, policy_path=known_preset.policy_path)
    kinds = [options.policy_type or _policy_type(root, path) for path in options.policy_paths]
    if others := [kind for kind in kinds if kind not in (None, known_preset.policy_type)]:
        what = f"the preset is for {known_preset.policy_type}, but the policy is {others[0]}"
        raise UsageError(Finding("--preset", what, "Name the policy's own preset, or leave --preset out"))
    return options


def write_schema(layout: Layout) -> None:
    """Writes configs/run_schema.json as this Track A has it."""
    layout.run_schema.write_bytes(files.pretty(schema.run_schema()))


def _rows(options: CampaignOptions) -> dict[str, NewRow]:
    """Returns the rows by their run ids.

    The baseline comes first, then one row a task and policy, so that GPUs share a suite. The rows of the second policy
    end in `_p2`.
    """
    name = options.suite.removeprefix("libero_")
    tasks = sorted(set(options.task_ids)) or list(range(SUITE_TASKS[options.suite]))
    size = (options.batch_size, options.n_episodes)
    scaled = {
        f"{name}_t{task}_b{size[0]}_e{size[1]}{_suffix(number)}": NewRow(task, *size, policy_path)
        for number, policy_path in enumerate(options.policy_paths, 1)
        for task in tasks
    }
    return {BASELINE: NewRow(tasks[0], 1, 2, options.policy_path), **scaled}


def _suffix(number: int) -> str:
    return f"_p{number}" if number > 1 else ""


def _matrix(options: CampaignOptions) -> str:
    """Returns the text of the matrix. Raises UsageError where a row could not be read back."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    gpu = "auto" if options.gpus else "cpu"
    for run_id, row in _rows(options).items():
        cells = [run_id, options.suite, row.batch_size, row.n_episodes, gpu, options.seed, "egl", row.policy_path, 1]
        matrix.parse([str(cell) for cell in cells], f"row {run_id}")
        writer.writerow(cells)
    return text.getvalue()


def _settings(root: Path, options: CampaignOptions) -> str:
    kind = options.policy_type or options.preset or _policy_type(root, options.policy_path)
    lines = [
        "schema_version = 1",
        f'baseline = "{BASELINE}"',
        f"expected_gpus = {options.gpus}",
        "",
        "[lerobot_eval]",
        f"policy_type = {json.dumps(kind)}"
        if kind
        else '# policy_type = "pi0"   # so that phase 1 knows the flags of the policy',
        *([f"episode_length = {options.episode_length}"] if options.episode_length else []),
        *_frame_lines(options.frame_size),
        *_settings_lines(options),
        "",
        "[thresholds]",
        f"min_success_rate = {options.min_success_rate}   # from 0 to 1, of each row; 0.0 is no threshold",
        "",
        "[thresholds.rows]",
        f"{BASELINE} = 0.0   # two episodes, which only show that rows run",
        "",
        *([] if options.threshold is None else ["[verdict]", f"threshold = {options.threshold}", ""]),
        "[timeouts]",
        "row_secs = 10800",
        "",
        "# [progress]",
        '# todo = "../../todo"   # for campaigns that share a TODO.md; else todo/ beside plan.md',
        "",
        "# The episodes of one LIBERO task must stay in one row: every process starts at init state 0.",
    ]
    kinds = {path: options.policy_type or _policy_type(root, path) for path in options.further_policies}
    for run_id, row in _rows(options).items():
        own_kind = kinds.get(row.policy_path) or kind
        own = [f"policy_type = {json.dumps(own_kind)}"] if own_kind != kind else []
        lines += [f"[rows.{run_id}]", f"task_ids = [{row.task}]", *own, ""]
    return "\n".join(lines)


def _settings_lines(options: CampaignOptions) -> Sequence[str]:
    """Returns the lines of the preset's settings; without a preset, settings that are often needed, as comments."""
    if options.preset is not None:
        return preset.lines(preset.find(options.preset))
    return (
        "# n_action_steps = 10   # steps of a chunk that are played before the policy is asked again",
        *(() if options.episode_length else ("# episode_length = 280   # control steps; else the suite's own",)),
        "# rename_map = {}   # observation key of the environment = key that the policy was trained with",
    )


def _frame_lines(frame_size: tuple[int, int] | None) -> Sequence[str]:
    if frame_size is None:
        return ()
    height, width = frame_size
    return f"observation_height = {height}   # as in input_features of config.json", f"observation_width = {width}"


def _policy_type(root: Path, policy_path: str) -> str | None:
    """Returns the type by the checkpoint's config.json, here or on the hub, or None without such a file.

    The type of the default checkpoint is known.
    """
    return "pi0" if policy_path == CampaignOptions.policy_path else checkpoint.find_policy_type(policy_path, root)
