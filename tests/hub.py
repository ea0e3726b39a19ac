"""Serves a hub on this machine with one repository, for the real client.

The hub answers the three requests of a snapshot's download.
"""

import contextlib
import hashlib
import http.server
import json
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

COMMIT = "c0ffee" * 6 + "c0ff"


@dataclass
class Hub:
    """The state of the hub, which a test may change while the hub serves.

    Attributes:
        files: file name -> content of the repository `org/policy`
        refuses: status and error code of every answer about the repository; None where the hub refuses nothing
        gated: whether downloads of the repository's files are refused, and nothing else
        breaks: the file whose first download is cut after `after` bytes
        after: the number of bytes after which that download is cut
        stays_broken: whether each later download of that file is cut before its first byte
        revisions: the revisions that the repository has
        address: the URL at which the hub is served
        downloads: the names of the files asked for so far
        ranges: the Range headers received so far
    """

    files: Mapping[str, bytes]
    refuses: tuple[int, str] | None = None
    gated: bool = False
    breaks: str = ""
    after: int = 0
    stays_broken: bool = False
    revisions: tuple[str, ...] = ("main", COMMIT)
    address: str = ""
    downloads: list[str] = field(default_factory=list)
    ranges: list[str] = field(default_factory=list)


@contextlib.contextmanager
def serve(files: Mapping[str, bytes], **how: Any) -> Iterator[Hub]:
    """Serves a hub until the block ends, and yields it; `how` are further fields of Hub."""
    hub = Hub(files, **how)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer()

        def do_GET(self) -> None:
            self.answer()

        def answer(self) -> None:
            """Answers one request by its path."""
            path = self.path.split("?")[0]
            name = path.removeprefix(f"/org/policy/resolve/{COMMIT}/")
            revision = path.removeprefix("/api/models/org/policy/revision/")
            if hub.refuses:
                self.refuse(*hub.refuses)
            elif revision in hub.revisions:
                self.send(json.dumps({"id": "org/policy", "sha": COMMIT, "siblings": []}).encode())
            elif revision != path:
                self.refuse(404, "RevisionNotFound")
            elif path == f"/api/models/org/policy/tree/{COMMIT}":
                self.send(json.dumps([_entry(*item) for item in files.items()]).encode())
            elif name in files and hub.gated:
                self.refuse(403, "GatedRepo")
            elif name in files:
                self.give(name)
            else:
                self.refuse(404, "EntryNotFound" if path.startswith("/org/policy/") else "RepoNotFound")

        def give(self, name: str) -> None:
            """Sends one file, or breaks the download where the hub's fields say so."""
            data, etag = files[name], f'"{_etag(name, files[name])}"'
            if self.command == "GET":
                hub.downloads.append(name)
            if asked := self.headers.get("Range"):
                hub.ranges.append(asked)
            if self.command == "HEAD" or name != hub.breaks:
                self.send(data, ETag=etag)
            elif hub.downloads.count(name) == 1:
                self.send(data, upto=hub.after, ETag=etag)
            elif hub.stays_broken:
                self.close_connection = True
            else:
                start = int((asked or "bytes=0-").removeprefix("bytes=").partition("-")[0])
                span = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"}
                self.send(data[start:], 206 if asked else 200, ETag=etag, **span)

        def refuse(self, status: int, code: str) -> None:
            """Answers with an error status and the hub's error code."""
            self.send(b"{}", status, **({"X-Error-Code": code} if code else {}))

        def send(self, body: bytes, status: int = 200, upto: int | None = None, **headers: str) -> None:
            """Answers with `body`; a body that is cut at `upto` ends the connection."""
            self.send_response(status)
            for key, value in {"X-Repo-Commit": COMMIT, "Content-Length": str(len(body)), **headers}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body[:upto])

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _entry(name: str, data: bytes) -> dict[str, Any]:
    """Returns a line of the list of files. Weights are large files, which the hub keeps and hashes separately."""
    lfs = {"oid": _etag(name, data), "size": len(data), "pointerSize": 134}
    more = {"lfs": lfs} if _is_large(name) else {}
    return {"type": "file", "path": name, "size": len(data), "oid": _git_hash(data), **more}


def _etag(name: str, data: bytes) -> str:
    return hashlib.sha256(data).hexdigest() if _is_large(name) else _git_hash(data)


def _is_large(name: str) -> bool:
    return name.endswith(".safetensors")


def _git_hash(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
