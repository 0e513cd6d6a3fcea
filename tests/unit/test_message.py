"""Messages as strangers write them: read, or refused; never anything else."""

import json
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.message import Opened, due_ms, opened, text

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
EARLY, LATE = (datetime(year, 1, 1) for year in (1971, 2200))  # noqa: DTZ001 - hypothesis' wish
PART = st.sampled_from(["headers", "properties", "eta", "id", "delivery_tag", "body"])
MESSAGE = st.dictionaries(PART, JSON | st.dictionaries(PART, JSON))


@given(st.binary() | MESSAGE.map(lambda message: json.dumps(message).encode()))
def test_given_anything_then_it_is_read_or_refused_and_can_be_kept_as_text(raw: bytes) -> None:
    with suppress(Exception):
        message = opened(raw)
        assert isinstance(message, Opened)
        assert message.name
        assert message.due_ms is None or isinstance(message.due_ms, int)
    text(raw).encode()


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"id": "job"}, "job:0"),
        ({"id": "job", "retries": 2}, "job:2"),
        ({"id": "job", "retries": 99}, "job:15"),
        ({"id": "job", "retries": -1}, "job:0"),
        ({"id": "job", "retries": "2"}, "job:0"),
        ({"id": ""}, "tag:0"),
        ({}, "tag:0"),
        (None, "tag:0"),
    ],
)
def test_a_message_is_named_by_its_task_or_else_by_its_tag_and_by_its_attempt(
    headers: Any, expected: str
) -> None:
    message = {"headers": headers, "properties": {"delivery_tag": "tag"}}
    assert opened(json.dumps(message).encode()).name == expected


@pytest.mark.parametrize(
    ("eta", "expected"),
    [
        ("1970-01-01T00:00:01+00:00", 1_000),
        ("1970-01-01T00:00:01", 1_000),
        ("1970-01-01T01:00:01.5+01:00", 1_500),
        (None, None),
        ("", None),
        ("soon", None),
        (5, None),
        ([], None),
    ],
)
def test_an_eta_is_a_moment_or_none(eta: Any, expected: int | None) -> None:
    assert due_ms({"eta": eta}) == expected


@pytest.mark.parametrize("headers", [None, [], {}, "eta", 5])
def test_headers_of_another_kind_have_no_eta(headers: Any) -> None:
    assert due_ms(headers) is None


@given(st.datetimes(min_value=EARLY, max_value=LATE))
def test_a_moment_is_the_same_in_every_zone(moment: datetime) -> None:
    utc = moment.replace(tzinfo=UTC)
    elsewhere = utc.astimezone(timezone(timedelta(hours=5.5)))
    assert due_ms({"eta": utc.isoformat()}) == due_ms({"eta": elsewhere.isoformat()})
