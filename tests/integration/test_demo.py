"""The demo, as `make demo` runs it."""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import httpx
import psutil

from tests.house import PNG, SCENE


def demo(*arguments: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
    environment = {k: v for k, v in os.environ.items() if not k.startswith("CAPTIONQ_")}
    return subprocess.run(
        [sys.executable, "-m", "worker.cli", "demo", *arguments],
        env=environment | {"PYTHONPATH": str(Path(__file__).parents[2])},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
    )


def started_by_a_demo() -> list[psutil.Process]:
    """Servers name the demo's folder in their command lines, workers in their settings."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if "captionq-demo-" in f"{process.cmdline()} {process.environ()}":
                found.append(process)
    return found


def test_given_nothing_the_demo_shows_captions_matches_and_one_typed_error(tmp_path: Path) -> None:
    svg = tmp_path / "demo.svg"
    done = demo("--svg", str(svg), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    last = done.stdout.strip().splitlines()[-1]
    assert last == "demo: 18 jobs, 16 succeeded, 2 failed (image_corrupt 2)"
    for shown in ("http scene-1.jpg", "http scene-4.bmp", "s3 scene-5.jpg", "file scene-7.jpg"):
        assert shown in done.stdout
    assert "image_corrupt" in svg.read_text()
    assert "@font-face" not in svg.read_text(), "a picture loads nothing from elsewhere"
    assert started_by_a_demo() == []


def test_given_an_image_that_is_not_there_the_demo_says_so(tmp_path: Path) -> None:
    done = demo("missing.png", cwd=tmp_path)
    assert done.returncode == 1
    assert "cannot read missing.png" in done.stderr


def test_given_that_it_is_to_stay_up_then_a_page_captions_what_is_uploaded_until_ctrl_c(
    tmp_path: Path,
) -> None:
    (tmp_path / "mine.png").write_bytes(PNG)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("CAPTIONQ_")}
    process = subprocess.Popen(
        [sys.executable, "-m", "worker.cli", "demo", "--serve", "mine.png"],
        env=environment | {"PYTHONPATH": str(Path(__file__).parents[2])},
        cwd=tmp_path, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        line = next(line for line in iter(process.stdout.readline, "") if "page: " in line)
        with httpx.Client(base_url=line.split()[1], timeout=60) as browser:
            assert "<title>" in browser.get("/").text
            kept = browser.post("/v1/uploads", files={"file": ("a.png", PNG)}).raise_for_status()
            job = {"task": "caption", "image": kept.json()["image"]}
            said = browser.post("/v1/jobs", json=job, headers={"Prefer": "wait=20"}).json()
        assert said["result"]["captions"][0]["text"] == SCENE.caption
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.communicate()
    assert started_by_a_demo() == []
