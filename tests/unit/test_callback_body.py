"""What a receiver is told, and what is left out of it."""

import json
from typing import Any

import pytest

from worker.callbacks.body import MAX_BODY_BYTES, body

AT = "2026-01-02T03:04:05Z"


def caption(**more: Any) -> dict[str, Any]:
    return {"text": "a cat", "tokens": ["a", "cat"], "token_logprobs": [-0.1, -0.2], **more}


def data(**more: Any) -> dict[str, Any]:
    return {"job_id": "a", "task": "caption", "state": "succeeded", "finished_at": AT, **more}


def told(given: dict[str, Any]) -> dict[str, Any]:
    text = body("job.succeeded", AT, given)
    assert len(text) <= MAX_BODY_BYTES
    said: dict[str, Any] = json.loads(text)
    return said


BIG = ["x" * 100] * 250
"""More than a body may have."""
HALF = ["x" * 100] * 120


def test_a_small_result_is_told_whole_without_fields_that_say_nothing() -> None:
    said = told(data(captions=[caption(seed=None)], error=None))

    assert said == {"type": "job.succeeded", "timestamp": AT, "data": data(captions=[caption()])}


@pytest.mark.parametrize(
    ("given", "left_out", "kept"),
    [
        pytest.param(
            {"captions": [caption(explanation={"words": BIG})]},
            ["explanation"],
            {"captions": [caption()]},
            id="where the model looked, first",
        ),
        pytest.param(
            {"captions": [caption()], "embeddings": [BIG]},
            ["embeddings"],
            {"captions": [caption()]},
            id="then vectors",
        ),
        pytest.param(
            {"captions": [caption(processed_token_logprobs=BIG)], "matches": HALF},
            ["tokens", "token_logprobs", "processed_token_logprobs"],
            {"captions": [{"text": "a cat"}], "matches": HALF},
            id="then tokens",
        ),
        pytest.param(
            {"captions": [{"text": "a cat"}], "items": BIG, "ranking": HALF},
            ["items"],
            {"captions": [{"text": "a cat"}], "ranking": HALF},
            id="then the largest list",
        ),
        pytest.param(
            {"items": BIG, "ranking": BIG}, ["items", "ranking"], {}, id="and as many as it takes"
        ),
        pytest.param(
            {"captions": [caption(explanation={"words": BIG})], "matches": BIG},
            ["explanation", "tokens", "token_logprobs", "matches"],
            {"captions": [{"text": "a cat"}]},
            id="several kinds",
        ),
        pytest.param(
            {"error": {"code": "job_invalid", "message": "y" * 30_000}, "attempts": 1},
            ["error", "attempts"],
            {},
            id="all but its id, at the worst",
        ),
        pytest.param({"captions": [{"text": "猫" * 9_000}]}, ["captions"], {}, id="bytes count"),
    ],
)
def test_what_a_large_result_is_told_without(
    given: dict[str, Any], left_out: list[str], kept: dict[str, Any]
) -> None:
    said = told(data(**given))

    assert said["left_out"] == left_out
    assert said["data"] == data(**kept)


def test_half_a_character_can_be_told() -> None:
    assert told(data(image_ref="\ud800"))["data"]["image_ref"] == "\ud800"
