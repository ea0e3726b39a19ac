"""Defines the types of the JSON files of a run: manifest, result, row marker, identity and parity certificate.

The schemas in `schemas/` judge files; these types let mypy check the code that makes and reads the files. A test holds
that both have the same keys. A value that may hold anything stays `Json`. The files of the host and of the phases are
in `reports.py`.
"""

from typing import NotRequired, TypedDict

from .files import Json


class Outcome(TypedDict):
    """How an attempt ended, in its manifest: status and reason as in its result."""

    status: str
    reason: str | None


class ProcessRecord(TypedDict):
    """A process on a GPU; `memory` is in MiB, or None where the driver does not say."""

    pid: int
    name: str
    memory: int | None


class CheckpointRecord(TypedDict):
    """The checkpoint of a run: where it came from, where it lies, and the hash of its content.

    The hash is None where the row could not start.
    """

    source: str
    revision: str | None
    folder: str
    tree_sha256: str | None
    policy_type: str


class Recorded(TypedDict):
    """The part of a manifest that its row hash stands for. The command is None where the row could not start."""

    engine: str
    command: list[str] | None
    checkpoint: CheckpointRecord
    settings: Json
    versions: dict[str, str]


class Placement(TypedDict):
    """Where Slurm ran an attempt. `gpu` is the GPU's word in CUDA_VISIBLE_DEVICES on the node, None for the CPU."""

    node: str
    job_id: str
    step_id: str
    restarts: int
    gpu: str | None


class Requested(TypedDict):
    """The part of a manifest that needs no checkpoint and no device: what the campaign asks of the row.

    `listener` is there where a module of Track A starts the command's program, and records its episodes. `certificate`
    is there for the resident engine: the key of the parity certificate that holds for the row.
    """

    schema_version: int
    tracka_version: str
    run_id: str
    attempt: int
    retry_index: int
    dry_run: bool
    cwd: str
    start_time_utc: str
    policy_path: str
    task_suite: str
    task_ids: list[int]
    batch_size: int
    batch_size_requested: int
    comparable: bool
    n_episodes: int
    expected_episodes: int
    worker: str
    seed: int
    mujoco_gl: str
    mujoco_gl_requested: str
    timeout_secs: int
    threshold: float
    listener: NotRequired[str]
    certificate: NotRequired[str]
    slurm: NotRequired[Placement]


class StepEnd(TypedDict):
    """How a program on a cluster's node ended: `files` has the size of each file that it left in its output folder."""

    code: int
    stopped: str
    seconds: float
    files: dict[str, int]


class StepRecord(Placement):
    """Content of `step.json` (schema step): a row's program on a cluster's node. `end` is None while it runs."""

    schema_version: int
    gpu_uuid: str | None
    variables: dict[str, str]
    started_at: float
    end: StepEnd | None


class Manifest(Requested, Recorded):
    """Content of `run_manifest.json` (schema run_manifest): what an attempt is about to run.

    The manifest is written before the launch. Its `outcome` is None until the attempt ends, and stays None in a dry
    run. Its `row_hash` is None where the row could not start.
    """

    env: dict[str, str]
    gpu_id: int
    gpu_uuid: str | None
    gpu_others: list[ProcessRecord]
    n_action_steps: int | None
    row_hash: str | None
    outcome: Outcome | None
    invalid: str | None
    unproven: str | None


class TaskCounts(TypedDict):
    """The episodes of one LIBERO task, and how many of them succeeded."""

    suite: str
    task_id: int
    successes: int
    episodes: int


class Reported(TypedDict):
    """The part of a result that an evaluation's own files decide; numbers are None where these files lack them.

    `precision` is the mode of the resident engine that answered; results of older versions lack it.
    """

    episodes: int | None
    successes: int | None
    success_rate: float | None
    per_task: list[TaskCounts]
    metrics_source: str | None
    precision: NotRequired[str | None]
    parser_warnings: list[str]


class Result(Reported):
    """Content of `result.json` (schema result): what came out of an attempt, written after every end, good or bad.

    `files` maps each file that the attempt left to its sha256. `row_hash` is None where the row could not start.
    """

    schema_version: int
    run_id: str
    attempt: int
    row_hash: str | None
    dry_run: bool
    status: str
    reason: str | None
    invalid: str | None
    unproven: str | None
    error_message: str | None
    exit_code: int | None
    end_time_utc: str
    duration_sec: float
    video_path: str | None
    video_paths: list[str]
    stdout_log: str
    stderr_log: str
    files: dict[str, str]


class Step(TypedDict):
    """One step of a row: its new status, when it got that status, and the number of the attempt."""

    status: str
    at_utc: str
    attempt: int


class History(TypedDict):
    """The part of a row marker that no step removes."""

    history: list[Step]


class RowMarker(History):
    """Content of `state/rows/RUN_ID.json` (schema row_marker): where a row stands, with every step in `history`."""

    schema_version: int
    run_id: str
    status: str
    retry_index: int
    gpu_id: int | None
    started_at_utc: str | None
    ended_at_utc: str | None
    result_path: str | None
    result_sha256: str | None
    notes: str
    reason: str | None


class CountsRecord(TypedDict):
    """The counts of one comparison of two plays, as `comparison.Comparison` has them."""

    episodes: int
    same: int
    same_begin: int
    same_outcome: int
    reference_successes: int
    other_successes: int
    first_chunk: float


class Compared(TypedDict):
    """The part of a parity certificate that its records decide. `repeated` is lerobot-eval compared with itself."""

    compared: CountsRecord
    repeated: CountsRecord | None
    differing: list[str]


class Verdict(TypedDict):
    """The part of a parity certificate that follows from its numbers."""

    proven: bool
    exact: bool
    evidence: str


class FastStart(TypedDict):
    """The part of a certificate of fast mode that its plays' records do not decide: exact mode's certificate, settings.

    `type` is what the policy computes in, and `margin` by how much the success rate of fast mode may be lower.
    """

    exact_key: str
    exact_proven: bool
    exact_evidence: str
    type: str
    margin: float


class FastRecord(FastStart):
    """What a certificate of fast mode has besides the counts: outcomes, and the difference of the first chunks.

    `noise_flips` counts outcomes in which exact mode differs from itself, and `noise_alone` and `flips_alone` those in
    which one of exact mode's repetition and fast mode alone differs from exact mode. `answered` is the mode that
    answered where fast mode was asked for.
    """

    answered: str
    gains: int
    losses: int
    noise_flips: int
    noise_alone: int
    flips_alone: int
    mean: float
    largest: float
    size: float


class Unjudged(Compared):
    """A parity certificate before its verdict. `files` maps each record beside the certificate to its sha256."""

    schema_version: int
    generated_at_utc: str
    key: str
    run_id: str
    suite: str
    tasks: list[int]
    batch_size: int
    manner: str
    fallbacks: list[str]
    calls_of_several_tasks: int
    chunk: int
    reference_secs: float
    resident_secs: float
    files: dict[str, str]
    evidence: str
    fast: NotRequired[FastRecord]  # where fast mode is held against exact mode


class Certificate(Unjudged):
    """Content of `parity.json` (schema parity): the same episodes by both engines, compared, with the verdict."""

    proven: bool
    exact: bool


class NamedEpisode(TypedDict):
    """An episode that an earlier attempt has played, and the number of that attempt."""

    task: int
    episode: int
    attempt: int


class NamedAttempt(TypedDict):
    """An attempt of which a later one keeps episodes; `files` maps its files that were used to their sha256."""

    attempt: int
    files: dict[str, str]


class Resumed(TypedDict):
    """Content of `resumed.json` (schema resumed): which episodes an attempt keeps, of which earlier attempts."""

    schema_version: int
    run_id: str
    attempt: int
    row_hash: str
    attempts: list[NamedAttempt]
    episodes: list[NamedEpisode]


class RowParts(TypedDict):
    """What the matrix asks for, as a part of the row hash."""

    suite: str
    task_ids: list[int]
    batch_size: int
    n_episodes: int
    seed: int
    device: str


class ResidentParts(TypedDict):
    """What else decides the resident engine's outcomes: the hash of its code, and its settings."""

    code: NotRequired[str]
    settings: NotRequired[Json]


class EngineParts(ResidentParts):
    """The engine, as a part of the row hash; `code` and `settings` are there for the resident engine alone."""

    name: str


class SimulatorParts(TypedDict):
    """The backend that renders, and whether preflight calls the simulator invalid, as a part of the row hash."""

    backend: str
    invalid: bool


class ProgramParts(TypedDict):
    """lerobot's plug-ins, and the hashes of the files of a program of the campaign's own, as a part of the row hash."""

    plugins: list[str]
    own: list[str]


class SoftwareParts(TypedDict):
    """The parts of the row hash that say which software plays, and what the policy loads beside its checkpoint."""

    loaded: dict[str, str]
    program: ProgramParts
    python: str
    packages: dict[str, str]
    code: dict[str, str]
    environment: dict[str, str]


class IdentityParts(SoftwareParts):
    """The parts of a row hash; docs/contracts.md has what each holds."""

    hash_version: int
    row: RowParts
    settings: Json
    engine: EngineParts
    checkpoint: str
    simulator: SimulatorParts


class Identity(IdentityParts):
    """Content of `attempts/K/identity.json` (schema identity): the parts of a result's row hash, written out."""

    schema_version: int


class StoppedClaim(TypedDict):
    """The claim that ended a campaign early: a policy's rate in a suite, or in one of its tasks."""

    policy_path: str
    suite: str
    task: int | None
    threshold: float


class CountedRow(TypedDict):
    """A row whose episodes were counted when a campaign was stopped early."""

    row_hash: str
    episodes: int
    successes: int


class EarlyStopRecord(TypedDict):
    """Content of `state/early_stop.json` (schema early_stop): the decision that ended a campaign early.

    `claim` is None where every claim had passed. The counts are those of the claim, or of the largest one. `rows` has
    each row whose episodes were counted, and `claims_sha256` is the hash of what the policies had to show.
    """

    schema_version: int
    decided_at_utc: str
    claims_sha256: str
    outcome: str
    rule: str
    claim: StoppedClaim | None
    successes: int
    episodes: int
    expected: int
    sentence: str
    rows: dict[str, CountedRow]
