"""The command `tracka replay`, which plays one recorded episode again and films it."""

from pathlib import Path
from typing import Annotated

import typer

from . import completion
from .campaign import campaign
from .campaign.campaign import Campaign
from .campaign.layout import Layout
from .core import files, schema


def register(app: typer.Typer) -> None:
    """Adds the command to `app`."""
    app.command("replay")(replay_command)


def replay_command(
    run_name: Annotated[
        str,
        typer.Argument(autocompletion=completion.run, metavar="RUN", help="A run id, or the folder of a run."),
    ],
    task: Annotated[int, typer.Option(min=0, help="The LIBERO task.")],
    episode: Annotated[int, typer.Option(min=0, help="The episode of the task, from 0.")],
    root: Annotated[
        Path | None,
        typer.Option(
            autocompletion=completion.campaign,
            help="The campaign's folder; by default the current folder or the run's.",
        ),
    ] = None,
    tier: Annotated[
        str | None, typer.Option(autocompletion=completion.tier, help="The tier of the campaign that has the run.")
    ] = None,
) -> None:
    """Play one recorded episode again and film it. Exits with 0 for the recorded outcome and with 1 for another."""
    from .runs import replays

    spec, run_id = _locate(run_name, root, tier)
    recorded = replays.require(spec, run_id, task, episode)
    (replay,) = replays.play(spec, [recorded], spec.timeout(spec.row(run_id)))
    manifest = schema.read("run_manifest", spec.layout.run(run_id).manifest)
    print(files.redacted(replays.sentence(replay, manifest["versions"])))
    print(f"film: {files.redacted(str(recorded.film))}")
    raise typer.Exit(0 if replay["same_outcome"] else 1)


def _locate(name: str, root: Path | None, tier: str | None) -> tuple[Campaign, str]:
    """Returns the campaign and the run id that the command line names."""
    folder = Path(name)
    if root is None and "/" in name and folder.is_dir():
        layout = Layout.of_runs(folder.absolute().parent)
        return campaign.load_at(layout), folder.name
    return campaign.load(root or Path(), tier), name
