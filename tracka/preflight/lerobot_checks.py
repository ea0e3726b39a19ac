"""Checks the installed lerobot: whether it can be imported, tells its flags, and brings untrusted plug-ins."""

from collections.abc import Sequence
from dataclasses import replace

from ..campaign.campaign import Campaign
from ..checkpoints import code_safety
from ..core import installation
from ..core.check import Check, required_check, run_check
from ..engines import cli_capabilities
from .rendering import Frame


def imports(frames: Sequence[Frame]) -> Check:
    """Returns the check `lerobot_import`, by what the processes that tried to render have imported."""
    version = next((item.lerobot for item in frames if item.lerobot), None)
    evidence = f"lerobot {version} and LIBERO can be imported" if version else frames[-1].evidence
    remedy = f"Run `{installation.SETUP}`; if the import still fails, read preflight/render_*.err"
    check = required_check("lerobot_import", version is not None, evidence, remedy)
    return replace(check, timed_out=version is None and frames[-1].timed_out)


def plugins(campaign: Campaign) -> Check:
    """Returns the check `plugins`: whether all of lerobot's plug-ins are trusted."""

    def judge() -> str:
        installed = cli_capabilities.installed_software().plugins
        code_safety.require_plugins(installed, campaign.trusted)
        return ", ".join(installed) or "no plug-in is installed"

    return run_check("plugins", judge)


def flags(campaign: Campaign) -> Check:
    """Returns the check `lerobot_eval_help`, asking lerobot-eval for its flags unless it is unchanged since phase 1."""

    def ask() -> str:
        installed = cli_capabilities.installed_software().plugins
        code_safety.require_plugins(installed, campaign.trusted)  # the help imports plug-ins
        command = cli_capabilities.find(cli_capabilities.executable(campaign))
        kind = campaign.defaults.policy_type or ""
        found = cli_capabilities.flags(cli_capabilities.help_text(command, kind))
        return f"{len(found)} flags, {cli_capabilities.version_text(command)}"

    return run_check("lerobot_eval_help", ask)
