"""Disturbs sessions of a campaign: KILL, STOP and CONT for processes of all kinds at random moments, round after round.

A round starts a session, disturbs one of its processes and kills the session. Nothing of it may be left WITHOUT_STOP
seconds later, or WITH_STOP seconds after the start of the next round where a process was stopped and not continued.
"""

import csv
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import psutil
from campaigns import REPOSITORY, Made
from processes import is_alive, of_campaign, wait_for_the_end_of

Line = dict[str, str]
Start = Callable[[], subprocess.Popen[bytes]]
WITHOUT_STOP, WITH_STOP = 5.0, 10.0  # seconds, on a machine that does nothing else
PATIENCE = "SOAK_PATIENCE"  # by how much a busy machine may be slower
ROUNDS, SEED = "SOAK_ROUNDS", "SOAK_SEED"
ACTIONS = ("kill", "stop", "stop and continue")
SERVICE, RESIDENT = "tracka.engines.resident.service", "tracka.engines.resident"
# A word of a process's command line -> what the process is called by how many of its ancestors have the same command.
KINDS = {
    "tracka.execution.supervisor": ("guard", "supervisor"),
    SERVICE: ("guard of the warm process", "warm process", "engine worker"),
    RESIDENT: ("evaluation", "engine worker"),
    "tracka.runs.worker": ("worker",),
    "import sys;exec(eval(sys.stdin.readline()))": ("worker",),
    "sweep": ("controller",),
    "pytest": ("controller",),
}


def patience() -> float:
    return float(os.environ.get(PATIENCE, "6"))


def kind_of(process: psutil.Process) -> str:
    """Returns what a process of a session is: controller, worker, supervisor, evaluation and so on."""
    words = process.cmdline()
    if not words:
        return "unknown"
    same = sum(parent.cmdline() == words for parent in process.parents())
    for word, names in KINDS.items():
        if word in words:
            return names[min(same, len(names) - 1)]
    is_evaluation = any(re.search(r"lerobot[-_]eval", word) for word in words[:3])
    return "evaluation" if is_evaluation else "other"


def by_kind(pids: Sequence[int]) -> dict[str, list[psutil.Process]]:
    """Returns the processes that are still there, by their kind."""
    found: dict[str, list[psutil.Process]] = {}
    for pid in pids:
        try:
            process = psutil.Process(pid)
            found.setdefault(kind_of(process), []).append(process)
        except psutil.Error:
            continue
    return found


@dataclass
class Soak:
    """Rounds over one campaign. `told` has a line for each round, `kinds` counts what was disturbed and how."""

    made: Made
    chance: random.Random
    start: Start
    wanted: Sequence[str]  # the kinds to disturb
    delay: tuple[float, float]  # seconds from the start of a process of the kind to the disturbance
    told: list[str] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)
    left: list[int] = field(default_factory=list)  # what a stopped process may have kept alive

    def round(self) -> None:
        session, began = self.start(), time.monotonic()
        kind = self.chance.choice(self.wanted)
        # A session that is killed before it has begun ends nothing of the round before, so that comes first.
        while session.poll() is None and (self.left or kind not in self._found()):
            self._require_gone(began)
            time.sleep(0.1)
        time.sleep(self.chance.uniform(*self.delay))
        action = self._disturb(kind)
        time.sleep(self.chance.uniform(0, 0.5))
        session.kill()
        session.wait()
        while self.left:
            self._require_gone(began)
            time.sleep(0.05)
        self.kinds[f"{action} {kind}"] += 1
        killed = time.monotonic()
        if action == "stop":
            self.left = of_campaign(self.made.root)
        else:
            wait_for_the_end_of(self.made.root, WITHOUT_STOP * patience())
        line = f"{action} {kind}: {len(self.left)} left for the next start, {time.monotonic() - killed:.1f} s"
        self.told.append(line)
        print(line, flush=True)

    def finish(self) -> None:
        """Runs a sweep to its end, and checks that nothing is left of the last round or of it."""
        session, began = sessions(self.made, self.chance, gates=0)(), time.monotonic()
        while self.left:
            self._require_gone(began)
            time.sleep(0.05)
        session.wait()
        wait_for_the_end_of(self.made.root, WITHOUT_STOP * patience())

    def _require_gone(self, began: float) -> None:
        self.left = [pid for pid in self.left if is_alive(pid)]
        if self.left and time.monotonic() - began > WITH_STOP * patience():
            kinds = {kind: [process.pid for process in found] for kind, found in by_kind(self.left).items()}
            raise AssertionError(f"alive {time.monotonic() - began:.0f} s after the next start: {kinds}; {self.told}")

    def _found(self) -> dict[str, list[psutil.Process]]:
        """Returns the processes of this round's session by their kind."""
        return by_kind([pid for pid in of_campaign(self.made.root) if pid not in self.left])

    def _disturb(self, kind: str) -> str:
        """Sends signals to a process of this kind, and returns what was done."""
        processes, action = self._found().get(kind), self.chance.choice(ACTIONS)
        if not processes:
            return "too late for"
        process = self.chance.choice(processes)
        for number in _signals(action):
            try:
                process.send_signal(number)
            except psutil.Error:
                return "too late for"
            time.sleep(self.chance.uniform(0.1, 0.6))
        return action


def _signals(action: str) -> Iterator[signal.Signals]:
    if action == "kill":
        yield signal.SIGKILL
    else:
        yield signal.SIGSTOP
        if action != "stop":
            yield signal.SIGCONT


def sessions(made: Made, chance: random.Random, at_once: int = 2, gates: float = 0.15) -> Start:
    """Returns a function that starts a session in the background: `tracka sweep`, or now and then the gates."""

    def start() -> subprocess.Popen[bytes]:
        words = ["-m", "tracka", *made.sweep_words("--resume", "--max-parallel", str(at_once))]
        if chance.random() < gates:
            phases = ["-n", str(at_once), "-m", "phase3 or phase4", "-p", "no:cacheprovider"]
            words = ["-m", "pytest", "acceptance", "--campaign", str(made.root), *phases]
        quiet = subprocess.DEVNULL
        return subprocess.Popen([sys.executable, *words], cwd=REPOSITORY, stdout=quiet, stderr=quiet)

    return start


def table(made: Made) -> dict[str, Line]:
    """Returns all_runs.csv by run id, without durations and numbers of attempts: a killed one is kept, so they grow.

    Also without `unproven`: whether a session's gates had proven the engine before a row ran depends on the rounds.
    """
    collected = ["--runs-root", str(made.layout.runs), "--summary-csv", str(made.layout.summary / "all_runs.csv")]
    told = made.tracka("collect", *collected, "--summary-md", str(made.layout.summary / "all_runs.md"))
    assert told.returncode == 0, told.stderr
    with (made.layout.summary / "all_runs.csv").open(newline="") as file:
        return {line["run_id"]: _timeless(line) for line in csv.DictReader(file)}


def _timeless(line: Line) -> Line:
    video = re.sub(r"/attempts/\d+/", "/attempts/K/", line["video_path"])
    return line | {"duration_sec": "", "unproven": "", "video_path": video}


def differences(found: dict[str, Line], expected: dict[str, Line]) -> list[tuple[str, str, str, str]]:
    """Returns the cells that differ: run id, column, found and expected."""
    assert found.keys() == expected.keys()
    cells = ((run_id, name) for run_id, line in expected.items() for name in line)
    pairs = ((run_id, name, found[run_id][name], expected[run_id][name]) for run_id, name in cells)
    return [pair for pair in pairs if pair[2] != pair[3]]
