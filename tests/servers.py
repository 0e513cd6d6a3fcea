"""A real HTTP server that answers from a script, so that clients are tried on real sockets.

with ScriptedHttp({"/a.png": [Reply(503), Reply(503), Reply(200, body)]}) as server:
    server.url("/a.png")
    server.hits("/a.png")
"""

import contextlib
import gzip
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self


@dataclass(frozen=True)
class Reply:
    """One answer.

    `headers` replace those sent by default: Content-Length, and Content-Encoding with `gzip`.
    """

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    gzip: bool = False
    """Compress the body and say so."""
    delay_s: float = 0
    """Wait before the first byte."""
    drip_s: float = 0
    """Send head and body byte by byte, this long apart."""
    truncate_at: int | None = None
    """Declare the whole body, send this much of it and hang up."""
    chunked: bool = False
    """Declare no length."""
    hang_up: bool = False
    """Close the connection without a word."""


@dataclass(frozen=True)
class Seen:
    """One request as it came."""

    method: str
    path: str
    """With its query."""
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes
    peer_port: int
    """The client's: the same for all requests of one connection."""


class ScriptedHttp:
    """Serves 127.0.0.1 and a free port. Every route answers its replies in turn, then the last
    of them for ever; a path without a route is a 404. Routes may be changed while it runs.

    `tls` makes it https.
    """

    def __init__(
        self, routes: Mapping[str, Sequence[Reply]] = {}, *, tls: ssl.SSLContext | None = None
    ) -> None:
        self.routes = dict(routes)
        self.requests: list[Seen] = []
        self.stopping = threading.Event()
        self._hits: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._tls = tls
        self._server = _Server(self)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )
        self._thread.start()

    def url(self, path: str = "/", host: str = "127.0.0.1") -> str:
        return f"{'https' if self._tls else 'http'}://{host}:{self.port}{path}"

    def hits(self, path: str | None = None) -> int:
        """Requests that came for a path, whatever its query; for all when None."""
        with self._lock:
            return self._hits.total() if path is None else self._hits[path]

    def stop(self) -> None:
        self.stopping.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def reply_to(self, request: Seen) -> Reply:
        path = request.path.partition("?")[0]
        with self._lock:
            self.requests.append(request)
            turn = self._hits[path]
            self._hits[path] += 1
            replies = self.routes.get(request.path) or self.routes.get(path) or [Reply(404)]
            return replies[min(turn, len(replies) - 1)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, script: ScriptedHttp) -> None:
        self.script = script
        self._sockets: set[socket.socket] = set()
        super().__init__(("127.0.0.1", 0), _Handler)

    def finish_request(self, request: Any, client_address: Any) -> None:
        """In the connection's own thread: a slow handshake or client holds up nobody else."""
        self._sockets.add(request)
        with contextlib.suppress(OSError):
            if self.script._tls is None:
                super().finish_request(request, client_address)
            else:
                with self.script._tls.wrap_socket(request, server_side=True) as secured:
                    super().finish_request(secured, client_address)
        self._sockets.discard(request)

    def server_close(self) -> None:
        for connection in list(self._sockets):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        super().server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients hang up in these tests; nobody wants to read of it."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def _answer(self) -> None:
        script = self.server.script
        length = int(self.headers.get("Content-Length", 0))
        reply = script.reply_to(
            Seen(
                self.command,
                self.path,
                {name.lower(): value for name, value in self.headers.items()},
                self.rfile.read(length),
                self.client_address[1],
            )
        )
        script.stopping.wait(reply.delay_s)
        if reply.hang_up:
            self.close_connection = True
            return
        body = gzip.compress(reply.body) if reply.gzip else reply.body
        headers = {"Content-Encoding": "gzip"} if reply.gzip else {}
        if reply.chunked:
            headers["Transfer-Encoding"] = "chunked"
        elif reply.status >= 200 and reply.status not in (204, 304):
            headers["Content-Length"] = str(len(body))
        headers |= reply.headers
        head = f"HTTP/1.1 {reply.status} Scripted\r\n" + "".join(
            f"{name}: {value}\r\n" for name, value in headers.items()
        )
        sent = body if reply.truncate_at is None else body[: reply.truncate_at]
        if reply.chunked:
            sent = b"%x\r\n%b\r\n" % (len(sent), sent) if sent else b""
            sent += b"" if reply.truncate_at is not None else b"0\r\n\r\n"
        if self.command == "HEAD":
            sent = b""
        self._send(head.encode("latin-1") + b"\r\n" + sent, reply.drip_s)
        if reply.truncate_at is not None:
            self.close_connection = True

    def _send(self, data: bytes, drip_s: float) -> None:
        if not drip_s:
            self.wfile.write(data)
            return
        for byte in data:
            if self.server.script.stopping.wait(drip_s):
                return
            self.wfile.write(bytes([byte]))

    do_GET = do_HEAD = do_POST = do_PUT = _answer  # noqa: N815 - the names http.server calls

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def deadline(seconds: float = 5) -> float:
    """A deadline for a fetch, so many seconds from now."""
    return time.monotonic() + seconds
