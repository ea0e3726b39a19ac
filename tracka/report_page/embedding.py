"""Puts paths, files and data into an HTML page: as relative addresses, as data URIs, as JSON in a script element.

Guarantees: no text of an artifact can end an element, start a script or leave the page's folder by an address that is
not a file's.
"""

import base64
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib import parse

from ..core import reading

MEDIA_TYPES = {".mp4": "video/mp4", ".webp": "image/webp", ".png": "image/png", ".html": "text/html"}
# What could end a script element or begin one; JSON has the same characters as escapes.
_ESCAPES = {ord(character): f"\\u{ord(character):04x}" for character in "<>&"}

Address = Callable[[Path], str]


def relative_to(folder: Path) -> Address:
    """Returns a function that gives a file's address relative to a page in `folder`, as an HTML attribute has it."""

    def address(path: Path) -> str:
        return parse.quote(os.path.relpath(path, folder))

    return address


def data_uri(path: Path) -> str:
    """Returns a file as a data URI. Raises OSError where the file cannot be read."""
    return f"data:{MEDIA_TYPES[path.suffix]};base64,{base64.b64encode(reading.content(path, reading.OUTPUT)).decode()}"


def json_text(value: Any) -> str:
    """Returns JSON that may stand in a script element as it is. Raises ValueError for NaN and infinity."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).translate(_ESCAPES)
