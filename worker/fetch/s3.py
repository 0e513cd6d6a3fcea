"""s3://bucket/key from the one S3 service the operator named.

The only module that imports boto3. The endpoint is a setting and never part of a job, so it is
trusted and may lie on a private network; which buckets a job may name is the allow-list's say.
"""

import re
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, unquote

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
    ReadTimeoutError,
    ResponseStreamingError,
    SSLError,
)

from worker.errors import ErrorCode, Fault
from worker.fetch.body import check_length, collect

__all__ = ["S3Limits", "S3Source", "parse_s3_uri"]

CHUNK_BYTES = 64 * 1024
MAX_KEY_BYTES = 1_024

_URI = re.compile(r"s3://([A-Za-z0-9][A-Za-z0-9._-]{1,254})/([^?#]+)(?:\?([^#]*))?", re.DOTALL)

# The first row an error is an instance of holds.
_CODES: tuple[tuple[type[Exception], ErrorCode], ...] = (
    (ReadTimeoutError, ErrorCode.FETCH_TIMEOUT),
    (SSLError, ErrorCode.TLS_FAILED),
    (IncompleteReadError, ErrorCode.BODY_INCOMPLETE),
    (ResponseStreamingError, ErrorCode.BODY_INCOMPLETE),
    (NoCredentialsError, ErrorCode.S3_DENIED),
    (PartialCredentialsError, ErrorCode.S3_DENIED),
    (CredentialRetrievalError, ErrorCode.S3_UNAVAILABLE),
    (ParamValidationError, ErrorCode.URL_INVALID),
    (HTTPClientError, ErrorCode.S3_UNAVAILABLE),
    (BotoCoreError, ErrorCode.S3_UNAVAILABLE),
)


@dataclass(frozen=True, slots=True)
class S3Limits:
    """What one fetch may cost. Seconds, bytes, counts.

    Attributes:
        tries: requests per fetch, the first included; the job's own retries come on top.
        max_connections: fetches at a time; more wait, their deadline running.
    """

    connect_s: float = 3
    idle_s: float = 5
    total_s: float = 10
    tries: int = 2
    max_bytes: int = 20 * 1024 * 1024
    max_connections: int = 32


def parse_s3_uri(uri: str) -> tuple[str, str, str | None]:
    """Split `s3://bucket/key?versionId=...` into (bucket, key, version id or None).

    The key in a URI is percent-decoded as UTF-8, so `%3F`, `%23` and `%25` stand for `?`, `#` and
    `%` in a key; `+` is a plus sign. (Event notifications encode keys by rules of their own.)

    Raises:
        Fault: url_invalid; also for keys of more than 1,024 bytes, and for keys with `.` or `..`
            between slashes, which HTTP clients fold into another key or bucket.
    """
    match = _URI.fullmatch(uri)
    if match is None:
        raise Fault(ErrorCode.URL_INVALID, "not s3://bucket/key?versionId=...")
    bucket, key, query = match[1], match[2], match[3] or ""
    try:
        key = unquote(key, errors="strict")
        parameters = parse_qsl(query, keep_blank_values=True, errors="strict", max_num_fields=1)
        size = len(key.encode())
    except ValueError as exc:
        raise Fault(
            ErrorCode.URL_INVALID, "not percent-encoded UTF-8, or a query too many"
        ) from exc
    if size > MAX_KEY_BYTES or {".", ".."} & set(key.split("/")):
        raise Fault(ErrorCode.URL_INVALID, "not a key: too long, or with dots for a step")
    if query and [name for name, _ in parameters] != ["versionId"]:
        raise Fault(ErrorCode.URL_INVALID, "the query of an S3 URI is versionId=... alone")
    version = parameters[0][1] if parameters else None
    if version is not None and not re.fullmatch(r"[\x21-\x7e]{1,1024}", version):
        raise Fault(ErrorCode.URL_INVALID, "not a version id")
    return bucket, key, version


class S3Source:
    """Fetches from one S3 service, from any number of threads, with one client.

    Args:
        limits: what a fetch may cost.
        endpoint_url: the service; None for AWS.
        allow: `bucket` or `bucket/prefix` entries a job may name; None for every bucket the
            credentials reach. A prefix is S3's, a plain string: end it with `/` to mean a folder.
        region: None for boto3's own search, then us-east-1.
        access_key, secret_key: None for boto3's own search (environment, profile, instance role).
    """

    def __init__(
        self,
        limits: S3Limits | None = None,
        *,
        endpoint_url: str | None = None,
        allow: Sequence[str] | None = None,
        region: str | None = None,
        access_key: str | None = None,
        secret_key: str | None = None,
    ) -> None:
        self._limits = limits = limits or S3Limits()
        self._allow = None if allow is None else [entry.partition("/")[::2] for entry in allow]
        session = boto3.session.Session()
        self._client: Any = session.client(
            "s3",
            endpoint_url=endpoint_url,
            region_name=region or session.region_name or "us-east-1",
            aws_access_key_id=access_key,
            aws_secret_access_key=secret_key,
            config=Config(
                signature_version="s3v4",
                # Other makers' services answer no checksums, or ones botocore cannot check.
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                s3={"addressing_style": "path" if endpoint_url else "auto"},
                connect_timeout=limits.connect_s,
                read_timeout=limits.idle_s,
                retries={"mode": "standard", "total_max_attempts": limits.tries},
                max_pool_connections=limits.max_connections,
            ),
        )
        # botocore knows a wait per socket call and no deadline, so the waiting is done outside.
        self._threads = ThreadPoolExecutor(limits.max_connections, thread_name_prefix="s3")

    def fetch(self, uri: str, deadline: float) -> bytes:
        """Return the object at `uri`; see `worker.fetch.Source`.

        Raises:
            Fault: url_invalid, bucket_not_allowed, s3_not_found, s3_denied, s3_unavailable,
                tls_failed, body_too_large, body_incomplete, fetch_timeout.
        """
        bucket, key, version = parse_s3_uri(uri)
        if self._allow is not None and not any(
            bucket == allowed and key.startswith(prefix) for allowed, prefix in self._allow
        ):
            raise Fault(ErrorCode.BUCKET_NOT_ALLOWED, f"{bucket}/{key} is on no list")
        deadline = min(deadline, time.monotonic() + self._limits.total_s)
        got = self._threads.submit(self._get, bucket, key, version, deadline)
        try:
            return got.result(deadline - time.monotonic())
        except TimeoutError as exc:
            got.cancel()
            raise Fault(ErrorCode.FETCH_TIMEOUT, f"{uri}: the deadline passed") from exc

    def close(self) -> None:
        """Close every connection."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._client.close()

    def _get(self, bucket: str, key: str, version: str | None, deadline: float) -> bytes:
        where = f"s3://{bucket}/{key}"
        try:
            which = {"Bucket": bucket, "Key": key} | ({"VersionId": version} if version else {})
            answer = self._client.get_object(**which)
            with closing(answer["Body"]) as body:
                check_length(answer.get("ContentLength"), self._limits.max_bytes)
                return collect(
                    _until(deadline, body.iter_chunks(CHUNK_BYTES)), self._limits.max_bytes
                )
        except ClientError as exc:
            status = exc.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            raise Fault(_refusal(status), f"{where}: {exc}") from exc
        except BotoCoreError as exc:
            code = next(code for kind, code in _CODES if isinstance(exc, kind))
            raise Fault(code, f"{where}: {exc}") from exc


def _refusal(status: int) -> ErrorCode:
    """The code for an S3 error's HTTP status.

    405 is how S3 says "that version is a deletion"; 501, that it knows no versions.
    """
    if status in (404, 405, 410):
        return ErrorCode.S3_NOT_FOUND
    if (status >= 500 and status != 501) or status in (0, 408, 425, 429):
        return ErrorCode.S3_UNAVAILABLE
    return ErrorCode.S3_DENIED


def _until(deadline: float, chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Pass `chunks` on until the deadline, so that a fetch nobody waits for ends."""
    for chunk in chunks:
        if time.monotonic() > deadline:
            raise Fault(ErrorCode.FETCH_TIMEOUT, "the deadline passed")
        yield chunk
