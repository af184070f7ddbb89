"""A hub of one data set on this machine: as much of its protocol as `datasets` needs to stream parquet files."""

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

SHA = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def serve(folder: Path, name: str) -> Iterator[tuple[str, list[str]]]:
    """Serves `folder` as the data set `name`; yields the address and the list of requests so far."""
    requests: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            """Nothing is written to the terminal."""

        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            body = self.rfile.read(length).decode()
            wanted = json.loads(body)["paths"] if body.startswith("{") else parse_qs(body)["paths"]
            requests.append(self.path)
            self._json([entry for entry in self._entries() if entry["path"] in wanted])

        def do_HEAD(self) -> None:
            self._answer()

        def do_GET(self) -> None:
            self._answer()

        def _answer(self) -> None:
            path = unquote(urlsplit(self.path).path)
            requests.append(f"{self.command} {path}")
            if re.fullmatch(rf"/api/datasets/{name}(/revision/[^/]+)?", path):
                self._json({"id": name, "sha": SHA, "siblings": [{"rfilename": e["path"]} for e in self._entries()]})
            elif path.startswith(f"/api/datasets/{name}/tree/"):
                below = path.split("/tree/")[1].partition("/")[2]
                self._json([entry for entry in self._entries() if entry["path"].startswith(below)])
            elif path.startswith(f"/datasets/{name}/resolve/"):
                self._file(folder / path.split("/resolve/")[1].partition("/")[2])
            else:
                self._json({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})

        def _entries(self) -> list[dict[str, object]]:
            files = sorted(path for path in folder.rglob("*") if path.is_file())
            return [
                {
                    "type": "file",
                    "oid": hashlib.sha1(path.read_bytes()).hexdigest(),
                    "size": path.stat().st_size,
                    "path": str(path.relative_to(folder)),
                }
                for path in files
            ]

        def _file(self, path: Path) -> None:
            if not path.is_file():
                self._json({"error": "Entry not found"}, 404, {"X-Error-Code": "EntryNotFound"})
                return
            content = path.read_bytes()
            status, headers = 200, {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": SHA}
            if wanted := self.headers.get("Range"):
                begin, _, end = wanted.removeprefix("bytes=").partition("-")
                last = min(int(end), len(content) - 1) if end else len(content) - 1
                headers["Content-Range"] = f"bytes {begin}-{last}/{len(content)}"
                status, content = 206, content[int(begin) : last + 1]
            self._send(status, content, headers)

        def _json(self, value: object, status: int = 200, headers: dict[str, str] | None = None) -> None:
            self._send(status, json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})})

        def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for key, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", requests
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
