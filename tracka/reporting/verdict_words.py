"""Puts the verdict on a campaign's claims into sentences: what is shown, how surely, and what would decide it."""

from collections.abc import Sequence

from ..core.figures import change, p_equals, percent, points
from ..core.verdicts import BaselineRecord, RateRecord, RegistrationRecord

ClaimRecord = RateRecord | BaselineRecord
LATE = "The thresholds were not registered before the first row ran: they may have been chosen by its result."


def rate(record: RateRecord, confidence: float) -> str:
    """Returns a claim on a success rate in one sentence."""
    return f"{_rate_head(record)}; {_rate_reason(record, percent(confidence))}."


def by_evidence(record: RateRecord) -> str:
    """Returns a claim that was decided by evidence after each episode, before all were played, in one sentence."""
    relation = "above" if record["outcome"] == "pass" else "below"
    what = f"the evidence after each episode shows a rate {relation} the threshold of {percent(record['threshold'])}"
    return f"{_rate_head(record)}; {what}."


def early_stop(words: str) -> str:
    """Returns the note that a campaign was stopped early, by the words of its decision."""
    return f"{words[0].upper()}{words[1:]}."


def _rate_head(record: RateRecord) -> str:
    subject = record["suite"] if record["task"] is None else f"{record['suite']} task {record['task']}"
    played = f"{record['successes']} of {record['episodes']} episodes succeeded"
    shown = f" ({percent(record['rate'])})" if record["rate"] is not None else ""
    return f"{record['policy_path']} on {subject}: {played}{shown}"


def _rate_reason(record: RateRecord, confidence: str) -> str:
    threshold, low, high = (percent(record[key]) for key in ("threshold", "low", "high"))
    if record["outcome"] == "pass":
        return f"the one-sided {confidence} lower bound, {low}, reaches the threshold of {threshold}"
    if record["outcome"] == "fail":
        return (
            f"the one-sided upper bound, {high}, is below the threshold of {threshold} ({p_equals(record['p_fail'])})"
        )
    if record["outcome"] == "invalid":
        return _invalid_reason(record)
    return f"the threshold of {threshold} lies between the bounds, {low} and {high}; {_missing(record)}"


def _invalid_reason(record: RateRecord) -> str:
    if record["invalid"]:
        return f"no outcome counts, since {'; '.join(record['invalid'])}"
    return _lost_reason(record)


def _lost_reason(record: ClaimRecord) -> str:
    outcomes = (
        f"{record['lost_as_failures']} if they had failed and {record['lost_as_successes']} if they had succeeded"
    )
    return f"{record['lost']} episodes are lost, and the outcome would be {outcomes}"


def _missing(record: RateRecord) -> str:
    """Returns how many episodes would decide an underpowered claim."""
    least, more = record["least_to_pass"], record["more_episodes"]
    if least is not None and record["episodes"] + record["lost"] < least:
        return f"no result of so few episodes could reach it, {least} are the fewest that can"
    if more is None:
        return "no number of episodes is known to decide it at this rate"
    return f"about {more} more episodes would decide it at this rate"


def baseline(record: BaselineRecord, confidence: float, reason: str = "") -> str:
    """Returns a claim that a policy is not worse than the baseline in one sentence.

    `reason` says why the two cannot be compared.
    """
    if record["difference"] is None:
        return f"{record['policy_path']} against {record['baseline']}: they cannot be compared, since {reason}."
    pairs = (
        f"{record['losses']} losses and {record['gains']} gains in {record['pairs']} pairs, " if record["pairs"] else ""
    )
    head = f"{record['policy_path']} against {record['baseline']}: {pairs}a change of"
    return f"{head} {change(record['difference'])} points; {_baseline_reason(record, percent(confidence))}."


def _baseline_reason(record: BaselineRecord, confidence: str) -> str:
    margin = points(record["margin"])
    if record["outcome"] == "pass":
        return f"it is at most {points(-record['low'])} worse (one-sided, {confidence}), within the margin of {margin}"
    if record["outcome"] == "fail":
        return f"it is at least {points(-record['high'])} worse, more than the margin of {margin}"
    if record["outcome"] == "invalid":
        return _lost_reason(record)
    more = record["more_episodes"]
    need = f"about {more} more would decide it" if more else "no number of episodes is known to decide it"
    ends = f"{change(record['low'])} and {change(record['high'])} points"
    return f"the margin of {margin} lies between the bounds, {ends}; {need} at these rates"


def sentence(outcome: str, records: Sequence[ClaimRecord], notes: Sequence[str], tier: str | None = None) -> str:
    """Returns the verdict in one sentence: that of the claim that decides, and how many say the same.

    The verdict is the campaign's, or that of its `tier`, which is named.
    """
    head = f"{outcome} (tier {tier})" if tier else outcome
    deciding = [record for record in records if record["outcome"] == outcome]
    first = deciding[0]["sentence"].rstrip(".")
    rest = f"; {len(deciding)} of {len(records)} claims say {outcome}" if len(records) > 1 else ""
    return f"{head}: {first}{rest}." + "".join(f" {note}" for note in notes)


def disagreement(subject: str, rates: Sequence[tuple[int, float]], p_value: float, method: str) -> str:
    """Returns in one sentence that tasks have unequal rates; `rates` are (task, rate), the lowest first."""
    (worst, low), (best, high) = rates[0], rates[-1]
    return (
        f"The tasks of {subject} disagree: {percent(low)} in task {worst}, {percent(high)} in task {best} "
        f"({p_equals(p_value)}, {method})."
    )


def registration(record: RegistrationRecord) -> list[str]:
    """Returns what is not as it was registered before the first row, a sentence each."""
    changed = [part for part in record["changed"] if part != "thresholds"]
    sentences = [LATE] if record["late"] else []
    if "thresholds" in record["changed"]:
        sentences.append(f"These are other thresholds than those registered at {record['registered_at_utc']}.")
    if changed:
        sentences.append(f"Changed since the registration: {', '.join(changed)}.")
    return sentences
