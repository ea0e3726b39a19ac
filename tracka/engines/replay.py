"""Plays recorded episodes again from their actions alone, in lerobot's own environments, and films them.

Usage: python -m tracka.engines.replay REQUEST.json ANSWERS.jsonl
REQUEST.json is `{"flags": [lerobot-eval's flags --env.NAME=VALUE], "episodes": [...]}`; each episode has suite, task,
episode, init_state, seed and reset_ordinal as its line of episodes.jsonl, and the paths `actions` and `film`.
ANSWERS.jsonl gets a line for each episode as soon as it is played and filmed.
"""

import contextlib
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from ..core import files, reading
from .resident.episode import digest

if TYPE_CHECKING:
    from .resident.simulation import Simulation
    from .resident.simulator import Simulator

# Nothing is made quicker: each frame is drawn anyhow, and the environments are those of lerobot-eval, part for part.
STOCK = SimpleNamespace(video_stride=1, lazy_rendering=False, fast_step=False, fast_reset=False)


def main(request_file: Path, answers_file: Path) -> None:
    """Plays and films the episodes of the request in order, each task in one environment."""
    request = files.read_json(request_file)
    with contextlib.redirect_stdout(sys.stderr):  # LIBERO prints to stdout
        simulation = _simulation(request["flags"])
        simulator, task = None, None
        for episode in request["episodes"]:
            if simulator is None or task != (episode["suite"], episode["task"]):
                if simulator is not None:
                    simulator.close()
                task = (episode["suite"], episode["task"])
                simulator = _simulator(simulation, *task)
            _append(answers_file, play(simulator, episode, simulation.video_config.frames_per_second))
        if simulator is not None:
            simulator.close()


def _simulation(flags: Sequence[str]) -> "Simulation":
    """Returns what all environments of the flags have in common."""
    import draccus
    from lerobot.envs.configs import EnvConfig

    from .resident.simulation import Simulation

    @dataclass
    class Flags:
        env: EnvConfig

    parsed: Any = draccus.parse(config_class=Flags, args=list(flags))
    settings: Any = SimpleNamespace(env=parsed.env, resident=STOCK)
    return Simulation(settings)


def _simulator(simulation: "Simulation", suite: str, task: int) -> "Simulator":
    from .resident.simulator import Simulator

    return Simulator(simulation.plain(suite, task), simulation.speedups)


def play(simulator: "Simulator", episode: dict[str, Any], frames_per_second: int) -> dict[str, Any]:
    """Plays one episode to the end of its actions or to its success, films it, and returns how it went."""
    import numpy as np
    from lerobot.utils.io_utils import write_video

    actions = reading.array(Path(episode["actions"])).astype(np.float32)
    simulator.reset(episode["seed"], episode["init_state"], episode["reset_ordinal"])
    first_state, frames, success, steps = digest(simulator.state()), [simulator.frame()], False, 0
    for steps, action in enumerate(actions, start=1):  # noqa: B007  the last one is used
        result = simulator.step(action, observe=True)
        frames.append(simulator.frame())
        success = result.success
        if result.done:
            break
    Path(episode["film"]).parent.mkdir(parents=True, exist_ok=True)
    write_video(episode["film"], frames, frames_per_second)
    return {
        "task": episode["task"],
        "episode": episode["episode"],
        "success": success,
        "steps": steps,
        "first_state_sha": first_state,
        "final_state_sha": digest(simulator.state()),
    }


def _append(path: Path, answer: dict[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(answer) + "\n")
        file.flush()
        os.fsync(file.fileno())


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
