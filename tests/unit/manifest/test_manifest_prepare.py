"""Chunks made ready to be sent."""

import errno
from pathlib import Path

import pytest

from producer.manifest.chunks import Chunk
from producer.manifest.journal import LeftOut
from producer.manifest.prepare import Preparer
from producer.manifest.reference import Reference
from producer.upload import UploadFailed


def chunk(folder: Path, *names: str) -> Chunk:
    for name in names:
        (folder / name).touch()
    return Chunk(0, 0, tuple(Reference(f"x:{n}", one, folder) for n, one in enumerate(names)))


def upload(path: Path) -> str:
    if path.name == "secret.jpg":
        raise PermissionError(errno.EACCES, "Permission denied", str(path))
    if path.name == "refused.jpg":
        raise UploadFailed("S3 is away")
    return f"s3://bucket/{path.name}"


def test_given_a_file_that_cannot_be_read_to_be_copied_then_it_fails_alone(tmp_path: Path) -> None:
    prepared = Preparer(upload).prepare(chunk(tmp_path, "a.jpg", "secret.jpg", "b.jpg"))

    assert prepared.images == ("s3://bucket/a.jpg", "s3://bucket/b.jpg")
    assert [index for index, _ in prepared.asked] == [0, 2]
    assert prepared.left_out == LeftOut(bad=0b010)
    ((index, _, why),) = prepared.invalid
    assert (index, why) == (1, "The file cannot be read: Permission denied.")


def test_given_a_chunk_that_was_sent_then_it_keeps_a_file_that_cannot_be_read_now(
    tmp_path: Path,
) -> None:
    prepared = Preparer(upload).prepare(chunk(tmp_path, "a.jpg", "secret.jpg"), LeftOut())

    assert [index for index, _ in prepared.asked] == [0, 1]
    assert len(prepared.images) == 2
    assert prepared.invalid == ()


def test_given_s3_that_takes_no_file_then_that_is_no_fault_of_the_file(tmp_path: Path) -> None:
    with pytest.raises(UploadFailed, match="S3 is away"):
        Preparer(upload).prepare(chunk(tmp_path, "a.jpg", "refused.jpg"))
