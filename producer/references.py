"""How jobs name their images, and what may be shown of that."""

import re
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

SCHEMES = ("https", "http", "s3", "file")
MAX_URI_CHARS = 2_048


def _image_ref(uri: str) -> str:
    if not uri.isprintable() or " " in uri or "\\" in uri:  # of white space, " " alone is printable
        raise ValueError("an image URI holds no spaces, control characters or backslashes")
    try:
        parts = urlsplit(uri)
    except ValueError as exc:
        raise ValueError(f"not a URI: {exc}") from None
    if parts.scheme.lower() not in SCHEMES:
        raise ValueError(f"an image URI begins with one of {', '.join(f'{s}://' for s in SCHEMES)}")
    if parts.scheme.lower() == "file":
        if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
            raise ValueError("a file URI is file:///absolute/path")
    elif not parts.netloc:
        raise ValueError("the URI names no host or bucket")
    if parts.scheme.lower() == "s3" and len(parts.path) < 2:
        raise ValueError("an S3 URI is s3://bucket/key or s3://bucket/key?versionId=...")
    return uri


ImageRef = Annotated[
    str,
    Field(
        min_length=1,
        max_length=MAX_URI_CHARS,
        description="Where the image lies: https://, http://, s3://bucket/key?versionId=, file://",
        examples=["https://example.com/cat.jpg", "s3://photos/2026/cat.jpg"],
    ),
    AfterValidator(_image_ref),
]


def public_uri(uri: str) -> str:
    """The URI as it may be shown in logs, events and results: http(s) to the end of its path.

    A presigned URL's query is a credential, as are a user and a password before the host. Whatever
    is neither s3:// nor file:// counts as http, for what is shown may not have been validated.

    >>> public_uri("https://example.com/cat.jpg?X-Amz-Signature=abc")
    'https://example.com/cat.jpg'
    >>> public_uri("s3://photos/cat.jpg?versionId=1")
    's3://photos/cat.jpg?versionId=1'
    """
    kept_whole = uri.lower().startswith(("s3://", "file://"))
    if kept_whole:
        return uri
    return re.sub(r"//[^/]*@", "//", re.split(r"[?#]", uri, maxsplit=1)[0], count=1)


def images_shown(job: Any) -> str | None:
    """What may be shown of the images that a job's JSON object names; None when it names none.

    Anything may be given, for what is shown may not have been validated.

    >>> images_shown({"images": ["https://a.example/1.png?key=x", "https://a.example/2.png"]})
    '2 images from https://a.example/1.png'
    """
    named = job if isinstance(job, dict) else {}
    images = named.get("images", [named.get("image")])
    first = images[0] if isinstance(images, list | tuple) and images else None
    if not isinstance(first, str) or re.search("[\ud800-\udfff]", first):  # not to be stored
        return None
    return public_uri(first) if "images" not in named else images_from(len(images), first)


def images_from(count: int, first: str) -> str:
    """So many images, of which this is the first, as they may be shown."""
    return f"{count} image{'s' * (count != 1)} from {public_uri(first)}"


def sink_folder(uri: str) -> str:
    """A folder that a worker may be asked to write to. Raises ValueError for anything else."""
    if not re.fullmatch(r"(s3://[^/?#]+/|file:///)([^?#\\]*/)?", uri) or re.search(r"\s", uri):
        raise ValueError("a sink is a folder: s3://bucket/prefix/ or file:///folder/")
    return uri
