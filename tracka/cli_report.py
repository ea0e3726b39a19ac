"""The command `tracka report`, which writes the page of a campaign or an index over several campaigns."""

from pathlib import Path
from typing import Annotated, Any

import typer

from .campaign import campaign
from .core.errors import Finding, UsageError, shortened

VIDEOS = ("all", "failures", "none")


def register(app: typer.Typer) -> None:
    """Adds the command to `app`."""
    app.command("report")(report_command)


def report_command(
    root: Annotated[Path, typer.Argument(metavar="B", help="A campaign's folder, or a folder of several campaigns.")],
    against: Annotated[Path | None, typer.Option(help="What to compare B with, as `tracka compare` takes it.")] = None,
    single_file: Annotated[bool, typer.Option("--single-file", help="Put the videos inside the page.")] = False,
    videos: Annotated[str, typer.Option(help="Which videos the page shows: all, failures or none.")] = "all",
    output: Annotated[Path | None, typer.Option(help="The page; by default report.html in the folder.")] = None,
    tier: Annotated[str | None, typer.Option(help="Show this tier of the campaign instead of all of it.")] = None,
) -> None:
    """Write report.html of a campaign, alone or against another one, or an index over several campaigns."""
    if videos not in VIDEOS:
        raise UsageError(Finding("--videos", f"{shortened(videos)!r} is unknown", f"Use one of {', '.join(VIDEOS)}"))
    from .report_page import index, page
    from .reporting import played_episodes

    folder, policy = played_episodes.place_and_policy(root)
    if index.is_folder_of_campaigns(folder):
        if against or single_file or tier:
            what = "the folder holds several campaigns, and an index over them shows no videos"
            raise UsageError(Finding(str(root), what, "Name one of its campaigns"))
        print(index.write(folder, output))
        return
    choice: Any = videos
    print(page.write(campaign.load(folder, tier), page.PageOptions(against, policy, single_file, choice, output)))
