"""Finds what a policy brings that could run code of its own, by reading files alone: nothing is imported or unpickled.

A checkpoint consists of kinds of files that are known to be harmless if their contents match their names. Any other
file may be a pickle, code or an archive of them. lerobot also imports the class that a processor step's `class` names
and every installed `lerobot_*` plug-in, and some JSON keys ask for code from elsewhere. All of this is refused unless
`trusted` below `[security]` names it: a plug-in by its distribution, a class by its dotted path, a file by its path in
the checkpoint, a key as `config.json:auto_map`. `NAME:` precedes the entry for a thing that is loaded by name.
"""

import io
import json
import pickletools
import re
from collections.abc import Collection, Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from ..core import fact_cache, files, parsing, reading
from ..core.errors import Finding, UsageError

OWN_PLUGINS = ("lerobot_policy_replay",)  # Track A's own plug-in, for expected outcomes
TEXTS = (".txt", ".md", ".jinja", ".tiktoken", ".metadata", ".lock")  # the hub's client writes files of the last two
NAMES = (".gitattributes", ".gitignore", "CACHEDIR.TAG", "LICENSE", "NOTICE")
# Suffix of a file that is no text -> the offset of its mark, and the mark.
MARKS = {
    ".safetensors": (8, b"{"),  # the mark follows the header's length, which may have any bytes
    ".model": (0, b"\n"),  # sentencepiece
    ".png": (0, b"\x89PNG"),
    ".jpg": (0, b"\xff\xd8\xff"),
    ".jpeg": (0, b"\xff\xd8\xff"),
    ".gif": (0, b"GIF8"),
    ".webp": (8, b"WEBP"),
    ".mp4": (4, b"ftyp"),
}
IMPORTS = ("GLOBAL", "STACK_GLOBAL", "INST")  # the opcodes by which a pickle names what it calls
UNKNOWN = "this kind of file is not known to be harmless: it may be a pickle, code or an archive of them"
OTHER = "the file's content does not match its name, so it may be a pickle, code or an archive of them"
# Types whose policies let a thing loaded by name bring its own code; hub_dependencies.py does not list what they load.
REMOTE_TYPES = ("gaussian_actor", "groot", "wall_x")
STEP = re.compile(rf"lerobot\.(processor|policies)\.(?!{'|'.join(REMOTE_TYPES)})[\w.]*[A-Z]\w*(Step|Processor)")
# The keys by which a processor step loads something that hub_dependencies.py lists.
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
MOST_TEXT = 64 * reading.MIB  # a vocabulary has some MiB
MOST_OPCODES = 100_000
LORA = "LORA"  # the only peft_type whose loading code has been read: others load prompts, adapters, models by name
REMEDY = (
    "Inspect it, then trust it by name: set trusted = [{name}] below [security] in campaign.toml; "
    "for one preflight, but not for rows, pass --trust {name}"
)


@fact_cache.remembered
def policy_faults(
    folder: Path, trusted: tuple[str, ...] = (), prefix: str = "", patterns: tuple[str, ...] = ("*",)
) -> tuple[Finding, ...]:
    """Returns findings for the files in `folder` that fit `patterns`, could run code and are not trusted by name.

    `prefix` precedes the trusted names of files that are not the checkpoint's own.
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
    """Yields a finding for each plug-in, given as `name version`, that is not trusted.

    lerobot-eval would import each of these plug-ins at its start.
    """
    for plugin in plugins:
        name = plugin.split()[0]
        if name not in (*OWN_PLUGINS, *trusted):
            what = "this plug-in is installed, and lerobot-eval imports every installed plug-in"
            yield Finding(plugin, what, f"Uninstall it, or: {REMEDY.format(name=json.dumps(name))}")


def require_plugins(plugins: Sequence[str], trusted: Collection[str] = ()) -> None:
    """Raises UsageError naming the plug-ins that are not trusted."""
    if faults := list(plugin_faults(plugins, trusted)):
        raise UsageError(faults)


def _faults(name: str, path: Path) -> Iterator[tuple[str, str]]:
    """Yields each fault of a file as the name to trust and the reason."""
    kind = path.suffix.lower()
    if kind == ".json":
        yield from _json_faults(name, path)
    elif kind in MARKS:
        if not _has_mark(path, *MARKS[kind]):
            yield name, OTHER
    elif kind not in TEXTS and path.name not in NAMES:
        yield name, UNKNOWN
    elif not _is_text_file(path):
        yield name, OTHER


def _has_mark(path: Path, offset: int, mark: bytes) -> bool:
    with reading.opened(path, reading.WEIGHTS) as file:
        return file.read(offset + len(mark))[offset:] == mark


def _is_text_file(path: Path) -> bool:
    try:
        return _is_text(reading.content(path, MOST_TEXT))
    except reading.Refused:
        return False


def _is_text(data: bytes) -> bool:
    """Returns whether `data` is text and not a pickle: a pickle of protocol 0 is text too."""
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return b"\0" not in data and not _is_pickle(data)


def _is_pickle(data: bytes) -> bool:
    """Returns whether `data` is a whole pickle, of any protocol, that imports something."""
    try:
        imports = False
        for count, (opcode, _, _) in enumerate(pickletools.genops(data)):
            imports = imports or opcode.name in IMPORTS
            if count > MOST_OPCODES:  # no text goes on for so long
                return True
        if imports:
            pickletools.dis(data, io.StringIO())  # `dis` also checks the pickle's stack
        return imports
    except Exception:  # on other data, the readers of arguments raise errors of any kind
        return False


def _json_faults(name: str, path: Path) -> Iterator[tuple[str, str]]:
    """Yields each thing that a JSON file asks lerobot to import or load, as the name to trust and the reason."""
    try:
        value = parsing.json_value(reading.content(path), not_finite=True, any_text=True)
    except (OSError, parsing.Malformed):
        yield name, OTHER
        return
    yield from ((f"{name}:{key}", what) for key, what in _key_faults(path.name, value))
    for word in _classes(value):
        if not STEP.fullmatch(word):
            yield word, f"a processor step imports {word}, which is not a step of lerobot"


def _key_faults(file: str, value: Any) -> Iterator[tuple[str, str]]:
    """Yields the keys that ask for more than lerobot itself, each with what the key does."""
    top = value if isinstance(value, dict) else {}
    file = file.casefold()  # a disk may not tell Config.json from config.json
    if file == "config.json" and top.get("type") in REMOTE_TYPES:
        yield "type", f"policies of type {top['type']} load whatever their config.json names, including code"
    if file == "adapter_config.json":
        yield from (
            (key, f"{key} makes PEFT load or import more than the adapter") for key in ADAPTER if _needs_trust(key, top)
        )
    for key, item in _pairs(value):
        if key in REMOTE and item:
            yield key, f"{key} asks lerobot to run code from the checkpoint or the hub"
        if key.endswith("attn_implementation") and "/" in str(item):
            yield key, f"{key} asks for a kernel from the hub, which is code"
    for key in sorted({key for step in _steps(value) for key in _unlisted_keys(step)}):
        yield key, f"a processor step loads what {key} names, and Track A does not check that"


def _needs_trust(key: str, adapter: dict[str, Any]) -> bool:
    """Returns whether an adapter's key asks for something that is not known.

    The peft_type LORA is known, and so is the class of lerobot that was adapted, which PEFT itself notes in
    `auto_mapping`.
    """
    item = adapter.get(key)
    library = item.get("parent_library") if isinstance(item, dict) else None
    harmless = {"auto_mapping": str(library).startswith("lerobot."), "peft_type": item == LORA}
    return bool(item) and not harmless.get(key, False)


def _unlisted_keys(step: dict[str, Any]) -> Iterator[str]:
    """Yields the keys by which a processor step loads something that hub_dependencies.py does not know of."""
    config = step.get("config")
    for key, item in config.items() if isinstance(config, dict) else ():
        names = key.endswith(("_name", "_path")) or is_path_like(item)
        if item and isinstance(item, str) and names and key not in STEP_NAMES:
            yield key


def is_path_like(value: object) -> bool:
    """Returns whether a value of a checkpoint's JSON can name a folder, an address or a repository of the hub."""
    return isinstance(value, str) and re.search(r"[/\\\0]|^~|^\.+$", value) is not None


def _steps(value: Any) -> list[dict[str, Any]]:
    """Returns the steps of a processor."""
    steps = value.get("steps") if isinstance(value, dict) else None
    return [step for step in steps if isinstance(step, dict)] if isinstance(steps, list) else []


def _classes(value: Any) -> Iterator[str]:
    """Yields the classes that a processor's steps import: a step with a registered name is looked up, not imported."""
    yield from (str(step["class"]) for step in _steps(value) if "registry_name" not in step and "class" in step)


def _pairs(value: Any) -> Iterator[tuple[str, Any]]:
    """Yields every key and value of a JSON value, at any depth."""
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            yield from item.items()
            pending += item.values()
        elif isinstance(item, list):
            pending += item
