"""Devices that a checkpoint names for itself, against those that its rows run on."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from campaigns import ROWS, SETTINGS, Made
from checkpoints import POST, change_json

from tracka.core.check import Check
from tracka.preflight import device_placement

ON_GPU = tuple(row.replace(",cpu,", ",auto,") for row in ROWS)
ON_BOTH = (*ROWS[:2], ON_GPU[2])


def moved_to(device: str) -> Callable[[Path], None]:
    """Gives the postprocessor a step that moves actions to `device`."""
    step = {"registry_name": "device_processor", "config": {"device": device, "float_dtype": None}}
    return lambda folder: change_json(folder / POST, lambda value: value["steps"].append(step))


def amp(value: Any) -> Callable[[Path], None]:
    return lambda folder: change_json(folder / "config.json", lambda config: config.update(use_amp=value))


BROKEN: dict[str, tuple[Callable[[Path], None], tuple[str, ...], str]] = {
    "actions_on_a_gpu_that_is_not_there": (moved_to("cuda"), ROWS, "moves actions to cuda, which rows on the CPU"),
    "actions_on_a_gpu_that_some_rows_lack": (moved_to("cuda"), ON_BOTH, "moves actions to cuda, which rows on the CPU"),
    "actions_on_a_numbered_gpu": (moved_to("cuda:3"), ON_GPU, "moves actions to cuda:3, which a row cannot use"),
    "actions_on_a_mac": (moved_to("mps"), ON_GPU, "moves actions to mps"),
    "mixed_precision_on_a_cpu": (amp(True), ROWS, "use_amp is true"),
}
SOUND: dict[str, tuple[Callable[[Path], None], tuple[str, ...]]] = {
    "actions_on_the_cpu": (moved_to("cpu"), ROWS),
    "actions_on_the_gpu_of_the_row": (moved_to("cuda"), ON_GPU),
    "mixed_precision_on_a_gpu": (amp(True), ON_GPU),
    "no_mixed_precision": (amp(False), ROWS),
}


def check(made: Made, change: Callable[[Path], None]) -> Check:
    change(made.root / "checkpoints" / "fake")
    return device_placement.check(made.spec, "checkpoints/fake")


@pytest.mark.parametrize("name", BROKEN)
def test_a_device_that_a_row_does_not_have_is_named(make_campaign: Callable[..., Made], name: str) -> None:
    change, rows, words = BROKEN[name]
    found = check(make_campaign(rows), change)
    assert (found.status, found.required) == ("fail", True) and words in found.evidence and found.remedy


@pytest.mark.parametrize("name", SOUND)
def test_a_device_that_every_row_has_needs_no_word(make_campaign: Callable[..., Made], name: str) -> None:
    change, rows = SOUND[name]
    assert check(make_campaign(rows), change).status == "pass"


def test_a_flag_of_the_campaign_wins_over_the_checkpoint(make_campaign: Callable[..., Made]) -> None:
    off = make_campaign(ROWS, f'{SETTINGS}\n[lerobot_eval.flags]\n"policy.use_amp" = false\n')
    assert check(off, amp(True)).status == "pass"
