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
from ..checkpoints import (
    build,
    checkpoint,
    hub,
    hub_dependencies,
    normalizer,
    python_dependencies,
    torchvision_weights,
    weights,
)
from ..checkpoints.hub import DownloadSpec
from ..checkpoints.hub_dependencies import NamedDependency
from ..core import files, hashing, installation, parsing, reading
from ..core.check import Check, required_check, run_check
from ..core.errors import Finding, TrackaError, joined_names
from ..core.reports import ResourceRecord
from ..execution import environment, gpu, process
from ..execution.process import Bounds
from ..install import assets
from . import device_placement, policy_features

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
class ResourceCollector:
    """What was looked for so far, in order, what policies still need, and what came from the hub.

    `baseline_path` is the baseline's policy_path. What that policy does not need blocks only the policies that need it.
    """

    baseline_path: str = ""
    resources: list[Resource] = field(default_factory=list)
    dependencies: dict[NamedDependency, set[str]] = field(default_factory=dict)
    snapshots: dict[DownloadSpec, Path] = field(default_factory=dict)
    baseline_snapshots: set[DownloadSpec] = field(default_factory=set)

    def add_dependencies(self, policy_path: str, dependencies: Iterable[NamedDependency]) -> None:
        """Adds what the policy at `policy_path` needs."""
        for dependency in dependencies:
            self.dependencies.setdefault(dependency, set()).add(policy_path)


def check_resources(campaign: Campaign, policy_path: str, folder: Path) -> tuple[list[Check], list[Resource]]:
    """Returns a check for each checkpoint of the campaign and each thing it loads, and the resources found.

    `policy_path` is the baseline's. Logs go to `folder`.
    """
    checks, collector = collect(campaign, policy_path)
    return [*checks, offline_check(campaign, collector, folder)], collector.resources


def collect(campaign: Campaign, policy_path: str) -> tuple[list[Check], ResourceCollector]:
    """Fetches and hashes all that the campaign's policies need; returns the checks, and what was found.

    `policy_path` is the baseline's.
    """
    collector = ResourceCollector(policy_path)
    checks = _policies(
        collector, campaign, list(dict.fromkeys([policy_path, *(row.policy_path for row in campaign.enabled)]))
    )
    for dependency, policies in collector.dependencies.items():
        name = "tokenizer" if dependency.kind == "tokenizer" else "base_model"
        check = _check(
            collector,
            name,
            dependency.kind,
            dependency.name,
            partial(_fetch_dependency, collector, campaign, dependency),
        )
        checks.append(replace(check, required=policy_path in policies))
    return [*checks, _check(collector, "assets", "assets", "LIBERO", _check_assets)], collector


def policy_checks(campaign: Campaign, policy_path: str) -> list[Check]:
    """Returns the checks of one checkpoint that need no process: whether it is here, readable, safe and fits."""
    return _policies(ResourceCollector(policy_path), campaign, [policy_path])


def readable_checkpoints(checks: Iterable[Check]) -> list[str]:
    """Returns the checkpoints whose weights can be read, according to these checks."""
    return _passed_subjects(checks, weights.CHECK)


def harmless_checkpoints(checks: Iterable[Check]) -> list[str]:
    """Returns the readable checkpoints that make no foreign code run, according to these checks."""
    return _passed_subjects(checks, SAFETY)


def _passed_subjects(checks: Iterable[Check], prefix: str) -> list[str]:
    prefixed_checks = (check for check in checks if check.name.startswith(prefix))
    return [check.name.removeprefix(prefix) for check in prefixed_checks if check.status == "pass"]


def _policies(collector: ResourceCollector, campaign: Campaign, paths: Sequence[str]) -> list[Check]:
    checks = [
        _check(collector, "policy_resolve", "policy", path, partial(_fetch_policy, collector, campaign, path))
        for path in paths
    ]
    local_paths = [path for path, check in zip(paths, checks, strict=True) if check.status == "pass"]
    weight_checks = [weights.check(campaign, path) for path in local_paths]
    # Only whole files are checked further: of a truncated file, `safety:` would say that it may be trusted, and
    # `statistics:` that it cannot be read.
    readable_paths = readable_checkpoints(weight_checks)
    checks += [
        *weight_checks,
        *(run_check(f"{SAFETY}{path}", partial(_safety_evidence, campaign, path)) for path in readable_paths),
    ]
    return checks + [
        check(campaign, path)
        for check in (python_dependencies.check, normalizer.check, policy_features.check, device_placement.check)
        for path in readable_paths
    ]


def _safety_evidence(campaign: Campaign, policy_path: str) -> str:
    """Reads what the checkpoint, which is on this host already, and an adapter's base could make run.

    Returns the evidence that nothing untrusted would run. Raises TrackaError with everything that would.
    """
    folder = checkpoint.resolve(policy_path, campaign.layout.root, campaign.policy_roots).folder
    base = hub_dependencies.adapter_base(folder)
    if faults := [*hub_dependencies.own_faults(folder, campaign.trusted), *(base.faults(campaign) if base else ())]:
        raise TrackaError(faults)
    trusted_names = f", trusted by name: {', '.join(campaign.trusted)}" if campaign.trusted else ""
    return f"no pickle, foreign class or remote code{trusted_names}"


def _check(
    collector: ResourceCollector, check: str, kind: str, name: str, step: Callable[[], tuple[str, list[Resource]]]
) -> Check:
    """Returns the check of one thing, and adds to `collector` its resources or, if it was not found, the outcome."""

    def run() -> str:
        try:
            evidence, resources = step()
        except TrackaError as error:
            collector.resources.append(Resource(kind, name, getattr(error, "outcome", "refused")))
            raise
        collector.resources += resources
        return evidence

    return run_check(f"{check}:{name}", run)


def _fetch_policy(collector: ResourceCollector, campaign: Campaign, policy_path: str) -> tuple[str, list[Resource]]:
    """Fetches the checkpoint and adds its needs to `collector.dependencies`, even where it cannot be fetched.

    Returns the evidence and the resources. Raises TrackaError where the checkpoint is missing or of another type.
    """
    try:
        build.ensure(campaign, policy_path)
        point = checkpoint.resolve(policy_path, campaign.layout.root, campaign.policy_roots)
    except TrackaError:
        collector.add_dependencies(
            policy_path, hub_dependencies.default_dependencies(campaign.defaults.policy_type or "")
        )
        raise
    collector.add_dependencies(
        policy_path, hub_dependencies.named_dependencies(point, campaign.settings_of(policy_path))
    )
    if point.revision:
        collector.snapshots[checkpoint.download_spec(policy_path)] = point.folder
        if policy_path == collector.baseline_path:
            collector.baseline_snapshots.add(checkpoint.download_spec(policy_path))
    for row in (each for each in campaign.enabled if each.policy_path == policy_path):
        if (policy_type := campaign.settings(row).policy_type) not in (None, point.policy_type):
            what = (
                f"row {row.run_id} says policy_type {policy_type}, but the checkpoint has the type {point.policy_type}"
            )
            raise TrackaError(
                Finding(str(campaign.layout.settings), what, "Correct policy_type, then run phase 1 again")
            )
    digests = hashing.of_files(point.folder)
    parts = {"policy": ("*",), "config": ("config.json",), "processors": PROCESSORS}
    resources = [
        _resource(kind, policy_path, point.folder, digests, patterns, point.revision)
        for kind, patterns in parts.items()
    ]
    return (
        f"{point.policy_type}, revision {point.revision or 'none (a folder)'}, tree {point.tree_sha256[:12]}",
        resources,
    )


def _fetch_dependency(
    collector: ResourceCollector, campaign: Campaign, dependency: NamedDependency
) -> tuple[str, list[Resource]]:
    """Fetches one thing that is loaded by name, and reads what it could make run.

    Returns the evidence and the resource. Raises TrackaError where it is missing or could run untrusted code.
    """
    if dependency.kind == "backbone":
        path = torchvision_weights.fetch(dependency.name)
        digests = {path.name: files.sha256_file(path)}
        return str(path), [_resource(dependency.kind, dependency.name, path.parent, digests, ("*",))]
    root, folder, commit = campaign.layout.root, dependency.folder(campaign.layout.root), None
    if folder != root / dependency.name:
        collector.snapshots[dependency.download_spec] = folder
        if collector.baseline_path in collector.dependencies.get(dependency, ()):
            collector.baseline_snapshots.add(dependency.download_spec)
        commit = folder.name
    if faults := list(dependency.faults(campaign)):
        raise TrackaError(faults)
    patterns = dependency.download_spec.patterns or ("*",)
    resource = _resource(dependency.kind, dependency.name, folder, hashing.of_files(folder), patterns, commit)
    return str(resource), [resource]


def _check_assets() -> tuple[str, list[Resource]]:
    """Reads each of LIBERO's original files and compares it with its recorded hash."""
    folder = environment.libero_assets() or Path("libero")
    wrong_files = assets.wrong_assets(folder)
    if wrong_files:
        what = f"{len(wrong_files)} files differ from LIBERO's: {joined_names(wrong_files)}"
        raise hub.Unresolved("missing", Finding(str(folder), what, f"Run `{installation.SETUP}`"))
    resource = _resource("assets", "LIBERO", folder, assets.expected_assets(), ("*",))
    return str(resource), [resource]


def _resource(
    kind: str, name: str, folder: Path, digests: dict[str, str], patterns: Iterable[str], commit: str | None = None
) -> Resource:
    chosen_files = {path: sha for path, sha in digests.items() if any(fnmatch(path, item) for item in patterns)}
    size = sum((folder / path).stat().st_size for path in chosen_files)
    tree = files.sha256(files.canonical(chosen_files))
    return Resource(kind, name, "found", commit, str(folder), len(chosen_files), size, tree)


def offline_check(campaign: Campaign, collector: ResourceCollector, folder: Path) -> Check:
    """Checks that a row without network finds the same commits.

    The row's cache may be another one, or may hold another revision.
    """
    snapshots = collector.snapshots
    if not snapshots:
        return Check("offline", "pass", "nothing comes from the hub")
    process_exit = process.run(
        process.python("tracka.preflight.probes.offline", json.dumps([asdict(spec) for spec in snapshots])),
        cwd=folder,
        env=environment.for_row(campaign, gpu.CPU_DEVICE, "osmesa") | {"HF_HUB_OFFLINE": "1"},
        stdout=folder / "offline.log",
        stderr=folder / "offline.err",
        bounds=Bounds(campaign.probe_secs),
    )
    offline_folders = [answer["folder"] for answer in parsing.printed_values(reading.tail(folder / "offline.log"))]
    offline_folders += [None] * (len(snapshots) - len(offline_folders))
    lost = {
        spec: f"{spec.repo} ({Path(offline).name if offline else 'nothing'} instead of {online.name})"
        for (spec, online), offline in zip(snapshots.items(), offline_folders, strict=True)
        if offline is None or Path(offline).name != online.name
    }
    evidence = f"{len(snapshots) - len(lost)} of {len(snapshots)} repositories found again without network"
    if lost:
        cause = process.cause_of_end(process_exit, folder / "offline.err")
        evidence += f"; missing or other: {joined_names(list(lost.values()))}; {cause}, see offline.err"
    check = required_check(
        "offline",
        not lost,
        evidence,
        "Use the same HF_HOME for preflight and rows, and pin revisions as repo@commit",
    )
    check = replace(check, timed_out=bool(lost) and process_exit.timed_out)
    return replace(check, required=not lost or not collector.baseline_snapshots.isdisjoint(lost))
