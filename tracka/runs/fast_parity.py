"""Plays a row's episodes in exact and in fast mode of the resident engine, and records both for the parity gate."""

from collections.abc import Mapping
from dataclasses import replace

from ..campaign.campaign import Campaign
from ..core import files
from ..core.artifacts import Certificate, Compared, FastRecord, FastStart
from ..core.files import Json
from ..engines import comparison, fast_certificate, parity_certificate
from ..engines.comparison import PlayedEpisodes
from .plan import Plan
from .recording import Recordings

EXACT, AGAIN, FAST = "exact", "exact-again", "fast"
SETTINGS = ("precision", "fast_episodes", "fast_margin")  # below [resident], of fast mode alone
MODES: Mapping[str, Mapping[str, object]] = {
    EXACT: {"precision": "exact"},
    AGAIN: {"precision": "exact", "cudnn_benchmark": True},  # as rows play: two processes may round differently
    FAST: {"precision": "fast"},
}


def exact_campaign(campaign: Campaign) -> Campaign:
    """Returns the campaign as it would be in exact mode."""
    settings = {key: value for key, value in campaign.resident.items() if key not in SETTINGS}
    return replace(campaign, resident=settings)


def wide(plan: Plan) -> Plan:
    """Returns the plan with the episodes that the gate of fast mode plays, in batches of the row's size."""
    of_each_task = max(plan.row.n_episodes, -(-fast_certificate.wanted(plan.campaign.resident) // len(plan.task_ids)))
    return replace(plan, row=replace(plan.row, n_episodes=of_each_task), batch_size=plan.played_batch)


def play(recordings: Recordings) -> None:
    """Plays the episodes in each mode. Raises UsageError where the engine fails."""
    for name, settings in MODES.items():
        recordings.mode(name, settings)


def start(recordings: Recordings, exact: Certificate) -> FastStart:
    """Returns what a certificate says besides what its episodes decide; `exact` is that of exact mode."""
    played = timings(recordings)
    return {
        "exact_key": exact["key"],
        "exact_proven": exact["proven"],
        "exact_evidence": exact["evidence"],
        "margin": fast_certificate.margin(recordings.plan.campaign.resident),
        "type": (played.get("fast") or {}).get("type", "float32"),
    }


def judged(played: Mapping[str, PlayedEpisodes], chunk: int, begun: FastStart) -> tuple[Compared, FastRecord]:
    """Returns the parts of a certificate of fast mode that its records decide; of `begun` only the start is kept."""
    plays = played[EXACT], played[AGAIN], played[FAST]
    result = comparison.compare(played[EXACT], played[FAST], chunk)
    compared: Compared = {
        "compared": parity_certificate.comparison_counts(result),
        "repeated": parity_certificate.comparison_counts(comparison.compare(played[EXACT], played[AGAIN], chunk)),
        "differing": [str(difference) for difference in result.first_differences],
    }
    return compared, fast_certificate.record(begun, *plays, chunk)


def timings(recordings: Recordings) -> Json:
    """Returns the timings of the play in fast mode."""
    return files.read_or_empty(recordings.folder / FAST / "timings.json")
