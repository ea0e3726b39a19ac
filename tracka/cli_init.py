"""The command `tracka init`, which makes a campaign and says where each option that nobody gave comes from."""

import importlib.util
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from . import completion
from .campaign import commands
from .campaign.campaign import Campaign
from .checkpoints import mistyped_folder
from .core import installation
from .core.errors import Finding, UsageError

SMOKE_NEEDS = (
    "about five minutes on two cores, without a GPU. Its policy plays recorded demonstrations, so that its outcome is "
    "known beforehand"
)
OWN = "tracka init NAME --policy-path outputs/my_policy"


def register(app: typer.Typer) -> None:
    """Adds the command to `app`."""
    app.command("init")(init_command)


def init_command(
    context: typer.Context,
    name: Annotated[
        str | None,
        typer.Argument(
            help="The new campaign: a folder, or a name below tasks/ if that is here; by default the policy's name."
        ),
    ] = None,
    policy_path: Annotated[
        list[str] | None, typer.Option(help="A folder, repo or repo@revision; repeatable; by default pi0's on the hub.")
    ] = None,
    suite: Annotated[
        str | None,
        typer.Option(autocompletion=completion.suite, help="LIBERO suite; by default the one in train_config.json."),
    ] = None,
    policy_type: Annotated[str | None, typer.Option(help="Such as pi0; by default the checkpoint's own.")] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            autocompletion=completion.preset,
            help="Settings known to be right: pi0, pi05, smolvla; by default the policy type's.",
        ),
    ] = None,
    gpus: Annotated[
        int | None, typer.Option(min=0, help="GPUs that the host must have, 0 for the CPU; by default this host's.")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Episodes at a time; by default 10, and on the CPU what fits this host.")
    ] = None,
    n_episodes: Annotated[int | None, typer.Option(min=1, help="Episodes of each LIBERO task; by default 50.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of each row's first episode.")] = 7,
    min_success_rate: Annotated[float, typer.Option(help="Success rate each row must reach; 0 asks for none.")] = 0.0,
    task_ids: Annotated[str, typer.Option(help="LIBERO tasks of the suite, such as 0,3; by default all.")] = "",
    episode_length: Annotated[int | None, typer.Option(min=1, help="Control steps; by default the suite's.")] = None,
    threshold: Annotated[float | None, typer.Option(help="Success rate that the policy must show to have.")] = None,
    resolve: Annotated[
        float | None, typer.Option(help="Choose the episodes that show such a difference, such as 0.05.")
    ] = None,
    rate: Annotated[float | None, typer.Option(help="To resolve a drop from a baseline of other episodes.")] = None,
    discordance: Annotated[float | None, typer.Option(help="To resolve a drop in pairs: those that flip.")] = None,
    smoke: Annotated[
        bool, typer.Option("--smoke", help="Make the campaign that checks an installation, with a policy of its own.")
    ] = False,
) -> None:
    """Make a campaign: a matrix with a short first row, the baseline, and one row per LIBERO task; and its settings."""
    from . import campaign_defaults, cli_request, new_campaign
    from .runs import forecast

    if smoke:
        cli_request.require_alone(context, "smoke", ("name",))
        root = _folder(commands.DEFAULT if name is None else name)
        spec = new_campaign.create_smoke(root)
        print(f"{root}: {forecast.size_words(spec)}; {SMOKE_NEEDS}")
        _print_next(spec, root)
        return
    policy_paths = [cli_request.policy(path) for path in policy_path or [new_campaign.CampaignOptions.policy_path]]
    root = _folder(campaign_defaults.name(policy_paths[0]) if name is None else name)
    given = {
        "policy_path": policy_paths[0],
        "further_policies": tuple(policy_paths[1:]),
        "suite": suite,
        "policy_type": policy_type,
        "preset": preset,
        "gpus": gpus,
        "batch_size": batch_size,
        "n_episodes": n_episodes,
        "seed": seed,
        "min_success_rate": min_success_rate,
        "task_ids": cli_request.numbers("--task-ids", task_ids, "LIBERO task") or None,
        "episode_length": episode_length,
        "threshold": threshold,
        "frame_size": None,  # by the checkpoint
    }
    finders, words = dict(campaign_defaults.FINDERS), list[str]()
    if policy_type:
        del finders["preset"]  # another type than the checkpoint's own has settings that are not known
    if (resolve, rate, discordance) != (None, None, None):
        wanted = cli_request.require_resolution(resolve, n_episodes)
        finders["n_episodes"] = campaign_defaults.resolving(
            partial(cli_request.resolved, wanted, threshold, rate, discordance), words
        )
    completed = campaign_defaults.complete(root, given, finders)
    spec = new_campaign.create(root, completed.options)
    size = f"{root}: {forecast.words(spec)}"
    print("\n".join([size, *_default_policy(spec, policy_path), *completed.lines(), *words]))
    for path in filter(lambda path: mistyped_folder.is_taken_as_repository(path, root), completed.options.policy_paths):
        print(f"{path}: this is not a folder here, so it is taken as a repository of the hub")
    _print_advice(spec, bool(min_success_rate) or threshold is not None, root)
    _print_next(spec, root)


def _default_policy(spec: Campaign, policy_path: list[str] | None) -> list[str]:
    """Returns the line that says whose policy is evaluated where the command line names none."""
    if policy_path:
        return []
    policy = spec.row(spec.baseline).policy_path
    return [f"No --policy-path is given, so the policy is {policy}, from the hub (Hugging Face). For yours: {OWN}"]


def _folder(name: str) -> Path:
    """Returns the folder of a campaign of this name. Raises UsageError where the name is empty."""
    if not name.strip("/ "):
        raise UsageError(Finding("NAME", "the campaign has no name", "Give it one, such as my-policy"))
    return Path("tasks") / name if "/" not in name and Path("tasks").is_dir() else Path(name)


def _print_next(spec: Campaign, root: Path) -> None:
    """Prints where a new campaign is defined, and the command that runs it."""
    if any(importlib.util.find_spec(package) is None for package in ("pytest", "lerobot")):
        print(f"What rows need is not installed here: run {installation.SETUP} first")
    print(f"See {root}/configs, then run: {commands.gates(spec.layout, folder=str(root))}")


def _print_advice(spec: Campaign, has_threshold: bool, root: Path) -> None:
    """Prints what phase 1 or preflight would say of the campaign, and the command that runs it."""
    from .gates import validate
    from .preflight import batch_fit, inventory

    if spec.expected_gpus > (seen := len(inventory.gpu_names())):
        remedy = "If rows run on this host, give --gpus as it has them; --gpus 0 is the CPU"
        print(f"warning: the campaign expects GPUs: {spec.expected_gpus}, and this host has {seen}. {remedy}")
    for finding in validate.contract_findings(spec, "phase1", "thresholds"):
        print(f"warning: {finding}")  # phase 1 refuses it, before any row runs
    fits = batch_fit.check(spec, batch_fit.measure(spec.layout.root))
    if fits.status != "pass":
        remedy = f"If rows run on this host: tracka propose --root {root} --apply"
        print(f"warning: {fits.evidence}. {remedy}")
    if not has_threshold:
        print("No threshold is set, so the verdict cannot be `accepted`. Set --threshold or --min-success-rate")
