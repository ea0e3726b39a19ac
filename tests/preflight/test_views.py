"""Which camera of LIBERO feeds which input of a policy: not another than it was made for, without a word."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from campaigns import Made
from checkpoints import change_json

from tracka.campaign.campaign import EvalSettings
from tracka.checkpoints import policy_metadata
from tracka.core import files
from tracka.preflight import camera_views, policy_features
from tracka.reporting import report

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


def turned(folder: Path) -> None:
    """Gives the preprocessor LIBERO's own step, which turns frames."""
    change_json(
        folder / "policy_preprocessor.json",
        lambda value: value["steps"].insert(0, {"registry_name": "libero_processor", "config": {}}),
    )


def settings(names: Mapping[str, str] | None = None, mapping: Mapping[str, str] | None = None) -> EvalSettings:
    flags = {"env.camera_name_mapping": json.dumps(mapping)} if mapping else {}
    return EvalSettings(rename_map=dict(names or {}), flags=flags, observation_height=128, observation_width=128)


def said_of(folder: Path, under: EvalSettings) -> list[str]:
    return [
        str(finding)
        for finding in policy_features.compare(
            policy_metadata.read(folder, under), policy_features.environment_features(under)
        )
    ]


WRONG = {
    "saved_swap": (saved(SWAPPED), settings(), "by the rename_map that the checkpoint was saved with"),
    "campaigns_swap": (saved({}), settings(SWAPPED), "Remove this camera from rename_map"),
    "swap_of_names_in_the_simulator": (saved({}), settings(mapping=MAPPING), "feeds the policy's"),
    "both_on_one": (saved({}), settings({HAND: TABLE}), "robot0_eye_in_hand_image feeds the policy's"),
    "saved_swap_undone_twice": (saved(SWAPPED), settings(SWAPPED, MAPPING), "saved with"),
}
WRONG["turned_twice"] = (turned, settings(), "frames are rotated twice")
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


# the table of views

PICTURES = {"agentview_image": "frame_egl.png", "robot0_eye_in_hand_image": "frame_egl_hand.png"}


def test_each_camera_stands_in_the_table_with_what_it_feeds_and_a_picture(made: Made) -> None:
    features = {HAND: {"type": "VISUAL", "shape": [3, 128, 128]}, TABLE: {"type": "VISUAL", "shape": [3, 128, 128]}}
    change_json(made.root / "checkpoints" / "fake" / "config.json", lambda value: value.update(input_features=features))
    made.configure("[rows.wide_b4_e4]\nobservation_height = 128\nobservation_width = 128")
    made.configure(f'[rows.wide_b4_e4.rename_map]\n"{HAND}" = "observation.images.wrist"')
    seen = [
        (each.rows, each.camera, each.input, each.size, each.picture)
        for each in camera_views.views(made.spec, "checkpoints/fake", PICTURES)
    ]
    usual = ("baseline_b1_e2", "long_b1_e6")
    assert seen == [
        (usual, "agentview_image", TABLE, "360 x 360", "frame_egl.png"),
        (usual, "robot0_eye_in_hand_image", HAND, "360 x 360", "frame_egl_hand.png"),
        (("wide_b4_e4",), "agentview_image", TABLE, "128 x 128", "frame_egl.png"),
        (("wide_b4_e4",), "robot0_eye_in_hand_image", None, "128 x 128", "frame_egl_hand.png"),
    ]


def test_the_table_and_its_pictures_are_in_the_report_and_on_the_page(ready: Made) -> None:
    views = files.read_json(ready.layout.preflight_report)["views"]
    assert [(each["camera"], each["picture"]) for each in views] == [*PICTURES.items()]
    report.write(ready.spec)
    page = ready.layout.results.read_text()
    for name in PICTURES.values():
        assert f"artifacts/preflight/{name}" in page and (ready.layout.preflight / name).is_file()
