"""Statistics that a policy is normalised by: without them, or with others, it plays another policy's actions."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from campaigns import Made
from checkpoints import (
    POST,
    PRE,
    Arrays,
    change_json,
    change_normalizer,
    change_statistics,
    change_weights,
    is_normalizer,
    number,
    old_statistics,
    state_file,
)

from tracka.campaign.campaign import EvalSettings
from tracka.checkpoints import normalizer
from tracka.core.errors import TrackaError

STATE = "observation.state"


def said_of(folder: Path, *trusted: str) -> list[str]:
    try:
        normalizer.require(folder, EvalSettings(), trusted)
    except TrackaError as error:
        return [str(finding) for finding in error.findings]
    return []


def without(name: str) -> Callable[[Arrays], Arrays]:
    return lambda arrays: {key: value for key, value in arrays.items() if key != name}


def renamed(prefix: str) -> Callable[[Arrays], Arrays]:
    return lambda arrays: {prefix + key: value for key, value in arrays.items()}


def reshaped(name: str, *shape: int) -> Callable[[Arrays], Arrays]:
    return lambda arrays: {**arrays, name: np.ones(shape, np.float32)}


def filled(name: str, value: float) -> Callable[[Arrays], Arrays]:
    return lambda arrays: {**arrays, name: np.full_like(arrays[name], value)}


def no_state_files(folder: Path) -> None:
    change_normalizer(folder, lambda step: step.pop("state_file"))


def no_step(folder: Path, file: str) -> None:
    change_json(
        folder / file, lambda value: value.update(steps=[s for s in value["steps"] if not is_normalizer(s, file)])
    )


def modes(folder: Path, mode: str) -> None:
    """Another mode, in the processors as in config.json."""
    change_normalizer(folder, lambda step: step["config"]["norm_map"].update(STATE=mode, ACTION=mode))
    change_json(folder / "config.json", lambda value: value["normalization_mapping"].update(STATE=mode, ACTION=mode))


def bounds(folder: Path, low: str, high: str) -> None:
    """Statistics of another mode beside those that are there."""

    def add(arrays: Arrays) -> Arrays:
        sizes = {STATE: 8, "action": 7}
        more = {
            f"{key}.{name}": np.full(n, x, np.float32) for key, n in sizes.items() for name, x in ((low, -1), (high, 1))
        }
        return arrays | more

    change_statistics(folder, add)


def both(*changes: Callable[[Path], object]) -> Callable[[Path], object]:
    return lambda folder: [change(folder) for change in changes]


BROKEN: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "no_statistics": (
        no_state_files,
        (f"the statistics {STATE}.mean, {STATE}.std are missing", "action.mean, action.std"),
    ),
    "those_of_another_robot": (
        lambda folder: change_statistics(folder, renamed("so100.buffer.")),
        ("are missing", "has so100.buffer.action.mean"),
    ),
    "no_deviation_of_the_action": (
        lambda folder: change_statistics(folder, without("action.std"), POST),
        (POST, "the statistics action.std are missing"),
    ),
    "no_mean_of_the_state": (
        lambda folder: change_statistics(folder, without(f"{STATE}.mean"), PRE),
        (PRE, f"the statistics {STATE}.mean are missing"),
    ),
    "no_file_of_statistics": (
        lambda folder: state_file(folder, POST).unlink(),
        (POST, "unnormalizer_processor", "which the checkpoint lacks"),
    ),
    "no_normalizer": (
        lambda folder: no_step(folder, PRE),
        (PRE, "the file has no normalizer_processor", f"{STATE} (MEAN_STD)"),
    ),
    "no_unnormalizer": (
        lambda folder: no_step(folder, POST),
        (POST, "the file has no unnormalizer_processor", "action ("),
    ),
    "another_mode": (
        lambda folder: change_normalizer(folder, lambda step: step["config"]["norm_map"].update(STATE="IDENTITY"), PRE),
        ("STATE is normalised by IDENTITY here, but by MEAN_STD in config.json",),
    ),
    "another_mode_in_the_config": (
        lambda folder: change_json(
            folder / "config.json", lambda value: value["normalization_mapping"].update(ACTION="IDENTITY")
        ),
        ("ACTION is normalised by MEAN_STD here, but by IDENTITY in config.json",),
    ),
    "no_mode_of_lerobots": (
        lambda folder: change_normalizer(
            folder, lambda step: step["config"]["norm_map"].update(ACTION="Z_SCORE"), POST
        ),
        ("Z_SCORE, which lerobot does not have",),
    ),
    "quantiles_without_quantiles": (
        lambda folder: modes(folder, "QUANTILES"),
        (f"{STATE}.q01, {STATE}.q99", "action.q01, action.q99"),
    ),
    "bounds_without_bounds": (lambda folder: modes(folder, "MIN_MAX"), ("action.min, action.max",)),
    "state_left_out": (
        lambda folder: change_normalizer(folder, lambda step: step["config"]["features"].pop(STATE), PRE),
        (f"the normalising step leaves {STATE} out",),
    ),
    "state_not_among_those_named": (
        lambda folder: change_normalizer(
            folder, lambda step: step["config"].update(normalize_observation_keys=["observation.images.image"]), PRE
        ),
        (f"the normalising step leaves {STATE} out",),
    ),
    "state_taken_for_a_picture": (
        lambda folder: change_normalizer(
            folder, lambda step: step["config"]["features"][STATE].update(type="VISUAL"), PRE
        ),
        (f"{STATE} is VISUAL of 8 here, but STATE of 8 in config.json",),
    ),
    "shape_of_the_action": (
        lambda folder: change_statistics(folder, reshaped("action.std", 6)),
        ("action.std has the shape 6, but the feature has 7",),
    ),
    "one_number_for_all": (
        lambda folder: change_statistics(folder, reshaped(f"{STATE}.mean", 1), PRE),
        (f"{STATE}.mean has the shape 1, but the feature has 8",),
    ),
    "nan": (
        lambda folder: change_statistics(folder, number(f"{STATE}.mean", 2, 5, value=np.nan), PRE),
        (f"{STATE}.mean is not finite in dimension 2, 5",),
    ),
    "infinite": (
        lambda folder: change_statistics(folder, number("action.std", 6, value=np.inf)),
        ("action.std is not finite in dimension 6",),
    ),
    "negative": (
        lambda folder: change_statistics(folder, number("action.std", 0, value=-1)),
        ("action.std is negative in dimension 0",),
    ),
    "no_spread_of_the_action": (
        lambda folder: change_statistics(folder, number("action.std", *range(7), value=0), POST),
        ("action.std has no spread in dimension 0, 1, 2, 3, 4, 5, 6", "has no effect", f"{POST}:action.std"),
    ),
    "no_spread_of_the_state": (
        lambda folder: change_statistics(folder, number(f"{STATE}.std", 3, value=0)),
        (f"{STATE}.std has no spread in dimension 3", "a huge number", f"{PRE}:{STATE}.std"),
    ),
    "bounds_crossed": (
        both(
            lambda folder: modes(folder, "MIN_MAX"),
            lambda folder: bounds(folder, "min", "max"),
            lambda folder: change_statistics(folder, number("action.max", 1, value=-2)),
        ),
        ("action.max is below action.min in dimension 1",),
    ),
    "quantiles_equal": (
        both(
            lambda folder: modes(folder, "QUANTILES"),
            lambda folder: bounds(folder, "q01", "q99"),
            lambda folder: change_statistics(folder, number("action.q99", 4, value=-1)),
        ),
        ("action.q99 has no spread in dimension 4",),
    ),
    "two_datasets": (
        lambda folder: change_statistics(folder, number("action.mean", 1, value=0.5), POST),
        ("action.mean has other numbers here than in policy_preprocessor",),
    ),
    "frames_of_255": (
        lambda folder: change_statistics(folder, filled("observation.images.image.mean", 120), PRE),
        ("observation.images.image.mean", "describes frames from 0 to 255"),
    ),
    "epsilon": (
        lambda folder: change_normalizer(folder, lambda step: step["config"].update(eps=1.0)),
        ("eps is 1.0",),
    ),
    "old": (
        both(no_state_files, lambda folder: change_weights(folder, old_statistics)),
        ("are missing", "lerobot.processor.migrate_policy_normalization --pretrained-path"),
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_statistics_that_would_change_the_actions_are_named(act: Path, name: str) -> None:
    change, words = BROKEN[name]
    change(act)
    said = said_of(act)
    assert said and all(any(word in line for line in said) for word in words), said


def test_sound_statistics_are_read_without_a_word(act: Path) -> None:
    assert said_of(act) == []


@pytest.mark.parametrize(
    ("mode", "low", "high"), [("MIN_MAX", "min", "max"), ("QUANTILES", "q01", "q99"), ("QUANTILE10", "q10", "q90")]
)
def test_sound_statistics_of_every_mode_are_read_without_a_word(act: Path, mode: str, low: str, high: str) -> None:
    modes(act, mode)
    bounds(act, low, high)
    assert said_of(act) == []


def test_a_dimension_that_never_moved_is_trusted_by_name_alone(act: Path) -> None:
    change_statistics(act, number("action.std", 2, value=0))
    assert said_of(act, f"{POST}:action.mean") and said_of(act, f"{PRE}:action.std")
    assert said_of(act, f"{POST}:action.std") == []


def test_all_that_is_wrong_is_said_at_once(act: Path) -> None:
    change_statistics(act, number("action.std", 0, value=-1))
    change_statistics(act, number(f"{STATE}.std", 3, value=0), PRE)
    assert len(said_of(act)) == 2


# through the gates


def test_preflight_blocks_with_the_file_and_the_remedy_and_no_row_runs(ready: Made, tiny_act: Path) -> None:
    folder = ready.root / "checkpoints" / "fake"
    shutil.rmtree(folder)
    shutil.copytree(tiny_act, folder)
    change_statistics(folder, number("action.std", 1, value=0))
    with pytest.raises(TrackaError, match=r"action\.std has no spread in dimension 1"):
        ready.run_row("long_b1_e6")
    assert ready.started() == []
    ended = ready.call(*ready.preflight_words())
    assert ended.returncode == 1
    report = ready.layout.preflight_report.read_text()
    assert "statistics:checkpoints/fake" in report and "action.std has no spread in dimension 1" in report
    ready.configure(f'[security]\ntrusted = ["{POST}:action.std"]')
    assert "no spread" not in ready.call(*ready.preflight_words()).stdout
