"""Writes a campaign as one page of Markdown, such as GitHub shows it as the summary of a job.

Guarantees: no text of a campaign can start markup or HTML; what does not fit is left out as whole lines, and the last
line says how many; what stands in the summary's file already stays.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ..campaign.campaign import Campaign
from ..core import files
from ..core.comparisons import Comparison
from ..core.errors import UsageError
from ..core.escaping import literal
from ..core.figures import percent
from ..execution import gpu
from ..report_page import episodes, headline, matrix_rows, task_rates
from ..report_page.matrix_rows import ShownRow
from ..report_page.task_rates import TaskRate
from ..reporting import collect, comparison_page, played_episodes, report
from ..reporting.collect import EvalRunResult
from ..runs import row_state

VARIABLE = "GITHUB_STEP_SUMMARY"  # the file to which a step of a job appends its summary
MOST_BYTES = 1024 * 1024  # GitHub shows nothing of a step's summary that is larger
_CUT = "\nCut here: {} more lines do not fit into a summary of {} KiB.\n"


def append(path: Path, text: str, most: int = MOST_BYTES) -> None:
    """Appends a page to the file of a step's summary, cut to the room that the file has left."""
    files.make_folder(path.absolute().parent)
    there = path.stat().st_size if path.exists() else 0
    with path.open("ab") as file:
        file.write(cut(text, max(0, most - there), most).encode())


def cut(text: str, room: int, most: int = MOST_BYTES) -> str:
    """Returns the whole lines of `text` that fit into `room` bytes, and how many do not.

    Returns nothing where not even that sentence fits. `most` is the size that the sentence names.
    """
    if len(text.encode()) <= room:
        return text
    lines = text.splitlines(keepends=True)
    size, kept = len(_CUT.format(len(lines), most // 1024).encode()), 0
    if size > room:
        return ""
    for line in lines:
        size += len(line.encode())
        if size > room:
            break
        kept += 1
    return "".join([*lines[:kept], _CUT.format(len(lines) - kept, most // 1024)])


def of_session(campaign: Campaign, accepted: bool) -> str:
    """Returns the page at the end of a session, with the flipped episodes against the baseline of `[verdict]`.

    A baseline that cannot be compared is named on the page with the reason.
    """
    try:
        comparisons = with_own_baseline(campaign)
    except UsageError as error:
        return page(campaign, notes=[str(finding) for finding in error.findings], accepted=accepted)
    return page(campaign, comparisons, accepted=accepted)


def with_own_baseline(campaign: Campaign) -> list[Comparison]:
    """Returns the comparison of each policy with the baseline of `[verdict]`; none without one.

    Raises UsageError where one of them cannot be compared.
    """
    if campaign.verdict is None or campaign.verdict.baseline is None:
        return []
    baseline = campaign.layout.root / campaign.verdict.baseline
    policies = list(dict.fromkeys(row.policy_path for row in campaign.compared_rows))
    return [compared(campaign, baseline, policy) for policy in policies]


def compared(campaign: Campaign, baseline: Path, policy: str = "") -> Comparison:
    """Returns the comparison of a campaign with `baseline`, as `tracka compare` makes it.

    `policy` names the checkpoint of a campaign of several. Raises UsageError where the two cannot be compared.
    """
    from ..reporting import comparison_report  # imported here, since it loads numpy and scipy

    return comparison_report.compare(baseline, played_episodes.named(campaign.layout.naming_folder, policy))


def page(
    campaign: Campaign,
    comparisons: Sequence[Comparison] = (),
    notes: Sequence[str] = (),
    accepted: bool | None = None,
) -> str:
    """Returns the page: verdict, rows, tasks, what limits the verdict, flipped episodes.

    `notes` are further sentences, and `accepted` is the judgement of the session that has just ended; None takes that
    of the last session.
    """
    results = report.enabled_results(campaign)
    reasons = collect.failure_reasons(campaign, results)
    head = headline.read(campaign, results, reasons, accepted)
    rows = matrix_rows.read(campaign, results, reasons, report.manifests(campaign))
    limits = [*notes, *head.caveats]
    blocks = [
        [f"## {literal(campaign.name)}: {literal(head.words)}"],
        [f"**{literal(head.sentences[0])}**"],
        [f"* {literal(sentence)}" for sentence in head.sentences[1:]],
        [*_rows(results, reasons)],
        [*_tasks(_rates(campaign, rows, comparisons, head))],
        ["### What limits the verdict\n", *(f"* {literal(each)}" for each in limits)] if limits else [],
        *([*_flips(comparison)] for comparison in comparisons),
    ]
    return files.redacted("\n\n".join("\n".join(block) for block in blocks if block) + "\n")


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{' --- |' * len(head)}"
    for line in lines:
        yield f"| {' | '.join(map(literal, line))} |"


def _rows(results: Sequence[EvalRunResult], reasons: Mapping[str, str]) -> Iterator[str]:
    yield "### Rows\n"
    head = ("row", "status", "not accepted for", "succeeded", "rate (95% interval)", "device", "seconds")
    yield from _table(head, [_row(result, reasons.get(result.run_id, "")) for result in results])


def _row(result: EvalRunResult, reason: str) -> tuple[str, ...]:
    played = result.episodes is not None and result.successes is not None
    return (
        result.run_id,
        row_state.status_text(result.status, result.reason, result.invalid, result.unproven),
        reason,
        f"{result.successes} of {result.episodes}" if played else "",
        collect.rate(result),
        "" if result.duration_sec is None else gpu.device_name(result.gpu_id),
        "" if result.duration_sec is None else f"{result.duration_sec:.0f}",
    )


def _rates(
    campaign: Campaign, rows: Sequence[ShownRow], comparisons: Sequence[Comparison], head: headline.Headline
) -> list[TaskRate]:
    claims = head.claims["rates"] if head.claims else ()
    tasks = comparisons[0]["tasks"] if len(comparisons) == 1 else ()
    return task_rates.read(campaign, rows, episodes.read(campaign), claims, tasks)


def _tasks(rates: Sequence[TaskRate]) -> Iterator[str]:
    several = len({rate.policy_path for rate in rates}) > 1
    if rates:
        yield "### Success by task\n"
        columns = ("task", "instruction", "succeeded", "rate (95% interval)", "threshold", "baseline")
        yield from _table([*(["policy"] if several else []), *columns], [_task(rate, several) for rate in rates])


def _task(rate: TaskRate, with_policy: bool) -> list[str]:
    return [
        *([rate.policy_path] if with_policy else []),
        f"{rate.suite} {rate.task}",
        rate.words,
        f"{rate.successes} of {rate.episodes}",
        collect.rate_in_words(rate.successes, rate.episodes),
        *("" if value is None else percent(value) for value in (rate.threshold, rate.baseline)),
    ]


def _flips(comparison: Comparison) -> Iterator[str]:
    flips = comparison["flips"]
    sides = [comparison[side]["name"] for side in ("baseline", "candidate")]
    yield f"### Against {literal(sides[0])}\n"
    yield f"A is {literal(sides[0])}, B is {literal(sides[1])}. {literal(comparison['sentence'])}"
    yield literal(comparison_page.pairing_in_words(comparison))
    if flips:
        yield f"\n{len(flips)} episodes have flipped:\n"
        yield from _table(("flipped", "episode"), [(flip["change"], comparison_page.place(flip)) for flip in flips])
