"""Defines the types of what `tracka compare --format json` prints (schema comparison).

As in `artifacts.py`, each type has the keys of its schema.
"""

from typing import TypedDict


class SideRecord(TypedDict):
    """One side of a comparison; `episodes` counts those in the tasks that both sides have played."""

    name: str
    kind: str
    episodes: int
    left_out: list[str]


class PairingRecord(TypedDict):
    """How many episodes are paired, by what, and how many are not; `reason` says why none is."""

    pairs: int
    by: list[str]
    baseline_unpaired: int
    candidate_unpaired: int
    repeated: int
    reason: str | None


class RateRecord(TypedDict):
    """The successes of one side."""

    successes: int
    episodes: int
    rate: float


class IntervalRecord(TypedDict):
    """An interval, as `statistics.result.Interval` has it."""

    low: float
    high: float
    confidence: float
    method: str


class PValueRecord(TypedDict):
    """A p-value, as `statistics.result.PValue` has it."""

    value: float
    alternative: str
    method: str


class Compared(TypedDict):
    """Two rates, compared. A difference is the candidate's rate minus the baseline's.

    `gains` and `losses` are None without pairs. `minimum_drop` is the smallest true drop that so many episodes show
    with the chance POWER, None if there is none.
    """

    baseline: RateRecord
    candidate: RateRecord
    gains: int | None
    losses: int | None
    difference: float
    interval: IntervalRecord
    worse: PValueRecord
    two_sided: PValueRecord
    minimum_drop: float | None


class ComparedTask(Compared):
    """One task. `holm` is the p-value of `worse`, adjusted for all tasks together; `is_worse` says whether it holds."""

    suite: str
    task: int
    holm: PValueRecord
    is_worse: bool


class NonInferiorityRecord(TypedDict):
    """Whether the candidate is at most `margin` worse: whether `bound`, of the difference, is above -margin."""

    non_inferior: bool
    margin: float
    bound: float
    confidence: float
    method: str


class NoiseRecord(TypedDict):
    """How the flips of the pairs whose episode was played again stand to the noise of one side.

    `noise_flips` counts the episodes whose repetition had another outcome, `interval` is that of their share. `p` is
    small where the two sides differ more often than `side`, A or B, differs from itself.
    """

    side: str
    episodes: int
    noise_flips: int
    flips: int
    interval: IntervalRecord
    p: float
    method: str
    is_above: bool


class Flip(TypedDict):
    """A pair with two outcomes: `gain` if the candidate alone succeeded, `loss` if the baseline alone did."""

    suite: str
    task: int
    episode: int
    init_state: int
    seed: int | None
    change: str
    baseline_video: str | None
    candidate_video: str | None


class Comparison(TypedDict):
    """What `tracka compare` found: a candidate against a baseline, in all and task by task.

    `across_tasks` is the p-value that the candidate is worse on other tasks of this kind too, None for a single task.
    """

    schema_version: int
    baseline: SideRecord
    candidate: SideRecord
    pairing: PairingRecord
    confidence: float
    overall: Compared
    tasks: list[ComparedTask]
    across_tasks: PValueRecord | None
    non_inferiority: NonInferiorityRecord | None
    noise: NoiseRecord | None
    flips: list[Flip]
    verdict: str
    sentence: str
    notes: list[str]
