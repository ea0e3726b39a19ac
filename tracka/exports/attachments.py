"""Names the files of a row that failed, as a reader of JUnit reports attaches them to its test.

Jenkins' plug-in junit-attachments takes lines `[[ATTACHMENT|/absolute/path]]` in the output of a test. GitLab takes the
first such line, with a path relative to the checkout. So the most telling file comes first.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

from ..campaign.campaign import Campaign
from ..report_page import episodes

START = "[[ATTACHMENT|"
MOST_VIDEOS = 5  # of episodes that failed; report.html has all
_CHECKOUT = "CI_PROJECT_DIR"  # where GitLab's checkout lies


def text(campaign: Campaign, run_id: str, environ: Mapping[str, str]) -> str:
    """Returns a line for each file, or nothing where the row has left none.

    `environ` says whether GitLab runs the tests.
    """
    checkout = environ.get(_CHECKOUT)
    lines = [_line(path, Path(checkout).resolve() if checkout else None) for path in _paths(campaign, run_id)]
    return "".join(f"{line}\n" for line in lines if line.isprintable() and line.count("]]") == 1)


def _paths(campaign: Campaign, run_id: str) -> Iterator[Path]:
    """Yields videos of episodes that failed, then the logs, then the records."""
    played = episodes.of_row(campaign, run_id)
    yield from [each.video.path for each in played if each.video and not each.success][:MOST_VIDEOS]
    folder = campaign.layout.run(run_id)
    yield from (path for path in (folder.stderr, folder.stdout, folder.result, folder.manifest) if path.is_file())


def _line(path: Path, checkout: Path | None) -> str:
    whole = path.resolve()
    is_inside = checkout is not None and whole.is_relative_to(checkout)
    return f"{START}{whole.relative_to(checkout) if checkout and is_inside else whole}]]"
