"""Expected outcomes: for a policy whose outcome is known beforehand, exactly the episodes that must succeed.

`known_answers` in campaign.toml lists these episodes row by row. A policy under test has no expected outcome; a policy
that is made for the purpose tests the whole chain from simulator to report.
"""

from pathlib import Path

from ..campaign.campaign import Campaign
from ..campaign.matrix import Row
from ..core import files, schema
from ..core.errors import Finding, TrackaError

REASON = "known_answer"  # the reason for which a passed row is not accepted
REMEDY = "Trust no figure until the cause is found: checkpoint, simulator, lerobot-eval or this harness"


def differences(campaign: Campaign, row: Row) -> list[Finding]:
    """Returns where the files of a passed row differ from its expected outcome; nothing for a row without one."""
    expected_episodes = campaign.known_answers.get(row.run_id)
    if expected_episodes is None:
        return []
    folder = campaign.layout.run(row.run_id)
    counts = {task: len(episodes) for task, episodes in expected_episodes.items()}
    comparisons = (
        (
            folder.episodes,
            "episodes",
            _successful_episodes(folder.episodes, list(expected_episodes)),
            dict(expected_episodes),
        ),
        (folder.result, "successes", _success_counts(folder.result), counts),
    )
    return [
        Finding(str(path), f"task {task}: {what} {actual.get(task)}, but the known answer is {expected[task]}", REMEDY)
        for path, what, actual, expected in comparisons
        for task in expected_episodes
        if actual.get(task) != expected[task]
    ]


def _successful_episodes(path: Path, tasks: list[int]) -> dict[int, tuple[int, ...]]:
    """Returns the successful episodes of each task by episodes.jsonl; an empty dict if that file cannot be read."""
    try:
        records = files.read_lines(path)
        wins = [(record["task"], record["episode"]) for record in records if record["success"]]
    except (TrackaError, KeyError, TypeError):
        return {}
    return {task: tuple(episode for of_task, episode in wins if of_task == task) for task in tasks}


def _success_counts(path: Path) -> dict[int, int]:
    """Returns the number of successes of each task by result.json; an empty dict if that file cannot be read."""
    per_task = schema.read_or_empty("result", path).get("per_task", [])
    return {task["task_id"]: task["successes"] for task in per_task}
