"""Defines the types of artifacts/summary/verdict.json and artifacts/state/preregistration.json.

As in `artifacts.py`, each type has the keys of its schema.
"""

from typing import Literal, TypedDict

from .comparisons import IntervalRecord
from .files import Json

Outcome = Literal["pass", "fail", "underpowered", "invalid"]


class Thresholds(TypedDict):
    """What was demanded: the table `[verdict]`, and the thresholds of rows."""

    verdict: Json | None
    min_success_rate: float
    rows: dict[str, float]


class Registration(TypedDict):
    """What a campaign was going to ask and to demand, written before its first row (schema preregistration).

    `sha256` is that of the other hashes and the thresholds together. `late` says that rows had run before.
    """

    schema_version: int
    registered_at_utc: str
    late: bool
    sha256: str
    matrix_sha256: str
    settings_sha256: str
    baseline_sha256: str | None
    thresholds: Thresholds


class RegistrationRecord(TypedDict):
    """The registration that a verdict stands on; `changed` names what is not as it was registered."""

    sha256: str | None
    registered_at_utc: str | None
    late: bool
    changed: list[str]


class Judged(TypedDict):
    """How sure a claim is. `low` and `high` are the one-sided bounds, lost episodes counted against each of them.

    `p_fail` is adjusted by Holm for the number of claims. `more_episodes` is None where no number is known to decide.
    """

    low: float
    high: float
    p_pass: float
    p_fail: float
    lost: int
    lost_as_failures: Outcome
    lost_as_successes: Outcome
    outcome: Outcome
    more_episodes: int | None
    method: str
    sentence: str


class RateRecord(Judged):
    """A claim on the success rate of a policy in a suite, or in one task of it."""

    policy_path: str
    suite: str
    task: int | None
    threshold: float
    successes: int
    episodes: int
    rate: float | None
    interval: IntervalRecord
    least_to_pass: int | None
    invalid: list[str]


class BaselineRecord(Judged):
    """A claim that a policy is at most `margin` worse than the baseline; the rates are of the compared episodes.

    They are None where the two cannot be compared.
    """

    policy_path: str
    baseline: str
    margin: float
    baseline_rate: float | None
    candidate_rate: float | None
    difference: float | None
    pairs: int
    gains: int | None
    losses: int | None


class CampaignVerdict(TypedDict):
    """The verdict of a campaign with `[verdict]`, or of a `tier` of it (schema verdict)."""

    schema_version: int
    tier: str | None
    outcome: Outcome
    sentence: str
    confidence: float
    registration: RegistrationRecord
    rates: list[RateRecord]
    baselines: list[BaselineRecord]
    notes: list[str]
