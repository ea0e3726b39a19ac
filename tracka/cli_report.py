"""The command `tracka report`, which writes the page of a campaign or an index over several campaigns."""

from pathlib import Path
from typing import Annotated, cast, get_args

import typer

from .campaign import campaign
from .core.errors import Finding, UsageError, shortened
from .report_page import index, page
from .report_page.media import Choice


def register(app: typer.Typer) -> None:
    """Adds the command to `app`."""
    app.command("report")(report_command)


def report_command(
    root: Annotated[Path, typer.Argument(metavar="B", help="A campaign's folder, or a folder of several campaigns.")],
    against: Annotated[Path | None, typer.Option(help="The campaign or eval_info.json A to compare B with.")] = None,
    single_file: Annotated[bool, typer.Option("--single-file", help="Put the videos inside the page.")] = False,
    videos: Annotated[str, typer.Option(help="Which videos the page shows: all, failures or none.")] = "all",
    output: Annotated[Path | None, typer.Option(help="The page; by default report.html in the folder.")] = None,
) -> None:
    """Write report.html of a campaign, alone or against another one, or an index over several campaigns."""
    if videos not in get_args(Choice):
        remedy = f"Use one of {', '.join(get_args(Choice))}"
        raise UsageError(Finding("--videos", f"{shortened(videos)!r} is unknown", remedy))
    if index.is_folder_of_campaigns(root):
        if against or single_file:
            what = "the folder holds several campaigns, and an index over them shows no videos"
            raise UsageError(Finding(str(root), what, "Name one of its campaigns"))
        print(index.write(root, output))
        return
    options = page.PageOptions(against, single_file, cast(Choice, videos), output)
    print(page.write(campaign.load(root), options))
