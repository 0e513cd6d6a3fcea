"""What words on the command line stand for."""

import errno
import os
import re
import sys
from io import BytesIO
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from producer.manifest.chunks import in_chunks
from producer.manifest.folders import matches
from producer.manifest.reference import BadReference, Reference, spelled
from producer.manifest.sources import Identity, Sources
from producer.manifest.tables import Columns

URI = "https://example.com/a.jpg"


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of images and other things; the current folder is the one it lies in."""
    monkeypatch.chdir(tmp_path)
    for name in (
        "photos/b.JPG", "photos/a.png", "photos/notes.md", "photos/.hidden.jpg",
        "photos/2026/c.webp", "photos/2026/01/d.jpeg", "photos/.cache/e.jpg", "photos/2025/f.gif",
    ):  # fmt: skip
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    Path("photos/loop").symlink_to(tmp_path / "photos")
    Path("photos/z.jpg").symlink_to(tmp_path / "photos/b.JPG")
    return tmp_path / "photos"


def read(*words: str, **options: object) -> list[str]:
    return [one.given for one in Sources(words, **options)]  # type: ignore[arg-type]


IN_ORDER = ["2025/f.gif", "2026/01/d.jpeg", "2026/c.webp", "a.png", "b.JPG", "z.jpg"]


@pytest.mark.parametrize("word", ["photos", "photos/", "./photos"])
def test_given_a_folder_then_its_images_come_in_order_of_their_names(
    photos: Path, word: str
) -> None:
    assert read(word) == [f"photos/{name}" for name in IN_ORDER]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("photos/*.jpg", ["z.jpg"]),
        ("photos/[ab].*", ["a.png", "b.JPG"]),
        ("photos/**/?.jpeg", ["2026/01/d.jpeg"]),
        ("photos/**", IN_ORDER),
        ("photos/20*", ["2025/f.gif", "2026/01/d.jpeg", "2026/c.webp"]),
        ("photos/20*/*", ["2025/f.gif", "2026/01/d.jpeg", "2026/c.webp"]),
        ("photos/*/01/d.jpeg", ["2026/01/d.jpeg"]),
        ("phot*/.hid*", [".hidden.jpg"]),
    ],
)
def test_given_a_pattern_then_what_it_names_comes_in_order(
    photos: Path, pattern: str, expected: list[str]
) -> None:
    assert read(pattern) == [f"photos/{name}" for name in expected]


def test_given_a_pattern_with_two_double_stars_then_it_is_refused(photos: Path) -> None:
    with pytest.raises(ValueError, match=r"one \*\*"):
        list(matches("photos/**/a/**"))


def test_given_a_file_whose_name_has_brackets_then_it_is_no_pattern(photos: Path) -> None:
    Path("a[1].jpg").touch()

    assert read("a[1].jpg") == ["a[1].jpg"]


@pytest.mark.parametrize(
    "word", ["", "photos/none.jpg", "nowhere/", "photos/*.tiff", "ftp://a.example/b"]
)
def test_given_a_word_that_names_nothing_then_it_is_refused(photos: Path, word: str) -> None:
    with pytest.raises(
        ValueError, match=f"There is no file, folder or match {re.escape(repr(word))}"
    ):
        Sources([word])


def test_given_a_link_to_itself_then_it_fails_alone(photos: Path) -> None:
    Path("photos/own.jpg").symlink_to("own.jpg")

    assert "photos/own.jpg" in read("photos")
    assert read("photos/*/*.webp") == ["photos/2026/c.webp"]
    with pytest.raises(BadReference):
        Reference("x", "photos/own.jpg").locate()


@pytest.mark.parametrize("word", ["photos", "photos/**/*.*", "phot*/"])
def test_given_a_folder_that_cannot_be_read_then_it_is_a_bad_row_and_the_others_are_read(
    photos: Path, monkeypatch: pytest.MonkeyPatch, word: str
) -> None:
    scandir = os.scandir

    def guarded(path: Path) -> object:
        if path.name == "2025":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr("producer.manifest.folders.os.scandir", guarded)

    found = list(Sources([word]))

    faults = {one.given: one.fault for one in found if one.fault}
    assert faults == {"photos/2025": "The folder cannot be read: Permission denied."}
    assert {"photos/2026/c.webp", "photos/z.jpg"} < {one.given for one in found}


def test_given_what_is_written_meanwhile_then_patterns_pass_it_over_and_words_are_refused(
    photos: Path,
) -> None:
    for name in ("in.csv", "out.csv"):
        Path(name).write_text("image\na.jpg\n")
    Path("out.parquet").mkdir()
    parquet(Path("out.parquet/part-0.parquet"), ["a.jpg"])
    written = [Path("out.csv"), Path("out.parquet")]

    words = ["*.csv", "photos/../*.csv", "**/*.csv", "**/i*.csv", "[io]*"]
    sources = Sources(words, written=written)

    assert [one.given for one in sources] == ["a.jpg"] * 5
    assert sources.identities()[0].total == 1
    for word in ("out.csv", "photos/../out.csv", "out.parquet", "out.parquet/part-0.parquet"):
        with pytest.raises(ValueError, match="is where this run writes"):
            Sources([word], written=written)


@pytest.mark.parametrize("pattern", ["*.csv", "*"])
def test_given_tables_of_a_pattern_then_each_is_looked_at_beforehand(
    photos: Path, pattern: str
) -> None:
    Path("a.csv").write_text("image\na.jpg\n")
    Path("b.csv").write_text("text\nwords\n")

    with pytest.raises(ValueError, match=r"b.csv has no column named image"):
        Sources([pattern])


def test_given_a_first_object_that_is_none_then_the_next_tells_the_columns(photos: Path) -> None:
    Path("x.jsonl").write_text('oops\n{"text": "words"}\n')

    with pytest.raises(ValueError, match=r"x.jsonl has no column named image"):
        Sources(["x.jsonl"])


def test_given_several_words_then_they_are_read_one_after_the_other(photos: Path) -> None:
    Path("list.txt").write_text(f"{URI}\nphotos/a.png\n")
    words = ["list.txt", "s3://photos/x.jpg", "photos/b.JPG", "-"]

    read_words = read(*words, stdin=BytesIO(b"# a list\nq.jpg\n"))

    assert read_words == [URI, "photos/a.png", "s3://photos/x.jpg", "photos/b.JPG", "q.jpg"]


def test_given_standard_input_twice_then_it_is_refused() -> None:
    with pytest.raises(ValueError, match="can be read once"):
        Sources(["-", "-"])


@pytest.mark.parametrize("name", ["x.txt", "x.lst", "x.csv", "x.tsv", "x.jsonl", "x.ndjson"])
def test_given_a_list_elsewhere_then_its_paths_are_relative_to_its_folder_or_a_base(
    photos: Path, name: str
) -> None:
    line = '{"image": "a.png"}' if "json" in name else "a.png"
    head = "image\n" if "sv" in name else ""
    (photos / name).write_text(f"{head}{line}\n")
    other = photos.parent / name
    other.write_text(f"{head}{line}\n")

    (own,) = Sources([f"photos/{name}"])
    (based,) = Sources([name], base=Path("photos"))
    (lost,) = Sources([name])

    assert own.locate().path == based.locate().path == photos / "a.png"
    with pytest.raises(BadReference, match="neither a URI nor a file here"):
        lost.locate()


def parquet(path: Path, column: object, **options: object) -> Path:
    pyarrow.parquet.write_table(
        pyarrow.table({"id": range(len(column)), "url": column}), path, **options
    )  # type: ignore[arg-type]
    return path


TEXTS = ["https://example.com/1.jpg", None, " a.png ", "https://example.com/4.jpg"] * 700
KINDS = {
    "string": pyarrow.array(TEXTS),
    "large": pyarrow.array(TEXTS, pyarrow.large_string()),
    "dictionary": pyarrow.array(TEXTS).dictionary_encode(),
}


@pytest.mark.parametrize("kind", KINDS)
def test_given_parquet_then_its_column_is_read_and_empty_cells_are_bad_rows(
    tmp_path: Path, kind: str
) -> None:
    path = parquet(tmp_path / "x.parquet", KINDS[kind], row_group_size=900)
    sources = Sources([str(path)])

    found = list(sources)

    assert [one.given for one in found] == [(text or "").strip() for text in TEXTS]
    assert found[2_000].position == f"{path}:2001"
    assert sources.identities()[0].total == 2_800


@pytest.mark.parametrize("kind", ["string", "large_string"])
def test_given_parquet_with_a_cell_that_is_not_utf_8_then_it_alone_is_bad(
    tmp_path: Path, kind: str
) -> None:
    raw = pyarrow.array([b"a.jpg", None, b"https://example.com/\xff.jpg", b"b.jpg"])
    path = parquet(tmp_path / "x.parquet", raw.view("string").cast(kind))

    found = list(Sources([str(path)]))

    assert [one.given for one in found] == ["a.jpg", "", "https://example.com/\udcff.jpg", "b.jpg"]
    with pytest.raises(BadReference):
        found[2].locate()


@pytest.mark.parametrize(
    ("column", "named", "sentence"),
    [
        ([1, 2], None, "The column url of .* holds int64, not texts"),
        ([{"bytes": b"", "path": "a"}], "url", "holds struct"),
        ([["a", "b"]], "url", "holds list"),
        (["a"], "picture", "has no column 'picture'. Its columns: id, url."),
    ],
)
def test_given_parquet_without_a_column_of_texts_then_nothing_is_begun(
    tmp_path: Path, column: list[object], named: str | None, sentence: str
) -> None:
    path = parquet(tmp_path / "x.parquet", column)

    with pytest.raises(ValueError, match=sentence):
        Sources([str(path)], Columns(named))


def test_given_a_file_that_is_no_parquet_then_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_text("not at all")

    with pytest.raises(ValueError, match="is no Parquet file"):
        Sources([str(tmp_path / "x.parquet")])


def test_given_no_pyarrow_then_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = parquet(tmp_path / "x.parquet", ["a"])
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)

    with pytest.raises(OSError, match=r"needs pyarrow: pip install 'captionq\[manifests\]'"):
        Sources([str(path)])


def test_given_a_file_then_its_identity_follows_its_content_alone(tmp_path: Path) -> None:
    path, table = tmp_path / "x.txt", tmp_path / "x.parquet"

    def identity() -> list[Identity]:
        return Sources([str(path), str(table)]).identities()

    path.write_text("a\nb\n")
    parquet(table, ["a", "b"])
    before = identity()
    os.utime(path, (1, 1))
    os.utime(table, (1, 1))
    assert identity() == before
    assert [one.total for one in before] == [2, 2]

    path.write_text("a\nc\n")
    parquet(table, ["a", "c"])
    assert all(
        one.fingerprint != two.fingerprint for one, two in zip(identity(), before, strict=True)
    )


@pytest.mark.parametrize(
    ("word", "total"),
    [("photos", None), ("-", None), (URI, 1), ("photos/a.png", 1), ("x.csv", 2), ("*.csv", 4)],
)
def test_given_a_source_then_its_total_is_known_where_that_is_cheap(
    photos: Path, word: str, total: int | None
) -> None:
    for name in ("x.csv", "y.csv"):
        Path(name).write_text("image\na\nb\n")

    assert Sources([word]).identities()[0].total == total


@pytest.mark.parametrize(
    ("given", "uri"),
    [
        (URI, URI),
        ("s3://photos/a%20b.jpg", "s3://photos/a%20b.jpg"),
        ("file:///elsewhere/a.jpg", "file:///elsewhere/a.jpg"),
        ("a b#1.jpg", "{here}/a%20b%231.jpg"),
        ("ä.jpg", "{here}/%C3%A4.jpg"),
        ("\udcff.jpg", "{here}/%FF.jpg"),
    ],
)
def test_given_a_reference_then_its_uri_is_one_that_a_job_takes(
    tmp_path: Path, given: str, uri: str
) -> None:
    if "://" not in given:
        (tmp_path / given).touch()

    assert Reference("x:1", given, tmp_path).locate().uri == uri.format(here=tmp_path.as_uri())


@pytest.mark.parametrize(
    "given", ["", "a\0b", "x" * 5_000, "https://", "data:,x", "https://a\udcff/", "/"]
)
def test_given_what_is_no_reference_then_it_is_bad_and_can_be_written(given: str) -> None:
    with pytest.raises(BadReference):
        Reference("x:1", given, Path()).locate()
    spelled(given).encode()


@given(st.lists(st.text(max_size=5)), st.integers(1, 64))
def test_given_any_references_then_chunks_hold_each_once_in_order(
    texts: list[str], size: int
) -> None:
    references = [Reference(f"x:{n}", text) for n, text in enumerate(texts)]

    chunks = list(in_chunks(iter(references), size))

    assert [one for chunk in chunks for one in chunk.references] == references
    assert [chunk.number for chunk in chunks] == list(range(len(chunks)))
    assert all(chunk.first == chunk.number * size for chunk in chunks)
    assert all(len(chunk.references) == size for chunk in chunks[:-1])
    assert [chunk.digest() for chunk in chunks] == [c.digest() for c in in_chunks(references, size)]


@pytest.mark.parametrize(
    "other",
    [
        [Reference("x:1", "a"), Reference("x:2", "c")],
        [Reference("x:1", "ab"), Reference("x:2", "")],
        [Reference("x:1", "a")],
        [Reference("x:1", "a"), Reference("y:2", "b")],
        [Reference("x:1", "a"), Reference("x:2", "b", fault="no")],
    ],
)
def test_given_other_references_then_the_digest_differs(other: list[Reference]) -> None:
    (chunk,) = in_chunks([Reference("x:1", "a"), Reference("x:2", "b")])
    (changed,) = in_chunks(other)

    assert chunk.digest() != changed.digest()
