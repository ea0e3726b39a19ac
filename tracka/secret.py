"""Secrets: which values of an environment are some, and text that is passed on without them.

Guarantees: a known secret is found wherever the pieces of a stream are cut; text without secrets is passed on as it is.
"""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote, unquote

NAME = re.compile(r"(?!TOKENIZERS_).*(?:TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL|KEY|JWT).*", re.IGNORECASE)
SHORTEST = 8  # a shorter value is found in ordinary words, and is no secret worth the name
HIDDEN = b"[redacted]"
_URL = re.compile(r"://[^/\s:@]*:([^/\s@]+)@")


def known(environ: Mapping[str, str]) -> tuple[bytes, ...]:
    """The secret values of an environment, the longest first: by name, in URLs, and the hub's token in its file.

    A path is none, whatever the variable is called: error messages had better show it.
    """
    named = [value for name, value in environ.items() if NAME.fullmatch(name)]
    in_urls = [found for value in environ.values() for found in _URL.findall(value)]
    plain = {value.strip() for value in (*named, *in_urls, _hub_token(environ))}
    forms = {form for value in plain if value[:1] != "/" for form in (value, quote(value, safe=""), unquote(value))}
    found = {os.fsencode(form) for form in forms if len(form) >= SHORTEST}
    return tuple(sorted(found, key=lambda value: (-len(value), value)))


def _hub_token(environ: Mapping[str, str]) -> str:
    """What the hub's client would read from its file."""
    home = environ.get("HF_HOME") or Path(environ.get("HOME", "~"), ".cache", "huggingface")
    try:
        return Path(environ.get("HF_TOKEN_PATH") or Path(home, "token")).read_text()
    except (OSError, UnicodeDecodeError):
        return ""


class Redactor:
    """A stream of bytes with `[redacted]` in place of every secret. What could be the beginning of one waits."""

    def __init__(self, secrets: Sequence[bytes]) -> None:
        ordered = sorted(secrets, key=len, reverse=True)
        self._secrets = re.compile(b"|".join(map(re.escape, ordered))) if ordered else None
        self._beginnings = {secret[:size] for secret in ordered for size in range(1, len(secret))}
        self._longest = max(map(len, ordered), default=1) - 1
        self._held = b""

    def feed(self, chunk: bytes) -> bytes:
        """What can be passed on now."""
        if self._secrets is None:
            return chunk
        text = self._held + chunk
        cut = self._cut(text)
        self._held = text[cut:]
        return self._secrets.sub(HIDDEN, text[:cut])

    def flush(self) -> bytes:
        """The rest: the stream has ended."""
        rest, self._held = self._held, b""
        return self._secrets.sub(HIDDEN, rest) if self._secrets else rest

    def _cut(self, text: bytes) -> int:
        """Where the longest end of `text` begins that could be the beginning of a secret."""
        for size in range(min(self._longest, len(text)), 0, -1):
            if text[-size:] in self._beginnings:
                return self._whole(text, len(text) - size)
        return len(text)

    def _whole(self, text: bytes, cut: int) -> int:
        """`cut`, or the end of a secret that it would cut through: one may end with another's beginning."""
        assert self._secrets is not None
        inside = (found.end() for found in self._secrets.finditer(text) if found.start() < cut < found.end())
        return next(inside, cut)


def redact(text: str, secrets: Sequence[bytes]) -> str:
    """A whole text without secrets."""
    redactor = Redactor(secrets)
    return os.fsdecode(redactor.feed(os.fsencode(text)) + redactor.flush())
