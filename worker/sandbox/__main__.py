"""The nursery: `python -m worker.sandbox DESCRIPTOR LIMITS`; nursery.py talks to it."""

import gc
import os
import signal
import socket
import sys
import time
from contextlib import suppress

from pydantic import TypeAdapter

from worker.image import ImageLimits
from worker.sandbox.decoder import confine, serve
from worker.sandbox.memory import SharedMemory
from worker.sandbox.nursery import ANSWER, FORK, REQUEST, UNKNOWN
from worker.sandbox.warm_up import warm_up

END_WAIT_S = 0.1
DECODER_FILES = 5
"""Standard streams, socket and memory."""


def nurse(control: socket.socket, limits: ImageLimits, memory_bytes: int) -> None:
    """Fork and kill as asked until the other side is gone."""
    late: set[int] = set()
    while True:
        for pid in list(late):
            if _reaped(pid, 0) is not None:
                late.remove(pid)
        control.settimeout(1.0 if late else None)
        try:
            data, descriptors, _, _ = socket.recv_fds(control, REQUEST.size, 2)
        except TimeoutError:
            continue
        if len(data) < REQUEST.size:
            return
        what, pid = REQUEST.unpack(data)
        if what == FORK:
            answer = _forked(control, descriptors, limits, memory_bytes)
        else:
            answer = _ended(pid, late)
        control.sendall(ANSWER.pack(answer))


def _ended(pid: int, late: set[int]) -> int:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)  # a child that nobody has waited for: the pid is its own
    status = _reaped(pid, END_WAIT_S)
    if status is None:
        late.add(pid)
    return UNKNOWN if status is None else status


def _forked(
    control: socket.socket, descriptors: list[int], limits: ImageLimits, memory_bytes: int
) -> int:
    parent_pid = os.getpid()
    try:
        pid = os.fork()
    except OSError as exc:
        print(f"captionq-worker: no decoder could be made: {exc}", file=sys.stderr)
        pid = -1
    if pid == 0:
        _be_a_decoder(control, descriptors, limits, memory_bytes, parent_pid)
    for descriptor in descriptors:
        os.close(descriptor)
    return pid


def _be_a_decoder(
    control: socket.socket,
    descriptors: list[int],
    limits: ImageLimits,
    memory_bytes: int,
    parent_pid: int,
) -> None:
    status = 1
    try:
        # Copied first: one of them may stand where the other has to be.
        copies = [os.dup(fd) for fd in descriptors]
        held = max(control.detach(), *descriptors, *copies)
        for position, descriptor in enumerate(copies, 3):
            os.dup2(descriptor, position)
        os.closerange(DECODER_FILES, held + 1)  # not up to their bound, which may be a billion
        confine(memory_bytes, parent_pid)
        serve(socket.socket(fileno=3), SharedMemory(4), limits)
        status = 0
    except (BrokenPipeError, ConnectionResetError):
        status = 0  # the worker is gone
    except BaseException as exc:  # noqa: BLE001 - this is the end of a process
        print(f"captionq-worker: a decoder ended: {exc!r}", file=sys.stderr, flush=True)
    finally:
        os._exit(status)


def _reaped(pid: int, wait_s: float) -> int | None:
    """The exit status of a child that ends within `wait_s` seconds."""
    end_s = time.monotonic() + wait_s
    while True:
        try:
            ended, status = os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            return UNKNOWN
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() >= end_s:
            return None
        time.sleep(0.001)


def main() -> None:
    """Load what decoders need, then fork them."""
    for sig in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(sig, signal.SIG_IGN)
    control = socket.socket(fileno=int(sys.argv[1]))
    limits, memory_bytes = TypeAdapter(tuple[ImageLimits, int]).validate_json(sys.argv[2])
    warm_up(limits)
    gc.collect()
    gc.freeze()  # what is loaded stays shared
    nurse(control, limits, memory_bytes)


if __name__ == "__main__":
    main()
