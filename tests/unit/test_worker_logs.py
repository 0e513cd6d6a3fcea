"""Log lines: one object each, whatever is in it; a job's line has the keys that are documented."""

import io
import json
import logging
import time
from collections.abc import Iterator
from typing import Any

import pytest

from producer.contract import (
    ErrorCode,
    JobError,
    JobFailed,
    JobResult,
    JobState,
    Timings,
    utcnow,
)
from tests.monitoring import ROOT, table
from worker.job_log import KEYS, log_ended
from worker.logs import MAX_TRACEBACK, MAX_VALUE, dress, safe

DOC = (ROOT / "docs/metrics.md").read_text()
SIGNED = "https://me:pw@bucket.example/cat.png?X-Amz-Signature=abc&X-Amz-Credential=id"


class Lines:
    """A logger, and what it has written."""

    def __init__(self, kind: Any) -> None:
        self._out = io.StringIO()
        handler = logging.StreamHandler(self._out)
        dress([handler], kind)
        self.logger = logging.getLogger("worker")
        self.logger.addHandler(handler)
        self.handler = handler

    @property
    def text(self) -> str:
        return self._out.getvalue()

    @property
    def objects(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text.splitlines()]


@pytest.fixture(params=["json", "text"])
def lines(request: pytest.FixtureRequest) -> Iterator[Lines]:
    yield from written(request.param)


@pytest.fixture
def objects() -> Iterator[Lines]:
    yield from written("json")


def written(kind: str) -> Iterator[Lines]:
    found = Lines(kind)
    level = found.logger.level
    found.logger.setLevel(logging.INFO)
    try:
        yield found
    finally:
        found.logger.setLevel(level)
        found.logger.removeHandler(found.handler)


def result(**fields: Any) -> JobResult:
    return JobResult.model_validate(
        {
            "job_id": "a",
            "task": "caption",
            "state": JobState.SUCCEEDED,
            "attempts": 1,
            "finished_at": utcnow(),
            **fields,
        }
    )


HOSTILE = [
    "two\nlines",
    "carriage\rreturn",
    "\x1b[2Jcleared",
    '"},{"event":"forged"',
    "line\u2028separator",
    "nul\x00byte",
    "\x85next line",
]


@pytest.mark.parametrize("value", HOSTILE, ids=range(len(HOSTILE)))
def test_given_a_hostile_value_a_line_is_one_line(lines: Lines, value: str) -> None:
    lines.logger.info("job %s is refused", value)
    lines.logger.info("the next")
    assert len(lines.text.splitlines()) == 2
    assert "\x1b" not in lines.text
    lines.text.encode(errors="strict")


def test_given_half_a_character_a_line_can_be_written() -> None:
    assert safe("half \ud800").encode() == b"half \\ud800"


def test_given_json_what_was_said_is_in_the_object(objects: Lines) -> None:
    objects.logger.warning("job %r goes back", "ünï")
    [line] = objects.objects
    assert line["event"] == "job 'ünï' goes back"
    assert (line["level"], line["logger"]) == ("warning", "worker")
    assert line["timestamp"].endswith("Z")


def test_given_a_signed_url_its_query_and_password_are_left_out(lines: Lines) -> None:
    lines.logger.info("fetching %s, then %r", SIGNED, {"url": SIGNED})
    try:
        raise ValueError(SIGNED)
    except ValueError:
        lines.logger.exception("no image")
    for secret in ("Signature", "Credential", "pw", "me:"):
        assert secret not in lines.text
    assert "bucket.example/cat.png" in lines.text


SECRETS = [
    "whsec_5ecret",
    "Bearer 5ecret",
    "Authorization: Basic 5ecret",
    "password=5ecret",
    "AWS_SECRET_ACCESS_KEY=5ecret",
    "{'password': '5ecret'}",
    '{"secret": "5ecret"}',
    "redis://:a@5ecret@host:6379/0",
    "rediss://user:a/5ecret@host:6379/0",
    "sentinel://:a@one:26379;sentinel://:5ecret@two:26379",
    "https:\\/\\/me:5ecret@host\\/a",
    "https://host/a.png#access_token=5ecret",
    "https://host/a.png?of=o'brien&X-Amz-Signature=5ecret",
    "exceeded with url: /bucket/a.png?X-Amz-Credential=me&X-Amz-Signature=5ecret",
    "input_value='data:image/png;base64,5ecret'",
]


@pytest.mark.parametrize("secret", SECRETS)
def test_given_a_secret_it_is_left_out(lines: Lines, secret: str) -> None:
    lines.logger.info("with %s , then more", secret)
    assert "5ecret" not in lines.text
    assert "then more" in lines.text


@pytest.mark.parametrize("hostile", ["redis://", "x://", "data:", "password", "https://a@"])
def test_given_a_hostile_text_it_is_looked_through_in_a_moment(hostile: str) -> None:
    began_s = time.monotonic()
    safe((hostile * MAX_TRACEBACK)[:MAX_TRACEBACK], MAX_TRACEBACK, lines=True)
    assert time.monotonic() - began_s < 1


def test_given_bytes_of_an_image_most_are_left_out(lines: Lines) -> None:
    lines.logger.info("came: %r", b"\x89PNG" * 10_000)
    assert len(lines.text) < 2 * MAX_VALUE


def test_given_a_trace_its_lines_are_one_value(objects: Lines) -> None:
    try:
        raise RuntimeError("two\nlines")
    except RuntimeError:
        objects.logger.exception("it failed")
    [line] = objects.objects
    assert "Traceback" in line["exception"]
    assert line["exception"].count("\n") > 2


def test_given_a_job_that_succeeded_its_line_has_the_documented_keys(objects: Lines) -> None:
    timings = Timings(queue_ms=1.5, fetch_ms=2, decode_ms=3, infer_ms=4, batch_size=8)
    model = {"id": "bundled", "revision": "abc", "dtype": "float32"}
    pack = {"name": "de", "language": "de", "revision": "012345678901"}
    caption = {
        "text": "a secret caption", "tokens": ("a",), "token_logprobs": (0,), "logprob": 0,
        "processed_token_logprobs": (0,), "mean_logprob": 0, "score": 0, "finish_reason": "stop",
        "seed": None, "count": 1,
    }  # fmt: skip
    log_ended(
        result(timings=timings, model=model, pack=pack, captions=(caption,), image_ref=SIGNED), None
    )
    [line] = objects.objects
    every = {"event", "level", "logger", "timestamp"}
    assert set(line) == every | set(KEYS)
    traced = {"trace_id"}
    assert set(KEYS) == {row[0].strip("`") for row in table(DOC, "Key")} - every - traced
    assert every <= {row[0].strip("`") for row in table(DOC, "Key")}
    assert line["event"] == "job ended"
    assert (line["job_id"], line["state"], line["code"]) == ("a", "succeeded", None)
    assert (line["queue_ms"], line["batch_size"], line["pack"]) == (1.5, 8, "de")
    assert "secret" not in objects.text
    assert "bucket.example" not in objects.text


def test_given_a_job_that_failed_its_line_has_the_same_keys(objects: Lines) -> None:
    error = JobError.of(JobFailed(ErrorCode.HTTP_5XX))
    log_ended(result(state=JobState.FAILED, error=error), {"code": "http_5xx"})
    [line] = objects.objects
    assert set(KEYS) <= set(line)
    assert (line["state"], line["code"], line["dead_letter"]) == ("failed", "http_5xx", True)
    assert (line["images"], line["failed_images"]) == (1, 1)


def test_given_a_chunk_its_line_counts_its_images(objects: Lines) -> None:
    log_ended(result(task="caption_chunk", counts={"succeeded": 5, "http_4xx": 2}), None)
    [line] = objects.objects
    assert (line["images"], line["failed_images"]) == (7, 2)


def test_given_a_level_above_no_line_is_made(objects: Lines) -> None:
    objects.logger.setLevel(logging.WARNING)
    log_ended(result(), None)
    assert objects.text == ""


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("redis://:hunter2@host:6379/0 is away", "redis://***@host:6379/0 is away"),
        ("s3://bucket/a.png", "s3://bucket/a.png"),
        ("'https://h/a?sig=1', next", "'https://h/a?***', next"),
        ("no url? none", "no url? none"),
    ],
)
def test_given_a_text_what_may_be_logged_of_it_is_left(text: str, left: str) -> None:
    assert safe(text) == left
