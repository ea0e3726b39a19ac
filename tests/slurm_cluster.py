"""Starts a real Slurm of two nodes for tests, in network, process and mount namespaces of its own.

Its daemons are Debian's: apt-get install slurmctld slurmd slurm-client munge. Only root can start it.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
from processes import is_alive, wait_until

SCRIPT = Path(__file__).parent / "slurm" / "cluster.sh"
PROGRAMS = ("slurmctld", "slurmd", "munged", "srun", "unshare", "ip")
NODES = ("node1", "node2")
START_SECS = 60.0


def missing() -> str:
    """Returns why no cluster can be started here; an empty text where one can."""
    if os.getuid() != 0:
        return "only root can start a Slurm of its own"
    absent = [name for name in PROGRAMS if shutil.which(name, path=_path()) is None]
    return f"{', '.join(absent)} missing: apt-get install slurmctld slurmd slurm-client munge" if absent else ""


def _path() -> str:
    """Returns the search path with the folders of daemons."""
    return os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])


@dataclass(frozen=True)
class Cluster:
    """A running Slurm: its folder, and the process whose namespaces it has."""

    folder: Path
    init: int

    @property
    def environ(self) -> dict[str, str]:
        """Returns the variables by which Slurm's programs find this cluster."""
        return {"SLURM_CONF": str(self.folder / "slurm.conf")}

    @contextlib.contextmanager
    def joined(self) -> Iterator[None]:
        """Puts this process, and what it starts, into the cluster's network, as if it were a login node."""
        with Path("/proc/self/ns/net").open() as own, Path(f"/proc/{self.init}/ns/net").open() as net:
            os.setns(net.fileno(), os.CLONE_NEWNET)
            try:
                yield
            finally:
                os.setns(own.fileno(), os.CLONE_NEWNET)

    def ask(self, *words: str) -> str:
        """Returns what a program of Slurm prints."""
        command = ["nsenter", f"--net=/proc/{self.init}/ns/net", *words]
        environ = {**os.environ, **self.environ}
        ended = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60)
        assert ended.returncode == 0, f"{words}: {ended.stderr}"
        return ended.stdout

    def jobs(self) -> list[str]:
        """Returns the jobs and steps that have not ended, each with its name and state."""
        steps = [line for line in self.ask("squeue", "-h", "-s", "-o", "%i %j").splitlines() if line]
        return [*self.ask("squeue", "-h", "-o", "%i %j %T %r %N").splitlines(), *steps]

    def control(self, *words: str) -> None:
        """Starts a daemon that has ended: `slurmctld`, or `slurmd` and a node."""
        command = ["nsenter", f"--target={self.init}", "--all", "bash", str(SCRIPT), str(self.folder), *words]
        subprocess.run(command, env={"PATH": _path()}, check=True, capture_output=True, timeout=60)

    def pid(self, name: str) -> int:
        """Returns the process id, as this process sees it, of `slurmctld` or of a node's slurmd."""
        inner = int((self.folder / f"{name}.pid").read_text())
        for process in psutil.Process(self.init).children(recursive=True):
            with contextlib.suppress(OSError):
                status = Path(f"/proc/{process.pid}/status").read_text()
                if status.partition("NSpid:")[2].split("\n")[0].split()[-1:] == [str(inner)]:
                    return process.pid
        raise LookupError(name)

    def kill(self, name: str) -> None:
        """Kills `slurmctld`, or the slurmd of a node, with what the node runs."""
        pid = self.pid(name)
        victims = [pid, *(self.of_node(name) if name in NODES else ())]
        for each in victims:
            with contextlib.suppress(ProcessLookupError):
                os.kill(each, signal.SIGKILL)
        wait_until(lambda: not any(map(is_alive, victims)))

    def of_node(self, name: str) -> list[int]:
        """Returns the processes of the jobs on a node, whose host name is the node's."""
        daemon = Path(f"/proc/{self.pid(name)}/ns/uts").readlink()
        found = []
        for process in psutil.Process(self.init).children(recursive=True):
            with contextlib.suppress(OSError):
                if Path(f"/proc/{process.pid}/ns/uts").readlink() == daemon and process.pid != self.pid(name):
                    found.append(process.pid)
        return found

    def programs(self) -> list[str]:
        """Returns the command lines of what jobs run on the nodes now."""
        lines = []
        for process in psutil.Process(self.init).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                line = " ".join(process.cmdline()).removeprefix(": ")  # slurmctld's own child has such a name
                if is_alive(process.pid) and not line.startswith(("slurm", "munged", "sleep infinity", "bash", "/usr")):
                    lines.append(line)
        return lines

    def heal(self) -> None:
        """Starts what does not run, ends all jobs, and waits until both nodes are idle."""
        self.heal_daemons()
        for number in {job.split()[0].partition(".")[0] for job in self.jobs()}:
            self.ask("scancel", "--quiet", number)
        wait_until(self._is_resumed, START_SECS)

    def heal_daemons(self) -> None:
        """Starts what does not run, and waits until the controller answers."""
        for name, words in {"slurmctld": ("slurmctld",), **{node: ("slurmd", node) for node in NODES}}.items():
            try:
                alive = is_alive(self.pid(name))
            except (LookupError, OSError):
                alive = False
            if not alive:
                self.control(*words)
        wait_until(self._answers, START_SECS)

    def _is_resumed(self) -> bool:
        """Returns whether both nodes wait for a job, after a node that is drained or down was told to come back."""
        for node in NODES:
            state = self.ask("sinfo", "-h", "-N", "-p", "two", "-n", node, "-o", "%T")
            if "down" in state or "drain" in state:
                with contextlib.suppress(AssertionError):  # a node that has just answered needs no more
                    self.ask("scontrol", "update", f"nodename={node}", "state=resume")
        return self.is_idle()

    def _answers(self) -> bool:
        try:
            return bool(self.ask("scontrol", "ping"))
        except AssertionError:
            return False

    def is_idle(self) -> bool:
        """Returns whether both nodes wait for a job."""
        return self.ask("sinfo", "-h", "-N", "-p", "two", "-o", "%T").split() == ["idle", "idle"]


@contextlib.contextmanager
def started(folder: Path) -> Iterator[Cluster]:
    """Starts a cluster in `folder`, and ends it with all that it runs."""
    folder.mkdir(parents=True)
    names = ("net", "uts", "pid", "mount")
    words = ["unshare", *(f"--{name}" for name in names), "--fork", "--mount-proc", "--kill-child"]
    command = [*words, "bash", str(SCRIPT), str(folder), "run"]
    with (folder / "out").open("wb") as out:
        launcher = subprocess.Popen(
            command, env={"PATH": _path()}, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT
        )
    try:
        yield _come_up(folder, launcher)
    finally:
        for process in psutil.Process(launcher.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                process.kill()
        launcher.kill()
        launcher.wait()


def _come_up(folder: Path, launcher: "subprocess.Popen[bytes]") -> Cluster:
    deadline = time.monotonic() + START_SECS
    while time.monotonic() < deadline and launcher.poll() is None:
        with contextlib.suppress(psutil.Error, AssertionError, subprocess.TimeoutExpired):
            if children := psutil.Process(launcher.pid).children():
                cluster = Cluster(folder, children[0].pid)
                if (folder / "node2.pid").exists() and cluster.is_idle():
                    return cluster
        time.sleep(0.1)
    raise AssertionError(f"the cluster did not come up: {(folder / 'out').read_text()}")


def in_allocation(words: Sequence[str], *options: str) -> list[str]:
    """Returns the command that runs `words` inside an allocation, as a batch script would."""
    return ["salloc", "--quiet", *options, *words]
