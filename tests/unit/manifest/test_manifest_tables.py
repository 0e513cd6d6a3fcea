"""Lists and tables of references, read as streams."""

import csv
import io
import json
import string
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from producer.manifest.reference import Reference
from producer.manifest.tables import (
    MAX_LINE_BYTES,
    TOO_LONG,
    Columns,
    count_lines,
    lines,
    read_csv,
    read_jsonl,
    read_list,
)

HERE = Path("/lists")
CELL = st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), max_size=20)
NAME = st.text(string.ascii_letters + " _-", min_size=1, max_size=8).map(str.strip).filter(bool)


def said(references: Iterator[Reference]) -> list[tuple[str, str | None]]:
    return [(one.given, one.fault) for one in references]


def positions(references: Iterator[Reference]) -> list[str]:
    return [one.position for one in references]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(b"", [], id="empty"),
        pytest.param(b"a\nb\n", ["a", "b"], id="two"),
        pytest.param(b"a\nb", ["a", "b"], id="last line without an end"),
        pytest.param(b"\n  \n# said\n a \n\t# too\n", ["a"], id="blank lines and comments"),
        pytest.param(b"a b.jpg\r\nhttps://x.example/#part\r\n", ["a b.jpg", "https://x.example/#part"],
                     id="spaces, carriage returns, a fragment"),
        pytest.param(b"\xef\xbb\xbf\xc3\xa4\n", ["ä"], id="a byte order mark"),
        pytest.param(b"\xff.jpg\n", ["\udcff.jpg"], id="a name that is not UTF-8"),
    ],
)  # fmt: skip
def test_given_a_list_then_each_line_that_says_something_is_a_reference(
    text: bytes, expected: list[str]
) -> None:
    read = list(read_list(BytesIO(text), "x.txt", HERE))

    assert [one.given for one in read] == expected
    assert all(one.fault is None and one.folder == HERE for one in read)


def test_given_a_list_then_positions_are_lines_of_the_file() -> None:
    assert positions(read_list(BytesIO(b"# a\n\nb\nc\n"), "x.txt", HERE)) == ["x.txt:3", "x.txt:4"]


def test_given_a_line_too_long_then_it_is_a_bad_row_and_the_next_is_read() -> None:
    text = b"a\n" + b"x" * (3 * MAX_LINE_BYTES) + b"\nb\n"

    assert said(read_list(BytesIO(text), "x", HERE)) == [("a", None), ("", TOO_LONG), ("b", None)]


@given(st.lists(st.binary(max_size=9).map(lambda b: b.replace(b"\n", b""))), st.booleans())
@example([b"\xef\xbb\xbf"], False)
def test_given_any_bytes_then_lines_are_those_of_the_file(parts: list[bytes], ends: bool) -> None:
    text = b"\n".join(parts) + (b"\n" if ends else b"")
    expected = text.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    if expected[-1] == b"":
        expected.pop()

    read = list(lines(BytesIO(text), max_bytes=100))

    assert [line.rstrip(b"\n") for _, line in read if line is not None] == expected
    assert [number for number, _ in read] == list(range(1, len(expected) + 1))
    assert count_lines([text[:3], text[3:]]) == len(text.split(b"\n")) - (text[-1:] in (b"", b"\n"))


@pytest.mark.parametrize(
    ("text", "column", "expected"),
    [
        pytest.param("image\na\nb\n", None, ["a", "b"], id="one column"),
        pytest.param("id,URL\n1,a\n2,b\n", None, ["a", "b"], id="a usual name in capitals"),
        pytest.param("url,image\nu,i\n", None, ["i"], id="image before url"),
        pytest.param("url,image\nu,i\n", "url", ["u"], id="by name"),
        pytest.param("id;url\n1;a,b\n", None, ["a,b"], id="semicolons"),
        pytest.param("id\turl\n1\ta\n", None, ["a"], id="tabs"),
        pytest.param(' id , url \n1,"a ""b"", c"\n', None, ['a "b", c'], id="quotes, spaced names"),
        pytest.param('url,note\na,"two\nlines"\nb,c\n', None, ["a", "b"], id="lines in a cell"),
        pytest.param("url\r\na\r\n\r\nb\r\n", None, ["a", "b"], id="a blank line"),
        pytest.param("\n\nurl\na\n", None, ["a"], id="blank lines before the header"),
    ],
)
def test_given_csv_then_one_column_has_the_references(
    text: str, column: str | None, expected: list[str]
) -> None:
    assert said(read_csv(BytesIO(text.encode()), "x", HERE, Columns(column))) == [
        (one, None) for one in expected
    ]


def test_given_csv_then_positions_are_the_first_lines_of_rows() -> None:
    text = b'url,note\na,"two\nlines"\n\nb,c\n'

    assert positions(read_csv(BytesIO(text), "x", HERE, Columns())) == ["x:2", "x:5"]


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        pytest.param(b"only", "The row has no column url.", id="too few cells"),
        pytest.param(b'1,"' + b"x" * 200_000, "The row is not CSV: field larger", id="a huge cell"),
        pytest.param(b"1," + b"x" * (MAX_LINE_BYTES + 9), TOO_LONG, id="a huge line"),
        pytest.param(b"1,a\rb", "The row is not CSV: new-line", id="a bare carriage return"),
    ],
)
def test_given_a_bad_row_of_csv_then_it_alone_is_bad(row: bytes, fault: str) -> None:
    text = b"id,url\n0,a\n" + row + b"\n2,b\n"

    first, bad, last = said(read_csv(BytesIO(text), "x", HERE, Columns()))

    assert (first, last) == (("a", None), ("b", None))
    assert bad[1] is not None
    assert bad[1].startswith(fault)


@given(st.lists(NAME, min_size=1, max_size=4, unique=True), st.data())
def test_given_any_table_written_as_csv_then_its_column_is_read_back(
    names: list[str], data: st.DataObject
) -> None:
    column = data.draw(st.sampled_from(names))
    rows = data.draw(st.lists(st.lists(CELL, min_size=len(names), max_size=len(names)), max_size=6))
    text = io.StringIO(newline="")
    writer = csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writerows([names, *rows])
    file = BytesIO(text.getvalue().encode())

    read = said(read_csv(file, "x", HERE, Columns(column), delimiter=","))

    place = names.index(column)
    assert read == [(row[place].strip(), None) for row in rows]


@given(st.binary(max_size=300))
def test_given_any_bytes_as_csv_then_rows_are_good_or_bad_and_nothing_is_raised(
    tail: bytes,
) -> None:
    for one in read_csv(BytesIO(b"a,url\n" + tail), "x", HERE, Columns()):
        assert one.fault is None or one.given == ""


@pytest.mark.parametrize(
    ("text", "column", "expected"),
    [
        pytest.param('{"image": "a"}\n{"image": "b"}\n', None, ["a", "b"], id="two"),
        pytest.param('\n{"Url": "a"}\n\n{"Url": "b"}', None, ["a", "b"], id="blank lines"),
        pytest.param('{"image": "a", "pic": "b"}\n', "pic", ["b"], id="by name"),
        pytest.param('\ufeff{"image": "\\u00e4"}\n', None, ["ä"], id="escapes"),
    ],
)
def test_given_json_lines_then_one_field_has_the_references(
    text: str, column: str | None, expected: list[str]
) -> None:
    assert said(read_jsonl(BytesIO(text.encode()), "x", HERE, Columns(column))) == [
        (one, None) for one in expected
    ]


@pytest.mark.parametrize(
    "row",
    ["not json", "[1]", '"a"', '{"image": 3}', '{"a": "b"}', "{", "[" * 100_000, '{"image": null}'],
)  # fmt: skip
def test_given_a_bad_line_of_json_then_it_alone_is_bad(row: str) -> None:
    text = f'{{"image": "a"}}\n{row}\n{{"image": "b"}}\n'

    read = said(read_jsonl(BytesIO(text.encode()), "x", HERE, Columns()))

    assert [one for one, fault in read if fault is None] == ["a", "b"]
    assert [one for one, fault in read if fault is not None] == [""]


@given(st.lists(st.dictionaries(CELL, st.one_of(CELL, st.integers(), st.none()), max_size=3)))
def test_given_any_objects_as_json_lines_then_each_is_one_row(
    rows: list[dict[str, object]],
) -> None:
    text = "".join(json.dumps(row) + "\n" for row in rows)

    read = list(read_jsonl(BytesIO(text.encode()), "x", HERE, Columns("image")))

    assert [one.position for one in read] == [f"x:{n}" for n, _ in enumerate(rows, start=1)]
    for row, one in zip(rows, read, strict=True):
        value = row.get("image")
        assert (one.fault is None) == isinstance(value, str)


@pytest.mark.parametrize(
    ("names", "column", "sentence"),
    [
        (["id", "text"], None, "x.csv has no column named image or url: say with --column"),
        (["id", "text"], None, "id, text."),
        (["id", "url"], "picture", "x.csv has no column 'picture'. Its columns: id, url."),
        ([], None, "none."),
    ],
)
def test_given_no_such_column_then_the_error_names_those_there_are(
    names: list[str], column: str | None, sentence: str
) -> None:
    with pytest.raises(ValueError, match="column") as raised:
        Columns(column).chosen("x.csv", names)
    assert sentence in str(raised.value)


@pytest.mark.parametrize(
    "head", [b"id,url\r1,a.jpg\r", b"url," + b"x" * 200_000 + b"\n"], ids=["old Mac", "huge name"]
)
def test_given_a_first_line_that_is_not_csv_then_the_error_says_so(head: bytes) -> None:
    with pytest.raises(ValueError, match=r"x.csv is no CSV file: its first line is none"):
        next(read_csv(BytesIO(head), "x.csv", HERE, Columns()))


def test_given_an_empty_table_then_the_error_says_so() -> None:
    with pytest.raises(ValueError, match="is empty"):
        next(read_csv(BytesIO(b"\n"), "x.csv", HERE, Columns()))
