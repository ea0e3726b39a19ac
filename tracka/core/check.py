"""Defines the result of one preflight check: a name, a status, the evidence and the remedy."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from .errors import TrackaError
from .reports import CheckRecord


@dataclass(frozen=True)
class Check:
    """One check result. `status` is pass, fail or warn; a required check that fails blocks the campaign.

    `timed_out` says that the check has not passed since a process of it took longer than the campaign's `probe_secs`.
    """

    name: str
    status: str
    evidence: str
    remedy: str | None = None
    required: bool = True
    seconds: float = 0.0
    timed_out: bool = False

    @property
    def subject(self) -> str:
        """Returns what the check is about, such as a policy_path: the part of `name` after a colon, or empty."""
        return self.name.partition(":")[2]

    def record(self) -> CheckRecord:
        """Returns the check as preflight's report has it."""
        return {
            "name": self.name,
            "status": self.status,
            "evidence": self.evidence,
            "remedy": self.remedy,
            "required": self.required,
            "seconds": self.seconds,
        }


def required_check(name: str, good: bool, evidence: str, remedy: str) -> Check:
    """Returns a required check that passes if `good` and otherwise fails with the remedy."""
    return Check(name, "pass" if good else "fail", evidence, None if good else remedy)


def advisory_check(name: str, good: bool, evidence: str, remedy: str) -> Check:
    """Returns a check that blocks nothing: it passes if `good` and otherwise warns with the remedy."""
    return Check(name, "pass" if good else "warn", evidence, None if good else remedy, required=False)


def run_check(name: str, step: Callable[[], str]) -> Check:
    """Runs `step` and returns a check that passes with the text from `step` or fails with the findings from `step`."""
    start = time.monotonic()
    try:
        return Check(name, "pass", step(), seconds=round(time.monotonic() - start, 3))
    except TrackaError as error:
        return failed_check(name, error, round(time.monotonic() - start, 3))


def failed_check(name: str, error: TrackaError, seconds: float = 0.0) -> Check:
    """Returns a required check that has failed with the findings of `error`."""
    evidence = "; ".join(f"{finding.where}: {finding.what}" for finding in error.findings)
    remedy = "; ".join(dict.fromkeys(finding.remedy for finding in error.findings))
    return Check(name, "fail", evidence, remedy, seconds=seconds)
