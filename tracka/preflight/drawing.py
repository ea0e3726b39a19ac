"""Finds out in a second or two which OpenGL backends draw here: each draws a ball in a process of its own.

A campaign's preflight proves more, with a frame of LIBERO on every GPU, and takes as long as lerobot's import.
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path

from ..campaign.campaign import Campaign
from ..campaign.layout import Layout
from ..campaign.matrix import BACKENDS
from ..core import parsing, reading
from ..core.check import Check
from ..execution import environment, process
from ..execution.gpu import Device
from ..execution.lanes import Lanes
from ..execution.process import Bounds
from ..install import gl
from . import rendering

PROBE = "tracka.preflight.probes.draw"
DRAW_SECS = 30.0


def check(device: Device) -> Check:
    """Returns the check `rendering`: it fails where no backend draws, and warns where EGL does not."""
    with tempfile.TemporaryDirectory(prefix="tracka-doctor-") as folder, Lanes(len(BACKENDS)) as pool:
        answers = dict(
            zip(BACKENDS, pool.map(lambda name: _draw(name, device, Path(folder) / name), BACKENDS), strict=True)
        )
    # Why GLX has no display interests nobody where EGL draws.
    told = {name: words if ok or not answers["egl"][0] else "does not draw" for name, (ok, words) in answers.items()}
    evidence = "; ".join(f"{name} {words}" for name, words in told.items())
    status = "pass" if answers["egl"][0] else "warn" if any(ok for ok, _ in answers.values()) else "fail"
    return Check("rendering", status, evidence, None if status == "pass" else _remedy(answers))


def _remedy(answers: Mapping[str, tuple[bool, str]]) -> str:
    working = [name for name, (ok, _) in answers.items() if ok]
    instead = f", or write {working[0]} in the column mujoco_gl of the matrix" if working else ""
    return f"Run as root: {gl.install_command()} (EGL on an NVIDIA GPU comes with NVIDIA's driver){instead}"


def _draw(backend: str, device: Device, folder: Path) -> tuple[bool, str]:
    """Returns whether `backend` draws on `device`, and what draws or why nothing does."""
    folder.mkdir()
    campaign = Campaign(Layout(folder), (), "", 0)
    out, err = folder / "draw.log", folder / "draw.err"
    ended = process.run(
        [*rendering.display_prefix(backend), *process.python(PROBE)],
        cwd=folder,
        env=environment.for_row(campaign, device, backend),
        stdout=out,
        stderr=err,
        bounds=Bounds(DRAW_SECS),
    )
    for picture in parsing.printed_values(reading.tail(out), '{"gl"'):
        return picture["std"] >= rendering.PICTURE_STD, f"draws ({picture['gl']})"
    return False, f"does not draw ({process.cause_of_end(ended, err)})"
