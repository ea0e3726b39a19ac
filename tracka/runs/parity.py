"""The parity gate: plays a row with lerobot-eval and with the resident engine, and compares them episode by episode.

Guarantees: a parity certificate is written whole or not at all. It is written after both engines have ended well, with
the records of its numbers beside it, or says that an engine could not play. The gate asks the policy as the row does:
with the row's batch size and noise, and with several tasks if the row has several. If lerobot-eval repeats itself bit
for bit, only the same bits prove the engine.
"""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from ..campaign import path_safety
from ..campaign.campaign import Campaign
from ..campaign.matrix import Row
from ..core import files, schema
from ..core.artifacts import Certificate, Compared, FastRecord, Unjudged
from ..core.errors import UsageError
from ..core.files import Json
from ..engines import comparison, parity_certificate
from ..engines.comparison import Comparison, PlayedEpisodes
from ..execution import orphans
from . import fast_parity, run, slurm_row
from .plan import Host, Plan, policy_request
from .recording import AGAIN, REFERENCE, RESIDENT, Recordings

TASKS = 2  # tasks to play of a row with several, whose observation requests may share a call of the policy
WIDE = 8  # episodes to play if lerobot-eval does not repeat itself: outcomes of fewer tell too little
NOTHING = Comparison(0, 0, 0, 0, (0, 0), 0.0, ())


def rows_to_prove(campaign: Campaign) -> list[Row]:
    """Returns the rows to play, shortened: one for each checkpoint and way to ask its policy; none for lerobot-eval."""
    row_by_request: dict[bytes, Row] = {}
    for row in _candidates(campaign):
        row_by_request.setdefault(_request_key(campaign, row), row)
    return [_short(row) for row in row_by_request.values()]


def proving_row(campaign: Campaign, row: Row) -> Row | None:
    """Returns the one of `rows_to_prove` whose parity certificate holds for `row` too; None for lerobot-eval."""
    request_key = _request_key(campaign, row)
    # Stops at the first match, since this function is called for every row of what may be thousands.
    return next(
        (_short(candidate) for candidate in _candidates(campaign) if _request_key(campaign, candidate) == request_key),
        None,
    )


def _candidates(campaign: Campaign) -> list[Row]:
    """Returns the rows that may prove the engine, the baseline first; none for lerobot-eval."""
    return sorted(campaign.enabled, key=lambda row: row.run_id != campaign.baseline) if campaign.is_resident else []


def _request_key(campaign: Campaign, row: Row) -> bytes:
    """Returns a key that is equal for rows that ask the same checkpoint in the same way."""
    return files.canonical([row.policy_path, row.played_batch, policy_request(campaign, row)])


def _short(row: Row) -> Row:
    """Returns the row with at most one batch and one episode more, so that an environment slot is reset twice."""
    return replace(row, n_episodes=min(row.n_episodes, row.batch_size + 1))


def prove(campaign: Campaign, row: Row, host: Host) -> Certificate:
    """Returns the parity certificate of the row's checkpoint, asked in the row's way, on this host.

    A certificate that proves the engine is taken from the campaign, or else from the user's cache; otherwise the gate
    makes a new one. A certificate that refuses the engine is returned like any other.

    Raises TrackaError where an engine fails.
    """
    path_safety.require(campaign.layout)
    exact = prove(fast_parity.exact_campaign(campaign), row, host) if campaign.is_fast else None
    plan = _plan(campaign, row, host)
    path, cached_path = (
        parity_certificate.certificate_path(campaign.layout, plan.proof_key),
        parity_certificate.user_certificate_path(plan.proof_key),
    )
    if _is_proven(path, plan.proof_key):
        return cast(Certificate, parity_certificate.read(path, plan.proof_key))
    if _is_proven(cached_path, plan.proof_key):
        return _copy(cached_path, path)
    orphans.end(orphans.ROW, str(path.parent))  # orphan processes of a killed session's parity run
    with slurm_row.hold_device(campaign, row, keep=False) as device:
        recordings = Recordings(plan, device, path.parent)
        content = _certificate(recordings) if exact is None else _fast_certificate(recordings, exact)
    files.write_json(path, content)
    if content["proven"]:
        with contextlib.suppress(OSError):  # an unwritable cache only costs time
            _copy(path, cached_path)
    return content


def _certificate(recordings: Recordings) -> Certificate:
    """Plays until the engine is proven or refused, and returns the parity certificate."""
    recordings.reference()
    recordings.resident()
    if not recordings.compare_with_reference(RESIDENT).exact:
        recordings.reference(AGAIN)
        if not recordings.compare_with_reference(AGAIN).exact and (wider := _wide(recordings.plan)):
            recordings.plan = wider
            recordings.reference()
            recordings.resident()
            recordings.reference(AGAIN)
    timings = files.read_or_empty(recordings.folder / RESIDENT / "timings.json")
    return certificate(
        recordings.plan,
        _judgement(recordings.played, recordings.plan.chunk),
        timings,
        {name: recordings.seconds(name) for name in recordings.played},
        recordings.files(),
    )


def _fast_certificate(recordings: Recordings, exact: Certificate) -> Certificate:
    """Plays the episodes in both modes of the engine, and returns the certificate of fast mode."""
    plan = recordings.plan
    if not exact["proven"]:
        counts = parity_certificate.comparison_counts(NOTHING)
        compared: Compared = {"compared": counts, "repeated": None, "differing": []}
        evidence = f"fast mode: the exact mode is not proven: {exact['evidence']}"
        return certificate(plan, compared, {}, {}, {}) | {"evidence": evidence}
    recordings.plan = fast_parity.wide(plan)
    fast_parity.play(recordings)
    compared, fast = fast_parity.judged(recordings.played, plan.chunk, fast_parity.start(recordings, exact))
    names = {REFERENCE: fast_parity.EXACT, RESIDENT: fast_parity.FAST}
    seconds = {name: recordings.seconds(played) for name, played in names.items()}
    return certificate(plan, compared, fast_parity.timings(recordings), seconds, recordings.files(), fast)


def _wide(plan: Plan) -> Plan | None:
    """Returns the plan with WIDE episodes, since outcomes of a few tell nothing; None where it has as many already."""
    row = replace(plan.row, n_episodes=max(plan.row.n_episodes, WIDE))
    # The batch stays as it was played: more episodes would fill a larger one, which other rows are proven by.
    return replace(plan, row=row, batch_size=plan.played_batch) if row != plan.row else None


def _is_proven(path: Path, key: str) -> bool:
    """Returns whether the certificate in `path` proves the engine for `key` and agrees with its records.

    One whose records cannot be read proves nothing, so the engine is proven again.
    """
    with contextlib.suppress(UsageError, OSError):
        return bool(parity_certificate.read(path, key).get("proven")) and not list(contradictions(path))
    return False


def _copy(source: Path, target: Path) -> Certificate:
    """Copies a certificate after its records, and returns the certificate."""
    certificate = schema.read("parity", source)
    for name in certificate["files"]:
        files.make_folder((target.parent / name).parent)
        files.copy_atomic(source.parent / name, target.parent / name)
    files.write_json(target, certificate)
    return certificate


def contradictions(path: Path) -> Iterator[str]:
    """Yields how the records beside a certificate contradict it: missing or changed files, or other numbers."""
    certificate, folder = schema.read("parity", path), path.parent
    missing = [name for name in certificate["files"] if not (folder / name).is_file()]
    yield from (f"{name} is missing" for name in missing)
    changed = [name for name in certificate["files"] if name not in missing and _is_changed(certificate, folder, name)]
    yield from (f"{name} has changed since it was recorded" for name in changed)
    if certificate["files"] and not missing and not changed:
        names = {Path(name).parts[0] for name in certificate["files"]}  # an earlier refusal may have left other plays
        played = {name: comparison.read(folder / name) for name in names}
        recomputed: dict[str, Any] = {}
        if "fast" in certificate:
            compared, recomputed["fast"] = fast_parity.judged(played, certificate["chunk"], certificate["fast"])
            recomputed |= compared
        else:
            recomputed |= _judgement(played, certificate["chunk"])
        yield from (
            f"the certificate's {key} does not match its records"
            for key in recomputed
            if recomputed[key] != certificate.get(key)
        )


def _is_changed(certificate: Certificate, folder: Path, name: str) -> bool:
    return files.sha256_file(folder / name) != certificate["files"][name]


def _judgement(played: Mapping[str, PlayedEpisodes], chunk: int) -> Compared:
    """Returns the part of a certificate that its records decide."""
    result = comparison.compare(played[REFERENCE], played[RESIDENT], chunk)
    repetition = comparison.compare(played[REFERENCE], played[AGAIN], chunk) if AGAIN in played else None
    return {
        "compared": parity_certificate.comparison_counts(result),
        "repeated": None if repetition is None else parity_certificate.comparison_counts(repetition),
        "differing": [str(difference) for difference in result.first_differences],
    }


def prove_or_note(campaign: Campaign, row: Row, host: Host) -> Certificate:
    """Returns the certificate as `prove` does, or writes and returns one that says that an engine could not play.

    The rows of such a checkpoint then fail by themselves, each with its reason.

    Raises UsageError where an engine cannot play the baseline's checkpoint.
    """
    try:
        return prove(campaign, row, host)
    except UsageError as error:
        if row.policy_path == campaign.row(campaign.baseline).policy_path:
            raise
        plan = _plan(campaign, row, host)
        counts = parity_certificate.comparison_counts(NOTHING)
        compared: Compared = {"compared": counts, "repeated": None, "differing": []}
        content = certificate(plan, compared, {}, {}, {}) | {"evidence": error.findings[0].what}
        files.write_json(parity_certificate.certificate_path(campaign.layout, plan.proof_key), content)
        return content


def _plan(campaign: Campaign, row: Row, host: Host) -> Plan:
    """Returns the row's plan with at most TASKS of its tasks."""
    table = {**campaign.row_tables.get(row.run_id, {}), "task_ids": campaign.task_ids(row)[:TASKS]}
    return run.plan_row(replace(campaign, row_tables={**campaign.row_tables, row.run_id: table}), row, host)


def certificate(
    plan: Plan,
    compared: Compared,
    timings: Json,
    seconds: Mapping[str, float],
    record_hashes: Mapping[str, str],
    fast: FastRecord | None = None,
) -> Certificate:
    """Returns the content of parity.json.

    `timings` are the resident engine's own; `record_hashes` maps the records beside parity.json to their sha256.
    """
    content: Unjudged = {
        "schema_version": schema.VERSION,
        "generated_at_utc": files.utc_now(),
        "key": plan.proof_key,
        "run_id": plan.row.run_id,
        "evidence": "",
        "suite": plan.row.task_suite,
        "tasks": list(plan.task_ids),
        "batch_size": plan.batch_size,
        "manner": timings.get("manner", ""),
        "fallbacks": timings.get("fallbacks", []),
        "calls_of_several_tasks": timings.get("calls_of_several_tasks", 0),
        "chunk": plan.chunk,
        "compared": compared["compared"],
        "repeated": compared["repeated"],
        "differing": compared["differing"],
        "reference_secs": round(seconds.get(REFERENCE, 0.0), 3),
        "resident_secs": round(seconds.get(RESIDENT, 0.0), 3),
        "files": dict(record_hashes),
    }
    if fast is not None:
        content["fast"] = fast
    judged: Mapping[str, Any] = {**content, **parity_certificate.judgement(content)}
    return cast(Certificate, judged)
