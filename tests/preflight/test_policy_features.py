"""Whether a policy takes what LIBERO gives: held against lerobot's own classes, and against its own answer."""

import json
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from campaigns import Made, fake_checkpoint

from tracka.campaign.campaign import EvalSettings
from tracka.core import files, lerobot_facts, lock
from tracka.core.check import Check
from tracka.preflight import policy_features

IMAGE, IMAGE2 = "observation.images.image", "observation.images.image2"
LIBERO = (IMAGE, IMAGE2)
OPENPI = tuple(f"observation.images.{name}" for name in ("base_0_rgb", "left_wrist_0_rgb", "right_wrist_0_rgb"))
NUMBERED = tuple(f"observation.images.camera{number}" for number in (1, 2, 3))
EMPTY = "observation.images.empty_camera_0"
RENAMED = dict(zip(LIBERO, OPENPI[:2], strict=True))
# name -> type, cameras, what the config says besides
CONFIGS: dict[str, tuple[str, Sequence[str], dict[str, Any]]] = {
    "act": ("act", LIBERO, {}),
    "act_one": ("act", (IMAGE,), {}),
    "act_three": ("act", (*LIBERO, "observation.images.image3"), {}),
    "act_other": ("act", NUMBERED[:2], {}),
    "act_wrist": ("act", ("observation.images.wrist",), {}),
    "pi0": ("pi0", LIBERO, {}),
    "pi0_empty": ("pi0", LIBERO, {"empty_cameras": 1}),
    "pi0_one_empty": ("pi0", (IMAGE,), {"empty_cameras": 1}),
    "pi0_openpi": ("pi0", OPENPI, {}),
    "pi05": ("pi05", LIBERO, {}),
    "pi05_openpi": ("pi05", OPENPI, {}),
    "evo1_empty": ("evo1", LIBERO, {"empty_cameras": 1}),
    "evo1_three": ("evo1", (*LIBERO, "observation.images.image3"), {}),
    "smolvla": ("smolvla", LIBERO, {}),
    "smolvla_three": ("smolvla", (*LIBERO, "observation.images.image3"), {}),
    "smolvla_numbered": ("smolvla", NUMBERED, {}),
    "smolvla_empty": ("smolvla", LIBERO, {"empty_cameras": 1}),
}
# Writes each config as lerobot does, and says what lerobot itself makes of it and of LIBERO.
LEROBOT = """
import json, sys
from pathlib import Path
import torch
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.envs.configs import LiberoEnv
from lerobot.envs.utils import env_to_policy_features, preprocess_observation
from lerobot.policies.factory import get_policy_class, make_policy_config
from lerobot.policies.utils import validate_visual_features_consistency
from lerobot.processor import LiberoProcessorStep

configs, folder = json.loads(sys.argv[1]), Path(sys.argv[2])
env = env_to_policy_features(LiberoEnv())
robot = {"eef": {"pos": torch.zeros(1, 3), "quat": torch.tensor([[0.0, 0, 0, 1]])}}
robot["gripper"] = {"qpos": torch.zeros(1, 2)}
seen = LiberoProcessorStep().observation({"observation.robot_state": robot})
said = {"env": {key: [item.type.value, list(item.shape)] for key, item in env.items()}, "refused": [],
        "state": list(seen["observation.state"].shape[1:]), "names": LiberoEnv().camera_name.split(",")}
for name, (kind, cameras, more) in configs.items():
    inputs = {key: PolicyFeature(FeatureType.VISUAL, (3, 360, 360)) for key in cameras}
    inputs["observation.state"] = PolicyFeature(FeatureType.STATE, (8,))
    outputs = {"action": PolicyFeature(FeatureType.ACTION, (7,))}
    config = make_policy_config(kind, input_features=inputs, output_features=outputs, device="cpu", **more)
    config.validate_features()
    (folder / name).mkdir(parents=True)
    config._save_pretrained(folder / name)
    try:
        validate_visual_features_consistency(config, env)
    except ValueError:
        said["refused"].append(name)

class Bare:
    # a policy without a network: what it makes of its frames needs none
    def __init__(self, config):
        self.config = config
    def eval(self):
        pass
    def parameters(self):
        yield torch.zeros(1)

said["frames"] = {}
for name, method in {"pi0_openpi": "_preprocess_images", "pi05_openpi": "_preprocess_images",
                     "smolvla_numbered": "prepare_images"}.items():
    kind, cameras, more = configs[name]
    inputs = {key: PolicyFeature(FeatureType.VISUAL, (3, 8, 8)) for key in cameras}
    config = make_policy_config(kind, input_features=inputs, device="cpu")
    images, _ = getattr(get_policy_class(kind), method)(Bare(config), {cameras[0]: torch.zeros(1, 3, 8, 8)})
    said["frames"][name] = len(images)
inputs = {key: PolicyFeature(FeatureType.VISUAL, (3, 8, 8)) for key in configs["act_three"][1]}
try:
    config = make_policy_config("act", input_features=inputs, device="cpu")
    batch = {key: torch.zeros(1, 3, 8, 8) for key in list(inputs)[:2]}
    get_policy_class("act").predict_action_chunk(Bare(config), batch)
except KeyError as error:
    said["lost"] = error.args[0]
Path(sys.argv[3]).write_text(json.dumps(said))
"""


@pytest.fixture(scope="session")
def lerobot(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> tuple[Path, dict[str, Any]]:
    """The configs as lerobot wrote them, by name, and what it says of each; made once for all workers."""
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "features"
    said = folder / "said.json"
    with lock.hold(folder.parent / "features.lock", "features", wait=True):
        if not said.exists():
            words = [sys.executable, "-c", LEROBOT, json.dumps(CONFIGS), str(folder), str(said)]
            ended = subprocess.run(words, capture_output=True, text=True)
            assert ended.returncode == 0, ended.stderr[-2000:]
    return folder, json.loads(said.read_text())


def place(made: Made, config: dict[str, Any]) -> Path:
    folder = made.root / "checkpoints" / "fake"
    fake_checkpoint(folder)
    files.write_json(folder / "config.json", config)
    return folder


def judge(made: Made, lerobot: tuple[Path, dict[str, Any]], name: str, **changed: Any) -> Check:
    """The check of one of the configs, with keys of it changed."""
    place(made, json.loads((lerobot[0] / name / "config.json").read_text()) | changed)
    return policy_features.check(made.spec, "checkpoints/fake")


@pytest.mark.slow
def test_what_we_know_of_libero_is_what_lerobot_says(lerobot: tuple[Path, dict[str, Any]]) -> None:
    env = policy_features.environment_features(EvalSettings())
    said = lerobot[1]["env"]
    assert {key: tuple(shape) for key, (kind, shape) in said.items() if kind == "VISUAL"} == env.cameras
    assert said["action"][1] == [env.dims["action"]] and lerobot[1]["state"] == [env.dims["observation.state"]]
    assert lerobot[1]["names"] == list(lerobot_facts.CAMERAS)


@pytest.mark.parametrize("name", CONFIGS)
def test_what_lerobot_eval_refuses_is_refused_here(made: Made, lerobot: tuple[Path, dict[str, Any]], name: str) -> None:
    check = judge(made, lerobot, name)
    ends_later = {
        "act_three",
        "evo1_three",
    }  # lerobot-eval compares too little: the row ends in its policy; of the ACT, the next test shows it
    assert (check.status == "fail") == (name in lerobot[1]["refused"] or name in ends_later)


def test_lerobot_refuses_some_its_vlas_go_on_with_fewer_cameras_and_its_act_does_not(
    lerobot: tuple[Path, dict[str, Any]],
) -> None:
    refused = {"act_other", "act_wrist", "pi0_one_empty", "pi0_openpi", "pi05_openpi", "smolvla_numbered"}
    assert set(lerobot[1]["refused"]) == refused
    assert lerobot[1]["lost"] == CONFIGS["act_three"][1][2]  # a KeyError, after it was let through
    assert lerobot[1]["frames"] == {"pi0_openpi": 3, "pi05_openpi": 3, "smolvla_numbered": 1}


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("act_other", dict(zip(LIBERO, NUMBERED[:2], strict=True))),
        ("act_wrist", {IMAGE2: "observation.images.wrist"}),
        ("pi0_openpi", RENAMED),
        ("pi05_openpi", RENAMED),
        ("smolvla_numbered", dict(zip(LIBERO, NUMBERED[:2], strict=True))),
        ("pi0_one_empty", {IMAGE: IMAGE}),  # nothing needs another name; the comparison is left out with any map
    ],
)
def test_the_suggested_rename_map_passes_when_it_is_pasted(
    made: Made, lerobot: tuple[Path, dict[str, Any]], name: str, names: dict[str, str]
) -> None:
    failed = judge(made, lerobot, name)
    assert failed.remedy is not None
    line = failed.remedy[failed.remedy.index("rename_map =") : failed.remedy.index(" below [lerobot_eval]")]
    assert tomllib.loads(line)["rename_map"] == names
    assert f"--rename_map='{json.dumps(names)}'" in failed.remedy
    settings = made.layout.settings
    settings.write_text(settings.read_text().replace("[lerobot_eval]", f"[lerobot_eval]\n{line}"))
    assert judge(made, lerobot, name).status == "pass"


def test_missing_and_superfluous_cameras_are_both_named(made: Made, lerobot: tuple[Path, dict[str, Any]]) -> None:
    check = judge(made, lerobot, "act_other")
    assert check.name == "features:checkpoints/fake"
    assert all(key in check.evidence.split("; LIBERO gives")[0] for key in NUMBERED[:2])
    assert all(key in check.evidence.split("; LIBERO gives")[1] for key in LIBERO)


def test_cameras_that_no_name_can_give_have_no_rename_map_suggested(
    made: Made, lerobot: tuple[Path, dict[str, Any]]
) -> None:
    remedy = judge(made, lerobot, "act_three").remedy or ""
    assert "no rename_map gives" in remedy and "rename_map =" not in remedy


def test_what_a_policy_does_without_is_said(made: Made, lerobot: tuple[Path, dict[str, Any]]) -> None:
    assert f"does not give {EMPTY}, which a pi0 can do without" in judge(made, lerobot, "pi0_empty").evidence
    assert f"the policy does not take {IMAGE2}" in judge(made, lerobot, "act_one").evidence


def test_the_rename_map_that_a_checkpoint_was_saved_with_is_suggested_since_lerobot_eval_replaces_it(
    made: Made, lerobot: tuple[Path, dict[str, Any]]
) -> None:
    judge(made, lerobot, "pi0_openpi")
    turned = dict(zip(LIBERO, reversed(OPENPI[:2]), strict=True))
    step = {"registry_name": "rename_observations_processor", "config": {"rename_map": turned}}
    files.write_json(made.root / "checkpoints" / "fake" / "policy_preprocessor.json", {"steps": [step]})
    check = policy_features.check(made.spec, "checkpoints/fake")
    assert check.status == "fail" and json.dumps(turned) in (check.remedy or "")


def shape(kind: str, *numbers: int) -> dict[str, Any]:
    return {"type": kind, "shape": list(numbers)}


def inputs(**more: Any) -> dict[str, Any]:
    """LIBERO's features, some in other shapes; `state` stands for observation.state."""
    known = {key: shape("VISUAL", 3, 360, 360) for key in LIBERO} | {"observation.state": shape("STATE", 8)}
    return known | {f"observation.{key}": value for key, value in more.items()}


@pytest.mark.parametrize(
    ("name", "changed", "status", "word"),
    [
        (
            "act",
            {"input_features": inputs(state=shape("STATE", 14))},
            "fail",
            "made for 14 numbers, but LIBERO's has 8",
        ),
        ("pi0", {"input_features": inputs(state=shape("STATE", 14))}, "fail", "made for 14 numbers"),
        ("pi0", {"input_features": inputs(state=shape("STATE", 32))}, "pass", "state 8"),
        ("pi05", {"output_features": {"action": shape("ACTION", 32)}}, "pass", "action 7"),
        ("act", {"output_features": {"action": shape("ACTION", 6)}}, "fail", "action is made for 6 numbers"),
        ("smolvla", {"max_action_dim": 6}, "fail", "has room for 6 numbers (max_action_dim)"),
        ("act", {"input_features": inputs(environment_state=shape("ENV", 2))}, "fail", "observation.environment_state"),
        ("act", {"input_features": {}}, "pass", "names no features"),
        ("act", {"input_features": ["image"]}, "fail", "not a table of features"),
        ("act", {"input_features": {IMAGE: {"shape": [3, 8, 8]}}}, "fail", "not a table of features"),
        (
            "act",
            {"type": "unseen", "input_features": inputs(**{"images.x": shape("VISUAL", 3, 8, 8)})},
            "warn",
            "it is not known whether",
        ),
        ("act", {"type": "unseen", "input_features": inputs(state=shape("STATE", 9))}, "warn", "made for 9 numbers"),
    ],
)
def test_shapes_are_compared_as_far_as_the_policys_type_is_known(
    made: Made, lerobot: tuple[Path, dict[str, Any]], name: str, changed: dict[str, Any], status: str, word: str
) -> None:
    check = judge(made, lerobot, name, **changed)
    assert (check.status, check.required) == (status, status != "warn")
    assert word in check.evidence


@pytest.mark.parametrize(("name", "status"), [("act", "warn"), ("pi0", "pass"), ("smolvla", "pass")])
def test_frames_of_another_size_are_warned_of_where_the_policy_does_not_resize(
    made: Made, lerobot: tuple[Path, dict[str, Any]], name: str, status: str
) -> None:
    small = inputs(**{"images.image": shape("VISUAL", 3, 128, 96), "images.image2": shape("VISUAL", 3, 128, 96)})
    check = judge(made, lerobot, name, input_features=small)
    assert check.status == status
    if status == "warn":
        assert "3 x 128 x 96" in check.evidence and "3 x 360 x 360" in check.evidence
        assert "observation_height = 128, observation_width = 96" in (check.remedy or "")
    settings = made.layout.settings
    size = "observation_height = 128\nobservation_width = 96"
    settings.write_text(settings.read_text().replace("[lerobot_eval]", f"[lerobot_eval]\n{size}"))
    assert policy_features.check(made.spec, "checkpoints/fake").status == "pass"


def test_each_row_is_compared_with_its_own_settings(made: Made, lerobot: tuple[Path, dict[str, Any]]) -> None:
    made.configure(f'[rows.long_b1_e6]\nrename_map = {{ "{IMAGE}" = "observation.images.front" }}')
    check = judge(made, lerobot, "act")
    assert check.status == "fail" and "(rows long_b1_e6)" in check.evidence and "baseline" not in check.evidence


@pytest.mark.parametrize(
    ("line", "name", "status", "word"),
    [
        ('"env.camera_name_mapping" = \'{"agentview_image": "camera1", "robot0_eye_in_hand_image": "camera2"}\'',
         "act_other", "pass", NUMBERED[0]),
        ('"env.camera_name_mapping" = "no json"', "act", "fail", "not a JSON object"),
        ('"env.obs_type" = "pixels"', "act", "fail", "wants observation.state"),
        ('"policy.empty_cameras" = 1', "pi0", "pass", EMPTY),
    ],
)  # fmt: skip
def test_flags_that_change_what_is_given_or_wanted_count(
    made: Made, lerobot: tuple[Path, dict[str, Any]], line: str, name: str, status: str, word: str
) -> None:
    made.configure(f"[lerobot_eval.flags]\n{line}")
    check = judge(made, lerobot, name)
    assert (check.status, word in check.evidence) == (status, True)


def test_a_name_that_libero_does_not_give_is_warned_of_in_a_rename_map(
    made: Made, lerobot: tuple[Path, dict[str, Any]]
) -> None:
    settings = made.layout.settings
    line = 'rename_map = { "observation.images.imagee" = "observation.images.image" }'
    settings.write_text(settings.read_text().replace("[lerobot_eval]", f"[lerobot_eval]\n{line}"))
    check = judge(made, lerobot, "act")
    assert check.status == "warn" and "observation.images.imagee" in check.evidence


def test_a_real_act_fits_at_the_size_it_was_made_for(made: Made, tiny_act: Path) -> None:
    path = str(tiny_act)
    assert policy_features.check(made.spec, path).status == "warn"
    size = "observation_height = 128\nobservation_width = 128"
    settings = made.layout.settings
    settings.write_text(settings.read_text().replace("[lerobot_eval]", f"[lerobot_eval]\n{size}"))
    check = policy_features.check(made.spec, path)
    assert check.status == "pass" and "observation.images.image2 (3 x 128 x 128)" in check.evidence


@pytest.mark.parametrize(
    ("file", "key"), [("policy_preprocessor", "observation.state"), ("policy_postprocessor", "action")]
)
def test_statistics_of_another_robot_are_found_in_the_headers_of_a_real_checkpoint(
    made: Made, tiny_act: Path, file: str, key: str
) -> None:
    folder = made.root / "checkpoints" / "fake"
    for path in tiny_act.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    (states,) = folder.glob(f"{file}*.safetensors")
    header = json.dumps({f"{key}.mean": {"dtype": "F32", "shape": [14], "data_offsets": [0, 56]}}).encode()
    states.write_bytes(len(header).to_bytes(8, "little") + header + bytes(56))
    check = policy_features.check(made.spec, "checkpoints/fake")
    assert check.status == "fail" and f"{key} is normalised by 14 numbers" in check.evidence


def test_preflight_says_blocked_and_names_the_rename_map(made: Made, lerobot: tuple[Path, dict[str, Any]]) -> None:
    place(made, json.loads((lerobot[0] / "act_other" / "config.json").read_text()))
    ended = made.call(*made.preflight_words())
    assert ended.returncode == 1 and "fail  features:checkpoints/fake" in ended.stdout
    report = json.loads(made.layout.preflight_report.read_text())
    assert report["status"] == "blocked" and "features:checkpoints/fake" in report["blocker"]
