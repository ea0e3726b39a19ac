"""Sends metrics of a session to Weights & Biases or trackio, by a process that may fail, hang or die.

Guarantees: nothing here raises, waits for the client while rows run, or waits longer than the settings allow at the
end; what goes wrong is one warning; no secret of the environment is among the values that are sent.

The client runs in `metrics_client.py`, a process of its own, which reads a message a line from its stdin and answers
with one line at its end.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from ..campaign.metrics_settings import MetricsSettings
from ..core import escaping, files

Value = str | float | int | bool
FOLDER = "TRACKA_METRICS_FOLDER"  # where wandb keeps what it has not uploaded
GRACE_SECS = 5.0  # after which a client ends itself whose session was killed, beside the time that it has
_CLIENT = f"{__package__}.metrics_client"


class MetricsProcess:
    """The process of a client, started with the first message.

    Attributes:
        settings: what the campaign asks for
        name: the name of the session's run in the client's project
        folder: where the client may keep files
        warning: what has gone wrong; empty while nothing has
    """

    def __init__(self, settings: MetricsSettings, name: str, folder: Path) -> None:
        self.settings, self.name, self.folder = settings, name, folder
        self.warning = ""
        self._process: subprocess.Popen[bytes] | None = None

    def log(self, values: Mapping[str, Value]) -> None:
        """Sends values of one point in time."""
        self._send({"log": values})

    def summarize(self, values: Mapping[str, Value]) -> None:
        """Sends values that describe the whole session."""
        self._send({"summary": values})

    def end(self) -> None:
        """Waits until the client is done, at most as long as the settings allow, and ends it otherwise."""
        if self._process is None:
            return
        try:
            answer, _ = self._process.communicate(timeout=self.settings.timeout_secs)
            self._warn(escaping.line(answer.decode(errors="replace")))
        except subprocess.TimeoutExpired:
            self._warn(f"the client was not done after {self.settings.timeout_secs:g} s and has been ended")
        except (OSError, ValueError) as error:
            self._warn(f"{type(error).__name__}: {error}")
        if self._process.poll() is None:
            self._kill(self._process)
        elif self._process.returncode:
            self._warn(f"the client's process ended with {self._process.returncode}")

    def _send(self, message: Mapping[str, Mapping[str, Value]]) -> None:
        if self.warning:
            return
        try:
            process = self._process = self._process or self._started()
            line = json.dumps(files.redacted(dict(message))).encode() + b"\n"
            if process.stdin is None or os.write(process.stdin.fileno(), line) != len(line):
                self._warn("the client takes no more values")
        except (OSError, ValueError) as error:  # among them a pipe that is full, and a process that has ended
            self._warn(f"the client takes no values ({type(error).__name__}: {error})")

    def _started(self) -> subprocess.Popen[bytes]:
        """Returns the client's process, a session of its own, so that Ctrl-C leaves it and a kill takes all of it."""
        files.make_folder(self.folder)
        settings = self.settings
        words = [settings.to, settings.project, self.name, str(settings.timeout_secs + GRACE_SECS)]
        process = subprocess.Popen(
            [sys.executable, "-m", _CLIENT, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, FOLDER: str(self.folder)},
            start_new_session=True,
        )
        if process.stdin is not None:
            os.set_blocking(process.stdin.fileno(), False)
        return process

    def _kill(self, process: subprocess.Popen[bytes]) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        process.wait()

    def _warn(self, words: str) -> None:
        """Keeps the first thing that has gone wrong."""
        if words and not self.warning:
            self.warning = f"metrics are not complete in {self.settings.to}: {files.redacted(words)}"
