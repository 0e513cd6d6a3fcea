"""Languages and adapters on the wire, and what a cache makes of the packs that they came to."""

from dataclasses import dataclass, replace
from typing import Any, cast

import pytest
import redis

from producer.contract import (
    JOB_MODELS,
    CaptionJob,
    ErrorCode,
    JobFailed,
    JobResult,
    JobState,
    ModelFacts,
    PackFacts,
    parse_job,
    schema,
    utcnow,
)
from producer.errors import TRANSIENT
from producer.signing import Keys, Verifier, new_key
from producer.submission import prepared
from worker.packs.answering import NO_PACKS, Answering
from worker.result_cache import ResultCache

IMAGE = "https://example.com/cat.jpg"
FIELDS: dict[str, dict[str, Any]] = {
    "caption": {"image": IMAGE},
    "match": {"image": IMAGE, "texts": ["a"]},
    "embed": {"texts": ["a"]},
    "rank": {"image": IMAGE, "texts": ["a"]},
    "explain": {"image": IMAGE, "texts": ["a"]},
    "caption_chunk": {"images": [IMAGE]},
    "match_chunk": {"images": [IMAGE], "texts": ["a"]},
    "embed_chunk": {"images": [IMAGE]},
    "rank_chunk": {"images": [IMAGE], "text": "a"},
}


@pytest.mark.parametrize("task", JOB_MODELS)
def test_every_job_may_ask_for_a_language_and_an_adapter(task: str) -> None:
    job: Any = parse_job(task, FIELDS[task] | {"language": "de-AT", "adapter": "medical-v2"})
    assert (job.language, job.adapter) == ("de-AT", "medical-v2")
    one = job.one(0) if task.endswith("_chunk") else job
    assert (one.language, one.adapter) == ("de-AT", "medical-v2")
    assert {"language", "adapter"} <= set(schema()[type(job).__name__]["properties"])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("language", ""),
        ("language", "d"),
        ("language", "*"),
        ("language", "de_AT"),
        ("language", "de-"),
        ("language", "de\n"),
        ("language", "de-" + "a" * 40),
        ("language", "../de"),
        ("adapter", ""),
        ("adapter", "../x"),
        ("adapter", "/etc/passwd"),
        ("adapter", "a/b"),
        ("adapter", ".hidden"),
        ("adapter", "Medical"),
        ("adapter", "a" * 65),
        ("adapter", "a\n"),
    ],
)
def test_what_is_no_tag_or_no_name_is_refused_by_its_field(field: str, value: str) -> None:
    with pytest.raises(JobFailed, match=f" {field}: ") as caught:
        parse_job("caption", {"image": IMAGE, field: value})
    assert caught.value.code is ErrorCode.JOB_INVALID


def test_a_language_that_there_is_not_is_for_good() -> None:
    assert ErrorCode.LANGUAGE_UNAVAILABLE not in TRANSIENT


def test_a_signature_is_of_the_language_too() -> None:
    keys = Keys.parse(new_key("here"))
    sent = prepared(CaptionJob(image=IMAGE, language="de"), keys).model_dump(mode="json")
    verifier = Verifier(keys)
    assert verifier.verified("caption", sent["job_id"], sent) == sent
    with pytest.raises(ValueError, match="wrong"):
        verifier.verified("caption", sent["job_id"], sent | {"language": "fr"})


PACK = PackFacts(name="shop", language=None, revision="012345678901")


@pytest.mark.parametrize(("pack", "revision"), [(None, "abc"), (PACK, "abc+shop.012345678901")])
def test_a_result_says_the_space_of_its_vectors(pack: PackFacts | None, revision: str) -> None:
    facts = ModelFacts(id="blip", revision="abc", dtype="float32")
    result = JobResult(
        job_id="a",
        task="match",
        state=JobState.SUCCEEDED,
        attempts=1,
        model=facts,
        pack=pack,
        finished_at=utcnow(),
    )
    assert result.space == ("blip", revision)
    assert JobResult.model_validate_json(result.model_dump_json()) == result


@dataclass(frozen=True, eq=False)
class FakePack:
    name: str = "de"
    language: str | None = "de"
    revision: str = "012345678901"


def test_answers_are_kept_by_the_pack_that_gave_them() -> None:
    cache = ResultCache(cast(redis.Redis, None), 60, lambda _, packs: packs.facts_json)
    job = CaptionJob(image=IMAGE)

    def key(pack: FakePack | None = None, weigher: FakePack | None = None, **asked: str) -> Any:
        packs = Answering(cast(Any, pack), cast(Any, weigher)) if pack or weigher else NO_PACKS
        return cache.key(job.model_copy(update=asked), b"file", packs)

    pack = FakePack()
    keys = [
        key(),
        key(pack),
        key(replace(pack, revision="1" * 12)),
        key(replace(pack, name="formal")),
        key(weigher=pack),
    ]
    assert len(set(keys)) == 5
    assert key(language="en") == key()
    assert key(pack, language="de-AT") == key(pack, adapter="de") == key(pack)
