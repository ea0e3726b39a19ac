"""Mutated campaigns, artifacts and checkpoints: every command ends at once, by a documented exit code, with its reason.

Each case changes one file of a campaign and calls one command in this process. `make test` tries a small dose from one
fixed seed and one that is drawn anew and printed; the slow tests try two thousand, in parts that run at the same time.
A seed that finds a fault belongs into SEEDS, with the mended fault.
"""

import functools
import json
import os
import random
import re
import secrets
import shutil
import signal
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import hypothesis
import numpy
import pytest
import typer.main
from campaigns import Made, copied, fake_checkpoint, finished
from hypothesis import strategies
from safetensors.numpy import save_file

from tracka import cli
from tracka.core import files
from tracka.engines import cli_capabilities, codebase
from tracka.preflight import model_tensors

SEEDS = (1, 2, 3, 4)
DRAWN = 4  # further seeds, which are drawn anew each time
DOSE, EACH = 60, 250  # cases of a seed: eight parts of 250 cases, which xdist gives to as many workers as there are
CODES = {0, 1, 2, 3, 4, 5}
MOST_SECS = 20  # for one case, on a machine that does much else; a case takes 20 ms
# A refusal names a line, a key, a column, a row or an option; one of an artifact or a checkpoint may name its file.
PLACE = re.compile(r"\bline \d|\bkey |\bcolumn |\brow \w|--[a-z]|\.jsonl?\b|\.md\b|\.log\b|\.safetensors|checkpoints/")
VALUES: tuple[object, ...] = (
    None, True, -1, 0, 10**30, 1e308, "", "x" * 5000, "../../etc/passwd", "/", "a\\b", "~nobody/x",
    "\u202e\x1b[31m", "caf\u00e9", [], {}, [[]], {"a": {}}, [None], "2026-13-45T99:99:99Z", "NaN", {"status": "pass"},
    [1, "1", None], 0.5, -0.0, "\n",
)  # fmt: skip
# What neither a parser nor the code behind it may stumble over.
TEXTS = (
    b"[" * 2000, b'{"a":' * 2000, b"1" * 5000, b"NaN", b"-Infinity", b"1e999", b"0x" + b"f" * 6000, b"\xef\xbb\xbf",
    b"\xff\xfe", b"\x00", b'"\\u0000"', b'"\\ud800"', b"\r", b'"', b"'''", b"../x", b",", b"\n\n", b"a.b." * 500,
    b"= 1979-05-27", b"[[x]]", b"# \xe2\x80\xae", b"}", b"]", b" = ", b"true", b"\xf0\x9f\x98\x80",
    b"{}", b"-", b"99999999999999999999",
)  # fmt: skip
# What may stand in the place of a file.
PLACES: dict[str, Callable[[Path], object]] = {
    "nothing": lambda path: None,
    "pipe": os.mkfifo,
    "folder": lambda path: (path / "inside").mkdir(parents=True),
    "socket": lambda path: os.mknod(path, stat.S_IFSOCK | 0o600),
    "circle": lambda path: path.symlink_to(path),
    "device": lambda path: path.symlink_to("/dev/zero"),
    "giant": lambda path: (path.touch(), os.truncate(path, 1 << 40)),
    "dangling": lambda path: path.symlink_to("/nowhere/at/all"),
}
RICH = "rich"
SIZES = {"observation.state": 8, "action": 7}
COMMANDS = {
    "matrix": ("collect", "propose", "collect", "propose", "validate"),
    "settings": ("collect", "propose", "collect", "sweep", "validate"),
    "artifact": (
        "collect", "validate", "why", "sweep", "summary", "show", "compare", "ctrf", "replay", "collect", "eval-info",
        "report", "preflight", "promote",
    ),
    "checkpoint": ("check",),
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One change of one file, by a seed of its own, and the command that then reads it."""

    kind: str
    file: int
    seed: int
    command: int
    place: int

    def __str__(self) -> str:
        change = self.in_place or f"seed {self.seed}"
        return f"{self.kind} {self.file}, {change}, command {self.command} ({self.name})"

    @property
    def in_place(self) -> str | None:
        """What stands in the place of the file; None in nine of ten cases, which change the file's content."""
        return list(PLACES)[self.place // 10 % len(PLACES)] if self.place % 10 == 0 else None

    @property
    def name(self) -> str:
        """The name of the command."""
        return COMMANDS[self.kind][self.command % len(COMMANDS[self.kind])]


CASES = strategies.builds(
    Case,
    strategies.sampled_from(list(COMMANDS)),
    strategies.integers(0, 1000),
    strategies.integers(0, 1 << 32),
    strategies.integers(0, 1000),
    strategies.integers(0, 1000),
)


@pytest.fixture(scope="module")
def accepted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    """A copy of a campaign after all its gates, which the cases change and restore."""
    with pytest.MonkeyPatch.context() as patch:
        without_what_no_case_changes(patch)
        made = copied(finished(tmp_path_factory.getbasetemp(), "passed"), tmp_path_factory.mktemp("copy"))
        baseline = made.call("baseline", "promote", str(made.root), str(made.layout.artifacts / "baseline.json"))
        assert baseline.returncode == 0, baseline.stderr
        write_rich_checkpoint(made.root / "checkpoints" / RICH)
        for name, value in made.environ.items():
            patch.setenv(name, value)
        yield made


def without_what_no_case_changes(patch: pytest.MonkeyPatch) -> None:
    """Leaves out the probe of a checkpoint, which imports lerobot; finds software and the tree of commands once."""
    patch.setattr(cli, "app", typer.main.get_command(cli.app))
    patch.setattr(model_tensors, "checks", lambda *_: [])
    patch.setattr(codebase, "hashes", functools.cache(codebase.hashes))
    patch.setattr(cli_capabilities, "path_state", functools.cache(cli_capabilities.path_state))


def write_rich_checkpoint(folder: Path) -> None:
    """Writes a checkpoint with all JSON that a check reads: features, normalisers, a tokenizer, weights in parts."""
    fake_checkpoint(folder)
    features = {
        "observation.state": {"type": "STATE", "shape": [8]},
        "observation.images.image": {"type": "VISUAL", "shape": [3, 96, 96]},
    }
    modes = {"STATE": "MEAN_STD", "VISUAL": "IDENTITY", "ACTION": "MEAN_STD"}
    action = {"action": {"type": "ACTION", "shape": [7]}}
    config = {"type": "act", "input_features": features, "output_features": action, "normalization_mapping": modes}
    files.write_json(folder / "config.json", {**config, "device": "cpu", "n_action_steps": 5, "repo_id": "me/policy"})
    for name, kind in (("pre", "normalizer_processor"), ("post", "unnormalizer_processor")):
        step = {"features": features | action, "norm_map": modes, "eps": 1e-8}
        steps = [
            {"registry_name": "rename_observations_processor", "config": {"rename_map": {}}},
            {"registry_name": kind, "config": step, "state_file": f"{name}.safetensors"},
            {"registry_name": "device_processor", "config": {"device": "cpu", "float_dtype": None}},
        ]
        files.write_json(folder / f"policy_{name}processor.json", {"name": name, "steps": steps})
        ones = {f"{key}.{word}": numpy.ones(size, "f4") for key, size in SIZES.items() for word in ("mean", "std")}
        save_file(ones, folder / f"{name}.safetensors")
    files.write_json(
        folder / "tokenizer_config.json", {"tokenizer_file": None, "added_tokens_decoder": {"0": {"id": 0}}}
    )
    files.write_json(folder / "model.safetensors.index.json", {"weight_map": {"a": "model.safetensors"}})


def targets(made: Made, kind: str) -> list[Path]:
    if kind == "matrix":
        return [made.layout.matrix]
    if kind == "settings":
        return [made.layout.settings]
    if kind == "checkpoint":
        return sorted((made.root / "checkpoints" / RICH).glob("*.json"))
    return sorted(path for path in made.layout.artifacts.rglob("*.json*") if path.is_file())


def words(made: Made, case: Case) -> list[str]:
    layout = made.layout
    summary = str(layout.summary / "again")
    tables = ["--runs-root", str(layout.runs), "--summary-csv", f"{summary}.csv", "--summary-md", f"{summary}.md"]
    return {
        "collect": ["collect", *tables, "--failures-csv", f"{summary}_failures.csv", "--dry-run"],
        "sweep": made.sweep_words("--dry-run", "--resume"),
        "validate": ["validate", "--phase", f"phase{case.command % 5 + 1}", "--root", str(made.root)],
        "propose": ["propose", "--root", str(made.root)],
        "why": ["why", "wide_b4_e4", "--root", str(made.root)],
        "show": ["baseline", "show", str(made.layout.artifacts / "baseline.json")],
        "compare": ["compare", str(made.layout.artifacts / "baseline.json"), str(made.root)],
        "check": ["check", str(made.root / "checkpoints" / RICH)],
        "summary": ["summary", str(made.root)],
        "report": ["report", str(made.root), "--videos", "none", "--output", f"{summary}.html"],
        "ctrf": ["export", str(made.root), "--format", "ctrf", "--output", f"{summary}.ctrf"],
        "eval-info": ["export", str(made.root), "--format", "eval-info", "--output", f"{summary}.info"],
        "replay": ["replay", "wide_b4_e4", "--task", "0", "--episode", "0", "--root", str(made.root)],
        "preflight": made.preflight_words("--dry-run"),
        "promote": ["baseline", "promote", str(made.root), f"{summary}.baseline"],
    }[case.name]


def mutated(content: bytes, path: Path, chance: random.Random) -> bytes:
    """The content of a file, changed in its bytes, its lines and cells, or in the values of its JSON."""
    if path.suffix == ".json" and chance.random() < 0.6:
        return changed_json(content, chance)
    if path.suffix in (".csv", ".toml") and chance.random() < 0.6:
        return changed_line(content, path.suffix, chance)
    start = chance.randrange(len(content) + 1)
    end = chance.choice((start, start + 1, start + chance.randrange(40), len(content)))
    return content[:start] + chance.choice((*TEXTS, b"", content[:start][-40:])) + content[end:]


def changed_line(content: bytes, suffix: str, chance: random.Random) -> bytes:
    """The text with one cell of one line, or the value of one key, exchanged, and perhaps the line twice."""
    lines = content.splitlines(keepends=True)
    number = chance.randrange(len(lines))
    mark = b"," if suffix == ".csv" else b"="
    cells = lines[number].rstrip(b"\n").split(mark)
    cells[chance.randrange(len(cells))] = chance.choice((*TEXTS, *(json.dumps(value).encode() for value in VALUES)))
    lines[number : number + chance.randrange(2)] = [mark.join(cells) + b"\n"]
    return b"".join(lines)


def changed_json(content: bytes, chance: random.Random) -> bytes:
    """The JSON with one value exchanged or left out, at any depth."""
    value = json.loads(content)
    places: list[tuple[object, object]] = []
    pending: list[object] = [value]
    while pending:
        item = pending.pop()
        keys = item.keys() if isinstance(item, dict) else range(len(item)) if isinstance(item, list) else ()
        places += [(item, key) for key in keys]
        pending += [item[key] for key in keys]  # type: ignore[index]
    if not places:
        return json.dumps(chance.choice(VALUES)).encode()
    owner, key = chance.choice(places)
    if chance.random() < 0.2:
        del owner[key]  # type: ignore[attr-defined]
    else:
        owner[key] = chance.choice(VALUES)  # type: ignore[index]
    return json.dumps(value).encode()


def change(path: Path, content: bytes, case: Case) -> None:
    """Changes the file's content, or puts something else in its place."""
    if case.in_place is None:
        path.write_bytes(mutated(content, path, random.Random(case.seed)))
    else:
        path.unlink()
        PLACES[case.in_place](path)


def clear(path: Path) -> None:
    """Removes whatever stands at `path`, and what a command has set aside beside it."""
    for each in (path, *path.parent.glob(f"{path.name}.damaged*")):
        if each.is_dir() and not each.is_symlink():
            shutil.rmtree(each)
        else:
            each.unlink(missing_ok=True)


def hung(_: int, __: FrameType | None) -> None:
    raise TimeoutError(f"a case takes longer than {MOST_SECS} s")


def try_case(made: Made, case: Case) -> None:
    """Changes the file, calls the command, and holds its end against what is documented; restores the file."""
    paths = targets(made, case.kind)
    path = paths[case.file % len(paths)]
    before = path.read_bytes()
    change(path, before, case)
    previous = signal.signal(signal.SIGALRM, hung)
    signal.alarm(MOST_SECS)
    try:
        ended = made.call(*words(made, case))
    except BaseException as error:
        error.add_note(f"{case}: {path.relative_to(made.root)}")
        raise
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)
        clear(path)
        path.write_bytes(before)
    where = f"{case}: {path.relative_to(made.root)}: exit code {ended.returncode}\n{ended.stderr[-2000:]}"
    assert ended.returncode in CODES and "Traceback" not in ended.stderr, where
    if ended.returncode == 2:
        errors = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
        assert errors and all(PLACE.search(line) or (case.in_place and path.name in line) for line in errors), where
    assert len(ended.stderr) < 1 << 20, where


def fuzz(made: Made, seed: int, count: int) -> None:
    print(f"seed {seed}, {count} cases")

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
        print_blob=False,
    )
    @hypothesis.given(CASES)
    def every_case_ends_as_documented(case: Case) -> None:
        try_case(made, case)

    every_case_ends_as_documented()


def test_a_few_mutated_files_are_refused_or_judged_and_nothing_else(accepted: Made) -> None:
    fuzz(accepted, SEEDS[0], DOSE)
    fuzz(accepted, secrets.randbits(32), DOSE)


PARTS = [*(f"seed {seed}" for seed in SEEDS), *(f"drawn {number}" for number in range(1, DRAWN + 1))]


@pytest.mark.slow
@pytest.mark.parametrize("part", PARTS)
def test_two_thousand_mutated_files_are_refused_or_judged_and_nothing_else(accepted: Made, part: str) -> None:
    kind, number = part.split()
    fuzz(accepted, int(number) if kind == "seed" else secrets.randbits(32), EACH)
