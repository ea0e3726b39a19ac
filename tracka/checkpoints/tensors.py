"""Reads safetensors files: the types and shapes of tensors from the header, and the values of small tensors.

The format is documented at https://huggingface.co/docs/safetensors: 8 bytes with the header's length, the header as
JSON, then the tensors' bytes without gaps. The safetensors library checks all of this, but its messages
("MetadataIncompleteBuffer") do not lead to the remedy, so this module words its own findings.
"""

import contextlib
import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from ..core import fact_cache, parsing, reading
from ..core.errors import Finding, TrackaError

POINTER = b"version https://git-lfs.github.com/spec/"
LENGTH = 8  # bytes that hold the header's length
MOST_VALUES = 1 << 24  # bytes of one tensor whose values are read
HEADER = 100_000_000  # the largest header that the format allows, in bytes
AGAIN = "Copy the file again from where it was trained; from the hub, run `hf download REPOSITORY --force-download`"
# Type of plain numbers -> its letter in the module `struct`; BF16 is read as the upper half of a float32.
TYPES = {"F64": "d", "F32": "f", "F16": "e", "BF16": "H", "I64": "q", "I32": "i", "I16": "h", "I8": "b", "U8": "B"}


@dataclass(frozen=True)
class Tensor:
    """Describes one tensor of a file.

    `dtype` is the format's word, such as F32; `start` and `end` are offsets in bytes after the header.
    """

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True)
class TensorFile:
    """Describes a sound safetensors file: its tensors by name, the texts of its metadata, and where its data begin."""

    path: Path
    tensors: dict[str, Tensor]
    metadata: dict[str, str]
    data: int

    def values(self, name: str) -> tuple[float, ...]:
        """Returns the numbers of one tensor, row by row. Raises TrackaError for a type that holds no plain numbers."""
        tensor = self.tensors[name]
        if tensor.dtype not in TYPES:
            what = f"{name} has the type {tensor.dtype}, which does not hold plain numbers"
            raise TrackaError(Finding(str(self.path), what, "Save this tensor as float32"))
        if tensor.end - tensor.start > MOST_VALUES:
            what = f"{name} has {tensor.end - tensor.start} bytes, too many for statistics"
            raise TrackaError(Finding(str(self.path), what, "Save the processors again"))
        with reading.opened(self.path, reading.WEIGHTS) as file:
            file.seek(self.data + tensor.start)
            data = file.read(tensor.end - tensor.start)
        letter = TYPES[tensor.dtype]
        count = len(data) // struct.calcsize(f"<{letter}")
        numbers = struct.unpack(f"<{count}{letter}", data)
        if tensor.dtype == "BF16":
            return struct.unpack(f"<{count}f", struct.pack(f"<{count}I", *(number << 16 for number in numbers)))
        return tuple(map(float, numbers))


def as_text(shape: Sequence[int]) -> str:
    """Returns a shape as text for messages, such as 3 x 96 x 96."""
    return " x ".join(map(str, shape)) or "of a single number"


@fact_cache.remembered
def read(path: Path) -> TensorFile:
    """Reads the header of a safetensors file and returns the file's description.

    Raises TrackaError naming what is wrong where the file is no sound safetensors file.
    """
    with _opened(path) as file:
        start = file.read(max(len(POINTER), LENGTH))
        if start.startswith(POINTER):
            raise TrackaError(_pointer_finding(path, start + file.read(1024)))
        length = int.from_bytes(start[:LENGTH], "little")
        size = os.fstat(file.fileno()).st_size
        if len(start) < LENGTH or (start[LENGTH : LENGTH + 1] == b"{" and length + LENGTH > size):
            raise TrackaError(_cut_off_finding(path, size, length + LENGTH if len(start) >= LENGTH else LENGTH))
        file.seek(LENGTH)
        header = _header(path, file.read(length) if length <= HEADER else b"")
    metadata = header.pop("__metadata__", {})
    tensors = {name: _tensor(path, name, item) for name, item in header.items()}
    expected_size = LENGTH + length + max((tensor.end for tensor in tensors.values()), default=0)
    if size < expected_size:
        raise TrackaError(_cut_off_finding(path, size, expected_size))
    _require_sound(path)
    return TensorFile(path, tensors, metadata if isinstance(metadata, dict) else {}, LENGTH + length)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """Opens a file of weights. Raises TrackaError for what is no regular file, or one that is larger than any."""
    try:
        with reading.opened(path, reading.WEIGHTS) as file:
            yield file
    except reading.Refused as error:
        raise TrackaError(Finding(str(path), str(error), AGAIN)) from None


def faults(path: Path) -> Sequence[Finding]:
    """Returns the findings about an unsound safetensors file; empty where the file is sound."""
    try:
        read(path)
    except TrackaError as error:
        return error.findings
    return ()


def _header(path: Path, data: bytes) -> dict[str, Any]:
    try:
        header = parsing.json_value(data)
    except parsing.Malformed:
        header = None
    if not isinstance(header, dict):
        raise TrackaError(Finding(str(path), "this is not a safetensors file: its header is not JSON", AGAIN))
    return header


def _tensor(path: Path, name: str, item: Any) -> Tensor:
    try:
        start, end = map(int, item["data_offsets"])
        return Tensor(str(item["dtype"]), tuple(map(int, item["shape"])), start, end)
    except (KeyError, TypeError, ValueError):
        what = f"this is not a safetensors file: its header lacks the type, shape or offsets of {name}"
        raise TrackaError(Finding(str(path), what, AGAIN)) from None


def _require_sound(path: Path) -> None:
    """Raises TrackaError where the library finds another fault.

    The library checks types, sizes, places that overlap, and bytes that belong to no tensor.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np"):
            pass
    except (SafetensorError, OSError, ValueError) as error:
        raise TrackaError(Finding(str(path), f"this is not a valid safetensors file ({error})", AGAIN)) from None


def _pointer_finding(path: Path, text: bytes) -> Finding:
    size = next((line.split()[1] for line in text.decode(errors="replace").splitlines() if line[:5] == "size "), "?")
    what = f"this is a git-lfs pointer to a file of {size} bytes, not the file itself"
    return Finding(
        str(path), what, "Run `git lfs pull` in its repository, or fetch the file with `hf download REPOSITORY`"
    )


def _cut_off_finding(path: Path, size: int, expected_size: int) -> Finding:
    return Finding(str(path), f"the file is cut off: it has {size} of {expected_size} bytes", AGAIN)
