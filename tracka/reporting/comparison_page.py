"""Shows a comparison: as text for a terminal, as a page in Markdown, or as JSON by the schema comparison."""

import shlex
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ..core import escaping, files
from ..core.comparisons import Compared, Comparison, Flip, RateRecord, SideRecord
from ..core.counting import counted
from ..core.figures import change, p_equals, p_value, percent
from .played_episodes import OF, is_same

HEAD = ("task", "A", "B", "B - A, points", "gains/losses", "p, B is worse", "p by Holm", "shows a drop of")


def text(comparison: Comparison) -> str:
    """Returns the comparison for a terminal: sides, pairs, a table, flipped episodes, notes, and the sentence last."""
    cells = [HEAD, *rows(comparison)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(HEAD))]
    table = ["  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    blocks = [
        [f"A  {_side(comparison['baseline'])}", f"B  {_side(comparison['candidate'])}", pairing_in_words(comparison)],
        table,
        [*_across(comparison)],
        [line for flip in comparison["flips"] for line in _flip(flip)],
        comparison["notes"],
        [comparison["sentence"]],
    ]
    return escaping.plain("\n\n".join("\n".join(block) for block in blocks if block) + "\n")


def next_step(baseline: Path, candidate: Path) -> str:
    """Returns the command that shows more of a comparison: its flipped episodes, or how many more would say more."""
    folder = Path(str(candidate).partition(OF)[0])
    if is_same(baseline, candidate):
        return f"{shlex.join(['tracka', 'compare', str(baseline)])} B compares it with another campaign, B"
    if folder.is_dir():
        report = shlex.join(["tracka", "report", str(candidate), "--against", str(baseline)])
        return f"{report} shows both videos of each episode that ended otherwise"
    return "tracka power --drop 0.05 --paired --discordance 0.1 says how many episodes show a drop of 5 points"


def markdown(comparison: Comparison) -> str:
    """Returns the comparison as a page in Markdown, with the sentence first."""
    lines = [HEAD, tuple("---" for _ in HEAD), *rows(comparison)]
    table = [f"| {' | '.join(map(escaping.cell, line))} |" for line in lines]
    sides = [f"{name}: {_side(side)}" for name, side in (("A", comparison["baseline"]), ("B", comparison["candidate"]))]
    facts = [*sides, pairing_in_words(comparison), *_across(comparison), *comparison["notes"]]
    blocks = [
        ["# B against A"],
        [f"**{escaping.cell(comparison['sentence'])}**"],
        [f"* {escaping.cell(fact)}" for fact in facts],
        table,
        [*_flip_table(comparison["flips"])],
    ]
    return "\n\n".join("\n".join(block) for block in blocks if block) + "\n"


def json(comparison: Comparison) -> str:
    """Returns the comparison as JSON, which follows the schema comparison."""
    return files.pretty(comparison).decode()


FORMATS: dict[str, Callable[[Comparison], str]] = {"text": text, "json": json, "markdown": markdown}


def rows(comparison: Comparison) -> list[tuple[str, ...]]:
    """Returns the cells below HEAD: a row for each task, and one for all together."""
    return [*_rows(comparison)]


def _rows(comparison: Comparison) -> Iterator[tuple[str, ...]]:
    for task in comparison["tasks"]:
        yield _row(f"{task['suite']} {task['task']}", task, p_value(task["holm"]["value"]))
    yield _row("all", comparison["overall"], "")


def _row(name: str, compared: Compared, holm: str) -> tuple[str, ...]:
    interval, drop = compared["interval"], compared["minimum_drop"]
    flips = "" if compared["gains"] is None else f"{compared['gains']}/{compared['losses']}"
    return (
        name,
        _rate(compared["baseline"]),
        _rate(compared["candidate"]),
        f"{change(compared['difference'])} ({change(interval['low'])} to {change(interval['high'])})",
        flips,
        p_value(compared["worse"]["value"]),
        holm,
        "none" if drop is None else f"{100 * drop:.1f}",
    )


def _rate(rate: RateRecord) -> str:
    return f"{rate['successes']}/{rate['episodes']} {100 * rate['rate']:.1f}%"


def _side(side: SideRecord) -> str:
    left_out = f"; left out: {'; '.join(side['left_out'])}" if side["left_out"] else ""
    return f"{side['name']} ({side['kind']}, {counted(side['episodes'], 'episode')}){left_out}"


def pairing_in_words(comparison: Comparison) -> str:
    """Returns how the episodes are paired, or why they are not, in a sentence."""
    pairing = comparison["pairing"]
    if pairing["reason"]:
        return f"Nothing is paired: of all episodes {pairing['reason']}. The two are compared as other episodes."
    alone = [pairing["baseline_unpaired"], pairing["candidate_unpaired"]]
    rest = f" {alone[0]} of A and {alone[1]} of B have no partner and are left out." if any(alone) else ""
    return f"{pairing['pairs']} episodes are paired by {', '.join(pairing['by'])}.{rest}"


def _across(comparison: Comparison) -> Iterator[str]:
    overall, confidence = comparison["overall"], comparison["confidence"]
    yield (
        f"Intervals: {overall['interval']['method']}, {percent(confidence)}. In all: {overall['worse']['method']}; "
        f"two-sided {p_equals(overall['two_sided']['value'])}. By task: {comparison['tasks'][0]['holm']['method']}. "
        "Drops are shown with a chance of 80%."
    )
    if across := comparison["across_tasks"]:
        yield f"On new tasks of this kind too: one-sided {p_equals(across['value'])} ({across['method']})."


def _flip(flip: Flip) -> Iterator[str]:
    yield f"{flip['change']}: {place(flip)}"
    for name, video in (("A", flip["baseline_video"]), ("B", flip["candidate_video"])):
        if video:
            yield f"      {name} {video}"


def _flip_table(flips: Sequence[Flip]) -> Iterator[str]:
    if flips:
        yield "| flipped | episode | video of A | video of B |\n| --- | --- | --- | --- |"
    for flip in flips:
        videos = (flip["baseline_video"] or "", flip["candidate_video"] or "")
        yield f"| {' | '.join(map(escaping.cell, (flip['change'], place(flip), *videos)))} |"


def place(flip: Flip) -> str:
    """Returns which episode has flipped: its task, number, init state and seed."""
    seed = "" if flip["seed"] is None else f", seed {flip['seed']}"
    return f"{flip['suite']} {flip['task']}, episode {flip['episode']} (init state {flip['init_state']}{seed})"
