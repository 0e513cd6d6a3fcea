"""What can be wrong with a request, once for the whole gateway: codes, and what they mean."""

from enum import StrEnum


class Code(StrEnum):
    """What went wrong; the value is the spelling on the wire."""

    BODY_INVALID = "body_invalid"
    QUERY_INVALID = "query_invalid"
    JOB_INVALID = "job_invalid"
    SCHEMA_UNSUPPORTED = "schema_unsupported"
    IDEMPOTENCY_CONFLICT = "idempotency_conflict"
    KEY_INVALID = "key_invalid"
    SCOPE_MISSING = "scope_missing"
    NOT_FOUND = "not_found"
    JOB_UNKNOWN = "job_unknown"
    BATCH_UNKNOWN = "batch_unknown"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    BODY_TIMEOUT = "body_timeout"
    JOB_ID_TAKEN = "job_id_taken"
    HOST_REFUSED = "host_refused"
    BODY_TOO_LARGE = "body_too_large"
    MEDIA_TYPE_UNSUPPORTED = "media_type_unsupported"
    RATE_LIMITED = "rate_limited"
    HEAD_TOO_LARGE = "head_too_large"
    INTERNAL_ERROR = "internal_error"
    BROKER_UNAVAILABLE = "broker_unavailable"
    BROKER_FULL = "broker_full"
    STREAMS_EXHAUSTED = "streams_exhausted"
    EVENT_UNKNOWN = "event_unknown"
    SIGNATURE_MISSING = "signature_missing"
    SIGNATURE_WRONG = "signature_wrong"
    TOPIC_NOT_ALLOWED = "topic_not_allowed"
    MESSAGE_REPLAYED = "message_replayed"
    SNS_UNAVAILABLE = "sns_unavailable"
    INDEX_UNAVAILABLE = "index_unavailable"
    NOT_READY = "not_ready"
    NOT_CONFIGURED = "not_configured"
    IMAGE_UNSUPPORTED_FORMAT = "image_unsupported_format"
    IMAGE_EMPTY = "image_empty"
    ORIGIN_REFUSED = "origin_refused"
    UPLOADS_BUSY = "uploads_busy"
    STORAGE_UNAVAILABLE = "storage_unavailable"
    HTTP_ERROR = "http_error"


MEANING: dict[Code, tuple[int, str, str]] = {
    Code.BODY_INVALID: (400, "The body cannot be read", "Send one JSON object in UTF-8."),
    Code.QUERY_INVALID: (422, "A parameter is not valid", "See errors for which, and why."),
    Code.JOB_INVALID: (
        422,
        "The job does not follow the contract",
        "See errors for the fields at fault. Nothing was submitted.",
    ),
    Code.SCHEMA_UNSUPPORTED: (
        422,
        "The job is of a newer contract version",
        "Send schema_version 1, or leave it out.",
    ),
    Code.IDEMPOTENCY_CONFLICT: (
        422,
        "The Idempotency-Key was used for another body",
        "Use a new key for a new request.",
    ),
    Code.KEY_INVALID: (
        401,
        "No valid API key",
        "Send Authorization: Bearer cq_..., or HTTP Basic with the key as password.",
    ),
    Code.SCOPE_MISSING: (
        403,
        "The API key does not allow this",
        "Ask the operator for a key with the scope that detail names.",
    ),
    Code.NOT_FOUND: (404, "There is nothing here", "See /openapi.json for what there is."),
    Code.JOB_UNKNOWN: (
        404,
        "No such job",
        "It was never submitted with this key, or its record has expired.",
    ),
    Code.BATCH_UNKNOWN: (
        404,
        "No such batch",
        "It was never submitted with this key, or its record has expired.",
    ),
    Code.METHOD_NOT_ALLOWED: (405, "Not with this method", "See Allow for those there are."),
    Code.BODY_TIMEOUT: (408, "The body came too slowly", "Send it again, faster."),
    Code.JOB_ID_TAKEN: (
        409,
        "The job id is another's",
        "Choose another job_id, or leave it out.",
    ),
    Code.BODY_TOO_LARGE: (
        413,
        "The body is too large",
        "detail says how many bytes are accepted. Many jobs go to /v1/jobs:batch.",
    ),
    Code.HOST_REFUSED: (
        421,
        "Without API keys this gateway is for its own machine",
        "Ask for it as localhost; or have the operator make keys, or give --without-keys.",
    ),
    Code.MEDIA_TYPE_UNSUPPORTED: (
        415,
        "The body is of another kind",
        "Send the Content-Type that detail names.",
    ),
    Code.RATE_LIMITED: (429, "Too many requests with this key", "Wait as Retry-After says."),
    Code.HEAD_TOO_LARGE: (431, "The request's head is too large", "Send fewer, shorter headers."),
    Code.INTERNAL_ERROR: (
        500,
        "The gateway failed on this request",
        "The fault is in its log. Try again; tell the operator if it persists.",
    ),
    Code.BROKER_UNAVAILABLE: (
        503,
        "The broker or the results store cannot be reached",
        "Try again as Retry-After says, with the same Idempotency-Key or job_id.",
    ),
    Code.BROKER_FULL: (
        503,
        "The broker has no room for more",
        "Try again when workers have taken some of it, as Retry-After says.",
    ),
    Code.STREAMS_EXHAUSTED: (
        503,
        "Too many streams of events are open",
        "Try again as Retry-After says, or ask for the job itself.",
    ),
    Code.EVENT_UNKNOWN: (
        422,
        "The body is no event of a known source",
        "detail says what was seen; docs/uploads.md, which sources there are.",
    ),
    Code.SIGNATURE_MISSING: (
        401,
        "The message of SNS is not signed",
        "Messages of raw delivery are not: send them with an API key.",
    ),
    Code.SIGNATURE_WRONG: (
        401,
        "The message of SNS is not what was signed",
        "Only SNS itself can send it.",
    ),
    Code.TOPIC_NOT_ALLOWED: (
        403,
        "The topic of SNS is not on the list",
        "Ask the operator to add its ARN to CAPTIONQ_SNS_TOPICS.",
    ),
    Code.MESSAGE_REPLAYED: (
        403,
        "The message of SNS is an old one",
        "It was published too long ago, or in the future, and may be a replay.",
    ),
    Code.SNS_UNAVAILABLE: (
        503,
        "Amazon SNS could not be asked",
        "Try again as Retry-After says: its certificate, or the confirmation, was not to be had.",
    ),
    Code.INDEX_UNAVAILABLE: (
        503,
        "The vector index cannot be changed",
        "Try again as Retry-After says.",
    ),
    Code.NOT_READY: (503, "Not ready", "detail says what is missing."),
    Code.NOT_CONFIGURED: (
        501,
        "This gateway is not set up for it",
        "Ask the operator; detail names the setting.",
    ),
    Code.IMAGE_UNSUPPORTED_FORMAT: (
        415,
        "The file does not begin as an image",
        "Send a JPEG, PNG, WebP, GIF, BMP, AVIF or HEIC.",
    ),
    Code.IMAGE_EMPTY: (422, "The file is empty", "Send the bytes of an image."),
    Code.ORIGIN_REFUSED: (
        403,
        "Another site's page may not do this",
        "Ask the operator to allow its origin (ALLOWED_ORIGINS).",
    ),
    Code.UPLOADS_BUSY: (503, "Too many uploads at a time", "Try again as Retry-After says."),
    Code.STORAGE_UNAVAILABLE: (
        503,
        "The image could not be kept",
        "Nothing of it is left. Try again as Retry-After says; tell the operator if it persists.",
    ),
    Code.HTTP_ERROR: (400, "The request was refused", "See the status."),
}
"""Of each code: the status it comes with, its title, and what to do."""
