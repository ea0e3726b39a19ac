"""What one attempt will do, decided before anything starts: argv, environment, hash and manifest.

Guarantees: a plan touches no file but the checkpoint it hashes; two plans with the same `row_hash` ask for the same
episodes of the same policy in the same software, wherever they run.
"""

import platform
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from .. import __version__
from ..campaign import campaign as campaigns
from ..campaign.campaign import Campaign, EvalSettings
from ..campaign.layout import RunFolder
from ..campaign.matrix import CPU, Row
from ..checkpoints import need
from ..checkpoints.checkpoint import Checkpoint
from ..core import digest, files, schema
from ..core.files import Json
from ..engines import codebase, discover, engine, proof, software
from ..execution import environment, gpu, lease, process
from ..execution.gpu import Device
from ..execution.process import Bounds
from . import identity

# Of the resident engine's settings, those that decide outcomes; its speed-ups change none, and each is held to that.
DECIDING = ("noise", "compile")


@dataclass(frozen=True)
class Refusal:
    """The checks of preflight that a checkpoint failed, and the content that it had then."""

    checks: tuple[str, ...]
    tree_sha256: str | None


@dataclass(frozen=True)
class Host:
    """What preflight and discover decided for this host."""

    backend: str
    executable: tuple[str, ...]
    capabilities: Json
    render_prefix: tuple[str, ...] = ()
    invalid_tasks: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # suite -> task -> why
    fingerprint: str | None = None  # of the host, as preflight's env_snapshot.json has it
    refused: Mapping[str, Refusal] = field(default_factory=dict)  # policy_path -> why preflight refuses it

    def invalid(self, suite: str, task_ids: Sequence[int]) -> str | None:
        """Why the simulator makes a row of these tasks invalid; None if it does not."""
        tasks = self.invalid_tasks.get(suite, {})
        return "; ".join(f"task {task}: {tasks[str(task)]}" for task in task_ids if str(task) in tasks) or None


@dataclass(frozen=True)
class Plan:
    """One attempt of one row. `batch_size` and `retry_index` differ from the row's own only in a retry."""

    campaign: Campaign
    row: Row
    host: Host
    checkpoint: Checkpoint
    batch_size: int
    retry_index: int = 0
    timeout_secs: int = 10800
    loaded: Mapping[str, str] = field(default_factory=dict)  # what the policy loads by name -> hash of its content

    @property
    def settings(self) -> EvalSettings:
        return self.campaign.settings(self.row)

    @property
    def task_ids(self) -> tuple[int, ...]:
        return self.campaign.task_ids(self.row)

    @property
    def expected(self) -> dict[int, int]:
        """The episodes that each LIBERO task must bring."""
        return dict.fromkeys(self.task_ids, self.row.n_episodes)

    @property
    def bounds(self) -> Bounds:
        """Within which an engine's process must stay."""
        return Bounds(self.timeout_secs, self.campaign.grace_secs, self.campaign.log_mib << 20)

    @property
    def comparable(self) -> bool:
        """Batch size changes results, so a retry with another one cannot be compared with the row's other runs."""
        return self.batch_size == self.row.batch_size

    @property
    def invalid(self) -> str | None:
        """Why the simulator makes the row invalid; None if it does not."""
        return self.host.invalid(self.row.task_suite, self.task_ids)

    @cached_property
    def row_hash(self) -> str:
        """The hash of `identity_parts`: two plans with the same one ask for the same episodes of the same policy."""
        return identity.row_hash(self.identity_parts)

    @cached_property
    def identity_parts(self) -> Json:
        """What the row asks for, part by part: no GPU number, no path, nothing that leaves outcomes as they are."""
        return {
            "hash_version": identity.VERSION,
            "row": {
                "suite": self.row.task_suite,
                "task_ids": list(self.task_ids),
                "batch_size": self.row.batch_size,
                "n_episodes": self.row.n_episodes,
                "seed": self.row.seed,
                "device": "cpu" if self.row.gpu_id == CPU else "cuda",
            },
            "settings": self._settings(),
            "engine": {"name": self.campaign.engine, **self._resident()},
            "checkpoint": self.checkpoint.tree_sha256,
            "simulator": {"backend": self.host.backend, "invalid": self.invalid is not None},
            **self._software(),
        }

    def _resident(self) -> Json:
        """What else decides the outcomes of the resident engine; nothing for lerobot-eval."""
        if not self.campaign.is_resident:
            return {}
        chosen = {key: value for key, value in self.campaign.resident.items() if key in DECIDING}
        return {"code": proof.code(), "settings": chosen}

    def _software(self) -> Json:
        """What plays the episodes on this host, and what the policy loads beside its checkpoint."""
        return {
            "loaded": dict(self.loaded),
            "program": self._program(),
            "python": platform.python_version(),
            "packages": software.packages(self.campaign.layout.root).versions,
            "code": codebase.hashes(self.campaign.layout.root),
            "environment": environment.deciding(),
        }

    @property
    def proof_key(self) -> str:
        """What a parity run of this plan proves: this checkpoint, asked in this way, on this host."""
        return proof.key(self._proven())

    @property
    def load_key(self) -> str:
        """What a process that has loaded this policy can play on, whatever the suite and the tasks: the checkpoint's
        content and the software."""
        return proof.key({"checkpoint": self.checkpoint.tree_sha256, **self._software()})

    @property
    def reference_key(self) -> str:
        """What a recorded run of lerobot-eval holds for, whatever the resident engine's code."""
        settings = campaigns.effective(self.settings)
        counts = {"task_ids": list(self.task_ids), "n_episodes": self.row.n_episodes, "seed": self.row.seed}
        length = settings.get("episode_length")
        recorder = {"episode_length": length, "recorder": proof.code(proof.RECORDER)}
        return files.sha256(files.canonical(self._proven() | counts | recorder))

    def _proven(self) -> Json:
        return {
            "checkpoint": self.checkpoint.tree_sha256,
            "host": self.host.fingerprint,
            "backend": self.host.backend,
            **asked_of_policy(self.campaign, self.row),
            "batch_size": self.batch_size,
            "resident": {key: value for key, value in self.campaign.resident.items() if key in DECIDING},
            **self._software(),
        }

    @property
    def unproven(self) -> str | None:
        """Why the engine is not proven to play lerobot-eval's episodes; None if it is, or is lerobot-eval."""
        return proof.unproven(self.campaign.layout, self.proof_key) if self.campaign.is_resident else None

    def _settings(self) -> Json:
        """The settings that decide outcomes: a longer time-out is no other row."""
        return {key: value for key, value in campaigns.effective(self.settings).items() if key != "timeout_secs"}

    def _program(self) -> Json:
        """What lerobot-eval is: its plug-ins, and the files of one that is the campaign's own."""
        first, *more = [*self.campaign.executable, ""]
        words = [shutil.which(first, path=environment.base()["PATH"]) or first, *filter(None, more)]
        paths = [(word, self.campaign.layout.root / word) for word in words if word]
        return {
            "plugins": list(discover.installed().plugins),
            "own": [digest.of_file(path) if path.is_file() else word for word, path in paths],
        }

    def retry(self, batch_size: int) -> "Plan":
        return replace(self, batch_size=batch_size, retry_index=1)

    def environ(self, device: Device) -> dict[str, str]:
        """The environment of the row's process.

        Where all that its policy loads by name is known, it is here and part of the row's identity: the process takes
        that and does not ask the hub for a newer commit.
        """
        environ = environment.for_row(self.campaign, device, self.host.backend)
        offline = not self.campaign.executable and self.checkpoint.policy_type in need.KNOWN
        return environ | ({"HF_HUB_OFFLINE": "1"} if offline else {})

    def command(self, folder: RunFolder, device: str) -> list[str]:
        """The argv, its paths relative to the campaign's folder, where the process runs."""
        root = self.campaign.layout.root
        policy = self.checkpoint.folder
        resident = self.campaign.is_resident
        argv = engine.command(
            process.python("tracka.engines.resident") if resident else self.host.executable,
            self.row,
            self.settings,
            policy=policy.relative_to(root) if policy.is_relative_to(root) else policy,
            device=device,
            batch_size=self.batch_size,
            output=folder.output.relative_to(root),
        )
        engine.check_flags(argv, self.host.capabilities)
        more = [f"--resident.{key}={engine.word(value)}" for key, value in sorted(self.campaign.resident.items())]
        return [*self.host.render_prefix, *argv, *(more if resident else ())]

    def manifest(
        self, folder: RunFolder, device: Device, environ: dict[str, str], attempt: int, dry_run: bool = False
    ) -> Json:
        """run_manifest.json, with the plan's keys and what a rerun or a comparison needs beside them."""
        row = self.row
        return {
            "schema_version": schema.VERSION,
            "tracka_version": __version__,
            "run_id": row.run_id,
            "attempt": attempt,
            "retry_index": self.retry_index,
            "dry_run": dry_run,
            "cwd": str(self.campaign.layout.root),
            "env": environment.shown(environ),
            "start_time_utc": files.utc_now(),
            "policy_path": row.policy_path,
            "task_suite": row.task_suite,
            "task_ids": list(self.task_ids),
            "batch_size": self.batch_size,
            "batch_size_requested": row.batch_size,
            "comparable": self.comparable,
            "n_episodes": row.n_episodes,
            "expected_episodes": sum(self.expected.values()),
            "gpu_id": device.gpu_id,
            "gpu_uuid": device.uuid,
            "gpu_others": [vars(each) for each in device.others],
            "worker": f"gw{lease.worker_number()}",
            "seed": row.seed,
            "mujoco_gl": self.host.backend,
            "mujoco_gl_requested": row.mujoco_gl,
            "timeout_secs": self.timeout_secs,
            "n_action_steps": self._action_steps(),
            "row_hash": self.row_hash,
            "outcome": None,
            "invalid": self.invalid,
            "unproven": self.unproven,
            "threshold": self.campaign.threshold(row),
            **self.record(folder, device.gpu_id),
        }

    def record(self, folder: RunFolder, gpu_id: int) -> Json:
        """The part of a manifest that its row hash stands for, written out."""
        return {
            "engine": self.campaign.engine,
            "command": self.command(folder, gpu.torch_name(gpu_id)),
            "checkpoint": self._checkpoint(),
            "settings": self._settings(),
            "versions": software.versions(),
        }

    @property
    def chunk(self) -> int:
        """The actions that the policy plays of a chunk; 1 where nothing says how many."""
        return max(1, self._action_steps() or 1)

    def _action_steps(self) -> int | None:
        """The actions that the policy plays of each chunk, by the campaign or else by its own config.json."""
        config = files.read_or_empty(self.checkpoint.folder / "config.json")
        steps = self.settings.n_action_steps or config.get("n_action_steps")
        return steps if isinstance(steps, int) else None

    def _checkpoint(self) -> Json:
        folder = self.campaign.layout.relative(self.checkpoint.folder)
        point = self.checkpoint
        return {
            "source": point.source,
            "revision": point.revision,
            "folder": folder,
            "tree_sha256": point.tree_sha256,
            "policy_type": point.policy_type,
        }


def asked_of_policy(campaign: Campaign, row: Row) -> Json:
    """How a row asks its policy, whichever tasks of the suite and however long: what a proof of one row shows of
    another. Rows of one task and rows of several are asked otherwise, since looks of several may share a call."""
    settings = campaigns.effective(campaign.settings(row))
    left_out = ("task_ids", "episode_length", "timeout_secs")
    return {
        "device": gpu.torch_name(row.gpu_id),
        "suite": row.task_suite,
        "several_tasks": len(campaign.task_ids(row)) > 1,
        "settings": {key: value for key, value in settings.items() if key not in left_out},
    }
