"""Writes a log of bounded size: the head of a child's output as it comes, and the tail when the child has ended.

Guarantees: the file never holds more than `log_bytes` bytes plus a line that says how much is left out; a watched word
that was printed is in the file, wherever it was printed; no secret is in the file, even if it was printed in pieces.
"""

from collections.abc import Sequence
from pathlib import Path

from ..core.redaction import Redactor


class Log:
    """The file `path`, which takes what a child prints. Raises OSError where the file cannot be written."""

    def __init__(
        self, path: Path, log_bytes: int, secrets: Sequence[bytes] = (), watched: Sequence[bytes] = ()
    ) -> None:
        self.printed = 0
        self._path, self._file = path, path.open("wb", buffering=0)
        self._head_room, self._tail_bytes = log_bytes - log_bytes // 2, log_bytes // 2
        self._tail, self._left_out = bytearray(), 0
        self._redactor = Redactor(secrets)
        self._watched, self._seen_words, self._border = tuple(watched), set[bytes](), b""

    def feed(self, chunk: bytes) -> None:
        """Takes the next bytes of the output and counts them in `printed`."""
        self.printed += len(chunk)
        self._keep(self._redactor.feed(chunk))

    def close(self) -> None:
        """Writes the tail of the output. The file is closed whatever happens."""
        with self._file:
            self._keep(self._redactor.flush())
            self._trim()
            if self._left_out:
                self._write(self._gap())
            self._write(self._tail)

    def _keep(self, text: bytes) -> None:
        self._watch(text)
        head, rest = text[: self._head_room], text[self._head_room :]
        self._write(head)
        self._head_room -= len(head)
        self._tail += rest
        if len(self._tail) > 2 * self._tail_bytes + (1 << 16):
            self._trim()

    def _trim(self) -> None:
        beyond = max(0, len(self._tail) - self._tail_bytes)
        del self._tail[:beyond]
        self._left_out += beyond

    def _watch(self, text: bytes) -> None:
        if self._watched:
            joined = self._border + text
            self._seen_words.update(word for word in self._watched if word in joined)
            self._border = joined[-max(map(len, self._watched)) :]

    def _gap(self) -> bytes:
        seen = b"".join(b"; the output contains: " + word for word in sorted(self._seen_words))
        return b"\n[tracka: %d bytes are left out here%s]\n" % (self._left_out, seen)

    def _write(self, data: bytes | bytearray) -> None:
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self._path)) from None
