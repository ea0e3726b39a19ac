"""Runs a row's program on the node that Slurm chose: python -m tracka.execution.slurm_step REQUEST.

The harness runs elsewhere and may die without a word, and Slurm lets a step go on whose srun was killed. So the harness
sends a byte a second through srun, and this process ends the program once none has come for `lost` seconds.

Guarantees: the program's whole tree has ended when this process ends by itself; the record tells on which node and GPU
the program ran and, once it has ended, how, and which files it left; without an end in the record nothing passes.
"""

import contextlib
import json
import os
import select
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from types import FrameType
from typing import Any

from ..core import files, schema
from ..core.artifacts import StepEnd, StepRecord
from . import gpu, guard, prctl

NO_GPU = 3  # exit code where Slurm gave no GPU to a row that asks for one
LOST, TIMEOUT, TERMINATED, NO_DEVICE = "lost_harness", "timeout", "terminated", "no_device"
POLL_SECS = 0.2
MOST_FILES = 2000
GIVE_BACK_SECS = 30.0


@dataclass(frozen=True)
class StepRequest:
    """What to run on the node. Paths are absolute, times are in seconds.

    `owns_job` says whether the job is for this program alone, and `has_gpu` whether Slurm was asked for a GPU; the
    program draws on it as `backend` and `cuda_to_egl` say. `variables` are added to the program's environment.
    `allowed` is how long the program may run, `record` the file of the record, and `output` the folder whose files the
    record lists.
    """

    command: tuple[str, ...]
    cwd: str
    record: str
    output: str
    allowed: float
    grace: float
    lost: float
    owns_job: bool = False
    has_gpu: bool = False
    backend: str = "egl"
    variables: Mapping[str, str] = field(default_factory=dict)
    cuda_to_egl: Mapping[str, int] = field(default_factory=dict)

    def to_text(self) -> str:
        """Returns the request as one word of a command line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_text(cls, text: str) -> "StepRequest":
        """Returns the request that `to_text` wrote as `text`."""
        values: dict[str, Any] = json.loads(text)
        return cls(**{**values, "command": tuple(values["command"])})


class Step:
    """One program on this node, from its start to the end of its tree."""

    def __init__(self, request: StepRequest) -> None:
        self.request, self.stopped = request, ""
        self.heard = self.start = time.monotonic()
        self.variables = dict(request.variables)
        self.record = _record()

    def run(self) -> int:
        """Runs the program and returns its exit code, or 128 and the number of the signal that ended it."""
        if self.request.has_gpu and not self._take_gpu():
            self._write({"code": NO_GPU, "stopped": NO_DEVICE, "seconds": 0.0, "files": {}})
            return NO_GPU
        prctl.adopt_orphans()
        signal.signal(signal.SIGTERM, self._terminate)
        self._write(None)
        environ = {**os.environ, **self.variables}
        self.child = subprocess.Popen(
            self.request.command, cwd=self.request.cwd, env=environ, stdin=subprocess.DEVNULL, start_new_session=True
        )
        self.ended = os.pidfd_open(self.child.pid)
        self._wait(self.request.allowed)
        if self.child.poll() is None:
            self._end()
        seconds = time.monotonic() - self.start
        guard.kill_descendants(self.child)
        code = self.child.wait()
        output = _sizes(Path(self.request.output))
        self._write({"code": code, "stopped": self.stopped, "seconds": round(seconds, 3), "files": output})
        if self.stopped == LOST and self.request.owns_job:
            self._give_back_job()
        return 128 - code if code < 0 else code

    def _give_back_job(self) -> None:
        """Ends the job of this step, which nobody else will: its srun has gone."""
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            words = ["scancel", "--quiet", self.record["job_id"]]
            subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, timeout=GIVE_BACK_SECS)

    def _take_gpu(self) -> bool:
        """Notes the GPU that Slurm gave to this step and how the program draws on it; returns whether it gave one."""
        word = os.environ.get(gpu.VISIBLE, "").split(",")[0].strip()
        gpus = gpu.visible_gpus() if word else ()
        given = next((each for each in gpus if each.visible == word), gpus[0] if gpus else None)
        if not word or word == "NoDevFiles":
            return False
        egl_of_cuda = {int(cuda): egl for cuda, egl in self.request.cuda_to_egl.items()}
        self.variables |= gpu.variables(word, self.request.backend, egl_of_cuda)
        self.record["gpu_uuid"], self.record["gpu"] = given.uuid if given else None, word
        self.record["variables"] = self.variables
        return True

    def _wait(self, seconds: float) -> None:
        """Returns when the program has ended, when its time is up, or when nobody needs it any more."""
        deadline = time.monotonic() + seconds
        while self.child.poll() is None and not self.stopped:
            self._listen()
            now = time.monotonic()
            if now > deadline:
                self.stopped = TIMEOUT
            elif now - self.heard > self.request.lost:
                self.stopped = LOST

    def _listen(self) -> None:
        """Waits a moment for a byte of the harness or for the program's end.

        The end of the stream says that the harness has gone.
        """
        with contextlib.suppress(InterruptedError):
            if 0 in select.select([0, self.ended], [], [], POLL_SECS)[0]:
                if os.read(0, 65536):
                    self.heard = time.monotonic()
                else:
                    self.stopped = self.stopped or LOST

    def _end(self) -> None:
        """Ends the program: TERM and, after the grace time, KILL, which `guard.kill_descendants` sends."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.child.pid, signal.SIGTERM)
        deadline = time.monotonic() + (self.request.grace if self.stopped == TIMEOUT else min(1.0, self.request.grace))
        while self.child.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)

    def _terminate(self, number: int, frame: FrameType | None) -> None:
        """Notes that Slurm asks this step to end; KILL follows after the cluster's KillWait."""
        self.stopped = self.stopped or TERMINATED

    def _write(self, end: StepEnd | None) -> None:
        self.record["end"] = end
        files.write_json(Path(self.request.record), self.record)


def _record() -> StepRecord:
    """Returns the record of a step that begins, by what Slurm tells it."""
    return {
        "schema_version": schema.VERSION,
        "node": os.environ.get("SLURMD_NODENAME", ""),
        "job_id": os.environ.get("SLURM_JOB_ID", ""),
        "step_id": os.environ.get("SLURM_STEP_ID", ""),
        "restarts": int(os.environ.get("SLURM_RESTART_COUNT", "0")),
        "gpu": None,
        "gpu_uuid": None,
        "variables": {},
        "started_at": time.time(),
        "end": None,
    }


def _sizes(folder: Path) -> dict[str, int]:
    """Returns the size of each regular file below `folder`, by its path there; of MOST_FILES of them at most."""
    files_left = (Path(parent) / name for parent, _, names in os.walk(folder) for name in sorted(names))
    found: dict[str, int] = {}
    with contextlib.suppress(OSError):
        for path in islice(files_left, MOST_FILES):  # what is beyond is refused where the result is judged
            status = path.lstat()
            if stat.S_ISREG(status.st_mode):
                found[str(path.relative_to(folder))] = status.st_size
    return found


if __name__ == "__main__":
    sys.exit(Step(StepRequest.from_text(sys.argv[1])).run())
