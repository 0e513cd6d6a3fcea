"""Chunks on the wire."""

import json
from typing import Any

import pytest
from pydantic import ValidationError

from producer.contract import (
    MAX_CHUNK,
    MAX_CHUNK_BYTES,
    CaptionChunk,
    CaptionJob,
    ErrorCode,
    JobFailed,
    MatchChunk,
    MatchJob,
    images_shown,
    parse_job,
)
from producer.options import CaptionOptions
from producer.queues import queue_for
from producer.signing import Keys, Verifier, new_key
from producer.submission import prepared
from producer.words import outcome
from tests.stand_in_worker import succeeded

IMAGE = "https://example.com/cat.jpg"


def test_given_a_chunk_then_what_is_sent_is_read_as_the_same() -> None:
    chunk = CaptionChunk(
        job_id="a", images=(IMAGE, "s3://b/c"), sink="s3://b/shards/", options=CaptionOptions()
    )
    assert parse_job("caption_chunk", chunk.model_dump_json()) == chunk
    assert parse_job("caption_chunk", chunk.model_dump(mode="json")) == chunk
    match = MatchChunk(images=(IMAGE,), texts=("a cat",))
    assert parse_job("match_chunk", match.model_dump(mode="json")) == match


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"images": []}, id="no images"),
        pytest.param({"images": [IMAGE] * (MAX_CHUNK + 1)}, id="too many"),
        pytest.param({"images": [IMAGE, "gopher://a/b"]}, id="a scheme that is none"),
        pytest.param({"images": IMAGE}, id="one in place of a list"),
        pytest.param({"image": IMAGE}, id="no list"),
        pytest.param({"images": [IMAGE], "regions": [[0, 0, 1, 1]]}, id="regions"),
        pytest.param({"images": [IMAGE], "sink_format": "csv"}, id="a format that is none"),
        *(
            pytest.param({"images": [IMAGE], "sink": sink}, id=f"sink {sink!r}")
            for sink in (
                "",
                "s3://bucket",
                "s3:///key/",
                "s3://bucket/key",
                "file://host/folder/",
                "file:///folder",
                "https://example.com/",
                "s3://bucket/a b/",
                "s3://bucket/a/?x=/",
                "file:///a\\/",
                "s3://b/" + "x" * 1_020 + "/",
            )
        ),
    ],
)
def test_given_what_is_no_chunk_then_it_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(JobFailed) as failure:
        parse_job("caption_chunk", fields)
    assert failure.value.code is ErrorCode.JOB_INVALID


@pytest.mark.parametrize("sink", ["s3://bucket/", "s3://bucket/a/b/", "file:///", "file:///a/"])
def test_given_a_folder_then_it_is_a_sink(sink: str) -> None:
    assert CaptionChunk(images=(IMAGE,), sink=sink).sink == sink


@pytest.mark.parametrize(
    ("chunk", "one"),
    [
        (
            CaptionChunk(
                job_id="a", images=(IMAGE, "s3://b/c"), model="m", mode="pad", resolution=576
            ),
            CaptionJob(
                job_id="a", image="s3://b/c", model="m", mode="pad", resolution=576, lane="bulk"
            ),
        ),
        (
            MatchChunk(images=(IMAGE, "s3://b/c"), texts=("a", "b")),
            MatchJob(image="s3://b/c", texts=("a", "b"), lane="bulk"),
        ),
    ],
)
def test_given_a_chunk_then_the_job_of_one_of_its_images_asks_for_the_same(
    chunk: Any, one: Any
) -> None:
    assert chunk.one(1) == one
    assert type(one).model_validate(chunk.one(1).model_dump()) == one


@pytest.mark.parametrize(
    ("job", "shown"),
    [
        pytest.param({"image": f"{IMAGE}?key=5ecret"}, IMAGE, id="an image"),
        pytest.param({"images": [f"{IMAGE}?k=1"]}, f"1 image from {IMAGE}", id="one of a chunk"),
        pytest.param({"images": [IMAGE, "s3://b/c"]}, f"2 images from {IMAGE}", id="a chunk"),
        pytest.param({"images": []}, None, id="none"),
        pytest.param({"images": [7]}, None, id="a number"),
        pytest.param({"images": IMAGE}, None, id="text for a list"),
        pytest.param({"image": "https://a/\ud800"}, None, id="half a character"),
        pytest.param({"image": None}, None, id="null"),
        pytest.param({"recorded": "a"}, None, id="where it is recorded"),
        pytest.param([IMAGE], None, id="a list"),
        pytest.param(None, None, id="nothing"),
    ],
)
def test_given_whatever_came_then_what_is_shown_of_it_holds_no_secret(
    job: Any, shown: str | None
) -> None:
    assert images_shown(job) == shown


def test_given_a_chunk_then_it_is_bulk_and_a_job_is_interactive_unless_they_say() -> None:
    assert CaptionChunk(images=(IMAGE,)).lane == "bulk"
    assert CaptionJob(image=IMAGE).lane == "interactive"
    assert CaptionChunk(images=(IMAGE,), lane="interactive").lane == "interactive"
    with pytest.raises(ValidationError):
        CaptionJob.model_validate({"image": IMAGE, "lane": "fast"})


def test_given_a_chunk_then_it_goes_where_its_images_would_go_one_by_one() -> None:
    assert queue_for("caption_chunk", "org/blip") == queue_for("caption", "org/blip")
    assert queue_for("match_chunk") == "captionq.match"


def test_given_sixty_four_long_addresses_then_they_are_one_chunk_and_much_more_is_not() -> None:
    long = "https://example.com/" + "x" * 2_000
    chunk = prepared(CaptionChunk(images=(long,) * MAX_CHUNK))
    assert 128_000 < len(chunk.model_dump_json()) < MAX_CHUNK_BYTES
    texts = ("x" * 2_000,) * 100
    with pytest.raises(JobFailed, match="at most 262144"):
        prepared(MatchChunk(images=(long,) * MAX_CHUNK, texts=texts))


def test_given_a_key_then_a_chunk_is_signed_with_all_its_images() -> None:
    keys = Keys.parse(new_key("here"))
    chunk = prepared(CaptionChunk(images=(IMAGE, "s3://b/c")), keys)
    body = json.loads(chunk.model_dump_json())
    verifier = Verifier(keys)
    assert verifier.verified("caption_chunk", str(chunk.job_id), body) == body
    changed = body | {"images": body["images"][::-1]}
    with pytest.raises(ValueError, match="wrong"):
        verifier.verified("caption_chunk", str(chunk.job_id), changed)


@pytest.mark.parametrize(
    ("shard", "words"),
    [
        (None, "2 succeeded, 1 http_4xx"),
        ("s3://b/a.jsonl", "2 succeeded, 1 http_4xx: s3://b/a.jsonl"),
    ],
)
def test_given_a_chunks_result_then_people_are_told_how_many_ended_how(
    shard: str | None, words: str
) -> None:
    counts = {"succeeded": 2, "http_4xx": 1}
    result = succeeded(CaptionChunk(job_id="a", images=(IMAGE,)))
    assert outcome(result.model_copy(update={"counts": counts, "shard": shard})) == words
