"""Rules: which objects have which jobs, by ids that the same content has for ever."""

import itertools
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from producer.contract import JOB_ID_PATTERN, CaptionJob, MatchJob
from producer.event_rules import BadRules, NoReference, Rule, Rules
from producer.object_event import ObjectEvent
from producer.settings import ProducerSettings

CAT = ObjectEvent("aws", "created", "photos", "in/cat.JPG", size=1_000, etag="e1", sequencer="61")

PASSING: list[tuple[dict[str, Any], bool]] = [
    ({}, True),
    ({"prefix": "in/"}, True),
    ({"prefix": "out/"}, False),
    ({"prefix": "in/cat.JPG"}, True),
    ({"suffixes": [".png", ".jpg"]}, True),
    ({"suffixes": [".png"]}, False),
    ({"suffixes": []}, False),
    ({"min_bytes": 1_000}, True),
    ({"min_bytes": 1_001}, False),
    ({"max_bytes": 1_000}, True),
    ({"max_bytes": 999}, False),
    ({"allow": ["photos"]}, True),
    ({"allow": ["photos/in/"]}, True),
    ({"allow": ["photos/out/", "photo"]}, False),
    ({"allow": ["other", "photos/in/cat"]}, True),
    ({"allow": []}, False),
]


@pytest.mark.parametrize(("filters", "passes"), PASSING, ids=[str(case[0]) for case in PASSING])
def test_an_object_passes_what_it_fits(filters: dict[str, Any], passes: bool) -> None:
    assert Rule(**filters).takes(CAT) is passes
    assert len(Rules.of([Rule(**filters)]).jobs(CAT)) == passes


def test_given_no_rules_then_an_image_is_captioned_in_the_bulk_lane() -> None:
    (job,) = Rules.of().jobs(CAT)

    assert isinstance(job, CaptionJob)
    assert (job.image, job.lane) == ("s3://photos/in/cat.JPG", "bulk")


@pytest.mark.parametrize("key", ["in/", "/"])
def test_given_the_place_of_a_folder_then_it_is_no_image(key: str) -> None:
    assert Rules.of().jobs(ObjectEvent("aws", "created", "photos", key)) == []


@pytest.mark.parametrize(("size", "jobs"), [(0, 0), (1, 1), (None, 1)])
def test_given_an_empty_object_then_it_is_no_image(size: int | None, jobs: int) -> None:
    event = ObjectEvent("aws", "created", "photos", "cat.jpg", size=size)

    assert len(Rules.of().jobs(event)) == jobs


@pytest.mark.parametrize("size", [None, 0, 5])
def test_given_an_object_that_went_then_its_size_is_no_matter(size: int | None) -> None:
    event = ObjectEvent("ceph", "removed", "photos", "cat.jpg", size=size)

    assert Rule(min_bytes=10).takes(event)
    assert not Rule(prefix="in/").takes(event)


def test_given_several_rules_then_each_that_an_object_passes_has_a_job_of_its_own() -> None:
    rules = Rules.of(
        [
            Rule(name="english"),
            Rule(name="german", job={"language": "de", "lane": "interactive"}),
            Rule(name="shop", prefix="shop/"),
            Rule(name="tags", job={"task": "match", "texts": ["a cat", "a dog"]}),
        ]
    )

    english, german, tags = rules.jobs(CAT)

    assert isinstance(german, CaptionJob)
    assert (german.language, german.lane) == ("de", "interactive")
    assert isinstance(tags, MatchJob)
    assert len({job.job_id for job in (english, german, tags)}) == 3
    assert [str(job.job_id).partition("-")[0] for job in (english, german, tags)] == [
        "english",
        "german",
        "tags",
    ]


SAME = ObjectEvent("aws", "created", "photos", "a", etag="e", sequencer="61", size=1)
DIFFERENT = [
    SAME,
    ObjectEvent("aws", "created", "photo", "sa", etag="e", sequencer="61"),
    ObjectEvent("aws", "created", "photos", "b", etag="e", sequencer="61"),
    ObjectEvent("aws", "created", "photos", "a", etag="f", sequencer="61"),  # overwritten
    ObjectEvent("aws", "created", "photos", "a", etag="e", sequencer="62"),  # and back again
    ObjectEvent("aws", "created", "photos", "a", version="v1", etag="e", sequencer="61"),
    ObjectEvent("aws", "created", "photos", "a", version="v2", etag="e", sequencer="61"),
]


def test_given_another_content_then_it_is_another_job() -> None:
    ids = [Rules.of().jobs(event)[0].job_id for event in DIFFERENT]

    assert len(set(ids)) == len(DIFFERENT)


def test_given_the_same_content_however_it_is_told_of_then_it_is_the_same_job() -> None:
    bridged = ObjectEvent("eventbridge", "created", "photos", "a", etag="e", sequencer="61")
    version = {"source": "aws", "kind": "created", "bucket": "photos", "key": "a", "version": "v"}
    told = [ObjectEvent(**version), ObjectEvent(**version, sequencer="9", etag="x", size=3)]

    assert Rules.of().jobs(bridged) == Rules.of().jobs(SAME)
    assert Rules.of().jobs(told[0]) == Rules.of().jobs(told[1])


def test_given_a_rule_that_has_changed_then_the_same_content_keeps_its_id() -> None:
    before, after = Rules.of([Rule()]), Rules.of([Rule(job={"language": "de"}, max_bytes=9)])

    assert before.jobs(SAME)[0].job_id == after.jobs(SAME)[0].job_id


ANY = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=200)


@given(bucket=ANY, key=ANY.filter(lambda key: not key.endswith("/")), version=st.none() | ANY)
def test_given_any_names_then_ids_are_such_as_jobs_may_have(
    bucket: str, key: str, version: str | None
) -> None:
    event = ObjectEvent("aws", "created", "photos", key, version=version, etag=bucket)

    for rule in (Rule(), Rule(name="x" * 40)):
        (job,) = Rules.of([rule]).jobs(event)
        assert re.fullmatch(JOB_ID_PATTERN, str(job.job_id))
        assert CaptionJob.model_validate_json(job.model_dump_json()) == job


def test_given_a_key_too_long_for_a_reference_then_that_is_said() -> None:
    event = ObjectEvent("aws", "created", "photos", "猫" * 341)

    with pytest.raises(NoReference, match="characters"):
        Rules.of().jobs(event)
    assert Rules.of([Rule(prefix="in/")]).jobs(event) == []  # nobody wants it


def test_given_a_list_of_what_is_allowed_then_no_rule_reaches_beyond() -> None:
    rules = Rules.of([Rule(allow=["photos", "other"])], allow=["photos/in/"])

    assert len(rules.jobs(CAT)) == 1
    assert rules.jobs(ObjectEvent("aws", "created", "other", "in/cat.jpg")) == []
    assert rules.jobs(ObjectEvent("aws", "created", "photos", "out/cat.jpg")) == []


FILE = """
[[rule]]
name = "alt-texts"
allow = ["photos/uploads/", "press"]
suffixes = [".jpg", ".png"]
max_bytes = 20_000_000

[rule.job]
task = "caption"
language = "de"
options = { style = "alt_text" }
callback = { url = "https://app.example.com/hooks/captions" }

[[rule]]
name = "vectors"
job = { task = "embed", encoding = "float16" }
"""


def test_given_a_file_of_rules_then_they_are_the_contracts_jobs(tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    path.write_text(FILE)

    rules = Rules.read(path)

    (first, job), (_, vectors) = rules.each
    assert (first.suffixes, first.max_bytes) == ([".jpg", ".png"], 20_000_000)
    assert isinstance(job, CaptionJob)
    assert (job.options.style, job.language, job.lane) == ("alt_text", "de", "bulk")
    assert job.callback is not None
    assert vectors.task == "embed"
    settings = ProducerSettings(events_rules=path, events_allow=" photos/in/ , press")
    assert Rules.of_settings(settings).each == rules.each
    assert Rules.of_settings(settings).allow == ("photos/in/", "press")
    assert Rules.of_settings(ProducerSettings()) == Rules.of()


BAD = {
    "no TOML": ("[[rule", "is not TOML"),
    "nothing": ("", r"\[\[rule\]\] tables"),
    "another table": ('[[rule]]\nname = "a"\n[more]\n', r"\[\[rule\]\] tables"),
    "too many": ("[[rule]]\n" * 101, "1 to 100"),
    "one name twice": ("[[rule]]\n[[rule]]\n", "'uploads'"),
    "a field that is none": ("[[rule]]\npre = 1\n", "rule 1, pre"),
    "a size in words": ('[[rule]]\n[[rule]]\nname = "b"\nmax_bytes = "9"\n', "rule 2, max_bytes"),
    "sizes that exclude one another": (
        "[[rule]]\nmin_bytes = 9\nmax_bytes = 8\n",
        "9 bytes or more",
    ),
    "a name with a slash": ('[[rule]]\nname = "a/b"\n', "rule 1, name"),
    "a job of its own image": ('[[rule]]\njob = { image = "s3://a/b" }\n', "job.image"),
    "a job of its own id": ('[[rule]]\njob = { job_id = "1" }\n', "job.job_id"),
    "no task": ('[[rule]]\njob = { task = "dance" }\n', "job.task is one of"),
    "a chunk": ('[[rule]]\njob = { task = "caption_chunk" }\n', "job.task is one of"),
    "no job of the contract": ("[[rule]]\njob = { options = { num_beams = 99 } }\n", "num_beams"),
    "texts that are missing": ('[[rule]]\njob = { task = "match" }\n', "texts"),
    "a job too large": (
        f'[[rule]]\njob = {{ task = "match", texts = {["x" * 2_000] * 40} }}\n',
        "too large",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_given_rules_that_cannot_be_used_then_it_is_said_where_and_why(
    name: str, tmp_path: Path
) -> None:
    text, said = BAD[name]
    path = tmp_path / "rules.toml"
    path.write_text(text)

    with pytest.raises(BadRules, match=said) as refused:
        Rules.read(path)
    if name != "one name twice":
        assert str(path) in str(refused.value)


def test_given_no_file_of_rules_then_that_is_said(tmp_path: Path) -> None:
    with pytest.raises(BadRules, match="cannot be read"):
        Rules.read(tmp_path / "none.toml")


@pytest.mark.parametrize("entry", ["", "/in", "/"])
def test_given_a_list_with_no_bucket_then_it_is_refused(entry: str) -> None:
    with pytest.raises(ValidationError):
        Rule(allow=[entry])


def test_digests_of_parts_are_not_those_of_other_parts() -> None:
    from producer.event_rules import digest

    parts = [("a", "b"), ("ab",), ("", "ab"), ("a:b",), ("a", "b", "")]
    assert all(digest(*a) != digest(*b) for a, b in itertools.combinations(parts, 2))
