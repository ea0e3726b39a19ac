"""A new campaign: `tasks/NAME/configs/` with a matrix, its settings and the run schema, ready to be edited."""

import csv
import io
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from . import campaign, checkpoint, files, matrix, preset, progress, schema
from .campaign import Campaign
from .errors import Finding, RunExists, UsageError, collected, short
from .layout import Layout
from .matrix import COLUMNS, RUN_ID, SUITES


@dataclass(frozen=True)
class Wanted:
    """What a new campaign is to evaluate."""

    policy_path: str = "lerobot/pi0_libero_finetuned"
    suite: str = "libero_object"
    policy_type: str | None = None  # asked of the checkpoint where it is a folder
    gpus: int = 1  # 0 is the CPU
    batch_size: int = 10
    n_episodes: int = 50  # of each LIBERO task
    seed: int = 7
    preset: str | None = None  # a policy type whose settings are known


def create(root: Path, wanted: Wanted) -> Campaign:
    """Writes the campaign's folder `root` and returns it loaded.

    Raises UsageError for a bad name or suite, and RunExists where the folder has a configs folder already.
    """
    layout = Layout(root.absolute())
    findings = list(_faults(root, wanted))
    wanted = collected(findings, lambda: _with_preset(root, wanted)) or wanted
    known = wanted if wanted.suite in SUITES else replace(wanted, suite=Wanted.suite)  # to see what else is wrong
    matrix_text = collected(findings, lambda: _matrix(known))
    if findings or matrix_text is None:
        raise UsageError(findings)
    if layout.settings.parent.exists():
        raise RunExists(Finding(str(layout.settings.parent), "the campaign exists", "Choose another name"))
    texts = {layout.matrix: matrix_text, layout.settings: _settings(root, wanted)}
    layout.settings.parent.mkdir(parents=True)  # as the user's umask says: a definition is shared, unlike artifacts
    for path, text in texts.items():
        path.write_text(text, encoding="utf-8")
    write_schema(layout)
    progress.ensure(layout)
    return campaign.load(root)


def _faults(root: Path, wanted: Wanted) -> Iterator[Finding]:
    if re.fullmatch(RUN_ID, root.name) is None:
        yield Finding(short(root.name), "this is no plain folder name", "Use letters, digits, '.', '_' and '-'")
    if wanted.suite not in SUITES:
        yield Finding("--suite", f"LIBERO has no suite {short(wanted.suite)!r}", f"Use one of {', '.join(SUITES)}")


def _with_preset(root: Path, wanted: Wanted) -> Wanted:
    """With the preset's checkpoint where none is named. Raises UsageError for a preset that is unknown or of another
    policy type than the checkpoint is, or is said to be."""
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
    """Run id -> LIBERO task, batch size, episodes: the baseline, then one row a task, so that GPUs share a suite."""
    name = wanted.suite.removeprefix("libero_")
    scaled = {
        f"{name}_t{task}_b{wanted.batch_size}_e{wanted.n_episodes}": (task, wanted.batch_size, wanted.n_episodes)
        for task in range(SUITES[wanted.suite])
    }
    return {"baseline_b1_e2": (0, 1, 2), **scaled}


def _matrix(wanted: Wanted) -> str:
    """The matrix as text. Raises UsageError where a row would not be read back."""
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
        'baseline = "baseline_b1_e2"',
        f"expected_gpus = {wanted.gpus}",
        "",
        "[lerobot_eval]",
        f"policy_type = {json.dumps(kind)}"
        if kind
        else '# policy_type = "pi0"   # so that phase 1 knows the flags of the policy',
        *_known(wanted),
        "",
        "[thresholds]",
        "min_success_rate = 0.0   # from 0 to 1, of each row",
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
    """The preset's settings; without one, those that are often needed, as comments."""
    if wanted.preset is not None:
        return preset.lines(preset.find(wanted.preset))
    return (
        "# n_action_steps = 10   # steps of a chunk that are played before the policy is asked again",
        "# episode_length = 280   # control steps; the suite's own where it is not set",
        "# rename_map = {}   # observation key of the environment = key that the policy was trained with",
    )


def _policy_type(root: Path, policy_path: str) -> str | None:
    """The type of a checkpoint that is a folder here, and of the one that campaigns start with; else unknown."""
    if policy_path == Wanted.policy_path:
        return "pi0"
    config = checkpoint.in_campaign(policy_path, root) / "config.json"
    return checkpoint.policy_type(config) if config.is_file() else None
