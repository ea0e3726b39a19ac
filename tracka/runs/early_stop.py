"""Ends a campaign early: watches its episodes while a row plays, and records the decision that ended it.

The process that runs a row asks every few seconds whether the campaign may end (`Watch.has_come`), by the episodes of
all rows. The first decision is written to `artifacts/state/early_stop.json`; the row's evaluation is ended, and no
further row starts. The record alone ends nothing: `standing` makes the decision again from the rows' own files.

Guarantees: a record that the files do not support, or that was made under other claims or with another checkpoint than
today's, stops no row and excuses none.
"""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import ClassVar, cast

from ..campaign import commands, definition
from ..campaign.campaign import Campaign
from ..campaign.definition import Definition
from ..campaign.layout import Layout
from ..campaign.matrix import Row
from ..core import damaged, fact_cache, files, lock, schema
from ..core.artifacts import EarlyStopRecord, StoppedClaim
from ..core.errors import Finding, TrackaError
from ..engines import failure
from . import outcomes_so_far, row_state, stop_decision
from .claims import Outcomes
from .endings import NoLongerWanted
from .outcomes_so_far import RowOutcomes
from .stop_decision import Decision, Played

INTERRUPTED = "interrupted"
PLAY_ON = 'Look at the videos; to play all episodes, set early = "off" below [verdict] and run again'


class StoppedEarly(NoLongerWanted):
    """Raised where a row does not start because the campaign was stopped early, by `decision`."""

    def __init__(self, layout: Layout, decision: Decision) -> None:
        super().__init__(Finding(str(layout.early_stop), in_words(decision), PLAY_ON))
        self.exit_code = 0 if decision.outcome == "pass" else 1


def in_words(decision: Decision) -> str:
    """Returns the decision in words, for messages and pages."""
    return f"the campaign was stopped early ({decision.rule}): {decision.sentence}"


@dataclass
class Watch:
    """Watches all rows of a campaign while `row` plays; each look reads only what is new."""

    campaign: Campaign
    row: Row
    rows: dict[str, RowOutcomes] = field(default_factory=dict)
    before: Played | None = None
    to_the_end: bool = False  # whether the row plays although the campaign was stopped
    reason: ClassVar[str] = failure.STOPPED

    def require_open(self) -> None:
        """Raises StoppedEarly where the campaign has ended early and excuses the row.

        A row that it does not excuse, since it crashed, is played again to its end.
        """
        if decision := excused(self.campaign, self.row):
            raise StoppedEarly(self.campaign.layout, decision)
        self.to_the_end = standing(self.campaign) is not None

    def has_come(self) -> bool:
        """Returns whether the campaign may end now, and records the decision; False where a file cannot be read."""
        with contextlib.suppress(TrackaError, OSError):
            return not self.to_the_end and self._is_decided()
        return False

    def _is_decided(self) -> bool:
        played = outcomes_so_far.read(self.campaign, self.rows)
        if played == self.before:
            return False
        if decision := stop_decision.decide(self.campaign, played):
            _record(self.campaign, decision, played)
            return True
        self.before = played
        return False


def watch(campaign: Campaign, row: Row) -> Watch | None:
    """Returns what may end the campaign while `row` plays; None where early stopping is off, and for the baseline."""
    return Watch(campaign, row) if _is_on(campaign) and campaign.is_compared(row) else None


def standing(campaign: Campaign) -> Decision | None:
    """Returns the decision that has ended the campaign early; None where it goes on.

    A decision stands if it is on record for today's claims and row hashes, and the rows' files give it again. None
    stands where every row has been played to its end: then nothing was left out.
    """
    if not _is_on(campaign):
        return None
    return _standing(definition.of(campaign))


@fact_cache.remembered
def _standing(key: Definition) -> Decision | None:
    campaign = key.campaign
    with fact_cache.scope():
        if _current_record(campaign) is None or _is_played(campaign):
            return None
        return stop_decision.decide(campaign, outcomes_so_far.read(campaign, {}))


def _is_played(campaign: Campaign) -> bool:
    """Returns whether every row that counts has been played to its end."""
    markers = [row_state.read(campaign.layout, row.run_id) for row in campaign.compared_rows]
    return all(marker is not None and marker["status"] == "pass" for marker in markers)


def outcomes(campaign: Campaign) -> Mapping[str, Outcomes]:
    """Returns the outcomes so far by run id: of rows that have passed, and of rows that play or were stopped early."""
    return outcomes_so_far.read(campaign, {}).successes_first


def excused(campaign: Campaign, row: Row) -> Decision | None:
    """Returns the decision for which a row need not have been played to its end; None where it must have been.

    A row is excused that was stopped, or interrupted, or has not run. A row that crashed is not.
    """
    decision = standing(campaign)
    if decision is None or not campaign.is_compared(row):  # in this order: most campaigns were not stopped
        return None
    state = row_state.read(campaign.layout, row.run_id)
    if state is None:
        return None if campaign.layout.run(row.run_id).path.exists() else decision
    is_unplayed = state["status"] == "pending" or state["reason"] in (*failure.ENDED, INTERRUPTED)
    return decision if is_unplayed else None


def unsupported(campaign: Campaign) -> Iterator[Finding]:
    """Yields a finding where the record is damaged, or is of today's claims and the rows' files do not support it."""
    path = campaign.layout.early_stop
    if not _is_on(campaign) or not path.exists():
        return
    if faults := schema.findings("early_stop", files.read_json(path), str(path)):
        yield from faults
    elif _current_record(campaign) and standing(campaign) is None and not _is_played(campaign):
        remedy = f"Run {commands.gates(campaign.layout)}, which sets the file aside and plays the rows"
        yield Finding(str(path), "the episodes that were played do not decide what the file says", remedy)


def set_aside_unsupported(campaign: Campaign) -> None:
    """Sets aside a record that is damaged, or that the rows' files do not support: it excuses no row anyway.

    Called where phase 4 ends, after its rows were played without the record.
    """
    with contextlib.suppress(TrackaError):
        if not list(unsupported(campaign)):
            return
    damaged.set_aside(campaign.layout.early_stop)


def _current_record(campaign: Campaign) -> EarlyStopRecord | None:
    """Returns the record; None where there is none, or it was made under other claims or with other row hashes."""
    path = campaign.layout.early_stop
    if not _is_on(campaign) or not path.exists():
        return None
    record = schema.read_or_none("early_stop", path)
    if record is None or record["claims_sha256"] != _claims_sha256(campaign):
        return None
    hashes = {run_id: counted["row_hash"] for run_id, counted in record["rows"].items()}
    return record if all(outcomes_so_far.is_current(campaign, *item) for item in hashes.items()) else None


def _is_on(campaign: Campaign) -> bool:
    return campaign.verdict is not None and campaign.verdict.early != "off"


def _claims_sha256(campaign: Campaign) -> str:
    """Returns the hash of what the campaign's policies have to show, and in which rows."""
    assert campaign.verdict is not None
    rows = [[asdict(row), list(campaign.task_ids(row))] for row in campaign.compared_rows]
    return files.sha256(files.canonical([campaign.verdict.thresholds(), rows]))


def _record(campaign: Campaign, decision: Decision, played: Played) -> None:
    """Writes the decision down, unless one of the same claims and checkpoints is on record already."""
    with lock.hold(campaign.layout.locks / "early_stop.lock", "the early stop", wait=True):
        if _current_record(campaign) is None:
            files.write_json(
                campaign.layout.early_stop, cast(Mapping[str, object], _content(campaign, decision, played))
            )


def _content(campaign: Campaign, decision: Decision, played: Played) -> EarlyStopRecord:
    return {
        "schema_version": schema.VERSION,
        "decided_at_utc": files.utc_now(),
        "claims_sha256": _claims_sha256(campaign),
        "outcome": decision.outcome,
        "rule": decision.rule,
        "claim": None if decision.claim is None else cast(StoppedClaim, asdict(decision.claim)),
        "successes": decision.successes,
        "episodes": decision.episodes,
        "expected": decision.expected,
        "sentence": decision.sentence,
        "rows": {
            run_id: {
                "row_hash": str(files.read_json(campaign.layout.run(run_id).manifest)["row_hash"]),
                "episodes": len(row_outcomes),
                "successes": sum(row_outcomes.values()),
            }
            for run_id, row_outcomes in played.successes_first.items()
            if row_outcomes
        },
    }
