"""Any text through what parses URLs, jobs and JPEGs: a value that holds, or the parser's own error.

FUZZ_EXAMPLES makes more of them than `make test` does.
"""

import json
import os
import random
import re
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from producer.contract import CaptionJob, JobFailed, parse_job, public_uri
from producer.errors import ErrorCode
from producer.references import MAX_URI_CHARS, SCHEMES
from tests.fuzz.hunt import corpus
from tests.fuzz.mutate import mutated
from worker.errors import Fault
from worker.fetch.file import parse_file_uri
from worker.fetch.s3_uri import parse_s3_uri
from worker.fetch.url import WEB_PORTS, Target, parse_url, redirect
from worker.image import ImageLimits, count_scans, decode
from worker.metadata import exif_orientation, strip

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "300"))
fuzzed = settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.filter_too_much]
)

# Pieces of URLs, good and bad: text of these gets further than any text does.
PIECES = st.sampled_from(
    ["http", "https", "HTTP", "s3", "file", "ftp", ":", "//", "/", "///", "\\", "@", "?", "#",
     "%", "[", "]", "::1", "[::1]", "[::ffff:10.0.0.1]", "[fe80::1%25eth0]", "127.0.0.1",
     "0x7f.1", "2130706433", "127.1", "1.2.3.4", "a.example", "b.example.", ".", "..", "/../",
     "%2e%2e", "%00", "%2F", "%ff", ":80", ":443", ":8080", ":0", ":65536", ":080", ":",
     "user:pass@", "user@", "&", "=", "versionId=1", "?versionId=a", "bucket", "key", "a_b",
     "xn--bcher-kva", "bücher", "ß", "K", "。", "．", "ａ", "①", "‥", "\u200d", "\xad",
     "\t", "\n", "\r", " ", "\0", "\x7f", "-", "_", "localhost", "+", ";", ",", "~", "|", "^",
     "{", "}", "<", ">", '"', "'", "`", "a" * 63, "a" * 64, "a." * 126, "é", "日本", "\ud800",
     "١٢٧"]
)  # fmt: skip
MIXES = st.one_of(
    st.lists(PIECES, max_size=12).map("".join),
    st.lists(PIECES, max_size=10).map(lambda pieces: "http://" + "".join(pieces)),
    st.lists(PIECES, max_size=10).map(lambda pieces: "s3://bucket/" + "".join(pieces)),
    st.lists(PIECES, max_size=10).map(lambda pieces: "file:///" + "".join(pieces)),
    st.text(max_size=60).map(lambda text: "https://" + text),
    st.text(max_size=100),
)
HOSTS = st.one_of(
    st.sampled_from(
        ["a.example", "A.Example.", "b_c.example", "bücher.example", "straße.example", "1.2.3.4",
         "[::1]", "[2001:db8::192.0.2.1]", "[::FFFF:10.0.0.1]", "xn--bcher-kva.example", "日本。jp",
         "K.example", "a\xad.example", "0x7f.1", "1.2.3.4.", "localhost", "ａ.example", "١.example"]
    ),
    st.from_regex(r"[a-z0-9._-]{1,12}", fullmatch=True),
    st.text(min_size=1, max_size=6),
)  # fmt: skip
URLS = st.builds(
    "{}://{}{}{}".format,
    st.sampled_from(["http", "https", "HTTPS"]),
    HOSTS,
    st.sampled_from(["", "", ":", ":80", ":443", ":0443", ":8080"]),
    st.sampled_from(["", "/", "?"]).flatmap(lambda first: st.lists(PIECES, max_size=5).map(
        lambda rest: first + "".join(rest) if first else "")),
)  # fmt: skip
TEXTS = URLS | MIXES
S3_URIS = st.lists(
    PIECES.filter(lambda piece: piece not in ("?", "#", "\ud800")) | st.text(max_size=4), max_size=6
).map(lambda pieces: "s3://bucket/k" + "".join(pieces))
PORTS = st.sampled_from([WEB_PORTS, None])


def outcome(call: Callable[..., Any], *args: Any) -> Any:
    """What a call returns, or the error it is meant to fail with; any other fails the test."""
    try:
        return call(*args)
    except (Fault, JobFailed) as failure:
        return failure


def faulted(call: Callable[..., Any], *args: Any, codes: set[ErrorCode]) -> Any:
    """What a call returns, or None for one of these faults."""
    found = outcome(call, *args)
    if not isinstance(found, Fault):
        return found
    assert found.code in codes
    return None


@fuzzed
@given(TEXTS, PORTS)
@example("http://a.example:/", WEB_PORTS)
@example("http://[::ffff:127.0.0.1]/?#", None)
@example("http://a.example/%", None)
@example("http://a.example:0/", None)
@example("http://a.example:65536/", None)
def test_given_any_text_when_parsed_as_a_url_then_what_is_accepted_parses_to_itself(
    text: str, ports: frozenset[int] | None
) -> None:
    target = faulted(parse_url, text, ports, codes={ErrorCode.URL_INVALID})
    if target is None:
        return
    assert parse_url(target.url, ports) == target
    assert target.scheme in ("http", "https")
    assert 0 < target.port < 65_536
    assert ports is None or target.port in ports
    assert target.path.startswith(("/", "?"))
    assert re.fullmatch(r"[\x21-\x7e]+", target.path)
    assert re.fullmatch(r"[a-z0-9._:-]{1,253}", target.host)
    assert "#" not in target.url
    assert "@" not in target.authority


@fuzzed
@given(URLS)
def test_given_a_url_that_is_accepted_when_another_parser_reads_it_then_it_sees_the_same_host(
    text: str,
) -> None:
    target = faulted(parse_url, text, None, codes={ErrorCode.URL_INVALID})
    assume(target is not None)
    ours, theirs = urlsplit(target.url), urlsplit(text)
    assert ours.hostname == target.host
    assert (ours.port or {"http": 80, "https": 443}[target.scheme]) == target.port
    assert (theirs.username, theirs.password) == (None, None)
    assert theirs.scheme == target.scheme
    assert (theirs.port or {"http": 80, "https": 443}[target.scheme]) == target.port
    seen = theirs.hostname or ""
    if ":" in target.host:
        assert ip_address(seen) == ip_address(target.host)
    elif seen.isascii():
        assert seen.removesuffix(".") == target.host
    else:
        assert target.host.isascii()  # what it stands for in A-labels, idna has tests of


@fuzzed
@given(TEXTS, st.sampled_from(["http", "https"]), PORTS)
def test_given_any_location_when_followed_then_it_leads_to_what_parses_or_to_a_fault(
    text: str, scheme: str, ports: frozenset[int] | None
) -> None:
    source = Target(scheme, "a.example", 443 if scheme == "https" else 80, "/b/c?d=e")
    codes = {ErrorCode.URL_INVALID, ErrorCode.REDIRECT_LIMIT}
    target = faulted(redirect, source, text, ports, codes=codes)
    if target is None:
        return
    assert parse_url(target.url, ports) == target
    assert (source.scheme, target.scheme) != ("https", "http")
    assert target == parse_url(urljoin(source.url, text), ports)


@fuzzed
@given(S3_URIS | TEXTS)
def test_given_any_text_when_parsed_as_an_s3_uri_then_the_parts_make_it_again(text: str) -> None:
    parts = faulted(parse_s3_uri, text, codes={ErrorCode.URL_INVALID})
    if parts is None:
        return
    bucket, key, version = parts
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}", bucket)
    assert 0 < len(key.encode()) <= 1_024
    assert not {".", ".."} & set(key.split("/"))
    again = f"s3://{bucket}/{quote(key)}" + (f"?versionId={quote(version)}" if version else "")
    assert parse_s3_uri(again) == parts


@fuzzed
@given(TEXTS)
def test_given_any_text_when_parsed_as_a_file_uri_then_the_path_is_absolute_and_makes_it_again(
    text: str,
) -> None:
    path = faulted(parse_file_uri, text, codes={ErrorCode.URL_INVALID})
    if path is None:
        return
    assert path.startswith("/")
    assert "\0" not in path
    assert parse_file_uri("file://" + quote(os.fsencode(path))) == path


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3)
    ),
    max_leaves=8,
)
FIELDS = st.sampled_from(
    ["image", "job_id", "model", "mode", "resolution", "options", "regions", "texts", "task",
     "expires_at", "submitted_at", "schema_version", "other"]
)  # fmt: skip
JOBS = st.one_of(
    VALUES,
    st.dictionaries(FIELDS, VALUES, max_size=5),
    st.builds(
        lambda fields, uri: {"image": uri, **fields},
        st.dictionaries(FIELDS, VALUES, max_size=2),
        TEXTS,
    ),
    st.binary(max_size=60),
    st.text(max_size=60),
)


@fuzzed
@given(st.sampled_from(["caption", "match"]), JOBS)
def test_given_anything_when_parsed_as_a_job_then_it_is_one_or_has_failed_with_a_code(
    task: str, value: Any
) -> None:
    job = outcome(parse_job, task, value)
    if isinstance(job, JobFailed):
        assert job.code in (ErrorCode.JOB_INVALID, ErrorCode.SCHEMA_UNSUPPORTED)
        assert len(job.message) < 20_000
        return
    assert parse_job(task, job.model_dump_json()) == job


@fuzzed
@given(TEXTS)
def test_given_any_text_when_it_is_a_jobs_image_then_it_has_a_scheme_and_can_be_shown(
    text: str,
) -> None:
    public_uri(text)
    job = outcome(parse_job, "caption", json.dumps({"image": text}))
    if isinstance(job, JobFailed):
        assert job.code is ErrorCode.JOB_INVALID
        return
    assert isinstance(job, CaptionJob)
    assert job.image == text
    assert urlsplit(text).scheme.lower() in SCHEMES
    assert len(text) <= MAX_URI_CHARS
    shown = public_uri(text)
    if not text.lower().startswith(("s3:", "file:")):
        assert "@" not in urlsplit(shown).netloc
        assert "?" not in shown


MARKERS = st.lists(
    st.sampled_from([b"\xff\xd8", b"\xff\xd9", b"\xff\xda", b"\xff\xc0", b"\xff\xc2", b"\xff\xe1",
                     b"\xff\xfe", b"\xff\xdc", b"\xff\xd0", b"\xff\xff", b"\xff\x00", b"\0\0",
                     b"\0\1", b"\0\2", b"\0\5", b"\0\x0b", b"\xff", b"junk", b"Exif\0\0"])
    | st.binary(max_size=6),
    max_size=40,
).map(b"".join)  # fmt: skip


@fuzzed
@given(MARKERS, st.integers(0, 5))
def test_given_any_bytes_when_scans_are_counted_then_they_are_those_of_a_plain_walk(
    data: bytes, limit: int
) -> None:
    assert count_scans(data, limit) == min(walked(data), limit + 1)


def walked(data: bytes) -> int:
    """As libjpeg goes on: byte by byte to the next marker, and over its segment."""
    scans, framed, at = 0, False, 0
    while at + 1 < len(data):
        marker = data[at + 1]
        if data[at] != 0xFF or marker in (0x00, 0xFF):
            at += 1
            continue
        at += 2
        if marker == 0xD9:
            break
        if marker in (0x01, 0xD8) or 0xD0 <= marker <= 0xD7:
            continue
        framed = framed or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC))
        scans += framed and marker == 0xDA
        at += max(2, int.from_bytes(data[at : at + 2]))
    return scans


@fuzzed
@given(st.integers(0, 2**32))
def test_given_damaged_files_when_stripped_then_scans_are_as_many_and_nothing_is_added(
    seed: int,
) -> None:
    data = mutated(random.Random(seed), corpus())
    bare = strip(data)
    assert len(bare.data) <= len(data)
    assert strip(bare.data).data == bare.data
    assert 1 <= exif_orientation(bare.exif, bare.xmp) <= 8
    if data.startswith(b"\xff\xd8\xff"):
        left, scans = count_scans(bare.data, 99), count_scans(data, 99)
        assert left in (0, scans)
        if left < scans:  # what no decoder reads beyond lies before them
            assert isinstance(outcome(decode, data, ImageLimits()), Fault)


@fuzzed
@given(st.binary(max_size=200), st.sampled_from([b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08", b""]))
def test_given_any_bytes_when_an_orientation_is_read_then_it_is_one_of_eight(
    data: bytes, begin: bytes
) -> None:
    assert 1 <= exif_orientation(begin + data, data) <= 8
