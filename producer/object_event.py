"""An object in a bucket that came or went, as every source of events says it in the end."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from urllib.parse import quote

Source = Literal["aws", "eventbridge", "minio", "ceph"]
Kind = Literal["created", "removed"]


@dataclass(frozen=True, slots=True)
class ObjectEvent:
    """An object that came or went.

    `key` is as it is in the bucket. `version` is None in buckets without versions (also where S3
    says "null", which is overwritten like any object there), and where an object went with all its
    versions, or is hidden by a delete marker. `sequencer` is comparable by `later`;
    producer/s3_events.py says how. `size` is in bytes. What a source does not say is None.
    """

    source: Source
    kind: Kind
    bucket: str
    key: str
    version: str | None = None
    sequencer: str | None = None
    size: int | None = None
    etag: str | None = None
    time: datetime | None = None

    @property
    def image_ref(self) -> str:
        """The object as jobs name it, its key and version percent-encoded.

        >>> ObjectEvent("aws", "created", "photos", "a b+c?.png", version="v/1").image_ref
        's3://photos/a%20b%2Bc%3F.png?versionId=v%2F1'
        """
        return image_ref(self.bucket, self.key, self.version)

    @property
    def content(self) -> str:
        """What tells this content of the key from others, the same whenever the event comes again.

        A version's id; without versions, what the content is (ETag) and when it came (sequencer),
        since who overwrites an object makes another one. With neither, the moment that was said.
        """
        if self.version is not None:
            return f"version {self.version}"
        if self.etag is None and self.sequencer is None:
            return f"at {self.time.isoformat() if self.time else ''}"
        return f"etag {self.etag or ''} {self.sequencer or ''}"


def image_ref(bucket: str, key: str, version: str | None = None) -> str:
    """An object as jobs name it: what worker/fetch/s3_uri.py reads is what was given here."""
    uri = f"s3://{bucket}/{quote(key)}"
    return uri if version is None else f"{uri}?versionId={quote(version, safe='')}"


def later(one: str, other: str) -> bool:
    """Whether a sequencer is of a later event than another of the same key.

    >>> later("617f08299329d189", "617f0829")
    True
    """
    width = max(len(one), len(other))
    return one.ljust(width, "0") > other.ljust(width, "0")
