"""Shards, maps and pictures as objects of the S3 service that the operator named."""

from typing import Any, Literal

from botocore.exceptions import ClientError

from worker.errors import ErrorCode, Fault
from worker.fetch.s3_client import S3Limits, refused, s3_client
from worker.sink_place import Place

MEDIA_TYPES = {
    "jsonl": "application/x-ndjson",
    "parquet": "application/vnd.apache.parquet",
    "npz": "application/zip",
    "png": "image/png",
    "html": "text/html; charset=utf-8",
}
"""By a name's ending; a browser shows pages and pictures by these."""


class S3Sink:
    """Writes objects with one PUT each, from any number of threads.

    Args:
        timeout_s: longest time of one write, its retries included, seconds.
        endpoint_url, request_payer: as `worker.fetch.s3.S3Source`.
    """

    def __init__(
        self,
        timeout_s: float,
        endpoint_url: str | None = None,
        request_payer: Literal["requester"] | None = None,
    ) -> None:
        self._payer = {"RequestPayer": request_payer} if request_payer else {}
        limits = S3Limits(total_s=timeout_s)
        self._client, self._transport = s3_client(limits, endpoint_url=endpoint_url)

    def put(self, place: Place, data: bytes, deadline_s: float) -> None:
        """See `worker.sink.Writer`.

        Raises:
            Fault: sink_unavailable, whatever S3 says, quoting no more than the status and its code.
        """
        where = f"s3://{place.bucket}/{place.path}"
        what: dict[str, Any] = {"Bucket": place.bucket, "Key": place.path, "Body": data}
        kind = MEDIA_TYPES.get(place.path.rpartition(".")[2], "application/octet-stream")
        try:
            with self._transport.until(deadline_s):
                self._client.put_object(**what, ContentType=kind, **self._payer)
        except ClientError as exc:
            _, said = refused(exc)
            raise Fault(ErrorCode.SINK_UNAVAILABLE, f"{where}: {said}") from None
        except Exception as exc:  # noqa: BLE001 - as in worker.fetch.s3; texts may quote credentials
            detail = exc.code.value if isinstance(exc, Fault) else type(exc).__name__
            raise Fault(ErrorCode.SINK_UNAVAILABLE, f"{where}: {detail}") from None

    def close(self) -> None:
        """Close every connection."""
        self._client.close()
        self._transport.close()
