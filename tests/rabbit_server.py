"""A RabbitMQ server of this process alone, on 127.0.0.1 and free ports, run as whoever runs it."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from producer.redis_server import RedisServer
from tests.house import House, open_house
from worker.bench.processes import free_port

START_TIMEOUT_S = 90
BINARY = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
"""Debian's own script in PATH wants root, or the user rabbitmq."""


def missing() -> str | None:
    """Why there is no server; None where there is one."""
    if BINARY.exists() and shutil.which("erl"):
        return None
    return "no RabbitMQ: apt-get install rabbitmq-server"


class RabbitServer:
    """One node, its data and log in `folder`; ended with the block."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._port = folder, free_port()
        self.url = f"amqp://guest:guest@127.0.0.1:{self._port}//"
        folder.mkdir(parents=True)
        (folder / "plugins").write_text("[].\n")
        (folder / "rabbitmq.conf").write_text(
            f"listeners.tcp.1 = 127.0.0.1:{self._port}\nvm_memory_high_watermark.absolute = 512MB\n"
        )
        self._environment = {
            **{name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ},
            "HOME": str(folder),
            "RABBITMQ_NODENAME": f"captionq{self._port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self._port),
            "RABBITMQ_DIST_PORT": str(free_port()),
            "ERL_EPMD_PORT": str(free_port()),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_MNESIA_BASE": str(folder / "data"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 +sbwt none",
        }

    def __enter__(self) -> Self:
        with (self._folder / "out").open("wb") as out:
            self._process = subprocess.Popen(
                [str(BINARY)],
                env=self._environment,
                stdout=out,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while not self._listens():
            if self._process.poll() is not None or time.monotonic() > deadline_s:
                self.__exit__()
                raise RuntimeError((self._folder / "out").read_text())
            time.sleep(0.1)
        return self

    def _listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self._port), 1).close()
        except OSError:
            return False
        return True

    def __exit__(self, *_: object) -> None:
        """End the node, and the port mapper that it started."""
        for pid in (self._process.pid, *self._mappers()):
            try:
                os.killpg(os.getpgid(pid), signal.SIGKILL)
            except ProcessLookupError:
                continue
        self._process.wait()

    def _mappers(self) -> list[int]:
        """epmd makes itself a daemon: it is known by the port that we gave it."""
        wanted = f"ERL_EPMD_PORT={self._environment['ERL_EPMD_PORT']}".encode()
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                command = (folder / "cmdline").read_bytes()
                if b"epmd" in command and wanted in (folder / "environ").read_bytes():
                    found.append(int(folder.name))
            except OSError:
                continue
        return found


@contextmanager
def rabbit_house(folder: Path, kind: str, **settings: str) -> Iterator[tuple[RabbitServer, House]]:
    """A house whose broker is a RabbitMQ with queues of this kind, its results in a Redis."""
    redis = RedisServer(folder / "results")
    with (
        RabbitServer(folder / "rabbit") as rabbit,
        open_house(
            folder,
            redis,
            CAPTIONQ_BROKER_URL=rabbit.url,
            CAPTIONQ_RESULTS_URL=redis.url,
            CAPTIONQ_RABBITMQ_QUEUES=kind,
            **settings,
        ) as house,
    ):
        yield rabbit, house
