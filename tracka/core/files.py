"""Files that survive a crash: written whole or not at all, private to the user, read with errors that name the file.

Guarantees: a reader sees the old content or the new, never a part; a failed write leaves the old file and no litter;
JSON has sorted keys, so identical content gives identical bytes; no text or JSON holds a secret of our environment.
"""

import contextlib
import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from . import secret
from .errors import Finding, UsageError

Json = dict[str, Any]


def utc_now() -> str:
    """The time as the plan writes it, YYYY-MM-DDTHH:MM:SSZ."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def write_atomic(path: Path, data: bytes) -> None:
    """Puts `data` at `path`, mode 0600, making the folders it needs (mode 0700)."""
    make_folder(path.parent)
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
    """From now on what this process and its children make is for the user alone."""
    os.umask(0o077)


def make_folder(folder: Path) -> None:
    """Makes `folder` and the missing folders above it, mode 0700 each; mkdir would leave those above it open."""
    missing = [folder, *folder.parents]
    for item in reversed(missing[: next(i for i, path in enumerate(missing) if path.is_dir())]):
        item.mkdir(mode=0o700, exist_ok=True)


@contextlib.contextmanager
def as_open_as(folder: Path) -> Iterator[None]:
    """What is made meanwhile is as open as `folder`, or the folder above it that is there, where artifacts are not."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.is_dir())
    before = os.umask(~there.stat().st_mode & 0o777 | stat.S_IWOTH)
    try:
        yield
    finally:
        os.umask(before)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: Path, text: str) -> None:
    write_atomic(path, redacted(text).encode())


def write_json(path: Path, value: Json) -> None:
    write_atomic(path, pretty(redacted(value)))


def redacted[T](value: T) -> T:
    """A text, or the texts in a JSON value, without the secrets of our environment: the form that files have."""
    made: T = _redacted(value, secret.known(os.environ))
    return made


def _redacted(value: Any, secrets: tuple[bytes, ...]) -> Any:
    if isinstance(value, str):
        return secret.redact(value, secrets)
    if isinstance(value, dict):
        return {key: _redacted(item, secrets) for key, item in value.items()}
    return [_redacted(item, secrets) for item in value] if isinstance(value, list | tuple) else value


def pretty(value: Json) -> bytes:
    """JSON for people and diffs: indented, keys sorted. Raises ValueError for NaN and infinity."""
    return (json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n").encode()


def read_json(path: Path) -> Json:
    """The object in `path`; UsageError where it is missing, cut, or no JSON object."""
    try:
        value = json.loads(path.read_bytes(), object_pairs_hook=_once)
    except FileNotFoundError:
        raise UsageError(Finding(str(path), "the file does not exist", "Run the step that writes it")) from None
    except (OSError, ValueError, RecursionError) as error:
        remedy = "Move it away; the step that writes it makes a new one"
        raise UsageError(Finding(str(path), f"this is not readable JSON ({error})", remedy)) from None
    if not isinstance(value, dict):
        raise UsageError(Finding(str(path), f"a JSON object is needed, not a {type(value).__name__}", "Move it away"))
    return value


def _once(pairs: list[tuple[str, Any]]) -> Json:
    """An object whose keys are each there once: of two values readers would take either."""
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError(f"a key is there twice, one of {sorted(value)[:20]}")
    return value


def read_lines(path: Path) -> list[Json]:
    """The objects in `path`, one a line; UsageError where one of them is not to be read."""
    try:
        values = [json.loads(line) for line in read_text(path).splitlines()]
    except ValueError as error:
        raise UsageError(Finding(str(path), f"a line is no JSON ({error})", "Move it away")) from None
    if not all(isinstance(value, dict) for value in values):
        raise UsageError(Finding(str(path), "each line must be a JSON object", "Move it away"))
    return values


def read_text(path: Path) -> str:
    """The text in `path`; UsageError where there is none, or not in UTF-8."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UsageError(Finding(str(path), "the file does not exist", "Run the step that writes it")) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(Finding(str(path), f"it cannot be read as UTF-8 ({error})", "Mend or move it away")) from None


def read_or_empty(path: Path) -> Json:
    """The object in `path`, or an empty one where `read_json` would refuse."""
    try:
        return read_json(path)
    except UsageError:
        return {}


def canonical(value: Any) -> bytes:
    """One byte string for one value, whatever the order of its keys: what hashes are taken of."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def copy_atomic(source: Path, target: Path) -> None:
    """Makes `target` a copy of `source` at once: a hard link where the file system has them, bytes elsewhere."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    try:
        os.link(source, temporary)
    except OSError:
        write_atomic(target, source.read_bytes())
        return
    try:
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)  # it stays where both are links to one file already


def without_password(text: str) -> str:
    """`text` with the user:password@ of every URL taken out."""
    return secret.USER.sub("", text)


def tail(path: Path, limit: int = 65536) -> str:
    """The last `limit` bytes of a log as text; empty where there is none. Broken UTF-8 is replaced."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - limit))
            return file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""


def mentions(path: Path, words: bytes) -> bool:
    """Whether a file holds these bytes, however long it is; a file that cannot be read holds nothing."""
    before = b""
    with contextlib.suppress(OSError), path.open("rb") as file:
        while block := file.read(1 << 20):
            if words in before + block:
                return True
            before = block[-len(words) :]
    return False


def walk_files(folder: Path) -> Iterator[Path]:
    """The regular files below `folder`, links to files and folders followed, in the order of their paths."""
    found = (Path(place) / name for place, _, names in os.walk(folder, followlinks=True) for name in names)
    yield from sorted(path for path in found if path.is_file())
