"""Finds the secrets in an environment and removes them from text.

Standard library only, since set-up writes files before any package is installed.

Guarantee: once a `Redactor` knows a secret, it passes on no byte that belongs to the secret, wherever chunks begin and
end.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote, unquote

NAME = re.compile(r"(?!TOKENIZERS_).*(?:TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL|KEY|JWT).*", re.IGNORECASE)
USER = re.compile(r"(?<=://)([^/\s]+)@")  # user and password of a URL
MIN_LENGTH = 8  # characters; a shorter value occurs in output by chance
MASK = b"[redacted]"


def secret_values(environ: Mapping[str, str]) -> tuple[bytes, ...]:
    """Returns the secret values of an environment in every form in which output may show them, the longest first."""
    forms = {form for value in (*_values(environ), *_hub_token(environ)) for form in _forms(value.strip())}
    return tuple(sorted((os.fsencode(form) for form in forms), key=lambda form: (-len(form), form)))


def _values(environ: Mapping[str, str]) -> Iterator[str]:
    for name, value in environ.items():
        # GOOGLE_APPLICATION_CREDENTIALS and HF_TOKEN_PATH hold the path of a secret. Paths stay: a page without them is
        # useless.
        if NAME.fullmatch(name) and not (value.startswith("/") and os.access(value, os.F_OK)):
            yield value
        if "://" in value:
            yield from _of_urls(value)


def _of_urls(text: str) -> Iterator[str]:
    for user in USER.findall(text):
        yield f"{user}@"  # user and password together are rare enough, even if the password is short
        yield unquote(user.partition(":")[2])


def _hub_token(environ: Mapping[str, str]) -> Iterator[str]:
    """Yields the token that `hf auth login` stored where the hub's client looks for it."""
    cache = environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    home = environ.get("HF_HOME") or Path(cache) / "huggingface"
    try:
        yield Path(environ.get("HF_TOKEN_PATH") or Path(home) / "token").read_text()
    except (OSError, ValueError):
        return


def _forms(value: str) -> set[str]:
    """Returns a secret as it is, as part of a URL, and as part of JSON.

    Returns nothing for a value that is too short to replace.
    """
    forms = {value, quote(value, safe="", errors="surrogateescape"), json.dumps(value)[1:-1]}
    return forms if len(value) >= MIN_LENGTH or (":" in value and value.endswith("@")) else set()


def redact(text: str, secrets: Sequence[bytes]) -> str:
    """Returns `text` with every secret replaced by `MASK`."""
    data = text.encode(errors="surrogatepass")
    if not any(secret in data for secret in secrets):
        return text
    redactor = Redactor([secret for secret in secrets if _is_text(secret)])
    return (redactor.feed(data) + redactor.flush()).decode(errors="surrogatepass")


def _is_text(secret: bytes) -> bool:
    """Returns whether a secret is UTF-8 and not empty. Other bytes could match in the middle of a character."""
    try:
        return bool(secret.decode())
    except UnicodeDecodeError:
        return False


class Redactor:
    """Replaces every secret in a stream of bytes. Secrets that overlap are replaced as one."""

    def __init__(self, secrets: Sequence[bytes]) -> None:
        self._secrets = tuple(filter(None, secrets))
        self._held = b""
        self._covered = 0  # bytes at the beginning of `_held` whose replacement has been passed on already

    def feed(self, chunk: bytes) -> bytes:
        """Takes the next bytes and returns those to pass on: all but a suffix that could begin a secret."""
        data = self._held + chunk if self._held else chunk
        return self._pass_on(data, self._unfinished(data))

    def flush(self) -> bytes:
        """Returns the rest at the end of the stream."""
        return self._pass_on(self._held, len(self._held))

    def _pass_on(self, data: bytes, cut: int) -> bytes:
        """Returns `data` up to `cut` without its secrets, and holds the rest."""
        parts, position = [], self._covered
        for start, end in self._secret_spans(data):
            if start >= cut:
                break
            if start >= position:
                parts += [data[position:start], MASK]
            position = max(position, end)
        parts.append(data[position:cut])
        self._held, self._covered = data[cut:], max(position - cut, 0)
        return b"".join(parts)

    def _secret_spans(self, data: bytes) -> list[tuple[int, int]]:
        """Returns the sorted start and end positions of all secrets in `data`, including secrets that overlap."""
        spans = []
        for secret in self._secrets:
            start = data.find(secret)
            while start >= 0:
                spans.append((start, start + len(secret)))
                start = data.find(secret, start + 1)
        return sorted(spans)

    def _unfinished(self, data: bytes) -> int:
        """Returns where the longest suffix of `data` that could begin a secret starts, or the end of `data`."""
        earliest = len(data)
        for secret in self._secrets:
            start = data.find(secret[:1], max(0, len(data) - len(secret) + 1))
            while 0 <= start < earliest:
                if secret.startswith(data[start:]):
                    earliest = start
                start = data.find(secret[:1], start + 1)
        return earliest
