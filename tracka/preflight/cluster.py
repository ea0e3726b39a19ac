"""Checks a Slurm cluster before its nodes are paid for: whether a row's job can run there, and whether nodes are alike.

One job for each type of node runs this host's whole preflight there (`node_jobs`). The report of the first node stands
for all rows; what another node has otherwise is named.

Guarantees: no check takes a lock or a GPU of this host.
"""

from collections.abc import Iterator, Mapping, Sequence

from ..campaign.campaign import Campaign
from ..campaign.matrix import CPU
from ..core.check import Check, advisory_check, required_check, run_check
from ..core.counting import counted
from ..core.errors import Finding, UsageError
from ..core.reports import PreflightReport
from ..execution import slurm, slurm_launch, slurm_outcome
from ..execution.slurm_launch import Launch
from .node_jobs import NODES, Answer


def checks(campaign: Campaign) -> list[Check]:
    """Returns the checks of the cluster that need no job: its controller, and whether it would take a row's job."""
    return [
        run_check("slurm:controller", controller),
        run_check("slurm:job", lambda: _accepted(campaign)),
        run_check("slurm:accounting", _accounting),
    ]


def controller() -> str:
    """Returns how Slurm's controller answers. Raises TrackaError where it does not."""
    slurm.require_programs()
    version = slurm.ask("sinfo", "--version").strip()
    where = f"in the allocation {slurm.allocation()}" if slurm.allocation() else "from a login node"
    return f"{version} answers, {where}: {slurm.ask('scontrol', 'ping').splitlines()[0]}"


def _accepted(campaign: Campaign) -> str:
    """Returns what Slurm says of the longest row's job, which it is asked about and not given."""
    if slurm.allocation():
        return "rows are steps of an allocation, which Slurm has given"
    row = max(campaign.enabled, key=campaign.timeout)
    has_gpu = any(each.gpu_id != CPU for each in campaign.enabled)
    minutes = campaign.slurm.minutes(campaign.timeout(row), campaign.grace_secs)
    cores = max(campaign.slurm.cores(each.batch_size) for each in campaign.enabled)
    launch = Launch(slurm_launch.name(campaign.layout.artifacts, "test"), "Track A: preflight", cores, minutes, has_gpu)
    try:
        slurm.ask(*slurm_launch.options(launch, campaign.slurm), "--test-only", "true")
    except slurm.Refused as error:
        what = f"Slurm would refuse a row's job: {error.findings[0].what}"
        raise UsageError(Finding("[slurm]", what, slurm_outcome.REMEDIES[slurm_outcome.REFUSED])) from None
    gres = f", {campaign.slurm.gres}" if has_gpu else ""
    return f"Slurm would take a job of {cores} cores{gres} and {minutes} minutes"


def _accounting() -> str:
    kind = next(
        (
            line.partition("=")[2].strip()
            for line in slurm.ask("scontrol", "show", "config").splitlines()
            if line.startswith("AccountingStorageType")
        ),
        "",
    )
    if not kind.endswith("slurmdbd"):
        return "there is no slurmdbd, so account and qos are not checked"
    return "slurmdbd is there, and Slurm has taken account and qos of the job above"


def node_checks(found: Sequence[Answer]) -> list[Check]:
    """Returns the checks of what the nodes answered: each node, the folder, the locks, and that nodes are alike."""
    if not found:
        remedy = "See `sinfo`: all nodes of the partition are down or drained"
        return [required_check("slurm:nodes", False, "no node takes jobs now", remedy)]
    return [*map(_node_check, found), _shared(found), _locks(found), _alike(found)]


def _node_check(answer: Answer) -> Check:
    kind = answer.kind
    many = f" (and {len(kind.names) - 1} like it)" if len(kind.names) > 1 else ""
    report = answer.report
    blocker = answer.problem or (report["blocker"] if report else "it left no report") or ""
    evidence = f"{kind.tried}{many}: {kind.described}; {blocker or _facts_in_words(report)}"
    remedy = f"See {NODES}/{kind.tried}/ beside preflight.json; --exclude in [slurm] extra leaves a node out"
    return required_check(f"slurm:node:{kind.tried}", not blocker, evidence, remedy)


def _facts_in_words(report: PreflightReport | None) -> str:
    return f"renders with {report['mujoco_gl_effective']}, {counted(report['gpu_count'], 'GPU')}" if report else ""


def _shared(found: Sequence[Answer]) -> Check:
    unseen = [answer.kind.tried for answer in found if not answer.said]
    slowest = max((float(answer.said.get("seen_after", 0.0)) for answer in found), default=0.0)
    evidence = f"a nonce went to {len(found)} nodes and came back, seen there after {slowest:.1f} s"
    if unseen:
        evidence = f"no answer of {', '.join(unseen)} through the folder of the artifacts"
    remedy = "Put the campaign on a file system that all nodes share, or raise [slurm] shared_secs"
    return required_check("slurm:shared", not unseen, evidence, remedy)


def _locks(found: Sequence[Answer]) -> Check:
    loose = [answer.kind.tried for answer in found if answer.said and answer.said.get("lock") != "held"]
    evidence = "a lock that is held here is held on the nodes too"
    if loose:
        evidence = f"{', '.join(loose)} could lock a file that is locked here: locks do not hold across nodes"
    remedy = (
        "Mount the file system with locks that all nodes see (NFS: without local_lock and nolock; Lustre: -o flock),"
        " so that no two sessions run one campaign"
    )
    return required_check("slurm:locks", not loose, evidence, remedy)


def _alike(found: Sequence[Answer]) -> Check:
    facts = [(answer.kind.tried, _facts(answer)) for answer in found if answer.report]
    differences = list(_differences(facts))
    evidence = (
        "; ".join(differences) or f"{len(facts)} types of nodes agree in driver, software, renderer and simulator"
    )
    remedy = "Name one type under [slurm] constraint or partition: rows on unlike nodes may differ in outcome"
    return advisory_check("slurm:alike", not differences, evidence, remedy)


def _facts(answer: Answer) -> dict[str, object]:
    report = answer.report
    assert report is not None
    return {
        "packages": answer.said.get("packages"),
        "driver": answer.said.get("driver"),
        "processor": answer.said.get("cpu"),
        "GPUs": sorted(set(report["gpu_names"])),
        "Python": report["python_version"],
        "renderer": report["mujoco_gl_effective"],
        "invalid tasks": report["invalid_tasks"],
    }


def _differences(facts: Sequence[tuple[str, Mapping[str, object]]]) -> Iterator[str]:
    for key in facts[0][1] if facts else ():
        first, values = facts[0], {name: fact[key] for name, fact in facts}
        others = [f"{name} has {value}" for name, value in values.items() if value != first[1][key]]
        if others:
            yield f"{key}: {first[0]} has {first[1][key]}, {', '.join(others)}"
