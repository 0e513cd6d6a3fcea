"""http:// and https:// from strangers: guarded addresses, bounded everything.

No cookies, no proxies from the environment, no redirects or decompression behind one's back. What
a server sends and a log is told are kept apart: it may repeat what it was asked, and the query of a
signed URL is a credential.
"""

import ssl
import time
from collections.abc import Collection
from datetime import UTC, datetime

import httpcore2

from producer.contract import public_uri
from worker.errors import ErrorCode, Fault
from worker.fetch.body import check_length, collect, gunzip
from worker.fetch.client import (
    BODY_CODES,
    MAX_HEAD_BYTES,
    USER_AGENT,
    GuardedClient,
    HttpLimits,
    mapped,
)
from worker.fetch.netguard import Allow
from worker.fetch.politeness import Politeness
from worker.fetch.reply import REDIRECTS, opted_out, refusal, retry_after_s
from worker.fetch.resolve import Lookup, lookup
from worker.fetch.url import Target, parse_url, redirect

__all__ = ["USER_AGENT", "HttpLimits", "HttpSource"]

MAX_FRAMING = 2
"""Bytes on the wire for each that a body may have: chunks of a few bytes are mostly framing."""

# Statuses whose Retry-After speaks for the whole host (RFC 6585, 4; RFC 9110, 15.6.4).
_BUSY = frozenset({429, 503})


class HttpSource:
    """Fetches over HTTP/1.1, from any number of threads.

    Args:
        limits: what a fetch may cost.
        allow: exceptions to the address rules; empty in production, unless the images lie on
            one's own network.
        user_agent: says who asks; its product name is what X-Robots-Tag may address.
        honour_opt_out: refuse images whose host answers `X-Robots-Tag: noai`.
        proxy: `http://host:port` that fetches go through; worker/fetch/proxy.py says what changes.
        ssl_context: trust; the system's by default.
        resolve: (host, port) -> addresses; a seam for tests.

    Raises:
        ValueError: for a proxy of another form.
    """

    def __init__(
        self,
        limits: HttpLimits | None = None,
        allow: Collection[Allow] = (),
        *,
        user_agent: str = USER_AGENT,
        honour_opt_out: bool = True,
        proxy: str | None = None,
        ssl_context: ssl.SSLContext | None = None,
        resolve: Lookup = lookup,
    ) -> None:
        self._limits = limits = limits or HttpLimits()
        self._honour_opt_out = honour_opt_out
        self._agent = user_agent.partition("/")[0]
        self._headers = [
            (b"User-Agent", user_agent.encode("ascii")),
            (b"Accept", b"image/*,*/*;q=0.5"),
            (b"Accept-Encoding", b"identity"),
        ]
        self._politeness = Politeness(limits.max_per_host)
        self._client = GuardedClient(
            limits, allow, proxy=proxy, ssl_context=ssl_context, resolve=resolve
        )

    def fetch(self, uri: str, deadline: float) -> bytes:
        """Return the body at `uri`; see `worker.fetch.Source`.

        Raises:
            Fault: url_invalid, url_blocked, dns_failed, connect_failed, tls_failed, http_4xx,
                http_5xx (with the server's Retry-After, or what is left of an earlier one),
                redirect_limit, source_opted_out, encoding_unsupported, body_too_large,
                body_incomplete, fetch_timeout, worker_overloaded (no connection became free, or
                no turn at the host).
        """
        target = parse_url(uri, self._client.ports)
        budget = self._client.budget
        with budget.until(min(deadline, time.monotonic() + self._limits.total_s)):
            for _ in range(self._limits.max_redirects + 1):
                # A redirect gives its host's place back before it waits for one at the next.
                with self._politeness.turn((target.host, target.port), budget.clip(None)):
                    answer = self._get(target)
                if isinstance(answer, bytes):
                    return answer
                target = answer
        raise Fault(ErrorCode.REDIRECT_LIMIT, f"more than {self._limits.max_redirects}")

    def close(self) -> None:
        """Close every connection."""
        self._client.close()

    def _get(self, target: Target) -> bytes | Target:
        """The body, or where a redirect leads."""
        response = self._client.request("GET", target, self._headers)
        try:
            return self._read(target, response)
        finally:
            response.close()

    def _read(self, target: Target, response: httpcore2.Response) -> bytes | Target:
        limits = self._limits

        def header(name: bytes) -> list[str]:
            return [v.decode("latin-1") for k, v in response.headers if k.lower() == name]

        if response.status in REDIRECTS and (location := header(b"location")):
            there = location[0].encode("latin-1").decode("utf-8", "replace")
            return redirect(target, there, self._client.ports)
        place = public_uri(target.url)  # the query of a signed URL is a credential
        if code := refusal(response.status):
            wait = None
            if code is ErrorCode.HTTP_5XX and (waits := header(b"retry-after")):
                wait = retry_after_s(waits[0], datetime.now(UTC), limits.max_retry_after_s)
            if wait and response.status in _BUSY:
                self._politeness.leave_alone((target.host, target.port), wait)
            raise Fault(code, f"{place}: {response.status}", wait)
        if self._honour_opt_out and opted_out(header(b"x-robots-tag"), self._agent):
            raise Fault(ErrorCode.SOURCE_OPTED_OUT, f"{place}: X-Robots-Tag")
        encoding = ",".join(header(b"content-encoding")).strip().lower()
        if encoding not in ("", "identity", "gzip", "x-gzip"):
            raise Fault(ErrorCode.ENCODING_UNSUPPORTED, f"{place}: {encoding[:20]!r}")
        # h11 has refused lengths that are not numbers, or that disagree.
        check_length(next(map(int, header(b"content-length")), None), limits.max_bytes)
        self._client.budget.grant(
            MAX_HEAD_BYTES + MAX_FRAMING * limits.max_bytes, ErrorCode.BODY_TOO_LARGE
        )
        with mapped(BODY_CODES, target):
            if encoding.endswith("gzip"):
                return collect(gunzip(response.iter_stream(), limits.max_bytes), limits.max_bytes)
            return collect(response.iter_stream(), limits.max_bytes)
