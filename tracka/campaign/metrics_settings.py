"""Reads where a campaign sends its metrics: `[metrics]` in campaign.toml."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Client = Literal["wandb", "trackio"]


@dataclass(frozen=True)
class MetricsSettings:
    """The client that is told of each row, and its project.

    `timeout_secs` is how long a session waits at its end for a client that is not done.
    """

    to: Client
    project: str
    timeout_secs: float = 60.0


def of_table(table: Mapping[str, Any] | None) -> MetricsSettings | None:
    """Returns the settings in a table that follows its schema; None if the campaign has no `[metrics]`."""
    return None if table is None else MetricsSettings(**table)
