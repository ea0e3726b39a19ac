"""Leases: one GPU for one row at a time, whoever else is on the host, until the last process of the row has ended."""

import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from campaigns import REPOSITORY, ROWS, Made
from processes import wait_until

from tracka.campaign.matrix import AUTO, CPU
from tracka.core import errors, files, lock
from tracka.execution import gpu, lease, orphans, warm_process
from tracka.runs import run
from tracka.runs.endings import NoLongerWanted

HOLD = """
import subprocess, sys
from tracka.execution import lease
with lease.hold(int(sys.argv[1]), int(sys.argv[2])) as device:
    heir = subprocess.Popen(["sleep", "20"], pass_fds=device.descriptors) if "heir" in sys.argv else None
    print(device.gpu_id, heir.pid if heir else 0, flush=True)
    sys.stdin.read()
"""
Hold = Callable[..., subprocess.Popen[str]]


@pytest.fixture(autouse=True)
def locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder for the locks of this test alone, two GPUs that do not exist, and no xdist worker to prefer one."""
    monkeypatch.setenv("TRACKA_GPU_LOCKS", str(tmp_path / "locks"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setenv(gpu.PRETEND, "2")
    monkeypatch.delenv(gpu.PRETEND_NODES, raising=False)
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)


@pytest.fixture
def hold() -> Iterator[Hold]:
    """Starts a process that asks for a GPU, says which it got, and holds it until its stdin is closed."""
    started: list[subprocess.Popen[str]] = []

    def start(request: int, preferred: int = 0, *words: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", HOLD, str(request), str(preferred), *words]
        pipe = subprocess.PIPE
        started.append(subprocess.Popen(command, cwd=REPOSITORY, stdin=pipe, stdout=pipe, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        with process:
            pass


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Files in the place of the device nodes of two GPUs, which every user may open, as those of /dev."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # behind no folder of this user alone
        Path(folder).chmod(0o755)
        for number in range(2):
            node = Path(folder) / f"nvidia{number}"
            node.touch()
            node.chmod(0o666)
        monkeypatch.setenv(gpu.PRETEND_NODES, folder)
        yield Path(folder)


LOCK_NODE = """
import fcntl, os, sys
os.setgid(65534)
os.setuid(65534)
handle = os.open(sys.argv[1], os.O_RDONLY)
fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
print("held", os.getuid(), flush=True)
sys.stdin.read()
"""


def other_user_holds(node: Path) -> subprocess.Popen[str]:
    """A process of the user `nobody` that holds the lease of the GPU with this node, as Track A does it."""
    command = [sys.executable, "-S", "-c", LOCK_NODE, str(node)]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None and holder.stdout.readline() == "held 65534\n"
    return holder


def got(holder: subprocess.Popen[str]) -> int:
    """The GPU that the process holds, once it does."""
    assert holder.stdout is not None
    return int(holder.stdout.readline().split()[0])


def release(holder: subprocess.Popen[str]) -> None:
    assert holder.stdin is not None
    holder.stdin.close()


def free() -> int:
    """A GPU that nobody holds, asked for with GPU 0 preferred."""
    with lease.hold(AUTO) as device:
        return device.gpu_id


def test_users_with_locks_in_different_folders_get_different_gpus(
    hold: Hold, nodes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = got(hold(AUTO, 0))
    monkeypatch.setenv("TRACKA_GPU_LOCKS", str(tmp_path / "other locks"))
    assert (first, got(hold(AUTO, 0))) == (0, 1)
    assert lease.holder(0) == f"another user, who locks {nodes / 'nvidia0'}"


def test_what_inherits_a_lease_keeps_the_node_too(
    hold: Hold, nodes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    holder = hold(0, 0, "heir")
    assert holder.stdout is not None
    heir = psutil.Process(int(holder.stdout.readline().split()[1]))
    release(holder)
    monkeypatch.setenv("TRACKA_GPU_LOCKS", str(tmp_path / "other locks"))
    assert free() == 1
    heir.kill()
    wait_until(lambda: free() == 0)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user for a while")
def test_two_users_cannot_lease_one_gpu_whoever_owns_the_locks(nodes: Path) -> None:
    holder = other_user_holds(nodes / "nvidia0")
    try:
        assert free() == 1
    finally:
        holder.communicate()
    assert free() == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user for a while")
def test_another_user_waits_for_our_lease(nodes: Path) -> None:
    command = [sys.executable, "-S", "-c", LOCK_NODE, str(nodes / "nvidia0")]
    with lease.hold(0):
        refused = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert "BlockingIOError" in refused.stderr
    assert subprocess.run(command, stdin=subprocess.DEVNULL).returncode == 0


def test_a_gpu_whose_node_cannot_be_opened_is_leased_by_the_lock_file_alone(nodes: Path) -> None:
    (nodes / "nvidia0").unlink()
    with lease.hold(0) as device:
        assert (device.node_lock, len(device.descriptors)) == (None, 1)


def test_two_processes_get_different_gpus(hold: Hold) -> None:
    assert {got(hold(AUTO)), got(hold(AUTO))} == {0, 1}


def test_a_worker_asks_for_the_gpu_of_its_own_number_first(hold: Hold) -> None:
    assert got(hold(AUTO, 1)) == 1
    assert got(hold(AUTO, 1)) == 0


@pytest.mark.parametrize(("worker", "number"), [("gw0", 0), ("gw7", 7), (None, 0)])
def test_a_workers_number_is_that_of_its_name(monkeypatch: pytest.MonkeyPatch, worker: str | None, number: int) -> None:
    if worker:
        monkeypatch.setenv("PYTEST_XDIST_WORKER", worker)
    assert lease.worker_number() == number


def test_a_worker_beyond_the_gpus_starts_again_at_the_first(hold: Hold) -> None:
    assert got(hold(AUTO, 3)) == 1


@pytest.mark.parametrize("request_", [0, AUTO], ids=["pinned", "auto"])
def test_a_row_waits_for_its_gpu_and_gets_it_when_it_is_free(hold: Hold, request_: int) -> None:
    first, second = hold(0), hold(1)
    assert (got(first), got(second)) == (0, 1)
    waiter = hold(request_)
    with pytest.raises(subprocess.TimeoutExpired):
        waiter.wait(1)
    release(first)
    assert got(waiter) == 0


def test_a_row_that_is_no_longer_wanted_stops_waiting_for_its_gpu(hold: Hold, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise NoLongerWanted(errors.Finding("row", "not started", "run it again"))

    monkeypatch.setattr(lease, "WANTED_SECS", 0.1)
    assert got(hold(1)) == 1
    with pytest.raises(NoLongerWanted), lease.hold(1, require_wanted=refuse):
        pass


def test_a_pinned_gpu_is_taken_though_another_is_held(hold: Hold) -> None:
    assert got(hold(1)) == 1
    assert got(hold(0)) == 0


def test_an_ended_lease_is_free_again() -> None:
    assert [free(), free()] == [0, 0]


def test_a_killed_holder_leaves_its_gpu_free(hold: Hold) -> None:
    holder = hold(0)
    assert (got(holder), free()) == (0, 1)
    holder.kill()
    holder.wait()
    assert free() == 0


def test_a_gpu_stays_taken_while_a_process_that_inherited_the_lease_lives(hold: Hold) -> None:
    holder = hold(0, 0, "heir")
    assert holder.stdout is not None
    heir = psutil.Process(int(holder.stdout.readline().split()[1]))
    holder.kill()
    holder.wait()
    assert free() == 1
    heir.kill()
    wait_until(lambda: free() == 0)


def test_the_cpu_needs_no_lease(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(gpu.PRETEND, "0")
    with lease.hold(CPU) as first, lease.hold(CPU) as second:
        assert (first.visible, first.lock, first.torch_name) == ("", None, "cpu")
        assert first == second
    assert not list(tmp_path.glob("tracka-gpus-*"))


@pytest.mark.parametrize(
    ("gpus", "request_", "what"),
    [
        (2, 2, "asks for GPU 2, but the number of visible GPUs is 2"),
        (1, 7, "asks for GPU 7, but the number of visible GPUs is 1"),
    ],
)
def test_a_missing_gpu_is_named_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch, gpus: int, request_: int, what: str
) -> None:
    monkeypatch.setenv(gpu.PRETEND, str(gpus))
    with pytest.raises(errors.TrackaError, match=what) as caught, lease.hold(request_):
        pass
    assert "write auto or cpu" in caught.value.findings[0].remedy


def test_one_gpu_under_two_numbers_is_leased_once(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = gpu.Gpu(0, "3", "GPU-c", "a"), gpu.Gpu(1, "0", "GPU-d", "b")
    monkeypatch.setattr(gpu, "visible_gpus", lambda: (first, second))
    with lease.hold(1) as device:  # GPU 0 of the host
        assert device.visible == "0"
        same, free = replace(second, gpu_id=0), gpu.Gpu(1, "2", "GPU-e", "c")
        monkeypatch.setattr(gpu, "visible_gpus", lambda: (same, free))
        with lease.hold(AUTO) as other:
            assert other.visible == "2"


# rows


def test_a_row_holds_its_leased_gpu_until_it_and_its_harness_are_gone(make_campaign: Callable[..., Made]) -> None:
    made = make_campaign([*ROWS, "gpu_b1_e1,libero_object,1,1,auto,7,egl,checkpoints/fake,1"])
    made.behave(gpu_b1_e1=["slow:20"])
    made.pass_preflight()
    harness = made.start_row("gpu_b1_e1")
    wait_until(lambda: bool(made.started()))
    manifest = files.read_json(made.layout.run("gpu_b1_e1").manifest)
    assert (manifest["gpu_id"], manifest["env"]["CUDA_VISIBLE_DEVICES"]) == (0, "0")
    assert free() == 1
    harness.kill()
    harness.wait()
    wait_until(lambda: free() == 0)


def test_a_row_whose_gpu_is_missing_leaves_an_attempt_that_says_so_and_starts_nothing(
    make_campaign: Callable[..., Made], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_campaign([*ROWS, "gpu_b1_e1,libero_object,1,1,5,7,egl,checkpoints/fake,1"])
    made.pass_preflight()
    with pytest.raises(errors.TrackaError, match="GPU 5, but the number of visible GPUs is 2"):
        made.run_row("gpu_b1_e1")
    result = run.read_result(made.layout, "gpu_b1_e1")
    assert result is not None and (result["reason"], result["attempt"]) == ("device", 1)
    assert made.started() == []


# who else is on the host


def test_a_row_in_another_harness_has_a_uuid_and_the_processes_found_there(monkeypatch: pytest.MonkeyPatch) -> None:
    other = gpu.GpuProcess(17, "somebody", 900)
    monkeypatch.setattr(gpu, "processes", lambda uuid: (other,) if uuid == "GPU-pretended-1" else ())
    with lease.hold(1) as device:
        assert (device.uuid, device.others) == ("GPU-pretended-1", (other,))


def test_mig_is_refused_before_a_lock_is_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(gpu.VISIBLE, "MIG-7a0c1f4e")
    with pytest.raises(errors.TrackaError, match="MIG"), lease.hold(AUTO):
        pass
    assert not (tmp_path / "locks").exists()


def test_what_a_dead_row_left_on_a_gpu_is_ended_before_it_is_used_again(tmp_path: Path) -> None:
    with lease.hold(0) as device:
        mark = {orphans.LEASE: str(device.lock_file)}
    command = ["sleep", "20"]
    with subprocess.Popen(command, env=mark) as left, subprocess.Popen(command, env={orphans.LEASE: "x"}) as other:
        with lease.hold(1):
            assert left.poll() is None
        with lease.hold(0):
            assert left.poll() is not None
        assert other.poll() is None
        other.kill()


def test_what_cannot_be_ended_is_named_before_a_gpu_is_leased(monkeypatch: pytest.MonkeyPatch) -> None:
    with lease.hold(0) as device:
        marks = {orphans.LEASE: str(device.lock_file), orphans.ROW: "/campaign/runs/row_7"}
    monkeypatch.setattr(orphans, "KILL_SECS", 0.3)
    with subprocess.Popen(["sleep", "20"], env=marks) as left:
        with monkeypatch.context() as kernel:
            kernel.setattr(psutil.Process, "kill", lambda process: None)  # as where the kernel holds a process
            with pytest.raises(errors.TrackaError) as refused, lease.hold(0):
                pass
        (finding,) = refused.value.findings
        expected = f"GPU 0, process {left.pid} (sleep 20) of row row_7 (/campaign/runs/row_7)"
        assert finding.where == expected and "restart this host" in finding.remedy
        with lease.hold(0):
            assert left.poll() is not None


def test_what_this_session_keeps_on_a_gpu_is_no_leftover_and_nobody_else_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with lease.hold(0) as device:
        mark = {orphans.LEASE: str(device.lock_file)}
    monkeypatch.setenv(orphans.SESSION, "/ours")
    kept, of_another = ({orphans.STANDS_BY: f"{folder}/{device.uuid}.sock"} for folder in ("/ours", "/another"))
    command = ["sleep", "20"]
    with (
        subprocess.Popen(command, env=mark | kept) as ours,
        subprocess.Popen(command, env=mark | of_another) as others,
    ):
        found = (gpu.GpuProcess(ours.pid, "ours", 1), gpu.GpuProcess(1, "somebody", 2))
        monkeypatch.setattr(gpu, "processes", lambda uuid: found)
        with lease.hold(0, keep=True) as device:
            assert ours.poll() is None and others.poll() is not None
            assert device.others == found[1:]
        with lease.hold(0):
            assert ours.poll() is not None


def test_who_leases_a_gpu_waits_for_what_another_user_has_standing_by_there(tmp_path: Path) -> None:
    with lease.hold(0) as device:
        pass
    assert device.lock_file is not None
    stands = warm_process.worker_lock_file(device.lock_file)
    stands.touch()
    with subprocess.Popen(["flock", str(stands), "sleep", "1.5"]) as other:
        wait_until(lambda: is_locked(stands))
        with lease.hold(0, keep=True):
            assert other.wait(1) == 0


def is_locked(path: Path) -> bool:
    try:
        with lock.hold(path, "it"):
            return False
    except errors.Busy:
        return True


def test_the_folder_of_the_locks_is_for_every_user_of_the_host(tmp_path: Path) -> None:
    free()
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "locks").glob("*")}
    assert stat.S_IMODE((tmp_path / "locks").stat().st_mode) == 0o1777
    assert modes == {"GPU-pretended-0.lock": 0o666, "GPU-pretended-0.journal": 0o666}


@pytest.mark.parametrize("mode", [0o777, 0o770])
def test_a_folder_where_others_can_replace_locks_is_refused(tmp_path: Path, mode: int) -> None:
    (tmp_path / "locks").mkdir()
    (tmp_path / "locks").chmod(mode)
    with pytest.raises(errors.TrackaError, match=r"other users can replace the GPU locks.*chmod 1777"):
        free()


def test_a_link_in_place_of_the_folder_or_of_a_lock_is_not_followed(tmp_path: Path) -> None:
    locks, elsewhere = tmp_path / "locks", tmp_path / "elsewhere"
    elsewhere.mkdir()
    locks.symlink_to(elsewhere)
    with pytest.raises(errors.TrackaError, match="this is not a folder"):
        free()
    locks.unlink()
    locks.mkdir()
    (locks / "GPU-pretended-0.lock").symlink_to(elsewhere / "precious")
    with pytest.raises(OSError, match="symbolic link"):
        free()
    assert not list(elsewhere.iterdir())


def test_a_journal_that_has_grown_too_long_begins_anew(tmp_path: Path) -> None:
    free()
    journal = tmp_path / "locks" / "GPU-pretended-0.journal"
    journal.write_bytes(b"x" * (lease.JOURNAL_BYTES + 1))
    free()
    assert journal.stat().st_size == 0


def test_a_relative_folder_of_locks_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(lease.LOCKS, "locks")
    with pytest.raises(errors.TrackaError, match="path is not absolute"):
        free()


def test_a_lock_that_another_wrote_nonsense_into_is_waited_for_all_the_same(hold: Hold, tmp_path: Path) -> None:
    holder = hold(0)
    assert got(holder) == 0
    (tmp_path / "locks" / "GPU-pretended-0.lock").write_bytes(b"\xff\xfe" * 1000)
    assert free() == 1


def test_who_holds_a_mark_and_started_us_is_no_leftover(tmp_path: Path) -> None:
    """An editor's terminal that has a row's environment must not end with the row."""
    code = "import os\nfrom tracka.execution import orphans\nprint(orphans.end(orphans.ROW, os.environ[orphans.ROW]))"
    command = ["bash", "-c", f"{sys.executable} -c '{code}'; echo alive"]
    marks = {orphans.ROW: str(tmp_path), "PYTHONPATH": str(REPOSITORY)}
    ended = subprocess.run(command, env=os.environ | marks, capture_output=True, text=True)
    assert ended.stdout == "[]\nalive\n", ended.stderr
