"""Reads the evaluation matrix, `eval_matrix.csv`, with one `Row` per line and exactly the plan's nine columns.

Guarantees: a matrix is read whole or refused with all its errors at once, each with line and column; the order of rows
is the order of the file; a run id is a plain file name, so it can never point outside the runs folder.
"""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..core import close_match, reading
from ..core.errors import Finding, UsageError, shortened
from ..core.lerobot_facts import SUITE_TASKS

REASON = "reason"  # the column that failures.csv has beside those of the matrix
COLUMNS = ("run_id", "task_suite", "batch_size", "n_episodes", "gpu_id", "seed", "mujoco_gl", "policy_path", "enabled")
BACKENDS = ("egl", "glx", "osmesa")
RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
CPU, AUTO = -1, -2


@dataclass(frozen=True)
class Row:
    """One line of the matrix: what the user asks for, before campaign.toml and preflight change anything."""

    run_id: str
    task_suite: str
    batch_size: int
    n_episodes: int  # per LIBERO task
    gpu_id: int  # an index among the visible GPUs, or CPU, or AUTO
    seed: int
    mujoco_gl: str
    policy_path: str
    enabled: bool

    line: int = 0

    @property
    def played_batch(self) -> int:
        """Returns how many episodes lerobot-eval plays at a time: it makes no more environments than episodes."""
        return min(self.batch_size, self.n_episodes)


def load(path: Path, replay: bool = False) -> tuple[Row, ...]:
    """Returns the rows of the matrix at `path`.

    With `replay` the matrix may be a failures.csv, whose last column `reason` is ignored. Raises UsageError with every
    finding: unknown or missing columns, duplicate run ids, bad values.
    """
    columns, lines = _lines(path, replay)
    findings = [_wrong_cell_count(path, line, cells, columns) for line, cells in lines if len(cells) != len(columns)]
    table = [(line, dict(zip(columns, cells, strict=True))) for line, cells in lines if len(cells) == len(columns)]
    findings += [finding for line, record in table for finding in _faults(f"{path}, line {line}", record)]
    findings += _duplicates(path, table)
    if not lines and columns == COLUMNS:  # no failure is no error
        findings.append(Finding(str(path), "the matrix has no rows", "Add one line per run"))
    if findings:
        raise UsageError(findings)
    return tuple(_row(line, record) for line, record in table)


def parse(cells: Sequence[str], where: str) -> Row:
    """Returns one row from its nine cells, as the command line gives them. Raises UsageError with every finding."""
    record = dict(zip(COLUMNS, cells, strict=True))
    if findings := list(_faults(where, record)):
        raise UsageError(findings)
    return _row(0, record)


def _lines(path: Path, replay: bool) -> tuple[tuple[str, ...], list[tuple[int, list[str]]]]:
    """Returns the columns of the table at `path`, and the number and the cells of each line."""
    try:
        text = reading.text(path, reading.MATRIX, newline="").removeprefix("\ufeff")  # Excel's byte order mark
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        columns = tuple(next(reader, []))
        if not (replay and columns == (*COLUMNS, REASON)):
            _check_header(path, columns)
        return columns, [(reader.line_num, cells) for cells in reader if cells]
    except FileNotFoundError:
        remedy = "Write the file, or make a campaign with `tracka init NAME`"
        raise UsageError(Finding(str(path), "the matrix does not exist", remedy)) from None
    except OSError as error:
        raise UsageError(Finding(str(path), f"the matrix cannot be read ({error})", "Write it anew")) from None
    except UnicodeDecodeError as error:
        where = f"{path}, line {error.object.count(10, 0, error.start) + 1}"
        raise UsageError(Finding(where, f"this is not CSV in UTF-8 ({error})", "Save it as UTF-8 CSV")) from None
    except csv.Error as error:
        where = f"{path}, line {reader.line_num}"
        raise UsageError(Finding(where, f"this is not CSV in UTF-8 ({error})", "Save it as UTF-8 CSV")) from None


def _check_header(path: Path, header: tuple[str, ...]) -> None:
    if header == COLUMNS:
        return
    missing = [name for name in COLUMNS if name not in header]
    unknown = [name for name in header if name not in COLUMNS]
    names = f"missing: {missing or 'none'}, unknown: {shortened(unknown or 'none', 80)}"
    difference = names if missing or unknown else "their order differs"
    what = f"the columns differ from the plan's ({difference})"
    asked = "".join(close_match.asked_name(name, missing) for name in unknown[:1])
    raise UsageError(Finding(f"{path}, line 1", what, f"{asked}Write the header as {','.join(COLUMNS)}"))


def _wrong_cell_count(path: Path, line: int, cells: list[str], columns: Sequence[str]) -> Finding:
    what = f"the line has {len(cells)} cells and needs {len(columns)}"
    return Finding(f"{path}, line {line}", what, "Write one cell per column")


def _faults(where: str, record: dict[str, str]) -> Iterator[Finding]:
    for column, (pattern, description, remedy) in _CELLS.items():
        if not re.fullmatch(pattern, record[column]):
            what = f"{shortened(record[column])!r} is not {description}"
            asked = close_match.asked_name(record[column], _NAMES.get(column, ()))
            yield Finding(f"{where}, column {column}", what, f"{asked}{remedy}")


_NUMBER = r"[1-9][0-9]{0,8}"
_NAMES = {"task_suite": tuple(SUITE_TASKS), "mujoco_gl": BACKENDS, "gpu_id": ("auto", "cpu")}
# Column -> the pattern of its cells, what a cell must be, and what to write in place of another one.
_CELLS = {
    "run_id": (
        RUN_ID.pattern,
        "a run id (letters, digits, '.', '_' and '-', at most 100, a letter or digit first)",
        "Write a name such as object_t0_b10_e50",
    ),
    "task_suite": ("|".join(SUITE_TASKS), f"one of {', '.join(SUITE_TASKS)}", "Write one of these names"),
    "batch_size": (_NUMBER, "a whole number from 1 up", "Write a number such as 10"),
    "n_episodes": (_NUMBER, "a whole number from 1 up", "Write a number such as 50"),
    "gpu_id": (
        r"0|-1|[1-9][0-9]{0,3}|auto|cpu",
        "a GPU's index, auto, or cpu (also -1)",
        "Write 0 for the first GPU, or auto for any",
    ),
    "seed": (r"0|" + _NUMBER, "a whole number from 0 up", "Write a number such as 7"),
    "mujoco_gl": ("|".join(BACKENDS), f"one of {', '.join(BACKENDS)}", "Write egl if you have no reason for another"),
    "policy_path": (
        r"[^\s\x00-\x1f\x7f](?:[^\x00-\x1f\x7f]*[^\s\x00-\x1f\x7f])?",
        "a checkpoint: repo, repo@revision or a folder",
        "Write a path such as outputs/my_policy",
    ),
    "enabled": ("0|1", "0 or 1", "Write 1 to run the row, or 0 to leave it out"),
}


def _duplicates(path: Path, table: list[tuple[int, dict[str, str]]]) -> Iterator[Finding]:
    first_lines: dict[str, int] = {}
    for line, record in table:
        run_id = record["run_id"].casefold()  # ids that differ only in case are the same folder on some disks
        if run_id in first_lines:
            what = f"{shortened(record['run_id'])!r} is on line {first_lines[run_id]} already"
            yield Finding(f"{path}, line {line}, column run_id", what, "Give each row its own run id")
        first_lines.setdefault(run_id, line)


def _row(line: int, record: dict[str, str]) -> Row:
    return Row(
        run_id=record["run_id"],
        task_suite=record["task_suite"],
        batch_size=int(record["batch_size"]),
        n_episodes=int(record["n_episodes"]),
        gpu_id=parse_gpu(record["gpu_id"]),
        seed=int(record["seed"]),
        mujoco_gl=record["mujoco_gl"],
        policy_path=record["policy_path"],
        enabled=record["enabled"] == "1",
        line=line,
    )


def parse_gpu(text: str) -> int:
    """Returns a cell of the column gpu_id as a number: an index, CPU or AUTO."""
    return {"cpu": CPU, "-1": CPU, "auto": AUTO}.get(text) or int(text)
