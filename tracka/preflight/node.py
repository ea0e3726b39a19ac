"""Runs this campaign's preflight on one node of a cluster: python -m tracka.preflight.node FOLDER.

FOLDER lies among the artifacts, on the shared file system, and has the request; the answer and the node's own report go
there. The answer repeats the request's nonce, and says whether a lock that the harness holds is held here too.
"""

import sys
import time
from dataclasses import replace
from pathlib import Path

from ..campaign import campaign as campaigns
from ..campaign.campaign import Campaign
from ..campaign.layout import Layout
from ..core import files, lock
from ..core.errors import Busy
from ..core.files import Json
from ..execution import gpu, process_setup
from . import inventory, node_jobs, preflight

SEEN_SECS = 120.0  # for the request to be seen here


def main(folder: Path) -> int:
    """Checks this node and returns 0 where it could be checked, whatever was found."""
    start = time.monotonic()
    request = _request(folder)
    seen_after = round(time.monotonic() - start, 3)
    said = {"nonce": request["nonce"], "seen_after": seen_after, "lock": _lock(Path(request["lock"])), **_facts()}
    campaign = _campaign(request)
    report = preflight.host_report(preflight.config_at(folder, request), campaign)
    preflight.write_preflight_report(report, folder / "preflight.json")
    files.write_json(folder / node_jobs.ANSWER, said)
    return 0


def _request(folder: Path) -> Json:
    """Returns the harness's request, waited for where the file system shows new files late."""
    deadline = time.monotonic() + SEEN_SECS
    while not (request := files.read_or_empty(folder / node_jobs.REQUEST)) and time.monotonic() < deadline:
        time.sleep(0.5)
    return request


def _lock(path: Path) -> str:
    """Returns `held` where this node sees that the harness holds the lock file."""
    try:
        with lock.hold(path, "the test of locks"):
            return "free"
    except Busy:
        return "held"
    except OSError as error:
        return f"refused ({error.strerror})"


def _facts() -> Json:
    host = inventory.host_facts()
    driver = gpu.driver()
    return {
        "packages": files.sha256(inventory.pip_freeze().encode())[:12],
        "driver": driver[0] if driver else None,
        "cpu": host["cpu"],
    }


def _campaign(request: Json) -> Campaign:
    """Returns the campaign as this node sees it: its rows run here, on the GPU that Slurm has given."""
    layout = Layout(Path(request["root"]), request["artifacts"], request["runs"], tier=request["tier"])
    loaded = campaigns.load_at(layout)
    return replace(
        loaded.launched_by("local"),
        expected_gpus=min(1, loaded.expected_gpus),
        trusted=tuple(request["trusted"]),
        strict=request["strict"],
        accept_invalid_sim=request["accept_invalid_sim"],
    )


if __name__ == "__main__":
    process_setup.prepare()
    files.keep_private()
    sys.exit(main(Path(sys.argv[1])))
