"""Events as storage services write them: the same object in the words of each of them."""

import json
import struct
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote, quote_plus

SINCE = datetime(2026, 1, 31, 12, tzinfo=UTC)


@dataclass(frozen=True)
class Happened:
    """What happened to an object; `moment` is its place in the order of events, in seconds.

    `marker` is of a removal that hides all versions and removes none.
    """

    bucket: str = "photos"
    key: str = "in/cat.jpg"
    version: str | None = None
    size: int = 1_000
    etag: str = "b1946ac92492d2347c6235b4d2611184"
    moment: int = 0
    removed: bool = False
    marker: bool = False

    @property
    def at(self) -> datetime:
        return SINCE + timedelta(seconds=self.moment)

    @property
    def seconds(self) -> int:
        return int(self.at.timestamp())

    @property
    def name(self) -> str:
        if self.removed:
            return "ObjectRemoved:DeleteMarkerCreated" if self.marker else "ObjectRemoved:Delete"
        return "ObjectCreated:Put"


def aws(one: Happened) -> dict[str, Any]:
    """A record of Amazon S3: keys as in forms, but with their slashes."""
    known = {} if one.version is None else {"versionId": one.version}
    content = {} if one.removed else {"size": one.size, "eTag": one.etag}
    return {
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "awsRegion": "eu-west-1",
        "eventTime": one.at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "eventName": one.name,
        "s3": {
            "s3SchemaVersion": "1.0",
            "configurationId": "captions",
            "bucket": {"name": one.bucket, "arn": f"arn:aws:s3:::{one.bucket}"},
            "object": {
                "key": quote_plus(one.key, safe="/"),
                "sequencer": f"00{one.seconds:08X}{7:08X}",
                **known,
                **content,
            },
        },
    }


def eventbridge(one: Happened) -> dict[str, Any]:
    """An event of Amazon EventBridge: keys as they are."""
    known = {} if one.version is None else {"version-id": one.version}
    content = {} if one.removed else {"size": one.size, "etag": one.etag}
    deletion = "Delete Marker Created" if one.marker else "Permanently Deleted"
    return {
        "version": "0",
        "id": "17793124-05d4-b198-2fde-7ededc63b103",
        "detail-type": "Object Deleted" if one.removed else "Object Created",
        "source": "aws.s3",
        "account": "123456789012",
        "time": one.at.isoformat().replace("+00:00", "Z"),
        "region": "eu-west-1",
        "resources": [f"arn:aws:s3:::{one.bucket}"],
        "detail": {
            "version": "0",
            "bucket": {"name": one.bucket},
            "object": {
                "key": one.key,
                "sequencer": f"{one.seconds:08x}{7:08x}",
                **known,
                **content,
            },
            "reason": "DeleteObject" if one.removed else "PutObject",
            **({"deletion-type": deletion} if one.removed else {}),
        },
    }


def minio(one: Happened) -> dict[str, Any]:
    """What MinIO's webhook sends: everything in a key is encoded, slashes too."""
    content = {} if one.removed else {"size": one.size, "eTag": one.etag}
    known = {} if one.version is None else {"versionId": one.version}
    record = {
        "eventVersion": "2.0",
        "eventSource": "minio:s3",
        "awsRegion": "",
        "eventTime": one.at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "eventName": f"s3:{one.name}",
        "s3": {
            "s3SchemaVersion": "1.0",
            "configurationId": "Config",
            "bucket": {"name": one.bucket, "arn": f"arn:aws:s3:::{one.bucket}"},
            "object": {
                "key": quote_plus(one.key),
                "sequencer": f"{one.seconds * 10**9:X}",
                **known,
                **content,
            },
        },
    }
    return {
        "EventName": f"s3:{one.name}",
        "Key": f"{one.bucket}/{one.key}",
        "Records": [record],
    }


def ceph(one: Happened) -> dict[str, Any]:
    """What the Ceph Object Gateway pushes: keys as they are, the sequencer as it lies in memory."""
    record = {
        "eventVersion": "2.2",
        "eventSource": "ceph:s3",
        "awsRegion": "zonegroup1",
        "eventTime": one.at.isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "eventName": one.name,
        "s3": {
            "s3SchemaVersion": "1.0",
            "configurationId": "mynotif1",
            "bucket": {"name": one.bucket, "id": "503a4c37.5332.38"},
            "object": {
                "key": one.key,
                "size": 0 if one.removed else one.size,
                "eTag": one.etag,
                "versionId": one.version or "",
                "sequencer": struct.pack("<II", one.seconds, 7).hex().upper(),
                "metadata": [],
                "tags": [],
            },
        },
        "eventId": "",
        "opaqueData": "me@example.com",
    }
    return {"Records": [record]}


def records(*events: dict[str, Any]) -> str:
    return json.dumps({"Records": list(events)})


def sns(message: str, topic: str = "arn:aws:sns:eu-west-1:123456789012:uploads") -> dict[str, Any]:
    """A message in the envelope of Amazon SNS, unsigned."""
    return {
        "Type": "Notification",
        "MessageId": "22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324",
        "TopicArn": topic,
        "Subject": "Amazon S3 Notification",
        "Message": message,
        "Timestamp": "2026-01-31T12:00:00.000Z",
    }


SHAPES = {
    "aws": lambda one: records(aws(one)),
    "sns": lambda one: json.dumps(sns(records(aws(one)))),
    "eventbridge": lambda one: json.dumps(eventbridge(one)),
    "eventbridge_sns": lambda one: json.dumps(sns(json.dumps(eventbridge(one)))),
    "minio": lambda one: json.dumps(minio(one)),
    "ceph": lambda one: json.dumps(ceph(one)),
}
"""Bodies of messages that tell of one object, by who writes them."""

TEST_EVENT = {
    "Service": "Amazon S3",
    "Event": "s3:TestEvent",
    "Time": "2026-01-31T12:00:00.000Z",
    "Bucket": "photos",
}


def uri(one: Happened) -> str:
    """The object as jobs name it."""
    named = f"s3://{one.bucket}/{quote(one.key)}"
    return named if one.version is None else f"{named}?versionId={quote(one.version, safe='')}"
