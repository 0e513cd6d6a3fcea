"""uvicorn's HTTP protocol, with what it lacks: heads come in time, are no longer than allowed,
answers are taken in time, and what is no HTTP is answered as a problem."""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from producer.gateway.problems import Code, Problem

MAX_HEAD_BYTES = 32_768
"""Of a request's line and headers together."""


HEAD_TOO_LARGE = Problem(Code.HEAD_TOO_LARGE, f"At most {MAX_HEAD_BYTES} bytes are accepted.")


class Protocol(HttpToolsProtocol):
    """One connection. `head_timeout_s` and `send_timeout_s` are set on a subclass.

    The parser gathers a header until it ends, and skips what a chunk has besides: what has come
    since it last gave something is counted here.
    """

    head_timeout_s = 10.0
    send_timeout_s = 60.0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head_bytes = 0
        self._unread_bytes = 0
        self._head_timer: asyncio.TimerHandle | None = None
        self._send_timer: asyncio.TimerHandle | None = None
        self._refusal: Problem | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A head is due."""
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is due no more."""
        self._head_came()
        self._sent()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """So much of an answer waits for its receiver that it has to go on taking some."""
        super().pause_writing()
        self._send_timer = self.loop.call_later(self.send_timeout_s, self.transport.abort)

    def resume_writing(self) -> None:
        """The receiver has taken some."""
        self._sent()
        super().resume_writing()

    def timeout_keep_alive_handler(self) -> None:
        """Nothing more is asked; a receiver who has not taken the last answer yet never will."""
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        super().timeout_keep_alive_handler()

    def data_received(self, data: bytes) -> None:
        """A head is due as soon as a byte comes that belongs to no request that is answered."""
        if self._head_timer is None and (self.cycle is None or self.cycle.response_complete):
            self._await_head()
        self._unread_bytes += len(data)
        super().data_received(data)
        if self._unread_bytes > MAX_HEAD_BYTES + len(data):
            self._refuse(HEAD_TOO_LARGE)

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        self._unread_bytes = 0
        super().on_body(body)

    def on_message_begin(self) -> None:
        """A head begins."""
        self._head_bytes = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """A part of the request's line."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        self._count(len(name) + len(value) + 4)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head has come."""
        self._head_came()
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuse what the parser, or `_count`, would not take, and hang up."""
        self._refuse(self._refusal or Problem(Code.HTTP_ERROR, msg))

    def _count(self, size: int) -> None:
        self._head_bytes += size
        self._unread_bytes = 0
        if self._head_bytes > MAX_HEAD_BYTES:
            self._refusal = HEAD_TOO_LARGE
            raise ValueError("the head is too large")  # the parser stops, and calls the above

    def _await_head(self) -> None:
        self._head_timer = self.loop.call_later(self.head_timeout_s, self._too_slow)

    def _head_came(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _sent(self) -> None:
        if self._send_timer is not None:
            self._send_timer.cancel()
            self._send_timer = None

    def _too_slow(self) -> None:
        self._head_timer = None
        seconds = f"The request's head did not come within {self.head_timeout_s:g} s."
        self._refuse(Problem(Code.BODY_TIMEOUT, seconds))

    def _refuse(self, problem: Problem) -> None:
        if self.transport.is_closing():
            return
        if self.cycle is None or self.cycle.response_complete:  # else an answer is under way
            response = problem.response()
            headers = [*response.raw_headers, (b"connection", b"close")]
            lines = b"".join(b"%b: %b\r\n" % header for header in headers)
            self.transport.write(
                STATUS_LINE[problem.status] + lines + b"\r\n" + bytes(response.body)
            )
        self.transport.close()


def protocol(head_timeout_s: float, send_timeout_s: float) -> type[Protocol]:
    """The protocol with these time-outs, in seconds."""
    bounds = {"head_timeout_s": head_timeout_s, "send_timeout_s": send_timeout_s}
    return type("Protocol", (Protocol,), bounds)
