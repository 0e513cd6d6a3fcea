"""Fetching through the operator's HTTP proxy, never one the environment names.

A proxy changes who dials, and so who decides. Literal addresses, and the answers to names that can
be resolved here, are checked as without one, before the proxy is asked for them. But the proxy
resolves a name anew and dials what it then finds: a name that changes its answer, or one that only
the proxy can resolve, is for the proxy's own rules to refuse. Its own address is the operator's
word and is not checked.
"""

import re
import ssl

import httpcore2

from worker.errors import ErrorCode, Fault
from worker.fetch.dial import Budget, Check, GuardedBackend, GuardedStream, SocketOptions
from worker.fetch.resolve import Resolver

__all__ = ["ProxiedBackend", "parse_proxy"]

MAX_HEAD_BYTES = 16 * 1024
"""Longest answer to CONNECT."""

READ_BYTES = 4_096


def parse_proxy(url: str) -> tuple[str, int]:
    """The host and port of `http://host:port`.

    Raises:
        ValueError: for anything else; users and passwords as well.
    """
    match = re.fullmatch(r"http://(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9_.-]+)):([0-9]{1,5})/?", url)
    if match and 0 < int(match[3]) < 65_536:
        return match[1] or match[2], int(match[3])
    raise ValueError("FETCH_PROXY is not of the form http://host:port")


class ProxiedBackend(GuardedBackend):
    """Dials one proxy, whatever host is asked for.

    What is then sent in plain is for the proxy to forward: its requests name the whole URL
    (RFC 9112, 3.2.2). TLS begins behind a tunnel that CONNECT opens (RFC 9110, 9.3.6).
    """

    def __init__(
        self, proxy: tuple[str, int], check: Check, budget: Budget, resolver: Resolver
    ) -> None:
        super().__init__(check, budget, resolver)
        self._proxy = proxy

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: SocketOptions = None,
    ) -> httpcore2.NetworkStream:
        """Connect to the proxy, on behalf of `host`.

        Raises:
            Fault: url_blocked when an answer found here is forbidden; dns_failed when the proxy
                itself is not found; fetch_timeout.
            httpcore2.ConnectError, httpcore2.ConnectTimeout: when the proxy does not answer.
        """
        try:
            self.checked(host, port)
        except Fault as fault:
            if fault.code is not ErrorCode.DNS_FAILED:
                raise
        where, at = self._proxy
        addresses = self._resolver.addresses(where, at, self._budget.clip(None))
        stream = self.dial(addresses, at, timeout, local_address, socket_options)
        authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        return _ProxiedStream(stream, self._budget, authority.encode("ascii"))


class _ProxiedStream(GuardedStream):
    """A connection to a proxy that asks for a tunnel before TLS begins."""

    def __init__(self, stream: httpcore2.NetworkStream, budget: Budget, authority: bytes) -> None:
        super().__init__(stream, budget)
        self._authority = authority

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore2.NetworkStream:
        try:
            self._open_tunnel(timeout)
        except BaseException:
            self.close()
            raise
        return super().start_tls(ssl_context, server_hostname, timeout)

    def _open_tunnel(self, timeout: float | None) -> None:
        """Raises: httpcore2.ProxyError when the proxy refuses, or answers otherwise."""
        self.write(
            b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (self._authority, self._authority), timeout
        )
        head = b""
        while b"\r\n\r\n" not in head:
            piece = self.read(READ_BYTES, timeout)
            head += piece
            if not piece or len(head) > MAX_HEAD_BYTES:
                raise httpcore2.ProxyError("no answer to CONNECT")
        status = re.match(rb"HTTP/1\.[01] ([0-9]{3})[ \r]", head)
        if status is None or not status[1].startswith(b"2"):
            code = status[1].decode() if status else "no HTTP"
            raise httpcore2.ProxyError(f"CONNECT refused: {code}")
