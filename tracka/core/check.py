"""One answer of preflight: a named check with its evidence and its remedy."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from .errors import TrackaError


@dataclass(frozen=True)
class Check:
    """One answer. `status` is pass, fail or warn; a required check that fails blocks the campaign."""

    name: str
    status: str
    evidence: str
    remedy: str | None = None
    required: bool = True
    seconds: float = 0.0

    @property
    def subject(self) -> str:
        """What the check is about, such as a policy_path; empty where its name is all there is."""
        return self.name.partition(":")[2]


def answer(name: str, good: bool, evidence: str, remedy: str) -> Check:
    """A required check that passes if `good` and otherwise fails with the remedy."""
    return Check(name, "pass" if good else "fail", evidence, None if good else remedy)


def warning(name: str, good: bool, evidence: str, remedy: str) -> Check:
    """A check that stops nothing: it passes if `good` and otherwise warns with the remedy."""
    return Check(name, "pass" if good else "warn", evidence, None if good else remedy, required=False)


def guarded(name: str, step: Callable[[], str]) -> Check:
    """The check that passes with what `step` returns and fails with the findings that it raises."""
    start = time.monotonic()
    try:
        return Check(name, "pass", step(), seconds=round(time.monotonic() - start, 3))
    except TrackaError as error:
        what = "; ".join(f"{finding.where}: {finding.what}" for finding in error.findings)
        remedy = "; ".join(dict.fromkeys(finding.remedy for finding in error.findings))
        return Check(name, "fail", what, remedy, seconds=round(time.monotonic() - start, 3))
