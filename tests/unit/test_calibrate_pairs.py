"""Tables of labelled pairs, and `captionq-worker calibrate` over them."""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from click.testing import Result
from pyarrow import parquet
from typer.testing import CliRunner

from tests.blip_checkpoints import BOTH, TINY, noise_images, write_random_checkpoint
from worker import cli
from worker.blip import Engine
from worker.calibration import FILE_NAME, Calibration, find
from worker.house import load_calibration
from worker.settings import WorkerSettings, model_path
from worker.training.degraded import drawn, write
from worker.training.pairs import Pair, PairTable
from worker.training.scores import scored

ROWS: list[dict[str, Any]] = [
    {"image": "a.png", "text": 'a "b", c', "label": 1},
    {"image": "sub/b.png", "text": "007", "label": 0},
    {"image": "a.png", "text": "zwei\nZeilen", "label": 0},
]
LONG_ROW = b"a.png," + b"x" * 10_000 + b",1\n"
BUNDLED = Path(model_path("bundled"))


def captionq_worker(*words: object) -> Result:
    return CliRunner().invoke(cli.cli, [str(word) for word in words])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "sub").mkdir()
    for name, image in zip(("a.png", "sub/b.png"), noise_images(2), strict=True):
        image.save(tmp_path / name)
    return tmp_path


def write_table(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix in (".csv", ".tsv"):
        with path.open("w", newline="") as file:
            table = csv.DictWriter(
                file, list(rows[0]), delimiter="\t" if ".tsv" in path.name else ","
            )
            table.writeheader()
            table.writerows(rows)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def read(path: Path, **columns: str) -> tuple[list[Pair], list[str]]:
    said: list[str] = []
    return list(PairTable(path, **columns).read(said.append)), said


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
@pytest.mark.parametrize("labels", [(1, 0, 0), (True, False, False), ("TRUE", "false", "False")])
def test_given_a_table_of_any_format_then_it_has_the_same_pairs(
    folder: Path, suffix: str, labels: tuple[Any, ...]
) -> None:
    rows = [{**row, "label": label} for row, label in zip(ROWS, labels, strict=True)]
    pairs, said = read(write_table(folder / f"pairs.{suffix}", rows))
    assert said == []
    assert pairs == [
        Pair(
            f"pairs.{suffix}, row {number}", folder / row["image"], row["text"], bool(row["label"])
        )
        for number, row in enumerate(ROWS, 1)
    ]


def test_given_columns_of_other_names_then_they_are_read_when_named(folder: Path) -> None:
    rows = [{"A": row["label"], "B": row["image"], "C": row["text"]} for row in ROWS]
    path = write_table(folder / "pairs.csv", rows)
    pairs, _ = read(path, image="B", text="C", label="A")
    assert [pair.text for pair in pairs] == [row["text"] for row in ROWS]
    with pytest.raises(ValueError, match="say with --column which of its columns holds the images"):
        PairTable(path)
    with pytest.raises(ValueError, match=r"say with --text-column .* holds the texts: A, B, C"):
        PairTable(path, image="B")
    with pytest.raises(ValueError, match=r"pairs.csv has no column 'D'. Its columns: A, B, C"):
        PairTable(path, image="B", text="C", label="D")


def test_given_rows_that_name_no_image_here_or_no_text_then_each_is_reported_and_left_out(
    folder: Path,
) -> None:
    rows = [
        {"image": "none.png", "text": "a", "label": 1},
        {"image": "https://example.org/a.png", "text": "a", "label": 1},
        {"image": None, "text": "a", "label": 1},
        {"image": "a.png", "text": None, "label": 1},
        {"image": "a.png", "text": "a", "label": 1},
    ]
    pairs, said = read(write_table(folder / "pairs.jsonl", rows))
    assert [pair.position for pair in pairs] == ["pairs.jsonl, row 5"]
    assert [line.split(": ")[0] for line in said] == [
        f"left out pairs.jsonl, row {number}" for number in (1, 2, 3, 4)
    ]


@pytest.mark.parametrize("label", ["yes", "2", "", "0.5"])
def test_given_a_label_that_is_none_then_the_row_is_named(folder: Path, label: str) -> None:
    path = write_table(folder / "pairs.csv", [ROWS[0], {**ROWS[1], "label": label}])
    with pytest.raises(ValueError, match=rf"pairs.csv, row 2: the label is '{label}', not 0 or 1"):
        read(path)


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("pairs.txt", b"a", "a table of pairs is one of .csv, .tsv"),
        ("pairs.csv", b"", "is no table of pairs: "),
        ("pairs.parquet", b"image,text,label", "is no table of pairs: "),
        ("pairs.jsonl", b"[1]", "is no table of pairs: "),
        ("pairs.csv", b"image,text,label\na.png,a\n", "is no table of pairs: "),
        ("pairs.csv", b"image,text,label\n" + LONG_ROW * 150 + b"a.png,a\n", "cannot be read: "),
        ("none.csv", None, "there is no file "),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_given_a_file_that_is_no_table_then_one_sentence_says_so_and_the_status_is_2(
    folder: Path, name: str, content: bytes | None, complaint: str
) -> None:
    if content is not None:
        (folder / name).write_bytes(content)
    result = captionq_worker("calibrate", folder / name)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("captionq-worker: ")
    assert complaint in result.stderr
    assert result.stderr.count("\n") == 1


def test_given_pairs_then_their_scores_are_the_engines_margins_image_by_image(
    tmp_path: Path,
) -> None:
    engine = Engine.load(write_random_checkpoint(tmp_path / "tiny", TINY, BOTH, spread=3.0))
    paths = [tmp_path / f"{number}.png" for number in range(20)]
    for path, image in zip(paths, noise_images(20), strict=True):
        image.save(path)
    (tmp_path / "3.png").write_text("no image")
    pairs = [Pair("", path, text, text == "b") for text in ("a", "b c", "b") for path in paths]
    pairs[2 * 20] = Pair("pairs.csv, row 41", paths[0], "word7 " * 600, True)
    said: list[str] = []
    watched: list[Path] = []

    def watch(images: list[Path]) -> list[Path]:
        watched.extend(images)
        return images

    found = scored(engine, pairs, said.append, "cls", watch)

    kept = [path for path in paths if path != paths[3]]
    expected = [
        match.itm_logits[1] - match.itm_logits[0]
        for path in kept
        for match in engine.match(path, ["a", "b c", "b"][: 2 if path == paths[0] else 3], "cls")[0]
    ]
    assert watched == paths
    assert len(said) == 1
    assert said[0].startswith("left out pairs.csv, row 41: a text: ")
    assert found.margins == pytest.approx(expected, abs=1e-4)
    assert found.labels.tolist() == [False, False] + [False, False, True] * 18
    assert found.images.tolist() == [0, 0, *(n for n in range(1, 19) for _ in range(3))]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("scenes"), drawn(100, "calibrate command", clean=True))


@pytest.mark.parametrize("as_json", [False, True])
def test_given_the_bundled_checkpoint_then_its_calibration_is_kept_at_home_where_workers_find_it(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, as_json: bool
) -> None:
    monkeypatch.setenv("CAPTIONQ_HOME", str(tmp_path))
    shipped = (BUNDLED / FILE_NAME).read_bytes()
    options = ["--precision", 0.9, "--method", "platt", *(["--json"] if as_json else [])]
    result = captionq_worker("calibrate", table, *options)

    assert result.exit_code == 0, result.stderr
    engine = Engine.load(BUNDLED, tasks=["match"])
    found = find(BUNDLED, tmp_path, engine.model_id, engine.revision)
    assert found is not None
    settings = WorkerSettings(match_model="bundled")
    assert load_calibration(settings, {"match": engine}) == found
    assert (found.wanted_precision, found.pairs, found.held_out_pairs) == (0.9, 100, 100)
    assert found.position_zero == "enc"
    [path] = (tmp_path / "calibration").iterdir()
    assert result.stderr == f"captionq-worker: written to {path}\n"
    if as_json:
        assert Calibration.model_validate_json(result.stdout) == found
    else:
        assert "ROC AUC" in result.stdout
    assert (BUNDLED / FILE_NAME).read_bytes() == shipped


def test_given_a_model_folder_then_its_calibration_is_written_into_it_or_where_it_is_wanted(
    table: Path, tmp_path: Path
) -> None:
    model = tmp_path / "model"
    shutil.copytree(BUNDLED, model)
    (model / FILE_NAME).unlink()
    with (table.parent / "worse.csv").open("w") as worse:
        worse.write(table.read_text() + "pairs.csv,a picture,0\n")
    options = ["--model", model, "--position-zero", "cls", "--precision", 0.9]
    result = captionq_worker("calibrate", table.parent / "worse.csv", *options)
    assert result.exit_code == 0, result.stderr
    assert f"cannot read {table.parent / 'pairs.csv'}" in result.stderr
    made = Calibration.load(model / FILE_NAME)
    assert (made.model_id, made.position_zero) == ("model", "cls")

    wanted = tmp_path / "elsewhere.json"
    assert captionq_worker("calibrate", table, *options, "-o", wanted).exit_code == 0
    assert Calibration.load(wanted).revision == made.revision
    assert Calibration.load(model / FILE_NAME) == made


@pytest.mark.parametrize("missing", ["sklearn", "pyarrow"])
def test_given_an_install_without_the_extra_then_it_says_what_to_install(
    table: Path, missing: str
) -> None:
    script = (
        f"import sys; sys.modules[{missing!r}] = None; "
        f"sys.argv[1:] = ['calibrate', {str(table)!r}]; from worker.__main__ import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert "pip install 'captionq[calibrate]'" in done.stderr
    assert done.stderr.count("\n") == 1
