"""`captionq-worker check-image`: one JSON line per file, whatever the files are."""

import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from worker import cli


def image(width: int = 40, height: int = 30, format_: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), "teal").save(file, format_, **options)
    return file.getvalue()


def verdicts(*files: str | Path) -> list[dict[str, Any]]:
    result = CliRunner().invoke(cli.cli, ["check-image", *map(str, files)])
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_given_images_then_each_line_has_format_and_upright_size_in_order(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    files = {
        "a.png": image(),
        "b.jpg": image(format_="JPEG", exif=exif),
        "c.webp": image(format_="WEBP"),
        "d.gif": image(format_="GIF"),
        "e with a space and ü.bmp": image(format_="BMP"),
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    found = verdicts(*(tmp_path / name for name in files))
    assert [list(line) for line in found] == [
        ["file", "ok", "format", "width", "height", "code"]
    ] * 5
    assert [line["file"] for line in found] == [str(tmp_path / name) for name in files]
    assert [(line["ok"], line["format"], line["width"], line["height"]) for line in found] == [
        (True, "PNG", 40, 30),
        (True, "JPEG", 30, 40),
        (True, "WEBP", 40, 30),
        (True, "GIF", 40, 30),
        (True, "BMP", 40, 30),
    ]
    assert {line["code"] for line in found} == {None}


def test_given_anything_else_then_the_code_says_why_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAPTIONQ_MAX_BYTES", "100000")
    monkeypatch.setenv("CAPTIONQ_MAX_PIXELS", "1200")
    contents = {
        "empty": b"",
        "text": b"hello",
        "half": image(40, 30)[:-30],
        "tiff": image(format_="TIFF"),
        "pixels": image(41, 30),
        "bytes": bytes(100_001),
        "fine": image(40, 30),
    }
    for name, data in contents.items():
        (tmp_path / name).write_bytes(data)
    os.mkfifo(tmp_path / "fifo")
    names = [*contents, "fifo", ".", "none"]
    found = verdicts(*(tmp_path / name for name in names))
    assert [line["code"] for line in found] == [
        "image_empty",
        "image_unsupported_format",
        "image_corrupt",
        "image_unsupported_format",
        "image_too_large",
        "body_too_large",
        None,
        "file_not_allowed",
        "file_not_allowed",
        "file_not_found",
    ]
    assert [line["ok"] for line in found] == [
        code is None for code in (line["code"] for line in found)
    ]


def test_given_more_files_than_are_checked_at_a_time_then_none_is_missing(tmp_path: Path) -> None:
    files = [tmp_path / str(n) for n in range(30)]
    for number, file in enumerate(files):
        file.write_bytes(image(10 + number, 20) if number % 3 else b"")
    found = verdicts(*files)
    assert [line["file"] for line in found] == [str(file) for file in files]
    assert [line["width"] for line in found] == [10 + n if n % 3 else None for n in range(30)]


def test_given_a_name_that_is_no_text_then_the_line_is_json(tmp_path: Path) -> None:
    file = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png"))
    file.write_bytes(image())
    [line] = verdicts(file)
    assert (line["file"], line["ok"]) == (str(file), True)


def test_given_a_wrong_setting_then_one_sentence_and_status_78(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAPTIONQ_MAX_PIXELS", "0")
    result = CliRunner().invoke(cli.cli, ["check-image", "x"])
    assert result.exit_code == 78
    assert "CAPTIONQ_MAX_PIXELS" in result.stderr


def test_given_a_machine_that_lets_no_decoder_be_made_then_no_file_is_blamed_and_status_78(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "fine.png").write_bytes(image())
    monkeypatch.setattr(sys, "executable", "/bin/false")
    result = CliRunner().invoke(cli.cli, ["check-image", str(tmp_path / "fine.png")])
    assert (result.exit_code, result.stdout) == (78, "")
    assert "no image could be decoded: worker_overloaded: no decoder could be made" in result.stderr
