"""Two hundred single faults in a sound checkpoint, drawn at random: none that changes the actions is accepted.

A fault is accepted where `tracka check` would pass. Then lerobot itself loads the checkpoint as lerobot-eval does and
acts on a fixed observation: it must act as the sound one does, or fail. What no check can find is left out of the draw
and named in docs/trust.md: other numbers in a tensor, and values of config.json that give no tensor another shape.
"""

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import numpy as np
import pytest
import small_policies
from campaigns import REPOSITORY
from checkpoints import POST, PRE, Arrays, change_json, change_statistics, change_weights

from tracka.campaign.campaign import Campaign, EvalSettings
from tracka.campaign.layout import Layout
from tracka.checkpoints import normalizer, policy_metadata, weights
from tracka.core.errors import TrackaError, without_warnings
from tracka.preflight import model_tensors, policy_features

SEED, FAULTS = 20261128, 200
SMALL = EvalSettings(observation_height=small_policies.SIDE, observation_width=small_policies.SIDE)
SETTINGS = {
    "act": EvalSettings(observation_height=128, observation_width=128),
    "tdmpc": replace(SMALL, rename_map={"observation.images.image": small_policies.CAMERAS["tdmpc"]}),
    "vqbet": SMALL,
}
COUNTS = [
    *(pytest.param(kind, FAULTS // 8) for kind in SETTINGS),
    *(pytest.param(kind, FAULTS, marks=pytest.mark.repeated) for kind in SETTINGS),  # minutes each
]
# Acts on one observation with each checkpoint, as lerobot-eval makes policies and processors.
ACT = """
import json, sys
import torch
from lerobot.configs import PreTrainedConfig
from lerobot.envs.configs import LiberoEnv
from lerobot.policies.factory import make_policy, make_pre_post_processors
for folder in json.loads(sys.argv[1]):
    try:
        config = PreTrainedConfig.from_pretrained(folder)
        config.pretrained_path, config.device = folder, "cpu"
        torch.manual_seed(0)
        side, renamed = int(sys.argv[2]), json.loads(sys.argv[3])
        policy = make_policy(config, env_cfg=LiberoEnv(), rename_map=renamed).eval()
        device = {"device_processor": {"device": "cpu"}}
        names = {"rename_observations_processor": {"rename_map": renamed}}
        before, after = make_pre_post_processors(
            policy_cfg=config, pretrained_path=folder, preprocessor_overrides=device | names
        )
        torch.manual_seed(1)
        frames = {f"observation.images.{name}": torch.rand(1, 3, side, side) for name in ("image", "image2")}
        seen = before(frames | {"observation.state": torch.rand(1, 8), "task": [""]})
        with torch.no_grad():
            said = {"action": after(policy.select_action(seen)).tolist()}
    except BaseException as error:
        said = {"error": f"{type(error).__name__}: {error}"[:200]}
    print(json.dumps({"folder": folder, **said}))
"""
Fault = Callable[[Path, random.Random], str]


def _array(arrays: Arrays, chance: random.Random) -> tuple[Arrays, str]:
    """One array renamed, taken away, doubled, or given another shape or type."""
    name = chance.choice(sorted(arrays))
    value, rest = arrays[name], {key: item for key, item in arrays.items() if key != name}
    made: dict[str, Arrays] = {
        "renamed": rest | {f"{name}x": value},
        "prefixed": rest | {f"module.{name}": value},
        "gone": rest,
        "doubled": arrays | {f"{name}.copy": value},
        "cut": rest | {name: value[:-1] if value.ndim and len(value) > 1 else np.zeros((2, 2), value.dtype)},
        "longer": rest | {name: np.concatenate([value, value]) if value.ndim else np.zeros(2, value.dtype)},
        "flat": rest | {name: value.reshape(1, *value.shape)},
        "integers": rest | {name: value.astype(np.int64 if value.dtype == np.float32 else np.float32)},
    }
    how = chance.choice(sorted(made))
    return made[how], f"{name} {how}"


def of_weights(folder: Path, chance: random.Random) -> str:
    said: list[str] = []

    def change(arrays: Arrays) -> Arrays:
        changed, what = _array(arrays, chance)
        said.append(what)
        return changed

    change_weights(folder, change)
    return f"weights: {said[0]}"


def of_statistics(folder: Path, chance: random.Random) -> str:
    """The form of a statistic, or a number of it that cannot be one."""
    file, said = chance.choice([PRE, POST]), list[str]()

    def change(arrays: Arrays) -> Arrays:
        if chance.random() < 0.5:
            changed, what = _array(arrays, chance)
        else:
            name = chance.choice(sorted(arrays))
            number = chance.choice([np.nan, np.inf, -np.inf] + ([0.0, -1.0] if name.endswith(".std") else []))
            value = arrays[name].copy()
            value.flat[chance.randrange(value.size)] = number
            changed, what = arrays | {name: value}, f"{name} has {number}"
        said.append(what)
        return changed

    change_statistics(folder, change, file)
    return f"{file}: {said[0]}"


def of_json(folder: Path, chance: random.Random) -> str:
    """One value of a processor's JSON, or of what config.json says of features and statistics."""
    file, said = chance.choice([PRE, POST, "config.json"]), list[str]()

    def change(value: Any) -> None:
        keys = ["input_features", "output_features", "normalization_mapping", "type"] if file == "config.json" else None
        places = [place for place in _places(value) if keys is None or place[0] in keys]
        place = chance.choice(places)
        inside = value
        for key in place[:-1]:
            inside = inside[key]
        old = inside[place[-1]]
        if chance.random() < 0.3 and isinstance(inside, dict):
            del inside[place[-1]]
            said.append(f"{place} is gone")
        else:
            inside[place[-1]] = _another(old, chance)
            said.append(f"{place}: {old} -> {inside[place[-1]]}")

    change_json(folder / file, change)
    return f"{file}: {said[0]}"


def _places(value: Any, before: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The keys to every value that is no table and no list."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    leaf = [] if isinstance(value, dict | list) else [before]
    return leaf + [place for key, item in inside for place in _places(item, (*before, key))]


def _another(value: Any, chance: random.Random) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return chance.choice([value + 1, -value, value * 1000])
    if isinstance(value, str):
        others = ["IDENTITY", "MIN_MAX", "STATE", "VISUAL", "ACTION", f"{value}x", value[:-1]]
        return chance.choice([other for other in others if other != value])
    return "something"


FAULTS_OF: tuple[Fault, ...] = (of_weights, of_statistics, of_json)


def refused(folder: Path, models: dict[str, str], settings: EvalSettings) -> bool:
    """Whether preflight would refuse it."""
    try:
        weights.require(folder, folder.parent)
        normalizer.require(folder, settings)
        found = without_warnings(
            policy_features.compare(
                policy_metadata.read(folder, settings), policy_features.environment_features(settings)
            )
        )
    except TrackaError:
        return True
    return bool(found) or models.get(str(folder)) == "fail"


@pytest.fixture
def sound_checkpoint(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The checkpoint of this kind that the faults are put into."""
    if kind == "act":
        return Path(request.getfixturevalue("tiny_act"))
    command = [sys.executable, small_policies.__file__, str(tmp_path / "sound"), kind]
    subprocess.run(command, check=True, cwd=REPOSITORY, capture_output=True)
    return tmp_path / "sound" / kind


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("kind", "count"), COUNTS)
def test_no_single_fault_that_changes_the_actions_is_accepted(
    kind: str, count: int, sound_checkpoint: Path, tmp_path: Path
) -> None:
    assert not refused(sound_checkpoint, {}, SETTINGS[kind])
    chance, told = random.Random(SEED), dict[str, str]()
    for number in range(count):
        folder = Path(shutil.copytree(sound_checkpoint, tmp_path / f"{number:03}"))
        told[str(folder)] = FAULTS_OF[number % len(FAULTS_OF)](folder, chance)
    spec = Campaign(Layout(tmp_path), (), "", 0)
    (tmp_path / "logs").mkdir()
    checks = model_tensors.checks(spec, list(told), tmp_path / "logs")
    models = {check.name.removeprefix("model:"): check.status for check in checks}
    accepted = [name for name in told if not refused(Path(name), models, SETTINGS[kind])]
    sound, *others = actions([str(sound_checkpoint), *accepted], SETTINGS[kind])
    assert "action" in sound
    changed = {
        told[name]: said for name, said in zip(accepted, others, strict=True) if said not in (sound, {"error": ANY})
    }
    same = others.count(sound)
    ends = len(accepted) - same
    print(f"{kind}: of {count} faults {count - len(accepted)} are refused, {same} change no action, {ends} end the row")
    assert changed == {} and len(accepted) < count / 2 and same


def actions(folders: list[str], settings: EvalSettings) -> list[dict[str, Any]]:
    """What lerobot does with each checkpoint: its action, or the error that it ends with."""
    words = [str(settings.observation_height), json.dumps(dict(settings.rename_map))]
    ended = subprocess.run(
        [sys.executable, "-c", ACT, json.dumps(folders), *words],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},  # others compute beside
    )
    told = [json.loads(line) for line in ended.stdout.splitlines() if line.startswith('{"folder"')]
    return [{key: value for key, value in each.items() if key != "folder"} for each in told]
