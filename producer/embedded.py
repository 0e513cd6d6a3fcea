"""The embedded Redis server: one per folder, shared by whoever starts first.

`ensure` starts one that outlives its starter, so that producers and workers find the same; its
data lies in the folder and survives. `RedisServer` is a child process for tests and the demo.
Both listen on 127.0.0.1 alone, ask for a random password, and keep every write
(append-only file, `appendfsync always`).
"""

import fcntl
import json
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

import redis

from producer.redis_server import (
    START_TIMEOUT_S,
    STOP_TIMEOUT_S,
    Address,
    EmbeddedUnavailable,
    RedisServer,
    server_binary,
    until,
)

__all__ = ["EmbeddedUnavailable", "RedisServer", "ensure", "stop"]


def ensure(folder: Path) -> str:
    """The URL of the folder's server, which is started unless it runs; one for all processes.

    The folder, made readable by its owner alone, holds server.json (port and password, mode
    0600), redis.log and the data.

    Raises:
        EmbeddedUnavailable: no server binary, or the server does not come up in time.
    """
    folder = folder.expanduser().absolute()
    with _locked(folder):
        address = _read(folder)
        log = folder / "redis.log"
        silent = f"redis-server does not answer: see {log}"
        if address is not None and address.runs():
            until(address.answers, START_TIMEOUT_S, silent)
            return address.url
        if address is None or not _free(address.port):
            address = Address.fresh()
        _write(folder, address)
        _start(address.config(folder, daemonize="yes", logfile=f'"{log}"'))
        until(address.answers, START_TIMEOUT_S, silent)
        return address.url


def stop(folder: Path) -> bool:
    """End the folder's server, its data kept. False when none runs.

    Raises:
        EmbeddedUnavailable: it does not end in time.
    """
    folder = folder.expanduser().absolute()
    with _locked(folder):
        address = _read(folder)
        if address is None or not address.runs():
            return False
        client = address.client()
        with suppress(redis.ConnectionError):  # it hangs up instead of answering
            client.shutdown()
        client.close()
        until(lambda: _free(address.port), STOP_TIMEOUT_S, "redis-server does not end")
        return True


def _start(config: str) -> None:
    started = subprocess.run(  # noqa: S603 - the binary is found by us
        [server_binary(), "-"], input=config, text=True, capture_output=True, check=False
    )
    if started.returncode:
        said = (started.stdout + started.stderr).strip()
        raise EmbeddedUnavailable(f"redis-server does not start: {said}")


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:

        def acquired() -> bool:
            with suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            return False

        until(acquired, START_TIMEOUT_S, f"Another process holds {lock.name}")
        yield


def _read(folder: Path) -> Address | None:
    with suppress(FileNotFoundError, ValueError, TypeError):
        return Address(**json.loads((folder / "server.json").read_text()))
    return None


def _write(folder: Path, address: Address) -> None:
    path = folder / "server.json"
    path.touch(mode=0o600)
    path.chmod(0o600)
    path.write_text(json.dumps(asdict(address)))


def _free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return True
    return False
