"""What can go wrong, once for all of captionq.

    JobFailed                     a job ended without a result; has a code and a public text
      code in TRANSIENT           tried again (worker/retry.py says how often)
      any other code              permanent: the same input fails the same way
    BrokerUnavailable             the service cannot be reached: says nothing of any job
      BrokerFull                    it has no memory left for more
      StoreUnavailable              the part of it that keeps results
        StoreFull
    UnknownJob                    no record of that id

Each code has one fixed public text. Details (addresses, paths, tracebacks) go to the worker's
log alone, never to a client.
"""

from enum import StrEnum


class ErrorCode(StrEnum):
    """Why a job failed. The value is the spelling on the wire."""

    # The source could not be had.
    URL_INVALID = "url_invalid"
    URL_BLOCKED = "url_blocked"
    TLS_FAILED = "tls_failed"
    HTTP_4XX = "http_4xx"
    HTTP_5XX = "http_5xx"
    REDIRECT_LIMIT = "redirect_limit"
    DNS_FAILED = "dns_failed"
    CONNECT_FAILED = "connect_failed"
    FETCH_TIMEOUT = "fetch_timeout"
    BODY_TOO_LARGE = "body_too_large"
    BODY_INCOMPLETE = "body_incomplete"
    ENCODING_UNSUPPORTED = "encoding_unsupported"
    S3_NOT_FOUND = "s3_not_found"
    S3_DENIED = "s3_denied"
    S3_UNAVAILABLE = "s3_unavailable"
    BUCKET_NOT_ALLOWED = "bucket_not_allowed"
    FILE_NOT_FOUND = "file_not_found"
    FILE_NOT_ALLOWED = "file_not_allowed"
    SOURCE_OPTED_OUT = "source_opted_out"

    # The image is not one.
    IMAGE_EMPTY = "image_empty"
    IMAGE_UNSUPPORTED_FORMAT = "image_unsupported_format"
    IMAGE_TOO_LARGE = "image_too_large"
    IMAGE_TOO_COMPLEX = "image_too_complex"
    IMAGE_CORRUPT = "image_corrupt"
    DECODE_TIMEOUT = "decode_timeout"
    DECODE_CRASHED = "decode_crashed"

    # The job itself.
    JOB_INVALID = "job_invalid"
    SCHEMA_UNSUPPORTED = "schema_unsupported"
    SIGNATURE_INVALID = "signature_invalid"
    JOB_EXPIRED = "job_expired"
    JOB_CANCELLED = "job_cancelled"
    JOB_POISONED = "job_poisoned"

    # Where a chunk's items were to be written.
    SINK_NOT_ALLOWED = "sink_not_allowed"
    SINK_UNAVAILABLE = "sink_unavailable"

    # Telling of the job's end; the job's own result is not touched by it.
    CALLBACK_FAILED = "callback_failed"
    CALLBACK_GONE = "callback_gone"
    CALLBACK_SECRET_UNKNOWN = "callback_secret_unknown"  # noqa: S105 - a code

    # The model and the machine.
    LANGUAGE_UNAVAILABLE = "language_unavailable"
    MODEL_LACKS_CAPTIONING = "model_lacks_captioning"
    MODEL_LACKS_MATCHING = "model_lacks_matching"
    OUT_OF_MEMORY = "out_of_memory"
    WORKER_OVERLOADED = "worker_overloaded"
    DEVICE_LOST = "device_lost"
    INTERNAL_ERROR = "internal_error"


TRANSIENT = frozenset(
    {
        ErrorCode.DNS_FAILED,
        ErrorCode.CONNECT_FAILED,
        ErrorCode.FETCH_TIMEOUT,
        ErrorCode.BODY_INCOMPLETE,
        ErrorCode.HTTP_5XX,
        ErrorCode.S3_UNAVAILABLE,
        ErrorCode.SINK_UNAVAILABLE,
        ErrorCode.OUT_OF_MEMORY,
        ErrorCode.WORKER_OVERLOADED,
        ErrorCode.DEVICE_LOST,
    }
)

PUBLIC_TEXT: dict[ErrorCode, str] = {
    ErrorCode.URL_INVALID: "The image URL is not one this service accepts.",
    ErrorCode.URL_BLOCKED: "The image URL leads to an address this service does not fetch from.",
    ErrorCode.TLS_FAILED: "The image host's TLS certificate could not be verified.",
    ErrorCode.HTTP_4XX: "The image host refused the request (4xx).",
    ErrorCode.HTTP_5XX: "The image host failed (5xx or too many requests).",
    ErrorCode.REDIRECT_LIMIT: "The image URL redirects too often or to a weaker scheme.",
    ErrorCode.DNS_FAILED: "The image host's name could not be resolved.",
    ErrorCode.CONNECT_FAILED: "The image host could not be reached.",
    ErrorCode.FETCH_TIMEOUT: "The image could not be fetched in time.",
    ErrorCode.BODY_TOO_LARGE: "The image file is larger than this service accepts.",
    ErrorCode.BODY_INCOMPLETE: "The image file ended before it was complete.",
    ErrorCode.ENCODING_UNSUPPORTED: "The image came in a content encoding that is not accepted.",
    ErrorCode.S3_NOT_FOUND: "The S3 object does not exist.",
    ErrorCode.S3_DENIED: "The S3 object may not be read by this service.",
    ErrorCode.S3_UNAVAILABLE: "The S3 service could not be reached.",
    ErrorCode.BUCKET_NOT_ALLOWED: "The S3 bucket is not on this service's list.",
    ErrorCode.FILE_NOT_FOUND: "The file does not exist where the worker looks.",
    ErrorCode.FILE_NOT_ALLOWED: "The file lies outside the folder the worker may read.",
    ErrorCode.SOURCE_OPTED_OUT: "The image's host asks that it not be used by machine learning.",
    ErrorCode.IMAGE_EMPTY: "The image file is empty.",
    ErrorCode.IMAGE_UNSUPPORTED_FORMAT: "The file is not an image of an accepted format.",
    ErrorCode.IMAGE_TOO_LARGE: "The image has more pixels than this service accepts.",
    ErrorCode.IMAGE_TOO_COMPLEX: "The image is built in a way that costs too much to decode.",
    ErrorCode.IMAGE_CORRUPT: "The image file is damaged or incomplete.",
    ErrorCode.DECODE_TIMEOUT: "The image took too long to decode.",
    ErrorCode.DECODE_CRASHED: "The image could not be decoded.",
    ErrorCode.JOB_INVALID: "The job does not follow the contract.",
    ErrorCode.SCHEMA_UNSUPPORTED: "The job is of a newer contract version than any worker knows.",
    ErrorCode.SIGNATURE_INVALID: "The job's signature is missing or wrong.",
    ErrorCode.JOB_EXPIRED: "The job's time ran out before it was done.",
    ErrorCode.JOB_CANCELLED: "The job was cancelled.",
    ErrorCode.JOB_POISONED: "The job was given up: its worker died each time it was tried.",
    ErrorCode.SINK_NOT_ALLOWED: "The sink, or its format, is not one this service writes.",
    ErrorCode.SINK_UNAVAILABLE: "The sink could not be written to.",
    ErrorCode.CALLBACK_FAILED: "The callback was not accepted, however often it was tried.",
    ErrorCode.CALLBACK_GONE: "The callback's receiver wants no more (410).",
    ErrorCode.CALLBACK_SECRET_UNKNOWN: "Workers hold no callback secret of this id for this owner.",
    ErrorCode.LANGUAGE_UNAVAILABLE: "No pack here serves the language, or the adapter, asked for.",
    ErrorCode.MODEL_LACKS_CAPTIONING: "The worker's model cannot caption.",
    ErrorCode.MODEL_LACKS_MATCHING: "The worker's model cannot match images with texts.",
    ErrorCode.OUT_OF_MEMORY: "The device ran out of memory.",
    ErrorCode.WORKER_OVERLOADED: "The worker had no room for the job.",
    ErrorCode.DEVICE_LOST: "The device failed while the job ran.",
    ErrorCode.INTERNAL_ERROR: "The service failed on this job; the fault is logged.",
}


class JobFailed(Exception):  # noqa: N818 - "failed" is the state's name
    """A job ended without a result.

    `args` is (code, public text), so that Celery's JSON results carry both to any client.
    """

    def __init__(self, code: str, message: str = "") -> None:
        self.code = ErrorCode(code)
        self.message = message or PUBLIC_TEXT[self.code]
        super().__init__(self.code.value, self.message)

    def __str__(self) -> str:
        return f"{self.code.value}: {self.message}"


class BrokerUnavailable(ConnectionError):  # noqa: N818 - "unavailable" is what it is
    """The broker, or the results store beside it, cannot be reached in the time allowed.

    `submitted` holds the ids, in order, of those jobs of the same call that were sent before.
    """

    def __init__(self, message: str, submitted: tuple[str, ...] = ()) -> None:
        self.submitted = submitted
        super().__init__(message)


class BrokerFull(BrokerUnavailable):
    """Redis has no memory left for more (`maxmemory` under `noeviction`)."""


class StoreUnavailable(BrokerUnavailable):
    """The results store cannot be reached."""


class StoreFull(StoreUnavailable, BrokerFull):
    """The results store has no memory left for more."""


class UnknownJob(LookupError):  # noqa: N818 - it names the job, not a fault
    """No record of this id: never submitted here, or older than its record's life."""

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        super().__init__(f"No job {job_id!r} is known: never submitted, or its record has expired.")
