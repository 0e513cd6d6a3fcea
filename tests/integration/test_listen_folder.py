"""A folder listened to: files become jobs once they are complete, and once."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from producer.async_client import AsyncClient
from producer.embedded import RedisServer
from producer.event_intake import Intake
from producer.event_memory import EventMemory
from producer.event_rules import Rule, Rules
from producer.listen.folder import FolderListener, uploads
from producer.listen.patience import PatientIntake
from producer.settings import ProducerSettings
from producer.upload import UploadFailed
from tests.house import PNG
from tests.stand_in_worker import messages

SETTLE_S = 0.4


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "in"
    path.mkdir()
    return path


class Listening:
    """A listener that runs, and what it has sent."""

    def __init__(self, listener: FolderListener, running: "asyncio.Task[None]", url: str) -> None:
        self.listener = listener
        self.running = running
        self.url = url

    @property
    def images(self) -> list[str]:
        with redis.Redis.from_url(self.url) as client:
            found = messages(client, "captionq.caption.bulk")
        return sorted(one["kwargs"]["job"]["image"] for one in found)

    async def until(self, *images: str) -> None:
        """Wait until these have been sent, and a little longer, and no others."""
        async with asyncio.timeout(15):
            while len(self.images) < len(images):
                await asyncio.sleep(0.05)
        await asyncio.sleep(0.3)
        assert self.images == sorted(images)


@asynccontextmanager
async def listening(
    folder: Path,
    url: str,
    *,
    rules: Rules | None = None,
    removed: list[str] | None = None,
    upload: Callable[[Path], str] | None = None,
    submit_timeout_s: float = 5,
    **options: Any,
) -> AsyncIterator[Listening]:
    stop = asyncio.Event()
    settings = ProducerSettings(broker_url=url, submit_timeout_s=submit_timeout_s)
    async with AsyncClient(settings=settings) as client:
        store = await client.open()
        intake = Intake(
            rules or Rules.of(),
            EventMemory(store.redis),
            client.submit_many,
            prepare=uploads(upload) if upload else None,
            remove=None if removed is None else removed.extend,
        )
        listener = FolderListener(
            folder, PatientIntake(intake, stop), stop, **({"settle_s": SETTLE_S} | options)
        )
        running = asyncio.create_task(listener.run())
        try:
            yield Listening(listener, running, url)
        finally:
            stop.set()
            await running


async def test_given_files_that_are_there_and_files_that_come_then_each_is_a_job(
    folder: Path, redis_server: RedisServer
) -> None:
    (folder / "sub").mkdir()
    there = [folder / "a b+ü.png", folder / "sub" / "b.JPG"]
    for path in there:
        path.write_bytes(PNG)
    async with listening(folder, redis_server.url) as one:
        await one.until(*(path.as_uri() for path in there))
        comes = folder / "sub" / "c.webp"
        comes.write_bytes(PNG)
        await one.until(*(path.as_uri() for path in [*there, comes]))

    assert one.listener.taken.jobs == 3


async def test_given_a_file_that_grows_then_it_is_taken_when_it_is_whole(
    folder: Path, redis_server: RedisServer
) -> None:
    path = folder / "slow.png"
    async with listening(folder, redis_server.url) as one:
        with path.open("wb") as file:
            for begin in range(0, len(PNG), len(PNG) // 5):
                file.write(PNG[begin : begin + len(PNG) // 5])
                file.flush()
                await asyncio.sleep(0.25)
                assert one.images == []
        await one.until(path.as_uri())


async def test_given_what_is_no_image_or_hidden_or_still_has_another_name_then_it_is_no_job(
    folder: Path, redis_server: RedisServer
) -> None:
    async with listening(folder, redis_server.url) as one:
        for name in ("notes.txt", ".hidden.png", "half.png.part", "empty.png"):
            (folder / name).write_bytes(b"" if name == "empty.png" else PNG)
        (folder / ".git").mkdir()
        (folder / ".git" / "x.png").write_bytes(PNG)
        (folder / "half.png.part").rename(folder / "whole.png")
        await one.until((folder / "whole.png").as_uri())


async def test_given_links_then_those_that_stay_in_the_folder_are_taken(
    folder: Path, redis_server: RedisServer, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "secret.png").write_bytes(PNG)
    (folder / "there.png").write_bytes(PNG)
    (folder / "folder").symlink_to(elsewhere)
    (folder / "before.png").symlink_to(elsewhere / "secret.png")
    async with listening(folder, redis_server.url) as one:
        await one.until((folder / "there.png").as_uri())
        (folder / "after.png").symlink_to(elsewhere / "secret.png")
        (folder / "loop.png").symlink_to(folder / "loop.png")
        (elsewhere / "came.png").write_bytes(PNG)
        (folder / "link.png").symlink_to(folder / "there.png")
        await one.until(*((folder / name).as_uri() for name in ("link.png", "there.png")))


@pytest.mark.parametrize("new_only", [False, True], ids=["all", "new only"])
async def test_given_a_name_that_is_not_utf_8_then_it_and_all_others_are_taken(
    folder: Path, redis_server: RedisServer, *, new_only: bool
) -> None:
    (folder / "old.png").write_bytes(PNG)
    old = [] if new_only else [(folder / "old.png").as_uri()]
    async with listening(folder, redis_server.url, new_only=new_only) as one:
        await asyncio.sleep(0.6)
        Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.png")).write_bytes(PNG)
        (folder / "then.png").write_bytes(PNG)
        came = [f"{folder.as_uri()}/caf%E9.png", (folder / "then.png").as_uri()]
        await one.until(*old, *came)
        (folder / "later.png").write_bytes(PNG)
        await one.until(*old, *came, (folder / "later.png").as_uri())


@pytest.mark.parametrize("how", ["goes", "is another", "is moved"])
def test_given_a_folder_that_goes_then_it_ends_and_says_so(
    folder: Path, redis_server: RedisServer, how: str
) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "producer.cli", "listen", str(folder), "--settle", "0.1"],
        env=os.environ | {"CAPTIONQ_BROKER_URL": redis_server.url},
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        (folder / "1.png").write_bytes(PNG)
        with redis.Redis.from_url(redis_server.url) as client:
            while not messages(client, "captionq.caption.bulk"):
                assert process.poll() is None
                time.sleep(0.05)
        if how == "is moved":
            folder.rename(folder.with_name("moved"))
        else:
            shutil.rmtree(folder)
        if how == "is another":
            folder.mkdir()
        _, said = process.communicate(timeout=20)

    assert process.returncode == 2
    assert f"captionq: The folder {folder} is there no more." in said
    assert "Traceback" not in said


async def test_given_an_empty_file_then_who_listens_once_ends(
    folder: Path, redis_server: RedisServer
) -> None:
    (folder / "empty.png").touch()
    async with listening(folder, redis_server.url, once=True) as one, asyncio.timeout(10):
        while not one.running.done():
            await asyncio.sleep(0.05)


async def test_given_a_folder_that_is_moved_in_then_its_files_are_jobs(
    folder: Path, redis_server: RedisServer, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "album"
    (elsewhere / "deep").mkdir(parents=True)
    (elsewhere / "1.png").write_bytes(PNG)
    (elsewhere / "deep" / "2.png").write_bytes(PNG)
    async with listening(folder, redis_server.url) as one:
        await asyncio.sleep(0.5)
        shutil.move(elsewhere, folder / "album")
        moved = [folder / "album" / "1.png", folder / "album" / "deep" / "2.png"]
        await one.until(*(path.as_uri() for path in moved))
        (folder / "album" / "deep" / "3.png").write_bytes(PNG)
        await one.until(*(p.as_uri() for p in [*moved, folder / "album" / "deep" / "3.png"]))


async def test_given_a_restart_then_what_was_there_is_no_second_job_and_what_came_since_is_one(
    folder: Path, redis_server: RedisServer
) -> None:
    old, new = folder / "old.png", folder / "new.png"
    old.write_bytes(PNG)
    async with listening(folder, redis_server.url, once=True) as one:
        await one.until(old.as_uri())
    new.write_bytes(PNG)

    async with listening(folder, redis_server.url) as again:
        await again.until(old.as_uri(), new.as_uri())
        old.write_bytes(PNG * 2)  # another content
        await again.until(old.as_uri(), old.as_uri(), new.as_uri())
    assert again.listener.taken.document()["repeated"] == 1


async def test_given_new_only_then_what_is_there_is_left_alone(
    folder: Path, redis_server: RedisServer
) -> None:
    (folder / "old.png").write_bytes(PNG)
    async with listening(folder, redis_server.url, new_only=True) as one:
        await asyncio.sleep(0.6)
        (folder / "new.png").write_bytes(PNG)
        await one.until((folder / "new.png").as_uri())


async def test_given_rules_then_files_are_filtered_by_their_path_and_size(
    folder: Path, redis_server: RedisServer
) -> None:
    (folder / "sub").mkdir()
    for name in ("sub/a.png", "sub/b.jpg", "c.png"):
        (folder / name).write_bytes(PNG)
    (folder / "sub" / "small.png").write_bytes(PNG[:10])
    rules = Rules.of([Rule(prefix="sub/", suffixes=[".png"], min_bytes=11)])

    async with listening(folder, redis_server.url, rules=rules) as one:
        await one.until((folder / "sub" / "a.png").as_uri())
    assert one.listener.taken.document()["not_wanted"] == 3


async def test_given_a_place_for_uploads_then_what_is_new_is_copied_there_once(
    folder: Path, redis_server: RedisServer
) -> None:
    copied: list[str] = []
    away = [True]

    def upload(path: Path) -> str:
        if away.pop() if away else False:
            raise UploadFailed("S3 is away")
        if path.name == "locked.png":
            raise PermissionError(13, "Permission denied")
        copied.append(path.name)
        return f"s3://photos/uploads/{path.name}"

    for name in ("a.png", "locked.png"):
        (folder / name).write_bytes(PNG)
    async with listening(folder, redis_server.url, upload=upload) as one:
        await one.until("s3://photos/uploads/a.png")
    async with listening(folder, redis_server.url, upload=upload) as again:
        (folder / "b.png").write_bytes(PNG)
        await again.until("s3://photos/uploads/a.png", "s3://photos/uploads/b.png")

    assert copied == ["a.png", "b.png"]
    assert one.listener.taken.document()["no_reference"] == 1


async def test_given_files_that_go_then_they_leave_the_index(
    folder: Path, redis_server: RedisServer
) -> None:
    removed: list[str] = []
    path = folder / "cat.png"
    path.write_bytes(PNG)
    (folder / "notes.txt").write_text("no image")
    async with listening(folder, redis_server.url, removed=removed) as one:
        await one.until(path.as_uri())
        path.unlink()
        (folder / "notes.txt").unlink()
        async with asyncio.timeout(10):
            while not removed:
                await asyncio.sleep(0.05)
    assert removed == [path.as_uri()]


async def test_given_a_broker_that_is_away_then_files_wait_for_it(
    folder: Path, tmp_path: Path
) -> None:
    with RedisServer(tmp_path / "redis") as broker:
        async with listening(folder, broker.url, submit_timeout_s=2) as one:
            (folder / "1.png").write_bytes(PNG)
            await one.until((folder / "1.png").as_uri())
            await asyncio.to_thread(broker.stop)
            (folder / "2.png").write_bytes(PNG)
            await asyncio.sleep(1)
            (folder / "3.png").write_bytes(PNG)
            await asyncio.to_thread(broker.start)
            await one.until(*((folder / f"{n}.png").as_uri() for n in (1, 2, 3)))


def test_given_the_command_then_it_takes_what_is_there_once_and_says_so(
    folder: Path, redis_server: RedisServer
) -> None:
    for number in range(3):
        (folder / f"{number}.png").write_bytes(PNG)
    words = ["listen", str(folder), "--once", "--settle", "0.2", "--json", "--quiet"]
    environment = os.environ | {"CAPTIONQ_BROKER_URL": redis_server.url}

    runs = [
        subprocess.run(
            [sys.executable, "-m", "producer.cli", *words],
            env=environment,
            capture_output=True,
            text=True,
        )
        for _ in range(2)
    ]

    assert [run.returncode for run in runs] == [0, 0], runs[0].stderr
    first, again = (json.loads(run.stdout)["events"] for run in runs)
    assert (first["submitted"], first["jobs"]) == (3, 3)
    assert (again["submitted"], again["repeated"], again["jobs"]) == (0, 3, 0)
    assert runs[0].stderr == ""
