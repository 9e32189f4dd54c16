"""A server on loopback with the part of the Hugging Face hub's API that a download uses."""

import http.server
import json
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def etag_of(name: str) -> str:
    return f"{zlib.crc32(name.encode()):040x}"


class HubServer(http.server.ThreadingHTTPServer):
    """Serve repositories: {owner/name: {file: content}}. gated: those whose files it refuses. requests: all paths."""

    daemon_threads = True

    def __init__(self, repositories: dict[str, dict[str, bytes]]):
        self.repositories, self.gated, self.requests = repositories, set(), []
        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextmanager
def serve_hub(repositories: dict[str, dict[str, bytes]]) -> Iterator[HubServer]:
    server = HubServer(repositories)
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.respond(body=False)

    def do_GET(self):
        self.respond(body=True)

    def respond(self, body):
        self.server.requests.append(self.path)
        content, etag = None, None
        for repository, files in self.server.repositories.items():
            api = f"/api/models/{repository}"
            if self.path.startswith(f"{api}/tree"):
                entries = [dict(type="file", path=n, size=len(c), oid=etag_of(n)) for n, c in files.items()]
                content = json.dumps(entries).encode()
            elif self.path == api or self.path.startswith((f"{api}/", f"{api}?")):
                siblings = [{"rfilename": name} for name in files]
                content = json.dumps({"id": repository, "sha": COMMIT, "siblings": siblings, "private": False}).encode()
            elif self.path.startswith(f"/{repository}/resolve/"):
                if repository in self.server.gated:
                    return self.refuse(401, "GatedRepo")
                name = self.path.rpartition("/")[2]
                content, etag = files.get(name), f'"{etag_of(name)}"'
        if content is None:
            return self.refuse(404, "RepoNotFound")
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("X-Repo-Commit", COMMIT)
        if etag:
            self.send_header("ETag", etag)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def refuse(self, status, code):
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *arguments):
        pass
