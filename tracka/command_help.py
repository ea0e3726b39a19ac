"""Orders the commands by what a user does, and gives each an example for its `--help`."""

import typer
from typer.models import CommandInfo

from . import flag_help, missing_parameters

PREPARE, RUN, JUDGE = "Prepare a machine and a campaign", "Run", "Judge and find out why"
COMPARE, SHOW = "Compare and plan", "Show and hand on"
POLICY = "outputs/my_policy"
CAMPAIGN = "tasks/my-policy"
ARTIFACTS = f"{CAMPAIGN}/artifacts"
# Command -> its place in the list of commands, and its example; in the order of that list.
COMMANDS = {
    "doctor": (PREPARE, "tracka doctor"),
    "setup": (PREPARE, "tracka setup --artifacts-dir reports/setup"),
    "check": (PREPARE, f"tracka check {POLICY}"),
    "init": (PREPARE, f"tracka init my-policy --policy-path {POLICY} --min-success-rate 0.9"),
    "schema": (PREPARE, f"tracka schema --root {CAMPAIGN}"),
    "discover": (RUN, f"tracka discover --artifacts-dir {ARTIFACTS}/state"),
    "preflight": (
        RUN,
        f"tracka preflight --task-suite libero_object --policy-path {POLICY} --mujoco-gl egl --gpu-ids 0,1 "
        f"--artifacts-dir {ARTIFACTS}/preflight",
    ),
    "propose": (RUN, f"tracka propose --root {CAMPAIGN} --apply"),
    "run": (
        RUN,
        f"tracka run --run-id object_t0_b10_e50 --policy-path {POLICY} --task-suite libero_object --batch-size 10 "
        f"--n-episodes 50 --gpu-id auto --mujoco-gl egl --artifacts-root {ARTIFACTS}/runs",
    ),
    "sweep": (
        RUN,
        f"tracka sweep --matrix {CAMPAIGN}/configs/eval_matrix.csv --artifacts-root {ARTIFACTS}/runs "
        f"--status-dir {ARTIFACTS}/state/rows --max-parallel 8 --resume",
    ),
    "slurm-script": (RUN, f"tracka slurm-script {CAMPAIGN} --nodes 2 --at-once 16"),
    "k8s-manifest": (RUN, f"tracka k8s-manifest {CAMPAIGN} --image registry.example.org/tracka:1 --shards 4"),
    "close": (JUDGE, f"tracka close {CAMPAIGN}"),
    "validate": (JUDGE, f"tracka validate --phase all --root {CAMPAIGN} --strict"),
    "why": (JUDGE, f"tracka why object_t0_b10_e50 --root {CAMPAIGN}"),
    "replay": (JUDGE, f"tracka replay object_t0_b10_e50 --task 0 --episode 3 --root {CAMPAIGN}"),
    "collect": (
        JUDGE,
        f"tracka collect --runs-root {ARTIFACTS}/runs --summary-csv runs.csv --summary-md runs.md",
    ),
    "compare": (COMPARE, f"tracka compare baselines/pi0.json {CAMPAIGN}"),
    "baseline": (COMPARE, "tracka baseline show baselines/pi0.json"),
    "baseline promote": (COMPARE, f"tracka baseline promote {CAMPAIGN} baselines/pi0.json"),
    "baseline show": (COMPARE, "tracka baseline show baselines/pi0.json"),
    "noise": (COMPARE, f"tracka noise {CAMPAIGN}"),
    "power": (COMPARE, "tracka power --drop 0.05 --paired --discordance 0.1"),
    "report": (SHOW, f"tracka report {CAMPAIGN} --against tasks/last-week"),
    "plot": (SHOW, f"tracka plot {CAMPAIGN} --output figures"),
    "summary": (SHOW, f"tracka summary {CAMPAIGN} --output summary.md"),
    "export": (SHOW, f"tracka export {CAMPAIGN} --format ctrf --output ctrf.json"),
    "bundle": (SHOW, f"tracka bundle {CAMPAIGN} --output my-policy.tar"),
    "verify": (SHOW, "tracka verify my-policy.tar"),
}


def add(app: typer.Typer) -> None:
    """Gives the commands of `app` their order, their place and their example. Raises KeyError for one without."""
    _describe(app.registered_commands, "")
    for group in app.registered_groups:
        name = str(group.name)
        group.rich_help_panel, group.epilog = COMMANDS[name][0], _epilog(name)
        assert group.typer_instance is not None
        group.cls = flag_help.Group
        _describe(group.typer_instance.registered_commands, f"{name} ")
    order = list(COMMANDS)
    app.registered_commands.sort(key=lambda command: order.index(str(command.name)))


def _describe(commands: list[CommandInfo], before: str) -> None:
    for command in commands:
        name = f"{before}{command.name}"
        command.rich_help_panel, command.epilog = COMMANDS[name][0], _epilog(name)
        command.cls = missing_parameters.Command


def _epilog(name: str) -> str:
    return f"Example: {COMMANDS[name][1]}"
