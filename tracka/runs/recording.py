"""Plays one plan with lerobot-eval and with the resident engine, and records both for the parity gate.

Guarantees: a record is in its place whole or not at all. lerobot-eval plays once for all plans that ask for the same
episodes of the same policy in the same software on this host, whatever the resident engine's code.
"""

import contextlib
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

from ..campaign.layout import RunFolder
from ..core import files, redaction, user_cache
from ..core.errors import Finding, UsageError
from ..engines import comparison
from ..engines.comparison import Comparison, PlayedEpisodes
from ..engines.recorded_arrays import ACTIONS
from ..execution import orphans, process
from ..execution.gpu import Device
from . import slurm_program, slurm_row
from .plan import Plan

REFERENCE, AGAIN, RESIDENT = "reference", "again", "resident"  # lerobot-eval twice, the resident engine
SECONDS = "seconds.json"
SUMS = "sums.json"  # of a recording in the user's cache: the hashes of its files
# Resident settings, put over the campaign's own.
IN_THE_GATE = {"hash_looks": True, "share_calls": True, "cudnn_benchmark": False}
RECORDS = (Path("episodes.jsonl"), Path("timings.json"), Path(SECONDS))


@dataclass
class Recordings:
    """The plays of one plan on one device, recorded below `folder`.

    The gate may replace `plan` with one of more episodes; the plays are then recorded anew.
    """

    plan: Plan
    device: Device
    folder: Path
    played: dict[str, PlayedEpisodes] = field(default_factory=dict)

    def reference(self, name: str = REFERENCE) -> PlayedEpisodes:
        """Returns lerobot-eval's episodes, from the user's cache if they are recorded there, else played now.

        `name` tells lerobot-eval's two runs apart. Raises UsageError where lerobot-eval fails.
        """
        cached = user_cache.folder() / "references" / f"{self.plan.reference_key[:32]}-{name}"
        if _is_whole(cached):
            keep(cached, self.folder / name)
        else:
            self._play("lerobot-eval", name)
            with contextlib.suppress(OSError):  # an unwritable cache only costs time
                keep(self.folder / name, cached)
                user_cache.keep(cached / SUMS, _sums(cached))
        return self._take(name)

    def resident(self) -> PlayedEpisodes:
        """Plays and returns the resident engine's episodes. Raises UsageError where the engine fails."""
        self._play("resident", RESIDENT)
        return self._take(RESIDENT)

    def mode(self, name: str, settings: Mapping[str, object]) -> PlayedEpisodes:
        """Plays and returns the resident engine's episodes under `name`, with these settings put over the gate's."""
        self._play("resident", name, settings)
        return self._take(name)

    def _take(self, name: str) -> PlayedEpisodes:
        self.played[name] = comparison.read(self.folder / name)
        return self.played[name]

    def compare_with_reference(self, name: str) -> Comparison:
        """Returns the comparison of the play `name` with lerobot-eval's first run."""
        return comparison.compare(self.played[REFERENCE], self.played[name], self.plan.chunk)

    def seconds(self, name: str) -> float:
        """Returns the seconds that the process of the play `name` took."""
        return float(files.read_json(self.folder / name / SECONDS)["seconds"])

    def files(self) -> dict[str, str]:
        """Returns the sha256 of each recorded file, by its path below `folder`."""
        paths = [path for name in self.played for path in files.walk_files(self.folder / name)]
        return {str(path.relative_to(self.folder)): files.sha256_file(path) for path in paths}

    def _play(self, engine: str, name: str, over: Mapping[str, object] = MappingProxyType({})) -> None:
        target = RunFolder(self.folder / f"{name}-{time.time_ns()}")
        files.make_folder(target.path)
        environ = self.plan.environ(self.device)
        process_exit = self._run(self._command(engine, target, over), target, environ)
        if process_exit.code != 0:
            raise UsageError(
                Finding(
                    str(target.stderr),
                    _cause(engine, process_exit, target),
                    "Mend the cause; the log has the whole output",
                )
            )
        files.write_json(target.output / SECONDS, {"seconds": process_exit.seconds})
        keep(target.output, self.folder / name)

    def _run(self, words: list[str], target: RunFolder, environ: dict[str, str]) -> process.Exit:
        """Runs an engine where the campaign's rows run, and returns how it ended."""
        label, secrets = f"parity-{self.plan.row.run_id}", tuple(redaction.secret_values(environ))
        marks = orphans.marks(self.folder, self.device.lock_file)
        if self.plan.campaign.is_on_slurm:
            program = slurm_row.program_of(self.plan, words, target, environ, label)
            program = replace(program, secrets=secrets, marks=marks)
            return slurm_program.run_program(self.plan.campaign, program, label)[0]
        return process.run(
            words,
            cwd=self.plan.campaign.layout.root,
            env=environ | marks,
            stdout=target.stdout,
            stderr=target.stderr,
            bounds=self.plan.bounds,
            secrets=secrets,
            lease=self.device.descriptors,
            journal=self.device.journal,
            label=label,
        )

    def _command(self, engine: str, target: RunFolder, over: Mapping[str, object]) -> list[str]:
        settings = dict(self.plan.campaign.resident)
        campaign = replace(self.plan.campaign, engine=engine, resident=settings | IN_THE_GATE | dict(over))
        command = replace(self.plan, campaign=campaign).command(target, self.device.torch_name)
        if engine == "resident":
            return command
        words = [word for word in command if word.startswith("--")]
        noise = f"--resident.noise={settings.get('noise', 'episode')}"
        return [*self.plan.host.render_prefix, *process.python("tracka.engines.reference"), *words, noise]


def _cause(engine: str, process_exit: process.Exit, target: RunFolder) -> str:
    """Returns why an engine could not play."""
    return f"{engine}: {process.cause_of_end(process_exit, target.stdout, target.stderr)}"


def keep(source: Path, target: Path) -> None:
    """Replaces `target` with what an engine recorded in `source`: its episodes, not its videos."""
    unfinished = target.with_name(f"{target.name}.{time.time_ns()}")
    files.make_folder(unfinished / ACTIONS)
    for path in (
        *RECORDS,
        *(action_file.relative_to(source) for action_file in sorted((source / ACTIONS).glob("*.npy"))),
    ):
        if (source / path).is_file():
            files.copy_atomic(source / path, unfinished / path)
    if target.is_dir():
        shutil.rmtree(target)
    else:
        target.unlink(missing_ok=True)
    unfinished.rename(target)


def _sums(folder: Path) -> dict[str, str]:
    """Returns the sha256 of each file of a recording, by its path below `folder`."""
    paths = [path for path in files.walk_files(folder) if path.name != SUMS]
    return {str(path.relative_to(folder)): files.sha256_file(path) for path in paths}


def _is_whole(folder: Path) -> bool:
    """Returns whether a recording in the user's cache is as it was kept; a damaged one is played again."""
    sums = user_cache.read(folder / SUMS)
    with contextlib.suppress(OSError):
        return bool(sums) and sums == _sums(folder)
    return False
