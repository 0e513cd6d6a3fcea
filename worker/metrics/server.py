"""The HTTP server of one worker process: /metrics and /healthz, nothing else."""

import json
import logging
import sys
import threading
from collections.abc import Callable, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

__all__ = ["MetricsServer"]

log = logging.getLogger(__name__)

READ_S = 5.0
"""How long a request may take to come."""


class MetricsServer:
    """Answers from its construction to `close`.

    Args:
        faults: what is wrong with the process, a sentence each.
        ports: of processes beside it, which say the same of themselves.

    Raises:
        OSError: the port is taken, or the address is none of this machine's.
    """

    def __init__(
        self,
        host: str,
        port: int,
        registry: CollectorRegistry,
        faults: Callable[[], list[str]],
        ports: Sequence[int] = (),
    ) -> None:
        def metrics() -> tuple[HTTPStatus, str, bytes]:
            return HTTPStatus.OK, CONTENT_TYPE_PLAIN_0_0_4, generate_latest(registry)

        def health() -> tuple[HTTPStatus, str, bytes]:
            found = faults()
            status = HTTPStatus.SERVICE_UNAVAILABLE if found else HTTPStatus.OK
            said = "unhealthy" if found else "ok"
            body = {"status": said, "faults": found, "ports": list(ports)}
            return status, "application/json", json.dumps(body).encode()

        class Handler(_Handler):
            answers = {"/metrics": metrics, "/healthz": health}  # noqa: RUF012 - read alone

        self._server = _Server((host, port), Handler)
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="metrics", daemon=True
        )
        self._thread.start()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_address[1])

    def close(self) -> None:
        """Answer no more."""
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
        """Log what a request ended with; most of them have hung up."""
        gone = isinstance(sys.exception(), ConnectionError | TimeoutError)
        log.log(logging.DEBUG if gone else logging.ERROR, "no answer to a scrape", exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    answers: dict[str, Callable[[], tuple[HTTPStatus, str, bytes]]]
    timeout = READ_S
    server_version = "captionq"
    sys_version = ""

    def do_GET(self) -> None:
        answer = self.answers.get(self.path.partition("?")[0])
        if answer is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        status, kind, body = answer()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server's name
        """Nothing: it is asked every few seconds."""
