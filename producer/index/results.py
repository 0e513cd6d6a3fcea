"""Results with embeddings, from files, folders and buckets: what workers wrote to sinks, and what
`captionq submit --wait --json` prints. Read as a stream.

A line, or a row, is an ItemResult of a chunk, a JobResult, or a row that `captionq embed` wrote, or
`captionq caption`, which has no embedding. What cannot be read is told of, and the next is read.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from io import BufferedReader, BytesIO
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO
from urllib.parse import quote, unquote, urlsplit

from pydantic import ValidationError

from producer.contract import Embedding, ItemResult, JobResult, JobState, public_uri
from producer.index.entry import Entry, LeftOut, entries_of
from producer.manifest.bucket import ListingFailed, names_many
from producer.manifest.parquet import BATCH_ROWS, pyarrow_parquet
from producer.manifest.tables import lines
from producer.upload import s3_client

OBJECTS = frozenset({".jsonl", ".ndjson"})
PARQUET = frozenset({".parquet", ".pq"})
MAX_LINE_BYTES = 16_777_216
"""Of a line of JSON: a chunk's result, with everything that was said of each of 64 images."""


@dataclass(frozen=True)
class Shard:
    """One file of results. `modified` is when it was written last."""

    name: str
    modified: datetime
    open: Callable[[], BinaryIO]

    @property
    def suffix(self) -> str:
        """What its name ends with, in lower case."""
        return PurePosixPath(self.name).suffix.lower()

    @property
    def job_id(self) -> str:
        """The id of the chunk whose shard it is, as its name has it (worker/sink.py)."""
        return unquote(PurePosixPath(self.name).stem)


class Results:
    """What became of the images of some words: files, folders (with all below), `file:///...`,
    `s3://bucket/key` or `s3://bucket/prefix/`.

    Args:
        say: told of each file or row that cannot be read.

    Raises:
        ValueError: a word names nothing that results could be in.
    """

    def __init__(
        self,
        words: tuple[str, ...],
        s3_endpoint_url: str | None = None,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._words = words
        self._s3_endpoint_url = s3_endpoint_url
        self._say = say
        for word in words:
            if not word.startswith("s3://"):
                _path(word)

    def __iter__(self) -> Iterator[Entry | LeftOut]:
        """The entry of each image, or why there is none.

        Raises:
            NotInstalled: Parquet without pyarrow, a bucket without boto3.
            OSError: a file or bucket cannot be read.
        """
        for word in self._words:
            shards = self._objects(word) if word.startswith("s3://") else _files(_path(word))
            for shard in shards:
                yield from self._read(shard)

    def _read(self, shard: Shard) -> Iterator[Entry | LeftOut]:
        with shard.open() as file:
            rows = _parquet_rows(file) if shard.suffix in PARQUET else _json_rows(file)
            number = 0
            try:
                for number, row in rows:
                    yield from self._entries(row, shard, number)
            except ValueError as exc:
                yield self._unreadable(f"{shard.name}, after row {number}: {exc}")

    def _entries(self, row: Any, shard: Shard, number: int) -> Iterator[Entry | LeftOut]:
        try:
            if isinstance(row, dict) and "source" in row:
                yield entry_of_row(row, shard.modified)
                return
            text = json.dumps(row, default=str)
            if isinstance(row, dict) and "finished_at" in row:
                yield from entries_of(JobResult.model_validate_json(text))
            else:
                item = ItemResult.model_validate_json(text)
                yield Entry.of(item, shard.job_id, shard.modified)
        except ValidationError as exc:
            first = exc.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, first["loc"]))
            yield self._unreadable(f"{shard.name}, row {number}: {where}: {first['msg']}")

    def _unreadable(self, sentence: str) -> LeftOut:
        self._say(sentence)
        return LeftOut.UNREADABLE

    def _objects(self, uri: str) -> Iterator[Shard]:
        from botocore.exceptions import BotoCoreError, ClientError

        parts = urlsplit(uri)
        bucket, prefix = parts.netloc, unquote(parts.path.lstrip("/"))
        s3 = s3_client(self._s3_endpoint_url, "Reading results from a bucket")
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        try:
            for page in pages:
                for found in page.get("Contents", ()):
                    key = found["Key"]
                    if not _holds_results(key) or not (names_many(uri) or key == prefix):
                        continue

                    def opened(key: str = key) -> BinaryIO:
                        body = s3.get_object(Bucket=bucket, Key=key)["Body"]
                        # Parquet is read from its end; lines as they come.
                        return BytesIO(body.read()) if _is_parquet(key) else BufferedReader(body)  # type: ignore[type-var]

                    yield Shard(f"s3://{bucket}/{quote(key)}", found["LastModified"], opened)
        except (BotoCoreError, ClientError) as exc:
            raise ListingFailed(f"{uri} could not be read: {exc}") from exc


def entry_of_row(row: dict[str, Any], at: datetime) -> Entry | LeftOut:
    """The entry of a row that a run wrote (producer/manifest/rows.py). Its image is a URI, or the
    path of a file here.

    Raises:
        pydantic.ValidationError: it is no such row.
    """
    if row.get("code") is not None:
        return LeftOut.FAILED
    if row.get("embedding") is None:
        return LeftOut.WITHOUT_EMBEDDING
    place = "vector" if row.get("encoding") == "list" else "base64"
    said = {name: row.get(name) for name in ("model", "revision", "encoding")}
    embedding = Embedding.model_validate_json(json.dumps(said | {place: row["embedding"]}))
    given = str(row.get("image"))
    item = ItemResult(
        index=0,
        image_ref=public_uri(given) if "://" in given else _uri_here(given),
        state=JobState.SUCCEEDED,
        attempts=1,
        embeddings=(embedding,),
    )
    entry = Entry.of(item, row.get("job_id"), at)
    if isinstance(entry, LeftOut):
        return entry
    sha256, width, height = (row.get(name) for name in ("sha256", "width", "height"))
    return replace(entry, sha256=sha256, width=width, height=height)


def _uri_here(path: str) -> str | None:
    found = Path(path).absolute()
    return found.as_uri() if found.is_file() else None


def _path(word: str) -> Path:
    path = Path(unquote(urlsplit(word).path)) if word.startswith("file://") else Path(word)
    path = path.expanduser()
    if path.is_dir() or (path.is_file() and _holds_results(path.name)):
        return path
    raise ValueError(
        f"{word!r} is no file of results ({', '.join(sorted(OBJECTS | PARQUET))}) and no folder of "
        "them; a bucket is s3://bucket/prefix/."
    )


def _files(path: Path) -> Iterator[Shard]:
    """The files of results at or below a path, in order of their names."""
    below = [path] if path.is_file() else sorted(path.rglob("*"))
    for file in below:
        if file.is_file() and _holds_results(file.name):
            modified = datetime.fromtimestamp(file.stat().st_mtime, UTC)
            yield Shard(str(file), modified, lambda file=file: file.open("rb"))  # type: ignore[misc]


def _holds_results(name: str) -> bool:
    path = PurePosixPath(name)
    return path.suffix.lower() in OBJECTS | PARQUET and not path.name.startswith(".")


def _is_parquet(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in PARQUET


def _json_rows(file: BinaryIO) -> Iterator[tuple[int, Any]]:
    """The JSON value of each line, by its number; None where it is none."""
    for number, line in lines(file, MAX_LINE_BYTES):
        if line is None or line.strip():
            try:
                yield number, json.loads(line or b"")
            except (ValueError, RecursionError):
                yield number, None


def _parquet_rows(file: BinaryIO) -> Iterator[tuple[int, Any]]:
    """Each row as JSON would have it, by its number, from 1 on. Raises: ValueError: damaged."""
    parquet = pyarrow_parquet()
    import pyarrow

    number = 0
    try:
        for batch in parquet.ParquetFile(file).iter_batches(BATCH_ROWS):
            for row in batch.to_pylist():
                number += 1
                yield number, row
    except (pyarrow.ArrowException, OSError) as exc:
        raise ValueError(f"it is no Parquet file, or damaged: {exc}") from exc
