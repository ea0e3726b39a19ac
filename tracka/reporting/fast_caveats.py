"""Finds what limits results of fast mode: rows that another mode answered, and what a certificate does not show."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from ..campaign.campaign import Campaign
from ..core import files
from ..core.errors import Finding, joined_names
from ..engines import episode_lines, fast_certificate, parity_certificate
from ..runs import run

ANSWERS = "the exact mode answers"  # in the engine's reasons for not answering in fast mode
UNKNOWN = "the row's log says why"
ALONE = "Say so wherever the result is quoted; docs/fast-mode.md says what the gate of fast mode can show"
ASKED = "The results are valid but slower; docs/fast-mode.md says where fast mode answers"


def of_rows(campaign: Campaign, results: Mapping[str, Mapping[str, Any]]) -> Iterator[Finding]:
    """Yields the rows in which exact mode answered though fast mode was asked for, with the reasons."""
    rows_by_words: dict[str, list[str]] = defaultdict(list)
    for run_id, result in results.items() if campaign.is_fast else ():
        if result.get("precision") in (episode_lines.EXACT, episode_lines.BOTH):
            rows_by_words[_answered(campaign, result)].append(run_id)
    for words, run_ids in rows_by_words.items():
        yield Finding(f"rows {joined_names(run_ids)}", words, ASKED, warning=True)


def _answered(campaign: Campaign, result: Mapping[str, Any]) -> str:
    """Returns how many episodes of a row exact mode answered, and why."""
    output = campaign.layout.run(result["run_id"]).attempt(result["attempt"]).output
    modes = [line.get(episode_lines.PRECISION) for line in episode_lines.whole(output / episode_lines.NAME)]
    partly = sum(mode == episode_lines.BOTH for mode in modes)
    counted = f"{modes.count(episode_lines.EXACT)} of {len(modes)} episodes"
    more = f", and {partly} in part" if partly else ""
    reasons = [reason for reason in fallbacks(campaign, result) if ANSWERS in reason]
    return f"fast mode was asked for, but exact mode answered {counted}{more}: {'; '.join(reasons) or UNKNOWN}"


def fallbacks(campaign: Campaign, result: Mapping[str, Any]) -> list[str]:
    """Returns why the resident engine did not work as asked in a row's last attempt."""
    output = campaign.layout.run(result["run_id"]).attempt(result["attempt"]).output
    return [str(reason) for reason in files.read_or_empty(output / "timings.json").get("fallbacks", ())]


def of_certificates(campaign: Campaign, run_ids: list[str]) -> Iterator[Finding]:
    """Yields what the certificates of fast mode do not show, by which these rows were played."""
    rows_by_limit: dict[str, list[str]] = defaultdict(list)
    for run_id in run_ids if campaign.is_fast else ():
        manifest, _ = run.read_files(campaign.layout, run_id)
        for limit in _limits(campaign, str(manifest.get("certificate", ""))):
            rows_by_limit[limit].append(run_id)
    for limit, named in rows_by_limit.items():
        yield Finding(f"rows {joined_names(named)}", f"certificate of fast mode: {limit}", ALONE, warning=True)


def _limits(campaign: Campaign, key: str) -> Iterator[str]:
    certificate = _certificate(campaign, key)
    if certificate.get("fast") and certificate["proven"]:
        yield from fast_certificate.limits(certificate["fast"], certificate["compared"])


def _certificate(campaign: Campaign, key: str) -> Mapping[str, Any]:
    return parity_certificate.read(parity_certificate.certificate_path(campaign.layout, key), key) if key else {}
