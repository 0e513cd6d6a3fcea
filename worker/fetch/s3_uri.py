"""Which object an s3:// URI names, and whether a job may name it: rules only, without boto3."""

import re
from collections.abc import Sequence
from urllib.parse import parse_qsl, unquote

from worker.errors import ErrorCode, Fault

__all__ = ["check_place", "parse_s3_uri"]

MAX_KEY_BYTES = 1_024

_URI = re.compile(r"s3://([A-Za-z0-9][A-Za-z0-9._-]{1,254})/([^?#]+)(?:\?([^#]*))?", re.DOTALL)


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


def check_place(bucket: str, key: str, allow: Sequence[str] | None) -> None:
    """Pass an object that a job may name.

    Args:
        allow: `bucket` or `bucket/prefix` entries; None for every bucket. A prefix is S3's, a plain
            string: end it with `/` to mean a folder.

    Raises:
        Fault: bucket_not_allowed.
    """
    if allow is None:
        return
    for entry in allow:
        allowed, _, prefix = entry.partition("/")
        if bucket == allowed and key.startswith(prefix):
            return
    raise Fault(ErrorCode.BUCKET_NOT_ALLOWED, f"{bucket}/{key} is on no list")
