"""A checkpoint's file against the tensors that lerobot's class wants: the real classes and loaders, no weights read."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_policies
from campaigns import REPOSITORY, Made
from checkpoints import Arrays, change_json, change_weights, old_statistics

from tracka.campaign import campaign
from tracka.core import files
from tracka.core.check import Check
from tracka.execution import process
from tracka.preflight import model_tensors

HEAD, QUERY = "model.action_head.weight", "model.decoder_pos_embed.weight"
MATRIX = "baseline_b1_e1,libero_object,1,1,cpu,7,egl,checkpoints/good,1"


def on(change: Callable[[Arrays], Arrays]) -> Callable[[Path], None]:
    return lambda folder: change_weights(folder, change)


def config(**changed: object) -> Callable[[Path], None]:
    return lambda folder: change_json(folder / "config.json", lambda value: value.update(changed))


def step(name: str, **changed: object) -> Callable[[Path], None]:
    """Changes the preprocessor's step of this name."""

    def change(value: Any) -> None:
        next(each for each in value["steps"] if each.get("registry_name") == name).update(changed)

    return lambda folder: change_json(folder / "policy_preprocessor.json", change)


def without(name: str) -> Callable[[Arrays], Arrays]:
    return lambda arrays: {key: value for key, value in arrays.items() if key != name}


# What is done to a real ACT checkpoint, and what is said of it.
BROKEN: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "one_tensor_missing": (on(without(HEAD)), (f"1 of 142 tensors of the model are not in the file: {HEAD}",)),
    "no_tensor": (on(lambda arrays: {}), ("142 of 142 tensors of the model are not in the file",)),
    "of_another_prefix": (
        on(lambda arrays: {f"_orig_mod.{name}": value for name, value in arrays.items()}),
        ("142 of 142 tensors", "142 tensors of the file do not belong to the model: _orig_mod."),
    ),
    "one_renamed": (
        on(lambda arrays: {name.replace("action_head", "head"): value for name, value in arrays.items()}),
        ("2 of 142 tensors", HEAD, "model.head.weight"),
    ),
    "one_too_many": (
        on(lambda arrays: arrays | {"ema": arrays[HEAD]}),
        ("1 tensors of the file do not belong to the model: ema",),
    ),
    "statistics_left": (
        on(old_statistics),
        ("4 tensors of the file do not belong to the model: normalize_inputs.buffer_",),
    ),
    "another_shape": (
        on(lambda arrays: arrays | {HEAD: arrays[HEAD][:6]}),
        (f"{HEAD} has the shape 6 x 64 in the file, and 7 x 64 in the model",),
    ),
    "transposed": (on(lambda arrays: arrays | {QUERY: arrays[QUERY].T.copy()}), (f"{QUERY} has the shape",)),
    "whole_numbers": (
        on(lambda arrays: arrays | {HEAD: arrays[HEAD].astype(np.int32)}),
        (f"{HEAD} is of type torch.int32 in the file, and torch.float32 in the model",),
    ),
    "another_width": (config(dim_model=32), ("has the shape",)),
    "more_layers": (config(n_encoder_layers=2), ("tensors of the model are not in the file",)),
    "fewer_layers": (config(n_decoder_layers=0), ("tensors of the file do not belong to the model",)),
    "another_backbone": (config(vision_backbone="resnet34"), ("tensors of the model are not in the file",)),
    "an_encoder_more": (config(use_vae=True), ("tensors of the model are not in the file", "vae")),
    "unknown_field": (config(use_rabc=False), ("lerobot cannot read config.json", "use_rabc")),
    "unknown_type": (config(type="act2"), ("lerobot cannot read config.json", "act2")),
    "unknown_step": (
        step("normalizer_processor", registry_name="my_step"),
        ("lerobot cannot load the processors", "my_step"),
    ),
    "unknown_word_of_a_step": (
        step("normalizer_processor", config={"epsilon": 1}),
        ("lerobot cannot load the processors", "epsilon"),
    ),
    "no_device_step": (
        step("device_processor", registry_name="to_batch_processor", config={}),
        ("lerobot cannot load the processors", "device_processor"),
    ),
    "more_steps_than_a_chunk": (config(n_action_steps=51), ("lerobot cannot read config.json", "51", "chunk")),
}
# What changes a file, and no action.
SOUND: dict[str, Callable[[Path], object]] = {
    "good": lambda folder: None,
    "half_precision": on(lambda arrays: {name: _half(value) for name, value in arrays.items()}),
    "other_order": on(lambda arrays: dict(sorted(arrays.items(), reverse=True))),
    "backbones_weights_named": config(pretrained_backbone_weights="ResNet18_Weights.IMAGENET1K_V1"),
    "device": config(device="cuda"),
}


def _half(value: Any) -> Any:
    return value.astype(np.float16) if value.dtype == np.float32 else value


@pytest.fixture(scope="module")
def judged(tiny_act: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Check]:
    """The check of each of these checkpoints, by one process."""
    root = tmp_path_factory.mktemp("model")
    for name, change in {**{name: change for name, (change, _) in BROKEN.items()}, **SOUND}.items():
        change(Path(shutil.copytree(tiny_act, root / "checkpoints" / name)))
    spec = campaign_of(root, n_action_steps=None)
    names = [f"checkpoints/{name}" for name in (*BROKEN, *SOUND)]
    (root / "logs").mkdir()
    return {check.name.rpartition("/")[2]: check for check in model_tensors.checks(spec, names, root / "logs")}


def campaign_of(root: Path, n_action_steps: int | None) -> campaign.Campaign:
    """A campaign of the real lerobot-eval, whose one row may say how many steps of a chunk are played."""
    made = Made(root, {})
    layout = made.layout
    layout.matrix.parent.mkdir(parents=True, exist_ok=True)
    layout.matrix.write_text(f"{','.join(campaign.matrix.COLUMNS)}\n{MATRIX}\n")
    steps = f"\n[rows.baseline_b1_e1]\nn_action_steps = {n_action_steps}\n" if n_action_steps else ""
    layout.settings.write_text(
        f'schema_version = 1\nbaseline = "baseline_b1_e1"\nexpected_gpus = 0\n[lerobot_eval]\ntask_ids = [0]\n{steps}'
    )
    return made.spec


@pytest.mark.parametrize("name", BROKEN)
def test_a_file_that_is_not_the_models_fails_by_its_tensors(judged: dict[str, Check], name: str) -> None:
    check = judged[name]
    assert (check.status, check.required) == ("fail", True)
    assert [word for word in BROKEN[name][1] if word not in check.evidence] == [], check.evidence


@pytest.mark.parametrize("name", SOUND)
def test_a_file_that_is_the_models_passes_without_a_warning(judged: dict[str, Check], name: str) -> None:
    assert (judged[name].status, judged[name].evidence) == ("pass", "all 142 tensors of the model are in the file")


@pytest.mark.slow
def test_a_setting_of_the_campaign_that_the_policy_refuses_is_named(tiny_act: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_act, tmp_path / "checkpoints" / "good")
    (check,) = model_tensors.checks(campaign_of(tmp_path, n_action_steps=51), ["checkpoints/good"], tmp_path)
    assert (
        check.status == "fail" and "with --n_action_steps=51" in check.evidence and "campaign.toml" in str(check.remedy)
    )


def test_a_campaign_with_a_program_of_its_own_is_not_compared(made: Made, tmp_path: Path) -> None:
    (check,) = model_tensors.checks(made.spec, ["checkpoints/fake"], tmp_path)
    assert (check.status, check.evidence) == ("pass", model_tensors.OWN_PROGRAM)


def test_a_probe_that_ends_without_an_answer_is_a_warning(
    tiny_act: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tiny_act, tmp_path / "checkpoints" / "good")
    files.write_text(tmp_path / "modules" / "lerobot" / "__init__.py", "raise SystemExit('no lerobot here')")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'modules'}:{REPOSITORY}")
    (check,) = model_tensors.checks(campaign_of(tmp_path, n_action_steps=None), ["checkpoints/good"], tmp_path)
    assert (check.status, check.required) == ("warn", False) and "exit code 1: no lerobot here" in check.evidence


# each type that can be built small


# What is done to a checkpoint of the replay policy, a plug-in whose weights are buffers, and what is said of it.
REPLAY: dict[str, tuple[Callable[[Path], object], str]] = {
    "good": (lambda folder: None, "all 4 tensors of the model are in the file"),
    "one_missing": (on(without("actions")), "1 of 4 tensors of the model are not in the file: actions"),
    "one_renamed": (
        on(lambda arrays: {name.replace("states", "positions"): value for name, value in arrays.items()}),
        "1 of 4 tensors of the model are not in the file: states",
    ),
    "one_too_many": (
        on(lambda arrays: arrays | {"ema": arrays["states"]}),
        "1 tensors of the file do not belong to the model",
    ),
    "another_shape": (on(lambda arrays: arrays | {"states": arrays["states"][:, :-1].copy()}), "states has the shape"),
    "another_type": (on(lambda arrays: arrays | {"states": arrays["states"].astype(np.int32)}), "states is of type"),
    "another_count": (config(episodes=2), "has the shape"),
    "unknown_field": (config(speed=2), "lerobot cannot read config.json"),
}


@pytest.mark.slow
def test_a_plug_ins_checkpoint_is_compared_like_any_other(tmp_path: Path) -> None:
    root = tmp_path / "campaign"
    command = [sys.executable, "fixtures/replay.py", str(tmp_path / "sound"), "libero_object/0:0"]
    subprocess.run(command, check=True, cwd=REPOSITORY, capture_output=True)
    for name, (change, _) in REPLAY.items():
        change(Path(shutil.copytree(tmp_path / "sound", root / "checkpoints" / name)))
    checks = model_tensors.checks(
        campaign_of(root, n_action_steps=None), [f"checkpoints/{name}" for name in REPLAY], tmp_path
    )
    for check, (name, (_, words)) in zip(checks, REPLAY.items(), strict=True):
        assert check.status == ("pass" if name == "good" else "fail") and words in check.evidence, check


@pytest.mark.slow
def test_what_each_small_type_saves_is_complete_and_what_it_lacks_is_found(tmp_path: Path) -> None:
    command = [sys.executable, small_policies.__file__, str(tmp_path), "tdmpc", "vqbet"]
    subprocess.run(command, check=True, cwd=REPOSITORY, capture_output=True)
    for kind in ("tdmpc", "vqbet"):
        cut = Path(shutil.copytree(tmp_path / kind, tmp_path / f"{kind}_cut"))
        change_weights(cut, lambda arrays: without(min(arrays))(arrays))
    asked = [{"folder": str(folder), "words": [], "processors": True} for folder in sorted(tmp_path.iterdir())]
    ended = subprocess.run(
        process.python("tracka.preflight.probes.model", json.dumps(asked)),
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
    )
    answers = {Path(answer["folder"]).name: answer for answer in map(json.loads, ended.stdout.splitlines())}
    for kind in ("tdmpc", "vqbet"):
        assert answers[kind] | {"folder": "", "wanted": 0} == answers[kind] | {
            "folder": "",
            "wanted": 0,
            **{
                "config": None,
                "error": None,
                "missing": [],
                "unused": [],
                "misshaped": {},
                "mistyped": {},
                "said": [],
                "processors": None,
            },
        }
        assert len(answers[f"{kind}_cut"]["missing"]) == 1
