"""Checks whether the devices that a checkpoint names fit the devices that its rows run on."""

from collections.abc import Iterator
from pathlib import Path

from ..campaign.campaign import Campaign
from ..campaign.matrix import CPU
from ..checkpoints import checkpoint, policy_metadata
from ..core.check import Check, run_check
from ..core.errors import Finding, TrackaError

CUDA = "cuda"
# lerobot-eval sets the preprocessor's device to the row's. The postprocessor keeps the device it was saved with.
TO_CPU = 'Set "device": "cpu" in that step, as lerobot saves it: the simulator takes actions on the CPU'
WITHOUT_AMP = 'Run the policy on a GPU, or set "policy.use_amp" = false below [lerobot_eval.flags] in campaign.toml'


def check(campaign: Campaign, policy_path: str) -> Check:
    """Returns the check `device:POLICY_PATH` over all rows of the policy."""

    def judge() -> str:
        folder = checkpoint.resolve(policy_path, campaign.layout.root, campaign.policy_roots).folder
        rows = [row for row in campaign.enabled if row.policy_path == policy_path and row.gpu_id == CPU]
        cpu_settings = policy_metadata.distinct_settings(map(campaign.settings, rows))
        findings = list(_postprocessor(folder / policy_metadata.POSTPROCESSOR, bool(cpu_settings)))
        findings += [finding for settings in cpu_settings for finding in _amp(policy_metadata.read(folder, settings))]
        if findings:
            raise TrackaError(list(dict.fromkeys(findings)))
        return "the postprocessor's device and use_amp fit the rows' devices"

    return run_check(f"device:{policy_path}", judge)


def _postprocessor(path: Path, on_cpu: bool) -> Iterator[Finding]:
    """Yields the postprocessor's devices that the policy's rows do not have. A row sees one GPU at most, as cuda."""
    for step, config in policy_metadata.steps(path):
        device = config.get("device", "cpu") if step.get("registry_name") == "device_processor" else "cpu"
        if device not in ("cpu", CUDA) or (device == CUDA and on_cpu):
            where = "rows on the CPU" if device == CUDA else "a row"
            yield Finding(
                str(path), f"its device_processor moves actions to {device}, which {where} cannot use", TO_CPU
            )


def _amp(policy: policy_metadata.PolicyMetadata) -> Iterator[Finding]:
    if str(policy.config.get("use_amp", False)).lower() == "true":
        what = "use_amp is true: on a CPU the policy computes in bfloat16, with which it was not trained"
        yield Finding(policy.where, what, WITHOUT_AMP)
