"""Finds where the objects of LIBERO tasks are when a policy begins, by a reset and its settle steps without a picture.

Usage: python -m tracka.preflight.probes.settle SUITE TASK...
Prints one JSON object a line: {"task": 5, "name": ..., "bddl": SHA-256, "init_states": SHA-256,
"poses": {object: [[x, y, z] in metres, one an init state]}}. The physics is that of lerobot's LiberoEnv, to the bit.
"""

import contextlib
import json
import sys
from pathlib import Path
from typing import Any

from ...core import files

INIT_STATES = 3  # how many init states of each task are probed, from 0 on
SEED = 0
DIGITS = 5  # decimal places of a metre: a hundredth of a millimetre


def main(suite_name: str, task_ids: list[int]) -> None:
    """Prints the JSON object of each task, as soon as its poses are known."""
    out = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):  # LIBERO prints to stdout, which is for the JSON objects
        from lerobot.envs.libero import _get_suite

        suite = _get_suite(suite_name)
        for task_id in task_ids:
            print(json.dumps(settle(suite, suite_name, task_id)), file=out, flush=True)


def settle(suite: Any, suite_name: str, task_id: int) -> dict[str, Any]:
    """Returns the poses of one task's objects after the settle steps that lerobot takes.

    Beside the poses are the hashes of the files that they follow from: the task's BDDL file and its init states.
    """
    env = _without_cameras(suite, suite_name, task_id)
    poses: dict[str, list[list[float]]] = {}
    try:
        for _ in range(INIT_STATES):
            env.reset(seed=SEED)
            for name, place in object_positions(env).items():
                poses.setdefault(name, []).append(place)
        task = suite.get_task(task_id)
        return {
            "task": task_id,
            "name": task.name,
            "bddl": files.sha256_file(Path(env._task_bddl_file)),
            "init_states": files.sha256_file(_init_states(task)),
            "poses": poses,
        }
    finally:
        env.close()


def object_positions(env: Any) -> dict[str, list[float]]:
    """Returns the position in metres of each object's body, for all objects in the scene that may move."""
    world = env._env.env
    ids = {name: world.obj_body_id[name] for name in world.objects_dict}
    return {name: [round(float(x), DIGITS) for x in world.sim.data.body_xpos[body]] for name, body in ids.items()}


def _without_cameras(suite: Any, suite_name: str, task_id: int) -> Any:
    """Returns lerobot's environment without renderer and cameras.

    The base class of the LIBERO environment that lerobot imports takes the place of that environment.
    """
    from lerobot.envs.libero import LiberoEnv, OffScreenRenderEnv

    class Blind(LiberoEnv):  # type: ignore[misc]
        _env: Any

        def _ensure_env(self) -> None:
            if self._env is None:
                env = OffScreenRenderEnv.__base__(
                    self._task_bddl_file, has_offscreen_renderer=False, use_camera_obs=False
                )
                env.reset()
                self._env = env

        def _format_raw_obs(self, raw_obs: Any) -> dict[str, Any]:
            return {}

    return Blind(suite, task_id, suite_name, obs_type="pixels_agent_pos")


def _init_states(task: Any) -> Path:
    from lerobot.envs.libero import get_libero_path

    return Path(get_libero_path("init_states"), task.problem_folder, task.init_states_file)


if __name__ == "__main__":
    main(sys.argv[1], [int(word) for word in sys.argv[2:]])
