"""Which place a sink's URI names, and whether it lies in another."""

from pathlib import Path
from typing import Literal, NamedTuple

from worker.errors import ErrorCode, Fault
from worker.fetch.file import parse_file_uri
from worker.fetch.s3_uri import parse_s3_uri


class Place(NamedTuple):
    """A folder or an object. `bucket` is empty for files; `path` is a key, or an absolute path; a
    folder's ends with a slash, but for the whole of a bucket."""

    scheme: Literal["s3", "file"]
    bucket: str
    path: str

    def within(self, folder: "Place") -> bool:
        """Whether this is the folder, or lies in it."""
        same = (self.scheme, self.bucket) == (folder.scheme, folder.bucket)
        return same and self.path.startswith(folder.path)


def place_of(uri: str) -> Place:
    """The place that s3://bucket/prefix/ or file:///folder/ names, or an object in it.

    Raises:
        Fault: sink_not_allowed; it names none, or goes up by `..`.
    """
    try:
        if uri.startswith("s3://"):
            # A prefix alone is no key: a letter stands for what will be in it.
            bucket, key, version = parse_s3_uri(uri + "x" * uri.endswith("/"))
            if version is None:
                return Place("s3", bucket, key[: len(key) - uri.endswith("/")])
        elif uri.startswith("file://"):
            path = parse_file_uri(uri)
            if not {"", ".", ".."} & set(path.strip("/").split("/")) or path == "/":
                return Place("file", "", path)
    except Fault as exc:
        raise Fault(ErrorCode.SINK_NOT_ALLOWED, f"{uri}: {exc.detail}") from exc
    raise Fault(ErrorCode.SINK_NOT_ALLOWED, f"{uri} is no s3:// or file:// folder")


def check_folder(uri: str) -> None:
    """Pass an entry of SINK_ALLOW: a folder that is a sink, and is there if it is on a disk.

    Raises:
        ValueError: saying what is wrong.
    """
    try:
        place = place_of(uri)
    except Fault as exc:
        raise ValueError(f"SINK_ALLOW: {exc.detail}") from exc
    if not uri.endswith("/"):
        raise ValueError(f"SINK_ALLOW: a folder ends with a slash: {uri}")
    if place.scheme == "file" and not Path(place.path).is_dir():
        raise ValueError(f"SINK_ALLOW: no such folder: {place.path}")
