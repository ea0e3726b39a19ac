"""Passes metrics on to a client, as a process of its own.

Usage: python -m tracka.exports.metrics_client TO PROJECT NAME SECS

Reads a message a line from stdin and writes nothing but, at its end, one line that says what has failed. With all of
its processes it is gone SECS after its stdin has ended, whatever the client does.
"""

import importlib
import json
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

from .metrics import FOLDER

Message = Mapping[str, Mapping[str, Any]]
# What wandb would collect on its own: output, code, Git, the command line, the host.
_WANDB_SETTINGS = {
    "console": "off",
    "disable_code": True,
    "disable_git": True,
    "disable_job_creation": True,
    "save_code": False,
    "silent": True,
    "x_disable_machine_info": True,
    "x_disable_meta": True,
    "x_disable_stats": True,
    "host": "-",
    "x_save_requirements": False,
}


def main() -> None:
    """Passes the messages on to the client that the command line names."""
    to, project, name, secs = sys.argv[1:5]
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(lines, float(secs)), daemon=True).start()
    answer = os.dup(1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)  # what a client prints is nobody's
    try:
        _pass_on(to, project, name, iter(lines.get, ""))
    except ModuleNotFoundError as error:
        is_client = error.name == to
        words = f"the client is not installed. Install it: pip install {to}" if is_client else f"{error}"
        os.write(answer, words.encode())
    except BaseException as error:
        os.write(answer, f"{type(error).__name__}: {error}".encode(errors="replace"))


def _read(lines: queue.SimpleQueue[str], secs: float) -> None:
    """Passes on the lines of stdin and an empty one at its end, and ends all processes of the client SECS later."""
    for line in sys.stdin:
        lines.put(line)
    lines.put("")
    time.sleep(secs)
    os.killpg(0, signal.SIGKILL)


def _pass_on(to: str, project: str, name: str, lines: Iterator[str]) -> None:
    client = importlib.import_module(to)
    run = client.init(project=project, name=name, **(_wandb_options(client) if to == "wandb" else {}))
    for line in lines:
        message: Message = json.loads(line)
        if "log" in message:
            client.log(message["log"])
        elif hasattr(run, "summary"):
            run.summary.update(message["summary"])
        else:
            client.log(message["summary"])
    client.finish()


def _wandb_options(client: Any) -> dict[str, Any]:
    known = getattr(client.Settings, "model_fields", {})
    settings = {key: value for key, value in _WANDB_SETTINGS.items() if key in known}
    return {"dir": os.environ[FOLDER], "settings": client.Settings(**settings)}


if __name__ == "__main__":
    main()
