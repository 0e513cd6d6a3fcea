"""Tables of the network rules, and the promise that no text breaks a parser."""

from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from worker.errors import ErrorCode, Fault
from worker.fetch.netguard import (
    Allow,
    Target,
    check_address,
    parse_allow,
    parse_url,
    redirect,
)


def outcome(call: Callable[..., Any], *args: object) -> Any:
    """What a call returns, or the code it fails with."""
    try:
        return call(*args)
    except Fault as fault:
        return fault.code


PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "9.255.255.255",
    "100.63.255.255",
    "100.128.0.0",
    "172.15.255.255",
    "172.32.0.0",
    "192.0.1.0",
    "198.17.255.255",
    "198.20.0.0",
    "223.255.255.255",
    "2606:4700:4700::1111",
    "2001:4860:4860::8888",
    "2a00:1450:4001:81b::200e",
    # IPv4 inside IPv6, public inside as well.
    "::ffff:8.8.8.8",
    "64:ff9b::8.8.8.8",
    "2002:808:808::1",
    "2001:0:808:808::f7f7:f7f7",  # Teredo
    "2606:4700::5efe:808:808",  # ISATAP
    "2000::1",
    "2001:200::1",  # the first after the protocol assignments
    "2001:db7:ffff::1",
    "2001:db9::1",
    "2003::1",
    "3ffd::1",
    # Next to what is special, in IPv4.
    "1.0.0.0",
    "11.0.0.0",
    "126.255.255.255",
    "128.0.0.1",
    "168.63.129.15",
    "169.253.255.255",
    "169.255.0.0",
    "192.0.3.0",
    "192.88.98.255",
    "192.167.255.255",
    "192.169.0.0",
    "198.51.99.255",
    "203.0.114.0",
]
DENIED = [
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "100.64.0.1",
    "100.100.100.200",  # a cloud's metadata
    "127.0.0.1",
    "127.255.255.254",
    "168.63.129.16",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.19.255.255",
    "198.51.100.7",
    "203.0.113.7",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",  # IPv4-compatible
    "::ffff:127.0.0.1",  # IPv4-mapped
    "::ffff:169.254.169.254",
    "::ffff:0:127.0.0.1",  # IPv4-translated
    "64:ff9b::10.0.0.1",  # NAT64
    "64:ff9b:1::8.8.8.8",  # NAT64 of one's own network
    "100::1",  # discard only
    "2001::1",  # Teredo
    "2001:0:808:808::f5ff:fffe",  # Teredo: public server, client 10.0.0.1
    "2001:0:a00:1::f7f7:f7f7",  # Teredo: server 10.0.0.1, public client
    "2001:2::1",  # benchmarks
    "2001:10::1",  # ORCHID
    "2001:20::1",
    "2001:db8::1",
    "2002:7f00:1::1",  # 6to4 of 127.0.0.1
    "2002:a9fe:a9fe::",  # 6to4 of 169.254.169.254
    "2a00:1450:4001:81b:0:5efe:10.0.0.1",  # ISATAP
    "2a00:1450:4001:81b:200:5efe:127.0.0.1",
    "3fff::1",
    "3ffe::1",  # the 6bone
    "3ffe:831f:7f00:1::",  # Teredo in the 6bone's days
    "4000::1",
    "1fff:ffff::1",
    "::2",
    "::a00:1",  # IPv4-compatible, in hexadecimal
    "::ffff:a9fe:a9fe",
    "::ffff:100.64.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::100.64.0.1",
    "64:ff9b::a83f:8110",  # NAT64 of a cloud's host agent
    "64:ff9b:1:fffe::7f00:1",
    "64:ff9c::8.8.8.8",
    "100:0:0:1::1",  # the dummy prefix, RFC 9780
    "2001:1::1",  # port control anycast
    "2001:3::1",  # AMT
    "2001:4:112::1",  # AS112
    "2001:30::1",  # drone identifiers
    "2001:1ff:ffff::1",
    "2002:a00:1::",  # 6to4 of 10.0.0.1
    "2002:e000:1::",  # 6to4 of 224.0.0.1
    "2606:4700:0:0:0:5efe:192.168.0.1",
    "2620:4f:8000::1",
    "fd20:ce::254",  # a cloud's metadata
    "fdff::1",
    "febf::1",
    "192.31.196.1",
    "192.52.193.1",
    "192.175.48.1",
    "192.0.0.9",
    "127.1",
    "0177.0.0.1",
    "2130706433",
    "[::1]",
    "8.8.8.8:80",
    "8.8.8.8 ",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",  # a cloud's metadata
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
    "localhost",
    "",
]


@pytest.mark.parametrize("address", PUBLIC)
def test_given_a_public_address_when_checked_then_it_passes(address: str) -> None:
    check_address(address)


@pytest.mark.parametrize("address", DENIED)
def test_given_any_other_address_when_checked_then_it_is_blocked(address: str) -> None:
    with pytest.raises(Fault) as failure:
        check_address(address)
    assert failure.value.code is ErrorCode.URL_BLOCKED


@given(st.ip_addresses())
def test_given_any_address_when_checked_then_it_passes_only_if_python_calls_it_global(
    address: object,
) -> None:
    ip = ip_address(str(address))
    if outcome(check_address, str(ip)) is ErrorCode.URL_BLOCKED:
        return
    unwrapped = getattr(ip, "ipv4_mapped", None) or ip
    embedding = any(
        unwrapped in ip_network for ip_network in (parse_allow(f"[{n}]").network for n in UNWRAPPED)
    )
    assert unwrapped.is_global or embedding


UNWRAPPED = ("::/96", "64:ff9b::/96", "2002::/16", "2001::/32")


@pytest.mark.parametrize(
    ("entry", "address", "port", "passes"),
    [
        ("127.0.0.1/32:8080", "127.0.0.1", 8080, True),
        ("127.0.0.1/32:8080", "127.0.0.1", 8081, False),
        ("127.0.0.1/32:8080", "127.0.0.1", 80, False),
        ("127.0.0.1/32:8080", "127.0.0.2", 8080, False),
        ("127.0.0.1/32:8080", "8.8.8.8", 8080, False),
        ("127.0.0.1/32:8080", "8.8.8.8", 443, True),
        ("127.0.0.1/32:8080", "::ffff:127.0.0.1", 8080, True),
        ("127.0.0.1:8080", "127.0.0.1", 8080, True),
        ("10.0.0.0/8", "10.200.0.1", 80, True),
        ("10.0.0.0/8", "10.200.0.1", 443, True),
        ("10.0.0.0/8", "10.200.0.1", 8080, False),
        ("10.0.0.0/8", "11.0.0.1", 80, True),
        ("10.0.0.0/8:*", "10.0.0.1", 9, True),
        ("10.0.0.0/8:*", "192.168.0.1", 80, False),
        ("[fd00::/8]", "fd00::1", 443, True),
        ("[fd00::/8]:9000", "fd00::1", 9000, True),
        ("[fd00::/8]:9000", "fe80::1", 9000, False),
    ],
)
def test_given_an_exception_when_an_address_is_checked_then_it_holds_for_its_network_and_ports(
    entry: str, address: str, port: int, passes: bool
) -> None:
    expected = None if passes else ErrorCode.URL_BLOCKED
    assert outcome(check_address, address, port, [parse_allow(entry)]) is expected


@pytest.mark.parametrize(
    "entry",
    ["", "localhost", "10.0.0.1/8", "10.0.0.0/33", "10.0.0.0/8:", "10.0.0.0/8:0", "1.2.3.4:65536",
     "10.0.0.0/8:http", "[fd00::/8", "fd00::/8:x", "10.0.0.0/8 :80", "*"],
)  # fmt: skip
def test_given_a_wrong_exception_when_parsed_then_the_setting_is_refused(entry: str) -> None:
    with pytest.raises(ValueError, match="FETCH_ALLOW"):
        parse_allow(entry)


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("http://example.com", Target("http", "example.com", 80, "/")),
        ("https://example.com/a?b=c#d", Target("https", "example.com", 443, "/a?b=c")),
        ("HTTPS://Example.COM:443/A", Target("https", "example.com", 443, "/A")),
        ("http://example.com:/", Target("http", "example.com", 80, "/")),
        ("http://example.com.:443/", Target("http", "example.com", 443, "/")),
        ("http://example.com?q", Target("http", "example.com", 80, "/?q")),
        ("http://a_b.example/%2e%2E/%C3%BC", Target("http", "a_b.example", 80, "/%2e%2E/%C3%BC")),
        ("https://bücher.example/ü", Target("https", "xn--bcher-kva.example", 443, "/%C3%BC")),
        ("https://straße.de/", Target("https", "xn--strae-oqa.de", 443, "/")),
        ("http://８.８.８.８/", Target("http", "8.8.8.8", 80, "/")),
        ("http://[2606:4700::1111]/", Target("http", "2606:4700::1111", 80, "/")),
        ("http://[2606:4700::A]:443/", Target("http", "2606:4700::a", 443, "/")),
        ("http://example.com/a//b/@c:d", Target("http", "example.com", 80, "/a//b/@c:d")),
        ("http://example.com?@127.0.0.1/", Target("http", "example.com", 80, "/?@127.0.0.1/")),
        ("http://example.com#@127.0.0.1/", Target("http", "example.com", 80, "/")),
        ("http://example.com:00080/", Target("http", "example.com", 80, "/")),
        ("https://example.com:80/", Target("https", "example.com", 80, "/")),
        ("http://8.8.8.8.:80/", Target("http", "8.8.8.8", 80, "/")),
        ("http://[::FFFF:8.8.8.8]/", Target("http", "::ffff:808:808", 80, "/")),
        # Names: UTS #46 maps, IDNA2008 encodes, symbols pass as in browsers.
        ("https://BÜCHER.example/", Target("https", "xn--bcher-kva.example", 443, "/")),
        ("https://bu\u0308cher.example/", Target("https", "xn--bcher-kva.example", 443, "/")),
        ("https://XN--BCHER-KVA.example/", Target("https", "xn--bcher-kva.example", 443, "/")),
        ("https://bücher。example．/", Target("https", "xn--bcher-kva.example", 443, "/")),
        ("https://bücher.example.:443", Target("https", "xn--bcher-kva.example", 443, "/")),
        ("http://ⓔⓧⓐⓜⓟⓛⓔ.ⓒⓞⓜ/", Target("http", "example.com", 80, "/")),
        ("http://Ｅｘａｍｐｌｅ.com/", Target("http", "example.com", 80, "/")),
        ("http://ΣΊΣΥΦΟΣ.gr/", Target("http", "xn--kxa6akbbkh.gr", 80, "/")),
        ("http://例え.テスト/", Target("http", "xn--r8jz45g.xn--zckzah", 80, "/")),
        ("http://中国.icom.museum/", Target("http", "xn--fiqs8s.icom.museum", 80, "/")),
        ("http://münchen.de/ß", Target("http", "xn--mnchen-3ya.de", 80, "/%C3%9F")),
        ("http://نامه\u200cای.com/", Target("http", "xn--mgba3gch31f060k.com", 80, "/")),
        ("http://\N{SNOWMAN}.net/", Target("http", "xn--n3h.net", 80, "/")),
        ("http://i\N{HEAVY BLACK HEART}.ws/", Target("http", "xn--i-7iq.ws", 80, "/")),
        ("http://xn--n3h.net/", Target("http", "xn--n3h.net", 80, "/")),
        ("http://a_ü.example/", Target("http", "xn--a_-yka.example", 80, "/")),
        ("http://_dmarc.my_bucket.bücher.example/",
         Target("http", "_dmarc.my_bucket.xn--bcher-kva.example", 80, "/")),
        ("http://r3---sn-5hne6nsz.example/", Target("http", "r3---sn-5hne6nsz.example", 80, "/")),
        ("http://1.example/", Target("http", "1.example", 80, "/")),
        ("http://127.0.0.1.example/", Target("http", "127.0.0.1.example", 80, "/")),
        ("http://0x7f.example/", Target("http", "0x7f.example", 80, "/")),
        ("http://" + "a" * 63 + ".example/", Target("http", "a" * 63 + ".example", 80, "/")),
        ("http://localhost/", Target("http", "localhost", 80, "/")),
    ],
)  # fmt: skip
def test_given_an_url_when_parsed_then_its_parts_are_what_is_dialled(
    url: str, target: Target
) -> None:
    assert parse_url(url) == target


SIGNED = (
    "/photos/a%20b%2Bc%2520.png?response-content-disposition=attachment%3B%20filename%3D%22a.png%22"
    "&X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIA%2F20260101%2Feu-west-1%2Fs3%2Faws4"
    "&X-Amz-Security-Token=" + "IQoJb3JpZ2luX2VjE%2F%2B%3D" * 60 + "&X-Amz-Signature=" + "0f" * 32
)


@pytest.mark.parametrize(
    ("given", "asked_for"),
    [
        ("", "/"),
        ("/%", "/%"),
        ("/%zz%2", "/%zz%2"),
        ("/%00%0d%0a%5c", "/%00%0d%0a%5c"),
        ("/a;b=c,d|{e}<f>^`\"'", "/a;b=c,d|{e}<f>^`\"'"),
        ("/?", "/?"),
        ("/?a=b&c=%2B+%20?d=/e:f@g[0]#h?i", "/?a=b&c=%2B+%20?d=/e:f@g[0]"),
        ("/می\u200cخواهم", "/%D9%85%DB%8C%E2%80%8C%D8%AE%D9%88%D8%A7%D9%87%D9%85"),
        ("/\N{MAN}\u200d\N{ROCKET}", "/%F0%9F%91%A8%E2%80%8D%F0%9F%9A%80"),
        ("/\U0001fae8", "/%F0%9F%AB%A8"),  # of a later Unicode than this Python's
        ("/ü?ü=%C3%BC#ü", "/%C3%BC?%C3%BC=%C3%BC"),
        (SIGNED, SIGNED),
        ("/" + "a" * 2_028, "/" + "a" * 2_028),
    ],
)
def test_given_a_path_and_a_query_when_parsed_then_they_are_asked_for_as_they_are(
    given: str, asked_for: str
) -> None:
    assert parse_url(f"http://example.com{given}").path == asked_for
    assert len(SIGNED) > 1_700


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.com",
        "ftp://example.com/",
        "file:///etc/passwd",
        "httpſ://example.com/",  # a letter that folds to s
        "http:example.com",
        "http:/example.com",
        "http://",
        "http:///path",
        "http://?q",
        "http://user@example.com/",
        "http://user:pw@example.com/",
        "http://8.8.8.8@127.0.0.1/",
        "http://example.com\\@127.0.0.1/",
        "http://example.com/a b",
        " http://example.com/",
        "http://example.com/\n",
        "http://exam\tple.com/",
        "http://example.com/\x00",
        "http://example.com/\u202egpj.exe",
        "http://example.com/\ud800",
        "http://example%2ecom/",
        "http://[fe80::1%25eth0]/",
        "http://[::1",
        "http://::1/",
        "http://[1.2.3.4]/",
        "http://[v1.x]/",
        "http://[::1]x/",
        "http://example.com:99999/",
        "http://example.com:0/",
        "http://example.com:22/",
        "http://example.com:8080/",
        "http://example.com:٨٠/",
        "http://example.com:+80/",
        "http://2130706433/",
        "http://0x7f000001/",
        "http://0x7f.1/",
        "http://127.1/",
        "http://0177.0.0.1/",
        "http://1.2.3.256/",
        "http://a..b/",
        "http://.example.com/",
        "http://-a.example/",
        "http://./",
        "http://..%2f/",
        "http://" + "a" * 64 + ".example/",
        "http://" + "a." * 127 + "example/",
        "http://example.com\u2488/",  # one character that spells "1."
        "http://exa*mple.com/",
        "http://@example.com/",
        "http://user:pw@[::1]/",
        "http://ex%61mple.com/",
        "http://127.0.0.1%2f@example.com/",
        "http://127.0.0.1:80:80/",
        "http://example.com:80@127.0.0.1/",
        "http://example.com:80+&@127.0.0.1:22/#+@example.com:80/",
        "http://127.0.0.1;@example.com/",
        "http://1.1.1.1 &@127.0.0.1# @3.3.3.3/",
        "http:\\\\127.0.0.1\\",
        "http://example.com\r\nHost: 127.0.0.1/",
        "http://example.com/\r\nX: y",
        "http://example.com/\u2028",
        "http://example.com/\u00a0",
        "http://example.com/\u3000",
        "http://example.com/\u200b",
        "http://example.com/\u200e",
        "http://example.com/\ufeff",
        "http://exam\u200dple.com/",
        "http://0/",
        "http://0x7f.0x0.0x0.0x1/",
        "http://0300.0250.0.1/",
        "http://00000177.0.0.1/",
        "http://0x/",
        "http://017700000001/",
        "http://192.168.257/",
        "http://1.2.3.4.5/",
        "http://1.2.3.4../",
        "http://example.0/",
        "http://１２７.１/",
        "http://℀.example/",  # one character that spells "a/c"
        "http://example.com\N{FULLWIDTH SOLIDUS}@127.0.0.1/",
        "http://example\N{FULLWIDTH NUMBER SIGN}.com/",
        "http://example\N{FULLWIDTH COMMERCIAL AT}127.0.0.1/",
        "http://example\N{FULLWIDTH COLON}80/",
        "http://a\N{FULLWIDTH SOLIDUS}ü.example/",
        "http://[::1]:80:80/",
        "http://[::ffff:127.0.0.1/",
        "http://[fe80::1%eth0]/",
        "http://[::1]@example.com/",
        "http://[0:0:0:0:0:0:0:0:1]/",
        "http://[::127.1]/",
        "http://[]/",
        "http://example.com:000443/",
        "http://example.com:-80/",
        "http://example.com:80 /",
        "http://a\N{CYRILLIC SMALL LETTER A}" + "b" * 60 + ".example/",
        "//example.com/",
        "javascript:alert(1)",
        "gopher://127.0.0.1:6379/_FLUSHALL",
        "dict://127.0.0.1:11211/stats",
        "jar:http://example.com!/",
        "url:http://example.com/",
        "httphttp://example.com/",
        "http://example.com/" + "a" * 2_048,
    ],
)
def test_given_what_is_no_plain_url_when_parsed_then_it_is_invalid(url: str) -> None:
    with pytest.raises(Fault) as failure:
        parse_url(url)
    assert failure.value.code is ErrorCode.URL_INVALID


@pytest.mark.parametrize(
    ("ports", "port", "passes"),
    [({80, 443}, 8080, False), ({80, 443, 8080}, 8080, True), (None, 8080, True), (None, 0, False)],
)
def test_given_opted_in_ports_when_an_url_names_one_then_it_passes(
    ports: set[int] | None, port: int, passes: bool
) -> None:
    parsed = outcome(parse_url, f"http://example.com:{port}/", ports)
    assert parsed == (Target("http", "example.com", port, "/") if passes else ErrorCode.URL_INVALID)


@pytest.mark.parametrize(
    ("url", "authority"),
    [
        ("http://example.com/", "example.com"),
        ("http://example.com:443/", "example.com:443"),
        ("https://example.com:443/", "example.com"),
        ("https://[2606::1]/", "[2606::1]"),
        ("https://[2606::1]:80/", "[2606::1]:80"),
    ],
)
def test_given_a_target_when_asked_for_its_host_header_then_default_ports_are_left_out(
    url: str, authority: str
) -> None:
    assert parse_url(url).authority == authority


@pytest.mark.parametrize(
    ("source", "location", "leads_to"),
    [
        ("https://a.example/x/y", "z", "https://a.example/x/z"),
        ("https://a.example/x/y", "/z?q", "https://a.example/z?q"),
        ("https://a.example/x", "//b.example/", "https://b.example/"),
        ("http://a.example/x", "https://b.example/", "https://b.example/"),
        ("http://a.example/x", "http://b.example", "http://b.example/"),
        ("https://a.example/x", "", "https://a.example/x"),
        ("https://a.example/x", "http://a.example/x", ErrorCode.REDIRECT_LIMIT),
        ("http://a.example/", "http://u@b.example/", ErrorCode.URL_INVALID),
        ("http://a.example/", "http://b.example:22/", ErrorCode.URL_INVALID),
        ("http://a.example/", "file:///etc/passwd", ErrorCode.URL_INVALID),
        ("http://a.example/", "http://[b.example/", ErrorCode.URL_INVALID),
        ("http://a.example/", "http://b\n.example/", ErrorCode.URL_INVALID),
        ("http://a.example/", "javascript:alert(1)", ErrorCode.URL_INVALID),
        ("https://a.example/x", "?q", "https://a.example/x?q"),
        ("https://a.example/x", "#f", "https://a.example/x"),
        ("https://a.example/x", "../../y", "https://a.example/y"),
        ("https://bücher.example/x", "/ü", "https://bücher.example/%C3%BC"),
        ("https://a.example/x", "HTTP://a.example/x", ErrorCode.REDIRECT_LIMIT),
        ("https://a.example:443/x", "//127.0.0.1/", "https://127.0.0.1/"),
        ("https://a.example/x", "/a b", ErrorCode.URL_INVALID),
        ("https://a.example/x", " //b.example/", ErrorCode.URL_INVALID),
        ("https://a.example/x", "\\\\b.example\\", ErrorCode.URL_INVALID),
        ("https://a.example/x", "/\\b.example", ErrorCode.URL_INVALID),
        ("https://a.example/x", "https:b.example", "https://a.example/b.example"),
        ("https://a.example/x", "//b.example:8080/", ErrorCode.URL_INVALID),
        ("https://a.example/x", "//b%2eexample/", ErrorCode.URL_INVALID),
        ("https://a.example/x", "//0x7f000001/", ErrorCode.URL_INVALID),
        ("https://a.example/x", "/" + "a" * 2_048, ErrorCode.URL_INVALID),
    ],
)
def test_given_a_redirect_when_followed_then_its_target_is_judged_like_any_url(
    source: str, location: str, leads_to: str | ErrorCode
) -> None:
    expected = leads_to if isinstance(leads_to, ErrorCode) else parse_url(leads_to)
    assert outcome(redirect, parse_url(source), location) == expected


URL_LIKE = st.text() | st.builds(
    "{}://{}{}".format,
    st.sampled_from(["http", "https", "HTTP", "s3"]),
    st.text() | st.from_regex(r"[^/]{0,30}(:[0-9]{0,6})?", fullmatch=True),
    st.text(),
)


@given(URL_LIKE)
@example("http://xn--a.example/")
@example("http://xn--\N{LATIN SMALL LETTER U WITH DIAERESIS}/")
@example("http://\N{FULLWIDTH PERCENT SIGN}/")
@example("http://\N{ZERO WIDTH JOINER}/")
def test_given_any_text_when_parsed_then_it_is_a_target_or_a_fault(url: str) -> None:
    target = outcome(parse_url, url, None)
    if target is ErrorCode.URL_INVALID:
        return
    assert target.host.isascii()
    assert target.path.isascii()
    assert target.path.startswith("/")
    assert parse_url(target.url, None) == target


@given(URL_LIKE)
def test_given_any_location_when_followed_then_it_is_a_target_or_a_fault(location: str) -> None:
    target = outcome(redirect, parse_url("https://a.example/b"), location)
    codes = (ErrorCode.URL_INVALID, ErrorCode.REDIRECT_LIMIT)
    assert isinstance(target, Target) or target in codes


def test_given_no_port_when_an_exception_is_parsed_then_it_holds_for_the_web_alone() -> None:
    assert parse_allow("10.0.0.0/8") == Allow(parse_allow("10.0.0.0/8:*").network)
