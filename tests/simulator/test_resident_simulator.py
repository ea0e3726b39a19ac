"""The resident simulator against lerobot's LiberoEnv, bit for bit; and against the recorded demonstrations.

TRACKA_RESIDENT=all takes every task of every suite and every demonstration, half an hour's work.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fixtures.demonstrations import store

pytestmark = [pytest.mark.simulator, pytest.mark.usefixtures("libero"), pytest.mark.timeout(600)]

ALL = os.environ.get("TRACKA_RESIDENT") == "all"
# In three of these the number of earlier resets changes where things stand, and one has a stove that shows whether it
# is on. Objects on the floor, on tables, in drawers; goals of contact, of containment, of joints.
TASKS = [("libero_object", 0), ("libero_spatial", 4), ("libero_goal", 7), ("libero_10", 8)]
USUAL = {("libero_goal", 7)}  # the one that is taken where all would take too long
EVERY = [(suite, task) for suite in store.SUITES for task in range(10)] if ALL else TASKS
SOME_DEMONSTRATIONS = {"libero_spatial": [2], "libero_object": [1], "libero_goal": [0, 7], "libero_10": [3, 5]}
EPISODES = ((1000, 3), (17, 1))  # seed and init state of a slot's first and second reset
STEPS = 6
SIDE = 64  # pixels
WAIT = 2  # settle steps, lerobot's are 10; robosuite draws in all of them
NAMES = ("lazy_rendering", "fast_step", "fast_reset")
Actions = NDArray[np.float32]


@dataclass(frozen=True)
class Seen:
    """What a reset or a step shows, and the state that it leaves, as bytes."""

    pictures: bytes
    state: bytes
    physics: bytes
    outcome: tuple[float, bool, bool] = (0.0, False, False)


@pytest.fixture(scope="module")
def reference(libero: None) -> Callable[[str, int], list[list[Seen]]]:
    """The episodes of one slot of lerobot's own environment, recorded once a task."""
    recorded: dict[tuple[str, int], list[list[Seen]]] = {}

    def episodes(suite: str, task: int) -> list[list[Seen]]:
        if (suite, task) not in recorded:
            recorded[suite, task] = record(suite, task)
        return recorded[suite, task]

    return episodes


@pytest.fixture(scope="module")
def shared(libero: None) -> Iterator[Callable[[str, int], Any]]:
    """Simulators with all speedups, one a task, for tests that let it be: what came before must not matter to it."""
    from tracka.engines.resident.simulator import Simulator

    made: dict[tuple[str, int], Simulator] = {}

    def simulator(suite: str, task: int) -> Simulator:
        if (suite, task) not in made:
            made[suite, task] = Simulator(slot(suite, task))
        return made[suite, task]

    yield simulator
    for each in made.values():
        each.close()


@pytest.fixture
def simulator_of(libero: None) -> Iterator[Callable[..., Any]]:
    """Makes simulators, and closes them when the test ends."""
    from tracka.engines.resident.simulator import Simulator, Speedups

    made: list[Simulator] = []

    def make(suite: str, task: int, side: int = SIDE, wait: int = WAIT, **speedups: bool) -> Simulator:
        made.append(Simulator(slot(suite, task, side, wait), Speedups(**speedups)))
        return made[-1]

    yield make
    for each in made:
        each.close()


def slot(suite: str, task: int, side: int = SIDE, wait: int = WAIT) -> Any:
    from lerobot.envs.libero import LiberoEnv, _get_suite

    settings = {"observation_width": side, "observation_height": side, "num_steps_wait": wait}
    return LiberoEnv(_get_suite(suite), task, suite, obs_type="pixels_agent_pos", **settings)


def actions_of(episode: int) -> Actions:
    """Random ones that drift down, where things are to be touched; the gripper opens and closes."""
    actions = np.random.RandomState(episode).uniform(-1, 1, (STEPS, 7)).astype(np.float32)
    actions[:, 2] -= np.float32(0.3)
    return actions


def record(suite: str, task: int) -> list[list[Seen]]:
    env, episodes = slot(suite, task), []
    for episode, (seed, init_state) in enumerate(EPISODES):
        env.init_state_id = init_state
        observation, _ = env.reset(seed=seed)
        taken = [seen(env, observation)]
        for action in actions_of(episode):
            observation, reward, terminated, _, info = env.step(action)
            taken.append(seen(env, observation, (reward, bool(info["is_success"]), bool(terminated))))
        episodes.append(taken)
    env.close()
    return episodes


def seen(env: Any, observation: Any, outcome: tuple[float, bool, bool] = (0.0, False, False)) -> Seen:
    data = env._env.env.sim.data._data
    physics = np.concatenate([data.qpos, data.qvel, data.qacc_warmstart, data.ctrl, [data.time]])
    pictures, state = b"", b""
    if observation is not None:
        pictures = b"".join(np.ascontiguousarray(picture).tobytes() for picture in observation["pixels"].values())
        parts = [(group, name) for group, names in sorted(observation["robot_state"].items()) for name in sorted(names)]
        state = b"".join(observation["robot_state"][group][name].tobytes() for group, name in parts)
    return Seen(pictures, state, physics.tobytes(), outcome)


def steps_of(simulator: Any, episode: int, look: Callable[[int], bool] = lambda step: True) -> Iterator[Seen]:
    """One episode of `EPISODES` by a simulator; the observation is asked for after the steps that `look` names."""
    seed, init_state = EPISODES[episode]
    yield seen(simulator._env, simulator.reset(seed, init_state, ordinal=episode))
    for step, action in enumerate(actions_of(episode)):
        taken = simulator.step(action, look(step))
        assert (taken.observation is not None) == look(step)
        yield seen(simulator._env, taken.observation, (taken.reward, taken.success, taken.done))


def assert_equal(taken: list[Seen], wanted: list[Seen]) -> None:
    """Equal in everything that was looked at."""
    assert len(taken) == len(wanted)
    for step, (one, other) in enumerate(zip(taken, wanted, strict=True)):
        assert one.physics == other.physics, f"another state after step {step}"
        assert one.outcome == other.outcome, f"another outcome of step {step}"
        assert one.state in (b"", other.state), f"another robot_state after step {step}"
        assert one.pictures in (b"", other.pictures), f"other pictures after step {step}"


REPEATED = [pytest.mark.slow, pytest.mark.repeated]  # `make parity` plays in three suites


def slow_but_for_some(tasks: Sequence[tuple[str, int]]) -> list[Any]:
    """Parameters for these tasks, of which all but the `USUAL` ones are slow."""
    return [pytest.param(*task, marks=[] if task in USUAL else pytest.mark.slow) for task in tasks]


# against lerobot


@pytest.mark.parametrize(
    ("suite", "task"),
    [pytest.param(*task, marks=[pytest.mark.slow] if task in USUAL else REPEATED) for task in EVERY],
)
def test_all_speedups_together_change_no_bit_whatever_came_before(
    suite: str, task: int, reference: Callable[..., Any], shared: Callable[..., Any], simulator_of: Callable[..., Any]
) -> None:
    simulator = (shared if (suite, task) in USUAL else simulator_of)(suite, task)
    assert simulator.fallbacks == ()
    for episode in (1, 0, 1):  # in no order that the reference could have
        taken = list(steps_of(simulator, episode, look=lambda step: step % 2 == 1))
        assert_equal(taken, reference(suite, task)[episode])


@pytest.mark.parametrize(
    ("name", "suite", "task"),
    [
        pytest.param("fast_step", "libero_goal", 7, marks=pytest.mark.slow),
        *(pytest.param(name, "libero_10", 8, marks=pytest.mark.slow) for name in ("none", *NAMES)),
    ],
)
def test_each_speedup_alone_changes_no_bit(
    name: str, suite: str, task: int, reference: Callable[..., Any], simulator_of: Callable[..., Any]
) -> None:
    simulator = simulator_of(suite, task, **{each: each == name for each in NAMES})
    taken = list(steps_of(simulator, 1, look=lambda step: step in (0, STEPS - 1)))
    assert_equal(taken, reference(suite, task)[1])


@pytest.mark.slow
def test_simulators_of_two_tasks_may_be_stepped_in_turn_and_closed(
    reference: Callable[..., Any], shared: Callable[..., Any], simulator_of: Callable[..., Any]
) -> None:
    soup, stove = simulator_of("libero_object", 0), shared("libero_goal", 7)
    first, second = steps_of(soup, 0), steps_of(stove, 1)
    both = list(zip(first, second, strict=True))
    assert_equal([one for one, _ in both], reference("libero_object", 0)[0])
    assert_equal([other for _, other in both], reference("libero_goal", 7)[1])
    soup.close()  # frees textures, and must free its own
    assert_equal(list(steps_of(stove, 0)), reference("libero_goal", 7)[0])
    again = simulator_of("libero_object", 0)
    assert_equal(list(steps_of(again, 1)), reference("libero_object", 0)[1])


@pytest.mark.slow
def test_the_frame_is_what_lerobot_renders_of_the_observation_looked_at_last(shared: Callable[..., Any]) -> None:
    simulator = shared("libero_goal", 7)
    simulator.reset(7, 0, 0)
    looked = simulator.step(actions_of(0)[0], observe=True).observation["pixels"]["image"]
    simulator.step(actions_of(0)[1], observe=False)
    assert simulator.frame().shape == (SIDE, SIDE, 3)
    assert np.array_equal(simulator.frame(), looked[::-1, ::-1]) and looked.any()


@pytest.mark.slow
def test_numbers_that_others_draw_from_numpy_are_theirs(simulator_of: Callable[..., Any]) -> None:
    np.random.seed(5)
    wanted = np.random.random(3)
    np.random.seed(5)
    simulator = simulator_of("libero_object", 0)
    drawn = [np.random.random()]
    simulator.reset(7, 0, 0)
    drawn.append(np.random.random())
    simulator.step(actions_of(0)[0], observe=False)
    assert [*drawn, np.random.random()] == wanted.tolist()


# the known answers


def demonstrated() -> list[Any]:
    stored = {(suite, one.task) for suite in store.SUITES for one in store.load(suite).values()}
    some = [(suite, task) for suite, tasks in SOME_DEMONSTRATIONS.items() for task in tasks]
    return sorted(stored) if ALL else slow_but_for_some(some)


def end_in_lerobots_environment(suite: str, task: int, one: store.Demonstration) -> str:
    """The hash of its state after the demonstration, on this host, whose BLAS may round unlike the recorder's."""
    from fixtures.demonstrations import verify

    with verify.blank_cameras():
        env = slot(suite, task, side=verify.PIXELS, wait=10)
        for _ in range(one.ordinal):
            env.reset(seed=0)
        env.init_state_id = one.init_state
        env.reset(seed=one.seed)
        _, end = verify.replay(env, one)
        env.close()
    return end


@pytest.mark.parametrize(("suite", "task"), demonstrated())
def test_demonstrations_succeed_at_the_stored_step_in_the_state_of_lerobots_environment(
    suite: str, task: int, simulator_of: Callable[..., Any]
) -> None:
    from fixtures.demonstrations.record import digest
    from fixtures.demonstrations.scene import state_of

    simulator = simulator_of(suite, task, side=16, wait=10)
    stored = [one for one in store.load(suite).values() if one.task == task]
    for one in stored if ALL else stored[-2:]:
        simulator.reset(one.seed, one.init_state, one.ordinal)
        taken = [simulator.step(action, observe=False).success for action in one.floats()[: one.success_step]]
        assert taken.index(True) + 1 == one.success_step == len(taken), one.key
        end = digest(state_of(simulator._env._env))
        assert end == one.end or end == end_in_lerobots_environment(suite, task, one), one.key


# where a speedup is of no use


def test_a_mujoco_whose_forward_leaves_traces_is_stepped_by_robosuite_and_named(
    monkeypatch: pytest.MonkeyPatch, simulator_of: Callable[..., Any]
) -> None:
    import mujoco

    forward = mujoco.mj_forward

    def leave_traces(model: Any, data: Any) -> None:
        forward(model, data)
        data.qacc_warmstart[:] += 1e-3

    monkeypatch.setattr(mujoco, "mj_forward", leave_traces)
    simulator = simulator_of("libero_object", 0, side=16, fast_step=True)
    assert simulator.fallbacks == (
        "fast_step is not used: mj_forward of MuJoCo 3.3.7 changes the state that it begins from",
    )
    simulator.reset(7, 0, 0)
    assert simulator.step(actions_of(0)[0], observe=False).observation is None


@pytest.fixture
def other_bits(monkeypatch: pytest.MonkeyPatch, simulator_of: Callable[..., Any]) -> Any:
    """A simulator of libero_goal's task 7 whose fast step is off by one bit."""
    from tracka.engines.resident import step

    run = step.kernel.run

    def nearly(arm: Any, goal: Any, *rest: Any) -> None:
        run(arm, np.nextafter(goal, np.inf), *rest)

    monkeypatch.setattr(step.kernel, "run", nearly)
    return simulator_of("libero_goal", 7)


def test_other_bits_than_robosuites_are_found_before_a_step_is_trusted(other_bits: Any) -> None:
    [reason] = other_bits.fallbacks
    assert (
        reason
        == "fast_step is not used: on this machine its states differ in some bits from those of robosuite's own step"
    )


@pytest.mark.slow
def test_where_a_speedup_is_not_used_the_episodes_are_lerobots(other_bits: Any, reference: Callable[..., Any]) -> None:
    assert_equal(list(steps_of(other_bits, 1)), reference("libero_goal", 7)[1])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"name": "JOINT_POSITION"}, "the controller is JOINT_POSITION, not OSC_POSE"),
        ({"impedance_mode": "variable_kp"}, "the controller's impedance is variable_kp, not fixed"),
        ({"interpolator_ori": object()}, "the controller interpolates between goals"),
        ({"uncoupling": False}, "the controller couples position and orientation"),
    ],
    ids=["name", "impedance", "interpolator", "coupled"],
)
def test_another_controller_is_named(change: dict[str, Any], reason: str) -> None:
    from tracka.engines.resident import step

    usual = {"name": "OSC_POSE", "impedance_mode": "fixed", "interpolator_pos": None, "interpolator_ori": None}
    assert step.controller_mismatch(SimpleNamespace(**usual, uncoupling=True)) is None
    assert step.controller_mismatch(SimpleNamespace(**{**usual, "uncoupling": True, **change})) == reason


def test_soft_resets_are_refused_because_episodes_would_depend_on_each_other() -> None:
    from tracka.engines.resident.simulator import Simulator

    env = slot("libero_object", 0)
    env.hard_reset = False
    with pytest.raises(ValueError, match="depends on the episodes before it"):
        Simulator(env)
