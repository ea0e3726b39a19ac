"""Policies that take looks of several episodes in one call: what stands beside a look changes none of its numbers."""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from lerobot.configs import PreTrainedConfig
from lerobot.envs.configs import LiberoEnv
from lerobot.policies.pi0 import modeling_pi0
from lerobot.policies.pi05 import modeling_pi05

from fixtures import small_pi0
from tracka.engines.resident.episode import Episode, ObservationRequest
from tracka.engines.resident.player import PolicyRunner
from tracka.engines.resident.settings import ResidentConfig, ResidentSettings

SIDE, BATCH = 128, 3
SHORT, LONG = "open the drawer", "pick up the milk and place it in the basket"
OTHERS: Mapping[str, Callable[[int], dict[str, Any]]] = {
    "the same again": lambda number: {"seed": 0},
    "another observation": lambda number: {"seed": 5 + number},
    "another task": lambda number: {"seed": 5 + number, "task": 4, "words": SHORT},
    "a later chunk": lambda number: {"seed": 5 + number, "chunk": 3},
    "black frames": lambda number: {"seed": 5 + number, "light": 0},
}


def look(
    position: int, seed: int = 0, task: int = 0, chunk: int = 0, words: str = LONG, light: int = 255
) -> ObservationRequest:
    """A look at random pictures, at this place of a call."""
    random = np.random.RandomState(seed)
    pixels = {name: (random.randint(0, light + 1, (SIDE, SIDE, 3))).astype(np.uint8) for name in ("image", "image2")}
    numbers = {"eef": {"pos": 3, "quat": 4, "mat": (3, 3)}, "gripper": {"qpos": 2, "qvel": 2}}
    state = {
        part: {key: random.rand(*np.atleast_1d(size)) for key, size in sizes.items()} for part, sizes in numbers.items()
    }
    state["joints"] = {"pos": random.rand(7), "vel": random.rand(7)}
    episode = Episode("libero_object", task, BATCH * seed + position, 7 + seed, BATCH)
    return ObservationRequest(episode, chunk, words, {"pixels": pixels, "robot_state": state})


def player(folder: Path) -> PolicyRunner:
    policy = PreTrainedConfig.from_pretrained(folder)
    policy.pretrained_path, policy.device = folder, "cpu"
    if hasattr(policy, "num_inference_steps"):
        policy.num_inference_steps = 2
    cfg = SimpleNamespace(
        policy=policy,
        env=LiberoEnv(observation_height=SIDE, observation_width=SIDE),
        eval=SimpleNamespace(batch_size=BATCH),
        rename_map={},
        resident=ResidentSettings(),
    )
    return PolicyRunner(cast(ResidentConfig, cfg), 1)


@pytest.fixture(scope="module")
def player_of(tmp_path_factory: pytest.TempPathFactory, tiny_act: Path) -> Iterator[Callable[[str], PolicyRunner]]:
    """A player of each policy that mixes and that can be built small; pi0 and pi0.5 with the other way to pad too."""
    folder = tmp_path_factory.mktemp("mixing")
    with pytest.MonkeyPatch.context() as patch:
        for module in (modeling_pi0, modeling_pi05):
            small_pi0.put(patch, module)

        @cache
        def made(kind: str) -> Path:
            if kind == "act":
                return tiny_act
            name, _, padding = kind.partition("_")
            if not padding:
                small_pi0.build(folder / kind, kind, SIDE)
                return folder / kind
            path = Path(shutil.copytree(made(name), folder / kind)) / "policy_preprocessor.json"
            value = json.loads(path.read_text())
            for step in value["steps"]:
                if step["registry_name"] == "tokenizer_processor":
                    step["config"]["padding"] = padding
            path.write_text(json.dumps(value))
            return folder / kind

        yield cache(lambda kind: player(made(kind)))


USUAL = {("pi0", "another task"), ("pi05", "another observation"), ("pi0_longest", "another task")}
CASES = [
    pytest.param(kind, other, marks=[] if kind == "act" or (kind, other) in USUAL else pytest.mark.slow)
    for kind in ("act", "pi0", "pi05", "pi0_longest", "pi05_longest")
    for other in OTHERS
]


@pytest.mark.parametrize(("kind", "other"), CASES)
def test_a_look_has_the_same_actions_whoever_shares_its_call(
    player_of: Callable[[str], PolicyRunner], kind: str, other: str
) -> None:
    asked, mine = player_of(kind), look(1)
    alone = asked.mixed_actions([mine])[0]
    beside = [look(position, **OTHERS[other](position)) for position in (0, 2)]
    company = [mine, *(each for each in beside if asked.call_shapes(each) == asked.call_shapes(mine))]
    with torch.random.fork_rng():
        torch.manual_seed(99)
        shared = asked.mixed_actions(company)[0]
    assert asked.mode.mixing and np.array_equal(alone, shared)
    if not kind.endswith("longest"):
        assert len(company) == 3
    elif other == "another task":
        assert len(company) == 1


@pytest.mark.parametrize("kind", ["act", "pi0", "pi0_longest"])
def test_instructions_of_another_length_part_company_where_the_tokenizer_pads_to_the_longest_alone(
    player_of: Callable[[str], PolicyRunner], kind: str
) -> None:
    company = player_of(kind).call_shapes
    assert (company(look(0, words=SHORT)) != company(look(1, words=LONG))) == (kind == "pi0_longest")
