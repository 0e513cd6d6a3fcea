"""From an image reference to its bytes.

Three stores look alike (`Source`); `Fetcher` picks one by the scheme. A store that was not
configured refuses its scheme with the code it would use for a forbidden place.
"""

from typing import Protocol

from worker.errors import ErrorCode, Fault

__all__ = ["Fetcher", "Source"]


class Source(Protocol):
    """A store images are fetched from."""

    def fetch(self, uri: str, deadline: float) -> bytes:
        """Return the whole object at `uri`, never more bytes than the store's limit.

        Args:
            uri: what the job named.
            deadline: the value of `time.monotonic()` at which to give up.

        Raises:
            Fault: for everything that can go wrong.
        """

    def close(self) -> None:
        """Give up connections. The store is not used afterwards."""


class Fetcher:
    """Fetches `http://`, `https://`, `s3://` and `file://` from the stores handed in."""

    def __init__(
        self,
        http: Source | None = None,
        s3: Source | None = None,
        file: Source | None = None,
    ) -> None:
        self._sources: dict[str, tuple[Source | None, ErrorCode]] = {
            "http": (http, ErrorCode.URL_BLOCKED),
            "https": (http, ErrorCode.URL_BLOCKED),
            "s3": (s3, ErrorCode.BUCKET_NOT_ALLOWED),
            "file": (file, ErrorCode.FILE_NOT_ALLOWED),
        }

    def fetch(self, uri: str, deadline: float) -> bytes:
        """Return the bytes at `uri`; see `Source.fetch`.

        Raises:
            Fault: url_invalid for any other scheme, else as the store of the scheme does.
        """
        scheme = uri.partition("://")[0].lower()
        if scheme not in self._sources:
            raise Fault(ErrorCode.URL_INVALID, "no store serves the URI's scheme")
        source, refusal = self._sources[scheme]
        if source is None:
            raise Fault(refusal, f"{scheme}:// is not configured on this worker")
        return source.fetch(uri, deadline)

    def close(self) -> None:
        """Close every store."""
        for source in {id(s): s for s, _ in self._sources.values() if s is not None}.values():
            source.close()
