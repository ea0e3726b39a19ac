"""Proves that this host renders: one LIBERO frame for each GPU, in a process with a row's own environment.

EGL is tried first, then GLX once, on every GPU that the campaign may lease. A frame is a picture if it is not plain and
looks like the suite's first task. The GPU that draws an EGL frame must be the one that torch computes on.
"""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..campaign.campaign import Campaign
from ..campaign.matrix import CPU
from ..core import damaged, parsing, reading
from ..core.check import Check
from ..execution import environment, gpu, process
from ..execution.gpu import Device
from ..execution.lanes import Lanes
from ..execution.process import Bounds

PICTURE_STD = 5.0  # standard deviation of pixel values; a black or plain frame has less
# The difference hash of each suite's first task at its first init state, as `probes/render.py` makes it from Mesa's
# frame on MuJoCo 3.3.7. Another renderer may change PICTURE_BITS of its 64 bits: NVIDIA's renderer changes 10, an
# unrelated frame about 32.
PICTURES = {
    "libero_spatial": "f5fded7b79d4d4d0",
    "libero_object": "b4d52c961633b296",
    "libero_goal": "f5fdff6f7ad654d8",
    "libero_10": "cfa73b4733f3f0d8",
    "libero_90": "25e5f77239f373b0",
}
PICTURE_BITS = 16
PICTURE_ENDINGS = {"agentview_image": "", "robot0_eye_in_hand_image": "_hand"}
INSTALL = "Install libegl1 libegl-mesa0 libgl1-mesa-dri libgles2 libopengl0 (or NVIDIA's driver), or xvfb for GLX"


@dataclass(frozen=True)
class Frame:
    """One try at rendering.

    `prefix` is the argv that a row's command needs before it. `drawn_by` and `computes_on` are the UUIDs of the GPUs of
    OpenGL and torch, None where these do not tell. `egl` is the EGL index that was asked for. `timed_out` says that the
    try took too long to give a frame.
    """

    backend: str
    device: Device
    ok: bool
    evidence: str
    seconds: float
    lerobot: str | None = None
    prefix: tuple[str, ...] = ()
    drawn_by: str | None = None
    computes_on: str | None = None
    egl: str | None = None
    timed_out: bool = False

    @property
    def name(self) -> str:
        """Returns the backend and the GPU as checks name them: `egl`, `egl:gpu3`."""
        return self.backend if self.device.gpu_id == CPU else f"{self.backend}:gpu{self.device.gpu_id}"

    @property
    def pictures(self) -> dict[str, str]:
        """Returns LIBERO's name of each camera -> the file beside preflight.json that shows the camera's frame."""
        stem = f"frame_{self.name.replace(':', '_')}"
        return {camera: f"{stem}{ending}.png" for camera, ending in PICTURE_ENDINGS.items()}


def try_backends(campaign: Campaign, suite: str, requested: str, gpu_ids: Sequence[int], folder: Path) -> list[Frame]:
    """Tries to render and returns the tries in order. Logs and frames go to `folder`.

    The requested backend is tried on each GPU and, where EGL fails on one GPU, GLX once on each.
    """
    first = _try_all(campaign, suite, requested, gpu_ids, folder)
    if requested != "egl" or all(frame.ok for frame in first):
        return first
    return first + _try_all(campaign, suite, "glx", gpu_ids, folder)


def working_frame(frames: Sequence[Frame]) -> Frame | None:
    """Returns a frame of the backend that works on every GPU, or None. Only the last backend tried can be that one."""
    last = [frame for frame in frames if frame.backend == frames[-1].backend]
    return last[0] if all(frame.ok for frame in last) else None


def checks(frames: Sequence[Frame]) -> list[Check]:
    """Returns a check for each try, which only warns if another backend works, and one for each GPU that EGL used."""
    working = working_frame(frames)
    try_checks = [
        Check(
            f"rendering:{frame.name}",
            "pass" if frame.ok else "warn" if working else "fail",
            frame.evidence,
            None if frame.ok else INSTALL,
            seconds=frame.seconds,
            timed_out=frame.timed_out,
        )
        for frame in frames
    ]
    egl_frames = [frame for frame in frames if frame.ok and frame.backend == "egl" and frame.device.gpu_id != CPU]
    return try_checks + [_same_gpu(frame, egl_frames) for frame in egl_frames]


def _same_gpu(frame: Frame, others: Sequence[Frame]) -> Check:
    """Checks that the leased GPU drew the frame and that torch computes on the leased GPU."""
    name, uuid = f"egl_device:gpu{frame.device.gpu_id}", frame.device.uuid
    evidence = f"leased {uuid}, drawn by {frame.drawn_by or 'unknown'}, torch on {frame.computes_on or 'no GPU'}"
    if os.environ.get(gpu.PRETEND):
        return Check(name, "pass", f"{uuid} is pretended: nothing is compared")
    if frame.computes_on != uuid:
        return Check(
            name, "fail", evidence, "Correct the driver or CUDA_VISIBLE_DEVICES: torch must see the leased GPU"
        )
    if frame.drawn_by is None:
        return Check(name, "warn", evidence, "Watch nvidia-smi while a row runs: the driver does not name OpenGL's GPU")
    index = next((candidate.egl for candidate in others if candidate.drawn_by == uuid), None)
    remedy = (
        f"Set {frame.device.visible} = {index or 'the EGL index of that GPU'} below [egl.cuda_to_egl] in campaign.toml"
    )
    return Check(name, *(("pass", evidence) if frame.drawn_by == uuid else ("fail", evidence, remedy)))


def _try_all(campaign: Campaign, suite: str, backend: str, gpu_ids: Sequence[int], folder: Path) -> list[Frame]:
    """Makes one try for each GPU, several at a time: each takes as long as lerobot's import and has a core or two."""
    with Lanes(max(1, (os.cpu_count() or 1) // 2)) as pool:
        return list(pool.map(lambda device: _try(campaign, suite, backend, device, folder), _devices(gpu_ids)))


def _devices(gpu_ids: Sequence[int]) -> list[Device]:
    """Returns the requested GPUs that are visible, or the CPU if none is."""
    gpus = [visible_gpu for visible_gpu in gpu.visible_gpus() if visible_gpu.gpu_id in gpu_ids]
    return [Device(visible_gpu.gpu_id, visible_gpu.visible, visible_gpu.uuid) for visible_gpu in gpus] or [
        gpu.CPU_DEVICE
    ]


def _try(campaign: Campaign, suite: str, backend: str, device: Device, folder: Path) -> Frame:
    prefix, environ = display_prefix(backend), environment.for_row(campaign, device, backend)
    stem = backend if device.gpu_id == CPU else f"{backend}_gpu{device.gpu_id}"
    out, err = folder / f"render_{stem}.log", folder / f"render_{stem}.err"
    command = [
        *prefix,
        *process.python("tracka.preflight.probes.render", suite, "0", str(folder / f"frame_{stem}.png")),
    ]
    for ending in PICTURE_ENDINGS.values():  # what stands in a picture's place must not count as a failed renderer
        damaged.make_way(folder / f"frame_{stem}{ending}.png")
    process_exit = process.run(
        command, cwd=folder, env=environ, stdout=out, stderr=err, bounds=Bounds(campaign.probe_secs)
    )
    stages = _stages(out)
    ok, evidence = _is_picture(stages, process_exit, err, suite)
    return Frame(
        backend,
        device,
        ok,
        evidence,
        round(process_exit.seconds, 3),
        lerobot=stages.get("lerobot_import", {}).get("version"),
        prefix=prefix if ok else (),
        drawn_by=stages.get("frame", {}).get("drawn_by"),
        computes_on=stages.get("frame", {}).get("computes_on"),
        egl=environ.get("MUJOCO_EGL_DEVICE_ID"),
        timed_out="frame" not in stages and process_exit.timed_out,
    )


def display_prefix(backend: str) -> tuple[str, ...]:
    """Returns the argv to put before a command so that GLX has a display: Xvfb's, where there is no other display."""
    if backend != "glx" or os.environ.get("DISPLAY") or shutil.which("xvfb-run") is None:
        return ()
    return ("xvfb-run", "-a")


def _stages(log: Path) -> dict[str, dict[str, Any]]:
    return {stage["stage"]: stage for stage in parsing.printed_values(reading.tail(log), '{"stage"', not_finite=True)}


def _is_picture(
    stages: dict[str, dict[str, Any]], process_exit: process.Exit, err: Path, suite: str
) -> tuple[bool, str]:
    """Returns whether a try gave a picture of the suite's first task, and the evidence."""
    frame = stages.get("frame")
    if frame is None:
        last_stage = list(stages)[-1] if stages else "none"
        return False, f"no frame (last stage: {last_stage}), {process.cause_of_end(process_exit, err)}"
    bits = distance(frame["hash"], PICTURES[suite])
    evidence = f"{frame['shape']} by {frame['gl']}, mean {frame['mean']}, deviation {frame['std']}"
    evidence += f", {bits} of 64 hash bits differ from the expected picture"
    return frame["std"] >= PICTURE_STD and bits <= PICTURE_BITS, evidence


def distance(first_hash: str, second_hash: str) -> int:
    """Returns the number of bits in which two hexadecimal hashes differ."""
    return (int(first_hash, 16) ^ int(second_hash, 16)).bit_count()
