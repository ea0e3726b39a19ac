"""What may end a row before its own end: an early stop of the campaign, or a session that stops before its end.

The process that runs a row asks each of them every few seconds while the row plays, and before the row starts.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from ..campaign import commands
from ..campaign.campaign import Campaign
from ..campaign.matrix import Row
from ..core.errors import Finding, TrackaError
from ..engines import failure


class NoLongerWanted(TrackaError):
    """Raised where a row does not start, since something has come that ends rows."""


class Ending(Protocol):
    """What may end a row; `reason` is the failure of a row that it has ended, one of `failure.ENDED`."""

    @property
    def reason(self) -> str: ...

    def require_open(self) -> None:
        """Raises NoLongerWanted where the row may not start any more."""

    def has_come(self) -> bool:
        """Returns whether the row has to end now; asked every few seconds while the row plays."""


@dataclass
class Endings:
    """All that may end one row. `reason` is that of the first which has come; empty while the row is wanted."""

    each: Sequence[Ending] = ()
    reason: str = ""

    def require_open(self) -> None:
        """Raises NoLongerWanted where the row may not start any more."""
        for ending in self.each:
            ending.require_open()

    def have_come(self) -> bool:
        """Returns whether the row has to end now, and keeps the reason."""
        self.reason = self.reason or next((ending.reason for ending in self.each if ending.has_come()), "")
        return bool(self.reason)


@dataclass(frozen=True)
class SessionStop:
    """Ends a row whose session stops before its end; `stops` says whether the session does."""

    campaign: Campaign
    row: Row
    stops: Callable[[], bool]

    reason = failure.SESSION_STOP

    def require_open(self) -> None:
        """Raises NoLongerWanted where the session stops."""
        if self.stops():
            remedy = f"Run what is left: {commands.gates(self.campaign.layout, '--lf')}"
            raise NoLongerWanted(
                Finding(f"row {self.row.run_id}", f"not started: {failure.ENDED[self.reason]}", remedy)
            )

    def has_come(self) -> bool:
        """Returns whether the session stops."""
        return self.stops()
