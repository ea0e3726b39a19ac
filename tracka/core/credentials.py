"""Finds credentials in text: the passwords, tokens and cookies that a variable or a file of settings holds.

Standard library only, since set-up writes files before any package is installed.

A credential is found by what stands around it, as in `user:password@host`, `password=...`, `--token ...` or
`Authorization: Basic ...`, or because it has the form of a token of a known service.
"""

import base64
import contextlib
import json
import re
from collections.abc import Iterator
from urllib.parse import unquote

URL_USER = re.compile(r"(?<=://)([^/\s]+)@")  # user and password of a URL
# The same without a scheme, as in `https_proxy=user:password@host:3128`. Addresses (`mailto:user@host`) and images by
# their digest (`python:3.12@sha256:...`) only look like it.
BARE_USER = re.compile(
    r"(?<![^\s,;=\"'(\[|])(?!(?:mailto|acct|sips?|xmpp):)([^\s,;=\"'(\[|:@/]+:(?!//)[^\s/]+)@(?!sha\d+:)(?=[\w\[])"
)
# Such a name at the end of a key, as in `PGPASSWORD=`, `_authToken = ` or `"AccountKey":`. A short one is a whole word.
_NAMES = (
    r"(?:(?<![A-Za-z])(?:pass|pwd|sig|jwt|auth)|password|passwd|passphrase|passcode|secret|token|credentials?|cookie"
    r"|signature|(?:api|access|account|private|session|encryption|signing|secret|master)[-_. ]?key)"
)
_QUOTED = r"""(?:"((?:[^"\\]|\\.)+)"|'([^']+)')"""
_KEY = re.compile(rf"""({_NAMES})["']?\s*[=:]\s*(?:{_QUOTED}|([^\s"']+))""", re.IGNORECASE)
_FLAG = re.compile(rf"--?(?:[A-Za-z0-9_-]*[_-])?({_NAMES})\s+(?!-)(?:{_QUOTED}|([^\s\"']+))", re.IGNORECASE)
_END = re.compile(r"[,;&{}\[\]]")  # ends a value that is not quoted, unless it belongs to it
_QUERY = re.compile(r"[?&](?:key|code|auth)=([^&\s#\"']+)")
_USER_FLAG = re.compile(r"(?<!\S)(?:-[uU]|--(?:proxy-)?user)[ =]?([^\s:/]+:[^\s/]\S*)")  # as curl takes them
_SSHPASS = re.compile(r"\bsshpass\s+-p\s*(\S+)")
_PRIVATE_KEY = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----\s*(.+?)\s*-----END", re.DOTALL)
_NETRC = re.compile(r"\blogin\s+(\S+)\s+(?:account\s+\S+\s+)?password\s+(\S+)")
_HEADER = re.compile(r"authorization[\"']?\s*[:=]\s*[\"']?([A-Za-z]+)\s+([^\s\"',]+)", re.IGNORECASE)
_BEARER = re.compile(r"\bbearer\s+([^\s\"',]{16,})", re.IGNORECASE)
_COOKIES = re.compile(r"\bcookie[\"']?\s*[:=]\s*[\"']?([^\"'\r\n]+)", re.IGNORECASE)
_PAIR = re.compile(r"[^\s;=]+=\"?([^;\"]+)")
_TOKEN = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{16,}|gh[pousr]_\w{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}|xox[abprs]-[\w-]{10,}"
    r"|sk-[\w-]{20,}|(?:AKIA|ASIA)[0-9A-Z]{16}|npm_[A-Za-z0-9]{30,}|pypi-[\w-]{30,}"
    r"|eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]{8,})"
)
_PASSWORD_NAME = re.compile("pass|pwd|secret|sig", re.IGNORECASE)
_NUMBER = re.compile(r"[+-]?\d{1,15}(?:\.\d+)?(?:e[+-]?\d+)?", re.IGNORECASE)  # a longer one may well be a key
_LEAST_TOKEN = 16  # characters of an address's user without password that may well be a token
_LEAST_BASIC = 4  # characters of `user:password` below which text is hardly one


def in_text(text: str) -> Iterator[str]:
    """Yields the credentials in `text`: passwords as they stand and decoded, and `user:password@` of addresses."""
    for user in (*URL_USER.findall(text), *BARE_USER.findall(text)):
        yield from of_user(user)
    for found in (*_KEY.findall(text), *_FLAG.findall(text)):
        yield from _of_value(*found)
    for user, password in _NETRC.findall(text):
        yield from (password, f"{user}:{password}")
    yield from _QUERY.findall(text)
    for user in _USER_FLAG.findall(text):
        yield from of_user(user)
    yield from _SSHPASS.findall(text)
    for lines in _PRIVATE_KEY.findall(text):
        yield from lines.split()
    for scheme, value in _HEADER.findall(text):
        yield value
        yield from _basic(value) if scheme.lower() == "basic" else ()
    yield from _BEARER.findall(text)
    for cookies in _COOKIES.findall(text):
        yield from of_cookies(cookies)
    yield from _TOKEN.findall(text)


def of_user(user: str) -> Iterator[str]:
    """Yields what is secret of an address's `user:password`.

    User and password together are rare enough to be found in output, even if the password is short.
    """
    yield f"{user}@"
    name, _, password = user.partition(":")
    if not password and len(name) >= _LEAST_TOKEN and re.search(r"\d", name):
        yield from (name, unquote(name))
    yield from (password, unquote(password))
    if password:
        yield unquote(user)  # as a header's Basic encodes it


def of_cookies(text: str) -> Iterator[str]:
    """Yields the values of cookies, such as the `b` of `a=b; c=d`."""
    yield from (value.strip() for value in _PAIR.findall(text))


def without_users(text: str) -> str:
    """Returns `text` without the `user:password@` of its addresses, with or without a scheme."""
    return BARE_USER.sub("", URL_USER.sub("", text))


def _of_value(name: str, double_quoted: str, single_quoted: str, bare: str) -> Iterator[str]:
    """Yields a key's value as it stands, without what may follow it, and what it stands for."""
    value = double_quoted or single_quoted or bare
    if is_count(name, _END.split(value)[0]):
        return
    yield value
    if bare:
        yield _END.split(bare)[0]
    with contextlib.suppress(ValueError):
        yield str(json.loads(f'"{double_quoted}"'))
    yield from _basic(value)


def is_count(name: str, value: str) -> bool:
    """Returns whether a value is an ordinary number, as that of MAX_TOKENS; that of a password never is."""
    return bool(_NUMBER.fullmatch(value)) and not _PASSWORD_NAME.search(name)


def _basic(encoded: str) -> Iterator[str]:
    """Yields user and password, and the password, that the base64 text of a Basic header stands for."""
    try:
        decoded = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True).decode()
    except ValueError:
        return
    if ":" in decoded and len(decoded) >= _LEAST_BASIC:
        yield from (decoded, decoded.partition(":")[2])
