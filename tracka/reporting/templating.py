"""Makes pages from the templates in `templates/`."""

import shlex
from collections.abc import Callable, Mapping
from importlib import resources
from typing import Any
from urllib import parse

from ..core import escaping


def render(name: str, facts: Mapping[str, Any], **filters: Callable[..., str]) -> str:
    """Returns the template `name` filled in with `facts`.

    Raises jinja2.UndefinedError where the template asks for a fact that is missing, so that no page has a gap.
    """
    from jinja2 import Environment, StrictUndefined

    template = resources.files(__package__).joinpath("templates", name).read_text()
    page = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
    page.filters |= {"quote": shlex.quote, "code": escaping.code, "cell": escaping.cell, "link": parse.quote, **filters}
    return page.from_string(template).render(facts)
