"""Tables that say in which language each image is to be captioned."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from pydantic import ValidationError

from producer.contract import CaptionChunk, CaptionJob
from producer.manifest.chunks import in_chunks
from producer.manifest.kinds import Captions
from producer.manifest.reference import BadReference, Reference
from producer.manifest.sources import Sources
from producer.manifest.tables import Columns

LANGUAGES = Columns(language="lang")
ROWS = [("https://a.example/1", "de"), ("https://a.example/2", ""), ("https://a.example/3", "fr")]


def csv(path: Path) -> None:
    path.write_text("lang,url\n" + "".join(f"{b},{a}\n" for a, b in ROWS))


def jsonl(path: Path) -> None:
    rows: list[dict[str, Any]] = [{"url": a} | ({"lang": b} if b else {}) for a, b in ROWS]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def parquet(path: Path) -> None:
    table = pyarrow.table({"lang": [b or None for _, b in ROWS], "url": [a for a, _ in ROWS]})
    pyarrow.parquet.write_table(table, path)


@pytest.mark.parametrize(
    ("name", "write"), [("x.csv", csv), ("x.jsonl", jsonl), ("x.parquet", parquet)]
)
def test_given_a_column_of_languages_then_each_row_has_its_own_or_none(
    tmp_path: Path, name: str, write: Callable[[Path], None]
) -> None:
    write(tmp_path / name)
    read = list(Sources([str(tmp_path / name)], LANGUAGES))
    assert [(one.given, one.language) for one in read] == [(a, b or None) for a, b in ROWS]
    plain = list(Sources([str(tmp_path / name)], Columns()))
    assert [one.language for one in plain] == [None, None, None]


def test_given_a_table_without_that_column_then_the_error_names_those_there_are(
    tmp_path: Path,
) -> None:
    (tmp_path / "x.csv").write_text("url,language\nhttps://a.example/1,de\n")
    with pytest.raises(ValueError, match=r"no column 'lang'. Its columns: url, language"):
        list(Sources([str(tmp_path / "x.csv")], LANGUAGES))


def test_given_a_row_whose_language_is_none_then_it_alone_is_invalid(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("url,lang\nhttps://a.example/1,de_DE\nhttps://a.example/2,de\n")
    first, second = Sources([str(tmp_path / "x.csv")], LANGUAGES)
    with pytest.raises(BadReference, match="'de_DE'"):
        first.locate()
    assert second.locate().uri == "https://a.example/2"


@pytest.mark.parametrize("tag", ["de-" + "abcdefgh-" * 4 + "x", "*", "de\n", "zh_TW", "d"])
def test_given_a_tag_that_no_job_may_have_then_its_row_alone_is_invalid(tag: str) -> None:
    with pytest.raises(ValidationError):
        CaptionChunk(images=("https://a.example/1",), languages=(tag,))
    with pytest.raises(BadReference, match="The language is no BCP 47 tag: "):
        Reference("x:1", "https://a.example/1", language=tag).locate()


def test_given_another_language_then_the_source_has_changed() -> None:
    def digest(language: str | None, caption: str | None = None) -> str:
        one = Reference("x:1", "https://a.example/1", caption=caption, language=language)
        [chunk] = in_chunks([one])
        return chunk.digest()

    assert len({digest(None), digest("de"), digest("fr"), digest(None, "de")}) == 4


def test_given_languages_then_a_chunk_has_each_and_rows_say_them() -> None:
    references = [Reference("x:1", a, language=b or None) for a, b in ROWS]
    images = tuple(a for a, _ in ROWS)
    rows = Captions(CaptionChunk(images=images[:1], language="zh"))
    chunk: Any = rows.job("run.0", images, references)
    assert chunk.languages == ("de", None, "fr")
    assert CaptionChunk.model_validate_json(chunk.model_dump_json()) == chunk
    assert [chunk.one(n).language for n in range(3)] == ["de", "zh", "fr"]
    assert isinstance(chunk.one(0), CaptionJob)
    assert [rows.given(one)["language"] for one in references] == ["de", "zh", "fr"]
    plain: Any = rows.job("run.0", images, [Reference("x:1", a) for a in images])
    assert plain.languages is None


def test_given_another_number_of_languages_than_of_images_then_the_chunk_is_refused() -> None:
    with pytest.raises(ValidationError, match="one entry for each of the images"):
        CaptionChunk(images=("https://a.example/1",), languages=("de", "fr"))
