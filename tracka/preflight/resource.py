"""Fetches and hashes what the campaign's policies need: checkpoints, what checkpoints load by name, LIBERO's files.

No weights are loaded. At the end, a process in a row's own environment finds all of it again without network.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from fnmatch import fnmatch
from functools import partial
from pathlib import Path

from ..campaign.campaign import Campaign
from ..checkpoints import backbone, build, checkpoint, dependency, hub, need, normalizer, trust, weights
from ..checkpoints.hub import Wanted
from ..checkpoints.need import Need
from ..core import digest, files
from ..core.check import Check, answer, guarded
from ..core.errors import Finding, TrackaError, some
from ..core.reports import ResourceRecord
from ..execution import environment, gpu, process
from ..execution.process import Bounds
from ..install import assets
from . import feature, placement

SAFETY = "safety:"
PROCESSORS = ("policy_preprocessor*", "policy_postprocessor*")


@dataclass(frozen=True)
class Resource:
    """One thing that policies need. `files` counts its files; `sha256` covers their paths and contents."""

    kind: str  # policy, config, processors, tokenizer, base_model, backbone or assets
    name: str
    outcome: str = "found"  # a key of hub.OUTCOMES
    commit: str | None = None
    folder: str | None = None
    files: int = 0
    bytes: int = 0
    sha256: str | None = None

    def record(self) -> ResourceRecord:
        """Returns the resource as preflight's report has it."""
        return {
            "kind": self.kind,
            "name": self.name,
            "outcome": self.outcome,
            "commit": self.commit,
            "folder": self.folder,
            "files": self.files,
            "bytes": self.bytes,
            "sha256": self.sha256,
        }

    def __str__(self) -> str:
        return f"{self.folder}, {self.files} files, tree {(self.sha256 or '')[:12]}"


@dataclass
class Found:
    """What was looked for so far, in order, what policies still need, and what came from the hub.

    `first` is the baseline's policy_path. What that policy does not need blocks only the policies that need it.
    """

    first: str = ""
    resources: list[Resource] = field(default_factory=list)
    needs: dict[Need, set[str]] = field(default_factory=dict)
    snapshots: dict[Wanted, Path] = field(default_factory=dict)
    of_first: set[Wanted] = field(default_factory=set)

    def need(self, policy_path: str, needs: Iterable[Need]) -> None:
        """Adds what the policy at `policy_path` needs."""
        for each in needs:
            self.needs.setdefault(each, set()).add(policy_path)


def look(spec: Campaign, policy_path: str, folder: Path) -> tuple[list[Check], list[Resource]]:
    """Returns a check for each checkpoint of the campaign and each thing it loads, and the resources found.

    `policy_path` is the baseline's. Logs go to `folder`.
    """
    found = Found(policy_path)
    checks = _policies(found, spec, list(dict.fromkeys([policy_path, *(row.policy_path for row in spec.enabled)])))
    for each, policies in found.needs.items():
        name = "tokenizer" if each.kind == "tokenizer" else "base_model"
        check = _check(found, name, each.kind, each.name, partial(_need, found, spec, each))
        checks.append(replace(check, required=policy_path in policies))
    checks.append(_check(found, "assets", "assets", "LIBERO", _assets))
    return [*checks, _offline(spec, found, folder)], found.resources


def policy_checks(spec: Campaign, policy_path: str) -> list[Check]:
    """Returns the checks of one checkpoint that need no process: whether it is here, readable, safe and fits."""
    return _policies(Found(policy_path), spec, [policy_path])


def readable(checks: Iterable[Check]) -> list[str]:
    """Returns the checkpoints whose weights can be read, according to these checks."""
    return _passed(checks, weights.CHECK)


def harmless(checks: Iterable[Check]) -> list[str]:
    """Returns the readable checkpoints that make no foreign code run, according to these checks."""
    return _passed(checks, SAFETY)


def _passed(checks: Iterable[Check], prefix: str) -> list[str]:
    named = (check for check in checks if check.name.startswith(prefix))
    return [check.name.removeprefix(prefix) for check in named if check.status == "pass"]


def _policies(found: Found, spec: Campaign, paths: Sequence[str]) -> list[Check]:
    checks = [_check(found, "policy_resolve", "policy", path, partial(_policy, found, spec, path)) for path in paths]
    here = [path for path, check in zip(paths, checks, strict=True) if check.status == "pass"]
    read = [weights.check(spec, path) for path in here]
    # Only whole files are checked further: of a truncated file, `safety:` would say that it may be trusted, and
    # `statistics:` that it cannot be read.
    whole = readable(read)
    checks += [*read, *(guarded(f"{SAFETY}{path}", partial(_safe, spec, path)) for path in whole)]
    return checks + [
        check(spec, path)
        for check in (dependency.check, normalizer.check, feature.check, placement.check)
        for path in whole
    ]


def _safe(spec: Campaign, policy_path: str) -> str:
    """Reads what the checkpoint, which is on this host already, and an adapter's base could make run.

    Returns the evidence that nothing untrusted would run. Raises TrackaError with everything that would.
    """
    folder = checkpoint.resolve(policy_path, spec.layout.root, spec.policy_roots).folder
    base = need.adapted(folder)
    if found := [*trust.policy_faults(folder, spec.trusted), *(base.faults(spec) if base else ())]:
        raise TrackaError(found)
    named = f", trusted by name: {', '.join(spec.trusted)}" if spec.trusted else ""
    return f"no pickle, foreign class or remote code{named}"


def _check(found: Found, check: str, kind: str, name: str, step: Callable[[], tuple[str, list[Resource]]]) -> Check:
    """Returns the check of one thing, and adds to `found` its resources or, if it was not found, the outcome."""

    def run() -> str:
        try:
            evidence, resources = step()
        except TrackaError as error:
            found.resources.append(Resource(kind, name, getattr(error, "outcome", "refused")))
            raise
        found.resources += resources
        return evidence

    return guarded(f"{check}:{name}", run)


def _policy(found: Found, spec: Campaign, policy_path: str) -> tuple[str, list[Resource]]:
    """Fetches the checkpoint and adds what it needs to `found.needs`, even if the checkpoint cannot be fetched.

    Returns the evidence and the resources. Raises TrackaError where the checkpoint is missing or of another type.
    """
    try:
        build.ensure(spec, policy_path)
        point = checkpoint.resolve(policy_path, spec.layout.root, spec.policy_roots)
    except TrackaError:
        found.need(policy_path, need.unseen(spec.defaults.policy_type or ""))
        raise
    found.need(policy_path, need.of(point, spec.settings_of(policy_path)))
    if point.revision:
        found.snapshots[checkpoint.wanted(policy_path)] = point.folder
        if policy_path == found.first:
            found.of_first.add(checkpoint.wanted(policy_path))
    for row in spec.enabled:
        named = spec.settings(row).policy_type
        if row.policy_path == policy_path and named not in (None, point.policy_type):
            what = f"row {row.run_id} says policy_type {named}, the checkpoint is a {point.policy_type}"
            raise TrackaError(Finding(str(spec.layout.settings), what, "Mend policy_type, then run phase 1 again"))
    digests = digest.of_files(point.folder)
    parts = {"policy": ("*",), "config": ("config.json",), "processors": PROCESSORS}
    made = [_resource(kind, policy_path, point.folder, digests, fits, point.revision) for kind, fits in parts.items()]
    return f"{point.policy_type}, revision {point.revision or 'none (a folder)'}, tree {point.tree_sha256[:12]}", made


def _need(found: Found, spec: Campaign, wanted: Need) -> tuple[str, list[Resource]]:
    """Fetches one thing that is loaded by name, and reads what it could make run.

    Returns the evidence and the resource. Raises TrackaError where it is missing or could run untrusted code.
    """
    if wanted.kind == "backbone":
        path = backbone.fetch(wanted.name)
        digests = {path.name: files.sha256_file(path)}
        return str(path), [_resource(wanted.kind, wanted.name, path.parent, digests, ("*",))]
    root, folder, commit = spec.layout.root, wanted.folder(spec.layout.root), None
    if folder != root / wanted.name:
        found.snapshots[wanted.wanted] = folder
        if found.first in found.needs.get(wanted, ()):
            found.of_first.add(wanted.wanted)
        commit = folder.name
    if faults := list(wanted.faults(spec)):
        raise TrackaError(faults)
    patterns = wanted.wanted.patterns or ("*",)
    made = _resource(wanted.kind, wanted.name, folder, digest.of_files(folder), patterns, commit)
    return str(made), [made]


def _assets() -> tuple[str, list[Resource]]:
    """Reads each of LIBERO's original files and compares it with its recorded hash."""
    folder = environment.libero_assets() or Path("libero")
    wrong = assets.wrong_assets(folder)
    if wrong:
        raise hub.Unresolved("missing", Finding(str(folder), f"{len(wrong)} files: {some(wrong)}", "Run `make setup`"))
    made = _resource("assets", "LIBERO", folder, assets.expected_assets(), ("*",))
    return str(made), [made]


def _resource(
    kind: str, name: str, folder: Path, digests: dict[str, str], patterns: Iterable[str], commit: str | None = None
) -> Resource:
    chosen = {path: digest for path, digest in digests.items() if any(fnmatch(path, item) for item in patterns)}
    size = sum((folder / path).stat().st_size for path in chosen)
    return Resource(kind, name, "found", commit, str(folder), len(chosen), size, files.sha256(files.canonical(chosen)))


def _offline(spec: Campaign, found: Found, folder: Path) -> Check:
    """Checks that a row without network finds the same commits.

    The row's cache may be another one, or may hold another revision.
    """
    snapshots = found.snapshots
    if not snapshots:
        return Check("offline", "pass", "nothing comes from the hub")
    ended = process.run(
        process.python("tracka.preflight.probes.offline", json.dumps([asdict(wanted) for wanted in snapshots])),
        cwd=folder,
        env=environment.for_row(spec, gpu.CPU_DEVICE, "osmesa") | {"HF_HUB_OFFLINE": "1"},
        stdout=folder / "offline.log",
        stderr=folder / "offline.err",
        bounds=Bounds(spec.probe_secs),
    )
    again = [json.loads(line)["folder"] for line in files.tail(folder / "offline.log").splitlines() if line[:1] == "{"]
    again += [None] * (len(snapshots) - len(again))
    lost = {
        wanted: f"{wanted.repo} ({Path(here).name if here else 'nothing'} instead of {there.name})"
        for (wanted, there), here in zip(snapshots.items(), again, strict=True)
        if here is None or Path(here).name != there.name
    }
    evidence = f"{len(snapshots) - len(lost)} of {len(snapshots)} repositories found again without network"
    evidence += f"; not: {some(list(lost.values()))}; exit code {ended.code}, see offline.err" if lost else ""
    check = answer(
        "offline", not lost, evidence, "Give preflight and rows one HF_HOME, and pin revisions as repo@commit"
    )
    return replace(check, required=not lost or not found.of_first.isdisjoint(lost))
