"""Events of every source are read as what they tell of, and nothing else gets through."""

import itertools
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producer.object_event import ObjectEvent, image_ref, later
from producer.s3_events import (
    MAX_BODY_BYTES,
    MAX_RECORDS,
    UnknownEvent,
    parse,
)
from tests.event_shapes import (
    SHAPES,
    TEST_EVENT,
    Happened,
    aws,
    ceph,
    eventbridge,
    minio,
    records,
    sns,
    uri,
)
from worker.fetch.s3_uri import parse_s3_uri

CAT = Happened(version="v.1", moment=3)
SOURCE_OF = {
    "aws": "aws",
    "sns": "aws",
    "eventbridge": "eventbridge",
    "eventbridge_sns": "eventbridge",
    "minio": "minio",
    "ceph": "ceph",
}
KEYS = [
    "in/a b+c.jpg",
    "%41.jpg",
    "a+b%20c",
    "ü/猫.png",
    "e?f#g&h=i;j",
    'quo"te\\back',
    "in//x",
    "é",
]


def one(body: str) -> ObjectEvent:
    (event,) = parse(body)
    return event


@pytest.mark.parametrize("shape", SHAPES)
def test_given_an_object_that_came_then_all_that_its_source_says_is_read(shape: str) -> None:
    assert one(SHAPES[shape](CAT)) == ObjectEvent(
        source=SOURCE_OF[shape],  # type: ignore[arg-type]
        kind="created",
        bucket="photos",
        key="in/cat.jpg",
        version="v.1",
        sequencer=one(SHAPES[shape](CAT)).sequencer,
        size=1_000,
        etag="b1946ac92492d2347c6235b4d2611184",
        time=datetime(2026, 1, 31, 12, 0, 3, tzinfo=UTC),
    )


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("shape", SHAPES)
def test_given_any_key_then_it_is_decoded_as_its_source_encodes_it(shape: str, key: str) -> None:
    assert one(SHAPES[shape](Happened(key=key))).key == key


@pytest.mark.parametrize("shape", SHAPES)
def test_given_events_in_order_then_their_sequencers_are_in_order(shape: str) -> None:
    # Ceph's bytes lie in memory the other way round: 255 s later is greater by its last byte.
    moments = [0, 1, 255, 256, 65_536, 10_000_000]
    found = [one(SHAPES[shape](Happened(moment=moment))).sequencer for moment in moments]

    for earlier, after in itertools.pairwise(found):
        assert earlier is not None
        assert after is not None
        assert later(after, earlier)
        assert not later(earlier, after)
        assert not later(after, after)


def test_given_one_event_of_s3_by_two_ways_then_its_sequencer_is_the_same() -> None:
    assert one(SHAPES["aws"](CAT)).sequencer == one(SHAPES["eventbridge"](CAT)).sequencer


@pytest.mark.parametrize(
    ("one_of_ceph", "moment"),
    [("F7E6D75DC742D108", "5dd7e6f708d142c7"), ("B1D7795E21054216", "5e79d7b116420521")],
    ids=["of Ceph's documentation, 2019-11-22 13:47:35.147", "another, 2020-03-24 09:49:37.373"],
)
def test_given_a_sequencer_of_ceph_then_its_seconds_come_first(
    one_of_ceph: str, moment: str
) -> None:
    said = ceph(CAT)
    said["Records"][0]["s3"]["object"]["sequencer"] = one_of_ceph

    assert one(json.dumps(said)).sequencer == moment


SEQUENCERS = [
    ("0055AED6DCD90281E5", "0055AED6DCD90281E6", True),
    ("0055AED6DCD90281E5", "0055AED6DCD90281E5", False),
    ("61", "617f08299329d189", True),
    ("6", "60", False),
    ("60", "6", False),
    ("9", "a", True),
    ("ffffffffffffffffff", "fffffffffffffffffe", False),
]


@pytest.mark.parametrize(("earlier", "after", "is_later"), SEQUENCERS)
def test_sequencers_are_compared_padded_on_the_right(
    earlier: str, after: str, is_later: bool
) -> None:
    assert later(after.lower(), earlier.lower()) is is_later


@pytest.mark.parametrize("shape", SHAPES)
def test_given_a_version_that_went_then_it_is_that_one(shape: str) -> None:
    event = one(SHAPES[shape](Happened(version="v.1", removed=True)))

    assert (event.kind, event.version) == ("removed", "v.1")


@pytest.mark.parametrize("shape", SHAPES)
def test_given_a_delete_marker_then_the_object_went_with_all_versions(shape: str) -> None:
    marked = Happened(version="of-the-marker", removed=True, marker=True)
    event = one(SHAPES[shape](marked))

    assert (event.kind, event.version) == ("removed", None)


@pytest.mark.parametrize(
    "name",
    [
        "ObjectTagging:Put",
        "ObjectAcl:Put",
        "ObjectRestore:Completed",
        "Replication:OperationFailedReplication",
        "s3:ObjectAccessed:Get",
        "s3:ObjectCreated:PutTagging",
        "s3:ObjectCreated:PutRetention",
        "s3:ReducedRedundancyLostObject",
        "ObjectLifecycle:Expiration:DeleteMarker",
        "ObjectLifecycle:Expiration:AbortMultipartUpload",
    ],
)
def test_given_an_event_that_says_nothing_of_contents_then_it_is_none(name: str) -> None:
    assert parse(records(aws(CAT) | {"eventName": name})) == []


@pytest.mark.parametrize(
    ("name", "kind", "version"),
    [
        ("ObjectCreated:Post", "created", "v.1"),
        ("ObjectCreated:Copy", "created", "v.1"),
        ("s3:ObjectCreated:CompleteMultipartUpload", "created", "v.1"),
        ("LifecycleExpiration:Delete", "removed", "v.1"),
        ("LifecycleExpiration:DeleteMarkerCreated", "removed", None),
        ("s3:ObjectRemoved:DeleteAllVersions", "removed", None),
        ("ObjectLifecycle:Expiration:Current", "removed", "v.1"),
        ("s3:ObjectLifecycle:Expiration:NonCurrent", "removed", "v.1"),
    ],
)
def test_given_an_event_by_any_name_then_it_is_of_its_kind(
    name: str, kind: str, version: str | None
) -> None:
    event = one(records(aws(CAT) | {"eventName": name}))

    assert (event.kind, event.version) == (kind, version)


def test_given_a_test_event_then_it_is_none() -> None:
    assert parse(json.dumps(TEST_EVENT)) == []
    assert parse(json.dumps(sns(json.dumps(TEST_EVENT)))) == []


def test_given_several_events_in_one_body_then_all_are_read_in_order() -> None:
    keys = ["1.png", "2.png", "3.png"]
    mixed = [aws(Happened(key="1.png")), eventbridge(Happened(key="2.png"))]
    mixed += ceph(Happened(key="3.png"))["Records"]

    assert [event.key for event in parse(records(*mixed))] == keys
    assert [event.key for event in parse(json.dumps(mixed))] == keys
    assert one(json.dumps(mixed[2])).key == "3.png"


@pytest.mark.parametrize("shape", SHAPES)
def test_given_no_version_then_there_is_none(shape: str) -> None:
    assert one(SHAPES[shape](Happened())).version is None
    assert one(SHAPES[shape](Happened(version="null"))).version is None


def test_given_what_ceph_says_as_text_then_it_is_read_as_well() -> None:
    said = ceph(CAT)
    named = said["Records"][0]["s3"]["object"]
    named["size"] = "1024"
    named["etag"] = named.pop("eTag")

    event = one(json.dumps(said))

    assert (event.size, event.etag) == (1_024, CAT.etag)


def test_given_nothing_but_bucket_and_key_then_the_rest_is_not_known() -> None:
    said = {
        "eventSource": "aws:s3",
        "eventName": "ObjectCreated:Put",
        "s3": {"bucket": {"name": "photos"}, "object": {"key": "cat.jpg"}},
    }

    assert one(records(said)) == ObjectEvent("aws", "created", "photos", "cat.jpg")


def _changed(path: str, value: Any) -> str:
    said = aws(CAT)
    place = said
    *steps, last = path.split(".")
    for step in steps:
        place = place[step]
    place[last] = value
    return records(said)


UNKNOWN = {
    "nothing": ("", "not JSON"),
    "no JSON": ("junk", "not JSON"),
    "bytes that are no text": (b"\xff\xfe{", "not JSON"),
    "half a character": (_changed("s3.object.key", "\ud800"), "UTF-8"),
    "a number": ("1", "int"),
    "null": ("null", "NoneType"),
    "an empty object": ("{}", "nothing"),
    "another object": ('{"image": 1, "task": 2}', "'image', 'task'"),
    "an object in an array": ("[[]]", "list"),
    "deep": ("[" * 200_000, "not JSON"),
    "a long number": ("1" * 10_000, "not JSON"),
    "too large": (json.dumps({"Records": ["x" * MAX_BODY_BYTES]}), "1,048,"),
    "too many": (records(*[{}] * (MAX_RECORDS + 1)), "1,001 events"),
    "another service": (_changed("eventSource", "aws:sqs"), "'aws:sqs'"),
    "another service by EventBridge": (
        json.dumps(eventbridge(CAT) | {"source": "aws.ec2"}),
        "'aws.ec2'",
    ),
    "a subscription": (
        json.dumps(sns("") | {"Type": "SubscriptionConfirmation"}),
        "'SubscriptionConfirmation'",
    ),
    "envelopes in one another": (
        json.dumps(sns(json.dumps(sns(json.dumps(sns(SHAPES["aws"](CAT))))))),
        "in one another",
    ),
    "no key": (_changed("s3.object", {}), "without s3.bucket.name"),
    "no bucket": (_changed("s3.bucket", None), "without s3.bucket.name"),
    "no detail": (json.dumps(eventbridge(CAT) | {"detail": []}), "without detail.bucket.name"),
    "an empty key": (_changed("s3.object.key", ""), "0 bytes"),
    "a long key": (_changed("s3.object.key", "x" * 1_025), "1,025 bytes"),
    "a key of other bytes": (_changed("s3.object.key", "%ff"), "UTF-8"),
    "a bucket that is a path": (_changed("s3.bucket.name", "a/b"), "a bucket"),
    "a size below nothing": (_changed("s3.object.size", -1), "a size"),
    "a size that is true": (_changed("s3.object.size", True), "a size"),
    "a size in words": (_changed("s3.object.size", "many"), "a size"),
    "a version with a space": (_changed("s3.object.versionId", "v 1"), "a version id"),
    "a version that is a number": (_changed("s3.object.versionId", 1), "a version id"),
    "a sequencer that is none": (_changed("s3.object.sequencer", "xyz"), "a sequencer"),
    "an ETag that is a list": (_changed("s3.object.eTag", []), "an ETag"),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_given_what_is_no_event_then_it_is_said_what_was_seen(name: str) -> None:
    body, seen = UNKNOWN[name]
    with pytest.raises(UnknownEvent, match=r".") as refused:
        parse(body)

    assert seen in str(refused.value)
    assert len(str(refused.value)) < 500


def test_given_a_fault_then_what_was_sent_is_not_in_its_words() -> None:
    with pytest.raises(UnknownEvent) as refused:
        parse('{"password": "hunter2"}')

    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("moment", [None, 0, "yesterday", "", "9999999-01-01", [], "2026-13-01"])
def test_given_a_moment_that_cannot_be_read_then_it_is_not_known(moment: Any) -> None:
    assert one(_changed("eventTime", moment)).time is None


PLAIN = [None, True, -1, 1.5, "", "x", "aws:s3", "s3:TestEvent", "ObjectCreated:Put", [], {}]
NAMES = st.sampled_from(
    ["Records", "eventSource", "eventName", "s3", "bucket", "name", "object", "key", "detail",
     "source", "detail-type", "Type", "Message", "TopicArn", "size", "versionId", "sequencer"]
)  # fmt: skip
ANYTHING = st.recursive(
    st.sampled_from(PLAIN) | st.text() | st.integers() | st.floats(),
    lambda inner: st.lists(inner) | st.dictionaries(NAMES | st.text(), inner),
    max_leaves=30,
)


@given(ANYTHING)
def test_given_any_json_then_it_is_read_or_refused(said: Any) -> None:
    try:
        assert all(isinstance(event, ObjectEvent) for event in parse(json.dumps(said)))
    except UnknownEvent:
        return


@given(st.text() | st.binary())
def test_given_any_text_then_it_is_read_or_refused(body: str | bytes) -> None:
    try:
        parse(body)
    except UnknownEvent:
        return


@given(shape=st.sampled_from(sorted(SHAPES)), place=st.integers(0, 30), said=ANYTHING)
def test_given_an_event_with_one_part_that_is_anything_then_it_is_read_or_refused(
    shape: str, place: int, said: Any
) -> None:
    def changed(node: Any, left: list[int]) -> Any:
        left[0] -= 1
        if left[0] == 0:
            return said
        if isinstance(node, dict):
            return {name: changed(part, left) for name, part in node.items()}
        return [changed(part, left) for part in node] if isinstance(node, list) else node

    try:
        parse(json.dumps(changed(json.loads(SHAPES[shape](CAT)), [place])))
    except UnknownEvent:
        return


KEY = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(
    lambda key: len(key.encode()) <= 1_024
)
VERSION = st.none() | st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1)


@given(shape=st.sampled_from(sorted(SHAPES)), key=KEY, version=VERSION)
def test_given_any_key_and_version_then_workers_fetch_that_very_object(
    shape: str, key: str, version: str | None
) -> None:
    event = one(SHAPES[shape](Happened(key=key, version=version)))
    known = None if version == "null" else version

    assert event.image_ref == uri(Happened(key=key, version=known))
    if not {".", ".."} & set(key.split("/")):  # workers refuse these
        assert parse_s3_uri(event.image_ref) == ("photos", key, known)


def test_an_object_without_a_version_is_named_by_its_key_alone() -> None:
    assert image_ref("photos", "a/ü.png") == "s3://photos/a/%C3%BC.png"


MINIO_RECORD = minio(CAT)["Records"][0]


def test_given_a_webhook_of_minio_with_its_two_names_then_there_is_one_event() -> None:
    assert parse(json.dumps(minio(CAT))) == parse(records(MINIO_RECORD))
