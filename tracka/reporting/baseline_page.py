"""Shows an exported baseline as text: where it comes from, what played it, and its rates."""

from collections.abc import Iterator, Sequence

from ..core.baselines import Baseline, EpisodeRecord
from ..core.errors import joined_names
from ..core.figures import percent
from ..statistics import rate
from ..statistics.rate import Count
from . import baseline_file, noise_floor


def lines(baseline: Baseline) -> Iterator[str]:
    """Yields the lines of a baseline."""
    commit = f", commit {baseline['git_commit'][:12]}" if baseline["git_commit"] else ""
    yield f"{baseline['name']}: promoted {baseline['promoted_at_utc']} by Track A {baseline['tracka_version']}{commit}"
    yield from _fingerprints(baseline)
    episodes = baseline["episodes"]
    for suite, task in sorted({(episode["suite"], episode["task"]) for episode in episodes}):
        yield f"{suite} {task}: {_rate([each for each in episodes if (each['suite'], each['task']) == (suite, task)])}"
    yield f"all: {_rate(episodes)} (intervals: Wilson, 95%)"
    yield noise_floor.rate_in_words(baseline_file.episodes(baseline))
    if baseline["left_out"]:
        yield f"left out: {'; '.join(baseline['left_out'])}"


def _fingerprints(baseline: Baseline) -> Iterator[str]:
    """Yields what played, each checkpoint, engine and software once."""
    rows = baseline["rows"]
    for policy_path, sha256 in sorted({(row["policy_path"], row["checkpoint_sha256"]) for row in rows}):
        yield f"checkpoint: {policy_path} (sha256 {sha256[:12]})"
    engines = sorted({f"{row['engine']} with {row['simulator']}" for row in rows})
    versions = sorted({f"{name} {version}" for row in rows for name, version in row["versions"].items()})
    yield f"played by: {joined_names(engines)}; {joined_names(versions, 20)}"


def _rate(episodes: Sequence[EpisodeRecord]) -> str:
    count = Count(sum(episode["success"] for episode in episodes), len(episodes))
    ends = " to ".join(percent(end) for end in (rate.wilson(count).low, rate.wilson(count).high))
    return f"{count.successes}/{count.episodes} {percent(count.rate)} ({ends})"
