"""The commands `tracka bundle` and `tracka verify`: a campaign's evidence in one file, and what can be known of it."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from . import completion
from .campaign import campaign
from .core import files
from .core.errors import screen


def register(app: typer.Typer) -> None:
    """Adds the commands to `app`."""
    app.command("bundle")(bundle_command)
    app.command("verify")(verify_command)


def bundle_command(
    root: Annotated[
        Path, typer.Argument(autocompletion=completion.campaign, metavar="CAMPAIGN", help="A campaign's folder.")
    ],
    output: Annotated[Path | None, typer.Option(help="The file; by default NAME.tar in the current folder.")] = None,
    videos: Annotated[bool, typer.Option("--videos/--no-videos", help="Leave videos out; their hashes stay.")] = True,
    redact: Annotated[
        bool, typer.Option("--redact", help="Make a marked copy without this machine's paths and names.")
    ] = False,
    sign_key: Annotated[Path | None, typer.Option(help="A private key in PEM, to sign the statements with.")] = None,
    tier: Annotated[
        str | None,
        typer.Option(autocompletion=completion.tier, help="Bundle this tier of the campaign instead of all of it."),
    ] = None,
) -> None:
    """Write a campaign's evidence as one archive, which anybody can verify: the same campaign, the same bytes.

    Says the campaign's verdict. Exits with 1 and writes nothing where files of the campaign contradict each other.
    """
    from .bundles import bundle, soundness

    options = bundle.BundleOptions(output, tier, videos, redact, sign_key)
    spec = campaign.load(root, tier)
    verdict = soundness.require(spec, redact)
    replaced = bundle.path_of(spec, options).is_file()
    file = bundle.write(root, options)
    print(file)
    typer.echo(f"verdict: {verdict}", err=True)
    if replaced:
        typer.echo(f"{file} was there before: it is overwritten", err=True)
    typer.echo(f"next: tracka verify {shlex.quote(str(file))}, which anybody can run, offline", err=True)


def verify_command(
    path: Annotated[Path, typer.Argument(metavar="BUNDLE", help="The file that tracka bundle wrote.")],
    key: Annotated[Path | None, typer.Option(help="A public key in PEM that must have signed the bundle.")] = None,
    replay: Annotated[
        int, typer.Option(min=0, help="Play so many random recorded episodes again; needs the simulator.")
    ] = 0,
) -> None:
    """Check a bundle offline. Exits with 0 if its campaign is accepted by its files, 1 if not.

    Exits with 2 if the file is not a bundle.

    With 1, the line `bundle:` says whether the bundle is sound and its campaign was not accepted, or it is not sound.
    """
    from .bundles import bundle_replays, rejection, verification

    with verification.opened(path) as bundle_file:
        found = verification.verify(bundle_file, key)
        if replay:
            bundle_replays.play(found, bundle_file, replay)
    for words in found.held:
        print(f"holds    {words}")
    for words in found.unknown:
        print(f"unknown  {words}")
    for words in found.rejected:
        print(files.redacted(f"rejected {words}"))
    if found.faults:
        typer.echo(screen(found.faults, head="finding  "), err=True)
    if found.findings:
        print(rejection.UNSOUND if found.faults else rejection.SOUND)
    print(f"verdict: {found.verdict}")
    raise typer.Exit(1 if found.findings else 0)
