"""Checks whether a checkpoint's file has the tensors that lerobot's policy class wants, without reading weights.

One process serves all checkpoints: it imports lerobot once and lets lerobot's own loaders work on shapes alone.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..campaign.campaign import Campaign, EvalSettings
from ..checkpoints import adapter, checkpoint, code_safety, hub_dependencies, policy_metadata
from ..checkpoints.checkpoint import Checkpoint
from ..checkpoints.tensors import as_text
from ..core import files
from ..core.check import Check
from ..core.errors import TrackaError, joined_names
from ..engines import cli_capabilities, lerobot_eval
from ..execution import environment, gpu, process
from ..execution.process import Bounds

FEW = 4  # how many tensors a message names
OWN_PROGRAM = "not compared: the campaign has a program of its own (executable), which may have classes of its own"
SAVE = "Take the checkpoint that training saved (save_pretrained), whole, with the config.json beside it"
SAVE_ADAPTER = (
    "Take the adapter that training saved, whole: adapter_model.safetensors with its own adapter_config.json, and as "
    "its base the policy that it was trained on"
)
CONFIG = (
    "It was written by another lerobot, or by hand: save it with lerobot 0.6.1, or take out what that does not know"
)
SETTING = "Mend the setting in campaign.toml, or config.json"
PROCESSORS = "Save them again with save_pretrained of lerobot 0.6.1, both, with the files that they name"
LATER = "The row itself is held: it fails by the reason `weights` if lerobot's loader says that weights are missing"
SKIPS = "Skipping"  # lerobot's loaders begin with this word when they leave a tensor out on purpose
ProbeAnswer = Mapping[str, Any]


def checks(campaign: Campaign, policy_paths: Sequence[str], folder: Path) -> list[Check]:
    """Returns a check `model:POLICY_PATH` for each of these checkpoints on this host. Logs go to `folder`."""
    if untrusted := list(code_safety.plugin_faults(cli_capabilities.installed_software().plugins, campaign.trusted)):
        what = f"not compared, since lerobot would import what nobody trusts: {untrusted[0].where}"
        return [Check(f"model:{path}", "warn", what, untrusted[0].remedy, False) for path in policy_paths]
    if campaign.executable:
        return [Check(f"model:{path}", "pass", OWN_PROGRAM, required=False) for path in policy_paths]
    asked = {path: list(_probe_requests(campaign, path)) for path in policy_paths}
    if not any(asked.values()):
        return []
    answers, why, seconds = _run_probe(campaign, [each for group in asked.values() for each in group], folder)
    told = iter(answers)
    return [_check(path, [next(told, None) for _ in group], why, seconds) for path, group in asked.items()]


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
    over = {"n_action_steps": settings.n_action_steps, **policy_metadata.overrides(settings)}
    return tuple(f"--{name}={lerobot_eval.flag_value(value)}" for name, value in over.items() if value is not None)


def _run_probe(campaign: Campaign, asked: Sequence[ProbeAnswer], folder: Path) -> tuple[list[ProbeAnswer], str, float]:
    """Runs the probe and returns its answers, why there are no more of them, and the seconds that it took."""
    out, err = folder / "model.log", folder / "model.err"
    ended = process.run(
        process.python("tracka.preflight.probes.model", json.dumps(asked)),
        cwd=campaign.layout.root,
        env=environment.for_row(campaign, gpu.CPU_DEVICE, "osmesa") | {"HF_HUB_OFFLINE": "1"},
        stdout=out,
        stderr=err,
        bounds=Bounds(campaign.probe_secs),
    )
    answers = [json.loads(line) for line in files.read_text(out).splitlines() if line.startswith('{"wanted"')]
    return answers, process.last_words(ended, err), round(ended.seconds, 3)


def _check(policy_path: str, answers: Sequence[ProbeAnswer | None], why: str, seconds: float) -> Check:
    """Returns the check of one checkpoint by the worst of the probe's answers about it."""
    name = f"model:{policy_path}"
    known = [answer for answer in answers if answer]
    if wrong := list(dict.fromkeys(fault for answer in known for fault in _faults(answer))):
        remedies = "; ".join(dict.fromkeys(remedy for _, remedy in wrong))
        return Check(name, "fail", "; ".join(what for what, _ in wrong), remedies, seconds=seconds)
    if len(known) < len(answers):
        return Check(name, "warn", f"not compared: the probe ended without it ({why})", LATER, False, seconds)
    if lost := next((answer["error"] for answer in known if answer["error"]), None):
        return Check(name, "warn", f"not compared: {lost}", LATER, False, seconds)
    if skipped := list(dict.fromkeys(line for answer in known for line in answer["said"] if line.startswith(SKIPS))):
        what = f"lerobot's loader leaves tensors out on purpose: {joined_names(skipped, FEW)}"
        return Check(name, "warn", what, "See that the checkpoint is of this type of policy", False, seconds)
    return Check(name, "pass", _evidence(known[0]), seconds=seconds)


def _evidence(answer: ProbeAnswer) -> str:
    whole = f"all {answer['wanted']} tensors of the model are in the file"
    return f"{whole}, and all {answer['adapter']['wanted']} of the adapter in its own" if answer["adapter"] else whole


def _faults(answer: ProbeAnswer) -> Iterator[tuple[str, str]]:
    """Yields what is wrong with a checkpoint, each fault with its remedy."""
    if answer["config"]:
        words = " ".join(answer["words"])
        over = f" with {words}" if words else ""
        yield f"lerobot cannot read config.json{over}: {answer['config']}", SETTING if words else CONFIG
    if answer["processors"]:
        yield f"lerobot cannot load the processors: {answer['processors']}", PROCESSORS
    yield from ((what, SAVE) for what in _differences(answer, "model"))
    if answer["refused"]:
        yield f"PEFT cannot load the adapter: {answer['refused']}", SAVE_ADAPTER
    if answer["adapter"]:
        yield from ((what, SAVE_ADAPTER) for what in _differences(answer["adapter"], "adapter"))


def _differences(answer: ProbeAnswer, of: str) -> Iterator[str]:
    """Yields how a file's tensors differ from those of the model, or from those that PEFT makes for the adapter."""
    if missing := answer["missing"]:
        what = (
            f"{len(missing)} of {answer['wanted']} tensors of the {of} are not in the file: "
            f"{joined_names(missing, FEW)}"
        )
        yield f"{what}; lerobot would go on with random numbers"
    for name, (theirs, ours) in list(answer["misshaped"].items())[:FEW]:
        yield f"{name} has the shape {as_text(theirs)} in the file, and {as_text(ours)} in the {of}"
    for name, (theirs, ours) in list(answer["mistyped"].items())[:FEW]:
        yield f"{name} is of type {theirs} in the file, and {ours} in the {of}"
    if unused := answer["unused"]:
        yield f"{len(unused)} tensors of the file are not of the {of}: {joined_names(unused, FEW)}"
