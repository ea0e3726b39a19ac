"""Signs the statements of a bundle with a key of one's own: DSSE envelopes, by the library of securesystemslib.

A signature stands beside its statement, in a file of its own. Everything else in a bundle is the same with and without.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..core import files, parsing, reading
from ..core.errors import Finding, ToolMissing, UsageError, shortened
from .archive import Source
from .statements import FOLDER

PAYLOAD_TYPE = "application/vnd.in-toto+json"
SUFFIX = ".dsse.json"
INSTALL = "Install tracka[sign]"


def load_key(path: Path) -> Any:
    """Returns the private key in a PEM file, as a signer.

    Raises UsageError where the file holds no key that can sign, and ToolMissing without the library.
    """
    try:
        from cryptography.hazmat.primitives.serialization import load_pem_private_key
        from securesystemslib.signer import CryptoSigner
    except ImportError as error:
        raise _missing(error) from None
    try:
        return CryptoSigner(load_pem_private_key(reading.content(path, reading.KIB * 64), None))
    except (OSError, TypeError, ValueError) as error:
        what = f"the file holds no private key that can sign ({shortened(error)})"
        raise UsageError(Finding(str(path), what, "Name a PEM file of an Ed25519, ECDSA or RSA key")) from None


def _missing(error: ImportError) -> ToolMissing:
    return ToolMissing(Finding("signatures", f"a package is missing ({error})", INSTALL))


def envelopes(members: Mapping[str, Source], signer: Any | None) -> dict[str, Source]:
    """Returns an envelope for each statement among `members`, signed by `signer`; none without a signer."""
    if signer is None:
        return {}
    from securesystemslib.dsse import Envelope

    signed: dict[str, Source] = {}
    for name, content in members.items():
        if name.startswith(FOLDER) and isinstance(content, bytes):
            envelope = Envelope(content, PAYLOAD_TYPE, {})
            envelope.sign(signer)
            signed[envelope_name(name)] = files.pretty(envelope.to_dict())
    return signed


def envelope_name(statement: str) -> str:
    """Returns the name of the signature of a statement."""
    return f"{statement.removesuffix('.json')}{SUFFIX}"


def faults(contents: Mapping[str, bytes], key: Path) -> Iterator[str]:
    """Yields why a bundle's statements are not signed by the public key in the PEM file `key`.

    `contents` has the statements and the envelopes by their names. Raises UsageError where the file holds no key, and
    ToolMissing without the library.
    """
    try:
        from securesystemslib.dsse import Envelope
        from securesystemslib.exceptions import FormatError, VerificationError
        from securesystemslib.signer import SSlibKey
    except ImportError as error:
        raise _missing(error) from None
    public = _public_key(key, SSlibKey)
    for name in [each for each in contents if not each.endswith(SUFFIX)]:
        content = contents.get(envelope_name(name))
        if content is None:
            yield f"{name} is not signed"
            continue
        try:
            envelope = Envelope.from_dict(parsing.json_value(content))
            envelope.verify([public], 1)
        except (VerificationError, FormatError, KeyError, TypeError, ValueError) as error:
            yield f"{name} is not signed by this key ({shortened(error)})"
            continue
        if envelope.payload != contents[name]:
            yield f"the signature is of another {name}"


def _public_key(path: Path, kind: Any) -> Any:
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        return kind.from_crypto(load_pem_public_key(reading.content(path, reading.KIB * 64)))
    except (OSError, ValueError) as error:
        what = f"the file holds no public key ({shortened(error)})"
        raise UsageError(Finding(str(path), what, "Name the PEM file of the public key")) from None
