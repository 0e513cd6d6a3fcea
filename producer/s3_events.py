"""What storage services say of objects that came or went, read: pure, whatever way it came.

    AWS S3 notifications     aws:s3      directly, or in an SNS envelope, one in another at most
    Amazon EventBridge       aws.s3      "Object Created", "Object Deleted"
    MinIO                    minio:s3    webhook
    Ceph RGW                 ceph:s3     HTTP push

Who encodes keys: AWS S3 and MinIO write them as HTML forms are (`a+b%2Bc` is `a b+c`): AWS's "Event
message structure", MinIO's cmd/event-notification.go (`url.QueryEscape`). EventBridge and Ceph send
them as they are: aws-solutions-library-samples/guidance-for-medialake-on-aws#21, tried on AWS, and
Ceph's src/rgw/driver/rados/rgw_notify.cc. A key that says `%41` itself cannot be told from one that
is encoded, so the source decides.

Sequencers are hexadecimal, and tell the order of events on one key: "right pad the shorter value
with zeros, and then do a lexicographical comparison" (AWS). Here they are made comparable so:
in lower case; AWS's 18 digits without the two zeros that EventBridge leaves out of the same value;
Ceph's 16, which are two 32-bit numbers as they lie in memory, seconds and nanoseconds
(`utime_t`, rgw_notify.cc), with the bytes of each in order of weight.
"""

import json
import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any
from urllib.parse import unquote_plus

from producer.object_event import Kind, ObjectEvent, Source

MAX_BODY_BYTES = 1_048_576
"""Of one message: as much as SQS takes."""

MAX_RECORDS = 1_000
MAX_KEY_BYTES = 1_024
MAX_ENVELOPES = 2

BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")
VERSION = re.compile(r"[\x21-\x7e]{1,1024}")
SEQUENCER = re.compile(r"[0-9a-f]{1,64}")
ETAG = re.compile(r"[\x21-\x7e]{1,200}")
MAX_BYTES = 2**63

SOURCES: dict[str, Source] = {"aws:s3": "aws", "minio:s3": "minio", "ceph:s3": "ceph"}
FORM_ENCODED = frozenset({"aws", "minio"})

WITHOUT_CONTENT = frozenset({"PutTagging", "DeleteTagging", "PutRetention", "PutLegalHold"})
"""What MinIO calls ObjectCreated, and is of an object that was there."""

HIDES_ALL_VERSIONS = frozenset({"DeleteMarkerCreated", "DeleteAllVersions"})
REMOVED = re.compile(
    r"ObjectRemoved:(\w+)|LifecycleExpiration:(\w+)|ObjectLifecycle:Expiration:(Current|NonCurrent)"
)


class UnknownEvent(ValueError):  # noqa: N818 - that is what it is
    """No event of a kind that is read here; the text says what was seen, without its values."""


def parse(body: str | bytes) -> list[ObjectEvent]:
    """The events on objects in a message's body, in its order; of other kinds, none.

    `s3:TestEvent`, and events that say nothing of an object's content (tags, access, restoring,
    replication), are none.

    Raises:
        UnknownEvent: the body is no such message, or is too large, or one event in it is malformed.
    """
    if len(body) > MAX_BODY_BYTES:
        raise UnknownEvent(f"a body of {len(body):,} characters, more than {MAX_BODY_BYTES:,}")
    return list(_events(_json(body), 0))


def _json(body: str | bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as exc:
        raise UnknownEvent("a body that is not JSON") from exc


def _events(said: Any, envelopes: int) -> Iterator[ObjectEvent]:
    match said:
        case list():
            yield from _all(said)
        case {"Records": list(records)}:
            yield from _all(records)
        case {"Event": "s3:TestEvent"}:
            return
        case {"Type": "Notification", "Message": str(message)}:
            if envelopes == MAX_ENVELOPES:
                raise UnknownEvent("SNS envelopes in one another")
            yield from _events(_json(message), envelopes + 1)
        case _:
            yield from _one(said)


def _all(records: list[Any]) -> Iterator[ObjectEvent]:
    if len(records) > MAX_RECORDS:
        raise UnknownEvent(f"{len(records):,} events in one body, more than {MAX_RECORDS:,}")
    for record in records:
        yield from _one(record)


def _one(record: Any) -> Iterator[ObjectEvent]:
    match record:
        case {"eventSource": str(source), "eventName": str(name)} if source in SOURCES:
            yield from _record(SOURCES[source], name.removeprefix("s3:"), record)
        case {"source": "aws.s3", "detail-type": str(name)}:
            yield from _bridged(name, record)
        case {"eventSource": str(source)}:
            raise UnknownEvent(
                f"an event of {source[:40]!r}, which is none of {', '.join(SOURCES)}"
            )
        case {"source": str(source), "detail-type": str(name)}:
            raise UnknownEvent(f"an event of {source[:40]!r}: {name[:40]!r}")
        case {"Type": str(kind), "TopicArn": str()}:
            raise UnknownEvent(f"an SNS message of type {kind[:40]!r}")
        case dict():
            names = ", ".join(repr(str(name)[:40]) for name in list(record)[:8])
            raise UnknownEvent(f"an object of {names or 'nothing'}")
        case _:
            raise UnknownEvent(f"{type(record).__name__} where an event was expected")


def _record(source: Source, name: str, record: dict[str, Any]) -> Iterator[ObjectEvent]:
    group, _, what = name.partition(":")
    removed = REMOVED.fullmatch(name)
    if not removed and (group != "ObjectCreated" or what in WITHOUT_CONTENT):
        return
    match record:
        case {"s3": {"bucket": {"name": str(bucket)}, "object": {"key": str(key), **said}}}:
            pass
        case _:
            raise UnknownEvent(f"{name[:80]!r} without s3.bucket.name and s3.object.key")
    if source in FORM_ENCODED:
        try:
            key = unquote_plus(key, errors="strict")
        except UnicodeDecodeError as exc:
            raise UnknownEvent("a key that is not UTF-8") from exc
    yield _event(
        source,
        "removed" if removed else "created",
        bucket,
        key,
        version=None if what in HIDES_ALL_VERSIONS else said.get("versionId"),
        said=said,
        time=record.get("eventTime"),
    )


def _bridged(name: str, record: dict[str, Any]) -> Iterator[ObjectEvent]:
    if name not in ("Object Created", "Object Deleted"):
        return
    match record:
        case {"detail": {"bucket": {"name": str(bucket)}, "object": {"key": str(key), **said}}}:
            pass
        case _:
            raise UnknownEvent(f"{name!r} without detail.bucket.name and detail.object.key")
    hidden = record["detail"].get("deletion-type") == "Delete Marker Created"
    yield _event(
        "eventbridge",
        "created" if name == "Object Created" else "removed",
        bucket,
        key,
        version=None if hidden else said.get("version-id"),
        said=said,
        time=record.get("time"),
    )


def _event(
    source: Source, kind: Kind, bucket: str, key: str, *, version: Any, said: Any, time: Any
) -> ObjectEvent:
    if not BUCKET.fullmatch(bucket):
        raise UnknownEvent("a bucket by a name that no bucket has")
    try:
        size = len(key.encode())
    except UnicodeEncodeError as exc:
        raise UnknownEvent("a key that is not UTF-8") from exc
    if not 0 < size <= MAX_KEY_BYTES:
        raise UnknownEvent(f"a key of {size:,} bytes")
    return ObjectEvent(
        source=source,
        kind=kind,
        bucket=bucket,
        key=key,
        version=_text(None if version == "null" else version, VERSION, "a version id"),
        sequencer=_comparable(source, said.get("sequencer")),
        size=_size(said.get("size")),
        etag=_text(_unquoted(said), ETAG, "an ETag"),
        time=_moment(time),
    )


def _unquoted(said: dict[str, Any]) -> Any:
    """The ETag, by any of its spellings."""
    etag = said.get("eTag", said.get("etag"))
    return etag.strip('"') if isinstance(etag, str) else etag


def _text(given: Any, pattern: re.Pattern[str], what: str) -> str | None:
    if given is None or given == "":
        return None
    if not isinstance(given, str) or not pattern.fullmatch(given):
        raise UnknownEvent(f"{what} that is none")
    return given


def _comparable(source: Source, given: Any) -> str | None:
    digits = given.lower() if isinstance(given, str) else given
    digits = _text(digits, SEQUENCER, "a sequencer")
    if digits is None:
        return None
    if source == "aws" and len(digits) == 18:
        return digits.removeprefix("00")
    if source == "ceph" and len(digits) == 16:
        seconds, nanoseconds = bytes.fromhex(digits[:8]), bytes.fromhex(digits[8:])
        return (seconds[::-1] + nanoseconds[::-1]).hex()
    return digits


def _size(given: Any) -> int | None:
    """In bytes; Ceph has said it as text."""
    if isinstance(given, str) and given.isascii() and given.isdecimal() and len(given) < 20:
        given = int(given)
    if given is None or given == "":
        return None
    if not isinstance(given, int) or isinstance(given, bool) or not 0 <= given < MAX_BYTES:
        raise UnknownEvent("a size that is none")
    return given


def _moment(given: Any) -> datetime | None:
    try:
        return datetime.fromisoformat(given)
    except (TypeError, ValueError):
        return None
