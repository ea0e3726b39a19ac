"""Runs the checks that take long side by side: rendering, the simulator, lerobot-eval's flags, checkpoints and models.

Each of them waits for processes that import lerobot, so together they take about as long as the slowest one. Only what
one needs of another comes after it: models are compared once their checkpoints are here and harmless, and the simulator
is probed again if another backend renders than the requested one.
"""

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path

from ..campaign import commands
from ..campaign.campaign import Campaign
from ..core.check import Check
from ..execution.lanes import Lanes
from . import lerobot_checks, model_tensors, policy_resources, rendering, simulator_validity
from .policy_resources import Resource
from .rendering import Frame
from .simulator_validity import Probe

LANES = 5  # what runs side by side at most; each lane decides how many processes it starts at a time


@dataclass(frozen=True)
class Probed:
    """What was found: the tries to render, the simulator's probes, and checks of flags, checkpoints and models."""

    frames: list[Frame]
    simulator: list[Probe]
    resources: list[Resource]
    resource_checks: list[Check]
    model_checks: list[Check]
    flags_check: Check


def run(
    campaign: Campaign, suites: Sequence[str], policy_path: str, requested: str, gpu_ids: Sequence[int], folder: Path
) -> Probed:
    """Returns what was found. Logs and pictures go to `folder`.

    Frames show the first suite; `policy_path` is the baseline's, and `requested` the GL backend of the campaign.
    """
    with Lanes(LANES) as lanes:
        frames = lanes.submit(rendering.try_backends, campaign, suites[0], requested, gpu_ids, folder)
        simulator = lanes.submit(_simulator, campaign, suites, requested, frames, folder)
        flags = lanes.submit(lerobot_checks.flags, campaign)
        checks, collector = policy_resources.collect(campaign, policy_path)
        offline = lanes.submit(policy_resources.offline_check, campaign, collector, folder)
        harmless = policy_resources.harmless_checkpoints(checks)
        models = lanes.submit(model_tensors.checks, campaign, harmless, folder)
        return Probed(
            frames=frames.result(),
            simulator=simulator.result(),
            resources=collector.resources,
            resource_checks=[*checks, offline.result()],
            model_checks=models.result(),
            flags_check=flags.result(),
        )


def _simulator(
    campaign: Campaign, suites: Sequence[str], requested: str, frames: Future[list[Frame]], folder: Path
) -> list[Probe]:
    """Returns the simulator's probes with the backend that has rendered, or else with the requested one.

    The requested backend renders on most hosts, so the probes begin with it before it is known. They draw nothing, but
    robosuite loads OpenGL.
    """
    probes = simulator_validity.probes(campaign, suites, folder, requested)
    frame = rendering.working_frame(frames.result())
    if frame is None or (frame.backend == requested and not frame.prefix):
        return probes
    return simulator_validity.probes(campaign, suites, folder, frame.backend, frame.prefix)


def with_remedy_for_time(campaign: Campaign, check: Check) -> Check:
    """Returns the check, with the remedy that helps where a process took too long."""
    return replace(check, remedy=_remedy_for_time(campaign)) if check.timed_out else check


def _remedy_for_time(campaign: Campaign) -> str:
    secs = campaign.probe_secs
    if not campaign.layout.has_settings:
        return f"Run it again while less else runs on this host; each process of preflight has {secs} s"
    more = f"raise probe_secs under [timeouts] in configs/campaign.toml, from {secs} to {2 * secs}"
    return f"Run it again while less else runs on this host: {commands.gates(campaign.layout, '--lf')}; or {more}"
