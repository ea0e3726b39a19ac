"""Defines the contracts of one row: what its run folder and its marker must be.

The contract `evidence` is that of `runs/evidence.py`, by which a passed run also stands or runs again.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

from ..campaign import commands, definition
from ..campaign.campaign import Campaign
from ..campaign.definition import Definition
from ..campaign.layout import Layout
from ..campaign.matrix import Row
from ..core import fact_cache, files
from ..core.errors import Finding
from ..engines import fast_certificate, parity_certificate
from ..reporting import collect, rejected_rows
from ..runs import early_stop, evidence, identity, known_answers, parity, refusal, run, time_budget
from ..runs.plan import Plan
from . import video_contract

RowContract = Callable[[Campaign, Row], Iterator[Finding]]


def sound_evidence(campaign: Campaign, row: Row) -> Iterator[Finding]:
    """Yields a finding where the row's files are missing, malformed, or disagree with each other or with the matrix.

    Raises UsageError where manifest or result is missing or malformed.
    """
    yield from _evidence(campaign, row, records_only=False)


def sound_records(campaign: Campaign, row: Row) -> Iterator[Finding]:
    """Yields what `sound_evidence` yields of manifest, result, identity and marker: no other file is opened."""
    yield from _evidence(campaign, row, records_only=True)


def _evidence(campaign: Campaign, row: Row, records_only: bool) -> Iterator[Finding]:
    manifest, result = evidence.read(campaign.layout, row.run_id)
    yield from evidence.of_marker(campaign, row, manifest, result)
    yield from evidence.of_files(campaign, row, manifest, result, records_only)
    yield from evidence.of_attempts(campaign, row)
    yield from evidence.against_matrix(campaign, row, manifest)
    if refusal.has_started(manifest):
        yield from evidence.against_plan(_todays_plan(definition.of(campaign), row), manifest)


@fact_cache.remembered_lately(1)
def _todays_plan(key: Definition, row: Row) -> Plan:
    """Returns the plan of the row by today's inputs, for which two contracts ask one after the other."""
    return run.plan_row(key.campaign, row, run.load_host(key.layout))


def backend(campaign: Campaign, row: Row) -> Iterator[Finding]:
    """Yields a finding where the row did not run with the backend that preflight chose."""
    manifest = collect.load_run_manifest(campaign.layout.run(row.run_id).manifest)
    preflight_backend = _preflight_backend(campaign.layout)
    if manifest["mujoco_gl"] != preflight_backend:
        what = f"the run used {manifest['mujoco_gl']}, but preflight chose {preflight_backend}"
        yield Finding(str(campaign.layout.run(row.run_id).manifest), what, "Run the row again with --allow-overwrite")


@fact_cache.remembered
def _preflight_backend(layout: Layout) -> str | None:
    """Returns the backend that preflight chose; None where it chose none."""
    backend_name: str | None = files.read_json(layout.preflight_report).get("mujoco_gl_effective")
    return backend_name


def result_stands(campaign: Campaign, row: Row) -> Iterator[Finding]:
    """Yields a finding where the row failed, or passed with inputs that are not today's."""
    path = campaign.layout.run(row.run_id).result
    result = collect.load_result(path)
    if result["status"] != "pass":
        again = commands.gates(campaign.layout, "--lf")
        remedy = f"Read {result['stderr_log']}, mend the cause, and rerun: {again}"
        if result["reason"] in rejected_rows.CUT_OFF:
            remedy = f"Run the row again: {again}"
        yield Finding(str(path), f"the run failed ({result['reason']}): {result['error_message']}", remedy)
        return
    plan = _todays_plan(definition.of(campaign), row)
    if result["row_hash"] != plan.row_hash:
        attempt = campaign.layout.run(row.run_id).attempt(result["attempt"])
        yield Finding(str(path), *identity.change(attempt, plan.identity_parts))


def threshold_reached(campaign: Campaign, row: Row) -> Iterator[Finding]:
    """Yields a finding where the success rate is below the row's threshold."""
    path = campaign.layout.run(row.run_id).result
    rate, threshold = collect.load_result(path)["success_rate"], campaign.threshold(row)
    if rate is not None and rate < threshold:
        what = f"the success rate is {rate:.3f}, but the threshold is {threshold:.3f}"
        yield Finding(str(path), what, f"Look at the videos. {rejected_rows.STAYS}; {rejected_rows.OTHER_CAMPAIGN}")


def valid_simulator(campaign: Campaign, row: Row) -> Iterator[Finding]:
    """Yields a warning where the simulator does not match the benchmark's.

    The row stands, but a strict validation does not accept it.
    """
    path = campaign.layout.run(row.run_id).result
    if mismatch := collect.load_result(path)["invalid"]:
        remedy = "Run the row with --allow-overwrite on a host whose simulator preflight finds valid"
        yield Finding(str(path), f"invalid: {mismatch}", remedy, warning=True)


def proven_row(campaign: Campaign, row: Row) -> Iterator[Finding]:
    """Yields a finding where no parity run with today's inputs proves the engine for the row's checkpoint.

    The engine is proven when it plays lerobot-eval's episodes of that checkpoint.
    """
    host = run.load_host(campaign.layout)
    if run.preflight_refusal(campaign, row, host):
        return  # the rows of a refused checkpoint fail in phase 4; the other checkpoints prove the engine
    plan = run.plan_row(campaign, row, host)
    path = parity_certificate.certificate_path(campaign.layout, plan.proof_key)
    if reason := plan.unproven_reason:
        # Where the engine cannot play a checkpoint other than the baseline's, only the rows of that checkpoint fail.
        is_other_checkpoint = row.policy_path != campaign.row(
            campaign.baseline
        ).policy_path and not parity_certificate.compares_episodes(path)
        remedy = "Read the logs beside the certificate, or set engine = 'lerobot-eval'"
        yield Finding(str(path), f"{row.policy_path}: {reason}", remedy, warning=is_other_checkpoint)
        return
    for contradiction in parity.contradictions(path):
        phase3 = commands.gates(campaign.layout, "-m phase3")
        remedy = f"Prove the engine again: {phase3}"
        yield Finding(str(path), contradiction, remedy)


def proven_engine(campaign: Campaign, row: Row) -> Iterator[Finding]:
    """Yields a warning where the engine is not proven to play lerobot-eval's episodes.

    A strict validation does not accept the row then.
    """
    path = campaign.layout.run(row.run_id).result
    if reason := collect.load_result(path)["unproven"] or _unproven_reason_today(campaign, row):
        phase3 = commands.gates(campaign.layout, "-m phase3")
        remedy = f"Run the parity gate ({phase3}), then run the row with --allow-overwrite"
        yield Finding(str(path), f"unproven: {reason}", remedy, warning=True)


def _unproven_reason_today(campaign: Campaign, row: Row) -> str | None:
    """Returns why today's parity certificates do not prove the engine for the attempt that passed.

    The engine was proven when the attempt ran. Returns None where it still is, and where the row did not pass, has
    other inputs today, or is played by lerobot-eval.
    """
    result = collect.load_result(campaign.layout.run(row.run_id).result)
    if result["status"] != "pass" or not campaign.is_resident:
        return None
    plan = run.plan_row(campaign, row, run.load_host(campaign.layout))
    manifest = collect.load_run_manifest(campaign.layout.run(row.run_id).manifest)
    batch_size, key = manifest["batch_size"], manifest.get("certificate", "")
    path = parity_certificate.certificate_path(campaign.layout, key)
    if reason := fast_certificate.unshown_reason(parity_certificate.read(path, key), result.get("precision")):
        return reason
    return replace(plan, batch_size=batch_size).unproven_reason if result["row_hash"] == plan.row_hash else None


def expected_outcome(campaign: Campaign, row: Row) -> Iterator[Finding]:
    """Yields the differences between a passed row and its expected outcome: exactly the known episodes must succeed.

    Only a policy whose outcome is known beforehand has an expected outcome (`known_answers` in campaign.toml).
    """
    if collect.load_result(campaign.layout.run(row.run_id).result)["status"] == "pass":
        yield from known_answers.differences(campaign, row)


def _of_played_row(name: str, contract: RowContract) -> RowContract:
    """Returns a contract that asks less of a row which was not played to its end.

    A row that an early stop ended must have sound files, and one that it kept from starting need have nothing. Of a row
    that a tier's budget kept from starting, `result` alone says so.
    """

    def of_played_row(campaign: Campaign, row: Row) -> Iterator[Finding]:
        if early_stop.excused(campaign, row) is not None:
            if name != "result" and campaign.layout.run(row.run_id).result.is_file():
                yield from contract(campaign, row)
        elif lost_start := time_budget.lost_start(campaign.layout, row.run_id):
            yield from [lost_start] if name == "result" else []
        else:
            yield from contract(campaign, row)

    return of_played_row


# The contracts of each run: the baseline's in phase 3, every row's in phase 4. The first say most about a failed run.
RUN_CONTRACTS = ("result", "evidence", "backend", "videos", "verdict", "simulator", "engine", "known_answer")
_OF_RUNS: dict[str, RowContract] = {
    "evidence": sound_evidence,
    "backend": backend,
    "result": result_stands,
    "videos": video_contract.videos,
    "verdict": threshold_reached,
    "known_answer": expected_outcome,
    "simulator": valid_simulator,
    "engine": proven_engine,
}
ROW_CONTRACTS: dict[str, RowContract] = {
    **{name: _of_played_row(name, contract) for name, contract in _OF_RUNS.items()},
    "parity": proven_row,
}
# What a quick validation holds the evidence of a row against: of a run only its records are opened.
QUICK_EVIDENCE = _of_played_row("evidence", sound_records)
