"""The images below a prefix of an S3 bucket, listed page by page."""

from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlsplit

from producer.manifest.folders import is_image
from producer.manifest.reference import Reference
from producer.upload import s3_client

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client


class ListingFailed(OSError):  # noqa: N818 - "failed" is what it did
    """A bucket could not be listed."""


class Bucket:
    """The objects of `s3://bucket/prefix/` whose keys end as those of images do, in S3's order.

    Raises:
        OSError: boto3 is not installed.
    """

    def __init__(self, uri: str, endpoint_url: str | None = None) -> None:
        parts = urlsplit(uri)
        self._bucket, self._prefix = parts.netloc, unquote(parts.path.lstrip("/"))
        self._s3: S3Client = s3_client(endpoint_url, "Listing a bucket")

    def read(self) -> Iterator[Reference]:
        """A reference for each image.

        Raises:
            ListingFailed: saying what S3 said.
        """
        from botocore.exceptions import BotoCoreError, ClientError

        pages = self._s3.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=self._prefix
        )
        try:
            for page in pages:
                for found in page.get("Contents", ()):
                    if is_image(found["Key"]):
                        uri = f"s3://{self._bucket}/{quote(found['Key'])}"
                        yield Reference(uri, uri)
        except (BotoCoreError, ClientError) as exc:
            place = f"s3://{self._bucket}/{self._prefix}"
            raise ListingFailed(f"{place} could not be listed: {exc}") from exc


def names_many(uri: str) -> bool:
    """Whether an s3:// URI is a bucket or a prefix, rather than an object."""
    parts = urlsplit(uri)
    return parts.scheme.lower() == "s3" and (parts.path in ("", "/") or parts.path.endswith("/"))
