"""Which camera of LIBERO feeds which input of a policy: not another than it was made for, without a word."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from checkpoints import change_json

from tracka import feature, policy
from tracka.campaign import EvalSettings

TABLE, HAND = "observation.images.image", "observation.images.image2"
SWAPPED = {TABLE: HAND, HAND: TABLE}
MAPPING = {"agentview_image": "image2", "robot0_eye_in_hand_image": "image"}


def saved(names: Mapping[str, str]) -> Callable[[Path], None]:
    """Gives the preprocessor the rename_map that the checkpoint was saved with."""

    def apply(folder: Path) -> None:
        change_json(folder / "policy_preprocessor.json", change)

    def change(value: dict[str, list[dict[str, dict[str, object]]]]) -> None:
        for step in value["steps"]:
            if step.get("registry_name") == "rename_observations_processor":  # type: ignore[comparison-overlap]
                step["config"]["rename_map"] = dict(names)

    return apply


def settings(names: Mapping[str, str] | None = None, mapping: Mapping[str, str] | None = None) -> EvalSettings:
    flags = {"env.camera_name_mapping": json.dumps(mapping)} if mapping else {}
    return EvalSettings(rename_map=dict(names or {}), flags=flags, observation_height=128, observation_width=128)


def said_of(folder: Path, under: EvalSettings) -> list[str]:
    return [str(finding) for finding in feature.compare(policy.read(folder, under), feature.given(under))]


WRONG = {
    "saved_swap": (saved(SWAPPED), settings(), "by the rename_map that the checkpoint was saved with"),
    "campaigns_swap": (saved({}), settings(SWAPPED), "No rename_map for it"),
    "swap_of_names_in_the_simulator": (saved({}), settings(mapping=MAPPING), "feeds the policy's"),
    "both_on_one": (saved({}), settings({HAND: TABLE}), "robot0_eye_in_hand_image feeds the policy's"),
    "saved_swap_undone_twice": (saved(SWAPPED), settings(SWAPPED, MAPPING), "saved with"),
}
RIGHT = {
    "plain": (saved({}), settings()),
    "saved_swap_kept": (saved(SWAPPED), settings(SWAPPED)),
    "swapped_twice": (saved({}), settings(SWAPPED, MAPPING)),
    "saved_with_names_of_a_dataset": (saved({"observation.images.front": TABLE}), settings()),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_camera_that_feeds_another_input_than_it_is_meant_for_is_an_error(act: Path, name: str) -> None:
    change, under, word = WRONG[name]
    change(act)
    said = said_of(act, under)
    assert said and all(line[:8] != "warning:" for line in said) and any(word in line for line in said), said


@pytest.mark.parametrize("name", RIGHT)
def test_cameras_that_feed_what_they_are_meant_for_need_no_word(act: Path, name: str) -> None:
    change, under = RIGHT[name]
    change(act)
    assert said_of(act, under) == []
