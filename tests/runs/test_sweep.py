"""`tracka sweep`: many rows at once, which failures, interrupts and other sessions it survives, and what it refuses."""

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import campaigns
import psutil
import pytest
from campaigns import REPOSITORY, Made, contents
from processes import is_alive, wait_until

from tracka.campaign.shards import Shard
from tracka.core import files, lock
from tracka.execution import gpu
from tracka.reporting import collect
from tracka.runs import row_state, run
from tracka.runs.sweep import replay

BASELINE, LONG, WIDE, OFF = "baseline_b1_e2", "long_b1_e6", "wide_b4_e4", "off_b1_e1"
ENABLED = [BASELINE, LONG, WIDE]  # in the order of the matrix; LONG is the longest, WIDE the shortest
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a sweep in the background, in a process group of its own as a shell does."""
    started: list[subprocess.Popen[str]] = []

    def start_sweep(made: Made, *more: str) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        command = [sys.executable, "-m", "tracka", *made.sweep_words(*more)]
        environ = {**os.environ, **made.environ}
        started.append(
            subprocess.Popen(
                command, cwd=REPOSITORY, env=environ, stdout=pipe, stderr=pipe, text=True, start_new_session=True
            )
        )
        return started[-1]

    yield start_sweep
    for process in started:
        process.kill()
        process.communicate()


def sweep(made: Made, *more: str, **changed: object) -> subprocess.CompletedProcess[str]:
    return made.tracka(*made.sweep_words(*more, **changed))


def told(made: Made, *more: str, **changed: object) -> subprocess.CompletedProcess[str]:
    """What a sweep says that starts nothing, and so needs no process of its own."""
    return made.call(*made.sweep_words(*more, **changed))


@dataclass(frozen=True)
class Swept:
    """A campaign that was swept, for readers alone: how that ended, and how its replay line did, where it was run."""

    made: Made
    ended: subprocess.CompletedProcess[str]
    replayed: subprocess.CompletedProcess[str] | None = None


def copy(prepared: Path, folder: Path, **words: Sequence[str]) -> Made:
    shutil.copytree(prepared, folder / "campaign")
    made = campaigns.make(folder / "campaign")
    made.behave(**words)
    return made


@pytest.fixture(scope="module")
def swept(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Swept:
    """All rows pass, and the replay line is run too."""
    made = copy(prepared, tmp_path_factory.mktemp("swept"))
    ended = sweep(made)
    return Swept(made, ended, made.tracka(*shlex.split(replay_line(ended))[1:]))


@pytest.fixture(scope="module")
def failing(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Swept:
    """One row after the other; the first one crashes."""
    made = copy(prepared, tmp_path_factory.mktemp("failing"), **{LONG: ["crash"], WIDE: ["ok:1"]})
    return Swept(made, sweep(made, "--max-parallel", "1"))


def extend(made: Made, *rows: str) -> None:
    """Adds rows to the matrix."""
    with made.layout.matrix.open("a") as matrix:
        matrix.writelines(f"{row}\n" for row in rows)


def line(run_id: str, episodes: int = 1, gpu_id: str = "cpu", policy: str = "checkpoints/fake") -> str:
    return f"{run_id},libero_object,1,{episodes},{gpu_id},7,egl,{policy},1"


def everywhere(word: str, *run_ids: str) -> dict[str, list[str]]:
    """The same behaviour for all of these rows."""
    return {run_id: [word] for run_id in run_ids}


def at_one_time(made: Made) -> list[set[str]]:
    """The rows that ran together, each time one started."""
    running: set[str] = set()
    found = []
    for entry in made.journal():
        run_id, _, event = entry.split()
        running = running | {run_id} if event == "start" else running - {run_id}
        found.append(running)
    return found


def replay_line(ended: subprocess.CompletedProcess[str]) -> str:
    """The last line, which says how to run again what has not passed."""
    last = ended.stdout.splitlines()[-1]
    assert last.startswith("replay: tracka sweep ")
    return last.removeprefix("replay: ")


def rows_of(replay: str) -> list[str]:
    words = shlex.split(replay)
    return words[words.index("--rows") + 1].split(",")


# which rows


def test_every_enabled_row_runs_once_and_passes_with_exit_code_0(swept: Swept) -> None:
    assert (swept.ended.returncode, swept.ended.stderr) == (0, "")
    assert sorted(swept.made.started()) == ENABLED
    assert swept.made.statuses() == dict.fromkeys(ENABLED, ("pass", None))
    assert swept.made.evidence(*ENABLED) == []
    assert "3 of 3 rows passed" in swept.ended.stdout


def test_a_disabled_row_leaves_no_trace(swept: Swept) -> None:
    assert OFF not in swept.made.started()
    assert not swept.made.layout.run(OFF).path.exists() and not swept.made.layout.marker(OFF).exists()


def test_the_named_rows_alone_run(ready: Made) -> None:
    ended = sweep(ready, "--rows", f"{WIDE}, {BASELINE}")
    assert ended.returncode == 0
    assert sorted(ready.started()) == [BASELINE, WIDE]
    assert ready.statuses().keys() == {BASELINE, WIDE}


def test_shards_run_each_enabled_row_once(ready: Made) -> None:
    ended = [sweep(ready, "--shard", f"{number}/2", "--resume") for number in (1, 2)]
    assert [process.returncode for process in ended] == [0, 0], ended
    assert ["1 of 1 rows passed" in ended[0].stdout, "2 of 2 rows passed" in ended[1].stdout] == [True, True]
    assert ready.started()[0] == LONG and sorted(ready.started()) == ENABLED
    assert ready.evidence(*ENABLED) == []


def test_a_shard_without_a_row_is_a_sweep_that_is_done(ready: Made) -> None:
    before = contents(ready.root)
    ended = told(ready, "--shard", "4/4", "--resume")
    assert (ended.returncode, ended.stdout) == (0, "shard 4/4 has no row: there are fewer rows than shards\n")
    assert contents(ready.root) == before


def test_a_shard_and_names_of_rows_exclude_each_other(ready: Made) -> None:
    ended = told(ready, "--shard", "1/2", "--rows", LONG)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == (
        "error: --rows, --shard 1/2: --rows names the rows, and --shard chooses some. Leave one of the two out\n"
    )
    assert told(ready, "--shard", "3/2").returncode == 2


def test_the_replay_line_of_a_shard_that_passed_names_the_shard(ready: Made) -> None:
    ended = sweep(ready, "--shard", "2/2")
    assert "--shard 2/2 --max-parallel 8 --resume" in replay_line(ended) and "--rows" not in replay_line(ended)


def test_unknown_and_disabled_rows_are_refused_together_and_nothing_starts(ready: Made) -> None:
    before = contents(ready.root)
    ended = told(ready, "--rows", f"nobody,{OFF},{LONG},../x")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "error: --rows: the matrix has no row 'nobody'. Name some of " in ended.stderr
    assert "error: --rows: the matrix has no row '../x'. Name some of " in ended.stderr
    assert f"error: --rows: the row '{OFF}' is disabled. Set its column enabled to 1" in ended.stderr
    assert len(ended.stderr.splitlines()) == 3
    assert (contents(ready.root), ready.started()) == (before, [])


def test_a_line_and_its_end_are_one_write_so_that_lines_of_rows_do_not_run_together() -> None:
    reader, writer = os.pipe2(os.O_DIRECT)  # each write is a packet, which one read takes
    code = "from tracka.runs import worker; worker.print_redacted('a: pass'); worker.print_redacted('b: fail')"
    environ = {**os.environ, "PYTHONUNBUFFERED": "1"}
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, env=environ, stdout=writer, check=True)
    os.close(writer)
    with os.fdopen(reader, "rb", buffering=0) as packets:
        assert [packets.read(4096) for _ in range(3)] == [b"a: pass\n", b"b: fail\n", b""]


def test_no_summary_is_written(failing: Swept) -> None:
    assert not failing.made.layout.summary.exists()
    assert sorted(path.name for path in failing.made.layout.state.glob("*_handoff.json")) == [
        "phase1_handoff.json",
        "phase2_handoff.json",
    ]


# failures


def test_a_failure_stops_no_other_row_and_the_exit_code_is_1(failing: Swept) -> None:
    made = failing.made
    assert failing.ended.returncode == 1
    assert made.started() == [LONG, LONG, BASELINE, WIDE]  # twice: a failed row has one retry
    assert made.statuses() == {BASELINE: ("pass", None), LONG: ("fail", "crash"), WIDE: ("pass", None)}
    assert made.results(LONG) == [("fail", "crash")] * 2
    assert made.evidence(*ENABLED) == []
    assert "2 of 3 rows passed" in failing.ended.stdout


def test_each_row_says_in_one_line_how_it_went(failing: Swept) -> None:
    said = failing.ended.stdout.splitlines()
    assert f"{LONG}: fail (crash), exit code 1: RuntimeError: the stand-in was told to crash" in said
    assert f"{WIDE}: pass, 1 of 4 episodes succeeded" in said
    assert len(said) == 3 + 2


def test_a_row_whose_checkpoint_is_missing_stops_no_other(ready: Made) -> None:
    extend(ready, line("lost_b1_e9", 9, policy="checkpoints/none"))
    ended = sweep(ready, "--max-parallel", "1")
    assert ended.returncode == 1
    assert ended.stderr == (
        f"error: row lost_b1_e9: checkpoints/none: there is no folder {ready.root}/checkpoints/none. "
        "Copy the checkpoint there, or define it below [build] in campaign.toml: `tracka preflight` then builds it\n"
    )
    assert ready.statuses() == {**dict.fromkeys(ENABLED, ("pass", None)), "lost_b1_e9": ("fail", "checkpoint")}
    assert rows_of(replay_line(ended)) == ["lost_b1_e9"]


def test_a_row_that_runs_elsewhere_fails_alone_and_is_left_to_its_owner(ready: Made) -> None:
    with row_state.lock(ready.layout, LONG):
        ended = sweep(ready)
    assert ended.returncode == 1
    assert f"error: row {LONG}: " in ended.stderr and f"held by process {os.getpid()}" in ended.stderr
    assert sorted(ready.started()) == [BASELINE, WIDE]
    assert rows_of(replay_line(ended)) == [LONG]


def test_a_row_whose_process_is_killed_costs_itself_alone_and_is_closed(ready: Made) -> None:
    ready.behave(**{LONG: ["kill_harness"]})
    ended = sweep(ready, "--max-parallel", "1")
    assert ended.returncode == 1
    assert f"row {LONG}: its process was killed by signal 9" in ended.stderr
    assert ready.started() == [LONG, BASELINE, WIDE]
    assert ready.statuses() == {BASELINE: ("pass", None), LONG: ("fail", "interrupted"), WIDE: ("pass", None)}
    assert ready.results(LONG) == [("fail", "interrupted")]


def test_a_row_whose_folder_cannot_be_made_fails_alone_in_one_line(ready: Made) -> None:
    in_the_way = ready.layout.run(LONG).attempts
    files.write_text(in_the_way, "mine")
    ended = sweep(ready, "--resume")
    assert ended.returncode == 1
    assert sorted(ready.started()) == [BASELINE, WIDE]
    assert "Traceback" not in ended.stderr
    (said,) = ended.stderr.splitlines()
    assert said.startswith("error: ") and LONG in said and str(in_the_way) in said


# what is there already


def test_run_folders_in_the_way_are_refused_together_and_nothing_starts(ready: Made) -> None:
    ready.behave(**{LONG: ["crash"]})
    ready.run_row(LONG, retry_index=1)
    ready.run_row(WIDE)
    before, started = contents(ready.root, "locks"), ready.started()
    ended = told(ready)
    assert (ended.returncode, ended.stdout) == (2, "")
    where = [str(ready.layout.run(run_id).path) for run_id in (LONG, WIDE)]
    assert ended.stderr.splitlines() == [
        f"error: {path}: the run folder exists. Pass --resume to run the rows that have not passed, or name other rows"
        for path in where
    ]
    assert (contents(ready.root, "locks"), ready.started()) == (before, started)


def test_run_folders_of_rows_that_are_not_named_are_not_in_the_way(ready: Made) -> None:
    ready.run_row(LONG)
    assert sweep(ready, "--rows", f"{WIDE},{BASELINE}").returncode == 0
    assert ready.started().count(LONG) == 1


def test_a_dry_run_of_a_row_is_not_in_the_way(ready: Made) -> None:
    run.dry_run(ready.spec, ready.spec.row(LONG), run.load_host(ready.layout))
    assert sweep(ready).returncode == 0
    assert ready.statuses()[LONG] == ("pass", None)


def test_resume_runs_only_what_has_not_passed(ready: Made) -> None:
    ready.behave(**{LONG: ["crash"], BASELINE: ["ok:1"]})
    ready.run_row(LONG, retry_index=1)
    ready.run_row(BASELINE)
    passed, started = contents(ready.layout.run(BASELINE).path), len(ready.started())
    ready.behave()
    ended = sweep(ready, "--resume")
    assert ended.returncode == 0
    assert sorted(ready.started()[started:]) == [LONG, WIDE]
    assert contents(ready.layout.run(BASELINE).path) == passed
    assert f"{BASELINE}: pass, 1 of 2 episodes succeeded" in ended.stdout
    assert ready.results(LONG) == [("fail", "crash"), ("pass", None)]


def test_resume_refuses_a_row_that_passed_with_other_inputs_and_runs_the_others(ready: Made) -> None:
    ready.run_row(LONG)
    passed = contents(ready.layout.run(LONG).path)
    ready.configure(f"[rows.{LONG}]\nepisode_length = 9")
    ended = sweep(ready, "--resume")
    assert ended.returncode == 1
    assert f"error: row {LONG}: " in ended.stderr
    what = "the row passed with another matrix row, settings, checkpoint or software than today's"
    assert f"{what}: settings: episode_length" in ended.stderr
    assert contents(ready.layout.run(LONG).path) == passed
    assert sorted(ready.started()) == sorted([LONG, BASELINE, WIDE])


# the replay line


def test_the_replay_line_names_the_failed_rows_in_the_matrixs_order_and_works(
    tmp_path: Path, prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(prepared, tmp_path / "my own campaign")
    made = campaigns.make(tmp_path / "my own campaign")
    for name, value in made.environ.items():
        monkeypatch.setenv(name, value)
    made.behave(**{LONG: ["crash"], BASELINE: ["crash"]})
    first = sweep(made, "--max-parallel", "1")
    assert first.returncode == 1
    assert made.started()[0] == LONG  # the longest, which is second in the matrix
    assert rows_of(replay_line(first)) == [BASELINE, LONG]
    made.behave()
    started = len(made.started())
    again = made.tracka(*shlex.split(replay_line(first))[1:])
    assert again.returncode == 0, again.stderr
    assert sorted(made.started()[started:]) == [BASELINE, LONG]
    assert made.statuses() == dict.fromkeys(ENABLED, ("pass", None))


def test_failures_csv_is_a_matrix_that_replays_the_rows_that_failed(ready: Made) -> None:
    ready.behave(**{LONG: ["crash", "crash", "ok:3"]})
    sweep(ready)
    table = ready.layout.summary / "failures.csv"
    collect.write_tables(ready.spec, collect.tables(ready.spec))
    again = sweep(ready, "--resume", matrix=table)
    assert (again.returncode, rows_of(replay_line(again))) == (0, [LONG]), again.stderr
    assert shlex.split(replay_line(again))[3] == str(
        ready.layout.matrix
    )  # failures.csv is written anew, without the row
    collect.write_tables(ready.spec, collect.tables(ready.spec))
    empty = sweep(ready, "--resume", matrix=table)
    assert (empty.returncode, empty.stdout) == (0, f"{table} names no row: there is nothing to run again\n")


def test_the_replay_line_keeps_what_the_sweep_was_told(ready: Made) -> None:
    ready.behave(**{LONG: ["crash"]})
    words = shlex.split(replay_line(sweep(ready, "--max-parallel", "3", "--rows", f"{WIDE},{LONG}")))
    assert words == ["tracka", *ready.sweep_words("--rows", LONG, "--max-parallel", "3", "--resume")]


@pytest.mark.slow
def test_the_replay_line_of_100_000_rows_can_be_run(tmp_path: Path) -> None:
    """Linux refuses a program with a longer argument than 128 KiB, and a shell's line is one behind `ssh HOST`."""
    for count, shard, named in ((100, None, "--rows"), (100_000, None, ""), (100_000, Shard(2, 3), "--shard 2/3")):
        run_ids = [f"policy_{number:06}" for number in range(count)]
        line = replay(tmp_path / "eval_matrix.csv", tmp_path, tmp_path, 8, run_ids, shard)
        assert line.endswith("--max-parallel 8 --resume") and named in line
        assert ("--rows" in line) == (named == "--rows")
        subprocess.run(["true", *shlex.split(line)], check=True)
        subprocess.run(["bash", "-n", "-c", line], check=True)


def test_where_all_passed_the_replay_line_names_all_and_is_the_same_each_time(swept: Swept) -> None:
    assert rows_of(replay_line(swept.ended)) == ENABLED
    assert swept.replayed is not None
    assert (swept.replayed.returncode, replay_line(swept.replayed)) == (0, replay_line(swept.ended))
    assert len(swept.made.started()) == 3


# side by side


@pytest.mark.slow
def test_max_parallel_bounds_the_rows_at_one_time(ready: Made) -> None:
    more = [f"more{number}" for number in range(3)]
    extend(ready, *map(line, more))
    # The first two are slow enough to run together where starting a process takes seconds.
    ready.behave(**everywhere("slow:4", LONG, BASELINE), **everywhere("slow:0.3", WIDE, *more))
    assert sweep(ready, "--max-parallel", "2").returncode == 0
    assert max(map(len, at_one_time(ready))) == 2
    assert len(ready.started()) == 6


@pytest.mark.slow
def test_eight_rows_run_at_one_time_where_nothing_is_said(ready: Made, start: Start) -> None:
    more = [f"more{number}" for number in range(7)]
    extend(ready, *map(line, more))
    ready.behave(**everywhere("slow:60", *ENABLED, *more))
    running = start(ready)
    wait_until(lambda: len(ready.started()) == 8, 40)
    time.sleep(1)
    assert len(ready.started()) == 8
    running.terminate()
    running.communicate()


def test_the_longest_row_starts_first_and_equals_keep_the_matrixs_order(ready: Made) -> None:
    extend(ready, line("z_b1_e2", 2), line("a_b1_e2", 2), line("b_b1_e9", 9))
    sweep(ready, "--max-parallel", "1")
    assert ready.started() == ["b_b1_e9", LONG, BASELINE, "z_b1_e2", "a_b1_e2", WIDE]


def test_a_free_place_is_taken_by_the_next_row_while_a_longer_one_runs(ready: Made, start: Start) -> None:
    ready.behave(**{LONG: ["slow:60"]})
    start(ready, "--max-parallel", "2")
    wait_until(lambda: f"{WIDE} 1 end" in ready.journal())
    assert sorted(ready.started()) == ENABLED
    assert f"{LONG} 1 end" not in ready.journal()


@pytest.fixture
def gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """GPUs that do not exist, with locks of this test alone."""
    monkeypatch.setenv("TRACKA_GPU_LOCKS", str(tmp_path / "locks"))
    return lambda count: monkeypatch.setenv(gpu.PRETEND, str(count))


def devices(made: Made, run_ids: Sequence[str]) -> dict[str, tuple[int, str]]:
    """The GPU that each row ran on, and the number of the process that asked for it."""
    manifests = {run_id: files.read_json(made.layout.run(run_id).manifest) for run_id in run_ids}
    return {run_id: (manifest["gpu_id"], manifest["worker"]) for run_id, manifest in manifests.items()}


def test_rows_never_share_a_gpu(ready: Made, gpus: Callable[[int], None]) -> None:
    gpus(2)
    names = [f"gpu{number}" for number in range(5)]
    extend(ready, *(line(name, gpu_id="auto") for name in names))
    ready.behave(**everywhere("slow:4", *names[:2]), **everywhere("slow:0.3", *names[2:]))  # two at once, for sure
    assert sweep(ready, "--rows", ",".join(names)).returncode == 0
    taken = {name: number for name, (number, _) in devices(ready, names).items()}
    assert set(taken.values()) == {0, 1}
    together = at_one_time(ready)
    assert max(map(len, together)) == 2
    assert all(len({taken[name] for name in names}) == len(names) for names in together)


def test_rows_that_start_together_ask_for_gpus_of_their_own_number_first(
    ready: Made, gpus: Callable[[int], None]
) -> None:
    gpus(3)
    extend(ready, *(line(f"gpu{number}", 9 - number, "auto") for number in range(3)))
    ready.behave(**everywhere("slow:1", "gpu0", "gpu1", "gpu2"))
    assert sweep(ready, "--rows", "gpu2,gpu0,gpu1", "--max-parallel", "3").returncode == 0
    assert devices(ready, ["gpu0", "gpu1", "gpu2"]) == {"gpu0": (0, "gw0"), "gpu1": (1, "gw1"), "gpu2": (2, "gw2")}


def test_the_next_row_asks_for_the_gpu_of_the_row_whose_place_it_takes(
    ready: Made, start: Start, gpus: Callable[[int], None]
) -> None:
    gpus(2)
    extend(ready, *(line(f"gpu{number}", 9 - number, "auto") for number in range(3)))
    ready.behave(gpu0=["slow:60"])
    start(ready, "--rows", "gpu0,gpu1,gpu2", "--max-parallel", "2")
    wait_until(lambda: "gpu2 1 end" in ready.journal())
    assert devices(ready, ["gpu0", "gpu1", "gpu2"]) == {"gpu0": (0, "gw0"), "gpu1": (1, "gw1"), "gpu2": (1, "gw1")}


@pytest.mark.slow
def test_a_row_whose_gpu_is_held_keeps_no_place_from_another(ready: Made, gpus: Callable[[int], None]) -> None:
    gpus(2)
    extend(ready, line("first", 9, "0"), line("second", 8, "0"), line("short", 1))
    ready.behave(first=["slow:4"])
    assert sweep(ready, "--rows", "first,second,short", "--max-parallel", "2").returncode == 0
    assert sorted(ready.started()[:2]) == ["first", "short"] and ready.started()[2:] == ["second"]
    assert ready.journal().index("short 1 end") < ready.journal().index("first 1 end")
    assert [place[0] for place in devices(ready, ["first", "second"]).values()] == [0, 0]


def test_two_shards_run_side_by_side_and_share_no_gpu(ready: Made, start: Start, gpus: Callable[[int], None]) -> None:
    gpus(2)
    extend(ready, line("gpu0", gpu_id="auto"), line("gpu1", gpu_id="auto"))
    ready.behave(gpu0=["slow:4"], gpu1=["slow:4"])
    shards = [start(ready, "--rows", "gpu0"), start(ready, "--rows", "gpu1")]
    wait_until(lambda: len(ready.started()) == 2)
    assert [shard.communicate()[1] for shard in shards] == ["", ""]
    assert [shard.returncode for shard in shards] == [0, 0]
    assert max(map(len, at_one_time(ready))) == 2
    assert {number for number, _ in devices(ready, ["gpu0", "gpu1"]).values()} == {0, 1}


# one session a campaign


@pytest.mark.parametrize("more", [("--resume",), pytest.param((), marks=pytest.mark.slow)], ids=["resume", "fresh"])
def test_a_second_sweep_of_all_rows_is_refused_at_once_and_names_the_first(
    ready: Made, start: Start, more: Sequence[str]
) -> None:
    ready.behave(**{LONG: ["slow:60"]})
    first = start(ready, "--rows", ",".join(ENABLED))  # which are all rows, though by their names
    wait_until(lambda: LONG in ready.started())
    second = sweep(ready, *more)
    assert (second.returncode, second.stdout) == (5, "")
    assert f"campaign campaign is held by process {first.pid}. Wait for that process, or end it" in second.stderr
    assert len(second.stderr.splitlines()) == 1
    assert ready.started().count(LONG) == 1
    assert first.poll() is None


def test_the_gates_are_refused_while_a_sweep_runs_and_name_it(ready: Made, start: Start) -> None:
    ready.behave(**{LONG: ["slow:60"]})
    first = start(ready)
    wait_until(lambda: LONG in ready.started())
    gates = ready.pytest()
    assert gates.returncode == 4
    assert f"campaign campaign is held by process {first.pid}. Wait for that process, or end it" in gates.stderr
    assert first.poll() is None


def test_a_sweep_of_all_rows_is_refused_while_the_gates_run(ready: Made) -> None:
    with lock.session(ready.layout.locks, "campaign"):  # as the gates hold it
        before = contents(ready.root, "locks")
        ended = told(ready)
    assert ended.returncode == 5
    assert f"is held by process {os.getpid()}" in ended.stderr
    assert (contents(ready.root, "locks"), ready.started()) == (before, [])


# cut short

HOW = {
    "TERM": lambda running: running.terminate(),
    "INT": lambda running: running.send_signal(signal.SIGINT),
    "Ctrl-C": lambda running: os.killpg(running.pid, signal.SIGINT),
    "timeout": lambda running: (running.terminate(), os.killpg(running.pid, signal.SIGTERM)),  # GNU's, and schedulers
}


@pytest.mark.parametrize(
    "interrupt",
    [pytest.param(how, marks=[] if name == "Ctrl-C" else pytest.mark.slow, id=name) for name, how in HOW.items()],
)
def test_an_interrupt_closes_the_running_rows_and_leaves_no_process(
    ready: Made, start: Start, interrupt: Callable[[subprocess.Popen[str]], object]
) -> None:
    ready.behave(**{LONG: ["hang"], BASELINE: ["slow:60"]})
    running = start(ready, "--max-parallel", "2")
    out = ready.layout.run(LONG).stdout
    wait_until(lambda: len(ready.started()) == 2 and out.exists() and out.read_text().endswith("\n"))
    tree = psutil.Process(running.pid).children(recursive=True)
    interrupt(running)
    said = running.communicate(timeout=30)[1]
    assert running.returncode not in (0, 1)
    wait_until(lambda: not any(is_alive(child.pid) for child in tree), 2)
    assert ready.statuses() == {
        BASELINE: ("fail", "interrupted"),
        LONG: ("fail", "interrupted"),
        WIDE: ("pending", None),
    }
    assert sorted(ready.started()) == [BASELINE, LONG]
    assert ready.evidence(BASELINE, LONG) == []
    assert "Traceback" not in said


def test_a_rows_process_leaves_ctrl_c_to_the_sweep_from_its_first_moment(ready: Made, start: Start) -> None:
    running = start(ready, "--rows", LONG)
    while LONG not in ready.started() and running.poll() is None:
        for process in row_processes(running):
            process.send_signal(signal.SIGINT)
        time.sleep(0.01)
    said = running.communicate()[1]
    assert (running.returncode, said) == (0, "")


def row_processes(running: subprocess.Popen[str]) -> list[psutil.Process]:
    """The processes of a sweep's rows, as soon as they are Pythons of their own."""
    found = []
    with contextlib.suppress(psutil.Error):
        children = psutil.Process(running.pid).children()
        found = [child for child in children if "tracka.runs.worker" in child.cmdline()]
    return found


def has_planned(process: psutil.Process) -> bool:
    """Whether the process has read a checkpoint, for which it loads a package that it does not need otherwise."""
    return any("numpy" in item.path for item in process.memory_maps())


def test_the_process_of_the_next_row_starts_and_plans_while_a_row_plays_and_may_die(ready: Made, start: Start) -> None:
    ready.behave(**{LONG: ["slow:60", "ok"]})
    running = start(ready, "--max-parallel", "1")
    wait_until(lambda: LONG in ready.started() and len(row_processes(running)) == 2)
    waiting = max(row_processes(running), key=lambda process: (process.create_time(), process.pid))  # 0.01 s is a tick
    wait_until(lambda: has_planned(waiting))
    assert ready.started() == [LONG]
    waiting.kill()
    [evaluation] = ready.pids()
    os.kill(evaluation, signal.SIGKILL)
    said, errors = running.communicate()
    assert (running.returncode, errors) == (0, ""), said + errors
    assert ready.results(LONG) == [("fail", "killed"), ("pass", None)]
    assert ready.statuses() == dict.fromkeys(ENABLED, ("pass", None))


@pytest.mark.slow
def test_after_an_interrupt_resume_ends_everything(ready: Made, start: Start) -> None:
    ready.behave(**{LONG: ["slow:60", "ok"]})
    running = start(ready, "--max-parallel", "1")
    wait_until(lambda: LONG in ready.started())
    running.terminate()
    running.communicate()
    assert sweep(ready, "--resume").returncode == 0
    assert ready.statuses() == dict.fromkeys(ENABLED, ("pass", None))
    assert ready.results(LONG) == [("fail", "interrupted"), ("pass", None)]


def test_a_killed_sweep_leaves_no_evaluation_and_resume_ends_everything(ready: Made, start: Start) -> None:
    ready.behave(**{LONG: ["slow:60", "ok"], BASELINE: ["slow:60", "ok"]})
    running = start(ready, "--max-parallel", "2")
    wait_until(lambda: len(ready.started()) == 2)
    tree = [child.pid for child in psutil.Process(running.pid).children(recursive=True)]
    supervisors = [psutil.Process(pid).ppid() for pid in ready.pids()]
    running.kill()
    running.communicate()
    wait_until(lambda: not any(map(is_alive, [*tree, *supervisors, *ready.pids()])), 5)
    assert {status for status, _ in ready.statuses().values()} == {"running", "pending"}
    ended = sweep(ready, "--resume")
    assert ended.returncode == 0, ended.stderr
    assert ready.statuses() == dict.fromkeys(ENABLED, ("pass", None))
    assert ready.results(LONG) == ready.results(BASELINE) == [("fail", "interrupted"), ("pass", None)]
    assert ready.evidence(*ENABLED) == []


# dry runs


def test_a_dry_run_prints_the_command_of_each_row_and_writes_nothing_at_all(ready: Made, swept: Swept) -> None:
    before = contents(ready.root)
    ended = told(ready, "--dry-run")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert (contents(ready.root), ready.started()) == (before, [])
    said = dict(text.split(": ", 1) for text in ended.stdout.splitlines())
    assert list(said) == ENABLED
    commands = {run_id: files.read_json(swept.made.layout.run(run_id).manifest)["command"] for run_id in ENABLED}
    assert {run_id: shlex.split(text) for run_id, text in said.items()} == commands


def test_a_dry_run_tells_of_the_named_rows_alone_though_their_folders_exist(ready: Made) -> None:
    ready.run_row(LONG)
    before = contents(ready.root)
    ended = told(ready, "--dry-run", "--rows", LONG)
    assert ended.returncode == 0
    assert [text.split(":")[0] for text in ended.stdout.splitlines()] == [LONG]
    assert contents(ready.root) == before


def test_a_dry_run_needs_neither_gpu_nor_checkpoint_and_no_other_session_is_in_its_way(ready: Made) -> None:
    extend(ready, line("gpu_b1_e1", gpu_id="auto", policy="nobody/nothing"))
    with lock.session(ready.layout.locks, "campaign"):
        ended = told(ready, "--dry-run")
    assert ended.returncode == 0, ended.stderr
    assert "--policy.path=nobody/nothing --policy.device=cuda" in ended.stdout


# places


def test_a_matrix_of_another_campaign_is_refused_and_nothing_is_written(ready: Made, tmp_path: Path) -> None:
    other = campaigns.make(tmp_path / "other")
    before = contents(tmp_path)
    ended = told(ready, matrix=other.layout.matrix)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert f"error: --artifacts-root: {other.layout.matrix} belongs to the campaign {other.root}" in ended.stderr
    assert f"Name {other.layout.runs}" in ended.stderr
    assert (contents(tmp_path), ready.started(), other.started()) == (before, [], [])


@pytest.mark.parametrize("where", ["elsewhere", "campaign/artifacts/rows", "campaign/artifacts/state"])
def test_a_status_dir_that_is_not_beside_the_runs_is_refused_and_nothing_is_written(
    ready: Made, tmp_path: Path, where: str
) -> None:
    before = contents(tmp_path)
    ended = told(ready, status_dir=tmp_path / where)
    assert (ended.returncode, ended.stdout) == (2, "")
    said = f"the markers of {ready.layout.runs} are in {ready.layout.rows}, not in {tmp_path / where}"
    assert ended.stderr == f"error: --status-dir: {said}. Name the folder of the markers\n"
    assert (contents(tmp_path), ready.started()) == (before, [])


def test_wrong_places_and_a_wrong_matrix_are_refused_together(ready: Made, tmp_path: Path) -> None:
    other = campaigns.make(tmp_path / "other")
    extend(other, line("../x"))
    ended = told(ready, matrix=other.layout.matrix, status_dir=tmp_path)
    assert ended.returncode == 2
    for said in ("error: --status-dir: ", "error: --artifacts-root: ", "column run_id: '../x'"):
        assert said in ended.stderr


def other_names(made: Made, root: Path) -> Path:
    """Moves what the first two phases left to `root`/out, and returns the folder that is to be the runs'."""
    made.layout.artifacts.rename(root / "out")
    return root / "out" / "evals"


def test_everything_lies_below_an_artifacts_root_of_other_names(ready: Made) -> None:
    runs = other_names(ready, ready.root)
    before = contents(ready.root)
    ended = sweep(ready, artifacts_root=runs, status_dir=runs.parent / "state" / "rows")
    assert ended.returncode == 0, ended.stderr
    assert sorted(path.name for path in runs.iterdir()) == ENABLED
    assert sorted(path.stem for path in (runs.parent / "state" / "rows").iterdir()) == ENABLED
    new = contents(ready.root).keys() - before.keys() - {"standin.log"}
    assert [name for name in sorted(new) if not name.startswith("out/")] == []
    assert all(files.read_json(runs / run_id / "result.json")["status"] == "pass" for run_id in ENABLED)


def test_a_run_and_a_table_of_runs_follow_an_artifacts_root_of_other_names(ready: Made, tmp_path: Path) -> None:
    runs = other_names(ready, ready.root)
    before = contents(ready.root)
    words = ("--run-id", WIDE, "--policy-path", "checkpoints/fake", "--task-suite", "libero_object", "--gpu-id", "cpu")
    numbers = ("--batch-size", "4", "--n-episodes", "4", "--mujoco-gl", "egl", "--artifacts-root", str(runs))
    assert ready.tracka("run", *words, *numbers).returncode == 0
    new = contents(ready.root).keys() - before.keys() - {"standin.log"}
    assert [name for name in sorted(new) if not name.startswith("out/")] == []
    assert files.read_json(runs.parent / "state" / "rows" / f"{WIDE}.json")["status"] == "pass"
    assert sweep(ready, "--resume", artifacts_root=runs, status_dir=runs.parent / "state" / "rows").returncode == 0
    assert ready.started().count(WIDE) == 1
    tables = [tmp_path / "all.csv", tmp_path / "all.md", tmp_path / "failures.csv"]
    options = ("--runs-root", str(runs), "--summary-csv", str(tables[0]), "--summary-md", str(tables[1]))
    assert ready.call("collect", *options, "--failures-csv", str(tables[2])).returncode == 0
    lines = tables[0].read_text().splitlines()[1:]
    assert [text.split(",")[0] for text in lines] == ENABLED
    assert all(",pass,out/evals/" in text for text in lines)
    assert len(tables[2].read_text().splitlines()) == 1


@pytest.mark.slow
def test_without_a_campaign_around_it_a_matrix_is_swept_into_the_folder_that_is_named(
    ready: Made, tmp_path: Path
) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    runs = other_names(ready, bare)
    matrix = bare / "some.csv"
    header = ready.layout.matrix.read_text().splitlines()[0]
    policy = ready.root / "checkpoints" / "fake"
    matrix.write_text(f"{header}\n{line('a', policy=str(policy))}\n{line('b', policy=str(policy))}\n")
    ready.behave(a=["slow:0.2"])
    ended = sweep(ready, matrix=matrix, artifacts_root=runs, status_dir=runs.parent / "state" / "rows")
    assert ended.returncode == 0, ended.stderr
    assert sorted(path.name for path in runs.iterdir()) == ["a", "b"]
    assert sorted(path.name for path in bare.iterdir()) == ["out", "some.csv"]


def test_places_are_meant_from_where_the_user_stands(ready: Made) -> None:
    words = ready.sweep_words(
        matrix="configs/eval_matrix.csv", artifacts_root="artifacts/runs", status_dir="artifacts/state/rows"
    )
    ended = subprocess.run(
        [sys.executable, "-m", "tracka", *words], cwd=ready.root, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert ready.statuses() == dict.fromkeys(ENABLED, ("pass", None))
    assert f"replay: {shlex.join(['tracka', *words])} --rows {','.join(ENABLED)}" in ended.stdout


# before the first phases


@pytest.mark.parametrize("missing", ["capabilities", "preflight_report"])
def test_without_discovery_or_preflight_it_is_said_what_to_run_first_and_nothing_starts(
    ready: Made, missing: str
) -> None:
    lost: Path = getattr(ready.layout, missing)
    lost.unlink()
    before = contents(ready.root)
    ended = told(ready)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert str(lost) in ended.stderr
    assert re.search(r"pytest --pyargs tracka\.acceptance|tracka (discover|preflight)", ended.stderr), ended.stderr
    assert (contents(ready.root), ready.started()) == (before, [])


def test_where_preflight_found_no_backend_nothing_starts_and_its_reason_is_said(ready: Made) -> None:
    path = ready.layout.preflight_report
    report = files.read_json(path) | {"mujoco_gl_effective": None, "status": "blocked", "blocker": "no EGL here"}
    files.write_json(path, report)
    before = contents(ready.root)
    ended = told(ready)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert f"error: {path}: preflight is blocked (no EGL here). Mend the cause" in ended.stderr
    assert (contents(ready.root), ready.started()) == (before, [])


# odd parents


def shell(ready: Made, script: str) -> subprocess.CompletedProcess[str]:
    """Runs `script`, in which "$@" is a sweep of the long row."""
    words = [sys.executable, "-m", "tracka", *ready.sweep_words("--rows", LONG)]
    command = ["bash", "-c", script, "bash", *words]
    return subprocess.run(command, cwd=REPOSITORY, env={**os.environ, **ready.environ}, capture_output=True, text=True)


def test_an_exit_code_counts_though_our_parent_ignored_the_ends_of_children(ready: Made) -> None:
    ready.behave(**{LONG: ["late:0=1"]})
    ended = shell(ready, 'trap "" CHLD; exec "$@"')
    assert (ended.returncode, ready.results(LONG)) == (1, [("fail", "crash"), ("fail", "crash")])


def test_a_row_runs_without_standard_files(ready: Made) -> None:
    assert shell(ready, '"$@" <&- >&- 2>&-').returncode == 0
    assert ready.results(LONG) == [("pass", None)]


def test_a_reader_who_has_gone_changes_no_outcome(ready: Made) -> None:
    assert shell(ready, '"$@" | true; exit ${PIPESTATUS[0]}').returncode == 0
    assert ready.results(LONG) == [("pass", None)]


@pytest.mark.parametrize("mark", ["TRACKA_ROW", "TRACKA_LEASE"])
def test_the_environment_of_a_row_is_refused(ready: Made, mark: str) -> None:
    ended = shell(ready, f'{mark}=/somewhere "$@"')
    assert ended.returncode == 2 and f"unset {mark}" in ended.stderr
    assert ready.started() == []


def test_a_secret_in_a_rows_line_is_redacted(ready: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_SECRETSECRET123")
    ready.behave(**{LONG: ["crash:hf_SECRETSECRET123"]})
    ended = shell(ready, '"$@"')
    assert "[redacted]" in ended.stdout and "hf_SECRETSECRET123" not in ended.stdout + ended.stderr


def test_a_program_that_goes_on_after_an_interrupted_sweep_is_interrupted_no_more(ready: Made) -> None:
    ready.behave(**{LONG: ["slow:60"]})
    words = [*ready.sweep_words("--rows", LONG)]
    code = f"""
import sys, time
from typer.testing import CliRunner
from tracka import cli
ended = CliRunner().invoke(cli.app, {words!r})
time.sleep(2.5)
print(ended.exit_code, "goes on")
"""
    with subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=REPOSITORY,
        env={**os.environ, **ready.environ},
        stdout=-1,
        stderr=-1,
        text=True,
    ) as running:
        wait_until(lambda: LONG in ready.started())
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=60)
    assert (out.splitlines()[-1:], err) == (["130 goes on"], "")
