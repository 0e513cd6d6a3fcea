"""Scenes as a manifest: what training reads, apart from what evaluation draws."""

import json
from pathlib import Path

import pytest
from PIL import Image

from worker.training.evaluate import SEED
from worker.training.finetune.rows import Columns, Complaints, of_language, read_manifest
from worker.training.languages.manifest import main, write


def rows(folder: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]


def test_given_languages_then_each_image_has_a_row_for_each(tmp_path: Path) -> None:
    table = write(tmp_path, ["de", "zh"], 20, "test")

    found = rows(tmp_path)
    assert [row["language"] for row in found] == ["de", "zh"] * 20
    assert len({row["image"] for row in found}) == 20
    with Image.open(tmp_path / found[0]["image"]) as image:
        assert image.size == (96, 96)
    complaints = Complaints(pytest.fail)
    taken = of_language(read_manifest(table, Columns(), complaints), "zh")
    assert [row.caption for row in taken.rows] == [row["caption"] for row in found[1::2]]


def test_given_a_seed_then_fewer_scenes_are_the_first_of_more(tmp_path: Path) -> None:
    write(tmp_path / "few", ["fr"], 5, "a")
    write(tmp_path / "more", ["fr"], 9, "a")
    write(tmp_path / "other", ["fr"], 9, "b")
    assert rows(tmp_path / "few") == rows(tmp_path / "more")[:5]
    assert rows(tmp_path / "other") != rows(tmp_path / "more")


def test_given_the_seed_of_the_evaluation_then_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["-o", str(tmp_path / "made"), "--language", "de", "--seed", SEED])
    assert "draws the scenes that packs are evaluated on" in capsys.readouterr().err
    assert not (tmp_path / "made").exists()


def test_given_the_command_then_it_says_where_the_manifest_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["-o", str(tmp_path), "--language", "ar", "--scenes", "3"])
    assert capsys.readouterr().out == f"{tmp_path / 'manifest.jsonl'}\n"
    assert len(rows(tmp_path)) == 3
