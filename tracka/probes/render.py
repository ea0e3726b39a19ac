"""Renders one LIBERO frame the way lerobot-eval does, in the environment that a row would get.

Usage: python -m tracka.probes.render SUITE TASK_ID FRAME.png
Prints one JSON object a line, stage by stage, so that a crash still tells how far it came:
{"stage": "lerobot_import" | "environment" | "frame", ...}
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

SIZE = 128  # pixels, height and width


def say(stage: str, **values: Any) -> None:
    print(json.dumps({"stage": stage, **values}), flush=True)


def main(suite_name: str, task_id: int, picture: Path) -> None:
    import lerobot
    from lerobot.envs.libero import LiberoEnv, _get_suite

    say("lerobot_import", version=lerobot.__version__)
    suite = _get_suite(suite_name)
    env = LiberoEnv(
        suite,
        task_id,
        suite_name,
        obs_type="pixels_agent_pos",
        observation_width=SIZE,
        observation_height=SIZE,
        num_steps_wait=1,
    )
    try:
        observation, _ = env.reset(seed=0)
        say("environment", task=env.task, mujoco_gl=os.environ.get("MUJOCO_GL"))
        _report(observation["pixels"]["image"], picture)
    finally:
        env.close()


def _report(frame: Any, picture: Path) -> None:
    from PIL import Image

    Image.fromarray(frame[::-1, ::-1]).save(picture)
    say(
        "frame", shape=list(frame.shape), mean=round(float(frame.mean()), 2), std=round(float(frame.std()), 2), gl=_gl()
    )


def _gl() -> str:
    from OpenGL import GL

    words = (GL.glGetString(name) for name in (GL.GL_VENDOR, GL.GL_RENDERER))
    return " / ".join(word.decode() if word else "unknown" for word in words)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
