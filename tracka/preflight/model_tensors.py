"""Checks whether a checkpoint's file has the tensors that lerobot's policy class wants, without reading weights.

One process serves all checkpoints: it imports lerobot once and lets lerobot's own loaders work on shapes alone.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..campaign.campaign import Campaign, EvalSettings
from ..checkpoints import adapter, checkpoint, code_safety, hub_dependencies, policy_metadata
from ..checkpoints.checkpoint import Checkpoint
from ..checkpoints.tensors import as_text
from ..core import files, parsing
from ..core.check import Check
from ..core.errors import TrackaError, joined_names
from ..engines import cli_capabilities, lerobot_eval
from ..execution import environment, gpu, process
from ..execution.process import Bounds

FEW = 4  # how many tensors a message names
OWN_PROGRAM = "not compared: the campaign runs its own program (executable), which may have its own policy classes"
SAVE = "Use the complete checkpoint that training saved (save_pretrained), with its own config.json"
SAVE_ADAPTER = (
    "Use the complete adapter that training saved: adapter_model.safetensors with its own adapter_config.json, and as "
    "base the policy on which the adapter was trained"
)
CONFIG = "Save config.json with lerobot 0.6.1, or remove the keys that lerobot 0.6.1 does not know"
SETTING = "Correct the setting in campaign.toml, or correct config.json"
PROCESSORS = "Save both processors again with save_pretrained of lerobot 0.6.1, with the files that they name"
LATER = "Run the row: it fails with the reason `weights` if lerobot's loader reports missing weights"
SKIPS = "Skipping"  # lerobot's loaders begin with this word when they leave a tensor out on purpose
ProbeAnswer = Mapping[str, Any]


@dataclass(frozen=True)
class _Probed:
    """What the probe answered, why there are no more answers, its seconds, and whether these were too many."""

    answers: Sequence[ProbeAnswer]
    exit_text: str
    seconds: float
    timed_out: bool


def checks(campaign: Campaign, policy_paths: Sequence[str], folder: Path) -> list[Check]:
    """Returns a check `model:POLICY_PATH` for each of these checkpoints on this host. Logs go to `folder`."""
    installed = cli_capabilities.installed_software()
    if plugin_findings := list(code_safety.plugin_faults(installed.plugins, campaign.trusted)):
        what = f"not compared, since lerobot would import an untrusted plug-in: {plugin_findings[0].where}"
        return [Check(f"model:{path}", "warn", what, plugin_findings[0].remedy, False) for path in policy_paths]
    if campaign.executable:
        return [Check(f"model:{path}", "pass", OWN_PROGRAM, required=False) for path in policy_paths]
    requests = {path: list(_probe_requests(campaign, path)) for path in policy_paths}
    if not any(requests.values()):
        return []
    probed = _run_probe(campaign, [request for group in requests.values() for request in group], folder)
    next_answers = iter(probed.answers)
    return [_check(path, [next(next_answers, None) for _ in group], probed) for path, group in requests.items()]


def _probe_requests(campaign: Campaign, policy_path: str) -> Iterator[dict[str, Any]]:
    """Yields a request to the probe for each set of flags that the checkpoint's rows put over its config.json."""
    point = checkpoint.resolve(policy_path, campaign.layout.root, campaign.policy_roots)
    base = adapter.base(point.folder, campaign.layout.root)
    for words in dict.fromkeys(map(_overrides, campaign.settings_of(policy_path))):
        yield {
            "folder": str(point.folder),
            "words": list(words),
            "processors": _may_load(campaign, point),
            "base": str(base) if base else None,
        }


def _may_load(campaign: Campaign, point: Checkpoint) -> bool:
    """Returns whether the tokenizers that the processors load are on this host and bring no code.

    If they are not, the tokenizers' own checks report it.
    """
    try:
        return not list(hub_dependencies.faults(point, campaign, campaign.settings_of(point.source)))
    except TrackaError:
        return False


def _overrides(settings: EvalSettings) -> tuple[str, ...]:
    values = {"n_action_steps": settings.n_action_steps, **policy_metadata.overrides(settings)}
    return tuple(f"--{name}={lerobot_eval.flag_value(value)}" for name, value in values.items() if value is not None)


def _run_probe(campaign: Campaign, requests: Sequence[ProbeAnswer], folder: Path) -> _Probed:
    """Runs the probe and returns what it answered, and how it ended."""
    out, err = folder / "model.log", folder / "model.err"
    process_exit = process.run(
        process.python("tracka.preflight.probes.model", json.dumps(requests)),
        cwd=campaign.layout.root,
        env=environment.for_row(campaign, gpu.CPU_DEVICE, "osmesa") | {"HF_HUB_OFFLINE": "1"},
        stdout=out,
        stderr=err,
        bounds=Bounds(campaign.probe_secs),
    )
    answers = [*parsing.printed_values(files.read_text(out), '{"wanted"')]
    exit_text = process.cause_of_end(process_exit, out, err)
    return _Probed(answers, exit_text, round(process_exit.seconds, 3), process_exit.timed_out)


def _check(policy_path: str, answers: Sequence[ProbeAnswer | None], probed: _Probed) -> Check:
    """Returns the check of one checkpoint by the worst of the probe's answers about it."""
    name, seconds = f"model:{policy_path}", probed.seconds
    received = [answer for answer in answers if answer]
    if faults := list(dict.fromkeys(fault for answer in received for fault in _faults(answer))):
        remedies = "; ".join(dict.fromkeys(remedy for _, remedy in faults))
        return Check(name, "fail", "; ".join(what for what, _ in faults), remedies, seconds=seconds)
    if len(received) < len(answers):
        what = f"not compared: the probe ended before this checkpoint ({probed.exit_text})"
        return Check(name, "warn", what, LATER, False, seconds, probed.timed_out)
    if error := next((answer["error"] for answer in received if answer["error"]), None):
        return Check(name, "warn", f"not compared: {error}", LATER, False, seconds)
    if skip_lines := list(
        dict.fromkeys(line for answer in received for line in answer["said"] if line.startswith(SKIPS))
    ):
        what = f"lerobot's loader leaves tensors out on purpose: {joined_names(skip_lines, FEW)}"
        return Check(name, "warn", what, "Check that the checkpoint has this policy type", False, seconds)
    return Check(name, "pass", _evidence(received[0]), seconds=seconds)


def _evidence(answer: ProbeAnswer) -> str:
    model_evidence = f"all {answer['wanted']} tensors of the model are in the file"
    return (
        f"{model_evidence}, and all {answer['adapter']['wanted']} of the adapter in its file"
        if answer["adapter"]
        else model_evidence
    )


def _faults(answer: ProbeAnswer) -> Iterator[tuple[str, str]]:
    """Yields what is wrong with a checkpoint, each fault with its remedy."""
    if answer["config"]:
        words = " ".join(answer["words"])
        overrides = f" with {words}" if words else ""
        yield f"lerobot cannot read config.json{overrides}: {answer['config']}", SETTING if words else CONFIG
    if answer["processors"]:
        yield f"lerobot cannot load the processors: {answer['processors']}", PROCESSORS
    yield from ((what, SAVE) for what in _differences(answer, "model"))
    if answer["refused"]:
        yield f"PEFT cannot load the adapter: {answer['refused']}", SAVE_ADAPTER
    if answer["adapter"]:
        yield from ((what, SAVE_ADAPTER) for what in _differences(answer["adapter"], "adapter"))


def _differences(answer: ProbeAnswer, owner: str) -> Iterator[str]:
    """Yields how a file's tensors differ from those of the model, or from those that PEFT makes for the adapter."""
    if missing := answer["missing"]:
        what = (
            f"{len(missing)} of {answer['wanted']} tensors of the {owner} are not in the file: "
            f"{joined_names(missing, FEW)}"
        )
        yield f"{what}; lerobot would use random numbers instead"
    for name, (in_file, in_model) in list(answer["misshaped"].items())[:FEW]:
        yield f"{name} has the shape {as_text(in_file)} in the file, and {as_text(in_model)} in the {owner}"
    for name, (in_file, in_model) in list(answer["mistyped"].items())[:FEW]:
        yield f"{name} is of type {in_file} in the file, and {in_model} in the {owner}"
    if unused := answer["unused"]:
        yield f"{len(unused)} tensors of the file do not belong to the {owner}: {joined_names(unused, FEW)}"
