"""Which URLs and addresses a fetch may touch: rules only, no sockets.

A URL is parsed once, here, and the parts are what is dialled: two parsers that disagree are how
such guards are passed by. The address rules are explicit networks from the IANA special-purpose
registries (RFC 6890 and its successors) and not `ipaddress.is_global`, which is true for
multicast, NAT64, 6to4 and `::127.0.0.1`.
"""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from urllib.parse import quote, urljoin

import idna

from worker.errors import ErrorCode, Fault

__all__ = ["WEB_PORTS", "Allow", "Target", "check_address", "parse_allow", "parse_url", "redirect"]

MAX_URL_CHARS = 2_048
WEB_PORTS = frozenset({80, 443})

_V4_DENIED = tuple(
    IPv4Network(network)
    for network in (
        "0.0.0.0/8",  # this network, RFC 791
        "10.0.0.0/8",  # private, RFC 1918
        "100.64.0.0/10",  # carrier-grade NAT, RFC 6598
        "127.0.0.0/8",  # loopback, RFC 1122
        "168.63.129.16/32",  # Azure's host agent: a public address that is none
        "169.254.0.0/16",  # link local and cloud metadata, RFC 3927
        "172.16.0.0/12",  # private, RFC 1918
        "192.0.0.0/24",  # IETF protocol assignments, RFC 6890
        "192.0.2.0/24",  # documentation, RFC 5737
        "192.31.196.0/24",  # AS112, RFC 7535
        "192.52.193.0/24",  # AMT, RFC 7450
        "192.88.99.0/24",  # 6to4 relays, RFC 7526
        "192.168.0.0/16",  # private, RFC 1918
        "192.175.48.0/24",  # AS112, RFC 7534
        "198.18.0.0/15",  # benchmarks, RFC 2544
        "198.51.100.0/24",  # documentation, RFC 5737
        "203.0.113.0/24",  # documentation, RFC 5737
        "224.0.0.0/4",  # multicast, RFC 5771
        "240.0.0.0/4",  # reserved and broadcast, RFC 1112
    )
)
_V6_UNICAST = IPv6Network("2000::/3")  # all that IANA gives out, RFC 4291
_V6_DENIED = tuple(
    IPv6Network(network)
    for network in (
        "2001::/23",  # IETF protocol assignments (ORCHID, benchmarks, AMT), RFC 2928
        "2001:db8::/32",  # documentation, RFC 3849
        "2620:4f:8000::/48",  # AS112, RFC 7534
        "3fff::/20",  # documentation, RFC 9637
    )
)
_MAPPED = IPv6Network("::ffff:0:0/96")  # RFC 4291
_COMPATIBLE = IPv6Network("::/96")  # RFC 4291, deprecated
_NAT64 = IPv6Network("64:ff9b::/96")  # RFC 6052
_6TO4 = IPv6Network("2002::/16")  # RFC 3056
_TEREDO = IPv6Network("2001::/32")  # RFC 4380
_ISATAP = (0x0000_5EFE, 0x0200_5EFE)  # upper half of the interface identifier, RFC 5214

# RFC 3986, appendix B, narrowed to what is served here.
_URL = re.compile(
    r"(?P<scheme>https?)://"
    r"(?:\[(?P<v6>[0-9a-f:.]+)\]|(?P<name>[^\[\]:/?#@%]+))"
    r"(?::(?P<port>[0-9]{1,5})?)?"
    r"(?P<path>/[^?#]*)?(?P<query>\?[^#]*)?(?:#.*)?",
    re.IGNORECASE | re.ASCII,
)
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_ASCII_PRINTABLE = "".join(map(chr, range(0x21, 0x7F)))


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


@dataclass(frozen=True, slots=True)
class Allow:
    """An exception to the address rules: a network, and the ports it holds for (None: any)."""

    network: IPv4Network | IPv6Network
    ports: frozenset[int] | None = WEB_PORTS


def parse_allow(entry: str) -> Allow:
    """Parse one entry of FETCH_ALLOW: `10.0.0.0/8`, `127.0.0.1/32:8080`, `[fd00::/8]:*`.

    Without a port the entry holds for 80 and 443; `*` stands for every port.

    Raises:
        ValueError: with the entry, for a setting that must not pass.
    """
    bracketed = re.fullmatch(r"\[([^\]]+)\](?::(\*|[0-9]{1,5}))?", entry)
    plain = re.fullmatch(r"([0-9./]+)(?::(\*|[0-9]{1,5}))?", entry)
    match = bracketed or plain
    network, port = (match[1], match[2]) if match else (entry, None)
    try:
        parsed = ip_network(network)
    except ValueError as exc:
        raise ValueError(f"FETCH_ALLOW: {entry!r} is not a network like 10.0.0.0/8:8080") from exc
    if port is None:
        return Allow(parsed)
    if port != "*" and not 0 < int(port) < 65_536:
        raise ValueError(f"FETCH_ALLOW: {entry!r} names no port")
    return Allow(parsed, None if port == "*" else frozenset({int(port)}))


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
    if len(url) > MAX_URL_CHARS or not url.isprintable() or " " in url or "\\" in url:
        raise Fault(ErrorCode.URL_INVALID, "too long, or holds spaces, controls or backslashes")
    match = _URL.fullmatch(url)
    if match is None:
        raise Fault(ErrorCode.URL_INVALID, "not an http URL of host, port and path alone")
    scheme = match["scheme"].lower()
    port = int(match["port"]) if match["port"] else {"http": 80, "https": 443}[scheme]
    if not 0 < port < 65_536 or (ports is not None and port not in ports):
        raise Fault(ErrorCode.URL_INVALID, f"port {port} is not among those fetched from")
    path = (match["path"] or "/") + (match["query"] or "")
    host = _v6_literal(match["v6"]) if match["v6"] else _host(match["name"])
    # Letters beyond ASCII become percent-encoded UTF-8 (RFC 3987, 3.1); the rest stays as it is.
    return Target(scheme, host, port, quote(path, safe=_ASCII_PRINTABLE))


def redirect(source: Target, location: str, ports: Collection[int] | None = WEB_PORTS) -> Target:
    """Where a redirect from `source` leads; a relative location is resolved (RFC 9110, 10.2.2).

    Raises:
        Fault: url_invalid as `parse_url`; redirect_limit from https to http.
    """
    if not location.isprintable():  # urljoin would drop what parse_url refuses
        raise Fault(ErrorCode.URL_INVALID, "the redirect holds control characters")
    try:
        joined = urljoin(source.url, location)
    except ValueError as exc:
        raise Fault(ErrorCode.URL_INVALID, "the redirect is no URL") from exc
    target = parse_url(joined, ports)
    if source.scheme == "https" and target.scheme == "http":
        raise Fault(ErrorCode.REDIRECT_LIMIT, "from https to http")
    return target


def _v6_literal(text: str) -> str:
    try:
        return str(IPv6Address(text))
    except ValueError as exc:
        raise Fault(ErrorCode.URL_INVALID, "not an IPv6 address") from exc


def _host(name: str) -> str:
    host = name.lower()
    if not host.isascii():
        try:
            host = idna.encode(name, uts46=True, std3_rules=True).decode("ascii")
        except UnicodeError as exc:
            raise Fault(ErrorCode.URL_INVALID, "not an internationalised host name") from exc
    host = host.removesuffix(".")  # RFC 6066: server names in TLS carry no trailing dot
    labels = host.split(".")
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise Fault(ErrorCode.URL_INVALID, "not a host name")
    # As browsers do (WHATWG URL, "ends in a number"): 2130706433, 0x7f.1 and 127.1 are spellings
    # of 127.0.0.1 to some resolvers and names to others.
    if re.fullmatch(r"[0-9]+|0x[0-9a-f]*", labels[-1]):
        try:
            return str(IPv4Address(host))
        except ValueError as exc:
            raise Fault(ErrorCode.URL_INVALID, "not a dotted IPv4 address") from exc
    return host


def check_address(
    address: str,
    port: int = 443,
    allow: Collection[Allow] = (),
    ports: Collection[int] = WEB_PORTS,
) -> None:
    """Pass an address that may be dialled on `port`.

    Args:
        address: as getaddrinfo gives it.
        port: what will be dialled.
        allow: exceptions, for tests and for stores inside one's own network.
        ports: the ports of public addresses.

    Raises:
        Fault: url_blocked, the same for a literal and for a name's answer.
    """
    try:
        ip = ip_address(address)
    except ValueError as exc:
        raise Fault(ErrorCode.URL_BLOCKED, f"{address!r} is not an address") from exc
    if isinstance(ip, IPv6Address) and ip in _MAPPED:
        ip = IPv4Address(int(ip) & 0xFFFF_FFFF)
    for exception in allow:
        right_port = exception.ports is None or port in exception.ports
        if (
            right_port and ip in exception.network
        ):  # an address is in no network of the other family
            return
    if port not in ports or _denied(ip):
        raise Fault(ErrorCode.URL_BLOCKED, f"{address} port {port} is not a public web server's")


def _denied(ip: IPv4Address | IPv6Address) -> bool:
    if isinstance(ip, IPv4Address):
        return any(ip in network for network in _V4_DENIED)
    embedded = list(_embedded(ip))
    if any(map(_denied, embedded)):
        return True
    if embedded and (ip in _NAT64 or ip in _6TO4 or ip in _TEREDO or ip in _COMPATIBLE):
        return False
    return ip not in _V6_UNICAST or any(ip in network for network in _V6_DENIED)


def _embedded(ip: IPv6Address) -> Iterator[IPv4Address]:
    """The IPv4 addresses a packet to `ip` may be sent on to."""
    value = int(ip)
    low = value & 0xFFFF_FFFF
    if ip in _NAT64 or ip in _COMPATIBLE or (value >> 32) & 0xFFFF_FFFF in _ISATAP:
        yield IPv4Address(low)
    if ip in _6TO4:
        yield IPv4Address((value >> 80) & 0xFFFF_FFFF)
    if ip in _TEREDO:
        yield IPv4Address((value >> 64) & 0xFFFF_FFFF)  # the server
        yield IPv4Address(low ^ 0xFFFF_FFFF)  # the client, stored inverted
