"""Defines the contracts of phases 1 and 2: what must be true before any row runs, of the campaign and of this host."""

from collections.abc import Callable, Iterator
from pathlib import Path

from ..campaign import commands
from ..campaign.campaign import Campaign
from ..campaign.layout import Layout
from ..campaign.matrix import AUTO
from ..campaign.tiers import Tier
from ..core import files, reading, schema
from ..core.counting import counted
from ..core.errors import Finding, TrackaError, joined_names
from ..core.reports import PreflightReport
from ..engines import cli_capabilities, lerobot_eval
from ..preflight import blank_report, preflight
from ..runs import claims, preregistration

Contract = Callable[[Campaign], Iterator[Finding]]


# ---- phase 1: contracts before anything expensive


def _capabilities(campaign: Campaign) -> Iterator[Finding]:
    path, raw = campaign.layout.capabilities, campaign.layout.state / "lerobot_eval_help.txt"
    if not path.exists() and raw.exists():
        yield Finding(
            str(path),
            f"phase 1 could not read lerobot-eval's flags: {reading.tail(raw).strip()}",
            f"Mend the cause. {commands.run_phase(campaign.layout, 'phase1')}",
        )
        return
    value = files.read_json(path)
    yield from schema.findings("cli_capabilities", value, str(path))
    yield from _missing_file(campaign.layout, path.parent / str(value.get("lerobot_eval_help_text_path")), "phase1")


def _run_schema(campaign: Campaign) -> Iterator[Finding]:
    path = campaign.layout.run_schema
    if not schema.is_run_schema(files.read_json(path)):
        yield Finding(
            str(path),
            "the file is not the run schema of this Track A",
            f"Rewrite the file: tracka schema --root {campaign.layout.root}",
        )


def _commands(campaign: Campaign) -> Iterator[Finding]:
    if not campaign.layout.capabilities.exists():
        return  # the contract cli_capabilities reports that
    capabilities = schema.read("cli_capabilities", campaign.layout.capabilities)
    for row in campaign.enabled:
        argv = lerobot_eval.command(
            capabilities["executable"],
            row,
            campaign.settings(row),
            policy=Path(row.policy_path),
            device="cpu",
            batch_size=row.batch_size,
            output=Path("eval"),
        )
        try:
            lerobot_eval.check_flags(argv, capabilities)
        except TrackaError as error:
            yield from (Finding(f"row {row.run_id}, {item.where}", item.what, item.remedy) for item in error.findings)


def _larger_rows(campaign: Campaign) -> Iterator[Finding]:
    if not [row for row in campaign.enabled if row.run_id != campaign.baseline]:
        yield Finding(str(campaign.layout.matrix), "the matrix enables only the baseline", "Enable another row")


def _baseline_row(campaign: Campaign) -> Iterator[Finding]:
    """Yields a finding where the baseline, which is to be small, is disabled or runs several LIBERO tasks."""
    baseline = campaign.row(campaign.baseline)
    where = f"{campaign.layout.settings}, row {baseline.run_id}"
    if not baseline.enabled:
        yield Finding(where, "the baseline is disabled", "Enable it in the matrix, or name another row as baseline")
    if len(tasks := campaign.task_ids(baseline)) != 1:
        yield Finding(where, f"the baseline runs {len(tasks)} LIBERO tasks", "Pin one, such as task_ids = [0]")


def _gpus(campaign: Campaign) -> Iterator[Finding]:
    """Yields a finding for each enabled row that asks for a GPU beyond those that the campaign expects."""
    expected = campaign.expected_gpus
    for row in campaign.enabled:
        is_any = row.gpu_id == AUTO or (campaign.is_on_slurm and row.gpu_id >= 0)
        least = 1 if is_any else row.gpu_id + 1  # 0 for the CPU
        if least > expected:
            asked = "any GPU" if row.gpu_id == AUTO else f"GPU {row.gpu_id}"
            expects = counted(expected, "GPU") if expected else "no GPUs"
            what = f"row {row.run_id} asks for {asked}, and the campaign expects {expects}"
            remedy = f"Set expected_gpus in {campaign.layout.settings.name} to {least} or more, or name another gpu_id"
            yield Finding(f"{campaign.layout.matrix}, line {row.line}, column gpu_id", what, f"{remedy}, or cpu")


def _help_text(campaign: Campaign) -> Iterator[Finding]:
    """Yields a finding where the recorded flags are not those of the raw help text beside them."""
    value = schema.read("cli_capabilities", campaign.layout.capabilities)
    raw = campaign.layout.state / value["lerobot_eval_help_text_path"]
    if raw.is_file() and cli_capabilities.flags(files.read_text(raw)) != value["supported_flags"]:
        remedy = commands.run_phase(campaign.layout, "phase1")
        yield Finding(str(raw), "cli_capabilities.json lists other flags", remedy)


def _thresholds(campaign: Campaign) -> Iterator[Finding]:
    """Yields a finding for each threshold that the campaign's episodes cannot show even if all of them succeed."""
    if campaign.verdict is None:
        return
    from ..reporting import baseline_claims
    from ..statistics import rate

    yield from baseline_claims.faults(campaign)
    confidence = 1 - campaign.verdict.alpha_pass
    for claim in claims.claims(campaign):
        episodes = claims.expected_episodes(campaign, claim)
        least = rate.least_to_pass(claim.threshold, confidence)
        if least is None or episodes < least:
            what = (
                f"{claim.policy_path}, {claim.subject}: {episodes} of {episodes} episodes would not show a success rate"
            )
            needed = f"Play at least {least} episodes" if least else "Lower the threshold"
            tier = campaign.tier
            where, counts = ("verdict", "n_episodes in the matrix") if tier is None else _counts_of(tier)
            remedy = f"{needed} ({counts}), or lower the threshold or the confidence"
            yield Finding(f"{campaign.layout.settings}, {where}", f"{what} of {claim.threshold:g}", remedy)


def _counts_of(tier: Tier) -> tuple[str, str]:
    """Returns where a tier's thresholds stand, and what decides how many episodes it plays."""
    return f"tiers.{tier.name}", f"rows and episodes of tiers.{tier.name}, n_episodes in the matrix"


def _registration(campaign: Campaign) -> Iterator[Finding]:
    """Yields a finding where the thresholds are not registered, or the registration was edited."""
    if campaign.verdict is None:
        return
    if preregistration.read(campaign) is None:
        what = "the file is missing, damaged or edited: nothing says what was demanded before the first row ran"
        remedy = f"{commands.run_phase(campaign.layout, 'phase1')}; the verdict says so if rows have run before"
        yield Finding(str(campaign.layout.preregistration), what, remedy)


# ---- phase 2: the host


def _preflight_report(campaign: Campaign) -> Iterator[Finding]:
    path = campaign.layout.preflight_report
    yield from schema.findings("preflight", files.read_json(path), str(path))


def _preflight_checks(campaign: Campaign) -> Iterator[Finding]:
    path = campaign.layout.preflight_report
    preflight_report = schema.read("preflight", path)
    failures = preflight.findings(preflight_report, str(path))
    yield from failures
    if preflight_report["status"] != "pass" and not failures:
        yield Finding(
            str(path),
            f"preflight is {preflight_report['status']} ({preflight_report['blocker']})",
            commands.run_phase(campaign.layout, "phase2"),
        )
    # After a failed check, doubts would only be its consequences and no further cause.
    for key, what in () if failures else _contradictions(campaign, preflight_report):
        yield Finding(f"{path}, key {key}", what, commands.run_phase(campaign.layout, "phase2"))


def _contradictions(campaign: Campaign, preflight_report: PreflightReport) -> Iterator[tuple[str, str]]:
    """Yields (key, reason) for each value that contradicts a report whose status is pass."""
    for key in ("lerobot_import_ok", "lerobot_eval_help_ok", "policy_resolve_ok"):
        if preflight_report[key] is not True:
            yield key, "the value is not true"
    if preflight_report["gpu_count"] < campaign.host_gpus:
        has = counted(preflight_report["gpu_count"], "GPU")
        yield "gpu_count", f"the host has {has}, but the campaign expects {campaign.host_gpus}"
    names = {check["name"] for check in preflight_report["checks"]}
    paths = dict.fromkeys(row.policy_path for row in campaign.enabled)
    policies = files.redacted([f"policy_resolve:{path}" for path in paths])  # each call looks for secrets anew
    if missing := [name for name in (*preflight.REQUIRED, *policies) if name not in names]:
        yield "checks", f"preflight did not make these checks: {joined_names(missing)}"


def _backend(campaign: Campaign) -> Iterator[Finding]:
    """Yields a finding where no attempt of preflight rendered a frame with the backend that the report names.

    A preflight that was interrupted has made no attempt; the contract preflight_checks reports that.
    """
    path = campaign.layout.preflight_report
    report = schema.read("preflight", path)
    if blank_report.is_of_begun(report):
        return
    attempts = report["backend_attempts"]
    if report["mujoco_gl_effective"] not in [attempt["backend"] for attempt in attempts if attempt["ok"]]:
        tried = joined_names([attempt["backend"] for attempt in attempts]) or "none"
        backend = report["mujoco_gl_effective"]
        what = f"preflight rendered no frame with {backend or 'any backend'}, and tried {tried}"
        remedy = f"See the failed checks. {commands.run_phase(campaign.layout, 'phase2')}"
        yield Finding(f"{path}, key mujoco_gl_effective", what, remedy)


def _gpu_list(campaign: Campaign) -> Iterator[Finding]:
    path = campaign.layout.preflight / "nvidia_smi.txt"
    count = sum(line.startswith("GPU ") for line in files.read_text(path).splitlines())
    if count < campaign.host_gpus:
        what = f"the file lists {counted(count, 'GPU')}, but the campaign expects {campaign.host_gpus}"
        yield Finding(str(path), what, f"Run phase 2 on a host with {counted(campaign.host_gpus, 'GPU')}")


def _snapshots(campaign: Campaign) -> Iterator[Finding]:
    for name in ("nvidia_smi.txt", "pip_freeze.txt", "env_snapshot.json", "setup.log"):
        yield from _missing_file(campaign.layout, campaign.layout.preflight / name, "phase2")
    schema.read("env_snapshot", campaign.layout.preflight / "env_snapshot.json")


def _missing_file(layout: Layout, path: Path, phase: str) -> Iterator[Finding]:
    if not path.is_file():
        yield Finding(str(path), "the file does not exist", commands.run_phase(layout, phase))


HOST_CONTRACTS: dict[str, dict[str, Contract]] = {
    "phase1": {
        "cli_capabilities": _capabilities,
        "help_text": _help_text,
        "run_schema": _run_schema,
        "commands": _commands,
        "baseline": _baseline_row,
        "gpus": _gpus,
        "scales": _larger_rows,
        "thresholds": _thresholds,
        "registration": _registration,
    },
    "phase2": {
        "preflight_report": _preflight_report,
        "preflight_checks": _preflight_checks,
        "backend": _backend,
        "gpu_list": _gpu_list,
        "snapshots": _snapshots,
    },
}
