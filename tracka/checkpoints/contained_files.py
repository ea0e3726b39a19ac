"""Checks that all which lerobot reads of a checkpoint lies in the checkpoint's folder, where its hash covers it.

Two things could lead out of a folder: links, and names in its JSON. lerobot 0.6.1 joins the `state_file` of a processor
step to the folder and opens what comes out; transformers does so with the files in an index of weights, and opens what
the tokenizer_config.json of a tokenizer names as its files, wherever that is. What leads out is refused, before
anything is hashed; nothing can be trusted by name, since a row's hash would not cover it.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..core import files, parsing, reading, tree
from ..core.errors import Finding, TrackaError, shortened

ALL_WEIGHTS = 1024 * reading.GIB  # all files of a checkpoint together
PROCESSORS = ("policy_preprocessor.json", "policy_postprocessor.json")
TOKENIZER = "tokenizer_config.json"
# Keys that older versions of transformers wrote and that none reads.
NEVER_READ = ("special_tokens_map_file", "tokenizer_config_file")
PLAIN = re.compile(r"[^/\\:\x00-\x1f\x7f~][^/\\:\x00-\x1f\x7f]{0,254}")
COPY = "Put the file itself there, so that the checkpoint's hash covers it"
SAVE = "Save the processors again with save_pretrained of lerobot 0.6, which names files of the folder"


def require(folder: Path) -> None:
    """Raises TrackaError naming all that leads out of the checkpoint in `folder`, or keeps it from being hashed."""
    if faults := list(findings(folder)):
        raise TrackaError(faults)


def findings(folder: Path) -> Iterator[Finding]:
    """Yields what in `folder` is no file of its own, and what its JSON names outside; opens nothing but its JSON."""
    if faults := tree.faults(folder, reading.WEIGHTS, ALL_WEIGHTS):
        yield from (Finding(str(fault.path), fault.what, COPY) for fault in faults)
        return
    for path in files.walk_files(folder):
        kind = path.name.casefold()
        if kind in PROCESSORS:
            yield from _state_file_findings(folder, path)
        elif kind.endswith(".index.json"):
            yield from _index_findings(path)
        elif kind == TOKENIZER:
            yield from _tokenizer_findings(path)


def is_plain(name: object) -> bool:
    """Returns whether `name` is that of a file in the folder itself: no path, no address, no other folder."""
    return isinstance(name, str) and PLAIN.fullmatch(name) is not None and name not in (".", "..")


def _state_file_findings(folder: Path, path: Path) -> Iterator[Finding]:
    """Yields a finding for each state file that a processor's step names outside of the folder."""
    steps = _object(path).get("steps")
    for number, step in enumerate(steps if isinstance(steps, list) else ()):
        name = step.get("state_file") if isinstance(step, dict) else None
        if name is not None and not is_plain(name):
            what = f"the step reads {_shown(name)}, which is not a plain name of a file in {folder.name}"
            yield Finding(f"{path}, key steps[{number}].state_file", what, SAVE)


def _index_findings(path: Path) -> Iterator[Finding]:
    """Yields a finding for each file outside of the folder that an index of weights names."""
    shards = _object(path).get("weight_map")
    names = {str(name): name for name in shards.values()} if isinstance(shards, dict) else {}
    for name in (name for _, name in sorted(names.items()) if not is_plain(name)):
        what = f"the weights are in {_shown(name)}, which is not a plain name of a file beside it"
        yield Finding(f"{path}, key weight_map", what, "Fetch the model again from the hub")


def _tokenizer_findings(path: Path) -> Iterator[Finding]:
    """Yields a finding for each file that a tokenizer's config names by itself.

    transformers opens it from the folder in which a row starts, not from the tokenizer's own.
    """
    for key, value in _object(path).items():
        names = value if isinstance(value, list) else [value]
        is_list = key.endswith("_files") and all(map(is_plain, names))
        if key.endswith(("_file", "_files")) and key not in NEVER_READ and any(names) and not is_list:
            what = f"transformers reads {_shown(value)} in place of the tokenizer's own file"
            remedy = f"Remove the key, or set it to null: the files beside {TOKENIZER} are found without it"
            yield Finding(f"{path}, key {shortened(ascii(key)[1:-1])}", what, remedy)


def _object(path: Path) -> dict[str, Any]:
    """Returns the object in a JSON file; an empty one where it cannot be read, which other checks report."""
    try:
        value = parsing.json_value(reading.content(path), not_finite=True, any_text=True)
    except (OSError, parsing.Malformed):
        return {}
    return value if isinstance(value, dict) else {}


def _shown(name: object) -> str:
    return shortened(ascii(name))
