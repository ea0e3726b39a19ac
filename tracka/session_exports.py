"""Shows a session where people already look: in the summary of a CI job, and in metrics. Neither changes a verdict."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from .campaign.campaign import Campaign
from .campaign.layout import PHASES
from .exports.metrics import MetricsProcess, Value
from .reporting import verdict, verdict_file
from .runs import run


class SessionExports:
    """What one session shows elsewhere, in the process that owns it.

    Attributes:
        campaign: the session's campaign
        warnings: what could not be shown, a sentence each
        metrics: the process of the client of `[metrics]`; None where the campaign has none
    """

    def __init__(self, campaign: Campaign) -> None:
        self.campaign = campaign
        self.warnings: list[str] = []
        self.metrics = _metrics(campaign)
        self._ended: list[str] = []

    def row_ended(self, run_id: str) -> None:
        """Sends the counts of a row that the session is done with, once: phase 4 judges the baseline again."""
        with self._harmless("metrics are not complete"):
            self._send_row(run_id)

    def _send_row(self, run_id: str) -> None:
        result = run.read_result(self.campaign.layout, run_id) if self.metrics else None
        if self.metrics is None or result is None or result["dry_run"] or run_id in self._ended:
            return
        self._ended.append(run_id)
        values: dict[str, Value | None] = {
            "rows_ended": len(self._ended),
            f"passed/{run_id}": result["status"] == "pass",
            **{f"{key}/{run_id}": result[key] for key in ("success_rate", "successes", "episodes", "duration_sec")},
        }
        self.metrics.log({key: value for key, value in values.items() if value is not None})

    def end(self, ended_phases: Sequence[str], accepted: bool) -> None:
        """Appends the summary of a CI job where there is one, and sends the verdict, once a phase has ended."""
        if ended_phases:
            with self._harmless("the summary of the job could not be written"):
                self._append_summary(accepted)
        if self.metrics is not None:
            with self._harmless("metrics are not complete"):
                if PHASES[-1] in ended_phases:
                    self.metrics.summarize(_verdict(self.campaign, accepted))
                self.metrics.end()
            self.warnings += [self.metrics.warning] if self.metrics.warning else []

    @contextlib.contextmanager
    def _harmless(self, what: str) -> Iterator[None]:
        """Makes a warning of whatever fails inside, since a fault here must not take the session's verdict with it."""
        try:
            yield
        except Exception as error:
            warning = f"{what}: {type(error).__name__}: {error}"
            self.warnings += [] if warning in self.warnings else [warning]

    def _append_summary(self, accepted: bool) -> None:
        from .exports import step_summary  # imported here, since most sessions write none

        if target := os.environ.get(step_summary.VARIABLE):
            step_summary.append(Path(target), step_summary.of_session(self.campaign, accepted))


def _metrics(campaign: Campaign) -> MetricsProcess | None:
    if campaign.metrics is None:
        return None
    return MetricsProcess(campaign.metrics, campaign.name, campaign.layout.artifacts / "metrics")


def _verdict(campaign: Campaign, accepted: bool) -> dict[str, Value]:
    claims = verdict_file.read(campaign)
    said: dict[str, Value] = {"accepted": accepted, "verdict": verdict.words(campaign, accepted)}
    return said | ({"outcome": claims["outcome"], "sentence": claims["sentence"]} if claims else {})
