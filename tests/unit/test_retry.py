"""The retry policy as a table."""

import random

import pytest

from producer.errors import PUBLIC_TEXT, TRANSIENT, ErrorCode
from worker.retry import CAP_S, delay_s


@pytest.mark.parametrize("code", list(ErrorCode))
def test_every_code_has_one_public_text_and_one_kind(code: ErrorCode) -> None:
    assert PUBLIC_TEXT[code].endswith(".")
    second = {ErrorCode.DECODE_CRASHED, ErrorCode.INTERNAL_ERROR}
    tries = 3 if code in TRANSIENT else 2 if code in second else 1
    if code is ErrorCode.SCHEMA_UNSUPPORTED:
        tries = 10
    if code is ErrorCode.SINK_UNAVAILABLE:
        tries = 8
    rng = random.Random(1)
    retried = [delay_s(code, attempt, rng) is not None for attempt in range(1, 13)]
    assert retried == [attempt < tries for attempt in range(1, 13)]


@pytest.mark.parametrize(
    ("attempt", "retry_after_s", "low_s", "high_s"),
    [
        pytest.param(1, None, 0.5, 1.0, id="first"),
        pytest.param(2, None, 1.0, 2.0, id="second doubles"),
        pytest.param(1, 7.0, 7.0, 7.0, id="the source says longer"),
        pytest.param(2, 0.1, 1.0, 2.0, id="the source says shorter"),
        pytest.param(1, 9_999.0, CAP_S, CAP_S, id="the source says absurdly long"),
    ],
)
def test_given_a_transient_error_the_wait_is_jittered_and_capped(
    attempt: int, retry_after_s: float | None, low_s: float, high_s: float
) -> None:
    waits = [
        delay_s(ErrorCode.HTTP_5XX, attempt, random.Random(seed), retry_after_s)
        for seed in range(50)
    ]
    assert all(wait is not None and low_s <= wait <= high_s for wait in waits)
