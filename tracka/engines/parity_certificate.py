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
from ..core import fact_cache, files, hashing, schema
from ..core.artifacts import CountsRecord, Verdict
from ..core.files import Json
from .comparison import Comparison

NAME = "parity.json"
# A change of this code requires a new parity certificate.
ENGINE = ("engines/resident/*.py", "engines/load_warnings.py", "execution/warm_process.py")
# A change of this code requires a new recording of the reference.
RECORDER = ("engines/reference.py", "engines/resident/recorded.py", "engines/resident/episode.py")
SPREAD = 3.0  # a first chunk may differ by this many times lerobot-eval's own spread
VISIBLE = 0.1  # an action's numbers go from -1 to 1: a larger spread would hide what the gate must see
SIGNIFICANT = 0.05
QUANTITIES = "init state, observations, actions, reward, success and final state"


def certificate_path(layout: Layout, key: str) -> Path:
    """Returns the campaign's file for the parity certificate of `key`."""
    return layout.parity / key[:16] / NAME


def user_certificate_path(key: str) -> Path:
    """Returns the file of the same parity certificate in the user's own folder, for other campaigns on this host."""
    return hashing.cache_folder() / "proofs" / key[:32] / NAME


@fact_cache.remembered
def code_hash(names: Sequence[str] = ENGINE) -> str:
    """Returns the hash of modules of Track A, by default of the resident engine's."""
    here = Path(__file__).parent.parent
    modules = [path for name in names for path in sorted(here.glob(name))]
    return files.sha256(files.canonical({str(path.relative_to(here)): files.sha256_file(path) for path in modules}))


def key(identity: Mapping[str, object]) -> str:
    """Returns the hash of all that a parity certificate holds for: `identity` and the resident engine's code."""
    return files.sha256(files.canonical({"engine_code": code_hash(), **identity}))


def read(path: Path, key: str) -> Json:
    """Returns the parity certificate in the file `path`, with the verdict that its numbers give.

    Returns an empty one where the file does not hold a certificate for the key `key`.
    """
    found = schema.read_or_empty("parity", path)
    return found | judgement(found) if found.get("key") == key else {}


def unproven_reason(layout: Layout, key: str) -> str | None:
    """Returns why the resident engine's results are not proven yet; None if they are."""
    found = read(certificate_path(layout, key), key)
    if not found:
        return "no parity run on this host with this checkpoint, software, settings and way of calling the policy"
    return None if found["proven"] else f"the parity run failed: {found['evidence']}"


def compares_episodes(path: Path) -> bool:
    """Returns whether both engines played their episodes, so that the certificate in the file `path` compares them."""
    return bool(schema.read_or_empty("parity", path).get("compared", {}).get("episodes"))


def comparison_counts(found: Comparison) -> CountsRecord:
    """Returns the counts of a comparison as parity certificates have them."""
    return {
        "episodes": found.episodes,
        "same": found.same,
        "same_begin": found.same_begin,
        "same_outcome": found.same_outcome,
        "reference_successes": found.successes[0],
        "other_successes": found.successes[1],
        "first_chunk": found.first_chunk,
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
    found = Counts(**certificate["compared"])
    again = Counts(**certificate["repeated"]) if certificate["repeated"] else None
    first = f"; {certificate['differing'][0]}" if certificate["differing"] else ""
    if not found.episodes:
        return {"proven": False, "exact": False, "evidence": certificate["evidence"]}
    told = f"{found.same} of {found.episodes} episodes are the same to the bit"
    if found.same == found.episodes:
        return {"proven": True, "exact": True, "evidence": f"{told}: {QUANTITIES}"}
    if again is None or again.same == again.episodes:
        why = "" if again is None else ", and lerobot-eval repeats itself to the bit"
        return {"proven": False, "exact": False, "evidence": f"{told}{why}{first}"}
    refusals = list(_refusals(found, again))
    seen = "; ".join(refusals) + first if refusals else "; ".join(_detectable_differences(found, again))
    own = f"{told}, {again.same} of lerobot-eval with itself; {seen}"
    return {"proven": not refusals, "exact": False, "evidence": own}


def _refusals(found: Counts, again: Counts) -> Iterator[str]:
    """Yields why two plays differ more than lerobot-eval's own do, or why nothing could have shown that."""
    if found.same_begin < found.episodes and again.same_begin == again.episodes:
        yield f"{found.episodes - found.same_begin} episodes begin differently, but none of lerobot-eval's own do"
    if found.first_chunk > SPREAD * again.first_chunk:
        yield f"first chunks differ by {found.first_chunk:.2g}, lerobot-eval's own by {again.first_chunk:.2g}"
    reference, ours = again.reference_successes + again.other_successes, found.other_successes
    if fisher(ours, found.episodes, reference, 2 * again.episodes) < SIGNIFICANT:
        yield f"{ours} of {found.episodes} succeed, {reference} of {2 * again.episodes} in lerobot-eval"
    other, own = found.episodes - found.same_outcome, again.episodes - again.same_outcome
    if fisher(other, found.episodes, own, again.episodes, "greater") < SIGNIFICANT:
        yield f"{other} of {found.episodes} outcomes differ, {own} of {again.episodes} of lerobot-eval's own"
    if not _can_compare_chunks(found, again) and not refused_counts(found, again):
        yield "no compared quantity could have shown a difference"


def _detectable_differences(found: Counts, again: Counts) -> Iterator[str]:
    """Yields how large a difference would have been seen."""
    if _can_compare_chunks(found, again):
        limit = SPREAD * again.first_chunk
        yield f"first chunks differ by {found.first_chunk:.2g}, and more than {limit:.2g} would have been refused"
    if counts := refused_counts(found, again):
        told = ", ".join(map(str, counts))
        yield f"{found.other_successes} of {found.episodes} succeed, and any of {told} would have been refused"


def _can_compare_chunks(found: Counts, again: Counts) -> bool:
    """Returns whether first chunks can be compared.

    For that, all episodes must begin alike, and lerobot-eval's own spread must hide no real difference.
    """
    return found.same_begin == found.episodes and SPREAD * again.first_chunk <= VISIBLE


def refused_counts(found: Counts, again: Counts) -> list[int]:
    """Returns the numbers of successes that would have been refused beside those of lerobot-eval's two runs."""
    reference, of = again.reference_successes + again.other_successes, 2 * again.episodes
    counts = range(found.episodes + 1)
    return [count for count in counts if fisher(count, found.episodes, reference, of) < SIGNIFICANT]


def fisher(some: int, of: int, others: int, of_others: int, alternative: str = "two-sided") -> float:
    """Returns the p-value of Fisher's exact test that `some` of `of` is the same share as `others` of `of_others`."""
    from scipy.stats import fisher_exact

    return float(fisher_exact([[some, of - some], [others, of_others - others]], alternative=alternative).pvalue)
