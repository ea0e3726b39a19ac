"""Names the plan's functions and dataclasses in one place; docs/contracts.md has where each lives and what tests it."""

from .preflight.preflight import PreflightConfig, run_preflight, write_preflight_report
from .reporting.collect import (
    EvalRunResult,
    collect_results,
    load_result,
    load_run_manifest,
    parse_success_metrics,
    write_csv,
    write_markdown,
)

__all__ = [
    "EvalRunResult",
    "PreflightConfig",
    "collect_results",
    "load_result",
    "load_run_manifest",
    "parse_success_metrics",
    "run_preflight",
    "write_csv",
    "write_markdown",
    "write_preflight_report",
]
