"""A web server of this machine that tests download from: it can break connections and ignore ranges."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar


class Server(BaseHTTPRequestHandler):
    """Serves `files` by name; breaks the connection after `breaks[0]` bytes of an answer, once an entry."""

    files: ClassVar[dict[str, bytes]]
    breaks: ClassVar[list[int]]
    asked: ClassVar[list[str | None]]
    ranges = True

    def do_GET(self) -> None:
        kind = type(self)
        kind.asked.append(self.headers["Range"])
        content = kind.files.get(self.path.rpartition("/")[2])
        if content is None:
            self.send_error(404)
            return
        start = int((self.headers["Range"] or "bytes=0-")[6:-1]) if kind.ranges else 0
        if start >= len(content):
            self.send_error(416)
            return
        body = content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: kind.breaks.pop(0)] if kind.breaks else body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def serving(**files: bytes) -> Iterator[tuple[type[Server], str]]:
    """The server with these files, and its address."""

    class Own(Server):
        breaks: ClassVar[list[int]] = []
        asked: ClassVar[list[str | None]] = []

    Own.files = files
    http = ThreadingHTTPServer(("127.0.0.1", 0), Own)
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    try:
        yield Own, f"http://127.0.0.1:{http.server_port}/weights/"
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
