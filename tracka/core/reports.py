"""Defines the types of the JSON files of the host and of the phases.

These are capabilities, preflight report, snapshot and handoff. As in `artifacts.py`, each type has the keys of its
schema.
"""

from collections.abc import Sequence
from typing import TypedDict

from .files import Json


class Capabilities(TypedDict):
    """Content of `state/cli_capabilities.json` (schema cli_capabilities): what the installed lerobot-eval can do."""

    schema_version: int
    lerobot_eval_help_text_path: str
    supported_flags: list[str]
    version_text: str
    generated_at_utc: str
    executable: list[str]
    plugins: list[str]
    policy_types: list[str]


class CheckRecord(TypedDict):
    """One check of preflight, as `check.Check` has it."""

    name: str
    status: str
    required: bool
    evidence: str
    remedy: str | None
    seconds: float


class DoctorReport(TypedDict):
    """What `tracka doctor --json` prints (schema doctor): this machine, check by check.

    `status`, here and in each check, is ok, warning or missing.
    """

    schema_version: int
    generated_at_utc: str
    tracka_version: str
    status: str
    checks: list[CheckRecord]
    seconds: float


class GpuRecord(TypedDict):
    """One GPU as preflight found it; memory in MiB, None where the driver does not say."""

    gpu_id: int
    name: str
    uuid: str
    memory_total: int | None
    memory_free: int | None
    processes: Sequence[str]


class ResourceRecord(TypedDict):
    """One thing that policies need; `sha256` covers the paths and contents of its files."""

    kind: str
    name: str
    outcome: str
    commit: str | None
    folder: str | None
    files: int
    bytes: int
    sha256: str | None


class ViewRecord(TypedDict):
    """One camera that feeds an input of a policy; `rows` is empty where all rows of the policy agree."""

    policy_path: str
    rows: list[str]
    camera: str
    key: str
    input: str | None
    size: str
    picture: str | None


class BackendAttempt(TypedDict):
    """One attempt of preflight to render a frame; `gpu_id` -1 is the CPU."""

    backend: str
    gpu_id: int
    ok: bool
    evidence: str
    seconds: float


class HostReport(TypedDict):
    """The part of a preflight report that is known without the policies and the simulator's probes."""

    schema_version: int
    status: str
    blocker: str | None
    generated_at_utc: str
    checks: list[CheckRecord]
    gpu_count: int
    gpu_names: list[str]
    gpus: list[GpuRecord]
    display_env: str | None
    mujoco_gl_requested: str
    mujoco_gl_effective: str | None
    render_prefix: list[str]
    backend_attempts: list[BackendAttempt]
    python_version: str
    lerobot_import_ok: bool
    lerobot_eval_help_ok: bool
    policy_resolve_ok: bool
    seconds: float


class PreflightReport(HostReport):
    """Content of `preflight/preflight.json` (schema preflight): what this host can do, check by check.

    `invalid_tasks` maps suite -> LIBERO task -> why its episodes do not count.
    """

    invalid_tasks: dict[str, dict[str, str]]
    resources: list[ResourceRecord]
    views: list[ViewRecord]


class GpuName(TypedDict):
    """One GPU as a snapshot has it."""

    name: str
    uuid: str


class Fingerprints(TypedDict):
    """Hashes of the two parts of a snapshot; hosts with equal fingerprints agree in all that these cover."""

    software: str
    host: str


class SoftwareFacts(TypedDict):
    """The part of a snapshot that says which software is installed."""

    tracka_version: str
    python: str
    versions: dict[str, str]


class HostFacts(TypedDict):
    """The part of a snapshot that says what the host is. `driver` is the GPU driver's version and its newest CUDA."""

    platform: str
    cpu: str
    cpu_count: int | None
    memory_mib: int
    driver: Sequence[str] | None
    gpus: list[GpuName]


class EnvSnapshot(SoftwareFacts, HostFacts):
    """Content of `preflight/env_snapshot.json` (schema env_snapshot): what a host and its software were."""

    schema_version: int
    generated_at_utc: str
    git: Json | None
    env: dict[str, str]
    fingerprints: Fingerprints


class Handoff(TypedDict):
    """Content of `state/phaseN_handoff.json` (schema handoff): what a phase hands to the next.

    `inputs` maps path -> sha256, or None for a file that an earlier phase left. `details` differ from phase to phase.
    """

    schema_version: int
    phase: str
    status: str
    generated_at_utc: str
    git_commit: str | None
    inputs: dict[str, str | None]
    outputs: list[str]
    notes: list[str]
    details: Json
