"""Makes and checks the tag files of BagIt (RFC 8493): the payload's sha256 manifest, and that of the tag files."""

from collections.abc import Iterator, Mapping
from urllib.parse import quote

from .. import __version__

DECLARATION, INFO = "bagit.txt", "bag-info.txt"
MANIFEST, TAG_MANIFEST = "manifest-sha256.txt", "tagmanifest-sha256.txt"
PAYLOAD = "data/"


def tag_files(name: str, closed_at_utc: str, hashes: Mapping[str, str], size: int) -> dict[str, bytes]:
    """Returns the tag files of a payload with these sha256 by name, and `size` bytes in all, but TAG_MANIFEST."""
    info = {
        "Bag-Software-Agent": f"Track A {__version__}",
        "Bagging-Date": closed_at_utc[:10],  # of the campaign, so that the same campaign gives the same bag
        "External-Description": "The evidence of an evaluation campaign of robot policies",
        "External-Identifier": name,
        "Payload-Oxum": f"{size}.{len(hashes)}",
    }
    return {
        DECLARATION: b"BagIt-Version: 1.0\nTag-File-Character-Encoding: UTF-8\n",
        INFO: "".join(f"{key}: {value}\n" for key, value in info.items()).encode(),
        MANIFEST: manifest(hashes),
    }


def manifest(hashes: Mapping[str, str]) -> bytes:
    """Returns the lines of a manifest: sha256 and name."""
    return "".join(f"{hashes[name]}  {_encoded(name)}\n" for name in sorted(hashes)).encode()


def _encoded(name: str) -> str:
    """Returns a name as a manifest writes it: percent signs and ends of lines encoded."""
    return "".join(quote(each) if each in "%\r\n" else each for each in name)


def differences(listed: bytes, hashes: Mapping[str, str]) -> Iterator[str]:
    """Yields each line in which a manifest differs from the files' hashes, by the file's name."""
    before, now = {*listed.decode(errors="replace").splitlines()}, {*manifest(hashes).decode().splitlines()}
    yield from sorted({line[66:] for line in before ^ now})
