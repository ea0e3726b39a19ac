"""The policies whose outcome is known beforehand: the plug-in lerobot_policy_replay, the builders of its checkpoints.

They meet lerobot's own factories here, and the observations are stored ones: no simulator runs.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from campaigns import REPOSITORY
from lerobot.configs import PreTrainedConfig
from lerobot.envs.configs import LiberoEnv
from lerobot.policies.factory import make_policy, make_pre_post_processors
from lerobot_policy_replay import modeling_faulty
from lerobot_policy_replay.configuration_faulty import FaultyConfig
from lerobot_policy_replay.configuration_replay import CAMERA, WRIST, ReplayConfig
from lerobot_policy_replay.modeling_faulty import FaultyPolicy
from lerobot_policy_replay.modeling_replay import NOTHING, ReplayPolicy
from lerobot_policy_replay.recognition import (
    NONE,
    PICTURE_NEAR,
    STATE_NEAR,
    distances,
    first_look,
    recognise,
    thumbnails,
)
from safetensors import safe_open
from torch import Tensor

from fixtures import faulty, replay
from fixtures.demonstrations import store
from fixtures.demonstrations.store import Demonstration

SUITES = {suite: list(store.load(suite).values()) for suite in store.SUITES}
OBJECT = SUITES["libero_object"]
STATE = "observation.state"
IDLE = np.array(NOTHING, np.float32) / np.float32(127)
FAULT_STEP = 3
# What lerobot-eval does with a checkpoint, in a process that has not heard of the plug-in. Ends in the middle of an
# episode; says what it loaded, and how much memory it had before the last step and at most.
PLAY = """
import json, re, sys
from pathlib import Path
from lerobot.utils.import_utils import register_third_party_plugins
register_third_party_plugins()
import torch
from lerobot.configs import PreTrainedConfig
from lerobot.envs.configs import LiberoEnv
from lerobot.policies.factory import get_policy_class, make_policy, make_pre_post_processors

def mebibytes(name):
    return int(re.search(name + r":\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024

folder, steps = sys.argv[1], int(sys.argv[2])
config = PreTrainedConfig.from_pretrained(folder)
config.pretrained_path = folder
policy = make_policy(config, env_cfg=LiberoEnv(task="libero_object", observation_height=128, observation_width=128))
before, after = make_pre_post_processors(config, pretrained_path=folder)
batch = {f"observation.images.{name}": torch.zeros(1, 3, 128, 128) for name in ("image", "image2")}
batch["observation.state"] = torch.zeros(1, 8)
policy.reset()
for _ in range(steps):
    after(policy.select_action(before(dict(batch))))
known = {name: get_policy_class(name).__name__ for name in PreTrainedConfig.get_known_choices() if name in sys.argv[3:]}
print(json.dumps({"policy": type(policy).__name__, "known": known, "before": mebibytes("VmSize")}), flush=True)
try:
    after(policy.select_action(before(dict(batch))))
finally:
    print(json.dumps({"at_most": mebibytes("VmPeak")}), flush=True)
"""


def looks(ones: Sequence[Demonstration]) -> tuple[Tensor, Tensor]:
    """Stored states of shape (n, 8) and thumbnails of shape (n, 3, 16, 16)."""
    bytes_ = bytearray(b"".join(one.thumbnail for one in ones))
    return torch.tensor([one.state for one in ones]), torch.frombuffer(bytes_, dtype=torch.uint8).view(-1, 3, 16, 16)


def observations(ones: Sequence[Demonstration], pixels: int = 128) -> dict[str, Tensor]:
    """A batch with each demonstration's first observation: its thumbnail is blown up, the wrist sees nothing."""
    states, small = looks(ones)
    large = torch.nn.functional.interpolate(small.float() / 255, size=(pixels, pixels), mode="nearest")
    return {STATE: states, CAMERA: large, WRIST: torch.zeros_like(large)}


def in_words(ones: Sequence[Demonstration]) -> list[tuple[str, int]]:
    return [(one.name, one.init_state) for one in ones]


Play = Callable[[dict[str, Tensor], int], np.ndarray]


def player(folder: Path, **overrides: object) -> tuple[Any, Play]:
    """A checkpoint's policy as lerobot-eval loads it, and a function that takes this many of its actions.

    The function's result has the shape (steps, batch, 7).
    """
    words = [f"--{name}={value}" for name, value in overrides.items()]
    config = PreTrainedConfig.from_pretrained(folder, cli_overrides=words)
    config.pretrained_path = folder
    settings = LiberoEnv(task="libero_object", observation_height=128, observation_width=128)
    policy = make_policy(config, env_cfg=settings)
    before, after = make_pre_post_processors(config, pretrained_path=str(folder))

    def play(batch: dict[str, Tensor], steps: int) -> np.ndarray:
        taken = [after(policy.select_action(before(dict(batch)))).numpy() for _ in range(steps)]
        return np.stack(taken)

    return policy, play


def expected(ones: Sequence[Demonstration | None], steps: int) -> np.ndarray:
    """The demonstrations' actions, then nothing; None does nothing. Shape (steps, batch, 7)."""
    wanted = np.tile(IDLE, (steps, len(ones), 1))
    for slot, one in enumerate(ones):
        if one is not None:
            played = one.floats()[:steps]
            wanted[: len(played), slot] = played
    return wanted


def built(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@contextmanager
def child(*words: object) -> Iterator[subprocess.Popen[str]]:
    """Python on these words, ended with the block."""
    command = [sys.executable, *map(str, words)]
    process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def every(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of all demonstrations."""
    folder = tmp_path_factory.mktemp("checkpoints") / "all"
    replay.build(folder, ["all"])
    return folder


@pytest.fixture(scope="module")
def some(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of the first three init states of libero_object's first two tasks."""
    folder = tmp_path_factory.mktemp("checkpoints") / "some"
    replay.build(folder, ["libero_object/0,1:0-2"])
    return folder


KNOWN = [one for one in OBJECT if one.task < 2 and one.init_state < 3]
UNKNOWN = [one for one in OBJECT if one not in KNOWN]


# checkpoints


@pytest.mark.slow
def test_lerobot_discovers_both_policies_and_loads_a_checkpoint(some: Path) -> None:
    with child("-c", PLAY, some, 1, "replay", "faulty") as process:
        said, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    told = json.loads(said.splitlines()[-2])
    assert (told["policy"], told["known"]) == ("ReplayPolicy", {"replay": "ReplayPolicy", "faulty": "FaultyPolicy"})


def test_a_saved_policy_is_loaded_with_equal_buffers_and_config(every: Path, tmp_path: Path) -> None:
    first = ReplayPolicy.from_pretrained(every)
    first.save_pretrained(tmp_path / "again")
    second = ReplayPolicy.from_pretrained(tmp_path / "again")
    assert first.config == second.config
    assert dict(first.named_buffers()).keys() == {"states", "thumbnails", "actions", "nothing"}
    for name, tensor in first.named_buffers():
        other = second.get_buffer(name)
        assert tensor.dtype == other.dtype and torch.equal(tensor, other), name
    assert (first.config.episodes, len(first.states)) == (sum(map(len, SUITES.values())),) * 2


TURNED = ["libero_object/1:0-2", "libero_object/0:0-2"]  # the choices of `some` in another order


def test_the_same_choices_give_the_same_bytes_in_any_order(some: Path, tmp_path: Path) -> None:
    replay.build(tmp_path / "again", TURNED)
    assert built(tmp_path / "again") == built(some)


@pytest.mark.slow
def test_the_same_choices_give_the_same_bytes_in_any_process_and_order(some: Path, tmp_path: Path) -> None:
    with child(REPOSITORY / "fixtures" / "replay.py", tmp_path / "again", *TURNED) as process:
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert built(tmp_path / "again") == built(some)


def test_a_checkpoint_is_json_and_safetensors_alone(every: Path) -> None:
    files = sorted(every.iterdir())
    assert {path.name for path in files} >= {
        "config.json",
        "model.safetensors",
        "policy_preprocessor.json",
        "policy_postprocessor.json",
    }
    for path in files:
        if path.suffix == ".json":
            json.loads(path.read_text())
        else:
            assert path.suffix == ".safetensors"
            with safe_open(path, "pt") as opened:
                opened.keys()


def test_a_policy_has_nothing_to_train(some: Path) -> None:
    policy, _ = player(some)
    assert (list(policy.parameters()), policy.get_optim_params()) == ([], {})
    with pytest.raises(NotImplementedError, match="nothing to learn"):
        policy.forward({})


def test_a_chunk_of_no_actions_is_refused() -> None:
    with pytest.raises(ValueError, match="n_action_steps is 0"):
        ReplayConfig(n_action_steps=0)


@pytest.mark.parametrize("key", [CAMERA, STATE])
def test_inputs_without_what_an_episode_is_recognised_by_are_refused(key: str) -> None:
    config = ReplayConfig()
    config.validate_features()
    del config.input_features[key]
    with pytest.raises(ValueError, match=key):
        config.validate_features()


# choices


CHOICES: dict[str, Callable[[str, Demonstration], bool]] = {
    "none": lambda suite, one: False,
    "all": lambda suite, one: True,
    "none all none": lambda suite, one: True,
    "libero_10": lambda suite, one: suite == "libero_10",
    "libero_goal/0,2": lambda suite, one: suite == "libero_goal" and one.task in (0, 2),
    "libero_object/1-3:0,2": lambda suite, one: (
        suite == "libero_object" and one.task in (1, 2, 3) and one.init_state in (0, 2)
    ),
    "libero_goal:1": lambda suite, one: suite == "libero_goal" and one.init_state == 1,
    "libero_spatial/4 libero_object/7:0-3 libero_object/7:2-5,2 libero_spatial/4:0": lambda suite, one: (
        (suite, one.task) in {("libero_spatial", 4), ("libero_object", 7)} and (one.task == 4 or one.init_state < 6)
    ),
}


@pytest.mark.parametrize("words", CHOICES)
def test_choices_name_demonstrations_each_once_and_in_order(words: str) -> None:
    asked = [one for suite in sorted(SUITES) for one in SUITES[suite] if CHOICES[words](suite, one)]
    assert in_words(replay.chosen_demonstrations(words.split())) == in_words(asked)


@pytest.mark.parametrize(
    "choice",
    [
        *("", "everything", "libero", "libero_90", "libero_objects", "libero_object/", "libero_object:", "/0:1"),
        *("libero_object/a", "libero_object/0:b", "libero_object/0,,1", "libero_object/-1", "libero_object/1-2-3"),
        *("libero_object/3-1", "libero_object/0:3-1", "libero_object/0:50", "libero_object/10", "libero_object 0"),
        *("libero_goal/3", "libero_goal/2-4", "libero_10/9:0", "libero_spatial/4:3", "libero_goal:0,9"),
    ],
)
def test_a_choice_that_cannot_be_read_or_met_is_refused_by_its_name(choice: str) -> None:
    with pytest.raises(ValueError) as refused:
        replay.chosen_demonstrations(["libero_object/0", choice])
    assert repr(choice) in str(refused.value)


def test_a_refused_choice_leaves_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="libero_object/0:99"):
        replay.build(tmp_path / "refused", ["libero_object/0:99"])
    assert not (tmp_path / "refused").exists()


# recognition


def test_a_thumbnail_is_the_area_mean_in_any_size_of_picture() -> None:
    pictures = torch.zeros(2, 3, 64, 64)
    pictures[0, 1, :4, :2] = 1.0  # the left half of one of 16 x 16 fields
    pictures[1] = 1.0
    small = thumbnails(pictures)
    assert (small.dtype, small.shape, int(small[0, 1, 0, 0])) == (torch.uint8, (2, 3, 16, 16), 128)
    assert int(small[0].sum()) == 128 and bool((small[1] == 255).all())


@pytest.mark.parametrize("pixels", [128, 256])
@pytest.mark.parametrize("suite", store.SUITES)
def test_each_episode_is_recognised_as_itself_in_any_slot(every: Path, suite: str, pixels: int) -> None:
    policy = ReplayPolicy.from_pretrained(every)
    first = sum(len(SUITES[other]) for other in sorted(SUITES) if other < suite)
    ones = SUITES[suite]
    order = torch.randperm(len(ones), generator=torch.Generator().manual_seed(pixels))
    seen = first_look(observations([ones[index] for index in order.tolist()], pixels))
    assert torch.equal(recognise(seen, (policy.states, policy.thumbnails)), first + order)


@pytest.mark.parametrize("sign", [-1, 0, 1], ids=["darker", "mixed", "brighter"])
@pytest.mark.parametrize("suite", store.SUITES)
def test_noise_changes_no_recognition(suite: str, sign: int) -> None:
    """1e-5 in each number of the state, 2 of 255 levels in each pixel."""
    batch = observations(SUITES[suite], 32)
    chance = torch.Generator().manual_seed(7)
    for key, size in ((STATE, 1e-5), (CAMERA, 2 / 255)):
        signs = torch.randint(0, 2, batch[key].shape, generator=chance) * 2 - 1 if sign == 0 else sign
        batch[key] = batch[key] + size * signs
    batch[CAMERA] = batch[CAMERA].clamp(0, 1)
    assert torch.equal(recognise(first_look(batch), looks(SUITES[suite])), torch.arange(len(SUITES[suite])))


def test_an_episode_that_is_left_out_is_recognised_as_none() -> None:
    """Each of all suites, against all others of all suites."""
    states, pictures = looks([one for ones in SUITES.values() for one in ones])
    for index in range(len(states)):
        rest = torch.arange(len(states)) != index
        seen = states[index : index + 1], pictures[index : index + 1]
        assert recognise(seen, (states[rest], pictures[rest])).tolist() == [NONE], index


def test_any_two_episodes_differ_by_thrice_what_still_counts_as_near() -> None:
    states, pictures = looks([one for ones in SUITES.values() for one in ones])
    apart = distances((states, pictures), (states, pictures))
    far = (apart[0] / STATE_NEAR).maximum(apart[1] / PICTURE_NEAR)
    assert float(far.fill_diagonal_(torch.inf).min()) > 3


@pytest.mark.parametrize(("state", "picture"), [(2 * STATE_NEAR, 0.0), (0.0, PICTURE_NEAR + 2), (-1.0, 0.0)])
def test_state_and_picture_must_both_be_near(state: float, picture: float) -> None:
    batch = observations(OBJECT[:4], 32)
    assert float(batch[CAMERA].max()) < 1 - picture / 255 or picture == 0
    batch[STATE] = batch[STATE] + state
    batch[CAMERA] = batch[CAMERA] + picture / 255
    assert recognise(first_look(batch), looks(OBJECT[:4])).tolist() == [NONE] * 4


def test_where_nothing_is_stored_nothing_is_recognised() -> None:
    nothing = torch.zeros(0, 8), torch.zeros(0, 3, 16, 16, dtype=torch.uint8)
    assert recognise(looks(OBJECT[:3]), nothing).tolist() == [NONE] * 3


# actions


@pytest.mark.parametrize("chunk", [1, 7, 10, 50])
def test_a_recognised_episode_gets_its_actions_bit_for_bit_and_then_nothing(some: Path, chunk: int) -> None:
    policy, play = player(some, n_action_steps=chunk)
    steps = max(len(one.actions) for one in KNOWN) + 2 * chunk + 1
    policy.reset()
    taken = play(observations(KNOWN), steps)
    assert taken.dtype == np.float32
    assert taken.tobytes() == expected(KNOWN, steps).tobytes()


@pytest.mark.parametrize("chunk", [1, 7, 10, 50])
def test_a_chunk_has_as_many_actions_as_the_config_says(some: Path, chunk: int) -> None:
    policy, _ = player(some, n_action_steps=chunk)
    batch = observations(KNOWN[:2])
    policy.reset()
    chunks = [policy.predict_action_chunk(batch).numpy() for _ in range(3)]
    assert {part.shape for part in chunks} == {(2, chunk, 7)}
    assert np.concatenate(chunks, axis=1).swapaxes(0, 1).tobytes() == expected(KNOWN[:2], 3 * chunk).tobytes()


def test_only_the_first_observation_decides(some: Path) -> None:
    policy, play = player(some)
    policy.reset()
    first = play(observations(KNOWN[:1]), 1)
    later = play(observations(UNKNOWN[:1]), 40)
    assert np.concatenate([first, later]).tobytes() == expected(KNOWN[:1], 41).tobytes()


@pytest.mark.parametrize("taken", [1, 25, 300])
def test_a_reset_begins_anew_with_other_episodes_and_another_number_of_slots(some: Path, taken: int) -> None:
    policy, play = player(some)
    policy.reset()
    play(observations(KNOWN[:2]), taken)
    policy.reset()
    assert play(observations(KNOWN[2:5]), 130).tobytes() == expected(KNOWN[2:5], 130).tobytes()


def test_an_unknown_episode_gets_nothing_throughout(some: Path) -> None:
    policy, play = player(some)
    policy.reset()
    assert play(observations(UNKNOWN), 200).tobytes() == expected([None] * len(UNKNOWN), 200).tobytes()


def test_known_and_unknown_episodes_share_a_batch(some: Path) -> None:
    policy, play = player(some)
    ones = [UNKNOWN[0], KNOWN[4], UNKNOWN[40], KNOWN[0], KNOWN[4]]
    policy.reset()
    wanted = expected([None, KNOWN[4], None, KNOWN[0], KNOWN[4]], 150)
    assert play(observations(ones), 150).tobytes() == wanted.tobytes()


def test_a_checkpoint_of_none_does_nothing(tmp_path: Path) -> None:
    replay.build(tmp_path / "none", ["none"])
    policy, play = player(tmp_path / "none")
    policy.reset()
    assert play(observations(KNOWN[:3]), 30).tobytes() == expected([None] * 3, 30).tobytes()


# faults


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, int], Path]:
    """Builds a checkpoint with a fault at a control step."""
    root = tmp_path_factory.mktemp("faults")

    def build(fault: str, step: int) -> Path:
        folder = root / f"{fault}-{step}"
        if not folder.exists():
            faulty.build(folder, fault, step)
        return folder

    return build


FIRST = [one for one in OBJECT if one.task == 0]


@pytest.mark.parametrize("step", [0, 4, 10, 13])
def test_a_policy_raises_at_exactly_the_step_of_its_fault_in_every_rollout(
    broken: Callable[[str, int], Path], step: int
) -> None:
    policy, play = player(broken("exception", step))
    assert isinstance(policy, FaultyPolicy)
    for rollout in (FIRST[:2], FIRST[5:6]):
        policy.reset()
        if step:
            assert play(observations(rollout), step).tobytes() == expected(rollout, step).tobytes()
        with pytest.raises(ValueError, match=f"fails at control step {step}$"):
            play(observations(rollout), 1)


@pytest.mark.parametrize("step", [0, 12])
def test_a_policy_answers_nan_from_the_step_of_its_fault_on(broken: Callable[[str, int], Path], step: int) -> None:
    policy, play = player(broken("nan", step))
    policy.reset()
    taken = play(observations(FIRST[:2]), step + 15)
    assert taken[:step].tobytes() == expected(FIRST[:2], step).tobytes()
    assert np.isnan(taken[step:]).all()


@pytest.mark.slow
def test_a_policy_that_hoards_memory_ends_in_an_error_within_its_limit(broken: Callable[[str, int], Path]) -> None:
    with child("-c", PLAY, broken("memory", FAULT_STEP), FAULT_STEP) as process:
        said, errors = process.communicate(timeout=120)
    assert process.returncode == 1 and "can't allocate memory" in errors, errors
    told, ended = map(json.loads, said.splitlines()[-2:])
    assert 512 < ended["at_most"] - told["before"] < 1280  # MiB; the limit is 1024 above what was in use


class Ended(Exception):
    """What ends a policy in this process that would go on for ever."""


def until_ended(folder: Path) -> None:
    """Plays a policy up to its fault, and then until somebody ends it."""
    policy, play = player(folder)
    policy.reset()
    play(observations(FIRST[:1]), FAULT_STEP)
    with pytest.raises(Ended):
        play(observations(FIRST[:1]), 1)


def test_a_policy_sleeps_for_a_day_at_the_step_of_its_fault(
    broken: Callable[[str, int], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        raise Ended

    monkeypatch.setattr(modeling_faulty, "time", SimpleNamespace(sleep=sleep))
    until_ended(broken("sleep", FAULT_STEP))
    assert slept == [86400]


def test_a_policy_floods_from_the_step_of_its_fault_on(
    broken: Callable[[str, int], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    printed: list[str] = []

    def write(text: str) -> None:
        printed.append(text)
        if sum(map(len, printed)) > 8_000_000:
            raise Ended

    monkeypatch.setattr(modeling_faulty, "sys", SimpleNamespace(stdout=SimpleNamespace(write=write)))
    until_ended(broken("flood", FAULT_STEP))
    assert "".join(printed).count("a line that nobody asked for\n") > 250_000


@pytest.mark.slow
def test_a_policy_that_sleeps_does_so_until_it_is_ended(broken: Callable[[str, int], Path]) -> None:
    with child("-c", PLAY, broken("sleep", FAULT_STEP), FAULT_STEP) as process:
        said = ""
        while '"before"' not in said:
            said = process.stdout.readline()
            assert said, process.stderr.read()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=2)


@pytest.mark.slow
def test_a_policy_that_floods_prints_until_it_is_ended(broken: Callable[[str, int], Path]) -> None:
    with child("-c", PLAY, broken("flood", FAULT_STEP), FAULT_STEP) as process:
        said = process.stdout.read(8_000_000)
        assert process.poll() is None
    assert said.count("a line that nobody asked for\n") > 250_000
    assert said.index('"before"') < said.index("nobody asked")


@pytest.mark.parametrize("fault", ["", "crash", "NaN", "select_action"])
def test_an_unknown_fault_is_refused_and_leaves_no_checkpoint(tmp_path: Path, fault: str) -> None:
    with pytest.raises(ValueError, match=f"fault is '{fault}': give one of nan, exception, sleep, memory, flood"):
        FaultyConfig(fault=fault)
    with pytest.raises(ValueError, match="fault is"):
        faulty.build(tmp_path / "unknown", fault)
    assert not (tmp_path / "unknown").exists()
