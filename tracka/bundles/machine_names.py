"""Finds what names the machine and the user of a campaign, and replaces it in texts, in every form that it may have.

Guarantees: the same name is replaced by the same text everywhere, in keys and values alike, so what agreed before
agrees afterwards; two checkpoints of one last name stay two.
"""

import html
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from urllib.parse import quote, quote_plus

from ..campaign.campaign import Campaign
from ..core import escaping, files, reading
from ..reporting import report

PLACE, NAME = "/REDACTED", "REDACTED"
SHORTEST = 3  # letters of a name that is looked for in texts
# Accounts and hosts that name nobody, and words that the formats of Track A, lerobot and LIBERO have themselves.
NOBODY = re.compile(
    "actions|artifacts|attempts|campaign|checkpoints?|code|configs?|data|docker|episodes?|eval|gpu|group|home|host"
    "|images|job|lerobot|libero|localhost|logs|models?|node|nobody|outputs|pi0|policy|pod|project|results?|root|rows?"
    "|runner|runs?|shared|smoke|srv|summary|tasks?|tests?|todo|tracka|ubuntu|users?|videos?|workers?|work|workspace"
)
_PART = rb"(?:[\w.@+~\-\x80-\xff]|\\u[0-9a-fA-F]{4})"
_BEGIN = rb"(?:(?<![\w./])|(?<=file://)|(?<=\\[nrtbf])|(?<=\x1b\[0m))"
_HEX = rb"[\w.@+~\-]|%(?!2[Ff])[0-9a-fA-F]{2}"
# A path of at least two names; what follows a letter or a slash is part of an address or of another path.
PATHS = (
    re.compile(_BEGIN + rb"/(?:" + _PART + rb"+/)+" + _PART + rb"*"),
    re.compile(_BEGIN + rb"\\/(?:" + _PART + rb"+\\/)+" + _PART + rb"*"),
    re.compile(rb"(?<![\w.])%2[Ff](?:(?:" + _HEX + rb")+%2[Ff])+(?:" + _HEX + rb")*"),
)
_SLASH = re.compile(rb"/|%2[Ff]")
_USER = re.compile(rb"/(?:home|Users)/([A-Za-z0-9][\w.\-]*)")


@dataclass(frozen=True)
class MachineNames:
    """What is replaced: `places` has folders with what stands for them, `words` the names of hosts and users."""

    places: Mapping[str, str]
    words: frozenset[str]

    def replaced(self, text: bytes) -> bytes:
        """Returns a text without `words`, `places` and absolute paths; of a path the last name stays."""
        if self._places:
            text = self._places.sub(self._place, text)
        for pattern in PATHS:
            text = pattern.sub(_shortened, text)
        return self.without_words(text)

    def without_words(self, text: bytes) -> bytes:
        """Returns a text without `words`."""
        return self._words.sub(NAME.encode(), text) if self._words else text

    def _place(self, match: re.Match[bytes]) -> bytes:
        slash, stand_in = self._by_form[match[0]]
        return stand_in.encode().replace(b"/", slash)

    @cached_property
    def _by_form(self) -> dict[bytes, tuple[bytes, str]]:
        return {form: (slash, new) for old, new in self.places.items() for form, slash in forms(old)}

    @cached_property
    def _places(self) -> re.Pattern[bytes] | None:
        return one_of(self._by_form, after=rb"(?!\w)")

    @cached_property
    def _words(self) -> re.Pattern[bytes] | None:
        return words_pattern(self.words)


def words_pattern(words: Iterable[str]) -> re.Pattern[bytes] | None:
    """Returns what finds any of `words` between others' letters and digits; None without words."""
    found = {form for word in words for form, _ in forms(word)}
    return one_of(found, rb"(?<![A-Za-z0-9])", rb"(?![A-Za-z0-9])")


def one_of(texts: Iterable[bytes], before: bytes = b"", after: bytes = b"") -> re.Pattern[bytes] | None:
    """Returns what finds any of `texts`, the longest first; None without texts."""
    ordered = sorted(texts, key=lambda text: (-len(text), text))
    return re.compile(before + b"(?:" + b"|".join(map(re.escape, ordered)) + b")" + after) if ordered else None


def forms(text: str) -> Iterator[tuple[bytes, bytes]]:
    """Yields a name as it is and as part of JSON, a page, a table and an address, each with how the form has a slash.

    A shell's command may have quoted it before.
    """
    for value in {text, text.replace("'", "'\"'\"'")}:
        as_json = {json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]}
        pages = {html.escape(value), html.escape(value, quote=False), escaping.cell(value), escaping.literal(value)}
        for form in {value, quote(value), *pages, *as_json}:
            yield form.encode(errors="surrogateescape"), b"/"
            yield _lower_hex(form).encode(errors="surrogateescape"), b"/"
        for form in as_json if "/" in text else ():
            yield form.replace("/", "\\/").encode(errors="surrogateescape"), b"\\/"
        for form in {quote(value, safe=""), quote_plus(value)} if "/" in text else ():
            yield form.encode(), b"%2F"
            yield _lower_hex(form).encode(), b"%2f"


def _lower_hex(form: str) -> str:
    return re.sub("%..", lambda found: found[0].lower(), form)


def _shortened(match: re.Match[bytes]) -> bytes:
    """Returns a path's last name below PLACE, or below the stand-in with which the path begins already."""
    path = match[0]
    slash = b"\\/" if path.startswith(b"\\/") else b"/" if path.startswith(b"/") else path[:3]
    _, first, *names = path.rstrip(slash if slash == b"/" else b"").split(slash)
    last = next((name for name in reversed(names) if name), b"")
    if re.fullmatch(rb"REDACTED(-\d+)?", first):
        return slash + first + (slash + last if last else b"")
    return PLACE[1:].encode().join((slash, slash)) + (last or first)


def of(campaign: Campaign, texts: Iterable[Path]) -> MachineNames:
    """Returns what names the machine and the user in the campaign's records and in these files."""
    manifests = [*report.manifests(campaign)]
    snapshot = files.read_or_empty(campaign.layout.preflight / "env_snapshot.json")
    environs = [snapshot.get("env", {}), *(manifest["env"] for manifest in manifests)]
    policies = {manifest["policy_path"] for manifest in manifests} | {row.policy_path for row in campaign.rows}
    policies |= {manifest["checkpoint"]["folder"] for manifest in manifests}
    folders = {str(environ.get(key, "")) for environ in environs for key in ("HOME", "HF_HOME")}
    folders |= {str(campaign.layout.project), *(manifest["cwd"] for manifest in manifests)}
    folders |= {str(PurePosixPath(path).parent) for path in policies}
    places = {folder: PLACE for folder in folders if _is_deep(folder)} | _checkpoints(policies)
    named = {str(environ.get(key, "")) for environ in environs for key in ("USER", "LOGNAME", "HOSTNAME")}
    named |= {str(snapshot.get("hostname", "")), *(Path(str(environ.get("HOME", ""))).name for environ in environs)}
    named |= {name.decode() for path in texts for name in _USER.findall(reading.content(path, reading.OUTPUT))}
    named |= {name.partition(".")[0] for name in named}
    return MachineNames(
        places, frozenset(name for name in named if len(name) >= SHORTEST and not NOBODY.fullmatch(name))
    )


def _is_deep(folder: str) -> bool:
    """Returns whether a folder's path is absolute and long enough to be looked for in the middle of words."""
    return folder.startswith("/") and len(PurePosixPath(folder).parts) > 2  # with the root


def _checkpoints(policies: Iterable[str]) -> dict[str, str]:
    """Returns absolute policy path -> what stands for it, another for each."""
    places: dict[str, str] = {}
    for path in sorted({str(PurePosixPath(policy)) for policy in policies if _is_deep(policy)}):
        last = PurePosixPath(path).name
        count = sum(PurePosixPath(other).name == last for other in places) + 1
        places[path] = f"{PLACE}{'' if count == 1 else f'-{count}'}/{last}"
    return places
