"""Damages single files of a finished campaign, found on disk, so that a new artifact is damaged too."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from campaigns import Made

# Each changes a file's content; the second argument is the content of the same file of another row, or of a neighbour.
CHANGES: dict[str, Callable[[bytes, bytes], bytes]] = {
    "empty": lambda content, other: b"",
    "cut": lambda content, other: content[: len(content) // 2],
    "list": lambda content, other: b"[]\n",
    "other": lambda content, other: other,
}
KINDS = ("missing", "folder", *CHANGES)
# The user's own files, which only the user can mend, and those of the stand-ins.
_NOT_ARTIFACTS = ("configs", "checkpoints", "cache", ".cache")


def damage(path: Path, kind: str, other: bytes) -> None:
    """Damages a file; a hard link to it elsewhere stays whole."""
    content = path.read_bytes()
    path.unlink()
    if kind == "folder":
        (path / "inside").mkdir(parents=True)
    elif kind != "missing":
        path.write_bytes(CHANGES[kind](content, other))


def artifacts(root: Path) -> Iterator[Path]:
    """Yields every file that a session has left in a campaign's folder."""
    for path in sorted(root.rglob("*")):
        is_ours = path.relative_to(root).parts[0] not in _NOT_ARTIFACTS and not path.name.startswith("standin.")
        if is_ours and path.is_file() and not path.is_symlink():
            yield path


def row_files(made: Made, run_id: str) -> list[str]:
    """Returns the files of a row, relative to the campaign, with `{row}` in place of its run id."""
    found = (str(path.relative_to(made.root)) for path in artifacts(made.root))
    return [path.replace(run_id, "{row}") for path in found if run_id in path]


def campaign_files(made: Made, run_ids: Sequence[str]) -> list[str]:
    """Returns the files of a campaign that belong to no row, relative to the campaign."""
    found = (str(path.relative_to(made.root)) for path in artifacts(made.root))
    return [path for path in found if not any(run_id in path for run_id in run_ids)]


def cached_files(made: Made) -> list[str]:
    """Returns the files that Track A keeps in the user's cache, relative to the campaign, in whose folder that is."""
    kept = made.root / "cache" / "tracka"
    return [str(path.relative_to(made.root)) for path in sorted(kept.rglob("*")) if path.is_file()]


def damage_each_row(made: Made, kind: str, run_ids: Sequence[str], names: Sequence[str]) -> None:
    """Damages one file of each row, the next of `names` each time; `other` is that of the next row."""
    content = {path: path.read_bytes() for path in artifacts(made.root)}
    for number, name in enumerate(names):
        run_id, following = run_ids[number], run_ids[(number + 1) % len(run_ids)]
        damage(made.root / name.format(row=run_id), kind, content[made.root / name.format(row=following)])


def damage_all(made: Made, kind: str, names: Sequence[str]) -> None:
    """Damages these files of a campaign; `other` is the next one of them."""
    content = [(made.root / name).read_bytes() for name in names]
    for number, name in enumerate(names):
        damage(made.root / name, kind, content[(number + 1) % len(names)])
