"""Which addresses a fetch may touch, and the URL rules beside them: rules only, no sockets.

The address rules are explicit networks from the IANA special-purpose registries (RFC 6890, RFC
8190) and not `ipaddress.is_global`, which is true for multicast, NAT64, 6to4 and `::127.0.0.1`.
An IPv4 address inside an IPv6 one counts as itself, wherever a standard says where it lies: mapped
and compatible (RFC 4291), NAT64's well-known prefix (RFC 6052), 6to4, Teredo and ISATAP. NAT64
prefixes of one's own network (RFC 8215's, and the network-specific ones of RFC 6052) are told by
nothing in an address: the first is refused as a whole, the others are for the network's firewall.
"""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from worker.errors import ErrorCode, Fault
from worker.fetch.url import WEB_PORTS, Target, parse_url, redirect

__all__ = [
    "WEB_PORTS",
    "Allow",
    "Target",
    "check_address",
    "parse_allow",
    "parse_url",
    "ports_named",
    "redirect",
]

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
        "3ffe::/16",  # the 6bone, given back, RFC 3701
        "3fff::/20",  # documentation, RFC 9637
    )
)
_MAPPED = IPv6Network("::ffff:0:0/96")  # RFC 4291
_COMPATIBLE = IPv6Network("::/96")  # RFC 4291, deprecated
_NAT64 = IPv6Network("64:ff9b::/96")  # RFC 6052
_6TO4 = IPv6Network("2002::/16")  # RFC 3056
_TEREDO = IPv6Network("2001::/32")  # RFC 4380
_ISATAP = (0x0000_5EFE, 0x0200_5EFE)  # upper half of the interface identifier, RFC 5214


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


def ports_named(ports: Collection[int], allow: Collection[Allow]) -> Collection[int] | None:
    """The ports a URL may name, those of the exceptions included; None for every port.

    Which address may be dialled on such a port is for `check_address` to say.
    """
    if any(entry.ports is None for entry in allow):
        return None
    return frozenset(ports).union(*(entry.ports for entry in allow if entry.ports is not None))


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
