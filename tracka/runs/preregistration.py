"""Registers what a campaign asks and demands before its first row runs, so that a later threshold is known as such.

The registration is never changed once a row has an attempt. A campaign without `[verdict]` registers nothing.
"""

from collections.abc import Iterator
from typing import Any

from ..campaign import campaign as campaigns
from ..campaign.campaign import Campaign
from ..core import files, lock, schema
from ..core.verdicts import Registration, RegistrationRecord

COLUMNS = ("run_id", "policy_path", "task_suite", "batch_size", "n_episodes", "seed")  # those that decide outcomes


def ensure(campaign: Campaign) -> None:
    """Writes the campaign's registration, unless rows have run under one already."""
    if campaign.verdict is None:
        return
    with lock.hold(campaign.layout.locks / "preregistration.lock", "the pre-registration", wait=True):
        registration, rows_have_run = read(campaign), _rows_have_run(campaign)
        if registration is None or (not rows_have_run and [*_changes(campaign, registration)]):
            files.write_json(campaign.layout.preregistration, _registration(campaign, late=rows_have_run))


def read(campaign: Campaign) -> Registration | None:
    """Returns the campaign's registration; None if there is none, or if it was damaged or edited."""
    registration = schema.read_or_none("preregistration", campaign.layout.preregistration)
    return registration if registration and registration["sha256"] == files.own_sha256(registration) else None


def record(campaign: Campaign) -> RegistrationRecord:
    """Returns the registration that a verdict of today stands on, and what is not as it was registered."""
    registration = read(campaign)
    if registration is None:
        return {"sha256": None, "registered_at_utc": None, "late": True, "changed": []}
    return {
        "sha256": registration["sha256"],
        "registered_at_utc": registration["registered_at_utc"],
        "late": registration["late"],
        "changed": [*_changes(campaign, registration)],
    }


def _registration(campaign: Campaign, late: bool) -> Registration:
    parts = _parts(campaign)
    registration: Registration = {
        "schema_version": schema.VERSION,
        "registered_at_utc": files.utc_now(),
        "late": late,
        "sha256": "",
        "matrix_sha256": parts["matrix"],
        "settings_sha256": parts["settings"],
        "baseline_sha256": parts["baseline"],
        "thresholds": parts["thresholds"],
    }
    return {**registration, "sha256": files.own_sha256(registration)}


def _parts(campaign: Campaign) -> dict[str, Any]:
    """Returns what is registered, part by part; paths and what changes no outcome are left out."""
    settings = {row.run_id: campaigns.effective(campaign.settings(row)) for row in campaign.enabled}
    return {
        "matrix": _sha256([{key: getattr(row, key) for key in COLUMNS} for row in campaign.enabled]),
        "settings": _sha256([campaign.engine, dict(campaign.resident), settings]),
        "baseline": _baseline_sha256(campaign),
        "thresholds": {
            "verdict": campaign.verdict.thresholds() if campaign.verdict else None,
            "min_success_rate": campaign.min_success_rate,
            "rows": dict(campaign.row_success_rates),
        },
    }


def _sha256(value: Any) -> str:
    return files.sha256(files.canonical(value))


def _baseline_sha256(campaign: Campaign) -> str | None:
    """Returns the hash of the exported baseline; None where there is none, or where it is a campaign's folder."""
    path = campaign.layout.root / campaign.verdict.baseline if campaign.verdict and campaign.verdict.baseline else None
    return files.sha256_file(path) if path and path.is_file() else None


def _changes(campaign: Campaign, registration: Registration) -> Iterator[str]:
    """Yields the parts that are not as they were registered."""
    registered: dict[str, Any] = {
        "thresholds": registration["thresholds"],
        "matrix": registration["matrix_sha256"],
        "settings": registration["settings_sha256"],
        "baseline": registration["baseline_sha256"],
    }
    for name, value in _parts(campaign).items():
        if files.canonical(registered[name]) != files.canonical(value):
            yield name


def _rows_have_run(campaign: Campaign) -> bool:
    return any(campaign.layout.runs.glob("*/attempts/*")) if campaign.layout.runs.is_dir() else False
