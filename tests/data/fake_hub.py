"""A local fake of the Hugging Face hub: the few endpoints that its clients use, over plain HTTP."""

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, unquote, urlsplit

COMMIT = "5ca1ab1e" * 5

Repositories = dict[str, dict[str, bytes]]
"""Files of the single commit, by kind and name, as datasets/me/tales."""


@contextmanager
def fake_hub(repositories: Repositories) -> Iterator[str]:
    """Serve the repositories inside the context; yield the URL for HF_ENDPOINT."""

    class Handler(_Handler):
        pass

    Handler.repositories = repositories
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    repositories: Repositories

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if match := re.fullmatch(
            r"/api/(datasets|models)/(\w+/\w+)/(revision|tree|paths-info)/(\w+)/?(.*)", path
        ):
            self._api(*match.groups())
        elif match := re.fullmatch(r"/(datasets/)?(\w+/\w+)/resolve/(\w+)/(.+)", path):
            kind, name, commit, file = match.groups()
            self._file(f"{kind or 'models/'}{name}", commit, file)
        else:
            self._send_error("RepoNotFound")

    do_HEAD = do_POST = do_GET  # noqa: N815

    def _api(self, kind: str, name: str, what: str, commit: str, below: str) -> None:
        files = self._files(f"{kind}/{name}", commit)
        if files is None:
            return
        entries = [_entry(file, content) for file, content in files.items()]
        if what == "paths-info":
            body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
            wanted = json.loads(body)["paths"] if body.startswith("{") else [v for _, v in parse_qsl(body)]
            entries = [entry for entry in entries if entry["path"] in wanted]
        if what == "revision":
            siblings = [{"rfilename": file} for file in files]
            self._send(json.dumps({"id": name, "sha": commit, "siblings": siblings}).encode())
        else:
            self._send(json.dumps(entries if what == "paths-info" else _children(entries, below)).encode())

    def _file(self, repository: str, commit: str, file: str) -> None:
        files = self._files(repository, commit)
        if files is None:
            return
        if file not in files:
            self._send_error("EntryNotFound")
            return
        content, status, headers = files[file], 200, {}
        if match := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or ""):
            first, last = int(match[1]), int(match[2] or len(content) - 1)
            headers = {"Content-Range": f"bytes {first}-{last}/{len(content)}"}
            content, status = content[first : last + 1], 206
        etag = hashlib.sha1(files[file]).hexdigest()
        self._send(content, status, {**headers, "ETag": f'"{etag}"', "X-Repo-Commit": commit})

    def _files(self, repository: str, commit: str) -> dict[str, bytes] | None:
        if repository not in self.repositories:
            self._send_error("RepoNotFound")
        elif commit != COMMIT:
            self._send_error("RevisionNotFound")
        else:
            return self.repositories[repository]
        return None

    def _send_error(self, code: str) -> None:
        self._send(b"{}", 404, {"X-Error-Code": code})

    def _send(self, body: bytes, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


def _entry(file: str, content: bytes) -> dict[str, object]:
    return {"type": "file", "path": file, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}


def _children(entries: list[dict[str, object]], below: str) -> list[dict[str, object]]:
    """Return the direct children of a directory: its files, and entries for its directories."""
    found: dict[str, dict[str, object]] = {}
    prefix = f"{below}/" if below else ""
    for entry in entries:
        path = str(entry["path"])
        if path.startswith(prefix):
            name, slash, _ = path[len(prefix) :].partition("/")
            directory = {"type": "directory", "path": prefix + name, "oid": "0" * 40}
            found.setdefault(name, directory if slash else entry)
    return list(found.values())
