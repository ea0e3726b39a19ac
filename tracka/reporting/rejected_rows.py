"""Says of rows that are not accepted why, and whether another run of them would change anything.

A row that has played all its episodes and stayed below its threshold was measured: it is not run again, so that no
campaign is repeated until it passes.
"""

from collections.abc import Iterable, Iterator, Mapping

from ..campaign import commands
from ..campaign.campaign import Campaign
from ..core import fact_cache
from ..core.errors import TrackaError
from ..runs import known_answers, run
from ..runs.plan import Host
from . import collect

BELOW_THRESHOLD = "below_threshold"
CUT_OFF = ("interrupted", "session_stop", "budget")  # the reasons of rows that were ended: nothing is to be mended
OF_MEASURED = (BELOW_THRESHOLD, known_answers.REASON)  # the reasons of rows that have passed and are not accepted
STAYS = "The row was measured, so running it again changes nothing"
OTHER_CAMPAIGN = "another checkpoint or another threshold is a campaign of its own (`tracka init --help`)"
NOT_RUN = "not_run"
MOST = 3


def reasons(campaign: Campaign, with_not_run: bool = False) -> dict[str, str]:
    """Returns run id -> why a row that has a result is not accepted, in the matrix's order.

    The reasons are those of `collect.failure_reasons`; `with_not_run` also returns the rows that have not run. Returns
    nothing where the results cannot be read; the contracts report that.
    """
    try:
        enabled = {row.run_id for row in campaign.enabled}
        results = [result for result in collect.campaign_results(campaign) if result.run_id in enabled]
        found = collect.failure_reasons(campaign, results)
        return {key: why for key, why in found.items() if with_not_run or why != NOT_RUN}
    except TrackaError:
        return {}


def to_run_again(reasons: Mapping[str, str]) -> list[str]:
    """Returns the run ids of the rows that another run may change: all but those that were measured."""
    return [run_id for run_id, reason in reasons.items() if reason not in OF_MEASURED]


def are_measured(reasons: Iterable[str]) -> bool:
    """Returns whether there are reasons, and all of them are of rows that another run would not change."""
    listed = list(reasons)
    return bool(listed) and all(reason in OF_MEASURED for reason in listed)


def only_measured(campaign: Campaign) -> bool:
    """Returns whether the rows that are not accepted were all measured, so that another run changes nothing."""
    return are_measured(reasons(campaign, with_not_run=True).values())


def were_cut_off(reasons: Iterable[str]) -> bool:
    """Returns whether there are reasons of rows that another run may change, and all of them were cut off."""
    listed = [reason for reason in reasons if reason not in OF_MEASURED]
    return bool(listed) and all(reason in CUT_OFF for reason in listed)


def in_words(campaign: Campaign, run_id: str, reason: str | None) -> str:
    """Returns why the row is not accepted, as a sentence without its end; empty where its result says nothing."""
    result = run.read_result(campaign.layout, run_id)
    if reason == known_answers.REASON:
        return "; ".join(finding.what for finding in known_answers.differences(campaign, campaign.row(run_id)))
    if reason == BELOW_THRESHOLD and result:
        rate, threshold = result["success_rate"] or 0.0, campaign.threshold(campaign.row(run_id))
        return f"the success rate is {100 * rate:.1f}%, below the threshold of {100 * threshold:g}%"
    return (result["error_message"] or "") if result and reason else ""


def causes(campaign: Campaign, reasons: Mapping[str, str]) -> Iterator[str]:
    """Yields one line for each of the first rows that are not accepted, and one that counts the others."""
    for run_id, reason in list(reasons.items())[:MOST]:
        is_measured = reason in OF_MEASURED
        yield f"row {run_id}: {in_words(campaign, run_id, reason) if is_measured else f'not accepted ({reason})'}"
    if len(reasons) > MOST:
        path = campaign.layout.relative(campaign.layout.summary / "failures.csv")
        yield f"{len(reasons) - MOST} more rows are not accepted, see {path}"


def with_other_inputs(campaign: Campaign) -> list[str]:
    """Returns the run ids of the enabled rows that have passed with other inputs than today's.

    A row whose checkpoint is missing or refused today is left out; so is every row where phases 1 and 2 have not
    passed.
    """
    try:
        host = run.load_host(campaign.layout)
    except TrackaError:
        return []
    with fact_cache.scope():
        return [row.run_id for row in campaign.enabled if _has_other_inputs(campaign, row.run_id, host)]


def _has_other_inputs(campaign: Campaign, run_id: str, host: Host) -> bool:
    result = run.read_result(campaign.layout, run_id)
    if result is None or result["status"] != "pass":
        return False
    try:
        return result["row_hash"] != run.plan_row(campaign, campaign.row(run_id), host).row_hash
    except TrackaError:
        return False


def rerun(campaign: Campaign, reason: str) -> str:
    """Returns the command that runs a row which is not accepted again; empty for one that was measured."""
    return "" if reason in OF_MEASURED else commands.gates(campaign.layout, "--lf")
