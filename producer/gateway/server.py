"""The gateway as a process: where it listens, and how it ends."""

import gc
import logging
import os
import resource
import signal
import socket
from collections.abc import Callable
from contextlib import suppress

import uvicorn
from fastapi import FastAPI

from producer.gateway.protocol import protocol
from producer.gateway.service import Service
from producer.loopback import is_loopback

GRACE_S = 10
"""How long requests that are under way at the end are waited for, in seconds."""

KEEP_ALIVE_S = 60
BACKLOG = 2_048

_log = logging.getLogger("captionq.gateway")


class OpenToOthers(ValueError):  # noqa: N818 - that is what it is
    """Without API keys, and on an address that other machines reach."""


class GatewayServer(uvicorn.Server):
    """Says where it listens; at the end, streams of events are ended first."""

    def __init__(self, config: uvicorn.Config, app: FastAPI, say: Callable[[str], None]) -> None:
        super().__init__(config)
        self._service: Service = app.state.service
        self._say = say

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say where."""
        await super().startup(sockets)
        if self.started:
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            shown = f"[{host}]" if ":" in host else host
            self._say(f"http://{shown}:{port}")

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no more, tell the streams, answer what is under way."""
        self._service.leave()
        await super().shutdown(sockets)


def serve(app: FastAPI, host: str, port: int, say: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT. `say` is told the URL once requests are taken.

    Raises:
        SystemExit: the port is taken, or the app does not start.
    """
    _many_files()
    gc.collect()
    gc.freeze()  # what lives as long as the process: else a full collection stops it for 0.1 s
    service: Service = app.state.service
    config = uvicorn.Config(
        app,
        host,
        port,
        http=protocol(service.settings.head_timeout_s, service.settings.send_timeout_s),
        loop="uvloop",
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        log_level="warning",
        server_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=GRACE_S,
    )
    signal.signal(signal.SIGTERM, lambda *_: None)  # uvicorn's own is in its place meanwhile
    with suppress(KeyboardInterrupt):
        GatewayServer(config, app, say).run()
    if service.uploads.writing:  # Python would wait for these threads as long as S3 takes
        _log.warning("Uploads were being written at the end: something of them may be left")
        logging.shutdown()
        os._exit(0)


def check_exposure(host: str, has_keys: bool, allowed: bool) -> None:
    """Refuse to let other machines in without keys.

    Raises:
        OpenToOthers: what to do instead.
    """
    if not (has_keys or allowed or is_loopback(host)):
        raise OpenToOthers(
            f"Without API keys the gateway serves this machine alone, not {host}: make a key with "
            "'captionq keys new NAME' and set CAPTIONQ_API_KEYS, or give --without-keys."
        )


def _many_files() -> None:
    """Each stream of events is a connection: allow as many as the system lets us."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
