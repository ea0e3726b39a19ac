"""The commands `tracka close`, `tracka k8s-manifest` and `tracka slurm-script`, for campaigns beyond one host."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from . import completion
from .campaign import campaign
from .campaign.shards import MOST
from .core import files


def register(app: typer.Typer) -> None:
    """Adds the commands to `app`."""
    app.command("close")(close_command)
    app.command("k8s-manifest")(manifest_command)
    app.command("slurm-script")(script_command)


def close_command(
    root: Annotated[
        Path, typer.Argument(autocompletion=completion.campaign, metavar="CAMPAIGN", help="The campaign's folder.")
    ],
    tier: Annotated[
        str | None,
        typer.Option(autocompletion=completion.tier, help="Close this tier of the campaign instead of all of it."),
    ] = None,
    no_page: Annotated[bool, typer.Option("--no-page", help="Write no report.html.")] = False,
) -> None:
    """Judge a campaign whose rows have run elsewhere, such as in shards: phases 4 and 5, tables, verdict. Runs nothing.

    Exits with 1 where the campaign is not accepted.
    """
    from .gates import closing
    from .reporting import verdict, verdict_file

    spec = campaign.load(root, tier)
    statuses, findings = closing.close(spec)
    for finding in findings:
        print(files.redacted(str(finding)), file=sys.stderr)
    for phase, status in statuses.items():
        print(f"{phase}: {status}")
    if shown := verdict_file.read(spec):
        print(files.redacted(f"policies: {shown['sentence']}"))
    if not no_page:
        from .report_page import page

        print(page.write(spec, accepted=not findings))
    print(f"verdict: {verdict.words(spec, not findings)} (strict validation of all phases)")
    raise typer.Exit(1 if findings else 0)


def script_command(
    root: Annotated[
        Path, typer.Argument(autocompletion=completion.campaign, metavar="CAMPAIGN", help="The campaign's folder.")
    ],
    at_once: Annotated[int, typer.Option(min=1, help="Rows at a time, over all nodes.")] = 8,
    nodes: Annotated[int, typer.Option(min=1, help="Nodes of the allocation.")] = 1,
    time_minutes: Annotated[int, typer.Option(min=1, help="Time limit of the allocation.")] = 720,
    tier: Annotated[
        str | None,
        typer.Option(autocompletion=completion.tier, help="Run this tier of the campaign instead of all of it."),
    ] = None,
) -> None:
    """Print the batch script that runs a campaign inside one allocation of a Slurm cluster, for sbatch."""
    from . import slurm_script

    print(slurm_script.text(campaign.load(root, tier), at_once, nodes, time_minutes), end="")


def manifest_command(
    root: Annotated[
        Path, typer.Argument(autocompletion=completion.campaign, metavar="CAMPAIGN", help="The campaign's folder.")
    ],
    image: Annotated[str, typer.Option(help="The container image in which Track A is installed.")],
    shards: Annotated[int, typer.Option(min=1, max=MOST, help="Indexes of the sweep's Job, each with one shard.")],
    pods: Annotated[int | None, typer.Option(min=1, help="Indexes at a time; by default all.")] = None,
    gpus: Annotated[int, typer.Option(min=0, help="GPUs of a pod, and rows at a time in it.")] = 1,
    cpus: Annotated[str, typer.Option(help="Cores that a pod requests.")] = "8",
    memory: Annotated[str, typer.Option(help="Memory of a pod.")] = "32Gi",
    claim: Annotated[str, typer.Option(help="The volume claim with the campaign's folder.")] = "tracka",
    mount: Annotated[str, typer.Option(help="Where the pods have that volume.")] = "/campaigns",
    queue: Annotated[str | None, typer.Option(help="Kueue's local queue.")] = None,
    secret: Annotated[str | None, typer.Option(help="A secret whose keys become variables, such as HF_TOKEN.")] = None,
    tier: Annotated[
        str | None,
        typer.Option(autocompletion=completion.tier, help="Run this tier of the campaign instead of all of it."),
    ] = None,
) -> None:
    """Print the Kubernetes Jobs that prepare, sweep and close a campaign: an Indexed Job with a shard an index."""
    import yaml

    from . import kubernetes_jobs
    from .kubernetes_jobs import JobOptions

    options = JobOptions(image, shards, pods or shards, gpus, cpus, memory, claim, mount, queue, secret)
    jobs = kubernetes_jobs.jobs(campaign.load(root, tier), options)
    print(yaml.safe_dump_all(jobs, sort_keys=False, width=200), end="")
