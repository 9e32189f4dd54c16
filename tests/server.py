"""A web server on loopback with scripted faults."""

import http.server
import threading


class Server(http.server.ThreadingHTTPServer):
    """Serve `files`. behaviour: the fault of each of the next responses; ranges: the Range headers of all requests."""

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
        action = self.server.behaviour.pop(0) if self.server.behaviour else "serve"
        content = self.server.files.get(self.path)
        requested = self.headers.get("Range")
        self.server.ranges.append(requested)
        if content is None or isinstance(action, int):
            self.send_error(action if isinstance(action, int) else 404)
            return
        start = int(requested.split("=")[1].rstrip("-")) if requested and action != "ignore range" else 0
        if start >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        stop = start + (len(content) - start) // 2 if action in ("truncate", "stall") else len(content)
        self.wfile.write(content[start:stop])
        if action == "stall":
            self.wfile.flush()
            threading.Event().wait(1.0)

    def log_message(self, *arguments):
        pass
