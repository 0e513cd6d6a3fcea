"""POSTs to strangers' servers: guarded as fetches are, redirects not followed, answers dropped."""

import ssl
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import NamedTuple

import httpcore2

from worker.errors import ErrorCode, Fault
from worker.fetch.client import BODY_CODES, MAX_HEAD_BYTES, USER_AGENT, GuardedClient, HttpLimits
from worker.fetch.netguard import Allow
from worker.fetch.reply import retry_after_s
from worker.fetch.resolve import Lookup, lookup
from worker.fetch.url import parse_url

__all__ = ["HttpPoster", "Posted"]

MAX_ANSWER_BYTES = 16 * 1024
"""Of an answer, read so that the connection can be used again. Of a longer one no more is read."""

MAX_RETRY_AFTER_S = 86_400.0


class Posted(NamedTuple):
    """What a server answered: a status, and how long it asks to be left alone."""

    status: int
    retry_after_s: float | None = None


class HttpPoster:
    """Posts over HTTP/1.1, from any number of threads.

    Args:
        total_s: for all of one exchange, seconds.
        allow, proxy, ssl_context, resolve: of `GuardedClient`.
        plain: whether http:// is allowed as well as https://.
    """

    def __init__(
        self,
        total_s: float = 15,
        allow: Collection[Allow] = (),
        *,
        plain: bool = False,
        user_agent: str = USER_AGENT,
        proxy: str | None = None,
        ssl_context: ssl.SSLContext | None = None,
        resolve: Lookup = lookup,
    ) -> None:
        self._total_s, self._plain = total_s, plain
        self._agent = user_agent.encode("ascii")
        limits = HttpLimits(idle_s=total_s, total_s=total_s)
        self._client = GuardedClient(
            limits, allow, proxy=proxy, ssl_context=ssl_context, resolve=resolve
        )

    def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Posted:
        """Send `body`, with these headers, and return how it was answered, whatever the status.

        Raises:
            Fault: url_invalid (also http:// where that is not allowed), url_blocked, dns_failed,
                connect_failed, tls_failed, fetch_timeout, worker_overloaded.
        """
        target = parse_url(url, self._client.ports)
        if target.scheme != "https" and not self._plain:
            raise Fault(ErrorCode.URL_INVALID, "it does not begin with https://")
        named = [(name.encode("ascii"), value.encode("ascii")) for name, value in headers.items()]
        length = (b"Content-Length", str(len(body)).encode("ascii"))
        budget = self._client.budget
        with budget.until(time.monotonic() + self._total_s):
            response = self._client.request(
                "POST", target, [(b"User-Agent", self._agent), length, *named], body
            )
            try:
                self._drop(response)
            finally:
                response.close()
        waits = [v.decode("latin-1") for k, v in response.headers if k.lower() == b"retry-after"]
        now = datetime.now(UTC)
        return Posted(
            response.status, retry_after_s(waits[0], now, MAX_RETRY_AFTER_S) if waits else None
        )

    def close(self) -> None:
        """Close every connection."""
        self._client.close()

    def _drop(self, response: httpcore2.Response) -> None:
        """Read a short answer to its end. The status has come: nothing can go wrong any more."""
        self._client.budget.grant(MAX_HEAD_BYTES, ErrorCode.BODY_TOO_LARGE)
        read = 0
        with suppress(Fault, *BODY_CODES):
            for piece in response.iter_stream():
                read += len(piece)
                if read > MAX_ANSWER_BYTES:
                    return
