"""Finds caveats: facts that limit a campaign's verdict although they break no contract.

Caveats are warnings of preflight, results that look like a wrong set-up, changes made after a result was known, and
settings that are not the benchmark's own. Each caveat is a warning with its remedy. Caveats are shown on the terminal,
in handoffs and in results.md; a strict validation does not count them as findings.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ..campaign.campaign import Campaign
from ..campaign.matrix import Row
from ..core import schema
from ..core.counting import counted
from ..core.errors import Finding, TrackaError, joined_names
from ..core.lerobot_facts import EPISODE_STEPS, FRAME_SIDE, INIT_STATES, SUITE_TASKS
from ..engines import video
from ..runs import claims, early_stop, forecast, judgement, row_state, run
from . import fast_caveats

USUAL = (
    "Suspect a wrong set-up first: cameras, statistics, control mode or n_action_steps that differ from the training."
    " Look at a video, and run `tracka check` on the checkpoint. If neither shows a fault, the policy itself fails"
)
SLOWER = "The results are valid but take longer; docs/resident.md says what each faster way needs"
FEW = 10  # init states without a success, of which a rate of a quarter would show that many by chance
ONE_COLOUR = "videos show one colour"
HISTORY = "Say so wherever the result is quoted"
BENCHMARK = "Use the benchmark's own setting, or say so wherever the result is quoted"


def of_phase(campaign: Campaign, phase: str) -> list[Finding]:
    """Returns the caveats for the end of `phase`.

    Phase 1 has that of a tier's time budget, phase 2 preflight's caveats, phase 3 those of the baseline's certificate,
    phase 4 those of the results, of an early stop and of their history, phase 5 none.
    """
    if phase == "phase1":
        return list(of_budget(campaign))
    if phase == "phase2":
        return list(of_preflight(campaign))
    if phase == "phase3":
        return list(fast_caveats.of_certificates(campaign, [campaign.baseline]))
    if phase == "phase4":
        return [*of_results(campaign), *of_early_stop(campaign), *of_history(campaign)]
    return []


def of_budget(campaign: Campaign) -> Iterator[Finding]:
    """Yields that a tier is expected to take longer than its budget; nothing where nobody can say how long it takes."""
    tier, is_forecast = campaign.tier, campaign.expected_gpus > 0
    if tier is None or tier.budget_minutes is None or not is_forecast:
        return
    expected = forecast.seconds(campaign, campaign.engine)
    if expected > 60 * tier.budget_minutes:
        what = f"the budget is {tier.budget_minutes:g} minutes, but a pi0 without an early success takes about"
        remedy = "Raise budget_minutes, or leave out rows or episodes: no row starts after the budget"
        where = f"{campaign.layout.settings.name}, key tiers.{tier.name}.budget_minutes"
        yield Finding(where, f"{what} {forecast.in_words(expected)}", remedy, warning=True)


def of_preflight(campaign: Campaign) -> Iterator[Finding]:
    """Yields what preflight warned of, and each checkpoint that preflight refused without blocking the campaign."""
    report = schema.read_or_empty("preflight", campaign.layout.preflight_report)
    for check in report.get("checks", ()):
        if check["status"] == "warn" or (check["status"] == "fail" and not check["required"]):
            remedy = check["remedy"] or f"See {campaign.layout.relative(campaign.layout.preflight_report)}"
            what = check["evidence"] + _changed_since(campaign, check)
            yield Finding(f"preflight, {check['name']}", what, remedy, warning=True)


def _changed_since(campaign: Campaign, check: Mapping[str, Any]) -> str:
    """Returns what to add to the caveat of a refused checkpoint that has changed since preflight looked at it.

    Returns an empty string where the checkpoint is the same, and for a warning.
    """
    policy_path = check["name"].partition(":")[2]
    rows = [row for row in campaign.enabled if row.policy_path == policy_path]
    if check["status"] == "warn" or not rows:
        return ""
    try:
        refusal = run.preflight_refusal(campaign, rows[0], run.load_host(campaign.layout))
    except TrackaError:  # raised where preflight itself is blocked
        return ""
    return "" if refusal else "; the checkpoint has changed since, so run phase 2 again"


def of_results(campaign: Campaign) -> Iterator[Finding]:
    """Yields results that look like a wrong set-up, and what the resident engine could not do as asked."""
    results: dict[str, Mapping[str, Any]] = {
        row.run_id: run.read_result(campaign.layout, row.run_id) or {} for row in campaign.enabled
    }
    yield from _without_success(campaign, results)
    for row in campaign.enabled:
        yield from _without_pictures(campaign, row, results[row.run_id])
    yield from _fallbacks(campaign, results)
    yield from fast_caveats.of_rows(campaign, results)
    yield from fast_caveats.of_certificates(campaign, [*results])


def of_early_stop(campaign: Campaign) -> Iterator[Finding]:
    """Yields the early stop that ended the campaign when every claim had passed; any other is a finding of phase 4."""
    decision = early_stop.standing(campaign)
    if decision is not None and decision.outcome == "pass":
        where = campaign.layout.relative(campaign.layout.early_stop)
        yield Finding(where, early_stop.in_words(decision), early_stop.PLAY_ON, warning=True)


def _without_success(campaign: Campaign, results: Mapping[str, Mapping[str, Any]]) -> Iterator[Finding]:
    """Yields each policy of which every row ran to its end and no episode succeeded.

    Rows with an expected outcome (a known answer) are left out, since their failures are known beforehand.
    """
    rows_by_policy: dict[str, list[Row]] = defaultdict(list)
    for row in campaign.enabled:
        if row.run_id not in campaign.known_answers:
            rows_by_policy[row.policy_path].append(row)
    for policy_path, rows in rows_by_policy.items():
        policy_results = [results[row.run_id] for row in rows]
        if all(result.get("status") == "pass" and result["successes"] == 0 for result in policy_results):
            episodes = sum(result["episodes"] for result in policy_results)
            what = f"none of {counted(episodes, 'episode')} succeeded, in any row"
            different = min(episodes, _different_starts(campaign, rows))
            if different < episodes:
                what += f", of {different} different init states"
            if 0 < different < FEW:
                rate = 1 - 0.05 ** (1 / different)
                what += f"; so few show little: a policy that succeeds in {100 * rate:.0f}% may do that by chance"
            yield Finding(policy_path, what, USUAL, warning=True)


def _different_starts(campaign: Campaign, rows: Iterable[Row]) -> int:
    """Returns from how many init states the rows begin: the baseline's are usually those of another row too."""
    return len(
        {(row.task_suite, task, init_state) for row in rows for task, _, init_state, *_ in claims.starts(campaign, row)}
    )


def _without_pictures(campaign: Campaign, row: Row, result: Mapping[str, Any]) -> Iterator[Finding]:
    paths = [campaign.layout.root / name for name in result.get("video_paths", ()) if result["status"] == "pass"]
    if plain_videos := [path for path in paths if video.decode(path).plain]:
        example = campaign.layout.relative(plain_videos[0])
        what = f"{len(plain_videos)} of {len(paths)} {ONE_COLOUR}, such as {example}"
        remedy = "Look at that video, and at the frame beside preflight.json: the policy saw no picture"
        yield Finding(f"row {row.run_id}", what, remedy, warning=True)


def _fallbacks(campaign: Campaign, results: Mapping[str, Mapping[str, Any]]) -> Iterator[Finding]:
    """Yields the slower ways that the resident engine took, each with its reason and the rows in which it was taken."""
    rows_by_reason: dict[str, list[str]] = defaultdict(list)
    for run_id, result in results.items():
        for reason in fast_caveats.fallbacks(campaign, result) if result else ():
            if fast_caveats.ANSWERS not in reason:  # this is said of the row's mode
                rows_by_reason[reason].append(run_id)
    for reason, run_ids in rows_by_reason.items():
        yield Finding(f"rows {joined_names(run_ids)}", f"fallback: {reason}", SLOWER, warning=True)


def of_history(campaign: Campaign) -> Iterator[Finding]:
    """Yields what was changed after a result was known: rows disabled, thresholds lowered, attempts removed."""
    enabled = {row.run_id for row in campaign.enabled}
    runs = campaign.layout.runs
    run_ids = sorted(path.name for path in runs.iterdir() if path.is_dir()) if runs.is_dir() else []
    for run_id in run_ids:
        manifest, result = run.read_files(campaign.layout, run_id)
        if result is not None and run_id not in enabled and (shortfall := _shortfall(manifest, result)):
            yield Finding(
                f"row {run_id}", f"the row is no longer enabled, and its run {shortfall}", HISTORY, warning=True
            )
    for row in campaign.enabled:
        yield from _row_history(campaign, row)


def _row_history(campaign: Campaign, row: Row) -> Iterator[Finding]:
    manifest, result = run.read_files(campaign.layout, row.run_id)
    original, threshold = manifest.get("threshold", 0.0), campaign.threshold(row)
    if result and threshold < original and (shortfall := _shortfall(manifest, result)) and result["status"] == "pass":
        what = f"the row's threshold was lowered to {100 * threshold:g}% after its run {shortfall}"
        yield Finding(f"row {row.run_id}", what, HISTORY, warning=True)
    numbers, state = campaign.layout.run(row.run_id).numbers(), row_state.read(campaign.layout, row.run_id)
    if lost_attempts := judgement.lost_attempts(numbers, state):
        what = (
            f"{lost_attempts} of the row's attempts {'is' if lost_attempts == 1 else 'are'} no longer in the run folder"
        )
        yield Finding(f"row {row.run_id}", what, HISTORY, warning=True)


def _shortfall(manifest: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    """Returns how a run fell short of what its row had to reach when the run began.

    Returns an empty string where the run reached it.
    """
    if result["status"] != "pass":
        return f"failed ({result['reason']})"
    threshold, rate = manifest.get("threshold", 0.0), result["success_rate"]
    return f"reached {100 * rate:.1f}% of {100 * threshold:g}%" if rate < threshold else ""


def of_settings(campaign: Campaign) -> Iterator[Finding]:
    """Yields the settings that are not the benchmark's own, each with the rows that have it.

    The baseline is left out, since it is only a rehearsal.
    """
    rows_by_setting: dict[str, list[str]] = defaultdict(list)
    for row in campaign.compared_rows:
        for words in _unusual_settings(campaign, row):
            rows_by_setting[words].append(row.run_id)
    for words, run_ids in rows_by_setting.items():
        where = "all rows" if len(run_ids) == len(campaign.compared_rows) else f"rows {joined_names(run_ids)}"
        yield Finding(where, words, BENCHMARK, warning=True)
    yield from _partial_suites(campaign)


def _unusual_settings(campaign: Campaign, row: Row) -> Iterator[str]:
    settings = campaign.settings(row)
    if row.n_episodes < INIT_STATES:
        yield f"{row.n_episodes} of the {INIT_STATES} init states of each LIBERO task"
    if row.n_episodes > INIT_STATES:
        repeats = row.n_episodes - INIT_STATES
        yield f"{repeats} episodes of each LIBERO task repeat an init state, and intervals count them like new ones"
    if settings.episode_length not in (None, EPISODE_STEPS[row.task_suite]):
        usual = f"those of {row.task_suite} after {EPISODE_STEPS[row.task_suite]}"
        yield f"episodes end after {settings.episode_length} steps, {usual}"
    if settings.frame != (FRAME_SIDE, FRAME_SIDE):
        yield f"frames of {settings.frame[0]} x {settings.frame[1]}, lerobot's own are {FRAME_SIDE} x {FRAME_SIDE}"
    for name, value in settings.flags.items():
        yield f"the flag {name} = {str(value).lower()}"


def _partial_suites(campaign: Campaign) -> Iterator[Finding]:
    """Yields the suites of which a policy is evaluated on some tasks only."""
    tasks: dict[tuple[str, str], set[int]] = defaultdict(set)
    for row in campaign.compared_rows:
        tasks[row.policy_path, row.task_suite] |= set(campaign.task_ids(row))
    for (policy_path, suite), evaluated in tasks.items():
        if len(evaluated) < SUITE_TASKS[suite]:
            numbers = joined_names([str(task) for task in sorted(evaluated)], most=20)
            counted = f"{len(evaluated)} are evaluated: tasks" if len(evaluated) > 1 else "1 is evaluated: task"
            what = f"of the {SUITE_TASKS[suite]} tasks of {suite} only {counted} {numbers}"
            yield Finding(policy_path, what, BENCHMARK, warning=True)
