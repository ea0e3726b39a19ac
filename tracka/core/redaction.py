"""Finds the secrets in an environment and removes them from text.

Standard library only, since set-up writes files before any package is installed.

Guarantee: once a `Redactor` knows a secret, it passes on no byte that belongs to the secret, wherever chunks begin and
end.
"""

import base64
import functools
import html
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote, quote_plus, unquote

from . import credentials, reading

NAME = re.compile(
    r"(?!TOKENIZERS_).*(?:TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIAL|KEY|JWT|COOKIE).*"
    r"|.*_(?:PASS|PWD|AUTH)|SSHPASS",
    re.IGNORECASE,
)
MIN_LENGTH = 8  # characters; a shorter value occurs in output by chance
# Values that say nothing, or stand for a password that is not there. Output without these words is useless.
COMMON = re.compile(
    "passwords?|passphrase|changeme|disabled|required|optional|undefined|unlimited|anonymous|localhost|username"
    r"|interactive|keychain|libsecret|x+|\*+|\[?redacted\]?",
    re.IGNORECASE,
)
MASK = b"[redacted]"
_FILE_BYTES = 1 << 16  # of a file with credentials; the rest is not read


def secret_values(environ: Mapping[str, str]) -> tuple[bytes, ...]:
    """Returns the secret values of an environment in every form in which output may show them, the longest first."""
    found = (*_values(environ), *_hub_token(environ), *_netrc(environ))
    return _all_forms(frozenset(value.strip() for value in found))


@functools.lru_cache(maxsize=64)
def _all_forms(values: frozenset[str]) -> tuple[bytes, ...]:
    forms = {form for value in values for form in _forms(value)}
    return tuple(sorted((os.fsencode(form) for form in forms), key=lambda form: (-len(form), form)))


def _values(environ: Mapping[str, str]) -> Iterator[str]:
    for name, value in environ.items():
        found = _in_text(value)
        # GOOGLE_APPLICATION_CREDENTIALS and HF_TOKEN_PATH hold the path of a secret. Paths stay: a page without them is
        # useless.
        if NAME.fullmatch(name) and not _is_path(value):
            if not credentials.is_count(name, value):
                yield value
            found += (*credentials.of_cookies(value),) if "COOKIE" in name.upper() else ()
        yield from (each for each in found if not _is_path(each))


@functools.lru_cache(maxsize=4096)
def _in_text(text: str) -> tuple[str, ...]:
    """Returns the credentials in the value of a variable; the same few values are asked for at every file."""
    return (*dict.fromkeys(credentials.in_text(text)),)


def _is_path(value: str) -> bool:
    return value.startswith("/") and os.access(value, os.F_OK)


def _hub_token(environ: Mapping[str, str]) -> Iterator[str]:
    """Yields the token that `hf auth login` stored where the hub's client looks for it."""
    cache = environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    home = environ.get("HF_HOME") or Path(cache) / "huggingface"
    yield _content(Path(environ.get("HF_TOKEN_PATH") or Path(home) / "token"))


def _netrc(environ: Mapping[str, str]) -> Iterator[str]:
    """Yields the passwords of the user's netrc file, with which git, pip, wandb and curl log in."""
    yield from _in_text(_content(Path(environ.get("NETRC") or Path.home() / ".netrc")))


def _content(path: Path) -> str:
    """Returns the beginning of a file, or an empty text where `path` is no regular file that can be read as text."""
    try:
        with reading.opened(path, 1 << 63) as file:
            return file.read(_FILE_BYTES).decode()
    except (OSError, ValueError):
        return ""


def _forms(value: str) -> set[str]:
    """Returns a secret as it is, and as part of a URL, of JSON, of a page, and of base64.

    Returns nothing for a value that is too short or too common to replace.
    """
    if COMMON.fullmatch(value) or (len(value) < MIN_LENGTH and not (":" in value and value.endswith("@"))):
        return set()
    quoted = {quote(value, safe="", errors="surrogateescape"), quote_plus(value, errors="surrogateescape")}
    lower = {re.sub("%..", lambda found: found.group().lower(), form) for form in quoted}
    as_json = {json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]}
    plain = unquote(value)
    decoded = {plain} if len(plain) >= MIN_LENGTH else set()
    return {value, html.escape(value), *quoted, *lower, *as_json, *decoded, *base64_forms(value)}


def base64_forms(secret: str) -> Iterator[str]:
    """Yields what a secret of MIN_LENGTH is in base64, wherever it begins in the bytes that are encoded.

    The characters at both ends are left out, since they depend on the neighbours too.
    """
    value = os.fsencode(secret)
    for before in range(3) if len(value) >= MIN_LENGTH and not secret.endswith("@") else ():
        bits = 8 * (before + len(value))
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            yield encode(bytes(before) + value).decode()[-(-8 * before // 6) : bits // 6]


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
