"""Plays random recorded episodes of a bundle again, on a host with the simulator, and holds each against its record.

Guarantees: of the bundle only numbers are used, its recorded actions and what its campaign asks of the simulator; no
program, path or flag that a manifest of the bundle names is run.
"""

import random
from pathlib import Path

from ..campaign.campaign import Campaign
from ..campaign.matrix import Row
from ..core.errors import Finding, TrackaError, UsageError
from ..core.replayed import PlayedOutcome, Replay
from ..engines import lerobot_eval
from ..runs import replays
from ..runs.replays import Start
from .verification import Opened, Verification

# Of the steps of a success on a processor of another kind: there the bits may differ, and with them the last steps.
TOLERANCE = 0.1
FLAGS = {
    f"--env.{name}"
    for name in (
        "type",
        "task",
        "task_ids",
        "episode_length",
        "observation_height",
        "observation_width",
        "control_mode",
        "fps",
        "init_states",
        "camera_name_mapping",
    )
}
REMEDY = "Ask for the run's own host: there the same actions give the same bits"


def play(found: Verification, bundle_file: Opened, count: int) -> None:
    """Adds to `found` how so many random episodes went that were played again."""
    campaign = bundle_file.campaign
    episodes = [episode for row in campaign.enabled for episode in replays.recorded(campaign.layout, row.run_id)]
    if not episodes:
        found.unknown.append("whether recorded actions give the recorded outcomes: no episode is recorded")
        return
    chosen = random.SystemRandom().sample(episodes, min(count, len(episodes)))
    for run_id in dict.fromkeys(episode.run_id for episode in chosen):
        mine = [episode for episode in chosen if episode.run_id == run_id]
        try:
            row = campaign.row(run_id)
            for replay in replays.play(campaign, mine, campaign.timeout(row), _start(campaign, row)):
                _judge(found, replay)
        except TrackaError as error:
            found.findings += error.findings


def _start(campaign: Campaign, row: Row) -> Start:
    """Returns how a row is played again by its campaign's settings. Raises UsageError for a flag that is not known."""
    argv = lerobot_eval.command(
        (), row, campaign.settings(row), policy=Path(), device="cpu", batch_size=1, output=Path()
    )
    flags = [word for word in argv if word.startswith("--env.")]
    if unknown := [word for word in flags if word.partition("=")[0] not in FLAGS]:
        what = f"the bundle asks for {unknown[0]}, which a replay does not give to a simulator unread"
        raise UsageError(Finding(f"row {row.run_id}", what, "Read it, and replay in the campaign: tracka replay"))
    return Start(tuple(flags), ())


def _judge(found: Verification, replay: Replay) -> None:
    name = f"{replay['run_id']}, task {replay['task']}, episode {replay['episode']}"
    before, after = replay["recorded"], replay["played"]
    if replay["same_bits"]:
        found.held.append(f"replay: {name} goes as recorded, to the bit")
    elif not replay["same_outcome"]:
        what = f"the recorded actions {_words(after)}, but the record says that they {_words(before)}"
        found.findings.append(Finding(f"replay of {name}", what, REMEDY))
    elif abs(before["steps"] - after["steps"]) > TOLERANCE * before["steps"]:
        what = f"the recorded actions end after {after['steps']} steps, but the record says after {before['steps']}"
        found.findings.append(Finding(f"replay of {name}", what, REMEDY))
    else:
        found.held.append(f"replay: {name} has the recorded outcome, but not its bits: another processor or software")


def _words(outcome: PlayedOutcome) -> str:
    return "succeed" if outcome["success"] else "fail"
