"""Brings posters, videos and traces of the shown episodes to a page: as files beside it, or inside the page itself."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..core import damaged
from . import embedding, posters, traces
from .episodes import Recorded, ShownEpisode
from .traces import TraceFiles

Choice = Literal["all", "failures", "none"]


@dataclass(frozen=True)
class Media:
    """Where a page finds what belongs to a video or an episode; `names` are the episodes that it shows with media.

    `posters` and `videos` map the sha256 of a video to an address, `traces` maps the name of an episode to its side
    file's name and address. The address is None where the traces are inside the page: `embedded` has them by that name.
    """

    names: frozenset[str] = frozenset()
    posters: Mapping[str, str] = field(default_factory=dict)
    videos: Mapping[str, str] = field(default_factory=dict)
    traces: Mapping[str, tuple[str, str | None]] = field(default_factory=dict)
    embedded: Mapping[str, Any] = field(default_factory=dict)


def beside(page_folder: Path, folder: Path, episodes: Sequence[ShownEpisode], others: Iterable[Recorded] = ()) -> Media:
    """Returns the media of a page in `page_folder`. Posters and traces go to `folder`, videos stay.

    `others` are the videos of the campaign that the page compares with.
    """
    address = embedding.relative_to(page_folder)
    videos = _videos(episodes, others)
    made = posters.make(videos, folder / "posters")
    return Media(
        _names(episodes),
        {sha256: address(path) for sha256, path in made.items()},
        {sha256: address(path) for sha256, path in videos.items()},
        {
            episode.name: (name, address(traces.write(folder / "traces", name, recorded)))
            for name, recorded, group in _recordings(episodes)
            for episode in group
        },
    )


def inside(folder: Path, episodes: Sequence[ShownEpisode], others: Iterable[Recorded] = ()) -> Media:
    """Returns the media of a page that holds everything itself. `folder` keeps the posters for the next page."""
    videos = _videos(episodes, others)
    made = posters.make(videos, folder / "posters")
    recordings = [*_recordings(episodes)]
    return Media(
        _names(episodes),
        {sha256: embedding.data_uri(path) for sha256, path in made.items()},
        {sha256: embedding.data_uri(path) for sha256, path in videos.items()},
        {episode.name: (name, None) for name, _, group in recordings for episode in group},
        {name: traces.content(recorded) for name, recorded, _ in recordings},
    )


def remove_unused(folder: Path, media: Media) -> None:
    """Removes the posters and side files in `folder` that the page beside it no longer names."""
    addresses = [*media.posters.values(), *(address for _, address in media.traces.values() if address)]
    names = {address.rpartition("/")[2] for address in addresses}
    for path in [*folder.glob("posters/*.webp"), *folder.glob("traces/*.js")]:
        if path.name not in names:
            damaged.remove(path)


def _names(episodes: Sequence[ShownEpisode]) -> frozenset[str]:
    return frozenset(episode.name for episode in episodes)


def _videos(episodes: Sequence[ShownEpisode], others: Iterable[Recorded]) -> dict[str, Path]:
    own = [episode.video for episode in episodes if episode.video]
    return {video.sha256: video.path for video in (*own, *others)}


def _recordings(episodes: Sequence[ShownEpisode]) -> list[tuple[str, dict[int, TraceFiles], list[ShownEpisode]]]:
    """Returns the episodes with recorded actions by row and task, each group with its name and its files."""
    groups: dict[tuple[str, int], list[ShownEpisode]] = defaultdict(list)
    for episode in episodes:
        if episode.actions:
            groups[episode.run_id, episode.task].append(episode)
    return [
        (
            traces.key([file.sha256 for episode in group for file in (episode.actions, episode.states) if file]),
            {
                episode.number: TraceFiles(episode.actions.path, episode.states.path if episode.states else None)
                for episode in group
                if episode.actions
            },
            group,
        )
        for group in groups.values()
    ]
