"""Makes the claims of a campaign's `[verdict]`, and counts for each claim what its rows have played.

A claim says of one policy that its success rate, in a suite or in one task, reaches a threshold. The baseline row is
left out: it only shows that rows run. Two rows that begin an episode alike play it twice, and it counts once.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..campaign.campaign import Campaign
from ..campaign.matrix import Row
from ..campaign.verdict_settings import VerdictSettings, task_name
from ..core import files
from ..core.artifacts import Result
from ..core.errors import Finding, UsageError
from ..core.lerobot_facts import INIT_STATES
from . import judgement, run

# What begins an episode: task, number, init state, seed, and how often its environment had been reset before.
Start = tuple[int, int, int, int, int]
Outcomes = Mapping[Start, bool]


@dataclass(frozen=True)
class Claim:
    """A policy's success rate in a suite, or in the task `task` of that suite, reaches `threshold`."""

    policy_path: str
    suite: str
    task: int | None
    threshold: float

    @property
    def subject(self) -> str:
        """The suite or the task, in words."""
        return self.suite if self.task is None else task_name(self.suite, self.task)


@dataclass(frozen=True)
class Tally:
    """The episodes of a claim: those with an outcome, those that are lost, and why no outcome of its rows counts.

    A lost episode has no outcome of the policy: its row crashed, was not run, or ran with another batch size than the
    matrix says. `invalid` has one reason for each row whose simulator or engine is not the benchmark's.
    """

    successes: int
    episodes: int
    lost: int
    invalid: tuple[str, ...] = ()

    @property
    def expected(self) -> int:
        """The number of episodes that the matrix asks for."""
        return self.episodes + self.lost


def claims(campaign: Campaign) -> list[Claim]:
    """Returns the campaign's claims on success rates, a suite's before those of its tasks; none without `[verdict]`."""
    settings = campaign.verdict
    return [] if settings is None else [*_claims(campaign, settings)]


def _claims(campaign: Campaign, settings: VerdictSettings) -> Iterator[Claim]:
    for (policy_path, suite), subject_rows in campaign.compared_by_subject.items():
        if settings.threshold is not None:
            yield Claim(policy_path, suite, None, settings.threshold)
        for task in sorted({task for row in subject_rows for task in campaign.task_ids(row)}):
            threshold = settings.task_threshold_of(suite, task)
            if threshold is not None:
                yield Claim(policy_path, suite, task, threshold)


def subjects(campaign: Campaign) -> list[tuple[str, str]]:
    """Returns each policy with each suite that its compared rows play, in the order of the matrix."""
    return list(campaign.compared_by_subject)


def rows(campaign: Campaign, claim: Claim) -> list[Row]:
    """Returns the compared rows that play episodes of the claim."""
    return [
        row
        for row in campaign.compared_by_subject.get((claim.policy_path, claim.suite), ())
        if claim.task is None or claim.task in campaign.task_ids(row)
    ]


def starts(campaign: Campaign, row: Row, tasks: Iterable[int] | None = None) -> Iterator[Start]:
    """Yields what begins each episode that the matrix asks of the row, in `tasks` alone if they are given.

    lerobot-eval decides it so (`lerobot_eval.episode_records`).
    """
    slots = min(row.batch_size, row.n_episodes)
    for task in campaign.task_ids(row) if tasks is None else tasks:
        for episode in range(row.n_episodes):
            yield (task, episode, episode % INIT_STATES, row.seed + episode, episode // slots)


def tally(campaign: Campaign, claim: Claim, played: Mapping[str, Outcomes]) -> Tally:
    """Returns the claim's tally of episodes whose outcomes are given by run id; an episode without one is lost."""
    expected = expected_outcomes(played, campaign, claim)
    known = [outcome for outcome in expected.values() if outcome is not None]
    return Tally(sum(known), len(known), len(expected) - len(known), _invalid(campaign, rows(campaign, claim)))


def expected_outcomes(played: Mapping[str, Outcomes], campaign: Campaign, claim: Claim) -> dict[Start, bool | None]:
    """Returns each episode that the matrix asks for, once and in its order, with its outcome; None without one."""
    expected: dict[Start, bool | None] = {}
    for row in rows(campaign, claim):
        for start in starts(campaign, row, None if claim.task is None else (claim.task,)):
            if expected.get(start) is None:
                expected[start] = played.get(row.run_id, {}).get(start)
    return expected


def expected_episodes(campaign: Campaign, claim: Claim) -> int:
    """Returns how many different episodes the matrix asks for."""
    return len(expected_outcomes({}, campaign, claim))


def outcomes(campaign: Campaign, row: Row) -> Outcomes:
    """Returns the outcome of each episode that the row has played; none unless the row passed as the matrix has it.

    Raises UsageError where the row's episodes.jsonl is damaged.
    """
    manifest, result = run.read_files(campaign.layout, row.run_id)
    if result is None or not _counts(result) or not manifest.get("comparable", False):
        return {}
    path = campaign.layout.run(row.run_id).episodes
    try:
        return {start(line): bool(line["success"]) for line in files.read_lines(path)}
    except (KeyError, TypeError):
        what = "a line has no outcome, or does not say what began its episode"
        raise UsageError(Finding(str(path), what, judgement.run_again(campaign.layout))) from None


def start(line: Mapping[str, int]) -> Start:
    """Returns what began the episode of a line of episodes.jsonl."""
    return (line["task"], line["episode"], line["init_state"], line["seed"], line["reset_ordinal"])


def _counts(result: Result) -> bool:
    return result["status"] == "pass" and not result["dry_run"]


def _invalid(campaign: Campaign, claim_rows: Sequence[Row]) -> tuple[str, ...]:
    reasons = []
    for row in claim_rows:
        result = run.read_result(campaign.layout, row.run_id)
        if result is not None and _counts(result):
            reasons += [f"{row.run_id}: the simulator is not the benchmark's"] if result["invalid"] else []
            reasons += [f"{row.run_id}: the engine is not proven"] if result["unproven"] else []
    return tuple(reasons)
