"""What to do about a job that failed, by its code: a sentence or two for each."""

from producer.errors import ErrorCode

_LATER = "It was tried several times: try again in some minutes."
_SAVE_AGAIN = "Save the image again as a plain JPEG or PNG."

REMEDIES: dict[ErrorCode, str] = {
    ErrorCode.URL_INVALID: "Write the address in full, https://host/image.jpg, without a user "
    "name; other ports than 80 and 443 have to be allowed by the operator.",
    ErrorCode.URL_BLOCKED: "Use an image that lies where anybody can fetch it, or a file or one in "
    "S3.",
    ErrorCode.TLS_FAILED: "The host's certificate has to be mended, or the image taken elsewhere.",
    ErrorCode.HTTP_4XX: "Check the address: the image may have been moved, or need a login.",
    ErrorCode.HTTP_5XX: f"The image's host is failing. {_LATER}",
    ErrorCode.REDIRECT_LIMIT: "Use the address that the redirects end at.",
    ErrorCode.DNS_FAILED: f"Check the host's name for typing errors. {_LATER}",
    ErrorCode.CONNECT_FAILED: f"The host does not answer. {_LATER}",
    ErrorCode.FETCH_TIMEOUT: "The host is too slow: use a smaller image, or another place for it.",
    ErrorCode.BODY_TOO_LARGE: "Use a smaller file: the model sees no more than 2,000 pixels show.",
    ErrorCode.BODY_INCOMPLETE: f"The host broke the connection. {_LATER}",
    ErrorCode.ENCODING_UNSUPPORTED: "The host has to send the image as it is, or with gzip.",
    ErrorCode.S3_NOT_FOUND: "Check bucket, key and version; special letters are percent-encoded.",
    ErrorCode.S3_DENIED: "The workers' credentials need s3:GetObject on the object.",
    ErrorCode.S3_UNAVAILABLE: _LATER,
    ErrorCode.BUCKET_NOT_ALLOWED: "Use a bucket that workers may read, or have the operator add "
    "this one (CAPTIONQ_S3_ALLOW).",
    ErrorCode.FILE_NOT_FOUND: "Check the path; workers on another machine see no files of this "
    "one: set CAPTIONQ_UPLOAD_URL, and they are copied to S3.",
    ErrorCode.FILE_NOT_ALLOWED: "Workers read files below their CAPTIONQ_FILE_ROOT alone; or set "
    "CAPTIONQ_UPLOAD_URL, and files are copied to S3.",
    ErrorCode.SOURCE_OPTED_OUT: "Use another image: the owner of this one does not want it read.",
    ErrorCode.IMAGE_EMPTY: "The file has no bytes: use another.",
    ErrorCode.IMAGE_UNSUPPORTED_FORMAT: "Use a JPEG, PNG, WebP, GIF or BMP; this may be a page "
    "that shows an image, and not the image itself.",
    ErrorCode.IMAGE_TOO_LARGE: "Scale the image down, to 4,000 pixels a side, say.",
    ErrorCode.IMAGE_TOO_COMPLEX: _SAVE_AGAIN,
    ErrorCode.IMAGE_CORRUPT: _SAVE_AGAIN,
    ErrorCode.DECODE_TIMEOUT: f"{_SAVE_AGAIN[:-1]}, and smaller.",
    ErrorCode.DECODE_CRASHED: _SAVE_AGAIN,
    ErrorCode.JOB_INVALID: "Correct what the message names.",
    ErrorCode.SCHEMA_UNSUPPORTED: "The operator has to update the workers: this is newer.",
    ErrorCode.SIGNATURE_INVALID: "Set CAPTIONQ_SIGNING_KEYS to the key that the workers know.",
    ErrorCode.JOB_EXPIRED: "Workers are busy, or none is running: try again later.",
    ErrorCode.JOB_CANCELLED: "Ask again if it is still wanted.",
    ErrorCode.JOB_POISONED: "Use another image: this one ends the workers that try it.",
    ErrorCode.SINK_NOT_ALLOWED: "Workers write to what is in their CAPTIONQ_SINK_ALLOW alone.",
    ErrorCode.SINK_UNAVAILABLE: _LATER,
    ErrorCode.CALLBACK_FAILED: "Mend the receiver, and have the operator tell it again "
    "(captionq-worker callbacks replay); the result can be asked for meanwhile.",
    ErrorCode.CALLBACK_GONE: "Use another callback URL, or have the operator enable this one again "
    "(captionq-worker callbacks enable).",
    ErrorCode.CALLBACK_SECRET_UNKNOWN: "Name another secret, or have the operator give the workers "
    "this one (CAPTIONQ_CALLBACK_SECRETS).",
    ErrorCode.LANGUAGE_UNAVAILABLE: "Leave the language out, or use one that workers have a pack "
    "for (captionq-worker packs).",
    ErrorCode.MODEL_LACKS_CAPTIONING: "A worker with a captioning model has to run "
    "(CAPTIONQ_CAPTION_MODEL).",
    ErrorCode.MODEL_LACKS_MATCHING: "A worker with a matching model has to run "
    "(CAPTIONQ_MATCH_MODEL).",
    ErrorCode.OUT_OF_MEMORY: "Ask for less at a time, or later.",
    ErrorCode.WORKER_OVERLOADED: "There is more to do than the workers can: try again later.",
    ErrorCode.DEVICE_LOST: "The worker starts again by itself: try again in a minute.",
    ErrorCode.INTERNAL_ERROR: "The operator finds the fault in the worker's log, by the job's id.",
}
