"""A row that cannot start: its reason in one word, and the manifest of an attempt that never began.

Such a row leaves a manifest, a result and a marker like any failed row. What nobody can know of it, its row hash, its
command and the hash of its checkpoint, is null.
"""

from collections.abc import Mapping

from ..campaign.campaign import Campaign
from ..campaign.matrix import Row
from ..checkpoints.hub import MissingFolder, Unresolved
from ..checkpoints.python_dependencies import NotInstalled
from ..core import system_errors
from ..core.artifacts import Manifest, Result
from ..core.errors import TrackaError
from ..engines import software
from ..engines.failure import CHECKPOINT, DEVICE, HUB, IMPORT, Failure
from ..execution import slurm_outcome
from .plan import Host, outcome_settings, requested

# Of a row that could not start; the schemas list them too.
REASONS = (CHECKPOINT, HUB, IMPORT, DEVICE, *system_errors.REMEDIES, slurm_outcome.CONTROLLER)
OF_THE_CACHE = ("corrupt", "refused")  # outcomes of the hub's client that are faults of files which are here


class RowRefused(TrackaError):
    """Raised where a row could not start and has left its evidence, which `result` closes.

    Findings and exit code are those of the error that kept the row from starting.
    """

    def __init__(self, error: TrackaError, result: Result) -> None:
        super().__init__(error.findings)
        self.exit_code, self.result = error.exit_code, result


class SystemRefuses(TrackaError):
    """Raised where the operating system refuses a file, a process or a descriptor. `reason` is one word, or None."""

    def __init__(self, error: OSError) -> None:
        super().__init__(system_errors.finding(error))
        self.reason = system_errors.reason(error)


def of_error(error: TrackaError, reason: str | None = None) -> Failure:
    """Returns the failure of a row that an error keeps from starting; `reason` is given where the caller knows it."""
    more = f" (and {len(error.findings) - 1} more, in stderr.log)" if len(error.findings) > 1 else ""
    return Failure(reason or _reason(error), f"{error.findings[0]}{more}")


def _reason(error: TrackaError) -> str:
    if isinstance(error, NotInstalled):
        return IMPORT
    if isinstance(error, SystemRefuses) and error.reason:
        return error.reason
    of_the_hub = isinstance(error, Unresolved) and not isinstance(error, MissingFolder)
    return HUB if of_the_hub and getattr(error, "outcome", "") not in OF_THE_CACHE else CHECKPOINT


def as_error(error: OSError) -> TrackaError:
    """Returns an error of the system as an error of Track A."""
    return SystemRefuses(error)


def manifest(campaign: Campaign, row: Row, host: Host, attempt: int, retry_index: int) -> Manifest:
    """Returns the manifest of an attempt that never began; `gpu_id` is what the matrix asks for."""
    return {
        **requested(campaign, row, host, attempt, retry_index),
        "engine": campaign.engine_name,
        "command": None,
        "checkpoint": {
            "source": row.policy_path,
            "revision": None,
            "folder": row.policy_path,
            "tree_sha256": None,
            "policy_type": "unknown",
        },
        "settings": outcome_settings(campaign.settings(row)),
        "versions": software.versions(),
        "env": {},
        "gpu_id": row.gpu_id,
        "gpu_uuid": None,
        "gpu_others": [],
        "n_action_steps": None,
        "row_hash": None,
        "outcome": None,
        "invalid": None,
        "unproven": None,
    }


def has_started(manifest: Mapping[str, object]) -> bool:
    """Returns whether the attempt of a manifest began; an attempt without row hash could not start."""
    return manifest["row_hash"] is not None
