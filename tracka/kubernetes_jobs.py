"""Makes the Kubernetes Jobs that run a campaign on a cluster: prepare it, sweep its shards, close it.

Kubernetes places, restarts and bounds the pods, and Kueue queues them; Track A only says what each pod runs. All pods
share one volume with the campaign's folder. The pods of the sweep are the indexes of one Job: index I runs shard I + 1,
and a pod that is started again resumes, so that no row that has passed runs twice.
"""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from .campaign.campaign import Campaign
from .core.errors import Finding, UsageError, joined_names, shortened
from .core.files import Json

CONTAINER = "tracka"
GATES = ("pytest", "-p", "tracka.plugin", "-p", "tracka.fixtures.gates", "--pyargs", "tracka.acceptance")
TIDY_SECS = 60  # for a pod that is told to end: beyond a row's grace time, to close its rows
# Exit codes of `tracka sweep`: its rows have failed, though each had its retry; the campaign or its preflight is wrong.
ROWS_FAILED, BAD_INPUT = 1, 2


@dataclass(frozen=True)
class JobOptions:
    """What a cluster has to know beyond the campaign. `pods` run at a time; each has `gpus` GPUs."""

    image: str
    shards: int
    pods: int
    gpus: int = 1
    cpus: str = "8"
    memory: str = "32Gi"
    claim: str = "tracka"  # the PersistentVolumeClaim with the campaign's folder
    mount: str = "/campaigns"  # where the pods have that volume
    queue: str | None = None  # of Kueue
    secret: str | None = None  # whose keys become variables, such as HF_TOKEN
    retries: int = 2  # of a pod that was killed or lost


def jobs(campaign: Campaign, options: JobOptions) -> list[Json]:
    """Returns the Jobs that prepare, sweep and close the campaign, in this order.

    Raises UsageError where the matrix asks for GPUs that a pod does not have, or a name is none of Kubernetes'.
    """
    if findings := [*_faults(campaign, options)]:
        raise UsageError(findings)
    folder = f"{options.mount}/{campaign.layout.root.name}"
    tier = ["--tier", campaign.layout.tier] if campaign.layout.tier else []
    gates = [*GATES, "--campaign", folder, *tier, "-m", "phase1 or phase2 or phase3"]
    return [
        _job(campaign, options, "prepare", {"backoffLimit": options.retries}, shlex.join(gates), options.gpus),
        _job(campaign, options, "sweep", _indexed(options), _sweep(folder, tier, options), options.gpus),
        _job(campaign, options, "close", {"backoffLimit": 0}, shlex.join(["tracka", "close", folder, *tier]), 0),
    ]


def _faults(campaign: Campaign, options: JobOptions) -> Iterator[Finding]:
    settings, matrix = campaign.layout.settings, campaign.layout.matrix
    if campaign.expected_gpus > options.gpus:
        what = f"the campaign expects {campaign.expected_gpus} GPUs, and a pod has {options.gpus}"
        yield Finding(f"{settings}, key expected_gpus", what, f"Pass --gpus {campaign.expected_gpus}, or lower the key")
    if pinned := [row.run_id for row in campaign.enabled if row.gpu_id >= max(options.gpus, 1)]:
        what = f"rows {joined_names(pinned)} ask for a GPU that a pod with {options.gpus} does not have"
        yield Finding(
            f"{matrix}, column gpu_id", what, "Write auto: Kubernetes places the pods, a row takes what is free"
        )
    if not re.fullmatch("/[^\\s:]*[^\\s:/]", options.mount):
        yield Finding("--mount", f"{shortened(options.mount)!r} is not an absolute path", "Name one, such as /data")
    for flag, name in {"--claim": options.claim, "--queue": options.queue, "--secret": options.secret}.items():
        if name is not None and not re.fullmatch("[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?", name):
            what = f"{shortened(name)!r} is not a name that Kubernetes takes"
            yield Finding(flag, what, "Use lower-case letters, digits, '-' and '.'")


def _sweep(folder: str, tier: list[str], options: JobOptions) -> str:
    """Returns the shell line of an index: `exec`, so that the signal that ends the pod reaches the sweep itself."""
    places = {
        "--matrix": f"{folder}/configs/eval_matrix.csv",
        "--artifacts-root": f"{folder}/artifacts/runs",
        "--status-dir": f"{folder}/artifacts/state/rows",
        "--max-parallel": str(max(options.gpus, 1)),
    }
    words = ["tracka", "sweep", *(word for item in places.items() for word in item), *tier, "--no-live", "--resume"]
    return f'exec {shlex.join(words)} --shard "$((JOB_COMPLETION_INDEX + 1))/{options.shards}"'


def _indexed(options: JobOptions) -> Json:
    """Returns the part of a Job's spec that makes its pods the indexes of the sweep, and says what ends one for good.

    An eviction costs no retry. Bad input ends the whole Job, since every index would meet it. Failed rows end their
    index: they had their retry, and the other indexes go on.
    """
    by_code = {"containerName": CONTAINER, "operator": "In"}
    return {
        "completionMode": "Indexed",
        "completions": options.shards,
        "parallelism": min(options.pods, options.shards),
        "backoffLimitPerIndex": options.retries,
        "podFailurePolicy": {
            "rules": [
                {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                {"action": "FailJob", "onExitCodes": {**by_code, "values": [BAD_INPUT]}},
                {"action": "FailIndex", "onExitCodes": {**by_code, "values": [ROWS_FAILED]}},
            ]
        },
    }


def _job(campaign: Campaign, options: JobOptions, step: str, spec: Json, line: str, gpus: int) -> Json:
    labels = {
        "app.kubernetes.io/name": "tracka",
        "app.kubernetes.io/instance": _name(campaign),
        "app.kubernetes.io/component": step,
    }
    is_queued = options.queue is not None and step != "close"
    queued = {"kueue.x-k8s.io/queue-name": options.queue} if is_queued else {}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": f"{_name(campaign)}-{step}", "labels": labels | queued},
        # Kueue starts a Job that waits.
        "spec": ({"suspend": True} if is_queued else {})
        | spec
        | {"template": {"metadata": {"labels": labels}, "spec": _pod(campaign, options, line, gpus)}},
    }


def _pod(campaign: Campaign, options: JobOptions, line: str, gpus: int) -> Json:
    requests = {"cpu": options.cpus, "memory": options.memory}
    container: Json = {
        "name": CONTAINER,
        "image": options.image,
        "command": ["/bin/sh", "-c", line],
        "env": [
            {"name": "HF_HOME", "value": f"{options.mount}/.cache/huggingface"},
            {"name": "NVIDIA_DRIVER_CAPABILITIES", "value": "all"},  # without graphics among them, nothing renders
        ],
        "resources": {
            "requests": requests,
            "limits": {"memory": options.memory} | ({"nvidia.com/gpu": gpus} if gpus else {}),
        },
        "volumeMounts": [{"name": "campaigns", "mountPath": options.mount}, {"name": "shm", "mountPath": "/dev/shm"}],
    }
    if options.secret:
        container["envFrom"] = [{"secretRef": {"name": options.secret}}]
    return {
        "restartPolicy": "Never",
        "shareProcessNamespace": True,  # so that the first process of the pod reaps what a row leaves
        "terminationGracePeriodSeconds": campaign.grace_secs + TIDY_SECS,
        "containers": [container],
        "volumes": [
            {"name": "campaigns", "persistentVolumeClaim": {"claimName": options.claim}},
            {"name": "shm", "emptyDir": {"medium": "Memory"}},  # a container's own /dev/shm is too small for frames
        ],
    }


def _name(campaign: Campaign) -> str:
    """Returns the campaign's name, with that of its tier, as Kubernetes allows it in the name of a Job."""
    words = "-".join(filter(None, [campaign.layout.root.name, campaign.layout.tier]))
    return re.sub("[^a-z0-9]+", "-", words.lower())[:50].strip("-") or "campaign"
