"""Renders one LIBERO frame as lerobot-eval does, in the environment that a row would get.

Usage: python -m tracka.preflight.probes.render SUITE TASK_ID FRAME.png
The picture of the camera on the hand is saved beside it as FRAME_hand.png; both pictures are turned as a policy gets
them.
Prints one JSON object a line, stage by stage, so that the output of a crash still shows which stages were reached:
{"stage": "lerobot_import" | "environment" | "frame", ...}
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

SIZE = 128  # pixels, height and width


def print_stage(stage: str, **values: Any) -> None:
    """Prints the JSON object of one stage at once."""
    print(json.dumps({"stage": stage, **values}), flush=True)


def main(suite_name: str, task_id: int, picture: Path) -> None:
    """Resets the task's environment, saves the pictures of both cameras, and prints each stage as it is reached."""
    import lerobot
    from lerobot.envs.libero import LiberoEnv, _get_suite

    print_stage("lerobot_import", version=lerobot.__version__)
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
        print_stage("environment", task=env.task, mujoco_gl=os.environ.get("MUJOCO_GL"))
        for name, frame in observation["pixels"].items():
            _save(frame, picture if name == "image" else picture.with_stem(f"{picture.stem}_hand"))
        _report(observation["pixels"]["image"])
    finally:
        env.close()


def _save(frame: Any, picture: Path) -> None:
    """Turns the frame by 180 degrees, as lerobot's processor does for a policy, and saves it as `picture`."""
    from PIL import Image

    Image.fromarray(frame[::-1, ::-1]).save(picture)


def _report(frame: Any) -> None:
    print_stage(
        "frame",
        shape=list(frame.shape),
        mean=round(float(frame.mean()), 2),
        std=round(float(frame.std()), 2),
        hash=_hash(frame),
        gl=gl_names(),
        drawn_by=_rendering_gpu(),
        computes_on=_compute_gpu(),
    )


def _hash(frame: Any) -> str:
    """Returns the frame's difference hash as 16 hex digits.

    Each bit says whether one of 8 x 8 grey cells is darker than the cell to its right.
    """
    import numpy as np
    from PIL import Image

    grey = np.asarray(Image.fromarray(frame).convert("L").resize((9, 8), Image.Resampling.BOX), np.int16)
    return np.packbits(grey[:, :-1] < grey[:, 1:]).tobytes().hex()


def gl_names() -> str:
    """Returns the vendor and the renderer of the current OpenGL context."""
    from OpenGL import GL

    words = (GL.glGetString(name) for name in (GL.GL_VENDOR, GL.GL_RENDERER))
    return " / ".join(word.decode() if word else "unknown" for word in words)


def _rendering_gpu() -> str | None:
    """Returns the UUID of the GPU behind OpenGL's current context as NVML writes it, or None if the driver gives none.

    Mesa's software renderer returns its own version, which differs from the UUID of any GPU.
    """
    import ctypes
    import uuid

    from OpenGL.GL.EXT import memory_object

    if not (memory_object.glInitMemoryObjectEXT() and bool(memory_object.glGetUnsignedBytei_vEXT)):
        return None
    value = (ctypes.c_ubyte * 16)()
    memory_object.glGetUnsignedBytei_vEXT(memory_object.GL_DEVICE_UUID_EXT, 0, value)
    return f"GPU-{uuid.UUID(bytes=bytes(value))}"


def _compute_gpu() -> str | None:
    """Returns the UUID of torch's first GPU, or None without a GPU. lerobot has imported torch already."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return None
    return f"GPU-{torch.cuda.get_device_properties(0).uuid}"


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
