"""Films episodes that the engine did not film, by playing them again from their records, within a bounded time."""

import time
from collections.abc import Sequence

from ..campaign.campaign import Campaign
from ..core.counting import counted
from ..core.errors import TrackaError
from ..runs import replays
from ..runs.replays import RecordedEpisode
from . import episodes
from .episodes import ShownEpisode

MOST_SECONDS = 600.0  # for all films of a page; what is not filmed by then can be filmed by the next call


def film(campaign: Campaign, choice: str, seconds: float = MOST_SECONDS) -> str:
    """Films the recorded episodes without a video, and returns in a sentence what was done.

    `choice` is `all`, `failures` or `none`. The sentence is empty where nothing had to be filmed.
    """
    if choice == "none":
        return ""
    run_ids = [row.run_id for row in campaign.enabled]
    wanted = {run_id: records for run_id in run_ids if (records := _unfilmed(campaign, run_id, choice))}
    end, made, troubles = time.monotonic() + seconds, 0, []
    for records in wanted.values():
        try:
            for _ in replays.play(campaign, records, max(1.0, end - time.monotonic())):
                made += 1
        except TrackaError as error:
            troubles.append(error.findings[0].what)
        if time.monotonic() >= end:
            break
    asked = sum(map(len, wanted.values()))
    return _sentence(asked, made, troubles, time.monotonic() >= end) if asked else ""


def _unfilmed(campaign: Campaign, run_id: str, choice: str) -> list[RecordedEpisode]:
    """Returns the records of a run's episodes that shall be filmed and have no video yet."""
    records = {record.key: record for record in replays.recorded(campaign.layout, run_id)}
    shown = [episode for episode in episodes.of_row(campaign, run_id) if _is_chosen(episode, choice)]
    keys = [(episode.task, episode.number) for episode in shown]
    return [records[key] for key in keys if key in records]


def _is_chosen(episode: ShownEpisode, choice: str) -> bool:
    return episode.video is None and (choice == "all" or (choice == "failures" and not episode.success))


def _sentence(asked: int, made: int, troubles: Sequence[str], late: bool) -> str:
    left = asked - made
    if not left:
        return f"{counted(made, 'episode')} {'was' if made == 1 else 'were'} filmed by replay"
    why = troubles[0] if troubles else "the time was up; the next call goes on" if late else "the replay did not end"
    return f"{made} of {asked} episodes were filmed by replay; {left} are left out: {why}"
