"""Writes what a campaign has played into one small file that can be committed, and reads such a file as a side.

Guarantees: a baseline that was changed after it was made is refused, since it holds its own hash. The same episodes
give the same lines, one an episode, so that the difference of two versions of a baseline shows the flipped episodes.
"""

from pathlib import Path
from typing import cast

from .. import __version__
from ..core import files, git, schema
from ..core.baselines import Baseline, EpisodeRecord
from ..core.errors import Finding, UsageError
from ..core.files import Json
from .sides import PlayedEpisode, Side

KIND = "tracka baseline"
REMEDY = "Take the file as `tracka baseline promote` wrote it, or promote the campaign again"


def make(side: Side, name: str, folder: Path) -> Baseline:
    """Returns the baseline of a campaign called `name` in `folder`. Raises UsageError with what is unfit in `side`."""
    if side.findings:
        raise UsageError(side.findings)
    content: Json = {
        "schema_version": schema.VERSION,
        "kind": KIND,
        "name": name,
        "promoted_at_utc": files.utc_now(),
        "tracka_version": __version__,
        "git_commit": git.commit(folder),
        "rows": [*side.rows],
        "left_out": [*side.left_out],
        "episodes": [_record(episode) for episode in side.episodes],
    }
    content = files.redacted(content)
    return cast(Baseline, content | {"sha256": files.own_sha256(content)})


def text(baseline: Baseline) -> str:
    """Returns the content of the file: JSON with a line for each episode."""
    head = {key: value for key, value in baseline.items() if key != "episodes"}
    lines = ",\n".join(f"    {files.canonical(episode).decode()}" for episode in baseline["episodes"])
    return f'{files.pretty(head).decode().removesuffix("\n}\n")},\n  "episodes": [\n{lines}\n  ]\n}}\n'


def write(baseline: Baseline, path: Path) -> None:
    """Writes the baseline to `path`, in place of an older baseline if there is one.

    The file gets the user's usual permissions, unlike artifacts, since it is shared. Raises UsageError where `path` is
    something else than a baseline, or its folder is missing.
    """
    if path.exists() and not is_baseline(path):
        raise UsageError(Finding(str(path), "the path exists and is not a baseline", "Choose another name"))
    if not path.parent.is_dir():
        raise UsageError(Finding(str(path), f"the folder {path.parent} does not exist", "Make it, or name another"))
    with files.as_open_as(path.parent):
        path.write_text(text(baseline), encoding="utf-8")


def is_baseline(path: Path) -> bool:
    """Returns whether `path` is an exported baseline, sound or not."""
    return path.is_file() and files.read_or_empty(path).get("kind") == KIND


def read(path: Path) -> Baseline:
    """Returns the baseline in `path`. Raises UsageError where the file breaks its schema or was changed."""
    baseline = schema.read("baseline", path)
    if files.own_sha256(baseline) != baseline["sha256"]:
        raise UsageError(Finding(f"{path}, key sha256", "the baseline was changed after it was made", REMEDY))
    return baseline


def side(path: Path) -> Side:
    """Returns the baseline in `path` as a side of a comparison. Raises UsageError as `read` does."""
    baseline = read(path)
    return Side(
        str(path),
        "baseline",
        episodes(baseline),
        (*baseline["left_out"],),
        rows=(*baseline["rows"],),
    )


def episodes(baseline: Baseline) -> tuple[PlayedEpisode, ...]:
    """Returns the episodes of a baseline."""
    return tuple(_episode(record) for record in baseline["episodes"])


def _record(episode: PlayedEpisode) -> EpisodeRecord:
    return {
        "suite": episode.task[0],
        "task": episode.task[1],
        "episode": episode.number,
        "init_state": episode.init_state,
        "fixed_start": episode.fixed_start,
        "seed": episode.seed,
        "reset_ordinal": episode.reset_ordinal,
        "length": episode.length,
        "success": episode.success,
        "repeated": episode.repeated,
    }


def _episode(record: EpisodeRecord) -> PlayedEpisode:
    return PlayedEpisode(
        task=(record["suite"], record["task"]),
        number=record["episode"],
        init_state=record["init_state"],
        success=record["success"],
        video=None,
        seed=record["seed"],
        reset_ordinal=record["reset_ordinal"],
        length=record["length"],
        fixed_start=record["fixed_start"],
        repeated=record["repeated"],
    )
