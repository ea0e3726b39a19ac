"""What a policy brings that could run code of its own, found by reading alone: nothing of it is imported or unpickled.

A checkpoint is made of kinds of files that are known to be harmless, if their contents are what their names say. Any
other file may be a pickle, code or an archive of them. lerobot also imports what a processor step's `class` names and
every installed `lerobot_*` plug-in, and some JSON keys ask for code from elsewhere. All of this is refused unless
`trusted` below `[security]` names it: a plug-in by its distribution, a class by its dotted path, a file by its path in
the checkpoint, a key as `config.json:auto_map`; with `NAME:` before it in what is loaded by name.
"""

import io
import json
import pickletools
import re
from collections.abc import Collection, Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from ..core import files, memo
from ..core.errors import Finding, UsageError

OWN_PLUGINS = ("lerobot_policy_replay",)  # what Track A itself brings, for known answers
TEXTS = (".txt", ".md", ".jinja", ".tiktoken", ".metadata", ".lock")  # the last two are the hub's client's own
NAMES = (".gitattributes", ".gitignore", "CACHEDIR.TAG", "LICENSE", "NOTICE")
# What is no text: where its mark stands, and the mark.
MARKS = {
    ".safetensors": (8, b"{"),  # after the length of its header, whose bytes may look like anything
    ".model": (0, b"\n"),  # sentencepiece
    ".png": (0, b"\x89PNG"),
    ".jpg": (0, b"\xff\xd8\xff"),
    ".jpeg": (0, b"\xff\xd8\xff"),
    ".gif": (0, b"GIF8"),
    ".webp": (8, b"WEBP"),
    ".mp4": (4, b"ftyp"),
}
IMPORTS = ("GLOBAL", "STACK_GLOBAL", "INST")  # how a pickle names what it calls
UNKNOWN = "no kind of file that is known to be harmless: it may be a pickle, code or an archive of them"
OTHER = "its content is not what its name says, so it may be a pickle, code or an archive of them"
# Policies that let what they load by name bring its code, where need.py does not say what that is.
REMOTE_TYPES = ("gaussian_actor", "groot", "wall_x")
STEP = re.compile(rf"lerobot\.(processor|policies)\.(?!{'|'.join(REMOTE_TYPES)})[\w.]*[A-Z]\w*(Step|Processor)")
# The keys by which a step loads something, and need.py says what.
STEP_NAMES = ("tokenizer_name", "action_tokenizer_name", "paligemma_tokenizer_name", "processor_name")
REMOTE = ("auto_map", "trust_remote_code")
ADAPTER = (
    "adapters",
    "auto_mapping",
    "corda_config",
    "lora_ga_config",
    "megatron_config",
    "peft_type",
    "tokenizer_name_or_path",
)
LORA = "LORA"  # the one peft_type whose loading has been read: others load prompts, adapters and models by name
REMEDY = (
    "Look at it, then trust it by name: trusted = [{name}] below [security] in campaign.toml; "
    "for one preflight, not for rows: --trust {name}"
)


@memo.remembered
def policy_faults(
    folder: Path, trusted: tuple[str, ...] = (), prefix: str = "", patterns: tuple[str, ...] = ("*",)
) -> tuple[Finding, ...]:
    """What of the files in `folder` that fit `patterns` could run code; nothing where each is trusted by name.

    `prefix` stands before the names of what is not the checkpoint's own.
    """
    return tuple(_policy_faults(folder, trusted, prefix, patterns))


def _policy_faults(folder: Path, trusted: Collection[str], prefix: str, patterns: Sequence[str]) -> Iterator[Finding]:
    for path in files.walk_files(folder):
        name = path.relative_to(folder).as_posix()
        if any(fnmatch(name, pattern) for pattern in patterns):
            for word, what in _faults(name, path):
                if prefix + word not in trusted:
                    yield Finding(str(path), what, REMEDY.format(name=json.dumps(prefix + word)))


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


def _faults(name: str, path: Path) -> Iterator[tuple[str, str]]:
    """What is wrong with a file: the name to trust, and why."""
    kind = path.suffix.lower()
    if kind == ".json":
        yield from _json(name, path)
    elif kind in MARKS:
        if not _marked(path, *MARKS[kind]):
            yield name, OTHER
    elif kind not in TEXTS and path.name not in NAMES:
        yield name, UNKNOWN
    elif not _is_text(path.read_bytes()):
        yield name, OTHER


def _marked(path: Path, place: int, mark: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(place + len(mark))[place:] == mark


def _is_text(data: bytes) -> bool:
    """Whether it is text, and no pickle: those of protocol 0 are text too."""
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return b"\0" not in data and not _is_pickle(data)


def _is_pickle(data: bytes) -> bool:
    """Whether it is a whole pickle, of any protocol, that imports something."""
    try:
        pickletools.dis(data, io.StringIO())  # which also follows the stack
        return any(opcode.name in IMPORTS for opcode, _, _ in pickletools.genops(data))
    except Exception:  # it raises whatever its readers of arguments meet in what is no pickle
        return False


def _json(name: str, path: Path) -> Iterator[tuple[str, str]]:
    """What a JSON file asks to be imported or loaded."""
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        yield name, OTHER
        return
    yield from ((f"{name}:{key}", what) for key, what in _keys(path.name, value))
    for word in _classes(value):
        if not STEP.fullmatch(word):
            yield word, f"a processor step imports {word}, which is no step of lerobot"


def _keys(file: str, value: Any) -> Iterator[tuple[str, str]]:
    """The keys that ask for more than lerobot itself, each with what it does."""
    top = value if isinstance(value, dict) else {}
    if file == "config.json" and top.get("type") in REMOTE_TYPES:
        yield "type", f"policies of type {top['type']} load what their config.json names, its code too"
    if file == "adapter_config.json":
        yield from ((key, f"{key} names more that PEFT loads or imports") for key in ADAPTER if _asks(key, top))
    for key, found in _pairs(value):
        if key in REMOTE and found:
            yield key, f"{key} asks for code of the checkpoint's own"
        if key.endswith("attn_implementation") and "/" in str(found):
            yield key, f"{key} asks for a kernel of the hub's, which is code"
    for key in sorted({key for step in _steps(value) for key in _names(step)}):
        yield key, f"a processor step loads what {key} names, which nobody has looked at"


def _asks(key: str, adapter: dict[str, Any]) -> bool:
    """Whether an adapter's key asks for something; PEFT itself notes the class in lerobot that was adapted."""
    found = adapter.get(key)
    library = found.get("parent_library") if isinstance(found, dict) else None
    known = {"auto_mapping": str(library).startswith("lerobot."), "peft_type": found == LORA}
    return bool(found) and not known.get(key, False)


def _names(step: dict[str, Any]) -> Iterator[str]:
    """The keys by which a step loads something that need.py does not know of."""
    config = step.get("config")
    for key, found in config.items() if isinstance(config, dict) else ():
        if found and isinstance(found, str) and key.endswith(("_name", "_path")) and key not in STEP_NAMES:
            yield key


def _steps(value: Any) -> list[dict[str, Any]]:
    """The steps of a processor."""
    steps = value.get("steps") if isinstance(value, dict) else None
    return [step for step in steps if isinstance(step, dict)] if isinstance(steps, list) else []


def _classes(value: Any) -> Iterator[str]:
    """The classes that a processor's steps import: a registered name is looked up, not imported."""
    yield from (str(step["class"]) for step in _steps(value) if "registry_name" not in step and "class" in step)


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
