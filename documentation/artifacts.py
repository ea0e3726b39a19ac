"""docs/artifacts.md: every file that a campaign leaves, and the keys of each JSON file, from the schemas."""

from collections.abc import Iterator, Mapping
from typing import Any

from documentation.commands import code_words
from documentation.markdown import MADE, code, contracts, sentence, table
from tracka.core import schema

INTRODUCTION = """
A campaign is a folder. You write `configs/`; everything else is an artifact, which Track A writes once and never moves.
Artifacts are the only memory: a verdict can be made again from them, by `tracka validate`, at any time.
"""

# Files without a schema.
WHAT = {
    "configs/eval_matrix.csv": "the matrix: one line for each run",
    "configs/campaign.toml": "the settings: [campaign-toml.md](campaign-toml.md)",
    "configs/run_schema.json": "the schemas of manifest and result, as this Track A has them",
    "artifacts/state/lerobot_eval_help.txt": "what `lerobot-eval --help` prints",
    "artifacts/preflight/nvidia_smi.txt": "the GPUs, a line each",
    "artifacts/preflight/pip_freeze.txt": "the installed packages",
    "artifacts/preflight/setup.log": "how the environment was made",
    "artifacts/runs/RUN_ID/stdout.log": "what the last attempt printed",
    "artifacts/runs/RUN_ID/stderr.log": "what the last attempt printed as errors",
    "artifacts/runs/RUN_ID/episodes.jsonl": "a line for each episode of the last attempt",
    "artifacts/runs/RUN_ID/attempts/K/run_manifest.json": "the manifest of the K-th attempt",
    "artifacts/runs/RUN_ID/attempts/K/result.json": "the result of the K-th attempt",
    "artifacts/runs/RUN_ID/attempts/K/stderr.log": "what the K-th attempt printed as errors",
    "artifacts/runs/RUN_ID/attempts/K/eval/eval_info.json": "lerobot-eval's own figures",
    "artifacts/summary/baseline_summary.csv": "the baseline row: a table of one line",
    "artifacts/summary/baseline_summary.md": "the same to read",
    "artifacts/summary/all_runs.csv": "the table of all rows: [tables.md](tables.md)",
    "artifacts/summary/all_runs.md": "the same to read",
    "artifacts/summary/failures.csv": "the rows that are not accepted, each with its reason: [reasons.md](reasons.md)",
    "runbook.md": "the commands that ran, and how to run again what failed",
    "results.md": "every success rate with its episodes, interval, checkpoint and artifacts",
    "plan.md": "the phases with a box each, and a line for every time a phase was judged",
    "todo/NAME.md": "what comes next for the campaign",
    "todo/TODO.md": "the campaigns with a box each, ticked when a campaign is accepted",
}


def page() -> str:
    """Returns the page."""
    files = [
        (code(code_words(line["file"])), line["phase"], _title(line["file"])) for line in contracts("Required files")
    ]
    keys = [*contracts("Required keys"), *contracts("Required keys", 1)]
    sections = (_section(next(iter(line.values())), code_words(line["schema"])) for line in keys)
    made = MADE.format(source="`tracka/core/schemas/` and [contracts.md](contracts.md#required-files)")
    return (
        f"# Artifacts\n\n{made}{INTRODUCTION}\n## Files\n\nThe gate of the phase demands the file.\n\n"
        f"{table(('file', 'phase', 'what it holds'), files)}\n" + "\n".join(sections)
    )


def _title(cell: str) -> str:
    """Returns what a file holds, by its schema or by `WHAT`."""
    named = {code_words(line["file"]): code_words(line["schema"]) for line in contracts("Required keys")}
    name = named.get(code_words(cell))
    return sentence(_what(schema.load(name)) if name else WHAT[code_words(cell)])


def _what(root: Mapping[str, Any]) -> str:
    return str(root["title"]).partition(": ")[2]


def _section(where: str, name: str) -> str:
    root = schema.load(name)
    lines = [(code(key), kind, sentence(text)) for key, kind, text in _keys(root)]
    return f"## {name}\n\n{where}: {_what(root)}.\n\n{table(('key', 'value', 'what it says'), lines)}"


def _keys(root: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    required = set(root.get("required", ()))
    for key, part in root.get("properties", {}).items():
        may_lack = "" if key in required else "; may be missing"
        yield key, f"{_kind(root, part)}{may_lack}", part.get("description", "")


def _kind(root: Mapping[str, Any], part: Mapping[str, Any]) -> str:
    """Returns what a value may be, in words."""
    if "$ref" in part:
        return _kind(root, root["$defs"][part["$ref"].rpartition("/")[2]])
    if "enum" in part or "const" in part:
        return " or ".join("null" if each is None else code(each) for each in part.get("enum", [part.get("const")]))
    if "anyOf" in part or "oneOf" in part:
        return " or ".join(dict.fromkeys(_kind(root, each) for each in part.get("anyOf", part.get("oneOf"))))
    kinds = part.get("type", "any")
    return kinds if isinstance(kinds, str) else " or ".join(kinds)
