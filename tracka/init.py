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
from .checkpoints import checkpoint
from .core import files, schema
from .core.errors import Finding, RunExists, UsageError, collected, short, some
from .core.lerobot_facts import SUITE_TASKS
from .reporting import progress

BASELINE = "baseline_b1_e2"


@dataclass(frozen=True)
class Wanted:
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


def create(root: Path, wanted: Wanted) -> Campaign:
    """Writes the campaign's folder `root` and returns the campaign, loaded.

    Raises UsageError with everything that is wrong in `root` and `wanted`, such as a bad name or suite, and RunExists
    where the folder has a configs folder already.
    """
    layout = Layout(root.absolute())
    findings = list(_faults(root, wanted))
    wanted = collected(findings, lambda: _with_preset(root, wanted)) or wanted
    # A known suite takes the place of an unknown one, so that everything else that is wrong is found too.
    known = wanted if wanted.suite in SUITE_TASKS else replace(wanted, suite=Wanted.suite)
    matrix_text = collected(findings, lambda: _matrix(known))
    if findings or matrix_text is None:
        raise UsageError(findings)
    if layout.settings.parent.exists():
        raise RunExists(Finding(str(layout.settings.parent), "the campaign exists", "Choose another name"))
    texts = {layout.matrix: matrix_text, layout.settings: _settings(root, wanted)}
    layout.settings.parent.mkdir(parents=True)  # by the user's umask, since a definition is shared, unlike artifacts
    for path, text in texts.items():
        path.write_text(text, encoding="utf-8")
    write_schema(layout)
    progress.ensure(layout)
    return campaign.load(root)


def _faults(root: Path, wanted: Wanted) -> Iterator[Finding]:
    if re.fullmatch(RUN_ID, root.name) is None:
        yield Finding(short(root.name), "this is no plain folder name", "Use letters, digits, '.', '_' and '-'")
    if wanted.suite not in SUITE_TASKS:
        yield Finding("--suite", f"LIBERO has no suite {short(wanted.suite)!r}", f"Use one of {', '.join(SUITE_TASKS)}")
    elif beyond := [task for task in wanted.task_ids if not 0 <= task < SUITE_TASKS[wanted.suite]]:
        what = f"{wanted.suite} has no task {some([str(task) for task in beyond])}"
        yield Finding("--task-ids", what, f"Use some of 0 to {SUITE_TASKS[wanted.suite] - 1}, such as 0,3")
    if found := checkpoint.training_folder(checkpoint.in_campaign(wanted.policy_path, root)):
        yield found
    if not 0 <= wanted.min_success_rate <= 1:
        yield Finding("--min-success-rate", f"{wanted.min_success_rate} is no rate", "Use 0 to 1, such as 0.9")


def _with_preset(root: Path, wanted: Wanted) -> Wanted:
    """Returns `wanted` with the preset's checkpoint where no other checkpoint is named.

    Raises UsageError where the preset is unknown, or is for another policy type than the checkpoint's or the named one.
    """
    if wanted.preset is None:
        return wanted
    known = preset.find(wanted.preset)
    if wanted.policy_path == Wanted.policy_path:
        wanted = replace(wanted, policy_path=known.policy_path)
    kind = wanted.policy_type or _policy_type(root, wanted.policy_path)
    if kind not in (None, known.policy_type):
        what = f"it is for {known.policy_type}, the policy is {kind}"
        raise UsageError(Finding("--preset", what, "Name the policy's own, or none"))
    return wanted


def write_schema(layout: Layout) -> None:
    """Writes configs/run_schema.json as this Track A has it."""
    layout.run_schema.write_bytes(files.pretty(schema.run_schema()))


def _rows(wanted: Wanted) -> dict[str, tuple[int, int, int]]:
    """Returns run id -> (LIBERO task, batch size, episodes).

    The baseline comes first, then one row a task, so that GPUs share a suite.
    """
    name = wanted.suite.removeprefix("libero_")
    tasks = sorted(set(wanted.task_ids)) or list(range(SUITE_TASKS[wanted.suite]))
    scaled = {
        f"{name}_t{task}_b{wanted.batch_size}_e{wanted.n_episodes}": (task, wanted.batch_size, wanted.n_episodes)
        for task in tasks
    }
    return {BASELINE: (tasks[0], 1, 2), **scaled}


def _matrix(wanted: Wanted) -> str:
    """Returns the text of the matrix. Raises UsageError where a row could not be read back."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    gpu = "auto" if wanted.gpus else "cpu"
    for run_id, (_, batch_size, episodes) in _rows(wanted).items():
        cells = [run_id, wanted.suite, batch_size, episodes, gpu, wanted.seed, "egl", wanted.policy_path, 1]
        matrix.parse([str(cell) for cell in cells], f"row {run_id}")
        writer.writerow(cells)
    return text.getvalue()


def _settings(root: Path, wanted: Wanted) -> str:
    kind = wanted.policy_type or wanted.preset or _policy_type(root, wanted.policy_path)
    lines = [
        "schema_version = 1",
        f'baseline = "{BASELINE}"',
        f"expected_gpus = {wanted.gpus}",
        "",
        "[lerobot_eval]",
        f"policy_type = {json.dumps(kind)}"
        if kind
        else '# policy_type = "pi0"   # so that phase 1 knows the flags of the policy',
        *([f"episode_length = {wanted.episode_length}"] if wanted.episode_length else []),
        *_known(wanted),
        "",
        "[thresholds]",
        f"min_success_rate = {wanted.min_success_rate}   # from 0 to 1, of each row; 0.0 is no threshold",
        "",
        "[thresholds.rows]",
        f"{BASELINE} = 0.0   # two episodes, which only show that rows run",
        "",
        "[timeouts]",
        "row_secs = 10800",
        "",
        "# The episodes of one LIBERO task must stay in one row: every process starts at init state 0.",
    ]
    for run_id, (task, _, _) in _rows(wanted).items():
        lines += [f"[rows.{run_id}]", f"task_ids = [{task}]", ""]
    return "\n".join(lines)


def _known(wanted: Wanted) -> Sequence[str]:
    """Returns the lines of the preset's settings; without a preset, settings that are often needed, as comments."""
    if wanted.preset is not None:
        return preset.lines(preset.find(wanted.preset))
    return (
        "# n_action_steps = 10   # steps of a chunk that are played before the policy is asked again",
        *(() if wanted.episode_length else ("# episode_length = 280   # control steps; else the suite's own",)),
        "# rename_map = {}   # observation key of the environment = key that the policy was trained with",
    )


def _policy_type(root: Path, policy_path: str) -> str | None:
    """Returns the type by the checkpoint's config.json, here or on the hub, or None without such a file.

    The type of the default checkpoint is known.
    """
    return "pi0" if policy_path == Wanted.policy_path else checkpoint.named_type(policy_path, root)
