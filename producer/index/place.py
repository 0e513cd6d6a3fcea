"""Where an index lies: a folder here, or a prefix of a bucket that a team shares."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from producer.manifest.parquet import NotInstalled
from producer.settings import ProducerSettings

S3 = "s3://"


def lancedb() -> Any:
    """The module lancedb.

    Raises:
        NotInstalled: it is not there.
    """
    try:
        import lancedb
    except ModuleNotFoundError as exc:
        raise NotInstalled(
            "The index of captions needs LanceDB: pip install 'captionq[search]'"
        ) from exc
    return lancedb


@dataclass(frozen=True)
class Place:
    """The place of an index: an absolute path, or s3://bucket/prefix/ at an endpoint."""

    uri: str
    s3_endpoint_url: str | None = None

    @classmethod
    def of(cls, given: str | None, settings: ProducerSettings) -> Self:
        """The place that is given, else that of the settings.

        Raises:
            ValueError: it is a URI of another kind than s3://.
        """
        uri = given or settings.index or str(settings.home / "index")
        if uri.startswith(S3):
            return cls(uri, settings.s3_endpoint_url)
        if "://" in uri:
            raise ValueError(f"{uri}: an index lies in a folder here, or at s3://bucket/prefix/.")
        return cls(str(Path(uri).expanduser().absolute()))

    @property
    def remote(self) -> bool:
        """Whether it is in a bucket."""
        return self.uri.startswith(S3)

    @property
    def begun(self) -> bool:
        """Whether there may be an index: LanceDB would make the folder to look into it."""
        return self.remote or Path(self.uri).is_dir()

    @contextmanager
    def begun_by_one(self) -> Iterator[None]:
        """Keep other processes from beginning an index in the same folder meanwhile: LanceDB would
        let the second overwrite what the first has begun. In a bucket nobody is kept from it.

        Raises:
            OSError: the folder cannot be made.
        """
        if self.remote:
            yield
            return
        Path(self.uri).mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.uri, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def connect(self) -> Any:
        """A LanceDB connection. Credentials come from where AWS's own tools take them.

        Raises:
            NotInstalled: without LanceDB.
            ValueError, OSError: LanceDB's own, about the place.
        """
        return lancedb().connect(self.uri, storage_options=self._storage_options())

    def _storage_options(self) -> dict[str, str]:
        if not self.remote:
            return {}
        region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
        options = {"aws_region": region} if region else {}
        if self.s3_endpoint_url is not None:
            options |= {
                "aws_endpoint": self.s3_endpoint_url,
                "allow_http": str(self.s3_endpoint_url.startswith("http://")).lower(),
                "aws_region": region or "us-east-1",
            }
        return options
