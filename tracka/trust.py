"""What a policy brings that could run code of its own, found by reading alone: nothing of it is imported or unpickled.

lerobot imports what a processor step's `class` names and every installed `lerobot_*` plug-in; pickles and remote code
run when they are loaded. All of these are refused unless `trusted` below `[security]`, or `--trust`, names them: a
plug-in by its distribution, a class by its dotted path, a file by its path in the checkpoint, a key as
`config.json:auto_map`.
"""

import json
import re
import zipfile
import zlib
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from . import files, memo
from .errors import Finding, UsageError

OWN_PLUGINS = ("lerobot_policy_replay",)  # what Track A itself brings, for known answers
PICKLES = (".pkl", ".pickle", ".pt", ".pth", ".bin", ".ckpt", ".joblib", ".dill")
CODE = (".py", ".pyc", ".so")
MAGIC = re.compile(rb"\x80[\x02-\x05]")  # how a pickle of protocol 2 to 5 begins
ARRAY = re.compile(rb"\x93NUMPY[^{]*{[^}]*'descr':[^}]*\|?O'", re.DOTALL)  # how a .npy of objects, pickled, begins
HEAD = 4096  # bytes of a file in which to look
STEP = re.compile(r"lerobot\.(processor|policies)\.[\w.]*[A-Z]\w*(Step|Processor)")
REMOTE = ("auto_map", "trust_remote_code")
REMEDY = "Look at it, then trust it by name: trusted = [{name}] below [security] in campaign.toml, or --trust {name}"


@memo.remembered
def policy_faults(folder: Path, trusted: tuple[str, ...] = ()) -> tuple[Finding, ...]:
    """What of the checkpoint in `folder` could run code, as findings; nothing where each of it is trusted by name."""
    return tuple(_policy_faults(folder, trusted))


def _policy_faults(folder: Path, trusted: Collection[str]) -> Iterator[Finding]:
    for path in files.walk_files(folder):
        name = path.relative_to(folder).as_posix()
        found = [(name, what) for what in _file(path)] + (list(_keys(name, path)) if path.suffix == ".json" else [])
        for word, what in found:
            if word not in trusted:
                yield Finding(str(path), what, REMEDY.format(name=json.dumps(word)))


def plugin_faults(plugins: Sequence[str], trusted: Collection[str] = ()) -> Iterator[Finding]:
    """The plug-ins, as `name version`, that nobody has named: lerobot-eval would import each at its start."""
    for plugin in plugins:
        name = plugin.split()[0]
        if name not in (*OWN_PLUGINS, *trusted):
            what = "this plug-in is installed, and lerobot-eval imports every one"
            yield Finding(plugin, what, f"Uninstall it, or: {REMEDY.format(name=json.dumps(name))}")


def require_plugins(plugins: Sequence[str], trusted: Collection[str] = ()) -> None:
    """Raises UsageError naming the plug-ins that nobody trusts."""
    if found := list(plugin_faults(plugins, trusted)):
        raise UsageError(found)


def _file(path: Path) -> Iterator[str]:
    """What a file is that can run code when it is loaded."""
    with path.open("rb") as file:
        begin = file.read(HEAD)
    if path.suffix == ".safetensors" and begin[8:9] == b"{":
        return  # a header's length, which may look like a pickle's first bytes, then the header
    suffix = path.suffix.lower()
    if suffix in CODE:
        yield "this is code"
    elif suffix in PICKLES or _is_pickle(begin) or _holds_pickle(path, begin):
        yield "this may be a pickle, and loading one runs what it says"


def _is_pickle(begin: bytes) -> bool:
    return bool(MAGIC.match(begin) or ARRAY.match(begin))


def _holds_pickle(path: Path, begin: bytes) -> bool:
    """Whether it is torch's archive, or NumPy's with objects, whatever its name."""
    if not begin.startswith(b"PK\x03\x04"):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith(".pkl") or _is_pickle(_begin(archive, name)) for name in archive.namelist())
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError, zlib.error):
        return True  # cut, locked or disguised: nobody can say what it holds


def _begin(archive: zipfile.ZipFile, name: str) -> bytes:
    with archive.open(name) as member:
        return member.read(HEAD)


def _keys(name: str, path: Path) -> Iterator[tuple[str, str]]:
    """What a JSON file asks to be imported, as the name to trust and what it is."""
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return  # who needs the file will say so
    for key, found in _pairs(value):
        if key in REMOTE and found:
            yield f"{name}:{key}", f"{key} asks for code of the checkpoint's own"
    for word in _classes(value):
        if not STEP.fullmatch(word):
            yield word, f"a processor step imports {word}, which is no step of lerobot"


def _classes(value: Any) -> Iterator[str]:
    """The classes that a processor's steps import: a registered name is looked up, not imported."""
    steps = value.get("steps") if isinstance(value, dict) else None
    for step in steps if isinstance(steps, list) else ():
        if isinstance(step, dict) and "registry_name" not in step and "class" in step:
            yield str(step["class"])


def _pairs(value: Any) -> Iterator[tuple[str, Any]]:
    """Every key and value, at any depth."""
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict):
            yield from each.items()
            waiting += each.values()
        elif isinstance(each, list):
            waiting += each
