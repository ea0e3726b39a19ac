"""Decides what one attempt will do before anything starts: argv, environment, hash and manifest.

Guarantees: a plan writes no artifact; it reads and hashes the checkpoint and the software. Two plans with the same
`row_hash` ask for the same episodes of the same policy in the same software, wherever they run.
"""

import platform
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from .. import __version__
from ..campaign import campaign as campaigns
from ..campaign.campaign import Campaign, EvalSettings
from ..campaign.layout import RunFolder
from ..campaign.matrix import CPU, Row
from ..checkpoints import hub_dependencies
from ..checkpoints.checkpoint import Checkpoint
from ..core import fact_cache, files, hashing, schema
from ..core.artifacts import (
    CheckpointRecord,
    IdentityParts,
    Manifest,
    ProgramParts,
    Recorded,
    Requested,
    ResidentParts,
    SoftwareParts,
)
from ..core.files import Json
from ..core.reports import Capabilities
from ..engines import cli_capabilities, codebase, fast_certificate, lerobot_eval, parity_certificate, software
from ..execution import environment, gpu, lease, process
from ..execution.gpu import Device
from ..execution.process import Bounds
from . import identity

# The resident engine's settings that decide outcomes. Its speed-ups change no outcome, and each is checked for that.
DECIDING = ("noise", "compile", "precision")
LISTENER = "tracka.engines.listener"


@dataclass(frozen=True)
class Refusal:
    """The checks of preflight that a checkpoint failed, and the hash of the content that the checkpoint had then."""

    checks: tuple[str, ...]
    tree_sha256: str | None


@dataclass(frozen=True)
class Host:
    """What preflight and discover decided for this host."""

    backend: str
    executable: tuple[str, ...]
    capabilities: Capabilities
    render_prefix: tuple[str, ...] = ()
    invalid_tasks: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # suite -> task -> why
    fingerprint: str | None = None  # of the host, from preflight's env_snapshot.json
    refused: Mapping[str, Refusal] = field(default_factory=dict)  # policy_path -> why preflight refuses it

    def simulator_mismatch(self, suite: str, task_ids: Sequence[int]) -> str | None:
        """Returns the simulator mismatch of a row of these tasks; None if there is none."""
        tasks = self.invalid_tasks.get(suite, {})
        return "; ".join(f"task {task}: {tasks[str(task)]}" for task in task_ids if str(task) in tasks) or None


@dataclass(frozen=True)
class Plan:
    """One attempt of one row. Only in a retry, `batch_size` may differ from the row's own.

    `resumes` says whether the attempt keeps episodes that earlier attempts have played.
    """

    campaign: Campaign
    row: Row
    host: Host
    checkpoint: Checkpoint
    batch_size: int
    retry_index: int = 0
    resumes: bool = False
    timeout_secs: int = 10800
    # what the policy loads by name -> hash of its content
    dependency_hashes: Mapping[str, str] = field(default_factory=dict)

    @property
    def settings(self) -> EvalSettings:
        return self.campaign.settings(self.row)

    @property
    def task_ids(self) -> tuple[int, ...]:
        return self.campaign.task_ids(self.row)

    @property
    def expected_episodes(self) -> dict[int, int]:
        """Returns LIBERO task -> number of episodes that the row must play."""
        return dict.fromkeys(self.task_ids, self.row.n_episodes)

    @property
    def bounds(self) -> Bounds:
        """Returns the timeout, the grace time and the output limit of an engine's process."""
        return Bounds(self.timeout_secs, self.campaign.grace_secs, self.campaign.log_mib << 20)

    @property
    def played_batch(self) -> int:
        """Returns how many episodes lerobot-eval plays at a time: a batch is never larger than the row's episodes."""
        return min(self.batch_size, self.row.n_episodes)

    @property
    def comparable(self) -> bool:
        """Returns whether results compare with the row's other runs: a retry's other batch size changes results."""
        return self.batch_size == self.row.batch_size

    @property
    def simulator_mismatch(self) -> str | None:
        """Returns the simulator mismatch of the row; None if there is none."""
        return self.host.simulator_mismatch(self.row.task_suite, self.task_ids)

    @cached_property
    def row_hash(self) -> str:
        """Returns the hash of `identity_parts`. Plans with equal hashes ask the same policy for the same episodes."""
        return identity.row_hash(self.identity_parts)

    @cached_property
    def identity_parts(self) -> IdentityParts:
        """Returns what the row asks for, part by part, without GPU number, paths and what changes no outcome."""
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
            "engine": {"name": self.campaign.engine_name, **self._resident_parts()},
            "checkpoint": self.checkpoint.tree_sha256,
            "simulator": {"backend": self.host.backend, "invalid": self.simulator_mismatch is not None},
            **self._software_parts,
        }

    def _resident_parts(self) -> ResidentParts:
        """Returns what else decides the resident engine's outcomes; an empty dict for lerobot-eval."""
        if not self.campaign.is_resident:
            return {}
        return {"code": parity_certificate.code_hash(), "settings": deciding(self.campaign)}

    @cached_property
    def _software_parts(self) -> SoftwareParts:
        """Returns the software that plays episodes on this host, and what the policy loads beside its checkpoint."""
        loaded = dict(self.dependency_hashes)
        return {**_installed_parts(self.campaign.layout.root, self.campaign.executable), "loaded": loaded}

    @cached_property
    def proof_key(self) -> str:
        """Returns the key of this plan's parity certificate: this checkpoint, asked in this way, on this host."""
        return parity_certificate.key(self._certificate_parts())

    @property
    def load_key(self) -> str:
        """Returns the key of a loaded policy, for rows that may share one warm worker process.

        The key stands for the checkpoint's content and the software, whatever the suite and the tasks.
        """
        return parity_certificate.key({"checkpoint": self.checkpoint.tree_sha256, **self._software_parts})

    @property
    def reference_key(self) -> str:
        """Returns the key of what a recorded run of lerobot-eval holds for, whatever the resident engine's code."""
        settings = campaigns.effective(self.settings)
        counts = {"task_ids": list(self.task_ids), "n_episodes": self.row.n_episodes, "seed": self.row.seed}
        length = settings.get("episode_length")
        recorder = {"episode_length": length, "recorder": parity_certificate.code_hash(parity_certificate.RECORDER)}
        return files.sha256(files.canonical(self._certificate_parts() | counts | recorder))

    def _certificate_parts(self) -> Json:
        """Returns all that a parity certificate of this plan holds for, apart from the engine's code."""
        return {
            "checkpoint": self.checkpoint.tree_sha256,
            "host": self.host.fingerprint,
            "backend": self.host.backend,
            **policy_request(self.campaign, self.row),
            "batch_size": self.played_batch,
            "resident": deciding(self.campaign),
            **self._fast_gate(),
            **self._software_parts,
        }

    def _fast_gate(self) -> Json:
        """Returns what the gate of fast mode is asked for; empty in exact mode. A laxer gate proves nothing here."""
        settings = self.campaign.resident
        asked = {"episodes": fast_certificate.wanted(settings), "margin": fast_certificate.margin(settings)}
        return {"fast_gate": asked} if self.campaign.is_fast else {}

    @property
    def unproven_reason(self) -> str | None:
        """Returns why the engine is not proven to play lerobot-eval's episodes; None if proven, or for lerobot-eval."""
        return (
            parity_certificate.unproven_reason(self.campaign.layout, self.proof_key)
            if self.campaign.is_resident
            else None
        )

    def _settings(self) -> Json:
        return outcome_settings(self.settings)

    def retry(self, batch_size: int) -> "Plan":
        """Returns the plan of the row's one retry, with this batch size."""
        return replace(self, batch_size=batch_size, retry_index=1)

    def environ(self, device: Device) -> dict[str, str]:
        """Returns the environment of the row's process.

        If all that the policy loads by name is known, all of it is on this host and part of the row's identity. The
        process then works offline, so that it does not ask the hub for a newer commit.
        """
        environ = environment.for_row(self.campaign, device, self.host.backend)
        offline = not self.campaign.executable and self.checkpoint.policy_type in hub_dependencies.KNOWN
        return environ | ({"HF_HUB_OFFLINE": "1"} if offline else {})

    def command(self, folder: RunFolder, device: str) -> list[str]:
        """Returns the argv, with paths relative to the campaign's folder, where the process runs.

        Raises ToolMissing where phase 1 has not seen one of the flags.
        """
        root = self.campaign.layout.root
        policy = self.checkpoint.folder
        resident = self.campaign.is_resident
        argv = lerobot_eval.command(
            process.python("tracka.engines.resident") if resident else self.host.executable,
            self.row,
            self.settings,
            policy=policy.relative_to(root) if policy.is_relative_to(root) else policy,
            device=device,
            batch_size=self.batch_size,
            output=folder.output.relative_to(root),
        )
        lerobot_eval.check_flags(argv, self.host.capabilities)
        resident_flags = [
            f"--resident.{key}={lerobot_eval.flag_value(value)}"
            for key, value in sorted({**self.campaign.resident, **({"resume": True} if self.resumes else {})}.items())
        ]
        return [*self.host.render_prefix, *argv, *(resident_flags if resident else ())]

    @property
    def is_recorded(self) -> bool:
        """Returns whether Track A listens to lerobot-eval; the resident engine records by itself."""
        return bool(self.settings.record_actions) and not self.campaign.is_resident

    def started_words(self, command: Sequence[str]) -> list[str]:
        """Returns the words that start the process of `command`: of the listener, where the row is recorded.

        The listener runs the same program with the same flags, so the command stays what the row ran.
        """
        if not self.is_recorded:
            return list(command)
        program = len(self.host.render_prefix) + len(self.host.executable)
        return [*self.host.render_prefix, *process.python(LISTENER), *command[program:]]

    def manifest(
        self, folder: RunFolder, device: Device, environ: dict[str, str], attempt: int, dry_run: bool = False
    ) -> Manifest:
        """Returns the content of run_manifest.json.

        It has the keys that the project's plan asks for, and what a rerun or a comparison needs besides.
        """
        asked = requested(self.campaign, self.row, self.host, attempt, self.retry_index)
        manifest: Manifest = {
            **asked,
            "dry_run": dry_run,
            "batch_size": self.batch_size,
            "comparable": self.comparable,
            "timeout_secs": self.timeout_secs,
            "env": environment.manifest_environment(environ),
            "gpu_id": device.gpu_id,
            "gpu_uuid": device.uuid,
            "gpu_others": [process_on_gpu.record() for process_on_gpu in device.others],
            "n_action_steps": self._action_steps(),
            "row_hash": self.row_hash,
            "outcome": None,
            "invalid": self.simulator_mismatch,
            "unproven": self.unproven_reason,
            **self.record(folder, device.gpu_id),
        }
        if self.is_recorded:
            manifest["listener"] = LISTENER
        if self.campaign.is_resident:
            manifest["certificate"] = self.proof_key
        return manifest

    def record(self, folder: RunFolder, gpu_id: int) -> Recorded:
        """Returns the part of a manifest that its row hash stands for, written out."""
        return {
            "engine": self.campaign.engine_name,
            "command": self.command(folder, gpu.torch_name(gpu_id)),
            "checkpoint": self._checkpoint_record(),
            "settings": self._settings(),
            "versions": software.versions(),
        }

    @property
    def chunk(self) -> int:
        """Returns how many actions of a chunk the policy plays; 1 where nothing says how many."""
        return max(1, self._action_steps() or 1)

    def _action_steps(self) -> int | None:
        """Returns how many actions of a chunk the policy plays, by the campaign or else by the policy's config.json."""
        config = files.read_or_empty(self.checkpoint.folder / "config.json")
        steps = self.settings.n_action_steps or config.get("n_action_steps")
        return steps if isinstance(steps, int) else None

    def _checkpoint_record(self) -> CheckpointRecord:
        folder = self.campaign.layout.relative(self.checkpoint.folder)
        point = self.checkpoint
        return {
            "source": point.source,
            "revision": point.revision,
            "folder": folder,
            "tree_sha256": point.tree_sha256,
            "policy_type": point.policy_type,
        }


@fact_cache.remembered
def _installed_parts(root: Path, executable: tuple[str, ...]) -> SoftwareParts:
    """Returns the software parts of a plan that loads nothing by name, which are the same for all rows of a campaign.

    `root` is the campaign's folder, and `executable` is its own program, if it has one.
    """
    return {
        "loaded": {},
        "program": _program_parts(root, executable),
        "python": platform.python_version(),
        "packages": software.packages(root).versions,
        "code": codebase.hashes(root),
        "environment": environment.outcome_variables(),
    }


def _program_parts(root: Path, executable: tuple[str, ...]) -> ProgramParts:
    """Returns what program lerobot-eval is: its plug-ins and, for a campaign's own program, the files' hashes."""
    program, *arguments = [*executable, ""]
    words = [shutil.which(program, path=environment.base()["PATH"]) or program, *filter(None, arguments)]
    return {
        "plugins": list(cli_capabilities.installed_software().plugins),
        "own": [hashing.of_file(path) if (path := root / word).is_file() else word for word in words if word],
    }


def deciding(campaign: Campaign) -> Json:
    """Returns the resident engine's settings that decide outcomes; exact mode is what holds without the setting."""
    settings = {key: value for key, value in campaign.resident.items() if key in DECIDING}
    return {key: value for key, value in settings.items() if (key, value) != ("precision", "exact")}


def outcome_settings(settings: EvalSettings) -> Json:
    """Returns the settings that decide outcomes. The timeout is none of them."""
    return {key: value for key, value in campaigns.effective(settings).items() if key != "timeout_secs"}


def requested(campaign: Campaign, row: Row, host: Host, attempt: int, retry_index: int) -> Requested:
    """Returns the part of a manifest that needs no checkpoint and no device."""
    task_ids = list(campaign.task_ids(row))
    return {
        "schema_version": schema.VERSION,
        "tracka_version": __version__,
        "run_id": row.run_id,
        "attempt": attempt,
        "retry_index": retry_index,
        "dry_run": False,
        "cwd": str(campaign.layout.root),
        "start_time_utc": files.utc_now(),
        "policy_path": row.policy_path,
        "task_suite": row.task_suite,
        "task_ids": task_ids,
        "batch_size": row.batch_size,
        "batch_size_requested": row.batch_size,
        "comparable": True,
        "n_episodes": row.n_episodes,
        "expected_episodes": row.n_episodes * len(task_ids),
        "worker": f"gw{lease.worker_number()}",
        "seed": row.seed,
        "mujoco_gl": host.backend,
        "mujoco_gl_requested": row.mujoco_gl,
        "timeout_secs": campaign.timeout(row),
        "threshold": campaign.threshold(row),
    }


def policy_request(campaign: Campaign, row: Row) -> Json:
    """Returns how a row asks its policy, whatever its tasks of the suite and its episode length.

    A parity certificate of one row holds for another row that asks in the same way. A row of several tasks asks in
    another way than a row of one, since observation requests of several tasks may share a call of the policy.
    """
    settings = campaigns.effective(campaign.settings(row))
    left_out = ("task_ids", "episode_length", "timeout_secs")
    return {
        "device": gpu.torch_name(row.gpu_id),
        "suite": row.task_suite,
        "several_tasks": len(campaign.task_ids(row)) > 1,
        "settings": {key: value for key, value in settings.items() if key not in left_out},
    }
