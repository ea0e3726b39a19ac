"""Tries one node of each type in a cluster: a job runs preflight there and answers through the shared folder.

Guarantees: a job that preflight starts ends with it; an answer counts only with the nonce of this very request.
"""

import contextlib
import shutil
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..campaign.campaign import Campaign
from ..campaign.slurm_settings import SPARE_SECS
from ..core import escaping, files, lock, redaction, schema
from ..core.errors import TrackaError
from ..core.files import Json
from ..core.reports import PreflightReport
from ..execution import environment, process, slurm, slurm_launch, slurm_outcome
from ..execution.lanes import Lanes
from ..execution.process import Bounds, Exit
from ..execution.slurm_launch import Launch
from ..execution.slurm_step import StepRequest

REQUEST, ANSWER = "request.json", "answer.json"
NODES = "nodes"  # the folder of what each node has found, beside preflight.json
MOST_TYPES = 8  # further types of nodes are named, not tried
MOST_WAIT_SECS = 3600  # that a node's job may be pending
UNANSWERED_SECS = 2.0  # that the answer of a job is waited for which has failed
GRACE_SECS = 10.0
SNAPSHOTS = ("nvidia_smi.txt", "pip_freeze.txt", "env_snapshot.json", "setup.log")


@dataclass(frozen=True)
class NodeType:
    """Nodes that Slurm describes in the same words; one of them is tried."""

    names: tuple[str, ...]
    described: str

    @property
    def tried(self) -> str:
        return self.names[0]


@dataclass(frozen=True)
class Answer:
    """What a job on a node found: how it ended, its own report, and what it said of folder and lock."""

    kind: NodeType
    problem: str
    report: PreflightReport | None
    said: Json


def node_types(campaign: Campaign) -> list[NodeType]:
    """Returns the types of the nodes on which rows may run, by features, GPUs, cores and memory."""
    words = ["sinfo", "-h", "-N", "-o", slurm.SPLIT.join(("%N", "%T", "%f", "%G", "%c", "%m"))]
    job = slurm.allocation()
    if job:
        words += ["-n", slurm.ask("squeue", "-h", "-j", job, "-o", "%N").strip()]
    elif campaign.slurm.partition:
        words += ["-p", campaign.slurm.partition]
    found: dict[str, list[str]] = {}
    for line in slurm.ask(*words).splitlines():
        name, state, *facts = line.split(slurm.SPLIT)
        if not any(word in state for word in ("down", "drain", "fail", "unk", "maint")):
            found.setdefault("features {}, gres {}, {} cores, {} MiB".format(*facts), []).append(name)
    return [NodeType(tuple(dict.fromkeys(names)), escaping.line(facts)) for facts, names in found.items()]


def answers(campaign: Campaign, request: Json, folder: Path) -> list[Answer]:
    """Runs one job for each type of node and returns what each found; `request` is what a node has to check."""
    kinds = node_types(campaign)[:MOST_TYPES]
    nodes = folder / NODES
    if nodes.is_dir():
        shutil.rmtree(nodes)
    lock_file = campaign.layout.locks / ".nodes.lock"
    with lock.hold(lock_file, "the test of locks"), Lanes(max(1, len(kinds))) as pool:
        return list(pool.map(lambda kind: _answer(campaign, kind, request, nodes / kind.tried, lock_file), kinds))


def _answer(campaign: Campaign, kind: NodeType, request: Json, folder: Path, lock_file: Path) -> Answer:
    """Runs preflight on one node. The nonce goes there and comes back through the shared folder."""
    files.make_folder(folder)
    nonce = uuid.uuid4().hex
    files.write_json(folder / REQUEST, {**request, "nonce": nonce, "lock": str(lock_file)})
    outcome = _run(campaign, kind, folder)
    said = _await_answer(folder, nonce, campaign.slurm.shared_secs if outcome.code == 0 else UNANSWERED_SECS)
    report = schema.read_or_none("preflight", folder / "preflight.json")
    return Answer(kind, _problem(campaign, outcome, said, _logs(folder)), report, said)


def _run(campaign: Campaign, kind: NodeType, folder: Path) -> Exit:
    """Runs the job on the node and returns how its program ended; the job is gone then."""
    environ = {name: value for name, value in environment.base().items() if not name.startswith("SLURM_")}
    name = slurm_launch.name(campaign.layout.artifacts, f"preflight-{kind.tried}")
    allowed = float(3 * campaign.probe_secs)
    out, errors = _logs(folder)
    try:
        ended = process.run(
            _words(campaign, kind, folder, name, allowed, environ),
            cwd=campaign.layout.root,
            env=slurm_launch.environment(environ),
            stdout=out,
            stderr=errors,
            bounds=Bounds(allowed + min(campaign.slurm.wait_secs, MOST_WAIT_SECS)),
            secrets=redaction.secret_values(environ),
            beat=1.0,
            farewell=slurm_launch.farewell(name),
        )
    finally:
        with contextlib.suppress(TrackaError):
            slurm.end(name)
    return slurm_outcome.of(ended, schema.read_or_none("step", folder / "step.json"), (out, errors))


def _words(
    campaign: Campaign, kind: NodeType, folder: Path, name: str, allowed: float, environ: Mapping[str, str]
) -> list[str]:
    """Returns the argv of srun for the job called `name`, whose program may take `allowed` seconds."""
    has_gpu = campaign.host_gpus > 0
    step = StepRequest(
        tuple(process.python("tracka.preflight.node", str(folder))),
        str(campaign.layout.root),
        str(folder / "step.json"),
        str(folder / "none"),
        allowed,
        GRACE_SECS,
        float(campaign.slurm.lost_secs),
        slurm.allocation() is None,
        has_gpu,
        "",
    )
    minutes = -(-int(allowed + SPARE_SECS) // 60)
    cores = max(campaign.slurm.cores(row.batch_size) for row in campaign.enabled)
    launch = Launch(name, f"Track A: preflight of {campaign.layout.artifacts}", cores, minutes, has_gpu)
    return slurm_launch.words(launch, campaign.slurm, step, environ, node=kind.tried)


def _logs(folder: Path) -> tuple[Path, Path]:
    return folder / "stdout.log", folder / "stderr.log"


def _problem(campaign: Campaign, outcome: Exit, said: Json, logs: tuple[Path, Path]) -> str:
    """Returns why the node has not answered; empty where it has."""
    if outcome.stopped:
        return slurm_outcome.message(outcome.stopped, logs) if outcome.stopped in slurm_outcome.WHY else outcome.stopped
    if outcome.code:
        return process.cause_of_end(outcome, *logs)
    if not said:
        return f"its answer was not seen here within {campaign.slurm.shared_secs} s, so the folder is not shared"
    return ""


def _await_answer(folder: Path, nonce: str, seconds: float) -> Json:
    """Returns the node's answer once it is seen here, with today's nonce; an empty one after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        said = files.read_or_empty(folder / ANSWER)
        if said.get("nonce") == nonce:
            return said
        if time.monotonic() > deadline:
            return {}
        time.sleep(0.5)


def take_over(found: Sequence[Answer], folder: Path) -> PreflightReport | None:
    """Copies the snapshots and pictures of the first node that has a report into `folder`; returns that report."""
    for answer in found:
        if answer.report is not None:
            source = folder / NODES / answer.kind.tried
            for name in (*SNAPSHOTS, *(path.name for path in source.glob("*.png"))):
                if (source / name).is_file():
                    files.copy_atomic(source / name, folder / name)
            return answer.report
    return None
