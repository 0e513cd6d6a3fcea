"""What an image named on the command line is called in a job: a URI, after an upload if asked."""

import hashlib
import mimetypes
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote, urlsplit

from producer.references import SCHEMES
from producer.settings import ProducerSettings

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client


class UploadFailed(OSError):  # noqa: N818 - "failed" is what it did
    """A local image could not be copied to S3."""


def local_path(source: str) -> Path | None:
    """The file a source names, None when it is a URI already.

    Raises:
        ValueError: it names no file that is there.
    """
    if urlsplit(source).scheme.lower() in SCHEMES and "://" in source:
        return None
    path = Path(source).expanduser()
    if not path.is_file():
        raise ValueError(f"There is no file {source!r}; a URI begins with https://, s3:// ...")
    return path.absolute()


def key_for(path: Path, prefix: str) -> str:
    """The S3 key of a file under a prefix: its content's SHA-256 and its suffix in lower case."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return f"{prefix.strip('/')}/{digest}{path.suffix.lower()}".lstrip("/")


class Uploader:
    """Copies files to S3, once per content: the same bytes always get the same key.

    Args:
        upload_url: s3://bucket/prefix.
        endpoint_url: an S3 endpoint other than AWS.
    """

    def __init__(self, upload_url: str, endpoint_url: str | None = None) -> None:
        parts = urlsplit(upload_url)
        self._bucket, self._prefix = parts.netloc, parts.path
        self._s3 = s3_client(endpoint_url, "Uploading to S3")

    def upload(self, path: Path) -> str:
        """Copy a file and return its s3:// URI.

        Raises:
            UploadFailed: naming the file and what S3 said.
        """
        from botocore.exceptions import BotoCoreError, ClientError

        key = key_for(path, self._prefix)
        kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        try:
            with path.open("rb") as file:
                self._s3.put_object(Bucket=self._bucket, Key=key, Body=file, ContentType=kind)
        except (BotoCoreError, ClientError) as exc:
            raise UploadFailed(f"{path} could not be copied to {self._bucket}: {exc}") from exc
        return f"s3://{self._bucket}/{quote(key)}"


def uploader(settings: ProducerSettings) -> Callable[[Path], str] | None:
    """What copies a file and returns its URI; None where the settings name no place for uploads.

    Raises:
        UploadFailed: boto3 is not installed.
    """
    if not settings.upload_url:
        return None
    return Uploader(settings.upload_url, settings.s3_endpoint_url).upload


def uris(sources: Sequence[str], settings: ProducerSettings) -> list[str]:
    """The URI of each image named: itself, or that of a file, uploaded when the settings say so.

    Raises:
        ValueError: one names no file that is there; nothing is uploaded then.
        UploadFailed: see `Uploader`.
    """
    paths = [local_path(source) for source in sources]
    upload = uploader(settings) if any(paths) else None
    name = upload or Path.as_uri
    return [
        source if path is None else name(path) for source, path in zip(sources, paths, strict=True)
    ]


def s3_client(endpoint_url: str | None, purpose: str) -> "S3Client":
    """An S3 client with time-outs, for a purpose that is named where boto3 is missing.

    Raises:
        UploadFailed: it is.
    """
    client: S3Client = aws_client("s3", endpoint_url, purpose)
    return client


def aws_client(
    service: Literal["s3", "sqs"],
    endpoint_url: str | None,
    purpose: str,
    *,
    region: str | None = None,
    read_timeout: float = 60,
    connections: int = 10,
) -> Any:
    """A client of one of AWS' services, as `s3_client`."""
    try:
        import boto3
        from botocore.config import Config
    except ModuleNotFoundError as exc:
        extra = "listen" if service == "sqs" else "manifests"
        raise UploadFailed(f"{purpose} needs boto3: pip install 'captionq[{extra}]'") from exc
    config = Config(
        connect_timeout=5,
        read_timeout=read_timeout,
        retries={"mode": "standard"},
        max_pool_connections=connections,
    )
    # A session of its own: the default one keeps the credentials that it found first.
    session: Any = boto3.session.Session(region_name=region)
    elsewhere = {"region_name": session.region_name or "us-east-1"} if endpoint_url else {}
    return session.client(service, endpoint_url=endpoint_url, config=config, **elsewhere)
