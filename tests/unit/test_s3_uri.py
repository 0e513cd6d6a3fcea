"""Where an S3 URI leads, and that no text breaks its parser."""

from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from worker.errors import ErrorCode, Fault
from worker.fetch.s3 import parse_s3_uri


def outcome(call: Callable[..., Any], *args: object) -> Any:
    """What a call returns, or the code it fails with."""
    try:
        return call(*args)
    except Fault as fault:
        return fault.code


@pytest.mark.parametrize(
    ("uri", "parts"),
    [
        ("s3://photos/cat.jpg", ("photos", "cat.jpg", None)),
        ("s3://photos/2026/01/cat.jpg", ("photos", "2026/01/cat.jpg", None)),
        ("s3://photos/cat.jpg?versionId=3HL4kqtJ", ("photos", "cat.jpg", "3HL4kqtJ")),
        ("s3://photos/cat.jpg?versionId=null", ("photos", "cat.jpg", "null")),
        ("s3://my.photos-1/a+b.jpg", ("my.photos-1", "a+b.jpg", None)),
        ("s3://photos/a%20b%2Bc%3Fd%23e%25.jpg", ("photos", "a b+c?d#e%.jpg", None)),
        ("s3://photos/%C3%BC.jpg", ("photos", "ü.jpg", None)),
        ("s3://photos/ü.jpg", ("photos", "ü.jpg", None)),
        ("s3://photos/a//b/", ("photos", "a//b/", None)),
        ("s3://photos/..a/b..", ("photos", "..a/b..", None)),
        ("s3://photos/%zz.jpg", ("photos", "%zz.jpg", None)),
        ("s3://photos//leading", ("photos", "/leading", None)),
    ],
)
def test_given_an_s3_uri_when_parsed_then_the_key_is_decoded_once(
    uri: str, parts: tuple[str, str, str | None]
) -> None:
    assert parse_s3_uri(uri) == parts


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "s3://",
        "s3://photos",
        "s3://photos/",
        "s3:///cat.jpg",
        "S4://photos/cat.jpg",
        "https://photos/cat.jpg",
        "s3://../photos/cat.jpg",
        "s3://p/cat.jpg",
        "s3://pho tos/cat.jpg",
        "s3://user@photos/cat.jpg",
        "s3://photos:9000/cat.jpg",
        "s3://arn:aws:s3:us-east-1:1:accesspoint/cat.jpg",
        "s3://photos/../private/cat.jpg",
        "s3://photos/%2e%2e/private/cat.jpg",
        "s3://photos/a/./b",
        "s3://photos/a%2F..%2Fb",
        "s3://photos/%ff.jpg",
        "s3://photos/\ud800.jpg",
        "s3://photos/cat.jpg#fragment",
        "s3://photos/cat.jpg?versionId=",
        "s3://photos/cat.jpg?versionId=a%0Ab",
        "s3://photos/cat.jpg?versionid=a",
        "s3://photos/cat.jpg?versionId=a&versionId=b",
        "s3://photos/cat.jpg?versionId=a&x=y",
        "s3://photos/cat.jpg?&",
        "s3://photos/" + "ü" * 513,
    ],
)
def test_given_what_is_no_s3_uri_when_parsed_then_it_is_invalid(uri: str) -> None:
    with pytest.raises(Fault) as failure:
        parse_s3_uri(uri)
    assert failure.value.code is ErrorCode.URL_INVALID


@given(st.text() | st.builds("s3://{}/{}?{}".format, st.text(), st.text(), st.text()))
def test_given_any_text_when_parsed_then_it_is_a_place_or_a_fault(uri: str) -> None:
    place = outcome(parse_s3_uri, uri)
    assert place is ErrorCode.URL_INVALID or all(place[:2])


@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=200))
def test_given_any_key_when_quoted_into_an_uri_then_it_comes_back(key: str) -> None:
    assume(not {".", ".."} & set(key.split("/")))
    assert parse_s3_uri(f"s3://photos/{quote(key)}?versionId=1") == ("photos", key, "1")
