"""Host names as they are dialled: A-labels and dotted addresses, by UTS #46 and RFC 5891."""

import re
from ipaddress import IPv4Address

import idna

from worker.errors import ErrorCode, Fault

__all__ = ["ascii_host"]

MAX_HOST_CHARS = 253  # RFC 1035, 2.3.4, without the trailing dot

# Underscores are in no host name of RFC 952 and in many of the web's.
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")


def ascii_host(name: str) -> str:
    """The ASCII form, in lower case, of a host name or of an IPv4 address.

    Raises:
        Fault: url_invalid for what is no host name, and for an address that is not written as
            four decimal numbers.
    """
    host = name.lower()
    if not host.isascii():
        try:
            # What the mapping turns into other ASCII than a name's is left to _LABEL.
            mapped = idna.uts46_remap(name, std3_rules=False)
            host = ".".join(map(_a_label, mapped.split(".")))
        except UnicodeError as exc:
            raise Fault(ErrorCode.URL_INVALID, "not an internationalised host name") from exc
    host = host.removesuffix(".")  # RFC 6066: server names in TLS carry no trailing dot
    labels = host.split(".")
    if len(host) > MAX_HOST_CHARS or not all(_LABEL.fullmatch(label) for label in labels):
        raise Fault(ErrorCode.URL_INVALID, "not a host name")
    # As browsers do (WHATWG URL, "ends in a number"): 2130706433, 0x7f.1 and 127.1 are spellings
    # of 127.0.0.1 to some resolvers and names to others.
    if re.fullmatch(r"[0-9]+|0x[0-9a-f]*", labels[-1]):
        try:
            return str(IPv4Address(host))
        except ValueError as exc:
            raise Fault(ErrorCode.URL_INVALID, "not a dotted IPv4 address") from exc
    return host


def _a_label(label: str) -> str:
    """A label's A-form (RFC 5891, 4). Raises: UnicodeError."""
    if label.isascii():
        return label
    try:
        return idna.alabel(label).decode("ascii")
    except idna.InvalidCodepoint:
        # A symbol: registered, resolved and shown by browsers (UTS #46, NV8), if not by IDNA2008.
        return "xn--" + label.encode("punycode").decode("ascii")
