"""Makes the data that the page's script reads: each episode with its media, and its partner in the other campaign."""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path

from ..core import files
from ..core.files import Json
from ..reporting import collect
from ..reporting.sides import PlayedEpisode
from .episodes import Recorded, ShownEpisode
from .matrix_rows import ShownRow
from .media import Choice, Media

Partners = Mapping[str, PlayedEpisode]  # name of an episode -> the other campaign's episode that began alike


def chosen(episodes: Sequence[ShownEpisode], partners: Partners, choice: Choice) -> list[ShownEpisode]:
    """Returns the episodes whose videos are shown; one that the other campaign failed counts as failed too."""
    failed = {
        episode.name
        for episode in episodes
        if not episode.success or not getattr(partners.get(episode.name), "success", True)
    }
    return [episode for episode in episodes if choice == "all" or (choice == "failures" and episode.name in failed)]


def partner_videos(episodes: Iterable[ShownEpisode], partners: Partners) -> list[Recorded]:
    """Returns the videos of the other campaign's episodes that are paired with `episodes`."""
    videos = (_video(partners.get(episode.name)) for episode in episodes)
    return [video for video in videos if video]


def _video(episode: PlayedEpisode | None) -> Recorded | None:
    return _recorded(episode.video.absolute()) if episode and episode.video else None


@cache
def _recorded(path: Path) -> Recorded | None:
    return Recorded(path, files.sha256_file(path)) if path.is_file() else None


def data(
    episodes: Sequence[ShownEpisode],
    rows: Sequence[ShownRow],
    words: Mapping[str, Mapping[int, str]],
    media: Media,
    partners: Partners | None,
) -> Json:
    """Returns the page's data. `words` are the tasks' instructions; `partners` is None without another campaign."""
    return {
        "episodes": [_episode(episode, media, (partners or {}).get(episode.name)) for episode in episodes],
        "rows": {row.result.run_id: _row(row) for row in rows},
        "words": words,
        "traces": media.embedded,
        "compared": partners is not None,
    }


def _episode(episode: ShownEpisode, media: Media, partner: PlayedEpisode | None) -> Json:
    trace, has_media = media.traces.get(episode.name), episode.name in media.names
    others_video = _video(partner) if has_media else None
    return {
        "id": episode.name,
        "row": episode.run_id,
        "suite": episode.suite,
        "task": episode.task,
        "number": episode.number,
        "success": episode.success,
        "initState": episode.init_state,
        "seed": episode.seed,
        "resetOrdinal": episode.reset_ordinal,
        "steps": episode.steps,
        "replayed": episode.is_filmed_by_replay,
        "replay": episode.replay,
        "trace": {"name": trace[0], "file": trace[1]} if trace else None,
        "partner": {"success": partner.success, **_places(others_video, media)} if partner else None,
        **_places(episode.video if has_media else None, media),
    }


def _places(video: Recorded | None, media: Media) -> Json:
    sha256 = video.sha256 if video else ""
    return {"video": media.videos.get(sha256), "poster": media.posters.get(sha256)}


def _row(row: ShownRow) -> Json:
    return {
        "suite": row.result.task_suite,
        "tasks": row.tasks,
        "policy": row.result.policy_path,
        "status": row.result.status,
        "counted": row.is_counted,
        "reason": row.reason,
        "replay": row.replay,
        "device": row.device,
        "engine": collect.engine_in_words(row.result.engine, row.result.precision),
    }
