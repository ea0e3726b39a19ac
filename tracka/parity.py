"""The parity gate: the same row through lerobot-eval and through the resident engine, episode by episode.

Guarantees: a certificate is written whole or not at all, after both engines have ended well; equal actions to the last
bit prove the engine; where they differ, the reference is run once more against itself, and the engines may differ no
more than that.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from . import environment, files, lease, leftover, place, process, proof, run, schema, secret
from .campaign import Campaign
from .errors import Finding, UsageError, some
from .files import Json
from .gpu import Device
from .layout import RunFolder
from .matrix import Row
from .plan import REFERENCE_NOISE, Host, Plan, asked_of_policy

SIGNIFICANT = 0.05
Played = Mapping[tuple[int, int], Json]  # (task, seed) -> the episode's line


@dataclass(frozen=True)
class Comparison:
    """Two runs of the same episodes."""

    episodes: int
    same_outcome: int
    same_actions: int
    only_first: int  # episodes that only the first solved
    only_second: int
    differing: tuple[str, ...]

    @property
    def exact(self) -> bool:
        return self.same_actions == self.episodes == self.same_outcome

    @property
    def mcnemar_p(self) -> float:
        """The exact McNemar test of the episodes that only one of both solved."""
        from statsmodels.stats.contingency_tables import mcnemar

        table = [[0, self.only_first], [self.only_second, 0]]
        return 1.0 if self.same_outcome == self.episodes else float(mcnemar(table, exact=True).pvalue)


def compare(first: Played, second: Played) -> Comparison:
    """Raises UsageError where the two are not of the same episodes."""
    if first.keys() != second.keys():
        odd = sorted(first.keys() ^ second.keys())
        raise UsageError(Finding("parity", f"only one engine played {some([str(each) for each in odd])}", "Run again"))
    pairs = [(name, first[name], second[name]) for name in sorted(first)]
    return Comparison(
        len(pairs),
        sum(a["success"] == b["success"] for _, a, b in pairs),
        sum(a["actions_sha"] == b["actions_sha"] for _, a, b in pairs),
        sum(a["success"] and not b["success"] for _, a, b in pairs),
        sum(b["success"] and not a["success"] for _, a, b in pairs),
        tuple(_difference(*pair) for pair in pairs if pair[1]["actions_sha"] != pair[2]["actions_sha"]),
    )


def _difference(name: tuple[int, int], first: Json, second: Json) -> str:
    told = [f"{each['steps']} steps, {'success' if each['success'] else 'failure'}" for each in (first, second)]
    return f"task {name[0]}, seed {name[1]}: {told[0]}; {told[1]}"


def read(path: Path) -> Played:
    """The episodes that an engine has recorded. Raises UsageError where they cannot be read."""
    try:
        return {(line["task"], line["seed"]): line for line in files.read_lines(path)}
    except KeyError as error:
        raise UsageError(Finding(str(path), f"no record of episodes ({error})", "See the logs beside it")) from error


def subjects(campaign: Campaign) -> list[Row]:
    """The rows to be proven: one of each checkpoint and way to ask it, of one LIBERO task and one batch; none for
    lerobot-eval.

    One batch, so that a policy's noise can be lerobot-eval's; where a batch is one episode, two.
    """
    first: dict[bytes, Row] = {}
    for row in _candidates(campaign):
        first.setdefault(_way(campaign, row), row)
    return [_short(row) for row in first.values()]


def subject(campaign: Campaign, row: Row) -> Row | None:
    """The one of `subjects` whose proof holds for `row` too; None for lerobot-eval."""
    way = _way(campaign, row)
    # The first that fits, since this is asked for every row of what may be thousands.
    return next((_short(each) for each in _candidates(campaign) if _way(campaign, each) == way), None)


def _candidates(campaign: Campaign) -> list[Row]:
    """The rows that may prove the engine, the baseline first."""
    return sorted(campaign.enabled, key=lambda row: row.run_id != campaign.baseline) if campaign.is_resident else []


def _way(campaign: Campaign, row: Row) -> bytes:
    return files.canonical([row.policy_path, asked_of_policy(campaign, row)])


def _short(row: Row) -> Row:
    return replace(row, n_episodes=min(row.n_episodes, max(row.batch_size, 2)))


def prove(campaign: Campaign, row: Row, host: Host) -> Json:
    """The certificate of the row's checkpoint on this host, from the disk or else made now.

    Raises TrackaError where an engine fails; a certificate that says no is returned like any other.
    """
    place.require(campaign.layout)
    plan = run.plan_row(_of_one_task(campaign, row), row, host)
    path = proof.path(campaign.layout, plan.proof_key)
    found = schema.read_or_empty("parity", path)
    if found.get("key") == plan.proof_key and found.get("run_id") == row.run_id and found["proven"]:
        return found
    leftover.end(leftover.ROW, str(path.parent))  # what a killed session left of its own parity run
    with lease.hold(row.gpu_id, lease.worker_number()) as device:
        certificate = _certificate(plan, device, path.parent)
    files.write_json(path, certificate)
    return certificate


def prove_or_note(campaign: Campaign, row: Row, host: Host) -> Json:
    """The same, but where an engine cannot play another checkpoint than the baseline's, a certificate that says so:
    the rows of that checkpoint then fail by themselves, each with its reason."""
    try:
        return prove(campaign, row, host)
    except UsageError as error:
        if row.policy_path == campaign.row(campaign.baseline).policy_path:
            raise
        plan = run.plan_row(_of_one_task(campaign, row), row, host)
        nothing = certificate(plan, Comparison(0, 0, 0, 0, 0, ()), None, ({}, {}))
        failed = {"proven": False, "exact": False, "evidence": error.findings[0].what}
        found = nothing | failed | {"reference_secs": 0.0, "resident_secs": 0.0}
        files.write_json(proof.path(campaign.layout, plan.proof_key), found)
        return found


def _of_one_task(campaign: Campaign, row: Row) -> Campaign:
    table = {**campaign.row_tables.get(row.run_id, {}), "task_ids": campaign.task_ids(row)[:1]}
    return replace(campaign, row_tables={**campaign.row_tables, row.run_id: table})


def _certificate(plan: Plan, device: Device, folder: Path) -> Json:
    reference, reference_secs = _play(plan, device, folder / f"reference-{time.time_ns()}", "lerobot-eval")
    resident, resident_secs = _play(plan, device, folder / f"resident-{time.time_ns()}", "resident")
    found = compare(reference, resident)
    floor = None
    if not found.exact:
        again, _ = _play(plan, device, folder / f"again-{time.time_ns()}", "lerobot-eval")
        floor = compare(reference, again)
    return certificate(plan, found, floor, (reference, resident)) | {
        "reference_secs": round(reference_secs, 3),
        "resident_secs": round(resident_secs, 3),
    }


def certificate(plan: Plan, found: Comparison, floor: Comparison | None, played: Sequence[Played]) -> Json:
    """parity.json but for the seconds."""
    fisher_p = None if floor is None else _fisher(found, floor)
    return {
        "schema_version": schema.VERSION,
        "generated_at_utc": files.utc_now(),
        "key": plan.proof_key,
        "run_id": plan.row.run_id,
        "proven": found.exact or (found.mcnemar_p >= SIGNIFICANT and (fisher_p or 0.0) >= SIGNIFICANT),
        "exact": found.exact,
        "evidence": _evidence(found, floor),
        "episodes": found.episodes,
        "same_outcome": found.same_outcome,
        "same_actions": found.same_actions,
        "reference_successes": sum(line["success"] for line in played[0].values()),
        "resident_successes": sum(line["success"] for line in played[1].values()),
        "mcnemar_p": found.mcnemar_p,
        "floor": None
        if floor is None
        else {"same_outcome": floor.same_outcome, "same_actions": floor.same_actions, "fisher_p": fisher_p},
        "differing": list(found.differing),
    }


def _evidence(found: Comparison, floor: Comparison | None) -> str:
    told = f"{found.same_outcome} of {found.episodes} outcomes and {found.same_actions} action sequences are the same"
    if floor is None:
        return told
    return f"{told}; of the reference against itself {floor.same_outcome} and {floor.same_actions}"


def _fisher(found: Comparison, floor: Comparison) -> float:
    """The chance of so many outcomes that differ, were the engines as alike as the reference is to itself."""
    from scipy.stats import fisher_exact

    counts = [[each.episodes - each.same_outcome, each.same_outcome] for each in (found, floor)]
    return float(fisher_exact(counts, alternative="greater").pvalue)


def _play(plan: Plan, device: Device, folder: Path, engine: str) -> tuple[Played, float]:
    """One engine's episodes of the plan, and the seconds it took. Raises UsageError where it fails."""
    spec = replace(plan.campaign, engine=engine, resident=dict(plan.campaign.resident) | REFERENCE_NOISE)
    ours = replace(plan, campaign=spec)
    files.make_folder(folder)
    target = RunFolder(folder)
    command = ours.command(target, device.torch_name)
    if engine == "lerobot-eval":
        command = [*plan.host.render_prefix, *process.python("tracka.probes.reference"), *_flags(command)]
    marks = leftover.marks(folder.parent, device.lock_file)
    environ = environment.for_row(plan.campaign, device, plan.host.backend) | marks
    ended = process.run(
        command,
        cwd=plan.campaign.layout.root,
        env=environ,
        stdout=target.stdout,
        stderr=target.stderr,
        bounds=plan.bounds,
        secrets=secret.known(environ),
        lease=device.lock,
        journal=device.journal,
        label=f"parity-{plan.row.run_id}",
    )
    if ended.code != 0:
        raise UsageError(Finding(str(target.stderr), f"{engine} ended with exit code {ended.code}", "Read it"))
    return read(target.output / "episodes.jsonl"), ended.seconds


def _flags(command: Sequence[str]) -> list[str]:
    return [word for word in command if word.startswith("--")]
