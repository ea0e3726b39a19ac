"""Keeps and judges parity certificates, each of which says whether the resident engine plays the reference's episodes.

Guarantees: a parity certificate stands for the host, the checkpoint's content, the versions, the settings, the way of
calling the policy and the engine's code that it was made with, and for nothing else; its verdict follows from its
numbers, no matter what verdict the file holds; a damaged parity certificate counts as none.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..campaign.layout import Layout
from ..core import fact_cache, files, schema, user_cache
from ..core.artifacts import CountsRecord, Verdict
from ..core.files import Json
from . import fast_certificate
from .comparison import Comparison

NAME = "parity.json"
# A change of this code requires a new parity certificate.
ENGINE = (
    "engines/resident/*.py",
    "engines/episode_lines.py",
    "engines/load_warnings.py",
    "engines/tolerance.py",
    "execution/warm_process.py",
    "execution/warm_request.py",
)
# A change of this code requires a new recording of the reference.
RECORDER = (
    "engines/reference.py",
    "engines/listener.py",
    "engines/resident/recorded.py",
    "engines/resident/episode.py",
)
SPREAD = 3.0  # a first chunk may differ by this many times lerobot-eval's own spread
VISIBLE = 0.1  # an action's numbers go from -1 to 1: a larger spread would hide what the gate must see
SIGNIFICANT = 0.05
QUANTITIES = "init state, observations, actions, reward, success and final state"


def certificate_path(layout: Layout, key: str) -> Path:
    """Returns the campaign's file for the parity certificate of `key`."""
    return layout.parity / key[:16] / NAME


def user_certificate_path(key: str) -> Path:
    """Returns the file of the same parity certificate in the user's own folder, for other campaigns on this host."""
    return user_cache.folder() / "proofs" / key[:32] / NAME


@fact_cache.remembered
def code_hash(names: Sequence[str] = ENGINE) -> str:
    """Returns the hash of modules of Track A, by default of the resident engine's."""
    package = Path(__file__).parent.parent
    modules = [path for name in names for path in sorted(package.glob(name))]
    return files.sha256(files.canonical({str(path.relative_to(package)): files.sha256_file(path) for path in modules}))


def key(identity: Mapping[str, object]) -> str:
    """Returns the hash of all that a parity certificate holds for: `identity` and the resident engine's code."""
    return files.sha256(files.canonical({"engine_code": code_hash(), **identity}))


def read(path: Path, key: str) -> Json:
    """Returns the parity certificate in the file `path`, with the verdict that its numbers give.

    Returns an empty one where the file does not hold a certificate for the key `key`.
    """
    certificate = schema.read_or_empty("parity", path)
    return certificate | judgement(certificate) if certificate.get("key") == key else {}


def unproven_reason(layout: Layout, key: str) -> str | None:
    """Returns why the resident engine's results are not proven yet; None if they are."""
    certificate = read(certificate_path(layout, key), key)
    if not certificate:
        return "no parity run on this host with this checkpoint, software, settings and way of calling the policy"
    return None if certificate["proven"] else f"the parity run failed: {certificate['evidence']}"


def compares_episodes(path: Path) -> bool:
    """Returns whether both engines played their episodes, so that the certificate in the file `path` compares them."""
    return bool(schema.read_or_empty("parity", path).get("compared", {}).get("episodes"))


def comparison_counts(comparison: Comparison) -> CountsRecord:
    """Returns the counts of a comparison as parity certificates have them."""
    return {
        "episodes": comparison.episodes,
        "same": comparison.same,
        "same_begin": comparison.same_begin,
        "same_outcome": comparison.same_outcome,
        "reference_successes": comparison.successes[0],
        "other_successes": comparison.successes[1],
        "first_chunk": comparison.first_chunk,
    }


@dataclass(frozen=True)
class Counts:
    """Holds the numbers of one comparison in a parity certificate; see `comparison.Comparison`."""

    episodes: int
    same: int
    same_begin: int
    same_outcome: int
    reference_successes: int
    other_successes: int
    first_chunk: float


def judgement(certificate: Mapping[str, Any]) -> Verdict:
    """Returns the keys `proven`, `exact` and `evidence` of a parity certificate, from its numbers alone.

    A certificate without episodes is not proven and keeps its own evidence.
    """
    if certificate.get("fast") and certificate["compared"]["episodes"]:
        return fast_certificate.judgement(certificate["fast"], certificate["compared"])
    counts = Counts(**certificate["compared"])
    repeat = Counts(**certificate["repeated"]) if certificate["repeated"] else None
    first_difference = f"; {certificate['differing'][0]}" if certificate["differing"] else ""
    if not counts.episodes:
        return {"proven": False, "exact": False, "evidence": certificate["evidence"]}
    same_episodes = f"{counts.same} of {counts.episodes} episodes are the same to the bit"
    if counts.same == counts.episodes:
        return {"proven": True, "exact": True, "evidence": f"{same_episodes}: {QUANTITIES}"}
    if repeat is None or repeat.same == repeat.episodes:
        why = "" if repeat is None else ", and lerobot-eval repeats itself to the bit"
        return {"proven": False, "exact": False, "evidence": f"{same_episodes}{why}{first_difference}"}
    refusals = list(_refusals(counts, repeat))
    conclusion = (
        "; ".join(refusals) + first_difference if refusals else "; ".join(_detectable_differences(counts, repeat))
    )
    evidence = f"{same_episodes}, {repeat.same} of lerobot-eval with itself; {conclusion}"
    return {"proven": not refusals, "exact": False, "evidence": evidence}


def _refusals(counts: Counts, repeat: Counts) -> Iterator[str]:
    """Yields why two plays differ more than lerobot-eval's own do, or why nothing could have shown that."""
    if counts.same_begin < counts.episodes and repeat.same_begin == repeat.episodes:
        yield f"{counts.episodes - counts.same_begin} episodes begin differently, but none of lerobot-eval's own do"
    if counts.first_chunk > SPREAD * repeat.first_chunk:
        yield f"first chunks differ by {counts.first_chunk:.2g}, lerobot-eval's own by {repeat.first_chunk:.2g}"
    reference, ours = repeat.reference_successes + repeat.other_successes, counts.other_successes
    if fisher(ours, counts.episodes, reference, 2 * repeat.episodes) < SIGNIFICANT:
        yield f"{ours} of {counts.episodes} succeed, {reference} of {2 * repeat.episodes} in lerobot-eval"
    differing, own = counts.episodes - counts.same_outcome, repeat.episodes - repeat.same_outcome
    if fisher(differing, counts.episodes, own, repeat.episodes, "greater") < SIGNIFICANT:
        yield f"{differing} of {counts.episodes} outcomes differ, {own} of {repeat.episodes} of lerobot-eval's own"
    if not _can_compare_chunks(counts, repeat) and not refused_counts(counts, repeat):
        yield "no compared quantity could have shown a difference"


def _detectable_differences(counts: Counts, repeat: Counts) -> Iterator[str]:
    """Yields how large a difference would have been seen."""
    if _can_compare_chunks(counts, repeat):
        limit = SPREAD * repeat.first_chunk
        yield f"first chunks differ by {counts.first_chunk:.2g}, and more than {limit:.2g} would have been refused"
    if refused := refused_counts(counts, repeat):
        text = ", ".join(map(str, refused))
        yield f"{counts.other_successes} of {counts.episodes} succeed, and any of {text} would have been refused"


def _can_compare_chunks(counts: Counts, repeat: Counts) -> bool:
    """Returns whether first chunks can be compared.

    For that, all episodes must begin alike, and lerobot-eval's own spread must hide no real difference.
    """
    return counts.same_begin == counts.episodes and SPREAD * repeat.first_chunk <= VISIBLE


def refused_counts(counts: Counts, repeat: Counts) -> list[int]:
    """Returns the numbers of successes that would have been refused beside those of lerobot-eval's two runs."""
    reference, reference_episodes = repeat.reference_successes + repeat.other_successes, 2 * repeat.episodes
    possible = range(counts.episodes + 1)
    return [count for count in possible if fisher(count, counts.episodes, reference, reference_episodes) < SIGNIFICANT]


def fisher(first: int, of_first: int, second: int, of_second: int, alternative: str = "two-sided") -> float:
    """Returns the p-value of Fisher's exact test that `first` of `of_first` is the share `second` of `of_second`."""
    from scipy.stats import fisher_exact

    return float(
        fisher_exact([[first, of_first - first], [second, of_second - second]], alternative=alternative).pvalue
    )
