"""Where decoder processes come from: a small process that has Pillow loaded, and forks.

    worker process ── nursery ──┬── decoder
                                └── decoder

Decoders are forked, so one that was killed is replaced in milliseconds; and not by the worker,
which has threads and a device open that a fork must not touch. multiprocessing's fork server
would do, but for two things: each of its children imports the worker's main program again (all of
Celery), and inherits its environment, where credentials are.

The protocol, over one socket, a request at a time:

    fork, with two descriptors    answered by the pid of a decoder
    end, with a pid               it is killed; answered by its exit status, or UNKNOWN
"""

import json
import os
import socket
import struct
import subprocess
import sys
import threading
from dataclasses import asdict

from worker.image import ImageLimits
from worker.sandbox.memory import SharedMemory

__all__ = ["Nursery", "NurseryGone"]

REQUEST = struct.Struct("=ci")
ANSWER = struct.Struct("=i")
FORK, END = b"f", b"e"
UNKNOWN = -(2**31)
ANSWER_WAIT_S = 10.0
START_WAIT_S = 60.0
"""Of the first answer: what is imported before it takes its time on a busy machine."""


class NurseryGone(Exception):  # noqa: N818 - it says what happened
    """The nursery cannot be started, or does not answer."""


class Nursery:
    """A handle on the nursery process; started when it is first needed, and again if it died.

    Args:
        limits: what images may be.
        memory_bytes: address space of one decoder.
    """

    def __init__(self, limits: ImageLimits, memory_bytes: int) -> None:
        self._arguments = json.dumps([asdict(limits), memory_bytes])
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._pids: set[int] = set()  # of its decoders that nobody has ended
        self._closed = False

    def fork(self, peer: socket.socket, memory: SharedMemory) -> int:
        """Fork a decoder that serves the other side of `peer` and shares `memory`; its pid.

        Raises:
            NurseryGone: also when no process could be made.
        """
        pid = self._asked(FORK, 0, [peer.fileno(), memory.descriptor], tries=2)
        if pid <= 0:
            raise NurseryGone("no process could be made")
        return pid

    def end(self, pid: int) -> int | None:
        """Kill a decoder, unless it has ended; its exit status, negative for a signal. None where
        that is not known yet.

        The nursery kills, whose child it is: nobody else can be sure that the pid is still its.
        """
        try:
            status = self._asked(END, pid, [], tries=1)
        except NurseryGone:
            return None
        return None if status == UNKNOWN else status

    def close(self) -> None:
        """End the nursery, for good; decoders end with it."""
        with self._lock:
            self._closed = True
            self._end()

    def _asked(self, what: bytes, pid: int, descriptors: list[int], tries: int) -> int:
        with self._lock:
            for _ in range(0 if self._closed else tries):
                try:
                    return self._answer(what, pid, descriptors)
                except OSError:
                    self._end()
        raise NurseryGone("the process that makes decoders is gone")

    def _answer(self, what: bytes, pid: int, descriptors: list[int]) -> int:
        if what == END and pid not in self._pids:  # it went with its nursery
            return UNKNOWN
        control = self._socket or self._started()
        socket.send_fds(control, [REQUEST.pack(what, pid)], descriptors)
        answer = control.recv(ANSWER.size, socket.MSG_WAITALL)
        if len(answer) < ANSWER.size:
            raise OSError("the nursery ended")
        control.settimeout(ANSWER_WAIT_S)
        told = int(ANSWER.unpack(answer)[0])
        if what == END:
            self._pids.remove(pid)
        else:
            self._pids.add(told)
        return told

    def _started(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                self._process = subprocess.Popen(  # noqa: S603 - our own interpreter
                    [
                        sys.executable,
                        "-sP",  # nothing is imported from the folder it happens to be in
                        "-m",
                        "worker.sandbox",
                        str(theirs.fileno()),
                        self._arguments,
                    ],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(),),
                    env=_environment(),
                    start_new_session=True,  # a terminal's Ctrl-C is the worker's affair
                )
            except BaseException:
                ours.close()
                raise
        ours.settimeout(START_WAIT_S)
        self._socket = ours
        return ours

    def _end(self) -> None:
        self._pids.clear()
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def _environment() -> dict[str, str]:
    """What a decoder needs of this process' environment, in which there may be credentials."""
    kept = {name: os.environ[name] for name in ("LD_LIBRARY_PATH", "LANG") if name in os.environ}
    return kept | {
        "PYTHONPATH": os.pathsep.join(os.path.abspath(path) for path in sys.path),  # noqa: PTH100
        "OPENBLAS_NUM_THREADS": "1",  # a process with threads does not fork well
        "OMP_NUM_THREADS": "1",
        "MALLOC_ARENA_MAX": "1",  # each arena takes address space
        # Memory of usual images is kept from one to the next: returning it costs half a decode.
        "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),
        "MALLOC_TRIM_THRESHOLD_": str(64 * 2**20),
    }
