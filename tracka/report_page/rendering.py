"""Fills in the page templates: escapes all text, and lets no script run but our own."""

import base64
import hashlib
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

from ..core import escaping, figures, files
from . import embedding

STYLES = ("uplot/uPlot.min.css", "report.css")
SCRIPTS = ("uplot/uPlot.iife.min.js", "report.js")


def render(name: str, facts: Mapping[str, Any]) -> str:
    """Returns the template `name` filled in with `facts`, without control characters and marks that reverse text.

    The page's content security policy names our scripts by their hashes, so that a script in an artifact's text could
    not run even if it were not escaped.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    page = Environment(
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=True,
        loader=FileSystemLoader(str(resources.files(__package__) / "templates")),
    )
    page.filters |= {"percent": figures.percent, "json": embedding.json_text, "duration": duration}
    scripts = [asset(name) for name in SCRIPTS]
    shared = {
        "scripts": scripts,
        "styles": [asset(name) for name in STYLES],
        "script_hashes": [_csp_hash(script) for script in scripts],
        "generated_at_utc": files.utc_now(),
    }
    return escaping.plain(page.get_template(name).render({**shared, **facts}))


@cache
def asset(name: str) -> str:
    """Returns the text of a file in `assets/`."""
    return resources.files(__package__).joinpath("assets", name).read_text(encoding="utf-8")


def _csp_hash(script: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}"


def duration(seconds: float | None) -> str:
    """Returns a duration for people: `48 s`, `3 min 5 s`, `2 h 4 min`; an empty string for None."""
    if seconds is None:
        return ""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} min {whole % 60} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60} min"
