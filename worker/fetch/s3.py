"""s3://bucket/key from the one S3 service the operator named.

The endpoint is a setting and never part of a job, so it is trusted and may lie on a private
network; which buckets a job may name is the allow-list's say, and whether requests are paid for is
the operator's.

Credentials reach no log and no error: what the service says of a request may repeat it, so a Fault
quotes the status and the service's code alone, and botocore's debugging log is off.
"""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Literal

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
from worker.fetch.s3_client import S3Limits, refused, s3_client
from worker.fetch.s3_transport import CHUNK_BYTES
from worker.fetch.s3_uri import check_place, parse_s3_uri

__all__ = ["S3Limits", "S3Source", "as_fault", "parse_s3_uri"]

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


class S3Source:
    """Fetches from one S3 service, from any number of threads, with one client.

    Args:
        limits: what a fetch may cost.
        endpoint_url: the service; None for AWS.
        allow: `bucket` or `bucket/prefix` entries a job may name, as `check_place` takes them; None
            for every bucket the credentials reach.
        request_payer: "requester" to pay for requests to buckets whose owner wants that.
        region: None for boto3's own search, then us-east-1.
        access_key, secret_key: None for boto3's own search (environment, profile, instance role).
    """

    def __init__(
        self,
        limits: S3Limits | None = None,
        *,
        endpoint_url: str | None = None,
        allow: Sequence[str] | None = None,
        request_payer: Literal["requester"] | None = None,
        region: str | None = None,
        access_key: str | None = None,
        secret_key: str | None = None,
    ) -> None:
        self._limits = limits = limits or S3Limits()
        self._allow = allow
        self._payer = {"RequestPayer": request_payer} if request_payer else {}
        self._client, self._transport = s3_client(
            limits,
            endpoint_url=endpoint_url,
            region=region,
            access_key=access_key,
            secret_key=secret_key,
        )
        # Where credentials come from a service, botocore waits for it as long as it likes: that is
        # waited for outside.
        self._threads = ThreadPoolExecutor(limits.max_connections, thread_name_prefix="s3")

    def fetch(self, uri: str, deadline: float) -> bytes:
        """Return the object at `uri`; see `worker.fetch.Source`.

        Raises:
            Fault: url_invalid, bucket_not_allowed, s3_not_found, s3_denied, s3_unavailable,
                tls_failed, body_too_large, body_incomplete, fetch_timeout, worker_overloaded.
        """
        bucket, key, version = parse_s3_uri(uri)
        check_place(bucket, key, self._allow)
        deadline = min(deadline, time.monotonic() + self._limits.total_s)
        try:
            got = self._threads.submit(self._get, bucket, key, version, deadline)
        except RuntimeError as exc:  # a container's limit of threads, or the source is closed
            raise Fault(ErrorCode.WORKER_OVERLOADED, f"s3://{bucket}/{key}: {exc}") from exc
        try:
            return got.result(deadline - time.monotonic())
        except TimeoutError as exc:
            got.cancel()
            raise Fault(
                ErrorCode.FETCH_TIMEOUT, f"s3://{bucket}/{key}: the deadline passed"
            ) from exc

    def close(self) -> None:
        """Close every connection."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._client.close()
        self._transport.close()

    def _get(self, bucket: str, key: str, version: str | None, deadline: float) -> bytes:
        where = f"s3://{bucket}/{key}"
        which = {"Bucket": bucket, "Key": key} | ({"VersionId": version} if version else {})
        try:
            with self._transport.until(deadline):
                answer = self._client.get_object(**which, **self._payer)
                with closing(answer["Body"]) as body:
                    check_length(answer.get("ContentLength"), self._limits.max_bytes)
                    return collect(body.iter_chunks(CHUNK_BYTES), self._limits.max_bytes)
        except Exception as exc:  # noqa: BLE001 - none of them is to leave without a code
            raise as_fault(exc, where) from None


def as_fault(exc: Exception, where: str) -> Fault:
    """What boto3 raised as a Fault, a Fault as it is.

    botocore's parsers, its credential helpers and what those call raise more than its own errors;
    their texts may quote an answer or a credential.
    """
    if isinstance(exc, Fault):
        return exc
    if isinstance(exc, ClientError):
        status, said = refused(exc)
        return Fault(_refusal(status), f"{where}: {said}")
    code = next((code for kind, code in _CODES if isinstance(exc, kind)), None)
    return Fault(code or ErrorCode.S3_UNAVAILABLE, f"{where}: {type(exc).__name__}")


def _refusal(status: int) -> ErrorCode:
    """The code for an S3 error's HTTP status.

    405 is how S3 says "that version is a deletion"; 501, that it knows no versions.
    """
    if status in (404, 405, 410):
        return ErrorCode.S3_NOT_FOUND
    if (status >= 500 and status != 501) or status in (0, 408, 425, 429):
        return ErrorCode.S3_UNAVAILABLE
    return ErrorCode.S3_DENIED
