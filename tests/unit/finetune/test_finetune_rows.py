"""What is trained on: manifests and datasets as rows, and what is said of those left out."""

import csv
import json
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from worker.blip.framing import PUBLISHED
from worker.training.finetune.data import Data
from worker.training.finetune.on_disk import open_dataset, read_dataset
from worker.training.finetune.pictures import FilePicture, Unreadable, pixels
from worker.training.finetune.rows import (
    Columns,
    Complaints,
    Row,
    of_language,
    read_manifest,
    split,
)

SAID = [
    {"image": "a.png", "caption": "ein roter Kreis", "language": "de", "match": "1"},
    {"image": "b.png", "caption": "a red circle", "language": "en", "match": "0"},
]


def images(folder: Path, *names: str) -> None:
    for number, name in enumerate(names):
        Image.new("RGB", (20, 10), (40 * number, 0, 0)).save(folder / name)


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        with path.open("w", newline="") as file:
            table = csv.DictWriter(
                file, list(rows[0]), delimiter="\t" if path.suffix == ".tsv" else ";"
            )
            table.writeheader()
            table.writerows(rows)
    return path


def read(path: Path, complaints: Complaints | None = None, **columns: str) -> list[Row]:
    return list(read_manifest(path, Columns(**columns), complaints or Complaints(print)))


def told(rows: list[Row]) -> list[tuple[str, str, str | None, bool]]:
    return [(row.picture.name, row.caption, row.language, row.match) for row in rows]


@pytest.mark.parametrize("name", ["m.jsonl", "m.csv", "m.tsv", "m.parquet"])
def test_every_kind_of_manifest_says_the_same(name: str, tmp_path: Path) -> None:
    images(tmp_path, "a.png", "b.png")

    rows = read(write(tmp_path / name, SAID))

    assert told(rows) == [
        ("a.png", "ein roter Kreis", "de", True),
        ("b.png", "a red circle", "en", False),
    ]


def test_a_list_of_captions_is_as_many_rows_of_one_image(tmp_path: Path) -> None:
    images(tmp_path, "a.png")

    rows = read(write(tmp_path / "m.jsonl", [{"image": "a.png", "caption": ["one", " two  x "]}]))

    assert [row.caption for row in rows] == ["one", "two x"]
    assert rows[0].picture == rows[1].picture


def test_captions_that_look_alike_are_equal(tmp_path: Path) -> None:
    images(tmp_path, "a.png")
    said = ["gr\u00fcn", "gru\u0308n"]

    rows = read(write(tmp_path / "m.jsonl", [{"image": "a.png", "caption": said}]))

    assert [row.caption for row in rows] == ["gr\u00fcn"] * 2


def test_a_label_that_is_not_read_is_told_of(tmp_path: Path) -> None:
    images(tmp_path, "a.png")
    said: list[str] = []
    row = {"image": "a.png", "caption": "one", "label": 0}

    rows = read(write(tmp_path / "m.jsonl", [row, row]), Complaints(said.append))

    assert [row.match for row in rows] == [True, True]
    assert len(said) == 1
    assert "a column named match" in said[0]


def test_fields_beyond_the_last_column_say_nothing(tmp_path: Path) -> None:
    images(tmp_path, "a.png")
    (tmp_path / "m.csv").write_text("image,caption\na.png,one,two,three\na.png,four\n")

    assert [row.caption for row in read(tmp_path / "m.csv")] == ["one", "four"]


BAD = {
    "an image that is not there": ({"image": "no.png", "caption": "x"}, "neither a URI nor a file"),
    "an image elsewhere": ({"image": "https://cat.example/a.png", "caption": "x"}, "is a URI"),
    "no image": ({"image": "", "caption": "x"}, "names no image"),
    "no caption": ({"image": "a.png", "caption": None}, "no caption"),
    "a caption of spaces": ({"image": "a.png", "caption": " \t "}, "no words"),
    "a caption that is a number": ({"image": "a.png", "caption": 7}, "no caption"),
    "half of a character": ({"image": "a.png", "caption": "x \ud83d"}, "no Unicode text"),
    "a language that is none": (
        {"image": "a.png", "caption": "x", "language": "de_DE!"},
        "BCP 47",
    ),
    "a label that is none": ({"image": "a.png", "caption": "x", "match": "maybe"}, "0 or 1"),
}


@pytest.mark.parametrize(("row", "reason"), BAD.values(), ids=BAD)
def test_a_row_that_cannot_be_used_is_named_counted_and_left_out(
    row: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    images(tmp_path, "a.png")
    manifest = write(tmp_path / "m.jsonl", [row, {"image": "a.png", "caption": "good"}])
    said: list[str] = []
    complaints = Complaints(said.append)

    rows = read(manifest, complaints, image="image", caption="caption")

    assert [row.caption for row in rows] == ["good"]
    assert complaints.count == 1
    assert said[0].startswith("left out m.jsonl:1")
    assert reason in said[0]
    with pytest.raises(ValueError, match=reason):
        read(manifest, Complaints(print, strict=True))


def test_many_bad_rows_are_counted_and_the_first_are_named(tmp_path: Path) -> None:
    manifest = tmp_path / "m.jsonl"
    manifest.write_text("no JSON\n" * 50)
    said: list[str] = []
    complaints = Complaints(said.append)

    assert read(manifest, complaints) == []
    assert complaints.count == 50
    assert len(said) == 21


REFUSED = {
    "no such column": ({"photo": "a.png", "caption": "x"}, "--column"),
    "no captions": ({"image": "a.png", "says": "x"}, "--caption-column"),
}


@pytest.mark.parametrize(("row", "hint"), REFUSED.values(), ids=REFUSED)
def test_a_manifest_without_a_column_says_which_flag_names_it(
    row: dict[str, Any], hint: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=hint):
        read(write(tmp_path / "m.jsonl", [row]))


def test_another_file_is_no_manifest(tmp_path: Path) -> None:
    (tmp_path / "m.docx").touch()

    with pytest.raises(ValueError, match=r"\.jsonl"):
        read(tmp_path / "m.docx")


def rows_of(*languages: str | None) -> list[Row]:
    return [
        Row(str(i), FilePicture(Path(f"{i}.png"), f"{i}.png"), f"text {i}", language)
        for i, language in enumerate(languages)
    ]


LANGUAGES = {
    "of one language": (("de", "de"), None, (2, "de")),
    "of none": ((None, None), None, (2, None)),
    "of none, called one": ((None, None), "fr", (2, "fr")),
    "some that do not say": (("de", None), None, (2, "de")),
    "the one asked for": (("de", "fr", "de"), "de", (2, "de")),
    "whatever its case": (("pt-br", "fr"), "pt-BR", (1, "pt-BR")),
    "one, in two cases": (("de", "DE"), None, (2, "de")),
}


@pytest.mark.parametrize(("there", "wanted", "expected"), LANGUAGES.values(), ids=LANGUAGES)
def test_rows_of_a_language_are_trained_on(
    there: tuple[str | None, ...], wanted: str | None, expected: tuple[int, str | None]
) -> None:
    rows, language, others = of_language(rows_of(*there), wanted)

    assert (len(rows), language) == expected
    assert others == len(there) - len(rows)


UNKNOWN = {
    "a language that no row has": (("de", "fr"), "zh", r"no row .* zh; the data has de \(1\)"),
    "several": (("de", "fr"), None, r"several languages, de \(1\), fr \(1\): .* --language"),
    "no tag": (("de",), "German!", "BCP 47"),
}


@pytest.mark.parametrize(("there", "wanted", "words"), UNKNOWN.values(), ids=UNKNOWN)
def test_an_unknown_language_is_refused_with_what_there_is(
    there: tuple[str, ...], wanted: str | None, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        of_language(rows_of(*there), wanted)


def test_a_share_is_held_out_by_image_and_new_rows_move_none() -> None:
    rows = rows_of(*[None] * 400)
    twice = [row for row in rows for _ in range(2)]

    train, held = split(twice, 0.25, seed=1)
    more = split([*twice, *rows_of(*[None] * 500)[400:]], 0.25, seed=1)[1]

    assert 150 < len(held) < 250
    assert not {row.picture for row in train} & {row.picture for row in held}
    assert more[: len(held)] == held
    assert split(twice, 0.25, seed=2)[1] != held


def test_other_captions_or_labels_are_other_data() -> None:
    (row,) = rows_of(None)
    others = [Row("0", row.picture, "else"), Row("0", row.picture, row.caption, None, False)]

    class Picture(FilePicture):
        def identity(self) -> str:
            return "same"

    same = Picture(Path("0.png"), "0.png")
    digests = {
        Data([Row("0", same, one.caption, None, one.match)], [], None).digest()
        for one in [row, *others]
    }

    assert len(digests) == 3


@pytest.fixture
def dataset(tmp_path: Path) -> dict[str, Any]:
    images(tmp_path, "a.png", "b.png")
    return {"caption": [["one", "two"], ["three"]]}


def cells(kind: str, folder: Path) -> Any:
    paths = [str(folder / name) for name in ("a.png", "b.png")]
    match kind:
        case "pictures":
            colours = ((0, 0, 0), (40, 0, 0))
            return [Image.new("RGB", (20, 10), one) for one in colours], datasets.Image()
        case "bytes":
            return [Path(path).read_bytes() for path in paths], datasets.Value("binary")
        case "structs":
            return [{"bytes": None, "path": path} for path in paths], datasets.Image()
    return ["../a.png", "../b.png"], datasets.Value("string")


@pytest.mark.parametrize("kind", ["pictures", "bytes", "structs", "paths"])
def test_a_dataset_on_disk_may_hold_images_in_any_usual_way(
    kind: str, dataset: dict[str, Any], tmp_path: Path
) -> None:
    column, feature = cells(kind, tmp_path)
    features = datasets.Features({"image": feature, "caption": [datasets.Value("string")]})
    made = datasets.Dataset.from_dict({"image": column, **dataset}, features=features)
    made.save_to_disk(str(tmp_path / "set"))

    train, validation = open_dataset(tmp_path / "set")
    rows = list(read_dataset(train, "set", tmp_path / "set", Columns(), Complaints(print)))

    assert validation is None
    assert [row.caption for row in rows] == ["one", "two", "three"]
    assert rows[0].picture == rows[1].picture
    assert len({row.picture for row in rows}) == 2
    assert pixels(rows[2].picture, PUBLISHED)[0, 0].tolist() == [40, 0, 0]


def test_equal_images_of_a_dataset_are_one_picture(dataset: dict[str, Any], tmp_path: Path) -> None:
    column, feature = cells("bytes", tmp_path)
    made = datasets.Dataset.from_dict(
        {"image": [column[0], column[1], column[0], None, None], "caption": list("abcde")},
        features=datasets.Features({"image": feature, "caption": datasets.Value("string")}),
    )
    made.save_to_disk(str(tmp_path / "set"))

    train, _ = open_dataset(tmp_path / "set")
    rows = list(read_dataset(train, "set", tmp_path / "set", Columns(), Complaints(print)))

    assert rows[0].picture == rows[2].picture
    assert len({row.picture for row in rows}) == 4


def test_a_datasets_own_splits_are_used(dataset: dict[str, Any], tmp_path: Path) -> None:
    one = datasets.Dataset.from_dict({"image": ["../a.png", "../b.png"], **dataset})
    datasets.DatasetDict({"train": one, "validation": one, "test": one}).save_to_disk(
        str(tmp_path / "set")
    )
    datasets.DatasetDict({"here": one, "there": one}).save_to_disk(str(tmp_path / "odd"))

    train, validation = open_dataset(tmp_path / "set")

    assert validation is not None
    assert len(train) == len(validation) == 2
    with pytest.raises(ValueError, match="here, there"):
        open_dataset(tmp_path / "odd")
    with pytest.raises(ValueError, match="save_to_disk"):
        open_dataset(tmp_path)


def test_an_image_that_a_worker_would_refuse_is_unreadable(tmp_path: Path) -> None:
    (tmp_path / "no.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")

    with pytest.raises(Unreadable, match="image_corrupt"):
        pixels(FilePicture(tmp_path / "no.png", "no.png"), PUBLISHED)
