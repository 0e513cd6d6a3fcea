"""Where uploaded images are kept: a folder, or a bucket. A file appears when it is whole.

Everything here blocks, and is called from threads; `abort` may come from another thread than the
call before it, or before that has begun.
"""

import os
import threading
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from producer.upload import s3_client

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client
    from types_boto3_s3.type_defs import CompletedPartTypeDef

__all__ = ["PART_BYTES", "FilePlace", "Place", "S3Place", "StorageFailed", "Writing", "place"]

PART_BYTES = 5 * 1024 * 1024
"""What is written at a time, and held of an upload: the least that S3 takes as a part."""


class StorageFailed(OSError):  # noqa: N818 - "failed" is what it did
    """The folder or the bucket does not take what is written; the text is for the log."""


class Writing(ABC):
    """One file on its way: `write` any number of times, then `finish` or `abort`.

    After `abort` nothing of it is left, and further calls do nothing.

    Raises:
        StorageFailed: from `write` and `finish`.
    """

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._aborted = False

    def write(self, part: bytes) -> None:
        """Write some of it, PART_BYTES long."""
        with self._turn:
            if not self._aborted:
                self._write(part)

    def finish(self, rest: bytes) -> None:
        """Write the last of it, and have it appear."""
        with self._turn:
            if not self._aborted:
                self._finish(rest)

    def abort(self) -> None:
        """Leave nothing of it."""
        with self._turn:
            if not self._aborted:
                self._aborted = True
                self._abort()

    @abstractmethod
    def _write(self, part: bytes) -> None: ...

    @abstractmethod
    def _finish(self, rest: bytes) -> None: ...

    @abstractmethod
    def _abort(self) -> None: ...


class Place(ABC):
    """Where files are written, below `uri`, which ends with a slash."""

    def __init__(self, uri: str) -> None:
        self.uri = uri

    @abstractmethod
    def begin(self, name: str, media_type: str) -> Writing:
        """A new file, whose name is nobody else's."""


class FilePlace(Place):
    """A folder, made when it is not there, and readable by whoever may read it."""

    def __init__(self, uri: str) -> None:
        super().__init__(uri)
        self._folder = Path(unquote(urlsplit(uri).path))

    def begin(self, name: str, media_type: str) -> Writing:  # noqa: ARG002 - files have none
        """See `Place`."""
        return _File(self._folder, name)


class _File(Writing):
    """Under a name of its own until it is whole and on the disk."""

    def __init__(self, folder: Path, name: str) -> None:
        super().__init__()
        self._path = folder / name
        self._partial = folder / f".{name}.part"
        self._handle: int | None = None

    def _write(self, part: bytes) -> None:
        try:
            if self._handle is None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
                self._handle = os.open(self._partial, flags, 0o644)
            left = memoryview(part)
            while left:
                left = left[os.write(self._handle, left) :]
        except OSError as exc:
            raise StorageFailed(f"{self._partial}: {exc}") from exc

    def _finish(self, rest: bytes) -> None:
        self._write(rest)
        try:
            os.fsync(self._handle or 0)
            self._close()
            self._partial.replace(self._path)
            folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as exc:
            raise StorageFailed(f"{self._path}: {exc}") from exc

    def _abort(self) -> None:
        if self._handle is not None:
            self._close()
        self._partial.unlink(missing_ok=True)
        self._path.unlink(missing_ok=True)

    def _close(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


class S3Place(Place):
    """A prefix of a bucket.

    Raises:
        UploadFailed: boto3 is not installed.
    """

    def __init__(self, uri: str, endpoint_url: str | None) -> None:
        super().__init__(uri)
        parts = urlsplit(uri)
        self._bucket, self._prefix = parts.netloc, unquote(parts.path).lstrip("/")
        self._s3 = s3_client(endpoint_url, "Keeping uploads in S3")

    def begin(self, name: str, media_type: str) -> Writing:
        """See `Place`."""
        return _Object(self._s3, self._bucket, f"{self._prefix}{name}", media_type)


class _Object(Writing):
    """One request for a small object, a multipart upload for one of several parts."""

    def __init__(self, s3: "S3Client", bucket: str, key: str, media_type: str) -> None:
        super().__init__()
        self._s3 = s3
        self._where = {"Bucket": bucket, "Key": key}
        self._type = {"ContentType": media_type}
        self._upload: dict[str, Any] | None = None
        self._parts: list[CompletedPartTypeDef] = []
        self._there = self._completed = False

    def _write(self, part: bytes) -> None:
        self._asking(lambda: self._write_part(part))

    def _write_part(self, part: bytes) -> None:
        if self._upload is None:
            made = self._s3.create_multipart_upload(**self._where, **self._type)  # type: ignore[arg-type]
            self._upload = self._where | {"UploadId": made["UploadId"]}
        number = len(self._parts) + 1
        done = self._s3.upload_part(**self._upload, PartNumber=number, Body=part)
        self._parts.append({"PartNumber": number, "ETag": done["ETag"]})

    def _finish(self, rest: bytes) -> None:
        self._asking(lambda: self._complete(rest))

    def _complete(self, rest: bytes) -> None:
        if self._upload is None:
            self._there = True  # from here on nobody knows whether it is
            self._s3.put_object(**self._where, **self._type, Body=rest)  # type: ignore[arg-type]
            return
        if rest:
            self._write_part(rest)
        self._there = True
        self._s3.complete_multipart_upload(**self._upload, MultipartUpload={"Parts": self._parts})
        self._completed = True

    def _abort(self) -> None:
        upload = self._upload
        try:
            if upload is not None and not self._completed:
                self._asking(lambda: self._s3.abort_multipart_upload(**upload))
        finally:
            if self._there:
                self._asking(lambda: self._s3.delete_object(**self._where))  # type: ignore[arg-type]

    def _asking(self, ask: Any) -> None:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            ask()
        except (BotoCoreError, ClientError) as exc:
            raise StorageFailed(
                f"s3://{self._where['Bucket']}/{self._where['Key']}: {exc}"
            ) from exc


def place(uri: str, s3_endpoint_url: str | None = None) -> Place:
    """What s3://bucket/prefix/ or file:///folder/ names.

    Raises:
        UploadFailed: boto3 is needed, and is not installed.
    """
    return S3Place(uri, s3_endpoint_url) if uri.startswith("s3://") else FilePlace(uri)
