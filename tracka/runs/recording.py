"""Plays of one plan by lerobot-eval and by the resident engine, recorded side by side for the parity gate.

Guarantees: a record is in its place whole or not at all; lerobot-eval plays once for all who ask for the same episodes
of the same policy in the same software on this host, whatever the resident engine's code.
"""

import contextlib
import shutil
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..campaign.layout import RunFolder
from ..core import digest, files, secret
from ..core.errors import Finding, UsageError
from ..engines import comparison, failure
from ..engines.comparison import Comparison, Played
from ..execution import leftover, process
from ..execution.gpu import Device
from .plan import Plan

REFERENCE, AGAIN, RESIDENT = "reference", "again", "resident"  # lerobot-eval, lerobot-eval once more, this engine
SECONDS, ACTIONS = "seconds.json", "actions"
IN_THE_GATE = {"hash_looks": True, "cudnn_benchmark": False}  # settings of the resident engine beside the campaign's
RECORDS = (Path("episodes.jsonl"), Path("timings.json"), Path(SECONDS))


@dataclass
class Recordings:
    """The plays of one plan on one device, recorded below `folder`. A plan may grow by `widen`."""

    plan: Plan
    device: Device
    folder: Path
    played: dict[str, Played] = field(default_factory=dict)

    def reference(self, name: str = REFERENCE) -> Played:
        """lerobot-eval's episodes, from the user's cache where they are recorded; `name` tells its two runs apart.

        Raises UsageError where it fails, as all of these do.
        """
        kept = digest.cache_folder() / "references" / f"{self.plan.reference_key[:32]}-{name}"
        if (kept / SECONDS).is_file():
            keep(kept, self.folder / name)
        else:
            self._play("lerobot-eval", name)
            with contextlib.suppress(OSError):  # a cache that cannot be written only costs time
                keep(self.folder / name, kept)
        return self._take(name)

    def resident(self) -> Played:
        """The resident engine's episodes, played now."""
        self._play("resident", RESIDENT)
        return self._take(RESIDENT)

    def _take(self, name: str) -> Played:
        self.played[name] = comparison.read(self.folder / name)
        return self.played[name]

    def compared(self, name: str) -> Comparison:
        """What `name` played, beside lerobot-eval's first run."""
        return comparison.compare(self.played[REFERENCE], self.played[name], self.plan.chunk)

    def seconds(self, name: str) -> float:
        """How long the process of a play took."""
        return float(files.read_json(self.folder / name / SECONDS)["seconds"])

    def files(self) -> dict[str, str]:
        """The sha256 of each recorded file, by its path below the folder."""
        paths = [path for name in self.played for path in files.walk_files(self.folder / name)]
        return {str(path.relative_to(self.folder)): files.sha256_file(path) for path in paths}

    def _play(self, engine: str, name: str) -> None:
        target = RunFolder(self.folder / f"{name}-{time.time_ns()}")
        files.make_folder(target.path)
        marks = leftover.marks(self.folder, self.device.lock_file)
        environ = self.plan.environ(self.device) | marks
        ended = process.run(
            self._command(engine, target),
            cwd=self.plan.campaign.layout.root,
            env=environ,
            stdout=target.stdout,
            stderr=target.stderr,
            bounds=self.plan.bounds,
            secrets=secret.known(environ),
            lease=self.device.lock,
            journal=self.device.journal,
            label=f"parity-{self.plan.row.run_id}",
        )
        if ended.code != 0:
            raise UsageError(
                Finding(str(target.stderr), _cause(engine, ended, target), "Mend that; all it said is there")
            )
        files.write_json(target.output / SECONDS, {"seconds": ended.seconds})
        keep(target.output, self.folder / name)

    def _command(self, engine: str, target: RunFolder) -> list[str]:
        told = dict(self.plan.campaign.resident)
        spec = replace(self.plan.campaign, engine=engine, resident=told | IN_THE_GATE)
        command = replace(self.plan, campaign=spec).command(target, self.device.torch_name)
        if engine == "resident":
            return command
        words = [word for word in command if word.startswith("--")]
        noise = f"--resident.noise={told.get('noise', 'episode')}"
        return [*self.plan.host.render_prefix, *process.python("tracka.engines.reference"), *words, noise]


def _cause(engine: str, ended: process.Exit, target: RunFolder) -> str:
    """Why an engine could not play: the exception that its output ends with, not only its exit code."""
    if ended.stopped:
        return f"{engine}: {process.last_words(ended, target.stderr)}"
    text = "\n".join(files.tail(log) for log in (target.stdout, target.stderr))
    said = failure.last_line(failure.without_ignored(text))
    return f"{engine} ended with exit code {ended.code}: {said}"


def keep(source: Path, target: Path) -> None:
    """Puts what an engine recorded in `source` in the place of `target`: its episodes, not its videos."""
    making = target.with_name(f"{target.name}.{time.time_ns()}")
    files.make_folder(making / ACTIONS)
    for path in (*RECORDS, *(each.relative_to(source) for each in sorted((source / ACTIONS).glob("*.npy")))):
        if (source / path).is_file():
            files.copy_atomic(source / path, making / path)
    if target.is_dir():
        shutil.rmtree(target)
    making.rename(target)
