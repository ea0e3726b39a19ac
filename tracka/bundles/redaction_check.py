"""Searches a redacted bundle for what should have been replaced, in every byte, and refuses a bundle that has it.

Names are looked for in texts, in compressed files, in base64, and in the wide characters of arrays.
"""

import bz2
import contextlib
import gzip
import io
import lzma
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping

from ..core import reading, redaction
from ..core.errors import Finding, UsageError
from . import machine_names
from .archive import Source
from .machine_names import PATHS, MachineNames

# Letters of a word that is looked for in files that are no text: a shorter one occurs in compressed data by chance.
SHORTEST_IN_BINARY = 6
WIDE = ("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be")
REMEDY = "Move the file out of the campaign, or leave videos out with --no-videos; then make the bundle again"
_STAND_IN = re.compile(rb"^(?:/|\\/|%2[Ff])REDACTED")


def require_none(top: str, members: Mapping[str, Source], names: MachineNames) -> None:
    """Raises UsageError with each file of a bundle that has a name which should have been replaced."""
    search = _Search(names)
    found = [name for name, source in members.items() if search.is_in(_content(source), f"{top}/{name}".encode())]
    if found:
        what = "the file still names a place, a host or a user of this machine, so no redacted bundle was written"
        raise UsageError([Finding(name, what, REMEDY) for name in found])


class _Search:
    """Looks for the names in the content and the name of a file."""

    def __init__(self, names: MachineNames) -> None:
        long = {word for word in names.words if len(word) >= SHORTEST_IN_BINARY}
        needles = {form for place in names.places for form, _ in machine_names.forms(place)}
        secret = {*names.places, *long}
        needles |= {form.encode() for text in secret for form in redaction.base64_forms(text)}
        needles |= {text.encode(code) for text in secret for code in WIDE}
        self._places = machine_names.one_of(needles)
        self._words = machine_names.words_pattern(names.words)
        self._long_words = machine_names.words_pattern(long)

    def is_in(self, content: bytes, name: bytes) -> bool:
        """Returns whether one of the names is in a file."""
        return any(self._is_in_part(part) for part in (name, content, *_decompressed(content)))

    def _is_in_part(self, part: bytes) -> bool:
        is_binary = b"\0" in part
        if _finds(self._places, part) or _finds(self._long_words if is_binary else self._words, part):
            return True
        return not is_binary and any(not _STAND_IN.match(match[0]) for path in PATHS for match in path.finditer(part))


def _finds(pattern: re.Pattern[bytes] | None, part: bytes) -> bool:
    return pattern is not None and pattern.search(part) is not None


def _content(source: Source) -> bytes:
    return source if isinstance(source, bytes) else reading.content(source, reading.OUTPUT)


def _decompressed(content: bytes) -> Iterator[bytes]:
    """Yields what a compressed file holds. A damaged one says no more to its reader than it says here."""
    with contextlib.suppress(OSError, EOFError, ValueError, zlib.error, lzma.LZMAError, zipfile.BadZipFile):
        for magic, unpack in UNPACKED.items():
            if content.startswith(magic):
                yield from unpack(content)


def _gzip(content: bytes) -> Iterator[bytes]:
    with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
        yield file.read(reading.OUTPUT)


def _bzip2(content: bytes) -> Iterator[bytes]:
    with bz2.BZ2File(io.BytesIO(content)) as file:
        yield file.read(reading.OUTPUT)


def _xz(content: bytes) -> Iterator[bytes]:
    with lzma.open(io.BytesIO(content)) as file:
        yield file.read(reading.OUTPUT)


def _zip(content: bytes) -> Iterator[bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for name in archive.namelist():
            yield name.encode()
            with archive.open(name) as file:
                yield file.read(reading.OUTPUT)


def _png_texts(content: bytes) -> Iterator[bytes]:
    """Yields the compressed texts of a PNG image."""
    for match in re.finditer(rb"zTXt[^\0]{1,79}\0\0|iTXt[^\0]{1,79}\0\x01\0[^\0]*\0[^\0]*\0", content):
        yield zlib.decompressobj().decompress(content[match.end() :])


# What a compressed file begins with -> what yields its contents.
UNPACKED: dict[bytes, Callable[[bytes], Iterator[bytes]]] = {
    b"\x1f\x8b": _gzip,
    b"BZh": _bzip2,
    b"\xfd7zXZ\0": _xz,
    b"PK\x03\x04": _zip,
    b"\x89PNG": _png_texts,
}
