"""The images of pairs, as a page can show them: inside it where they are small, else by address."""

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit
from urllib.request import url2pathname

from producer.references import public_uri
from producer.upload import UploadFailed, s3_client
from producer.validation.scores import Scored

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

MOST_BYTES = 300_000
"""Of an image that is put into the page."""

KINDS = {
    "JPEG": "image/jpeg",
    "MPO": "image/jpeg",
    "PNG": "image/png",
    "GIF": "image/gif",
    "WEBP": "image/webp",
    "BMP": "image/bmp",
    "AVIF": "image/avif",
}
"""What browsers show, by the names that workers have for formats."""


@dataclass(frozen=True)
class Picture:
    """`shown` is for an <img>, None where a browser would find nothing; `link` leads to the image,
    None where no browser could follow it."""

    shown: str | None
    link: str | None


class Pictures:
    """Finds images: files here, and objects that may be read from here.

    Args:
        s3_endpoint_url: an S3 endpoint other than AWS.
    """

    def __init__(self, s3_endpoint_url: str | None = None) -> None:
        self._s3_endpoint_url = s3_endpoint_url
        self._s3: S3Client | None = None
        self._s3_is_away = False

    def of(self, pair: Scored) -> Picture:
        """The image of a pair; one that cannot be read here is left to its address."""
        scheme = urlsplit(pair.uri).scheme.lower()
        if scheme in ("http", "https"):
            uri = public_uri(pair.uri)
            return Picture(uri, uri)
        data = self._file(pair.uri) if scheme == "file" else self._object(pair.uri)
        kind = KINDS.get(pair.format or "")
        link = pair.uri if scheme == "file" else None
        if data is not None and kind is not None:
            return Picture(f"data:{kind};base64,{base64.b64encode(data).decode()}", link)
        return Picture(link if kind else None, link)

    def _file(self, uri: str) -> bytes | None:
        try:
            with Path(url2pathname(urlsplit(uri).path)).open("rb") as file:
                return _small(file.read(MOST_BYTES + 1))
        except (OSError, ValueError):
            return None

    def _object(self, uri: str) -> bytes | None:
        if self._s3_is_away:
            return None
        try:
            self._s3 = self._s3 or s3_client(self._s3_endpoint_url, "Reading from S3")
        except UploadFailed:  # no boto3: the page does without
            self._s3_is_away = True
            return None
        from botocore.exceptions import BotoCoreError, ClientError

        parts = urlsplit(uri)
        place: dict[str, Any] = {"Bucket": parts.netloc, "Key": unquote(parts.path[1:])}
        if version := parse_qs(parts.query).get("versionId"):
            place["VersionId"] = version[0]
        try:
            found = self._s3.get_object(**place, Range=f"bytes=0-{MOST_BYTES}")
            return _small(found["Body"].read(MOST_BYTES + 1))
        except ClientError:  # this object
            return None
        except (BotoCoreError, OSError):  # all of them: no address, or nobody there
            self._s3_is_away = True
            return None


def _small(data: bytes) -> bytes | None:
    return data if len(data) <= MOST_BYTES else None
