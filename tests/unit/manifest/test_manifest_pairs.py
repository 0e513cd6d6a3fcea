"""Tables of images and captions, read as pairs."""

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from producer.manifest.reference import BadReference, Reference
from producer.manifest.sources import Sources
from producer.manifest.tables import Columns

PAIRED = Columns(paired=True)
ROWS = [("a.jpg", "a cat"), ("https://a.example/b.jpg", " two\ndogs ")]


def csv(path: Path) -> None:
    path.write_text('id,image,caption\n1,a.jpg,a cat\n2,https://a.example/b.jpg," two\ndogs "\n')


def tsv(path: Path) -> None:
    path.write_text('caption\tfile_name\na cat\ta.jpg\n" two\ndogs "\thttps://a.example/b.jpg\n')


def jsonl(path: Path) -> None:
    path.write_text("".join(json.dumps({"text": b, "url": a}) + "\n" for a, b in ROWS))


def parquet(path: Path) -> None:
    table = pyarrow.table({"TEXT": [b for _, b in ROWS], "n": [1, 2], "URL": [a for a, _ in ROWS]})
    pyarrow.parquet.write_table(table, path)


@pytest.mark.parametrize(
    ("name", "write"),
    [("x.csv", csv), ("x.tsv", tsv), ("x.jsonl", jsonl), ("x.parquet", parquet)],
)
def test_given_a_table_then_each_row_is_an_image_and_its_caption(
    tmp_path: Path, name: str, write: Callable[[Path], None]
) -> None:
    write(tmp_path / name)

    read = list(Sources([str(tmp_path / name)], PAIRED))

    assert [(one.given, one.caption) for one in read] == [
        ("a.jpg", "a cat"),
        ("https://a.example/b.jpg", "two\ndogs"),
    ]


def test_given_columns_by_name_then_these_are_read(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("image,caption,alt,photo\n1.jpg,no,yes,2.jpg\n")

    (pair,) = Sources([str(tmp_path / "x.csv")], Columns("photo", "alt", paired=True))

    assert (pair.given, pair.caption) == ("2.jpg", "yes")


def test_given_rows_without_a_caption_then_each_says_so_and_the_others_are_read(
    tmp_path: Path,
) -> None:
    lines = ["image,caption", "https://a.example/1,a cat", "https://a.example/2,",
             "https://a.example/3", f"https://a.example/4,{'x' * 2_001}"]  # fmt: skip
    (tmp_path / "x.csv").write_bytes("\n".join(lines).encode() + b"\nhttps://a.example/5,\xff\n")
    (tmp_path / "y.jsonl").write_text(
        '{"url": "https://a.example/1", "text": "a"}\n{"url": "https://a.example/2", "text": 3}\n'
        '{"url": "https://a.example/3", "text": null}\n{"text": "a"}\n'
    )

    said = [fault(one) for one in Sources([str(tmp_path / "x.csv")], PAIRED)]

    assert said[:3] == [None, "The row has no caption.", "The row has no column caption."]
    assert str(said[3]).startswith("The caption cannot be weighed: String should have at most 2000")
    assert str(said[4]).startswith("The caption cannot be weighed: Input should be a valid string")
    assert [fault(one) for one in Sources([str(tmp_path / "y.jsonl")], PAIRED)] == [
        None,
        "The object has no text in text.",
        "The object has no text in text.",
        "The object has no text in url.",
    ]


def fault(reference: Reference) -> str | None:
    try:
        reference.locate()
    except BadReference as exc:
        return str(exc)
    return None


@pytest.mark.parametrize(
    ("word", "columns", "sentence"),
    [
        (
            "x.csv",
            Columns(caption="nope", paired=True),
            "has no column 'nope'. Its columns: url, b",
        ),
        ("x.csv", PAIRED, "no column named caption or text: say with --caption-column which"),
        ("x.parquet", Columns("url", "n", paired=True), "not texts: name one of texts with --cap"),
        ("x.jsonl", PAIRED, "no column named caption or text"),
        ("list.txt", PAIRED, "Pairs are read from tables"),
        ("photos", PAIRED, "Pairs are read from tables"),
        ("parts.parquet", PAIRED, "Pairs are read from tables"),
        ("https://a.example/pairs.csv", PAIRED, "Pairs are read from tables"),
        ("-", PAIRED, "Pairs are read from tables"),
    ],
)
def test_given_what_holds_no_pairs_then_nothing_is_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str, columns: Columns, sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("x.csv").write_text("url,b\n1,2\n")
    Path("x.jsonl").write_text('{"url": "a"}\n')
    Path("list.txt").write_text("a.jpg\n")
    Path("photos").mkdir()
    Path("parts.parquet").mkdir()
    pyarrow.parquet.write_table(pyarrow.table({"url": ["a"], "n": [1]}), "x.parquet")

    with pytest.raises(ValueError, match=sentence):
        Sources([word], columns)
