"""Parquet parts, and texts beside images: whole at any moment."""

import errno
import os
from pathlib import Path

import pyarrow.parquet
import pytest

from producer.manifest.beside import Beside, text_path
from producer.manifest.journal import CannotResume
from producer.manifest.kinds import Captions
from producer.manifest.outputs import Failures
from producer.manifest.parts import Parts
from producer.manifest.reference import Reference
from producer.manifest.request import Request
from producer.manifest.rows import Row
from tests.unit.manifest.test_manifest_session import CHUNK, InProcess, run

ROWS = Captions(CHUNK)


def row(index: int) -> Row:
    return ROWS.invalid(index, Reference(f"x:{index}", f"{index}.jpg"), "It is none.")


def indices(folder: Path) -> list[int]:
    read: list[int] = pyarrow.parquet.read_table(folder)["index"].to_pylist()
    return read


def test_given_rows_then_a_part_is_due_when_it_is_large_or_old(tmp_path: Path) -> None:
    now_s = 0.0
    parts = Parts(
        tmp_path / "out.parquet", ROWS.columns, part_rows=3, part_s=60, clock_s=lambda: now_s
    )

    assert not parts.due
    parts.write([row(0), row(1)])
    assert not parts.due
    parts.write([row(2)])
    assert parts.due
    assert parts.commit() == 1
    assert not parts.due
    parts.write([row(3)])
    now_s = 61.0
    assert parts.due
    assert parts.commit() == 2
    assert parts.commit() == 2  # nothing new

    assert sorted(path.name for path in (tmp_path / "out.parquet").iterdir()) == [
        "part-00000.parquet",
        "part-00001.parquet",
    ]
    assert indices(tmp_path / "out.parquet") == [0, 1, 2, 3]
    assert tuple(
        pyarrow.parquet.read_schema(tmp_path / "out.parquet/part-00000.parquet").names
    ) == tuple(ROWS.columns)


def test_given_parts_behind_the_mark_then_they_are_dropped_and_strangers_are_not(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "out.parquet"
    parts = Parts(folder, ROWS.columns)
    for index in range(3):
        parts.write([row(index)])
        parts.commit()
    (folder / ".part-00003.parquet.unfinished").write_text("half")
    (folder / "README.md").write_text("mine")

    again = Parts(folder, ROWS.columns)
    again.cut(2)
    again.write([row(7)])
    again.commit()

    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md", "part-00000.parquet", "part-00001.parquet", "part-00002.parquet",
    ]  # fmt: skip
    (folder / "README.md").unlink()
    assert indices(folder) == [0, 1, 7]


def test_given_a_process_killed_while_it_writes_a_part_then_the_folder_can_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "out.parquet"
    parts = Parts(folder, ROWS.columns)
    parts.write([row(0)])
    parts.commit()
    parts.write([row(1)])

    def killed(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", killed)
    with pytest.raises(KeyboardInterrupt):
        parts.commit()

    (left,) = (path for path in folder.iterdir() if path.name != "part-00000.parquet")
    left.write_bytes(left.read_bytes()[:100])  # as where the file system had no more of it
    assert indices(folder) == [0]


def test_given_parts_that_are_missing_then_resuming_is_refused(tmp_path: Path) -> None:
    parts = Parts(tmp_path / "out.parquet", ROWS.columns)
    parts.write([row(0)])
    parts.commit()
    (tmp_path / "out.parquet/part-00000.parquet").unlink()

    with pytest.raises(CannotResume, match="has lost parts"):
        Parts(tmp_path / "out.parquet", ROWS.columns).cut(1)


@pytest.mark.parametrize(
    ("there", "image", "text"),
    [
        (["cat.jpg"], "cat.jpg", "cat.txt"),
        (["cat.jpg", "cat.png"], "cat.jpg", "cat.jpg.txt"),
        (["cat.jpg", "cat.png"], "cat.png", "cat.png.txt"),
        (["cat.jpg", "cat.md"], "cat.jpg", "cat.txt"),
        (["cat.jpg", "cat.JPG"], "cat.jpg", "cat.jpg.txt"),
        (["cat.jpg", "cat.JPG"], "cat.JPG", "cat.JPG.txt"),
        (["cat.JPG", "cat.PNG"], "cat.JPG", "cat.JPG.txt"),
        (["cat.JPG", "cat.PNG"], "cat.PNG", "cat.PNG.txt"),
        (["cat.JPG"], "cat.JPG", "cat.txt"),
        (["scan.001", "scan.002"], "scan.001", "scan.001.txt"),
        (["cat.txt"], "cat.txt", "cat.txt.txt"),
        (["cat.v2.jpg"], "cat.v2.jpg", "cat.v2.txt"),
    ],
)
def test_given_an_image_then_its_text_is_no_other_images(
    tmp_path: Path, there: list[str], image: str, text: str
) -> None:
    for name in there:
        (tmp_path / name).touch()

    assert text_path(tmp_path / image) == tmp_path / text


def photos(folder: Path, count: int = 9) -> Path:
    folder.mkdir()
    for n in range(count):
        (folder / f"{n}.jpg").touch()
    return folder


def texts(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in sorted(folder.glob("*.txt"))}


def beside(tmp_path: Path, folder: Path, **fields: object) -> Request:
    own: dict[str, object] = {"size": 4, "in_flight": 2, "beside": True}
    own |= {"journal": tmp_path / "journal"} | fields
    return Request((str(folder),), CHUNK, **own)  # type: ignore[arg-type]


def test_given_images_here_then_each_has_its_caption_beside_it(tmp_path: Path) -> None:
    folder = photos(tmp_path / "photos")
    (folder / "5.jpg").rename(folder / "bad.jpg")

    counts = run(beside(tmp_path, folder))

    assert counts == {"succeeded": 8, "http_4xx": 1}
    said = texts(folder)
    assert said["3.txt"] == f"a picture of {(folder / '3.jpg').as_uri()}\n"
    assert len(said) == 8
    assert [p for p in folder.iterdir() if p.suffix not in (".jpg", ".txt")] == []  # no drafts


def test_given_an_image_that_is_named_twice_then_it_has_one_text_and_two_rows(
    tmp_path: Path,
) -> None:
    photos(tmp_path / "photos", 1)
    (tmp_path / "list.txt").write_text("photos/0.jpg\nphotos/0.jpg\n")

    output = tmp_path / "out.jsonl"
    counts = run(beside(tmp_path, tmp_path / "list.txt", output=output))

    assert counts == {"succeeded": 2}
    assert list(texts(tmp_path / "photos")) == ["0.txt"]
    assert len(output.read_text().splitlines()) == 2


def test_given_a_name_as_long_as_names_can_be_then_it_has_a_text(tmp_path: Path) -> None:
    folder = photos(tmp_path / "photos", 0)
    (folder / f"{'x' * 251}.jpg").touch()

    assert run(beside(tmp_path, folder)) == {"succeeded": 1}
    assert list(texts(folder)) == [f"{'x' * 251}.txt"]


def test_given_a_text_that_cannot_be_written_then_none_is_left_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = photos(tmp_path / "photos", 0)
    output = Beside(Failures(print))
    output.write([row(0) | {"caption": "a cat", "text_path": folder / "0.txt"}])

    def full(path: Path, *_: object, **__: object) -> None:
        path.write_bytes(b"a d")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space"):
        output.write([row(1) | {"caption": "a dog", "text_path": folder / "1.txt"}])
    output.commit()

    assert texts(folder) == {"0.txt": "a cat\n"}
    assert [path.name for path in folder.iterdir()] == ["0.txt"]


def test_given_texts_that_are_there_then_those_images_are_skipped_also_when_resumed(
    tmp_path: Path,
) -> None:
    folder = photos(tmp_path / "photos")
    (folder / "2.txt").write_text("mine\n")
    (folder / "3.txt").write_text("mine\n")
    service = InProcess()

    counts = run(beside(tmp_path, folder, skip_existing=True), service)

    assert counts == {"succeeded": 7, "skipped": 2}
    assert texts(folder)["2.txt"] == texts(folder)["3.txt"] == "mine\n"
    assert len(service.images) == 7

    lines = (tmp_path / "journal").read_bytes().splitlines(keepends=True)
    (tmp_path / "journal").write_bytes(
        b"".join(line for line in lines if b'"sent"' in line or b"run" in line)
    )
    counts = run(beside(tmp_path, folder, skip_existing=True, resume=True), service)

    assert counts == {"succeeded": 7, "skipped": 2}  # nothing was done: the same chunks again
    assert set(service.answered.values()) == {1}
    assert texts(folder)["2.txt"] == "mine\n"


def test_given_a_uri_then_it_has_no_place_for_a_text(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("https://example.com/a.jpg\n")

    counts = run(beside(tmp_path, tmp_path / "list.txt", output=tmp_path / "out.jsonl"))

    assert counts == {"job_invalid": 1}
    assert "to have a text beside it" in (tmp_path / "out.jsonl").read_text()


def test_given_a_run_that_stops_before_a_commit_then_no_half_text_is_seen(tmp_path: Path) -> None:
    said: list[str] = []
    output = Beside(Failures(said.append))
    output.write([row(0) | {"caption": "a cat", "text_path": tmp_path / "0.txt"}, row(1)])

    assert not (tmp_path / "0.txt").exists()
    assert said == ["0.jpg: job_invalid: It is none.", "1.jpg: job_invalid: It is none."]
    output.close()
    assert list(tmp_path.iterdir()) == []


def test_given_a_name_that_is_no_text_then_its_row_can_be_written(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff.jpg")).touch()

    run(Request((str(folder),), CHUNK, output=tmp_path / "out.jsonl"))
    run(Request((str(folder),), CHUNK, output=tmp_path / "out.parquet"))

    assert "\\\\xff.jpg" in (tmp_path / "out.jsonl").read_text()
    (image,) = pyarrow.parquet.read_table(tmp_path / "out.parquet")["image"].to_pylist()
    assert image.endswith("\\xff.jpg")
