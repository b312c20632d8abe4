"""A server that speaks as much of the Hugging Face Hub's protocol as huggingface_hub asks for, on this machine."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef" * 2 + "01234567"


@dataclass
class Hub:
    """repos: files of each repository. gated: those that need the token. cut: names of files whose next answers end in
    their middle. damaged: names of files that arrive with another last byte."""

    repos: dict[str, dict[str, bytes]]
    gated: set[str] = field(default_factory=set)
    token: str = "hf_secret"
    cut: list[str] = field(default_factory=list)
    damaged: set[str] = field(default_factory=set)
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    """Method, path and range of each request."""
    endpoint: str = ""

    @property
    def fetched(self) -> list[str]:
        """Names of the files that were asked for, with a range where there was one."""
        gets = [(path, span) for method, path, span in self.asked if method == "GET" and "/resolve/" in path]
        return [path.rsplit("/", 1)[1] + (f" {span}" if span else "") for path, span in gets]


@contextlib.contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    class Handler(_Handler):
        of = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    hub.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


class _Handler(BaseHTTPRequestHandler):
    of: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(is_head=True)

    def do_GET(self) -> None:
        self._answer(is_head=False)

    def _answer(self, is_head: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        self.of.asked.append((self.command, path, self.headers.get("Range", "")))
        api = re.fullmatch(r"/api/models/([^/]+/[^/]+)(/tree/[^/]+|/revision/[^/]+)?", path)
        file = re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", path)
        repo = (api or file)[1] if api or file else ""  # type: ignore[index]
        if repo not in self.of.repos:
            self._error(
                401 if self.headers.get("Authorization") is None else 404, "RepoNotFound", "Repository Not Found"
            )
        elif repo in self.of.gated and self.headers.get("Authorization") != f"Bearer {self.of.token}":
            self._error(403 if self.headers.get("Authorization") else 401, "GatedRepo", "Access is restricted")
        elif api and (api[2] or "").startswith("/tree/"):
            self._json([_entry(name, data) for name, data in self.of.repos[repo].items()], is_head)
        elif api:
            siblings = [{"rfilename": name} for name in self.of.repos[repo]]
            self._json({"id": repo, "modelId": repo, "sha": COMMIT, "siblings": siblings, "private": False}, is_head)
        elif file and file[2] in self.of.repos[repo]:
            self._file(file[2], self.of.repos[repo][file[2]], is_head)
        else:
            self._error(404, "EntryNotFound", "Entry not found")

    def _file(self, name: str, data: bytes, is_head: bool) -> None:
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        begin = int(span[1]) if span else 0
        body = data[:-1] + bytes([data[-1] ^ 1]) if name in self.of.damaged else data
        self.send_response(206 if span else 200)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{_digest(data)}"')
        self.send_header("X-Linked-Size", str(len(data)))
        self.send_header("Accept-Ranges", "bytes")
        if span:
            self.send_header("Content-Range", f"bytes {begin}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - begin))
        self.end_headers()
        if is_head:
            return
        if name in self.of.cut:
            self.of.cut.remove(name)
            self.wfile.write(body[begin : begin + len(data) // 2])
            self.wfile.flush()
            self.close_connection = True
            return
        self.wfile.write(body[begin:])

    def _json(self, value: object, is_head: bool) -> None:
        data = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if not is_head:
            self.wfile.write(data)

    def _error(self, status: int, code: str, text: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", text)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        pass


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _entry(name: str, data: bytes) -> dict[str, object]:
    lfs = {"oid": _digest(data), "size": len(data), "pointerSize": 130}
    return {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest(), "lfs": lfs}
