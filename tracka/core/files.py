"""Writes files that survive a crash and are private to the user, and reads files with errors that name the file.

Guarantees: a reader sees the old content or the new content, never a part; a failed write leaves the old file and no
temporary file; JSON has sorted keys, so identical content gives identical bytes; no text or JSON file holds a secret of
our environment.
"""

import contextlib
import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from . import credentials, damaged, fact_cache, parsing, reading, redaction, system_errors
from .errors import Finding, UsageError

Json = dict[str, Any]
WRITE_IT = "Run the step that writes this file"  # in a campaign's artifacts, gates.missing_files names that step
RECENT_FILES = 64  # more than the files of one row and its checkpoint that a check asks for
_TIME = "%Y-%m-%dT%H:%M:%SZ"


def utc_now() -> str:
    """Returns the current time in the plan's format, YYYY-MM-DDTHH:MM:SSZ."""
    return datetime.now(UTC).strftime(_TIME)


def utc_text(moment: float) -> str:
    """Returns a moment, in seconds since 1970, as `utc_now` writes the current time."""
    return datetime.fromtimestamp(moment, UTC).strftime(_TIME)


def timestamp(utc: str) -> float:
    """Returns a time in the plan's format as seconds since 1970. Raises UsageError for a date that no calendar has."""
    try:
        return datetime.fromisoformat(utc).timestamp()
    except (ValueError, OverflowError):
        what = "a file says that something began or ended then, but no calendar has this time"
        raise UsageError(Finding(f"key with the time {utc}", what, "Run the row again")) from None


def write_atomic(path: Path, data: bytes) -> None:
    """Writes `data` to `path` whole or not at all, with mode 0600, and makes missing folders with mode 0700.

    A folder that stands in the place of the file is set aside.
    """
    with system_errors.about(path):
        _write_atomic(path, data)


def _write_atomic(path: Path, data: bytes) -> None:
    make_folder(path.parent)
    damaged.make_way(path)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise
    _sync_folder(path.parent)


def keep_private() -> None:
    """Sets the umask so that all files that this process and its children make from now on are for the user alone."""
    os.umask(0o077)


def make_folder(folder: Path) -> None:
    """Makes `folder` and the missing folders above it with mode 0700, not just `folder` as mkdir does."""
    ancestors = [folder, *folder.parents]
    for item in reversed(ancestors[: next(i for i, path in enumerate(ancestors) if path.is_dir())]):
        item.mkdir(mode=0o700, exist_ok=True)


@contextlib.contextmanager
def as_open_as(folder: Path) -> Iterator[None]:
    """Gives files made inside this block the permissions of `folder`, or of the nearest existing folder above it.

    Artifacts are private; caches and the pages outside the artifacts may be shared. Nothing is made writable for
    everybody.
    """
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.is_dir())
    old_umask = os.umask(~nearest.stat().st_mode & 0o777 | stat.S_IWOTH)
    try:
        yield
    finally:
        os.umask(old_umask)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Writes `text` to `path` whole or not at all, as UTF-8 and without the secrets of our environment."""
    write_atomic(path, redacted(text).encode())


def write_json(path: Path, value: Mapping[str, object]) -> None:
    """Writes `value` to `path` whole or not at all, as `pretty` JSON without the secrets of our environment."""
    write_atomic(path, pretty(redacted(value)))


def redacted[T](value: T) -> T:
    """Returns a text, or a JSON value with all its texts, without the secrets of our environment, as files store it."""
    result: T = _redacted(value, _own_secrets())
    return result


@fact_cache.remembered
def _own_secrets() -> tuple[bytes, ...]:
    return redaction.secret_values(os.environ)


def _redacted(value: Any, secrets: tuple[bytes, ...]) -> Any:
    if isinstance(value, str):
        return redaction.redact(value, secrets)
    if isinstance(value, dict):
        return {key: _redacted(item, secrets) for key, item in value.items()}
    return [_redacted(item, secrets) for item in value] if isinstance(value, list | tuple) else value


def pretty(value: Mapping[str, object]) -> bytes:
    """Returns JSON for people and diffs: indented, with sorted keys. Raises ValueError for NaN and infinity."""
    return (json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n").encode()


def read_json(path: Path, most: int = reading.JSON, not_finite: bool = False) -> Json:
    """Returns the JSON object in `path`, a file of at most `most` bytes; `not_finite` lets it hold NaN and Infinity.

    While one check lasts, a file that has not changed is read once for several questions about the same row. Raises
    UsageError where the file is missing, incomplete, or not a JSON object.
    """
    return {**_json_object(path, most, not_finite, reading.state(path))}


@fact_cache.remembered_lately(RECENT_FILES)
def _json_object(path: Path, most: int, not_finite: bool, state: reading.State | None) -> Json:
    """Returns the JSON object in `path`. `state` tells the file from the same file after a change."""
    try:
        value = parsing.json_value(reading.content(path, most), not_finite)
    except FileNotFoundError:
        raise UsageError(Finding(str(path), "the file does not exist", WRITE_IT)) from None
    except (OSError, ValueError) as error:
        remedy = "Move the file away; the step that writes it makes a new one"
        raise UsageError(Finding(str(path), f"the file is not readable JSON ({error})", remedy)) from None
    if not isinstance(value, dict):
        what = f"the file holds a {type(value).__name__}, not a JSON object"
        raise UsageError(Finding(str(path), what, "Move the file away"))
    return value


def read_lines(path: Path, most: int = reading.RESULTS) -> list[Json]:
    """Returns the JSON objects in `path`, a file of at most `most` bytes with one object per line.

    Raises UsageError where the file or one of its lines cannot be read.
    """
    lines = read_text(path, most=most).splitlines()
    return [_line_object(path, number, line) for number, line in enumerate(lines, 1)]


def read_lines_or_empty(path: Path) -> list[Json]:
    """Returns the JSON objects in `path`, one per line; an empty list where the file or a line cannot be read."""
    try:
        return read_lines(path)
    except UsageError:
        return []


def _line_object(path: Path, number: int, line: str) -> Json:
    where = f"{path}, line {number}"
    try:
        value = parsing.json_value(line)
    except ValueError as error:
        raise UsageError(Finding(where, f"the line is not JSON ({error})", "Move the file away")) from None
    if not isinstance(value, dict):
        raise UsageError(Finding(where, "each line must be a JSON object", "Move the file away"))
    return value


def read_text(path: Path, newline: str | None = None, most: int = reading.TEXT) -> str:
    """Returns the text in `path`, with `newline` as open() takes it: "" keeps every line end as it is.

    Raises UsageError where the file is missing, has more than `most` bytes, or is not UTF-8.
    """
    try:
        return reading.text(path, most, newline)
    except FileNotFoundError:
        raise UsageError(Finding(str(path), "the file does not exist", WRITE_IT)) from None
    except (OSError, UnicodeDecodeError) as error:
        what = f"the file cannot be read as UTF-8 ({error})"
        raise UsageError(Finding(str(path), what, "Repair the file, or move it away")) from None


def read_or_empty(path: Path) -> Json:
    """Returns the JSON object in `path`, or an empty object where `read_json` would raise UsageError."""
    try:
        return read_json(path)
    except UsageError:
        return {}


def canonical(value: Any) -> bytes:
    """Returns the same bytes for the same JSON value, whatever the order of its keys.

    Hashes are computed from these bytes.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def sha256(data: bytes) -> str:
    """Returns the sha256 of `data` as hexadecimal text."""
    return hashlib.sha256(data).hexdigest()


def own_sha256(value: Mapping[str, object]) -> str:
    """Returns the hash that a JSON object may hold of itself: that of everything in it but its key `sha256`."""
    return sha256(canonical({key: item for key, item in value.items() if key != "sha256"}))


def sha256_file(path: Path) -> str:
    """Returns the sha256 of a regular file's content as hexadecimal text."""
    return reading.sha256(path)


def copy_atomic(source: Path, target: Path) -> None:
    """Makes `target` a copy of `source` in one step: a hard link where possible, otherwise a copy of the bytes."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    damaged.make_way(target)
    try:
        os.link(source, temporary)
    except OSError:
        write_atomic(target, reading.content(source, reading.OUTPUT))
        return
    try:
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)  # replace() leaves it there if both names link to one file already


def without_password(text: str) -> str:
    """Returns `text` with the `user:password@` of every URL removed."""
    return credentials.without_users(text)


def walk_files(folder: Path) -> Iterator[Path]:
    """Yields the regular files below `folder`, sorted by path. Links to files are followed, links to folders are not.

    A folder that somebody else has filled is looked over by `tree.faults` first, which bounds this walk.
    """
    paths = (Path(parent) / name for parent, _, names in os.walk(folder) for name in names)
    yield from sorted(path for path in paths if os.path.isfile(path))  # noqa: PTH113  never raises
