"""Puts a comparison into words: its verdict, the sentence that one acts on, and notes on what limits it."""

from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial

from ..core.baselines import PlayedRow
from ..core.comparisons import Compared, ComparedTask, NoiseRecord, NonInferiorityRecord
from ..core.counting import counted
from ..core.errors import joined_names
from ..core.figures import change, p_equals, percent, points
from ..core.lerobot_facts import INIT_STATES
from . import noise_floor
from .episode_pairing import Pairing, task_names
from .sides import Side, Task

# Settings of the rows' tasks and of the checkpoint: the pairs and the comparison of the checkpoints have them.
OWN = {"settings: task_ids", "settings: policy_type"}
WORSE, NON_INFERIOR, NOT_SHOWN = "worse", "non-inferior", "not shown to be worse"
SAME = "A and B are the same"


def verdict(overall: Compared, bound: NonInferiorityRecord | None, alpha: float) -> str:
    """Returns WORSE where the one-sided p-value is at most alpha, else NON_INFERIOR if so, else NOT_SHOWN."""
    if overall["worse"]["value"] <= alpha:
        return WORSE
    return NON_INFERIOR if bound and bound["non_inferior"] else NOT_SHOWN


def sentence(
    outcome: str,
    overall: Compared,
    each: Sequence[ComparedTask],
    bound: NonInferiorityRecord | None,
    noise: NoiseRecord | None,
) -> str:
    """Returns the verdict in one sentence, with its uncertainty, its methods, and what would have been seen."""
    head = {
        WORSE: "B is worse than A",
        NON_INFERIOR: f"B is non-inferior to A within {points(bound['margin'] if bound else 0)}",
        NOT_SHOWN: "B is not shown to be worse than A",
    }[outcome]
    parts = [f"{head}: {_evidence(overall)}"]
    if bound:
        parts.append(
            f"the drop is at most {points(-bound['bound'])} ({bound['method']}, {percent(bound['confidence'])})"
        )
    if outcome != WORSE:
        parts.append(_sensitivity(overall))
    worse = [(task["suite"], task["task"]) for task in each if task["is_worse"]]
    if worse and len(each) > 1:
        parts.append(f"taken alone, and adjusted for {len(each)} tasks, it is worse on {task_names(worse)}")
    if noise and not noise["is_above"]:
        parts.append(noise_floor.sentence(noise))
    return f"{'; '.join(parts)}."


def notes(
    baseline: Side, candidate: Side, pairing: Pairing, compared: Collection[Task], balanced: bool
) -> Iterator[str]:
    """Yields what limits a comparison of these tasks, a sentence each."""
    if baseline.checkpoints and baseline.checkpoints == candidate.checkpoints:
        yield "A and B have played the same checkpoint, so what differs is noise or settings."
    if others := [*_other_fingerprints(baseline, candidate)]:
        yield f"Not only the checkpoint may differ: A and B were played with {', '.join(others)}."
    if files := [side.name for side in (baseline, candidate) if side.kind == "eval_info.json"]:
        yield (
            f"{' and '.join(files)}: the file names neither seeds, batch size and episode length nor checkpoint and "
            "simulator, so nothing of that could be checked."
        )
    named = [(side.baseline, side.name) for side in (baseline, candidate) if side.left_out and side.baseline]
    for run_id, name in dict.fromkeys(named):
        yield f"{run_id} of {name} is not among its rows here: the baseline only shows that rows run."
    if alone := (baseline.tasks | candidate.tasks) - {*compared}:
        yield f"Left out, since both sides do not have them: {task_names(alone)}."
    if pairing.repeated:
        yield f"{pairing.repeated} episodes are left out, since another row began them alike."
    if any(episode.number >= INIT_STATES for side in (pairing.baseline, pairing.candidate) for episode in side):
        yield (f"A task has {INIT_STATES} init states: episodes beyond repeat them, and count here as if they did not.")
    if not balanced and not pairing.pairs:
        yield "The tasks have other shares of A's and of B's episodes: trust the p-value, which is of each task."


def noise_notes(baseline: Side, overall: Compared, noise: NoiseRecord | None) -> Iterator[str]:
    """Yields how the flips stand to the noise floor, or how to measure it where there are flips."""
    if noise:
        yield f"{noise_floor.sentence(noise)}."
    elif baseline.kind == "campaign" and (overall["gains"] or overall["losses"]):
        yield f"Whether A differs from itself as often is unknown: `tracka noise {baseline.name}` plays it again."


def _other_fingerprints(baseline: Side, candidate: Side) -> Iterator[str]:
    """Yields in what else than the checkpoint the rows of two sides differ, where both sides say it."""
    if not baseline.rows or not candidate.rows:
        return
    if engines := _unequal(baseline, candidate, lambda row: row["engine"]):
        yield f"another engine ({engines})"
    if simulators := _unequal(baseline, candidate, lambda row: row["simulator"]):
        yield f"another renderer ({simulators})"
    if all("settings" in row for side in (baseline, candidate) for row in side.rows):
        keys = sorted({name for side in (baseline, candidate) for row in side.rows for name in row["settings"]})
        flags = {name: _unequal(baseline, candidate, partial(_setting, name)) for name in keys if name not in OWN}
        changed = [f"{name.partition(': ')[2]} {values}" for name, values in flags.items() if values]
        if changed:
            yield f"other settings ({joined_names(changed)})"
    if _unequal(baseline, candidate, lambda row: str(row["software_sha256"])):
        names = sorted({name for side in (baseline, candidate) for row in side.rows for name in row["versions"]})
        versions = {name: _unequal(baseline, candidate, partial(_version, name)) for name in names}
        changed = [f"{name} {values}" for name, values in versions.items() if values]
        yield f"other software ({joined_names(changed) or 'of the same versions: see tracka why'})"


def _setting(name: str, row: PlayedRow) -> str:
    return row["settings"].get(name, "not set")


def _version(name: str, row: PlayedRow) -> str:
    return row["versions"].get(name, "missing")


def _unequal(baseline: Side, candidate: Side, fact: Callable[[PlayedRow], str]) -> str:
    """Returns a fact of the rows of both sides, `0.6.1 and 0.6.2`, or nothing where it is the same on both."""
    ours, theirs = (sorted({fact(row) for row in side.rows}) for side in (baseline, candidate))
    return "" if ours == theirs else f"{'/'.join(ours)} and {'/'.join(theirs)}"


def _evidence(overall: Compared) -> str:
    interval, test = overall["interval"], overall["worse"]
    flips = ""
    if overall["gains"] is not None and overall["losses"] is not None:
        episodes = overall["baseline"]["episodes"]
        losses = counted(overall["losses"], "loss", "losses")
        flips = f"{losses} and {counted(overall['gains'], 'gain')} in {counted(episodes, 'pair')}, "
    ends = f"{change(interval['low'])} to {change(interval['high'])}"
    spread = f"{percent(interval['confidence'])} interval {ends}, {interval['method']}"
    tested = f"one-sided {p_equals(test['value'])} ({test['method']})"
    return f"{flips}a change of {change(overall['difference'])} points ({spread}); {tested}"


def _sensitivity(overall: Compared) -> str:
    if overall["minimum_drop"] is None:
        return "so few episodes cannot show any drop"
    return f"so many episodes show a drop of {points(overall['minimum_drop'])} with a chance of 80%"
