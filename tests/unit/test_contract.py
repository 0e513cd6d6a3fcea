"""The contract: what is a valid job, what its JSON is, what a result says."""

import json
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from producer.contract import (
    Caption,
    CaptionJob,
    CaptionOptions,
    ErrorCode,
    JobError,
    JobFailed,
    JobResult,
    JobState,
    Match,
    MatchJob,
    RegionCaptions,
    Timings,
    parse_job,
    public_uri,
    schema,
)
from producer.errors import PUBLIC_TEXT, TRANSIENT
from producer.framing import box_of
from worker.blip import CaptionOptions as EngineOptions

IMAGE = "https://example.com/cat.jpg"
CAPTION: dict[str, Any] = {
    "text": "a cat",
    "tokens": ("a", "cat"),
    "token_logprobs": (-0.5, -0.5),
    "processed_token_logprobs": (-0.25, -0.5),
    "logprob": -1.0,
    "mean_logprob": -0.5,
    "score": -0.5,
    "finish_reason": "stop",
}
MATCH: dict[str, Any] = {
    "text": "a cat",
    "itm_probability": 0.5,
    "itm_logit": 0.0,
    "itc_cosine": 0.5,
}


@pytest.mark.parametrize(
    "uri",
    [
        "https://example.com/cat.jpg",
        "http://example.com:8080/cat.jpg?size=2#top",
        "HTTPS://example.com/cat.jpg",
        "s3://photos/2026/cat.jpg",
        "s3://photos/cat.jpg?versionId=3",
        "file:///srv/images/cat%20one.jpg",
        "file://localhost/srv/cat.jpg",
        "https://example.com/katzenöhr.jpg",
    ],
)
def test_an_image_uri_is_taken_as_it_is(uri: str) -> None:
    assert CaptionJob(image=uri).image == uri


@pytest.mark.parametrize(
    "uri",
    [
        pytest.param("", id="empty"),
        pytest.param("cat.jpg", id="a bare path"),
        pytest.param("ftp://example.com/cat.jpg", id="another scheme"),
        pytest.param("data:image/png;base64,AAAA", id="data"),
        pytest.param("https:///cat.jpg", id="no host"),
        pytest.param("https://[::1/cat.jpg", id="a broken IPv6 address"),
        pytest.param("https://example.com/a b.jpg", id="a space"),
        pytest.param("https://example.com/\r\nHost: x", id="a line break"),
        pytest.param("https://example.com\\@evil.example/", id="a backslash"),
        pytest.param("https://example.com/\u202egpj.cat", id="a hidden character"),
        pytest.param("s3://photos", id="no key"),
        pytest.param("s3://photos/", id="an empty key"),
        pytest.param("file://server/share/cat.jpg", id="a file elsewhere"),
        pytest.param("https://example.com/" + "a" * 2_048, id="too long"),
    ],
)
def test_what_is_no_image_uri_is_refused(uri: str) -> None:
    with pytest.raises(ValidationError):
        CaptionJob(image=uri)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"num_beams": 0}, id="no beams"),
        pytest.param({"num_beams": 11}, id="too many beams"),
        pytest.param({"num_beams": "3"}, id="text for a number"),
        pytest.param({"num_beams": True}, id="a truth for a number"),
        pytest.param({"max_new_tokens": 512}, id="too many tokens"),
        pytest.param({"min_new_tokens": 9, "max_new_tokens": 8}, id="least above most"),
        pytest.param({"num_beams": 2, "num_return_sequences": 3}, id="more captions than beams"),
        pytest.param({"length_penalty": float("nan")}, id="not a number"),
        pytest.param({"diversity_penalty": 1.0}, id="an unknown option"),
        pytest.param({"do_sample": True, "num_beams": 3}, id="samples of a search"),
        pytest.param({"do_sample": True, "num_return_sequences": 11}, id="too many samples"),
        pytest.param({"do_sample": True, "temperature": 0.0}, id="no temperature"),
        pytest.param({"do_sample": True, "top_p": 1.5}, id="more than all of the mass"),
        pytest.param({"do_sample": True, "min_p": -0.1}, id="less than nothing"),
        pytest.param({"do_sample": True, "top_k": -1}, id="fewer than no tokens"),
        pytest.param({"do_sample": True, "seed": 2**53}, id="a seed JSON cannot carry"),
        pytest.param({"seed": 1}, id="a seed without sampling"),
        pytest.param({"top_p": 0.5}, id="a sampler without sampling"),
        pytest.param({"repetition_penalty": 0.0}, id="no penalty that divides"),
        pytest.param({"no_repeat_ngram_size": -1}, id="negative n-grams"),
        pytest.param({"max_chars": 0}, id="no characters"),
        pytest.param({"stop_strings": ("",)}, id="an empty stop string"),
        pytest.param({"stop_strings": "."}, id="one text for several"),
        pytest.param({"stop_strings": ("a",) * 5}, id="more stop strings than four"),
        pytest.param({"stop_strings": ("a" * 33,)}, id="a long stop string"),
        pytest.param({"bad_words": (" ",)}, id="a banned text without words"),
        pytest.param({"bad_words": ("a",) * 65}, id="too many banned words"),
        pytest.param({"early_stopping": "always"}, id="no such way to stop early"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        CaptionOptions(**options)


def test_given_sampling_then_there_is_no_search_unless_it_is_asked_for() -> None:
    assert CaptionOptions(do_sample=True, num_return_sequences=10).num_beams == 1
    assert CaptionOptions().num_beams == 3


def test_every_option_of_the_contract_is_one_of_the_engine_with_its_default() -> None:
    ours = CaptionOptions().model_dump(exclude={"style"})  # of the contract alone
    engines = asdict(EngineOptions())
    assert engines.pop("whole_words") is False  # every style asks for it
    assert ours == engines


@pytest.mark.parametrize(
    "job",
    [
        pytest.param({"image": IMAGE, "job_id": ""}, id="an empty id"),
        pytest.param({"image": IMAGE, "job_id": "a" * 201}, id="a long id"),
        pytest.param({"image": IMAGE, "job_id": "-a"}, id="an id that looks like an option"),
        pytest.param({"image": IMAGE, "job_id": "a b"}, id="an id with a space"),
        pytest.param({"image": IMAGE, "job_id": "a\n"}, id="an id with a line break"),
        pytest.param({"image": IMAGE, "colour": "red"}, id="an unknown field"),
        pytest.param({"image": IMAGE, "submitted_at": datetime(2026, 1, 1)}, id="no time zone"),  # noqa: DTZ001
        pytest.param({"image": IMAGE, "schema_version": 0}, id="version 0"),
        pytest.param({}, id="no image"),
    ],
)
def test_a_job_that_does_not_follow_the_contract_is_refused(job: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        CaptionJob(**job)


@pytest.mark.parametrize(
    ("given", "fewest"),
    [
        pytest.param({}, 5, id="neither"),
        pytest.param({"max_new_tokens": 3}, 3, id="a most below 5"),
        pytest.param({"max_new_tokens": 30}, 5, id="a most above 5"),
        pytest.param({"max_new_tokens": 3, "min_new_tokens": 0}, 0, id="both"),
    ],
)
def test_given_no_fewest_tokens_it_is_5_or_the_most(given: dict[str, int], fewest: int) -> None:
    job = parse_job("caption", {"image": IMAGE, "options": given})

    assert isinstance(job, CaptionJob)
    assert job.options.min_new_tokens == fewest
    assert parse_job("caption", job.model_dump(mode="json")) == job


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"max_new_tokens": 3, "min_new_tokens": 5}, "min_new_tokens is above max_new_tokens"),
        ({"min_new_tokens": None}, "options.min_new_tokens: Input should be a valid integer"),
        ({"max_new_tokens": 0}, "options.max_new_tokens: Input should be greater"),
    ],
)
def test_given_token_bounds_that_contradict_the_refusal_names_the_fault_alone(
    options: dict[str, Any], says: str
) -> None:
    with pytest.raises(JobFailed) as failure:
        parse_job("caption", {"image": IMAGE, "options": options})

    assert says in failure.value.message
    assert "factory" not in failure.value.message


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("https://example.com/cat.jpg?X-Amz-Signature=abc#top", "https://example.com/cat.jpg"),
        ("https://example.com/cat.jpg#token=abc?x", "https://example.com/cat.jpg"),
        ("HTTP://example.com?token=abc", "HTTP://example.com"),
        (" https://example.com/cat.jpg?token=abc", " https://example.com/cat.jpg"),
        ("https://example.com/cat.jpg", "https://example.com/cat.jpg"),
        ("https://me:secret@example.com/cat.jpg", "https://example.com/cat.jpg"),
        ("https://me@home:p@ss@example.com", "https://example.com"),
        ("https://example.com/users/@me/cat.jpg", "https://example.com/users/@me/cat.jpg"),
        ("s3://photos/cat.jpg?versionId=1", "s3://photos/cat.jpg?versionId=1"),
        ("S3://photos/cat.jpg?versionId=1", "S3://photos/cat.jpg?versionId=1"),
        ("file:///srv/why%3F#1.jpg", "file:///srv/why%3F#1.jpg"),
        ("", ""),
    ],
)
def test_given_a_signed_url_only_its_place_is_shown(uri: str, shown: str) -> None:
    assert public_uri(uri) == shown


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize(
    ("model", "fields", "name"),
    [
        (Caption, CAPTION, "logprob"),
        (Caption, CAPTION, "mean_logprob"),
        (Caption, CAPTION, "score"),
        (Match, MATCH, "itm_logit"),
        (Match, MATCH, "itm_probability"),
        (Match, MATCH, "itc_cosine"),
        (Timings, {}, "infer_ms"),
    ],
)
def test_given_a_number_json_cannot_carry_a_result_is_refused(
    model: type[BaseModel], fields: dict[str, Any], name: str, number: float
) -> None:
    with pytest.raises(ValidationError, match=name):
        model(**{**fields, name: number})


def test_given_a_token_with_no_finite_logprob_its_caption_is_refused() -> None:
    with pytest.raises(ValidationError, match="token_logprobs"):
        Caption(**{**CAPTION, "token_logprobs": (-0.5, float("-inf"))})


@pytest.mark.parametrize("texts", [(), ("",), ("a",) * 257, ("a" * 2_001,)])
def test_texts_to_match_are_between_bounds(texts: tuple[str, ...]) -> None:
    with pytest.raises(ValidationError):
        MatchJob(image=IMAGE, texts=texts)


def test_a_job_does_not_change() -> None:
    job = CaptionJob(image=IMAGE)

    with pytest.raises(ValidationError):
        job.image = "https://example.com/dog.jpg"  # type: ignore[misc]


@given(
    beams=st.integers(1, 10),
    prompt=st.none() | st.text(max_size=50).filter(lambda text: text.isprintable()),
    moment=st.none() | st.datetimes(timezones=st.just(UTC)),
)
def test_a_job_survives_the_way_through_celery(
    beams: int, prompt: str | None, moment: datetime | None
) -> None:
    job = CaptionJob(
        image=IMAGE, options=CaptionOptions(num_beams=beams, prompt=prompt), expires_at=moment
    )

    received = json.loads(json.dumps({"job": job.model_dump(mode="json")}))["job"]

    assert parse_job("caption", received) == job
    assert parse_job("caption", job.model_dump_json()) == job


def test_a_match_job_survives_the_way_through_celery() -> None:
    job = MatchJob(image=IMAGE, texts=("a cat", "ein Kätzchen"))

    assert parse_job("match", json.loads(job.model_dump_json())) == job


@pytest.mark.parametrize(
    "job",
    [
        pytest.param("not json", id="not JSON"),
        pytest.param("[]", id="a list"),
        pytest.param(None, id="nothing"),
        pytest.param({"image": 3}, id="a wrong type"),
        pytest.param({"image": IMAGE, "x": object()}, id="no JSON type"),
        pytest.param({"image": IMAGE, "schema_version": "2"}, id="a version that is text"),
        pytest.param("[" * 100_000, id="deep nesting"),
    ],
)
def test_what_is_no_job_is_job_invalid(job: Any) -> None:
    with pytest.raises(JobFailed) as failure:
        parse_job("caption", job)

    assert failure.value.code is ErrorCode.JOB_INVALID


def test_a_refusal_names_the_field_and_not_its_content() -> None:
    with pytest.raises(JobFailed, match=r"options\.num_beams") as failure:
        parse_job("caption", {"image": "https://secret.example/", "options": {"num_beams": 99}})

    assert "secret" not in str(failure.value)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        pytest.param({"mode": "zoom"}, "mode", id="an unknown mode"),
        pytest.param({"resolution": 0}, "resolution", id="no resolution"),
        pytest.param({"resolution": 384.0}, "resolution", id="no whole number"),
        pytest.param({"regions": []}, "regions", id="no region"),
        pytest.param({"regions": [[0, 0, 9, 9]] * 65}, "regions", id="too many regions"),
        pytest.param({"regions": [[0, 0, 9]]}, "regions.0.3", id="three numbers"),
        pytest.param({"regions": [[0, 0, 9, 9], [5, 5, 5, 9]]}, "regions.1", id="no width"),
        pytest.param({"regions": [[0, 9, 9, 8]]}, "regions.0", id="upside down"),
        pytest.param({"regions": [[-1, 0, 9, 9]]}, "regions.0.0", id="outside to the left"),
        pytest.param({"regions": [[0, 0, 9.5, 9]]}, "regions.0.2", id="half pixels"),
        pytest.param({"regions": [[0, 0, 9, 65_536]]}, "regions.0.3", id="beyond any image"),
    ],
)
def test_a_framing_that_cannot_be_is_refused_by_name(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(JobFailed, match=f" {named}: ") as failure:
        parse_job("caption", {"image": IMAGE, **fields})

    assert failure.value.code is ErrorCode.JOB_INVALID


def test_an_image_is_squashed_whole_at_the_models_size_unless_the_job_says_otherwise() -> None:
    job = parse_job("caption", {"image": IMAGE})
    assert (job.mode, job.resolution) == ("stretch", None)
    assert isinstance(job, CaptionJob)
    assert job.regions is None

    fields = {"mode": "native", "resolution": 576, "regions": [[0, 0, 9, 9], [1, 2, 3, 4]]}
    job = parse_job("caption", {"image": IMAGE, **fields})
    assert json.loads(job.model_dump_json()) | fields == json.loads(job.model_dump_json())


def test_regions_are_for_captions() -> None:
    with pytest.raises(JobFailed, match="regions: Extra inputs"):
        parse_job("match", {"image": IMAGE, "texts": ["a"], "regions": [[0, 0, 9, 9]]})
    assert parse_job("match", {"image": IMAGE, "texts": ["a"], "mode": "pad"}).mode == "pad"


def test_the_captions_of_regions_survive_json_with_their_boxes() -> None:
    regions = (RegionCaptions(box=(0, 0, 9, 9), captions=(Caption(**CAPTION),)),)
    found = result(JobState.SUCCEEDED).model_copy(update={"regions": regions})

    assert JobResult.model_validate_json(found.model_dump_json()) == found


@pytest.mark.parametrize("text", ["0,0,9", "a,b,c,d", "0,0,9,9,9", "", "0;0;9;9", "-1,0,9,9"])
def test_a_region_typed_wrongly_is_refused_with_its_text(text: str) -> None:
    with pytest.raises(ValueError, match="a region") as failure:
        box_of(text)
    assert repr(text) in str(failure.value)


def test_a_region_is_typed_as_four_numbers() -> None:
    assert box_of("0, 1,20,30") == (0, 1, 20, 30)
    with pytest.raises(ValueError, match="left < right"):
        box_of("5,0,5,9")


def test_a_newer_version_is_told_apart_from_a_bad_job() -> None:
    with pytest.raises(JobFailed) as failure:
        parse_job("caption", {"image": IMAGE, "schema_version": 2, "new": "field"})

    assert failure.value.code is ErrorCode.SCHEMA_UNSUPPORTED


def test_every_code_has_a_public_text_and_every_transient_one_is_a_code() -> None:
    assert set(PUBLIC_TEXT) == set(ErrorCode)
    assert set(ErrorCode) >= TRANSIENT


def test_a_failure_carries_its_code_and_text_where_only_arguments_travel() -> None:
    failure = JobFailed(ErrorCode.HTTP_4XX)

    assert failure.args == ("http_4xx", PUBLIC_TEXT[ErrorCode.HTTP_4XX])
    assert str(JobFailed(*failure.args)) == str(failure)


@pytest.mark.parametrize(
    ("state", "terminal"),
    [
        (JobState.QUEUED, False),
        (JobState.RUNNING, False),
        (JobState.SUCCEEDED, True),
        (JobState.FAILED, True),
        (JobState.CANCELLED, True),
        (JobState.DEAD, True),
    ],
)
def test_four_states_are_the_last(state: JobState, terminal: bool) -> None:
    assert state.terminal is terminal


def result(state: JobState, error: JobError | None = None) -> JobResult:
    return JobResult(
        job_id="a",
        task="caption",
        state=state,
        attempts=1,
        error=error,
        finished_at=datetime(2026, 1, 1, tzinfo=UTC),
    )


def test_a_success_is_returned_and_anything_else_raised() -> None:
    success = result(JobState.SUCCEEDED)
    failed = result(JobState.FAILED, JobError.of(JobFailed(ErrorCode.IMAGE_EMPTY)))

    assert success.raise_for_state() is success
    with pytest.raises(JobFailed, match="image_empty"):
        failed.raise_for_state()
    with pytest.raises(JobFailed, match="internal_error"):
        result(JobState.DEAD).raise_for_state()


def test_a_result_survives_json() -> None:
    failed = result(JobState.FAILED, JobError.of(JobFailed(ErrorCode.IMAGE_EMPTY)))

    assert JobResult.model_validate_json(failed.model_dump_json()) == failed


def test_the_schema_describes_what_is_on_the_wire() -> None:
    described = schema()

    alone = {"CaptionJob", "MatchJob", "EmbedJob", "RankJob", "ExplainJob"}
    chunks = {"CaptionChunk", "MatchChunk", "EmbedChunk", "RankChunk"}
    assert set(described) == alone | chunks | {"JobResult"}
    assert described["CaptionJob"]["additionalProperties"] is False
    assert json.loads(json.dumps(described)) == described
