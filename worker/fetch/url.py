"""http and https URLs, parsed once, into what is dialled and asked for.

Two parsers that disagree are how address rules are passed by: nothing else here reads a URL.
"""

import re
import unicodedata
from collections.abc import Collection
from dataclasses import dataclass
from ipaddress import IPv6Address
from urllib.parse import quote, urljoin

from worker.errors import ErrorCode, Fault
from worker.fetch.hostname import ascii_host

__all__ = ["WEB_PORTS", "Target", "parse_url", "redirect"]

MAX_URL_CHARS = 2_048
WEB_PORTS = frozenset({80, 443})

# RFC 3986, appendix B, narrowed to what is served here.
_URL = re.compile(
    r"(?P<scheme>https?)://"
    r"(?:\[(?P<v6>[0-9a-f:.]+)\]|(?P<name>[^\[\]:/?#@%]+))"
    r"(?::(?P<port>[0-9]{1,5})?)?"
    r"(?P<path>/[^?#]*)?(?P<query>\?[^#]*)?(?:#.*)?",
    re.IGNORECASE | re.ASCII,
)
_ASCII_PRINTABLE = "".join(map(chr, range(0x21, 0x7F)))
# Controls, surrogates and spaces, and what is not seen (RFC 3987, 4.1), but for the joiners that
# Persian, Indic scripts and emoji are written with.
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp", "Zs"})
_JOINERS = "\u200c\u200d"


@dataclass(frozen=True, slots=True)
class Target:
    """A parsed URL. `host` is a name in A-label form or an address, without brackets."""

    scheme: str
    host: str
    port: int
    path: str  # with its query, percent-encoded ASCII, never empty

    @property
    def authority(self) -> str:
        """The Host header's value (RFC 9110, 7.2): the port only where it is not the default."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        default = {"http": 80, "https": 443}[self.scheme]
        return host if self.port == default else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """The URL again, without its fragment."""
        return f"{self.scheme}://{self.authority}{self.path}"


def parse_url(url: str, ports: Collection[int] | None = WEB_PORTS) -> Target:
    """Parse an http or https URL, once, into what will be dialled and asked for.

    Args:
        url: any text.
        ports: the ports a URL may name; None for every port.

    Raises:
        Fault: url_invalid for what is not such a URL, and for what only disguises use:
            user names, backslashes, spaces, control characters, a percent sign in the host,
            addresses written as one number, more than 2,048 characters.
    """
    if len(url) > MAX_URL_CHARS or not _plain(url):
        raise Fault(ErrorCode.URL_INVALID, "too long, or holds spaces, controls or backslashes")
    match = _URL.fullmatch(url)
    if match is None:
        raise Fault(ErrorCode.URL_INVALID, "not an http URL of host, port and path alone")
    scheme = match["scheme"].lower()
    port = int(match["port"]) if match["port"] else {"http": 80, "https": 443}[scheme]
    if not 0 < port < 65_536 or (ports is not None and port not in ports):
        raise Fault(ErrorCode.URL_INVALID, f"port {port} is not among those fetched from")
    path = (match["path"] or "/") + (match["query"] or "")
    host = _v6_literal(match["v6"]) if match["v6"] else ascii_host(match["name"])
    # Letters beyond ASCII become percent-encoded UTF-8 (RFC 3987, 3.1); the rest stays as it is.
    return Target(scheme, host, port, quote(path, safe=_ASCII_PRINTABLE))


def redirect(source: Target, location: str, ports: Collection[int] | None = WEB_PORTS) -> Target:
    """Where a redirect from `source` leads; a relative location is resolved (RFC 9110, 10.2.2).

    Raises:
        Fault: url_invalid as `parse_url`; redirect_limit from https to http.
    """
    if not _plain(location):  # urljoin would drop what parse_url refuses
        raise Fault(ErrorCode.URL_INVALID, "the redirect holds spaces, controls or backslashes")
    try:
        joined = urljoin(source.url, location)
    except ValueError as exc:
        raise Fault(ErrorCode.URL_INVALID, "the redirect is no URL") from exc
    target = parse_url(joined, ports)
    if source.scheme == "https" and target.scheme == "http":
        raise Fault(ErrorCode.REDIRECT_LIMIT, "from https to http")
    return target


def _plain(text: str) -> bool:
    """Whether nothing in a URL is hidden, blank or a backslash."""
    if " " in text or "\\" in text:
        return False
    if text.isascii():
        return text.isprintable()
    return all(unicodedata.category(c) not in _UNSEEN or c in _JOINERS for c in text)


def _v6_literal(text: str) -> str:
    try:
        return str(IPv6Address(text))
    except ValueError as exc:
        raise Fault(ErrorCode.URL_INVALID, "not an IPv6 address") from exc
