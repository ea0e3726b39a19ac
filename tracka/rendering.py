"""Proof that this host renders: one LIBERO frame in a process with a row's own environment, EGL first, then GLX."""

import json
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import environment, files, gpu, process
from .campaign import Campaign
from .check import Check
from .gpu import Device
from .process import Bounds

PICTURE_STD = 5.0  # of pixel values; a black or plain frame has less


@dataclass(frozen=True)
class Backend:
    """One try at rendering. `prefix` is the argv that a row's command needs before it."""

    name: str
    ok: bool
    evidence: str
    seconds: float
    lerobot: str | None = None
    prefix: tuple[str, ...] = ()


def try_backends(spec: Campaign, suite: str, requested: str, gpu_ids: list[int], folder: Path) -> list[Backend]:
    """The tries, in order: the backend asked for and, where EGL fails, GLX once. Logs and frames go to `folder`."""
    first = _try(spec, suite, requested, gpu_ids, folder)
    if first.ok or requested != "egl":
        return [first]
    return [first, _try(spec, suite, "glx", gpu_ids, folder)]


def checks(backends: Sequence[Backend]) -> list[Check]:
    """A check a backend that was tried; one that failed only warns where another works."""
    good = any(item.ok for item in backends)
    remedy = "Install libegl1 libegl-mesa0 libgl1-mesa-dri libgles2 libopengl0 (or NVIDIA's driver), or xvfb for GLX"
    return [
        Check(
            f"rendering:{item.name}",
            "pass" if item.ok else "warn" if good else "fail",
            item.evidence,
            None if item.ok else remedy,
            seconds=item.seconds,
        )
        for item in backends
    ]


def _try(spec: Campaign, suite: str, name: str, gpu_ids: list[int], folder: Path) -> Backend:
    prefix = _display(name)
    out, err = folder / f"render_{name}.log", folder / f"render_{name}.err"
    command = [*prefix, sys.executable, "-m", "tracka.probes.render", suite, "0", str(folder / f"frame_{name}.png")]
    environ = environment.for_row(spec, _device(gpu_ids), name)
    ended = process.run(command, cwd=folder, env=environ, stdout=out, stderr=err, bounds=Bounds(spec.probe_secs))
    stages = _stages(out)
    ok, evidence = _is_picture(stages, ended, err)
    lerobot = stages.get("lerobot_import", {}).get("version")
    return Backend(name, ok, evidence, round(ended.seconds, 3), lerobot, prefix if ok else ())


def _device(gpu_ids: list[int]) -> Device:
    """The first GPU asked for that is there, else the CPU."""
    visible = {item.gpu_id: item for item in gpu.inventory()}
    usable = [visible[number] for number in gpu_ids if number in visible]
    return Device(usable[0].gpu_id, usable[0].visible) if usable else gpu.CPU_DEVICE


def _display(backend: str) -> tuple[str, ...]:
    """GLX needs a display: Xvfb's where there is no other."""
    if backend != "glx" or os.environ.get("DISPLAY") or shutil.which("xvfb-run") is None:
        return ()
    return ("xvfb-run", "-a")


def _stages(log: Path) -> dict[str, dict[str, Any]]:
    lines = [line for line in files.tail(log).splitlines() if line.startswith('{"stage"')]
    return {stage["stage"]: stage for stage in map(json.loads, lines)}


def _is_picture(stages: dict[str, dict[str, Any]], ended: process.Exit, err: Path) -> tuple[bool, str]:
    frame = stages.get("frame")
    if frame is None:
        reached = list(stages)[-1] if stages else "nothing"
        lines = [line for line in files.tail(err).splitlines() if line.strip()] or ["no message"]
        errors = [line for line in lines if "Error" in line] or lines
        return False, f"no frame (exit code {ended.code}, reached: {reached}): {errors[-1][:300]}"
    evidence = f"{frame['shape']} by {frame['gl']}, mean {frame['mean']}, deviation {frame['std']}"
    return frame["std"] >= PICTURE_STD, evidence
