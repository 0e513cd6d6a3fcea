"""What statuses and headers mean, as tables."""

from datetime import UTC, datetime

import pytest

from worker.errors import ErrorCode
from worker.fetch.reply import opted_out, refusal, retry_after_s

NOW = datetime(2026, 1, 31, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (200, None),
        (203, None),
        (206, ErrorCode.HTTP_4XX),
        (300, ErrorCode.HTTP_4XX),
        (304, ErrorCode.HTTP_4XX),
        (400, ErrorCode.HTTP_4XX),
        (401, ErrorCode.HTTP_4XX),
        (403, ErrorCode.HTTP_4XX),
        (404, ErrorCode.HTTP_4XX),
        (408, ErrorCode.HTTP_5XX),
        (410, ErrorCode.HTTP_4XX),
        (425, ErrorCode.HTTP_5XX),
        (429, ErrorCode.HTTP_5XX),
        (451, ErrorCode.HTTP_4XX),
        (500, ErrorCode.HTTP_5XX),
        (503, ErrorCode.HTTP_5XX),
        (599, ErrorCode.HTTP_5XX),
    ],
)
def test_given_a_status_when_judged_then_it_is_an_image_or_one_code(
    status: int, code: ErrorCode | None
) -> None:
    assert refusal(status) is code


@pytest.mark.parametrize(
    ("value", "wait_s"),
    [
        ("0", 0),
        ("7", 7),
        (" 7 ", 7),
        ("99999999999999999999", 60),
        ("9" * 5_000, 60),
        ("Sat, 31 Jan 2026 12:00:30 GMT", 30),
        ("Saturday, 31-Jan-26 12:00:30 GMT", 30),
        ("Sat Jan 31 12:00:30 2026", 30),
        ("Sat, 31 Jan 2026 12:00:30 -0000", 30),
        ("Sat, 31 Jan 2026 11:00:00 GMT", 0),
        ("Sat, 31 Jan 2027 12:00:00 GMT", 60),
        ("-7", None),
        ("1.5", None),
        ("٧", None),
        ("", None),
        ("soon", None),
        ("Sat, 99 Jan 2026 12:00:30 GMT", None),
    ],
)
def test_given_a_retry_after_when_read_then_it_is_seconds_from_now_within_the_cap(
    value: str, wait_s: float | None
) -> None:
    assert retry_after_s(value, NOW, cap_s=60) == wait_s


@pytest.mark.parametrize(
    ("values", "out"),
    [
        ([], False),
        (["noindex, nofollow"], False),
        (["noai"], True),
        (["NoAI"], True),
        (["noimageai"], True),
        (["noindex", "nofollow, noai"], True),
        (["captionq: noai"], True),
        (["CaptionQ: noindex, noai"], True),
        (["*: noai"], True),
        (["otherbot: noai"], False),
        (["otherbot: noindex, noai"], False),
        (["otherbot: noai, captionq: noai"], True),
        (["otherbot: noai", "noai"], True),
        (["unavailable_after: 25 Jun 2030 15:00:00 PST, noai"], True),
        (["max-snippet:-1, noai"], True),
        (["noairplanes"], False),
        (["", ",:,"], False),
    ],
)
def test_given_robots_headers_when_read_then_an_opt_out_counts_if_it_is_meant_for_us(
    values: list[str], out: bool
) -> None:
    assert opted_out(values, "captionq") is out
