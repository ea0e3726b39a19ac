"""Makes campaigns in memory, a row a task, and what their rows have played, for tests of decisions to stop early."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tracka.campaign.campaign import Campaign
from tracka.campaign.layout import Layout
from tracka.campaign.matrix import CPU, Row
from tracka.campaign.verdict_settings import VerdictSettings
from tracka.core.baselines import PlayedRow
from tracka.reporting import baseline_file
from tracka.reporting.sides import PlayedEpisode, Side
from tracka.runs import claims, stop_decision
from tracka.runs.stop_decision import Decision, Played


def campaign_of(n_tasks: int, n_episodes: int, **settings: Any) -> Campaign:
    """Returns a campaign of so many tasks of libero_object and episodes of each, with these settings in `[verdict]`."""
    names = ["baseline", *(f"t{task}" for task in range(n_tasks))]
    rows = tuple(Row(name, "libero_object", 1, n_episodes, CPU, 7, "egl", "p", True) for name in names)
    tables = {row.run_id: {"task_ids": [max(0, index - 1)]} for index, row in enumerate(rows)}
    verdict = VerdictSettings(**settings)
    return Campaign(Layout(Path("/nowhere")), rows, "baseline", 0, row_tables=tables, verdict=verdict)


def decided(campaign: Campaign, *outcomes: Sequence[bool]) -> Decision | None:
    """Returns the decision by the outcomes of the first episodes of each task."""
    rows = zip(campaign.compared_rows, outcomes, strict=False)
    played = {row.run_id: dict(zip(claims.starts(campaign, row), task, strict=False)) for row, task in rows}
    return stop_decision.decide(campaign, Played(played, played, played))


def exported(path: Path, *outcomes: Sequence[bool]) -> Path:
    """Writes an exported baseline of the campaign of `campaign_of` with these outcomes of each task; returns `path`."""
    spec = campaign_of(len(outcomes), len(outcomes[0]), threshold=0.5)
    episodes = [
        PlayedEpisode(
            ("libero_object", start[0]), start[1], start[2], success, None, start[3], start[4], spec.steps(row), True
        )
        for row, task in zip(spec.compared_rows, outcomes, strict=True)
        for start, success in zip(claims.starts(spec, row), task, strict=True)
    ]
    played_by: PlayedRow = {
        "run_id": "t0",
        "row_hash": "0" * 64,
        "policy_path": "b",
        "checkpoint_sha256": "1" * 64,
        "engine": "lerobot-eval",
        "simulator": "egl",
        "batch_size": 1,
        "software_sha256": None,
        "versions": {},
    }
    side = Side("b", "campaign", (*episodes,), rows=(played_by,))
    path.write_text(baseline_file.text(baseline_file.make(side, "b", path.parent)))
    return path
