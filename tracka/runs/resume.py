"""Continues a cut-off attempt of the resident engine: the next attempt keeps the episodes that it has played.

The kept lines and actions are copied into the new attempt's output before its engine starts, each line with the number
of the attempt that played the episode. `resumed.json` names those attempts, with the sha256 of each file that was used.

Guarantees: an attempt's folder is only read once it is closed. An episode is kept only from an attempt with the same
row hash, batch size, certificate and flags, whose files are as its result says and whose logs show no fault that makes
outcomes wrong. Whatever is damaged is played again. After an attempt that passed nothing older is kept.
"""

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..campaign.campaign import RESIDENT_NAMES
from ..campaign.layout import Layout, RunFolder
from ..core import files, schema, system_errors
from ..core.artifacts import Manifest, NamedAttempt, NamedEpisode, Result, Resumed
from ..core.errors import Finding, joined_names
from ..core.files import Json
from ..engines import episode_lines, failure
from ..engines.episode_lines import ATTEMPT, Key, RowEpisodes
from ..execution import gpu, slurm_outcome
from .judgement import run_again

FLAG = "--resident.resume=true"
# The ends after which what was played before them stands.
CUT_OFF = (
    "timeout",
    "killed",
    "interrupted",
    "crash",
    "oom",
    "flood",
    *failure.ENDED,
    system_errors.DISK_FULL,
    system_errors.READ_ONLY,
    system_errors.FILE_LIMIT,
    system_errors.PROCESS_LIMIT,
    slurm_outcome.PREEMPTED,
    slurm_outcome.NODE_LOST,
    slurm_outcome.TIME_LIMIT,
    slurm_outcome.MEMORY,
    slurm_outcome.CANCELLED,
    slurm_outcome.HARNESS,
)
SAME = ("engine", "row_hash", "batch_size", "certificate", "unproven", "invalid", "task_suite", "task_ids")
OWN_FLAGS = ("--output_dir=", "--policy.path=", "--resident.resume=")  # these differ between two attempts of a row


@dataclass(frozen=True)
class KeptEpisode:
    """An episode that an earlier attempt has played: the attempt's number, and the line that it wrote."""

    attempt: int
    line: Json


def kept(layout: Layout, manifest: Manifest, since: int = 1) -> list[KeptEpisode]:
    """Returns the episodes that the attempt of `manifest` need not play, by task and number.

    They were played by earlier attempts of the row, from the attempt `since` on.
    """
    if manifest["engine"] not in RESIDENT_NAMES:
        return []
    found: dict[Key, KeptEpisode] = {}
    for number in reversed(layout.run(manifest["run_id"]).numbers()):
        if number < since or _has_passed(layout, manifest, number):
            break
        if number < manifest["attempt"] and not unfit(layout, manifest, number):
            for key, line in _keepable(layout, manifest, number).items():
                found.setdefault(key, KeptEpisode(number, line))
    return [found[key] for key in sorted(found)]


def goes_on(layout: Layout, manifest: Manifest) -> bool:
    """Returns whether a further attempt like that of `manifest`, which has ended, would keep some of its episodes."""
    number = manifest["attempt"]
    return (
        manifest["engine"] in RESIDENT_NAMES
        and not unfit(layout, manifest, number)
        and bool(_keepable(layout, manifest, number))
    )


def _has_passed(layout: Layout, manifest: Manifest, number: int) -> bool:
    result = schema.read_or_none("result", layout.run(manifest["run_id"]).attempt(number).result)
    return result is not None and result["status"] == "pass"


def unfit(layout: Layout, manifest: Manifest, number: int) -> str | None:
    """Returns why the attempt of `manifest` may keep no episode of the attempt `number` of its row; None if it may."""
    folder = layout.run(manifest["run_id"]).attempt(number)
    earlier, result = schema.read_or_none("run_manifest", folder.manifest), schema.read_or_none("result", folder.result)
    if earlier is None or result is None or (result["run_id"], result["attempt"]) != (manifest["run_id"], number):
        return "its manifest or its result is missing or damaged"
    if result["reason"] not in CUT_OFF:
        return f"it was not cut off, but ended as {result['reason'] or result['status']}"
    if differing := [key for key in SAME if earlier.get(key) != manifest.get(key)]:
        return f"it ran with another {joined_names(differing)}"
    if _flags(earlier) != _flags(manifest):
        return "it ran with other flags"
    if changed := [name for name in _judged_files(folder) if not _is_as_closed(folder, result, name)]:
        return f"{joined_names(changed)} changed after it had ended"
    fault = failure.fault_in_logs((folder.stdout, folder.stderr), gpu.torch_name(earlier["gpu_id"]))
    return fault.message if fault else None


def _flags(manifest: Manifest) -> list[str]:
    """Returns the flags that two attempts must have in common for one to keep the other's episodes."""
    return [word for word in manifest["command"] or () if word.startswith("--") and not word.startswith(OWN_FLAGS)]


def _judged_files(folder: RunFolder) -> list[str]:
    """Returns the files of an attempt that all its episodes depend on, by their paths in its folder."""
    paths = (folder.stdout, folder.stderr, folder.output / episode_lines.NAME)
    return [path.relative_to(folder.path).as_posix() for path in paths]


def _is_as_closed(folder: RunFolder, result: Result, name: str) -> bool:
    path = folder.path / name
    return path.is_file() and result["files"].get(name) == files.sha256_file(path)


def _keepable(layout: Layout, manifest: Manifest, number: int) -> dict[Key, Json]:
    """Returns the lines of the attempt `number` that may be kept, each with actions as the attempt left them."""
    folder = layout.run(manifest["run_id"]).attempt(number)
    result = schema.read_or_none("result", folder.result)

    def is_as_left(line: Json) -> bool:
        return result is not None and _is_as_closed(folder, result, _actions_name(folder, line))

    lines = episode_lines.whole(folder.output / episode_lines.NAME)
    return episode_lines.keepable(folder.output, row_episodes(manifest), lines, is_as_left)


def _actions_name(folder: RunFolder, line: Mapping[str, object]) -> str:
    return episode_lines.actions(folder.output, line).relative_to(folder.path).as_posix()


def row_episodes(manifest: Manifest) -> RowEpisodes:
    """Returns the episodes that an attempt had to play."""
    batch = min(manifest["batch_size"], manifest["n_episodes"])
    return RowEpisodes(
        manifest["task_suite"], tuple(manifest["task_ids"]), manifest["n_episodes"], batch, manifest["seed"]
    )


def write(layout: Layout, manifest: Manifest, episodes: Sequence[KeptEpisode]) -> None:
    """Puts the kept episodes into the output of the attempt of `manifest`, whose folder is there, and names them."""
    top = layout.run(manifest["run_id"])
    folder = top.attempt(manifest["attempt"])
    for episode in episodes:
        source, target = (
            episode_lines.actions(each.output, episode.line) for each in (top.attempt(episode.attempt), folder)
        )
        files.make_folder(target.parent)
        files.copy_atomic(source, target)
    lines = [json.dumps(episode.line | {ATTEMPT: episode.attempt}) + "\n" for episode in episodes]
    files.write_text(folder.output / episode_lines.NAME, "".join(lines))
    files.write_json(folder.resumed, {**_content(top, manifest, episodes)})


def _content(top: RunFolder, manifest: Manifest, episodes: Sequence[KeptEpisode]) -> Resumed:
    hashes = {number: _record_hashes(top.attempt(number)) for number in sorted({each.attempt for each in episodes})}
    for episode in episodes:
        folder = top.attempt(episode.attempt)
        name = _actions_name(folder, episode.line)
        hashes[episode.attempt][name] = files.sha256_file(folder.path / name)
    return {
        "schema_version": schema.VERSION,
        "run_id": manifest["run_id"],
        "attempt": manifest["attempt"],
        "row_hash": str(manifest["row_hash"]),
        "attempts": [{"attempt": number, "files": used} for number, used in hashes.items()],
        "episodes": [
            {"task": episode.line["task"], "episode": episode.line["episode"], "attempt": episode.attempt}
            for episode in episodes
        ],
    }


def _record_hashes(folder: RunFolder) -> dict[str, str]:
    paths = (folder.manifest, folder.result, *(folder.path / name for name in _judged_files(folder)))
    return {path.relative_to(folder.path).as_posix(): files.sha256_file(path) for path in paths}


def findings(layout: Layout, manifest: Manifest) -> Iterator[Finding]:
    """Yields a finding where the kept episodes of an attempt are not, to the letter, those of the attempts it names.

    Raises UsageError where `resumed.json` is malformed.
    """
    folder = layout.run(manifest["run_id"]).attempt(manifest["attempt"])
    lines = [line for line in episode_lines.whole(folder.output / episode_lines.NAME) if ATTEMPT in line]
    if not os.path.lexists(folder.resumed):
        if lines:
            what = f"{len(lines)} lines are of other attempts, but the attempt names none"
            yield Finding(str(folder.output / episode_lines.NAME), what, run_again(layout))
        return
    content = schema.read("resumed", folder.resumed)
    for key in ("run_id", "attempt", "row_hash"):
        if content[key] != manifest[key]:
            what = f"the value is {content[key]!r}, but the manifest says {manifest[key]!r}"
            yield Finding(f"{folder.resumed}, key {key}", what, run_again(layout))
    for named in content["attempts"]:
        yield from _source_findings(layout, manifest, named)
    yield from _line_findings(layout, manifest, content, lines)


def _source_findings(layout: Layout, manifest: Manifest, named: NamedAttempt) -> Iterator[Finding]:
    """Yields a finding where an attempt, of which episodes were kept, is gone, has changed or does not fit."""
    number = named["attempt"]
    folder = layout.run(manifest["run_id"]).attempt(number)
    if not folder.path.is_dir():
        what = f"attempt {number}, whose episodes attempt {manifest['attempt']} keeps, is missing"
        yield Finding(str(folder.path), what, run_again(layout))
        return
    for name, sha256 in sorted(named["files"].items()):
        path = folder.path / name
        if not path.is_file() or files.sha256_file(path) != sha256:
            change = "changed" if path.is_file() else "removed"
            what = f"the file was {change} after attempt {manifest['attempt']} had kept its episodes"
            yield Finding(str(path), what, run_again(layout))
    if why := unfit(layout, manifest, number):
        what = f"attempt {manifest['attempt']} keeps episodes of attempt {number}, but {why}"
        yield Finding(str(folder.path), what, run_again(layout))


def _line_findings(layout: Layout, manifest: Manifest, content: Resumed, lines: Sequence[Json]) -> Iterator[Finding]:
    """Yields a finding for each episode that is named but not kept as it was played, or kept but not named."""
    path = layout.run(manifest["run_id"]).attempt(manifest["attempt"]).output / episode_lines.NAME
    played = {each["attempt"]: _keepable(layout, manifest, each["attempt"]) for each in content["attempts"]}
    expected: list[Json] = []
    for named in content["episodes"]:
        line = played.get(named["attempt"], {}).get((named["task"], named["episode"]))
        if line is None:
            what = f"attempt {named['attempt']} has no whole line of {_name(named)}"
            yield Finding(str(path), what, run_again(layout))
        else:
            expected.append(line | {ATTEMPT: named["attempt"]})
    for line in [*_surplus(expected, lines), *_surplus(lines, expected)]:
        what = f"{_name(line)} is not there once, as attempt {line[ATTEMPT]} played it"
        yield Finding(str(path), what, run_again(layout))


def _surplus(lines: Sequence[Json], others: Sequence[Json]) -> list[Json]:
    """Returns the lines that `lines` has more often than `others`."""
    texts = Counter(map(files.canonical, lines)) - Counter(map(files.canonical, others))
    return [line for line in lines if texts.pop(files.canonical(line), 0)]


def _name(line: Mapping[str, object] | NamedEpisode) -> str:
    return f"episode {line.get('episode')} of task {line.get('task')}"
