"""Holds a campaign's files against the contracts where its host, its checkpoints and its software are not here.

A row's plan cannot be made again then. So what a row ran is held against its own record, `identity.json`, whose hash is
the row hash, and that record against the campaign's matrix and settings. Everything else is as in `validate`.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from ..campaign.campaign import Campaign
from ..campaign.layout import PHASES
from ..campaign.matrix import CPU, Row
from ..core import fact_cache, files, schema
from ..core.errors import Finding, TrackaError
from ..engines import lerobot_eval, parity_certificate
from ..reporting import collect, exact_verdict, progress, verdict_file
from ..runs import early_stop, evidence, identity, parity, plan, refusal, row_state
from ..runs.row_state import SLACK_SECS
from . import validate
from .host_contracts import Contract
from .phase_contracts import contracts
from .row_contracts import ROW_CONTRACTS, RowContract

REMEDY = "Ask for the campaign as it was, or run the row again"
# What the contracts ask on the campaign's own host, and cannot be asked of its files.
UNASKED = (
    "whether the checkpoints' files are those of the row hashes, and load: `tracka validate` on a host that has them",
    "whether the software of the row hashes is the one that was named: `tracka validate` on the host that ran the rows",
)


# Contracts that say whether a campaign was good enough: files that break them are sound, and so is their bundle.
ACCEPTING = frozenset(
    {
        *(f"{rows}_{name}" for rows in ("baseline", "rows") for name in ("result", "verdict", "simulator", "engine")),
        *("baseline_known_answer", "rows_known_answer", "no_failures"),
        *("commands", "baseline", "gpus", "scales", "thresholds"),
        *("preflight_checks", "backend", "gpu_list"),
    }
)


@dataclass
class Judgement:
    """What breaks the contracts, how many were held, and those that could not be held, with the package they need.

    `rejections` are those of the findings by which the campaign's files say themselves that it was not accepted; all
    others are contradictions.
    """

    findings: list[Finding] = field(default_factory=list)
    rejections: list[Finding] = field(default_factory=list)
    held: int = 0
    unheld: dict[str, str] = field(default_factory=dict)

    @property
    def faults(self) -> list[Finding]:
        """Returns the findings by which the campaign's files contradict each other."""
        rejections = set(self.rejections)
        return [finding for finding in self.findings if finding not in rejections]


def judge(campaign: Campaign) -> Judgement:
    """Returns how the campaign's files stand to all contracts and handoffs, warnings included."""
    judgement = Judgement()
    with fact_cache.scope():
        for phase in PHASES:
            is_rejection = partial(_is_rejection, campaign, phase)
            _hold(judgement, f"{phase}: handoff", partial(validate.handoff_findings, campaign, phase), is_rejection)
            for name, contract in CONTRACTS[phase].items():
                _hold(judgement, f"{phase}: {name}", partial(_listed, contract, campaign), is_rejection)
        _hold(judgement, "phase5: verdict by exact sums", lambda: list(_exact_verdict(campaign)))
        _hold(judgement, "phase4: times", lambda: list(_later_than_handoff(campaign)))
        _hold(judgement, "pages", lambda: list(progress.findings(campaign, PHASES)))
    judgement.findings = list(dict.fromkeys(judgement.findings))
    return judgement


def _listed(contract: Contract, campaign: Campaign) -> list[Finding]:
    return list(contract(campaign))


def _hold(
    judgement: Judgement,
    name: str,
    contract: Callable[[], list[Finding]],
    is_rejection: Callable[[str, Finding], bool] = lambda name, finding: False,
) -> None:
    try:
        found = contract()
    except TrackaError as error:
        found = [*error.findings]
    except ImportError as error:
        judgement.unheld[name] = str(error.name)
        return
    judgement.findings += found
    judgement.rejections += [finding for finding in found if is_rejection(name.partition(": ")[2], finding)]
    judgement.held += 1


def _is_rejection(campaign: Campaign, phase: str, name: str, finding: Finding) -> bool:
    """Returns whether a finding of a contract only repeats what the campaign's files say: it was not accepted.

    A phase that has not passed may lack files, and so may every phase after it. Where the handoff of the phase says
    that it has passed, only a warning is no contradiction.
    """
    status = validate.valid_handoff(campaign, phase).get("status")
    if status == "pass":
        return name in ACCEPTING and finding.warning
    if name == "early_stop":
        return finding.remedy == early_stop.PLAY_ON
    if name == "verdict" and (own := verdict_file.read(campaign)):
        return own["outcome"] != "pass" and finding.what == own["sentence"]
    if name in ACCEPTING or (name == "handoff" and status is not None):
        return True
    return not Path(finding.where.partition(", ")[0]).exists() and not _has_passed_later(campaign, phase)


def _has_passed_later(campaign: Campaign, phase: str) -> bool:
    later = PHASES[PHASES.index(phase) + 1 :]
    return any(validate.valid_handoff(campaign, each).get("status") == "pass" for each in later)


def _exact_verdict(campaign: Campaign) -> Iterator[Finding]:
    """Yields where the verdict is not what its episodes and registered thresholds give, in plain Python."""
    verdict = verdict_file.read(campaign)
    for what in exact_verdict.differences(campaign, verdict) if verdict else ():
        yield Finding(str(campaign.layout.verdict), what, REMEDY)


def _thresholds(campaign: Campaign) -> Iterator[Finding]:
    for what in exact_verdict.unreachable(campaign):
        yield Finding(f"{campaign.layout.settings}, verdict", what, REMEDY)


def _later_than_handoff(campaign: Campaign) -> Iterator[Finding]:
    """Yields a finding for each result that ended after the handoff of phase 4, which counts it."""
    handoff = schema.read_or_empty("handoff", campaign.layout.handoff("phase4"))
    for row in campaign.enabled if handoff else ():
        result = schema.read_or_empty("result", campaign.layout.run(row.run_id).result)
        end = result.get("end_time_utc")
        if end and files.timestamp(end) > files.timestamp(handoff["generated_at_utc"]) + SLACK_SECS:
            what = f"the run ended at {end}, after the handoff that counts it ({handoff['generated_at_utc']})"
            yield Finding(str(campaign.layout.run(row.run_id).result), what, REMEDY)


# ---- contracts of rows


def _evidence(campaign: Campaign, row: Row) -> Iterator[Finding]:
    manifest, result = evidence.read(campaign.layout, row.run_id)
    yield from evidence.of_marker(campaign, row, manifest, result)
    yield from evidence.of_files(campaign, row, manifest, result)
    yield from evidence.of_attempts(campaign, row, with_files=True)
    yield from evidence.against_matrix(campaign, row, manifest)
    if refusal.has_started(manifest):
        yield from _against_definition(campaign, row)


def _against_definition(campaign: Campaign, row: Row) -> Iterator[Finding]:
    """Yields a finding where what the row ran, by its record and its command, is not what the campaign asks."""
    folder = campaign.layout.run(row.run_id)
    manifest = collect.load_run_manifest(folder.manifest)
    attempt = folder.attempt(manifest["attempt"])
    parts = identity.read(attempt)
    if parts is None:
        what = "the record of what the row ran, whose hash is the row hash, is missing or damaged"
        yield Finding(str(attempt.path / identity.NAME), what, REMEDY)
        return
    settings = plan.outcome_settings(campaign.settings(row))
    for name, ours, theirs in (
        ("settings", parts["settings"], files.redacted(settings)),
        ("engine", parts["engine"]["name"], campaign.engine_name),
        ("device", parts["row"]["device"], "cpu" if row.gpu_id == CPU else "cuda"),
    ):
        if ours != theirs:
            what = f"the row ran with {name} {ours!r}, but the campaign says {theirs!r}"
            yield Finding(str(attempt.path / identity.NAME), what, REMEDY)
    if campaign.settings(row).record_actions and campaign.engine == "lerobot-eval" and "listener" not in manifest:
        what = "the campaign records its episodes, but the row has no record of them"
        yield Finding(f"{folder.manifest}, key listener", what, REMEDY)
    asked = _flags(campaign, row, manifest["batch_size"])
    ran = dict(word.removeprefix("--").partition("=")[::2] for word in manifest["command"] or () if word[:2] == "--")
    for flag in sorted({*asked, *ran} - PLACES):
        if ran.get(flag) != asked.get(flag) and not flag.startswith("resident."):
            what = f"the command has --{flag}={ran.get(flag)}, but the campaign asks for {asked.get(flag)}"
            yield Finding(f"{folder.manifest}, key command", what, REMEDY)


PLACES = {"policy.path", "policy.device", "output_dir"}


def _flags(campaign: Campaign, row: Row, batch_size: int) -> dict[str, str]:
    layout = campaign.layout
    argv = lerobot_eval.command(
        (),
        row,
        campaign.settings(row),
        policy=layout.root,
        device="cpu",
        batch_size=batch_size,
        output=layout.root,
    )
    return {name: files.redacted(value) for name, _, value in (word[2:].partition("=") for word in argv)}


def _result(campaign: Campaign, row: Row) -> Iterator[Finding]:
    path = campaign.layout.run(row.run_id).result
    result = collect.load_result(path)
    if result["status"] != "pass":
        yield Finding(str(path), f"the run failed ({result['reason']}): {result['error_message']}", REMEDY)


def _engine(campaign: Campaign, row: Row) -> Iterator[Finding]:
    path = campaign.layout.run(row.run_id).result
    if reason := collect.load_result(path)["unproven"]:
        yield Finding(str(path), f"unproven: {reason}", REMEDY, warning=True)


def _parity(campaign: Campaign, row: Row) -> Iterator[Finding]:
    """Yields what contradicts a certificate of the resident engine, whichever its checkpoint, or that none is there."""
    paths = sorted(campaign.layout.parity.glob(f"*/{parity_certificate.NAME}"))
    if not paths:
        yield Finding(str(campaign.layout.parity), "no certificate proves the resident engine", REMEDY)
    for path in paths:
        yield from (Finding(str(path), contradiction, REMEDY) for contradiction in parity.contradictions(path))


def _of_played_row(name: str, contract: RowContract) -> RowContract:
    """Returns a contract that asks nothing of a row which an early stop or a budget kept from starting."""

    def of_played_row(campaign: Campaign, row: Row) -> Iterator[Finding]:
        state = row_state.read(campaign.layout, row.run_id)
        has_files = state is not None and state["status"] != "pending" and name != "result"
        if has_files or early_stop.excused(campaign, row) is None:
            yield from contract(campaign, row)

    return of_played_row


_OF_RECORDS: dict[str, RowContract] = {"evidence": _evidence, "result": _result, "engine": _engine}
CONTRACTS = contracts(
    ROW_CONTRACTS
    | {name: _of_played_row(name, contract) for name, contract in _OF_RECORDS.items()}
    | {"parity": _parity}
)
CONTRACTS["phase1"] = {**CONTRACTS["phase1"], "thresholds": _thresholds}
