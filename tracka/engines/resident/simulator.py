"""One of lerobot's LIBERO environments, made quicker, bit for bit the same.

A `Simulator` takes the place of any environment in lerobot-eval's vector environment: `reset` names the seed, the init
state and how many resets that environment has had, and the episode is then the one that lerobot-eval plays there. Many
simulators may live in one process and be stepped in turn.
"""

import contextlib
import socket
from dataclasses import dataclass
from typing import Any

import numpy as np
from lerobot.envs.libero import LiberoEnv, get_libero_dummy_action
from numpy.typing import NDArray

from . import camera, graphics, remote_graphics, step
from .camera import Image, RenderGate
from .channel import Channel
from .episode import Task
from .goal import Goal
from .reset import Arrays, Resetter, own_random_numbers, record_model
from .step import FastStep, LiberoObservation
from .turn import Turn


@dataclass(frozen=True)
class Speedups:
    """Says which parts may run quicker than in lerobot. Each of them alone changes no bit of what is returned."""

    lazy_rendering: bool = True
    fast_step: bool = True
    fast_reset: bool = True


@dataclass(frozen=True)
class StepResult:
    """The result of a control step: `observation` is None unless requested, `done` is LiberoEnv's `terminated`."""

    observation: LiberoObservation | None
    reward: float
    success: bool
    done: bool


class Simulator:
    """A LiberoEnv whose episodes can be played in any order.

    `fallbacks` has one sentence for each speedup that was asked for and cannot be used here.
    """

    def __init__(self, env: LiberoEnv, speedups: Speedups | None = None, opens_graphics: bool = True) -> None:
        """Builds `env`, which must not have been used before. No picture is drawn meanwhile.

        Without `opens_graphics`, `open_graphics` must be called before the first reset. Raises ValueError where `env`
        has hard_reset=False.
        """
        speedups = speedups or Speedups()
        if not env.hard_reset:
            raise ValueError("with hard_reset=False an episode depends on the episodes before it")
        self._env = env
        self._lazy = speedups.lazy_rendering
        self._render_gate = RenderGate(open=False)
        with contextlib.nullcontext() if opens_graphics else graphics.pending_graphics():
            self._build()
        self._render_gate.open = not self._lazy
        self._fast_reset = speedups.fast_reset
        self._last_observation: LiberoObservation = {}
        reason = step.refusal(env) if speedups.fast_step else None
        self._fast_step = FastStep(env) if speedups.fast_step and reason is None else None
        self._goal = Goal(self._inner) if self._fast_step else None
        self.fallbacks = () if reason is None else (f"fast_step is not used: {reason}",)

    def _build(self) -> None:
        compiled: Arrays = {}
        with own_random_numbers(), camera.gated_cameras(self._render_gate), record_model(compiled):
            self._env._ensure_env()
        self._inner = self._env._env.env
        self._rewind = Resetter(self._inner, compiled)

    def open_graphics(self) -> None:
        """Opens a graphics context in this process, for an environment that was built without."""
        graphics.open_graphics(self._inner)

    def load_into(self, renderer: socket.socket, task: Task) -> None:
        """Sends a renderer the compiled model, so that it can draw simulators of this task."""
        remote_graphics.load_task(renderer, task, self._inner)

    def draw_with(self, renderer: socket.socket, channel: Channel, slot: int, task: Task, turn: Turn) -> None:
        """Has a renderer draw this simulator, which was built without graphics and is in the slot `slot`."""
        remote_graphics.draw_with(self._inner, renderer, channel, slot, task, turn)

    def rehearse(self) -> None:
        """Begins an episode without pictures, where that is possible.

        What a first reset compiles, loads and looks up is then there for all processes that are forked from this one.
        """
        if self._fast_reset and self._lazy:
            with own_random_numbers():
                self._begin(seed=0, init_state=0, ordinal=0, observe=False)
            self._advance(get_libero_dummy_action(), observe=False)

    def reset(self, seed: int, init_state: int, ordinal: int) -> LiberoObservation:
        """Resets the environment, takes the settle steps, and returns the observation that begins the episode.

        `init_state` is an index into the benchmark's fixed states, taken modulo their number as LiberoEnv does.
        `ordinal` is the number of resets that lerobot-eval's environment has had before this one.
        """
        env, waits = self._env, self._env.num_steps_wait
        with own_random_numbers():
            observation = self._begin(seed, init_state, ordinal, observe=waits == 0)
        for wait in range(waits):
            observation = self._advance(get_libero_dummy_action(), observe=wait == waits - 1)
        for robot in self._inner.robots:
            robot.controller.use_delta = env.control_mode == "relative"
        assert observation is not None
        self._last_observation = observation
        return observation

    def _begin(self, seed: int, init_state: int, ordinal: int, observe: bool) -> LiberoObservation | None:
        self._render_gate.open = observe or not self._lazy
        if self._fast_reset:
            self._rewind.fast(seed, ordinal)
        else:
            camera.make_current(self._inner)  # a hard reset frees this simulator's graphics context
            with camera.gated_cameras(self._render_gate):
                self._rewind.hard(seed, ordinal)
        if self._env.init_states:
            states = self._env._init_states
            raw = self._env._env.set_init_state(states[init_state % len(states)])
        else:
            raw = self._inner._get_observations()
        if self._fast_step and self._goal:
            self._fast_step.bind()
            self._goal.bind()
        return self._env._format_raw_obs(raw) if observe else None

    def _advance(self, action: Any, observe: bool) -> LiberoObservation | None:
        if self._fast_step:
            return self._quick(action, observe).observation
        self._render_gate.open = observe or not self._lazy
        raw, *_ = self._env._env.step(action)
        return self._env._format_raw_obs(raw) if observe else None

    def step(self, action: NDArray[np.float32], observe: bool) -> StepResult:
        """Takes one control step and returns its result, with an observation if `observe` is true.

        `action` has the shape (7,) and is float32, as a vector environment passes it on. Raises ValueError after
        robosuite's horizon of 1000 steps, in which the settle steps of the reset count.
        """
        result = self._quick(action, observe) if self._fast_step else self._stock(action, observe)
        if result.observation is not None:
            self._last_observation = result.observation
        return result

    def _quick(self, action: Any, observe: bool) -> StepResult:
        assert self._fast_step and self._goal
        if observe:
            self._goal.show()
        observation = self._fast_step(action, observe)
        success = self._goal.reached()
        scale = self._inner.reward_scale
        return StepResult(observation, float(success) * (1.0 if scale is None else scale / 1.0), success, success)

    def _stock(self, action: NDArray[np.float32], observe: bool) -> StepResult:
        self._render_gate.open = observe or not self._lazy
        observation, reward, done, _, info = self._env.step(action)
        return StepResult(observation if observe else None, float(reward), bool(info["is_success"]), bool(done))

    def frame(self) -> Image:
        """Returns what LiberoEnv.render() would for the observation requested last, with shape (height, width, 3)."""
        first: Image = next(iter(self._last_observation["pixels"].values()))
        return first[::-1, ::-1]

    @property
    def description(self) -> str:
        """Returns the task's instruction in words."""
        return str(self._env.task_description)

    @property
    def max_steps(self) -> int:
        """Returns the number of control steps after which an episode ends."""
        return int(self._env._max_episode_steps)

    def state(self) -> NDArray[np.float64]:
        """Returns time, positions and velocities of the simulation in one array of one dimension."""
        data = self._inner.sim.data._data
        return np.concatenate([[data.time], data.qpos, data.qvel])

    def close(self) -> None:
        """Frees the simulation and its graphics context, without touching those of other simulators in the process."""
        if self._goal:
            self._goal.unbind()
        if self._env._env is not None:
            camera.make_current(self._inner)
            self._env.close()
