"""Chooses what a bundle has of a campaign: its evidence, but no locks, caches, weights or pages for the eye.

A file of the payload is named as it lies in the project: `tasks/NAME/configs/eval_matrix.csv`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ..campaign.campaign import Campaign
from ..campaign.layout import TIERS, Layout
from ..core import files, reading, tree
from ..core.errors import Finding, UsageError

MOST_FILES = 2_000_000
MOST_BYTES = 64 * reading.GIB  # of all files of a bundle together
NOT_EVIDENCE = ("exports", "metrics", "report", TIERS)  # below the artifacts; a tier is bundled by itself
VIDEO = ".mp4"


@dataclass(frozen=True)
class Place:
    """Where a campaign lies in a payload: `name`, such as tasks/NAME, below `base`, the folder of the project."""

    base: Path
    name: PurePosixPath

    @property
    def root(self) -> Path:
        """Returns the campaign's folder."""
        return self.base / self.name

    def payload_name(self, path: Path) -> str:
        """Returns the name of a file in the payload."""
        return path.relative_to(self.base).as_posix()


@dataclass(frozen=True)
class Contents:
    """The files of a payload by their names, and the names of those that are left out with their sha256."""

    files: Mapping[str, Path]
    left_out: Mapping[str, str]


def place_of(layout: Layout) -> Place:
    """Returns where the campaign of `layout` lies in its own project."""
    return Place(layout.project, PurePosixPath(layout.root.relative_to(layout.project).as_posix()))


def collect(campaign: Campaign, place: Place, with_videos: bool = True) -> Contents:
    """Returns what a bundle has of the campaign.

    Raises UsageError with every file that must not be read, such as a named pipe.
    """
    paths = [*_evidence(campaign), *_pages(campaign, place)]
    named = {place.payload_name(path): path for path in paths if with_videos or path.suffix != VIDEO}
    videos = (
        {} if with_videos else {place.payload_name(path): files.sha256_file(path) for path in paths if _is_video(path)}
    )
    return Contents(dict(sorted(named.items())), dict(sorted(videos.items())))


def _is_video(path: Path) -> bool:
    return path.suffix == VIDEO


def _evidence(campaign: Campaign) -> Iterator[Path]:
    """Yields the files of the campaign's definition and of its artifacts."""
    layout = campaign.layout
    for folder in (layout.settings.parent, layout.artifacts):
        faults = tree.faults(folder, reading.OUTPUT, MOST_BYTES, MOST_FILES) if folder.is_dir() else []
        if faults:
            remedy = "Move it out of the campaign, then make the bundle again"
            raise UsageError([Finding(str(fault.path), fault.what, remedy) for fault in faults])
    yield from files.walk_files(layout.settings.parent)
    for path in files.walk_files(layout.artifacts):
        first, *_ = path.relative_to(layout.artifacts).parts
        if first not in NOT_EVIDENCE and layout.locks not in path.parents and not path.name.endswith(".lock"):
            yield path


def _pages(campaign: Campaign, place: Place) -> Iterator[Path]:
    """Yields the pages that the contracts read, and the exported baseline, where they lie in the project."""
    layout = campaign.layout
    named = campaign.verdict.baseline if campaign.verdict else None
    baseline = ((layout.root / named).resolve(),) if named else ()
    for path in (layout.runbook, layout.results, *layout.progress_pages, *baseline):
        if path.is_file() and path.is_relative_to(place.base):
            yield path


def layout_names(place: Place, left_out: Mapping[str, str]) -> frozenset[str]:
    """Returns files that are left out as the artifacts name them: relative to the campaign's folder."""
    layout = Layout(place.root)
    return frozenset(layout.relative(place.base / name) for name in left_out)
