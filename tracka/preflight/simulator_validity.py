"""Checks whether the simulator is the benchmark's: objects must be where they are on MuJoCo 3.3.7.

A settle probe resets each task of the campaign's suites at several init states, takes lerobot's settle steps without
a policy, and compares every object's position with a committed table. The tasks' files are compared by hash. MuJoCo
3.4.0 and 3.8.1 fail the probe on libero_spatial task 5, whose bowl is 3.5 cm away. Positions are those at the moment
when the policy begins; the probe does not check whether objects are at rest then.
"""

import json
import math
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psutil

from ..campaign.campaign import Campaign
from ..core import files
from ..core.check import Check
from ..core.files import Json
from ..engines import software
from ..execution import environment, gpu, process
from ..execution.process import Bounds

TABLE = Path(__file__).with_name("tables") / "settle.v1.json"
PROBE_GIB = 2.0  # memory that one probe may take
REMEDY = "Run `make setup` (mujoco==3.3.7), or use --accept-invalid-sim, which marks the results as invalid"
UNPROBED = "not probed: the committed table does not have this suite"


@dataclass(frozen=True)
class Probe:
    """What the probe found for a suite: task -> position error in metres, and task -> simulator mismatch."""

    suite: str
    errors: Mapping[int, float]
    faults: Mapping[int, str]
    seconds: float


@dataclass(frozen=True)
class ProbeShare:
    """One process's share of a suite: its tasks, the records that it printed, and how it ended."""

    suite: str
    tasks: Sequence[int]
    records: Sequence[Json]
    exit_text: str
    seconds: float


@cache
def table() -> Json:
    """Returns the committed table: suite -> task -> name, hashes and object positions; and the tolerance in metres."""
    return files.read_json(TABLE)


def probes(
    campaign: Campaign, suites: Sequence[str], folder: Path, backend: str, prefix: Sequence[str] = ()
) -> list[Probe]:
    """Probes all tasks of those suites that the table has, and returns what was found for each suite.

    Several processes run at a time, each with a share of one suite's tasks: most of a process's time goes into
    lerobot's import and LIBERO's XML. Logs go to `folder`.
    """
    wanted = {suite: list(map(int, table()["suites"][suite])) for suite in suites if suite in table()["suites"]}
    size = max(1, -(-sum(map(len, wanted.values())) // _places()))
    shares = [
        (suite, tasks[first : first + size]) for suite, tasks in wanted.items() for first in range(0, len(tasks), size)
    ]
    with ThreadPoolExecutor(_places()) as pool:
        ended = list(pool.map(lambda share: _run(campaign, share, folder, backend, prefix), shares))
    return [_probe(suite, [each for each in ended if each.suite == suite]) for suite in wanted]


def checks(suites: Sequence[str], found: Sequence[Probe], accepted: bool) -> list[Check]:
    """Returns a check for each suite and one for MuJoCo's version. With `accepted`, a simulator mismatch only warns."""
    bad = "warn" if accepted else "fail"
    known = {probe.suite: probe for probe in found}
    made = [_suite_check(suite, known.get(suite), bad) for suite in suites]
    return [_version_check(all(check.status == "pass" for check in made), bad), *made]


def simulator_mismatches(found: Sequence[Probe]) -> dict[str, dict[str, str]]:
    """Returns suite -> task -> why the task's episodes do not count."""
    return {probe.suite: {str(task): why for task, why in probe.faults.items()} for probe in found if probe.faults}


def _version_check(alike: bool, bad: str) -> Check:
    """Checks MuJoCo's version. The pinned version passes; any other version only warns if its probes are good."""
    found, pinned = software.versions()["mujoco"], table()["mujoco"]
    if found == pinned:
        return Check("version:mujoco", "pass", f"{found}, the benchmark's")
    how = "objects of every probed task are in the same places" if alike else "objects are elsewhere, or not probed"
    return Check("version:mujoco", "warn" if alike else bad, f"{found}, not the benchmark's {pinned}: {how}", REMEDY)


def _suite_check(suite: str, probe: Probe | None, bad: str) -> Check:
    name = f"simulator:{suite}"
    if probe is None:
        return Check(
            name, "warn", UNPROBED, "Judge the suite's results with care, or add the suite with `make sim-table`"
        )
    worst = max(probe.errors.values(), default=0.0)
    tolerance = table()["tolerance"]
    allowed = f"{1000 * tolerance:g} mm are allowed"
    found = f"objects of {len(probe.errors)} tasks are within {1000 * worst:.2f} mm of their places"
    evidence = f"when the policy begins, {found}, {allowed}"
    if not probe.faults:
        return Check(name, "pass", evidence, seconds=probe.seconds)
    return Check(name, bad, _faults_text(probe.faults), REMEDY, seconds=probe.seconds)


def _faults_text(faults: Mapping[int, str]) -> str:
    """Returns the faults as text: each reason once, with its tasks."""
    tasks: dict[str, list[str]] = {}
    for task, why in faults.items():
        tasks.setdefault(why, []).append(str(task))
    return "; ".join(f"task{'s' * (len(named) > 1)} {', '.join(named)}: {why}" for why, named in tasks.items())


def _probe(suite: str, ended: Sequence[ProbeShare]) -> Probe:
    """Returns what the processes of one suite found together."""
    wanted = {int(task): value for task, value in table()["suites"][suite].items()}
    found = {record["task"]: record for each in ended for record in each.records}
    why = {task: each.exit_text for each in ended for task in each.tasks}
    errors = {task: position_error(found[task]["poses"], wanted[task]["poses"]) for task in wanted if task in found}
    faults = {task: fault for task in wanted if (fault := _fault(found.get(task), wanted[task], why[task]))}
    return Probe(suite, errors, faults, round(max(each.seconds for each in ended), 3))


def _places() -> int:
    """Returns how many probes run at a time: one for each core, as far as memory allows."""
    memory = int(psutil.virtual_memory().available / (PROBE_GIB * 2**30))
    return max(1, min(os.cpu_count() or 1, memory))


def _run(
    campaign: Campaign, share: tuple[str, Sequence[int]], folder: Path, backend: str, prefix: Sequence[str]
) -> ProbeShare:
    """Runs a process that probes a share of one suite's tasks, and returns what it printed."""
    suite, tasks = share
    stem = f"settle_{suite}_{tasks[0]}"
    out, err = folder / f"{stem}.log", folder / f"{stem}.err"
    ended = process.run(
        [*prefix, *process.python("tracka.preflight.probes.settle", suite, *map(str, tasks))],
        cwd=folder,
        env=environment.for_row(campaign, gpu.CPU_DEVICE, backend),  # robosuite loads OpenGL even if nothing is drawn
        stdout=out,
        stderr=err,
        bounds=Bounds(campaign.probe_secs),
    )
    records = [json.loads(line) for line in out.read_text().splitlines() if line.startswith('{"task"')]
    return ProbeShare(suite, tasks, records, process.last_words(ended, err), ended.seconds)


def _fault(record: Json | None, wanted: Json, why: str) -> str:
    """Returns why a task is a simulator mismatch; an empty text if it is none."""
    if record is None:
        return f"the probe ended before this task ({why})"
    other = [name for name in ("bddl", "init_states") if record[name] != wanted[name]]
    if other:
        return f"its {' and '.join(other)} file is not the benchmark's"
    if record["poses"].keys() != wanted["poses"].keys():
        return "its scene has other objects than the benchmark's"
    off = {name: position_error({name: record["poses"][name]}, {name: at}) for name, at in wanted["poses"].items()}
    worst = max(off, key=lambda name: (math.isnan(off[name]), off[name]))
    tolerance = table()["tolerance"]
    if off[worst] <= tolerance:  # NaN is not within the tolerance
        return ""
    return f"{worst} is {1000 * off[worst]:.1f} mm off when the policy begins, {1000 * tolerance:g} mm are allowed"


def position_error(
    found: Mapping[str, Sequence[Sequence[float]]], wanted: Mapping[str, Sequence[Sequence[float]]]
) -> float:
    """Returns a task's position error: the largest distance of an object from its place in the table, in metres.

    Returns NaN where one of the places is no number, and infinity where the two have no object in common.
    """
    distances = (
        math.dist(one, other)
        for name in wanted.keys() & found.keys()
        for one, other in zip(found[name], wanted[name], strict=True)
    )
    return max(distances, key=lambda distance: (math.isnan(distance), distance), default=math.inf)
