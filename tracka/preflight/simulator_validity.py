"""Checks whether the simulator is the benchmark's: objects must be where they are on MuJoCo 3.3.7.

A settle probe resets each task of the campaign's suites at several init states, takes lerobot's settle steps without
a policy, and compares every object's position with a committed table. The tasks' files are compared by hash. MuJoCo
3.4.0 and 3.8.1 fail the probe on libero_spatial task 5, whose bowl is 3.5 cm away. Positions are those at the moment
when the policy begins; the probe does not check whether objects are at rest then.
"""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psutil

from ..campaign.campaign import Campaign
from ..core import files, installation, parsing
from ..core.check import Check
from ..core.files import Json
from ..engines import software
from ..execution import environment, gpu, process
from ..execution.lanes import Lanes
from ..execution.process import Bounds

TABLE = Path(__file__).with_name("tables") / "settle.v1.json"
PROBE_GIB = 2.0  # memory that one probe may take
REMEDY = f"Run `{installation.SETUP}` (mujoco==3.3.7), or use --accept-invalid-sim, which marks the results as invalid"
UNPROBED = "not probed: the committed table does not have this suite"


@dataclass(frozen=True)
class Probe:
    """What the probe found for a suite: task -> position error in metres, and task -> simulator mismatch.

    `timed_out` says that a process took too long to come to all of its tasks.
    """

    suite: str
    errors: Mapping[int, float]
    faults: Mapping[int, str]
    seconds: float
    timed_out: bool = False


@dataclass(frozen=True)
class ProbeShare:
    """One process's share of a suite: its tasks, the records that it printed, and how it ended."""

    suite: str
    tasks: Sequence[int]
    records: Sequence[Json]
    exit_text: str
    seconds: float
    timed_out: bool

    @property
    def is_late(self) -> bool:
        """Returns whether the process took too long to come to all of its tasks."""
        return self.timed_out and len(self.records) < len(self.tasks)


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
    suite_tasks = {suite: list(map(int, table()["suites"][suite])) for suite in suites if suite in table()["suites"]}
    size = max(1, -(-sum(map(len, suite_tasks.values())) // _parallel_probes()))
    shares = [
        (suite, tasks[first : first + size])
        for suite, tasks in suite_tasks.items()
        for first in range(0, len(tasks), size)
    ]
    with Lanes(_parallel_probes()) as pool:
        probe_shares = list(
            pool.map(lambda task_share: _run_share(campaign, task_share, folder, backend, prefix), shares)
        )
    return [_probe(suite, [share for share in probe_shares if share.suite == suite]) for suite in suite_tasks]


def checks(suites: Sequence[str], suite_probes: Sequence[Probe], accepted: bool) -> list[Check]:
    """Returns a check for each suite and one for MuJoCo's version. With `accepted`, a simulator mismatch only warns."""
    failing_status = "warn" if accepted else "fail"
    probes_by_suite = {probe.suite: probe for probe in suite_probes}
    suite_checks = [_suite_check(suite, probes_by_suite.get(suite), failing_status) for suite in suites]
    return [_version_check(all(check.status == "pass" for check in suite_checks), failing_status), *suite_checks]


def simulator_mismatches(suite_probes: Sequence[Probe]) -> dict[str, dict[str, str]]:
    """Returns suite -> task -> why the task's episodes do not count."""
    return {
        probe.suite: {str(task): fault for task, fault in probe.faults.items()}
        for probe in suite_probes
        if probe.faults
    }


def _version_check(alike: bool, failing_status: str) -> Check:
    """Checks MuJoCo's version. The pinned version passes; any other version only warns if its probes are good."""
    installed, pinned = software.versions()["mujoco"], table()["mujoco"]
    if installed == pinned:
        return Check("version:mujoco", "pass", f"{installed}, the benchmark's")
    probe_text = (
        "objects of every probed task are in the same places" if alike else "objects are elsewhere, or not probed"
    )
    return Check(
        "version:mujoco",
        "warn" if alike else failing_status,
        f"{installed}, not the benchmark's {pinned}: {probe_text}",
        REMEDY,
    )


def _suite_check(suite: str, probe: Probe | None, failing_status: str) -> Check:
    name = f"simulator:{suite}"
    if probe is None:
        remedy = "Judge the suite's results with care, or add the suite with `make sim-table` in a checkout"
        return Check(name, "warn", UNPROBED, remedy)
    worst = max(probe.errors.values(), default=0.0)
    tolerance = table()["tolerance"]
    allowed = f"{1000 * tolerance:g} mm are allowed"
    places_text = f"objects of {len(probe.errors)} tasks are within {1000 * worst:.2f} mm of their places"
    evidence = f"when the policy begins, {places_text}, {allowed}"
    if not probe.faults:
        return Check(name, "pass", evidence, seconds=probe.seconds)
    faults_text = _faults_text(probe.faults)
    return Check(name, failing_status, faults_text, REMEDY, seconds=probe.seconds, timed_out=probe.timed_out)


def _faults_text(faults: Mapping[int, str]) -> str:
    """Returns the faults as text: each reason once, with its tasks."""
    tasks: dict[str, list[str]] = {}
    for task, fault in faults.items():
        tasks.setdefault(fault, []).append(str(task))
    return "; ".join(
        f"task{'s' * (len(task_ids) > 1)} {', '.join(task_ids)}: {fault}" for fault, task_ids in tasks.items()
    )


def _probe(suite: str, shares: Sequence[ProbeShare]) -> Probe:
    """Returns what the processes of one suite found together."""
    expected = {int(task): value for task, value in table()["suites"][suite].items()}
    records = {record["task"]: record for share in shares for record in share.records}
    exit_texts = {task: share.exit_text for share in shares for task in share.tasks}
    errors = {
        task: position_error(records[task]["poses"], expected[task]["poses"]) for task in expected if task in records
    }
    faults = {
        task: fault for task in expected if (fault := _fault(records.get(task), expected[task], exit_texts[task]))
    }
    seconds = round(max(share.seconds for share in shares), 3)
    return Probe(suite, errors, faults, seconds, any(share.is_late for share in shares))


def _parallel_probes() -> int:
    """Returns how many probes run at a time: one for each core, as far as memory allows."""
    memory = int(psutil.virtual_memory().available / (PROBE_GIB * 2**30))
    return max(1, min(os.cpu_count() or 1, memory))


def _run_share(
    campaign: Campaign, share: tuple[str, Sequence[int]], folder: Path, backend: str, prefix: Sequence[str]
) -> ProbeShare:
    """Runs a process that probes a share of one suite's tasks, and returns what it printed."""
    suite, tasks = share
    stem = f"settle_{suite}_{tasks[0]}"
    out, err = folder / f"{stem}.log", folder / f"{stem}.err"
    process_exit = process.run(
        [*prefix, *process.python("tracka.preflight.probes.settle", suite, *map(str, tasks))],
        cwd=folder,
        env=environment.for_row(campaign, gpu.CPU_DEVICE, backend),  # robosuite loads OpenGL even if nothing is drawn
        stdout=out,
        stderr=err,
        bounds=Bounds(campaign.probe_secs),
    )
    records = [*parsing.printed_values(files.read_text(out), '{"task"', not_finite=True)]
    exit_text = process.cause_of_end(process_exit, out, err)
    return ProbeShare(suite, tasks, records, exit_text, process_exit.seconds, process_exit.timed_out)


def _fault(record: Json | None, expected: Json, exit_text: str) -> str:
    """Returns why a task is a simulator mismatch; an empty text if it is none."""
    if record is None:
        return f"the probe did not come to this task ({exit_text})"
    changed_files = [name for name in ("bddl", "init_states") if record[name] != expected[name]]
    if changed_files:
        return f"its {' and '.join(changed_files)} file is not the benchmark's"
    if record["poses"].keys() != expected["poses"].keys():
        return "its scene has other objects than the benchmark's"
    errors = {name: position_error({name: record["poses"][name]}, {name: at}) for name, at in expected["poses"].items()}
    worst = max(errors, key=lambda name: (math.isnan(errors[name]), errors[name]))
    tolerance = table()["tolerance"]
    if errors[worst] <= tolerance:  # NaN is not within the tolerance
        return ""
    return f"{worst} is {1000 * errors[worst]:.1f} mm off when the policy begins, {1000 * tolerance:g} mm are allowed"


def position_error(
    positions: Mapping[str, Sequence[Sequence[float]]], expected: Mapping[str, Sequence[Sequence[float]]]
) -> float:
    """Returns a task's position error: the largest distance of an object from its place in the table, in metres.

    Returns NaN where one of the places is no number, and infinity where the two have no object in common.
    """
    distances = (
        math.dist(position, expected_position)
        for name in expected.keys() & positions.keys()
        for position, expected_position in zip(positions[name], expected[name], strict=True)
    )
    return max(distances, key=lambda distance: (math.isnan(distance), distance), default=math.inf)
