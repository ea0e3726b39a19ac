"""Writes success rates as the Hugging Face hub reads them from a model's `.eval_results/` folder.

The format is huggingface_hub's own (`EvalResultEntry`); https://huggingface.co/docs/hub/eval-results describes it. The
hub takes a result for a dataset that is registered as a benchmark, so the user names the dataset. Each suite is one of
its tasks.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from .. import __version__
from ..campaign.matrix import Row
from ..core import files
from ..core.errors import Finding, joined_names
from ..core.lerobot_facts import SUITE_TASKS
from ..reporting import collect
from .played_rows import PlayedRows

FOLDER = ".eval_results"
PACKAGES = ("lerobot", "mujoco")  # whose versions a reader of a leaderboard asks for
_URL = re.compile(r"https?://[^\s/]+\S*")
_REVISION = re.compile(r"[0-9a-f]{7,64}")


@dataclass(frozen=True)
class HubOptions:
    """What the campaign does not know: the benchmark's dataset, and where people can read about the results.

    `task_id` names the dataset's task where it is not called like the suite. `is_partial` allows suites of which not
    all tasks were played.
    """

    dataset: str | None = None
    task_id: str | None = None
    revision: str | None = None
    source_url: str | None = None
    source_name: str | None = None
    is_partial: bool = False


def faults(options: HubOptions, played: PlayedRows) -> Iterator[Finding]:
    """Yields everything that keeps the results from being exported, apart from the findings of `played`."""
    yield from _dataset_faults(options.dataset)
    if options.revision is not None and not _REVISION.fullmatch(options.revision):
        yield Finding("--dataset-revision", f"{options.revision!r} is not a hash of a commit", "Give the commit's hash")
    if options.source_url is not None and not _URL.fullmatch(options.source_url):
        yield Finding("--source-url", f"{options.source_url!r} is not a URL", "Give a URL, such as https://example.org")
    if options.source_name is not None and options.source_url is None:
        yield Finding("--source-name", "a source has a name but no URL", "Give --source-url too")
    suites = {row.task_suite for row in played.rows}
    if options.task_id is not None and len(suites) > 1:
        what = f"one task is named for {len(suites)} suites: {joined_names(sorted(suites))}"
        yield Finding("--task-id", what, "Leave it out, or name the rows of one suite with --row")
    for suite in sorted(suites) if not options.is_partial else ():
        if missing := sorted(set(range(SUITE_TASKS[suite])) - _tasks(played, suite)):
            what = f"{len(missing)} of the {SUITE_TASKS[suite]} tasks of {suite} were not played"
            yield Finding(str(played.campaign.layout.matrix), what, "Play them, or say so with --partial")


def _dataset_faults(dataset: str | None) -> Iterator[Finding]:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    remedy = "Name the dataset that is registered as the benchmark, such as --dataset ORGANISATION/NAME"
    if dataset is None:
        yield Finding("--dataset", "the hub takes results for a dataset alone", remedy)
        return
    try:
        validate_repo_id(dataset)
    except HFValidationError:
        yield Finding("--dataset", f"{dataset!r} is not the name of a dataset", remedy)
        return
    if "/" not in dataset:
        yield Finding("--dataset", f"{dataset!r} names no organisation", remedy)


def text(options: HubOptions, played: PlayedRows) -> str:
    """Returns the YAML file, one entry a suite. Neither the options nor the rows may have faults."""
    import yaml
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

    suites = sorted({row.task_suite for row in played.rows})
    entries = [EvalResultEntry(**_entry(options, played, suite)) for suite in suites]
    values = files.redacted(eval_result_entries_to_yaml(entries))
    return str(yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=1000))


def _entry(options: HubOptions, played: PlayedRows, suite: str) -> dict[str, Any]:
    outcomes = [episode.success for episode in played.side.episodes if episode.task[0] == suite]
    rows = [row for row in played.rows if row.task_suite == suite]
    return {
        "dataset_id": options.dataset,
        "task_id": options.task_id or suite,
        "value": round(100 * sum(outcomes) / len(outcomes), 4),
        "dataset_revision": options.revision,
        "date": max(played.result(row)["end_time_utc"] for row in rows),
        "source_url": options.source_url,
        "source_name": options.source_name,
        "notes": "; ".join(_notes(played, suite, outcomes, rows)),
    }


def _notes(played: PlayedRows, suite: str, outcomes: Sequence[bool], rows: Sequence[Row]) -> Iterator[str]:
    successes, episodes = sum(outcomes), len(outcomes)
    low, high = collect.wilson(successes, episodes)
    interval = f"95% interval {100 * low:.1f} to {100 * high:.1f}"
    yield f"success rate in percent: {successes} of {episodes} episodes, {interval}"
    yield f"{len(_tasks(played, suite))} of the {SUITE_TASKS[suite]} tasks of {suite}"
    yield f"batch size {_joined(row.batch_size for row in rows)}, seed {_joined(row.seed for row in rows)}"
    run_ids = {row.run_id for row in rows}
    facts = [each for each in played.side.rows if each["run_id"] in run_ids]
    yield f"engine {_joined(each['engine'] for each in facts)}"
    yield ", ".join(f"{name} {_joined(each['versions'].get(name, '?') for each in facts)}" for name in PACKAGES)
    yield f"judged by Track A {__version__}"


def _joined(values: Iterable[object]) -> str:
    return " and ".join(sorted({str(value) for value in values}))


def _tasks(played: PlayedRows, suite: str) -> set[int]:
    """Returns the tasks of a suite that the rows play."""
    return {task for row in played.rows if row.task_suite == suite for task in played.campaign.task_ids(row)}
