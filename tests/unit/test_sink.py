"""Sinks: which places are allowed, what a shard is called and holds, and disks that fail."""

import errno
import json
import os
import threading
import time
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from producer.contract import (
    Embedding,
    ErrorCode,
    ImageFacts,
    ItemResult,
    JobError,
    JobFailed,
    JobState,
)
from producer.contract import Match as ContractMatch
from tests.stand_in_worker import succeeded
from tests.unit.test_chunk import IMAGES
from worker import sink_file
from worker.errors import Fault
from worker.settings import WorkerSettings
from worker.shard import encoded
from worker.sink import Sinks, shard_name
from worker.sink_place import place_of

FACTS = ImageFacts(format="PNG", width=4, height=3, bytes=99, sha256="0" * 64)
ITEMS = [
    ItemResult(
        index=0,
        image_ref=IMAGES[0],
        state=JobState.SUCCEEDED,
        attempts=1,
        matches=(
            ContractMatch(text="a cat é", itm_probability=0.1, itm_logit=-2.2, itc_cosine=0.3),
        ),
        image=FACTS,
    ),
    ItemResult(
        index=1,
        state=JobState.FAILED,
        attempts=3,
        error=JobError.of(JobFailed(ErrorCode.HTTP_5XX)),
    ),
]


class FakeS3:
    def __init__(self) -> None:
        self.put_at: list[str] = []

    def put(self, place: Any, data: bytes, deadline_s: float) -> None:
        self.put_at.append(f"{place.bucket} {place.path}")

    def close(self) -> None:
        pass


# Places


ALLOW = ["s3://bucket/shards/", "s3://whole/", "file:///data/out/"]


@pytest.mark.parametrize(
    ("sink", "allowed"),
    [
        ("s3://bucket/shards/", True),
        ("s3://bucket/shards/a/b/", True),
        ("s3://bucket/sh%61rds/", True),
        ("s3://bucket/shards2/", False),
        ("s3://bucket/", False),
        ("s3://bucket/shards/../x/", False),
        ("s3://bucket/shards/%2e%2e/", False),
        ("s3://BUCKET/shards/", False),
        ("s3://whole/", True),
        ("s3://whole/a/", True),
        ("s3://wholes/", False),
        ("file:///data/out/", True),
        ("file:///data/out/a%20b/", True),
        ("file:///data/", False),
        ("file:///data/outside/", False),
        ("file:///data/out/../../etc/", False),
        ("file:///data/out/%2e%2e/", False),
        ("file:///data/out//etc/", False),
        ("file:///data/out/%00/", False),
        ("file:///", False),
    ],
)
def test_given_a_list_then_sinks_in_its_folders_are_allowed_and_no_others(
    sink: str, allowed: bool
) -> None:
    sinks = Sinks(ALLOW, 5, FakeS3())
    if allowed:
        sinks.check(sink, "jsonl")
        return
    with pytest.raises(Fault) as fault:
        sinks.check(sink, "jsonl")
    assert fault.value.code is ErrorCode.SINK_NOT_ALLOWED


@pytest.mark.parametrize("sink", ["s3://bucket/shards/", "file:///data/out/"])
def test_given_an_empty_list_then_every_sink_is_refused(sink: str) -> None:
    with pytest.raises(Fault) as fault:
        Sinks([], 5, FakeS3()).write(sink, "jsonl", "a", ITEMS)
    assert fault.value.code is ErrorCode.SINK_NOT_ALLOWED


def test_given_a_prefix_with_spaces_then_the_shard_lies_under_it_and_its_uri_says_where() -> None:
    s3 = FakeS3()
    uri = Sinks(ALLOW, 5, s3).write("s3://bucket/shards/run%201/", "jsonl", "a", ITEMS)
    assert uri == "s3://bucket/shards/run%201/a.jsonl"
    assert s3.put_at == ["bucket shards/run 1/a.jsonl"]
    assert place_of(uri).path == "shards/run 1/a.jsonl"


@pytest.mark.parametrize(
    "entry",
    [
        "/data",
        "s3://bucket/prefix",
        "s3://",
        "https://a/",
        "file:///nowhere-at-all/",
        "file:///a/../",
    ],
)
def test_given_a_setting_that_names_no_folder_then_the_worker_does_not_start(entry: str) -> None:
    with pytest.raises(ValueError, match="SINK_ALLOW"):
        WorkerSettings(sink_allow=f"s3://fine/,{entry}")


# Names


@pytest.mark.parametrize(
    "job_id", ["run-7.0001", "a/b", "a_b", "a:b", ".hidden", "x" * 200, "y" * 121, "a=b@c+d"]
)
def test_given_any_id_then_its_shards_name_is_its_own_and_the_same_in_a_path_and_a_uri(
    job_id: str,
) -> None:
    name = shard_name(job_id)
    assert name == shard_name(job_id)
    assert len(name) < 150
    assert place_of(f"s3://bucket/{name}.jsonl").path == f"{name}.jsonl"
    assert "/" not in name


def test_given_ids_that_look_alike_then_their_names_differ() -> None:
    ids = ["a/b", "a_b", "a:b", "a@b", "x" * 130, "x" * 131]
    assert len(set(map(shard_name, ids))) == len(ids)


# Formats


def test_given_items_then_each_is_a_line_of_json() -> None:
    data = encoded(ITEMS, "jsonl")
    assert data == encoded(ITEMS, "jsonl")
    assert [ItemResult.model_validate_json(line) for line in data.splitlines()] == ITEMS


def test_given_items_then_each_is_a_row_of_parquet() -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    import pyarrow as pa

    captioned = ItemResult(
        index=2,
        state=JobState.SUCCEEDED,
        attempts=1,
        captions=succeeded(job()).captions,
    )
    items = [*ITEMS, captioned]
    data = encoded(items, "parquet")
    assert data == encoded(items, "parquet")
    rows = parquet.read_table(pa.BufferReader(data)).to_pylist()
    assert [ItemResult.model_validate_json(json.dumps(row)) for row in rows] == items


def test_given_nothing_but_failures_then_the_columns_of_parquet_are_the_same() -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    import pyarrow as pa

    schemas = [
        parquet.read_schema(pa.BufferReader(encoded(items, "parquet")))
        for items in (ITEMS, ITEMS[1:], ITEMS[:1])
    ]
    assert schemas[0] == schemas[1] == schemas[2]


def test_given_what_an_item_may_have_then_parquet_has_a_column_or_field_for_all_of_it() -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    import pyarrow as pa

    def names(schema: Any) -> dict[str, Any]:
        """The fields of a schema or a struct by name, each with its own, whatever lists it."""
        found = {}
        for field in schema:
            kind = field.type.value_type if pa.types.is_list(field.type) else field.type
            found[field.name] = names(kind) if pa.types.is_struct(kind) else None
        return found

    def wanted(model: type[BaseModel]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, field in model.model_fields.items():
            inner = [one for one in _named(field.annotation) if issubclass(one, BaseModel)]
            found[name] = wanted(inner[0]) if inner else None
        return found

    schema = parquet.read_schema(pa.BufferReader(encoded(ITEMS, "parquet")))
    assert names(schema) == wanted(ItemResult)


def _named(annotation: Any) -> list[type]:
    """The classes that an annotation names: X of `tuple[X, ...] | None`."""
    if isinstance(annotation, type) and not get_args(annotation):
        return [annotation]
    return [one for part in get_args(annotation) for one in _named(part)]


def test_given_everything_that_an_item_may_say_then_parquet_says_it_again() -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    import pyarrow as pa

    refused = {"itm_probability": 0.2, "rejected": True, "reject_reasons": ("repetition",)}
    captions = tuple(one.model_copy(update=refused) for one in succeeded(job()).captions or ())
    embeddings = tuple(
        Embedding.of([0.6, 0.8], kind, "m", "r") for kind in ("list", "float32", "float16")
    )
    said = {"captions": captions, "embeddings": embeddings, "abstained": True}
    matched = {"index": 3, "calibrated_probability": 0.5, "decision": "match"}
    matches = tuple(one.model_copy(update=matched) for one in ITEMS[0].matches or ())
    item = ITEMS[0].model_copy(update=said | {"matches": matches})

    (row,) = parquet.read_table(pa.BufferReader(encoded([item], "parquet"))).to_pylist()

    assert ItemResult.model_validate_json(json.dumps(row)) == item


def test_given_no_pyarrow_then_parquet_is_refused_before_any_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    sinks = Sinks(ALLOW, 5)
    sinks.check("file:///data/out/", "jsonl")
    with pytest.raises(Fault, match="pip install") as fault:
        sinks.check("file:///data/out/", "parquet")
    assert fault.value.code is ErrorCode.SINK_NOT_ALLOWED


def job() -> Any:
    from producer.contract import CaptionJob

    return CaptionJob(job_id="a", image=IMAGES[0])


# Disks


def write(folder: Path, job_id: str = "a", below: str = "", timeout_s: float = 5) -> str:
    sinks = Sinks([f"{folder.as_uri()}/"], timeout_s)
    return sinks.write(f"{folder.as_uri()}/{below}", "jsonl", job_id, ITEMS)


def test_given_a_folder_then_the_shard_is_written_once_and_again_as_the_same(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "out put"
    folder.mkdir()
    for _ in range(2):
        assert write(folder, below="new/sub/") == f"{folder.as_uri()}/new/sub/a.jsonl"
        (shard,) = (folder / "new/sub").iterdir()
        assert shard.name == "a.jsonl"
        assert shard.read_bytes() == encoded(ITEMS, "jsonl")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EIO])
@pytest.mark.parametrize("call", ["write", "fsync", "open", "rename"])
def test_given_a_disk_that_fails_then_it_is_tried_later_and_nothing_half_written_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, call: str
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise OSError(code, os.strerror(code))

    write(tmp_path)
    before = (tmp_path / "a.jsonl").read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(sink_file.os, call, fail)
        with pytest.raises(Fault) as fault:
            write(tmp_path)
    assert fault.value.code is ErrorCode.SINK_UNAVAILABLE
    assert fault.value.transient
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a.jsonl": before}


def test_given_a_disk_that_takes_a_little_at_a_time_then_the_shard_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = os.write
    monkeypatch.setattr(sink_file.os, "write", lambda file, data: whole(file, bytes(data)[:7]))
    write(tmp_path)
    assert (tmp_path / "a.jsonl").read_bytes() == encoded(ITEMS, "jsonl")


def test_given_a_disk_that_hangs_then_nobody_waits_for_it_longer_than_the_timeout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()
    monkeypatch.setattr(sink_file.os, "fsync", lambda file: gate.wait(10))
    began_s = time.monotonic()
    try:
        with pytest.raises(Fault) as fault:
            write(tmp_path, timeout_s=0.1)
    finally:
        gate.set()
    assert fault.value.code is ErrorCode.SINK_UNAVAILABLE
    assert time.monotonic() - began_s < 2


def test_given_no_folder_any_more_then_it_is_tried_later(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    sinks = Sinks([f"{folder.as_uri()}/"], 5)
    folder.rmdir()
    with pytest.raises(Fault) as fault:
        sinks.write(f"{folder.as_uri()}/", "jsonl", "a", ITEMS)
    assert fault.value.code is ErrorCode.SINK_UNAVAILABLE
    assert not folder.exists()


def test_given_a_link_below_the_folder_then_it_is_not_followed(tmp_path: Path) -> None:
    outside, folder = tmp_path / "outside", tmp_path / "out"
    outside.mkdir()
    folder.mkdir()
    (folder / "link").symlink_to(outside)
    (folder / "file").write_text("")
    (outside / "target").write_text("untouched")
    (folder / "a.jsonl").symlink_to(outside / "target")
    for below in ("link/", "link/sub/", "file/"):
        with pytest.raises(Fault) as fault:
            write(folder, below=below)
        assert fault.value.code is ErrorCode.SINK_NOT_ALLOWED
    write(folder)
    assert not (folder / "a.jsonl").is_symlink()
    assert (outside / "target").read_text() == "untouched"
    assert [path.name for path in outside.iterdir()] == ["target"]
