"""A web server on loopback that misbehaves as it is told."""

import http.server
import threading


class Server(http.server.ThreadingHTTPServer):
    """Serves `files`; `behaviour` is a list of what to do to the next answers."""

    daemon_threads = True

    def __init__(self, files):
        self.files, self.behaviour, self.ranges = files, [], []
        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        act = self.server.behaviour.pop(0) if self.server.behaviour else "serve"
        content = self.server.files.get(self.path)
        wanted = self.headers.get("Range")
        self.server.ranges.append(wanted)
        if content is None or isinstance(act, int):
            self.send_error(act if isinstance(act, int) else 404)
            return
        start = int(wanted.split("=")[1].rstrip("-")) if wanted and act != "ignore range" else 0
        if start >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        stop = start + (len(content) - start) // 2 if act in ("truncate", "stall") else len(content)
        self.wfile.write(content[start:stop])
        if act == "stall":
            self.wfile.flush()
            threading.Event().wait(1.0)

    def log_message(self, *arguments):
        pass
