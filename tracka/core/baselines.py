"""Defines the types of an exported baseline, which `tracka baseline promote` writes (schema baseline).

As in `artifacts.py`, each type has the keys of its schema.
"""

from typing import NotRequired, TypedDict


class PlayedRow(TypedDict):
    """What played the episodes of one row: the fingerprints by which two sides of a comparison are told apart.

    `software_sha256` is the hash of the software parts of the row's identity, None where the attempt wrote none.
    `settings` has lerobot-eval's settings that decide outcomes as text; an older baseline lacks them.
    """

    run_id: str
    row_hash: str
    policy_path: str
    checkpoint_sha256: str
    engine: str
    simulator: str
    batch_size: int
    software_sha256: str | None
    versions: dict[str, str]
    settings: NotRequired[dict[str, str]]


class EpisodeRecord(TypedDict):
    """One episode: how it began, after how many control steps it ends, and its outcome.

    `repeated` is its outcome when `tracka noise` played it again, None where that has not happened.
    """

    suite: str
    task: int
    episode: int
    init_state: int
    fixed_start: bool | None
    seed: int | None
    reset_ordinal: int | None
    length: int | None
    success: bool
    repeated: bool | None


class Baseline(TypedDict):
    """Content of an exported baseline. `sha256` is the hash of everything else in it, as canonical JSON."""

    schema_version: int
    kind: str
    name: str
    promoted_at_utc: str
    tracka_version: str
    git_commit: str | None
    rows: list[PlayedRow]
    left_out: list[str]
    episodes: list[EpisodeRecord]
    sha256: str
