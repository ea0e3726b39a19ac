"""A hub on this machine with one repository, for the real client: the three requests of a snapshot's download."""

import contextlib
import hashlib
import http.server
import json
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

COMMIT = "c0ffee" * 6 + "c0ff"


@dataclass
class Hub:
    """`files` is what the repository `org/policy` holds; `downloads` the names asked for so far."""

    files: Mapping[str, bytes]
    address: str = ""
    downloads: list[str] = field(default_factory=list)


@contextlib.contextmanager
def serve(files: Mapping[str, bytes]) -> Iterator[Hub]:
    """Serves until the block ends."""
    hub = Hub(files)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer()

        def do_GET(self) -> None:
            self.answer()

        def answer(self) -> None:
            path = self.path.split("?")[0]
            name = path.removeprefix(f"/org/policy/resolve/{COMMIT}/")
            if path.startswith("/api/models/org/policy/revision/"):
                self.send(json.dumps({"id": "org/policy", "sha": COMMIT, "siblings": []}).encode())
            elif path == f"/api/models/org/policy/tree/{COMMIT}":
                tree = [
                    {"type": "file", "path": name, "size": len(data), "oid": _oid(data)} for name, data in files.items()
                ]
                self.send(json.dumps(tree).encode())
            elif name in files:
                if self.command == "GET":
                    hub.downloads.append(name)
                self.send(files[name], ETag=f'"{_oid(files[name])}"')
            else:
                self.send(b"{}", 404)

        def send(self, body: bytes, status: int = 200, **headers: str) -> None:
            self.send_response(status)
            for key, value in {"X-Repo-Commit": COMMIT, "Content-Length": str(len(body)), **headers}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

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


def _oid(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()
