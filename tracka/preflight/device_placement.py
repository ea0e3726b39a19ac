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
TO_CPU = 'Write "device": "cpu" into that step, as lerobot saves it: actions go to the simulator'
WITHOUT_AMP = 'Run it on a GPU, or put "policy.use_amp" = false below [lerobot_eval.flags] in campaign.toml'


def check(campaign: Campaign, policy_path: str) -> Check:
    """Returns the check `device:POLICY_PATH` over all rows of the policy."""

    def judge() -> str:
        folder = checkpoint.resolve(policy_path, campaign.layout.root, campaign.policy_roots).folder
        rows = [row for row in campaign.enabled if row.policy_path == policy_path and row.gpu_id == CPU]
        on_cpu = policy_metadata.distinct_settings(map(campaign.settings, rows))
        found = list(_postprocessor(folder / policy_metadata.POSTPROCESSOR, bool(on_cpu)))
        found += [each for settings in on_cpu for each in _amp(policy_metadata.read(folder, settings))]
        if found:
            raise TrackaError(list(dict.fromkeys(found)))
        return "the postprocessor's device and use_amp fit where the rows run"

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


def _amp(made: policy_metadata.PolicyMetadata) -> Iterator[Finding]:
    if str(made.config.get("use_amp", False)).lower() == "true":
        what = "use_amp is set, and on a CPU that computes in bfloat16, which the policy was not trained with"
        yield Finding(made.where, what, WITHOUT_AMP)
