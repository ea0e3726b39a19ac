"""The commands that say what success rates are worth: `tracka compare`, `power`, `noise` and `baseline`."""

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from . import completion
from .campaign import commands
from .campaign.layout import PHASES
from .core import escaping
from .core.counting import counted
from .core.errors import Finding, TrackaError, UsageError, shortened

FORMATS = ("text", "json", "markdown")


def register(app: typer.Typer) -> None:
    """Adds the commands to `app`."""
    app.command("compare")(compare_command)
    app.command("power")(power_command)
    app.command("noise")(noise_command)
    app.add_typer(_baseline_commands(), name="baseline")


def _baseline_commands() -> typer.Typer:
    group = typer.Typer(no_args_is_help=True, help="Make or show an exported baseline.")
    group.command("promote")(promote_command)
    group.command("show")(show_command)
    return group


def compare_command(
    baseline: Annotated[
        Path,
        typer.Argument(
            autocompletion=completion.campaign,
            metavar="A",
            help="The baseline: a campaign's folder, an exported baseline or an eval_info.json.",
        ),
    ],
    candidate: Annotated[
        Path,
        typer.Argument(
            autocompletion=completion.campaign,
            metavar="B",
            help="The candidate: a campaign's folder, an exported baseline or an eval_info.json.",
        ),
    ],
    confidence: Annotated[float, typer.Option(help="Of the one-sided verdict, and of the intervals.")] = 0.95,
    margin: Annotated[float | None, typer.Option(help="The drop that is allowed, such as 0.05.")] = None,
    output: Annotated[str, typer.Option("--format", help="One of text, json and markdown.")] = "text",
) -> None:
    """Say whether B is worse than A, episode by episode where it can be. Exits with 1 if it is."""
    if findings := [*_faults(confidence, margin, output)]:
        raise UsageError(findings)
    from .reporting import comparison_page, comparison_report, comparison_words

    comparison = comparison_report.compare(baseline, candidate, confidence, margin)
    typer.echo(comparison_page.FORMATS[output](comparison), nl=False)
    if output == "text":
        typer.echo(f"next: {comparison_page.next_step(baseline, candidate)}", err=True)
    raise typer.Exit(1 if comparison["verdict"] == comparison_words.WORSE else 0)


def _faults(confidence: float, margin: float | None, output: str) -> Iterator[Finding]:
    if not 0.5 < confidence < 1:
        yield Finding("--confidence", f"{confidence:g} is not between 0.5 and 1", "Give a number such as 0.95")
    if margin is not None and not 0 < margin < 1:
        yield Finding("--margin", f"{margin:g} is not between 0 and 1", "Give a share, such as 0.05 for 5 points")
    if output not in FORMATS:
        yield Finding("--format", f"{shortened(output)!r} is unknown", f"Use one of {', '.join(FORMATS)}")


def power_command(
    threshold: Annotated[float | None, typer.Option(help="The success rate that a policy must reach.")] = None,
    drop: Annotated[float | None, typer.Option(help="The drop to be seen between two policies, such as 0.05.")] = None,
    rate: Annotated[float | None, typer.Option(help="The true success rate: the policy's, or the baseline's.")] = None,
    paired: Annotated[bool, typer.Option("--paired", help="Both play the same episodes.")] = False,
    discordance: Annotated[float | None, typer.Option(help="The share of pairs with two outcomes.")] = None,
    episodes: Annotated[int | None, typer.Option(min=1, help="Say what so many show, of each policy.")] = None,
    chance: Annotated[float, typer.Option(help="The chance of the right answer.")] = 0.8,
    confidence: Annotated[float, typer.Option(help="Of the answer.")] = 0.95,
    two_sided: Annotated[bool, typer.Option("--two-sided", help="Test for a gain too.")] = False,
) -> None:
    """Say how many episodes a threshold or a drop needs, or what a number of episodes shows."""
    from .reporting import episode_planning

    question = episode_planning.Question(
        threshold, drop, rate, paired, discordance, episodes, chance, confidence, two_sided
    )
    for line in episode_planning.answer(question):
        print(line)


def noise_command(
    folder: Annotated[
        Path,
        typer.Argument(
            autocompletion=completion.campaign, metavar="CAMPAIGN", help="The folder of a campaign that has been run."
        ),
    ],
    max_parallel: Annotated[int | None, typer.Option(min=1, help="Rows at a time; by default one a GPU.")] = None,
) -> None:
    """Play a campaign's rows again, and say how many episodes end otherwise. Exits with 1 if a row fails."""
    from .reporting import noise_floor, played_episodes
    from .runs import repetition, run

    spec = played_episodes.load(folder)
    rows = played_episodes.rows(spec, folder)
    codes = repetition.play(spec, rows, run.load_host(spec.layout), max_parallel or max(1, spec.expected_gpus))
    for line in noise_floor.lines(played_episodes.of_campaign(spec, folder)):
        typer.echo(escaping.plain(line))
    raise typer.Exit(1 if any(codes.values()) else 0)


def promote_command(
    folder: Annotated[
        Path,
        typer.Argument(
            autocompletion=completion.campaign, metavar="CAMPAIGN", help="The folder of an accepted campaign."
        ),
    ],
    output: Annotated[Path, typer.Argument(metavar="OUTPUT", help="The file to write, such as baselines/pi0.json.")],
) -> None:
    """Write an accepted campaign's episodes and fingerprints into one small file, to be compared with later."""
    from .gates import validate
    from .reporting import baseline_file, played_episodes

    spec = played_episodes.load(folder)
    if findings := validate.validate(spec, PHASES, strict=True):
        remedy = f"Mend what follows, or run the campaign: {commands.gates(spec.layout)}"
        raise TrackaError([Finding(str(folder), "the campaign is not accepted", remedy), *findings])
    baseline = baseline_file.make(played_episodes.read(folder), spec.name, spec.layout.project)
    baseline_file.write(baseline, output)
    print(f"{output}: {counted(len(baseline['episodes']), 'episode')} of {counted(len(baseline['rows']), 'row')}")
    step = f"tracka compare {shlex.quote(str(output))} CAMPAIGN says whether another campaign is worse"
    typer.echo(f"next: {step}", err=True)


def show_command(file: Annotated[Path, typer.Argument(metavar="FILE", help="An exported baseline.")]) -> None:
    """Show what an exported baseline holds."""
    from .reporting import baseline_file, baseline_page

    for line in baseline_page.lines(baseline_file.read(file)):
        typer.echo(escaping.plain(line))
