"""Defines the types of the file that says how an episode went when it was played again."""

from typing import TypedDict


class PlayedOutcome(TypedDict):
    """How an episode went: success, control steps, and the hashes of the simulation's first and final state."""

    success: bool
    steps: int
    first_state_sha: str
    final_state_sha: str


class Replay(TypedDict):
    """Content of an episode's file below `replays/` (schema replay): its record beside its replay, and the film."""

    schema_version: int
    run_id: str
    attempt: int
    suite: str
    task: int
    episode: int
    actions_sha: str
    recorded: PlayedOutcome
    played: PlayedOutcome
    same_outcome: bool
    same_bits: bool
    film: str
    film_sha256: str
    played_at_utc: str
    versions: dict[str, str]
