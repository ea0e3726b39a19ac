"""When a preflight report stands for today: no check failed, and nothing that was checked has changed."""

import os
from collections.abc import Callable

import pytest
from campaigns import Made

from tracka.core import files
from tracka.execution import gpu
from tracka.preflight import inventory, preflight, report_inputs


def is_current(made: Made, accept_invalid_sim: bool = False, strict: bool = False) -> bool:
    return preflight.is_current(preflight.config_of(made.spec), accept_invalid_sim, strict)


def edit_report(made: Made, **values: object) -> None:
    path = made.layout.preflight_report
    files.write_json(path, files.read_json(path) | values)


def fail_a_check(made: Made) -> None:
    """Has a check of another checkpoint fail, as preflight itself would record it."""
    path = made.layout.preflight_report
    report = files.read_json(path)
    report["checks"][0] |= {"status": "fail", "required": False}
    files.write_json(path, report)
    record = made.layout.preflight / report_inputs.NAME
    files.write_json(record, files.read_json(record) | {"report": files.sha256(files.canonical(report))})


CHANGES: dict[str, Callable[[Made], object]] = {
    "settings": lambda made: made.configure("[rows.long_b1_e6]\nepisode_length = 9"),
    "matrix": lambda made: made.layout.matrix.write_text(made.layout.matrix.read_text().replace(",6,cpu", ",5,cpu")),
    "checkpoint": lambda made: made.change_weights(),
    "no checkpoint": lambda made: (made.root / "checkpoints" / "fake" / "model.safetensors").unlink(),
    "environment": lambda made: os.environ.update(OMP_NUM_THREADS="3"),
    "display": lambda made: os.environ.update(DISPLAY=":97"),
    "gpus": lambda made: os.environ.update({gpu.PRETEND: "2"}),
    "edited report": lambda made: edit_report(made, gpu_count=8),
    "blocked report": lambda made: edit_report(made, status="blocked"),
    "failed check": fail_a_check,
    "lost report": lambda made: made.layout.preflight_report.unlink(),
    "lost record": lambda made: (made.layout.preflight / report_inputs.NAME).unlink(),
    "damaged record": lambda made: (made.layout.preflight / report_inputs.NAME).write_text("{"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_report_is_of_today_until_what_it_was_made_from_changes(
    ready: Made, monkeypatch: pytest.MonkeyPatch, change: Callable[[Made], object]
) -> None:
    for name in ("OMP_NUM_THREADS", "DISPLAY", gpu.PRETEND):
        monkeypatch.setenv(name, os.environ.get(name, ""))
        monkeypatch.delenv(name)
    assert is_current(ready) == ("DISPLAY" not in os.environ)
    change(ready)
    assert not is_current(ready)


def test_another_request_makes_a_report_anew(ready: Made) -> None:
    assert not is_current(ready, accept_invalid_sim=True)
    assert not is_current(ready, strict=True)
    assert is_current(ready)


def test_another_host_or_software_makes_a_report_anew(ready: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = inventory.host_facts()
    for name in ("host_facts", "software_facts"):
        with monkeypatch.context() as patch:
            patch.setattr(inventory, name, lambda: {**facts, "cpu": "another"})
            assert not is_current(ready)
    assert is_current(ready)


def test_preflight_by_the_command_counts_for_the_gates(ready: Made) -> None:
    ready.layout.preflight_report.unlink()
    assert ready.call(*ready.preflight_words()).returncode == 0
    assert is_current(ready)
