"""Python programs that start in milliseconds: forked from a process that has imported for them.

    process = fork_server("producer.client").start("producer.cli", "submit", "--help")
    done = captionq("submit", "--help", env=environment)

A worker computes for three seconds until it has imported torch, a command for half a second, and
the tests start hundreds. What is forked here is a process like any other, with a pid, signals,
an environment, a folder and files of its own, and draws random numbers of its own. Its imports are
made already, with the server's environment, and all that one server forks have one seed of hashes:
sets come in the same order. Where these are what a test is about, or its memory, the test starts a
fresh interpreter.
"""

import atexit
import functools
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).parents[1]
COMMANDS = ("producer.cli", "tests.chunk_worker", "celery.app.amqp", "kombu.transport.redis")
"""What `captionq` and its stand-in worker import."""
MAX_BYTES = 131_072
"""Of a request: the environment is most of it."""


class ForkedProcess:
    """A running program, used as a subprocess.Popen is, with text in its pipes."""

    def __init__(
        self, args: list[str], said: socket.socket, pipes: Mapping[str, IO[str] | None]
    ) -> None:
        self.args = args
        self.returncode: int | None = None
        self.stdin, self.stdout, self.stderr = (
            pipes.get(name) for name in ("stdin", "stdout", "stderr")
        )
        self._said = said
        self.pid = self._number()

    def poll(self) -> int | None:
        """The status, once it has ended."""
        if self.returncode is None and select.select([self._said], [], [], 0)[0]:
            self._end()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Raises: subprocess.TimeoutExpired."""
        if self.returncode is None:
            if not select.select([self._said], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            self._end()
        assert self.returncode is not None
        return self.returncode

    def communicate(
        self, words: str | None = None, timeout: float | None = None
    ) -> tuple[str, str]:
        """Write `words`, read both outputs to their ends, wait. Raises: TimeoutExpired."""
        texts = {}

        def read(name: str, pipe: IO[str]) -> None:
            texts[name] = pipe.read()

        outputs = (("stdout", self.stdout), ("stderr", self.stderr))
        readers = [
            threading.Thread(target=read, args=one, daemon=True) for one in outputs if one[1]
        ]
        for reader in readers:
            reader.start()
        if self.stdin is not None:
            self.stdin.write(words or "")
            self.stdin.close()
        self.wait(timeout)
        for reader in readers:
            reader.join()
        for _, pipe in outputs:
            if pipe is not None:
                pipe.close()
        return texts.get("stdout", ""), texts.get("stderr", "")

    def send_signal(self, number: int) -> None:
        """Send it, unless the process has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _end(self) -> None:
        self.returncode = self._number()
        self._said.close()

    def _number(self) -> int:
        """The next that the server says: first the pid, then the status."""
        data = self._said.recv(4)
        if not data:
            raise RuntimeError("the fork server has ended")
        return int.from_bytes(data, signed=True)


class ForkServer:
    """The process that has imported `modules`, and forks; see `fork_server`."""

    def __init__(self, *modules: str) -> None:
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            number = theirs.fileno()
            command = [sys.executable, "-m", "tests.fork_server", str(number), *modules]
            self._process = subprocess.Popen(command, cwd=ROOT, pass_fds=[number])

    def start(
        self,
        module: str,
        *words: str,
        env: Mapping[str, str] | None = None,
        cwd: Path = ROOT,
        **files: Any,
    ) -> ForkedProcess:
        """`python -m module words...`; `stdin`, `stdout` and `stderr` as subprocess.Popen has
        them: a file, DEVNULL or PIPE, and STDOUT for stderr."""
        here, there = socket.socketpair()
        args = [module, *words]
        request = {"args": args, "env": dict(os.environ if env is None else env), "cwd": str(cwd)}
        pipes: dict[str, IO[str] | None] = {}
        with open(os.devnull, "r+b") as null, there:  # noqa: PTH123 - a device
            numbers, closing = [], []
            for index, name in enumerate(("stdin", "stdout", "stderr")):
                wanted = files.get(name)
                if wanted == subprocess.PIPE:
                    ends = os.pipe()
                    mine, its = ends[::-1] if index == 0 else ends
                    pipes[name] = open(mine, "r" if index else "w")  # noqa: PTH123, SIM115
                    closing.append(its)
                    numbers.append(its)
                elif wanted == subprocess.STDOUT:
                    numbers.append(numbers[1])
                elif wanted == subprocess.DEVNULL:
                    numbers.append(null.fileno())
                else:
                    numbers.append(index if wanted is None else wanted.fileno())
            message = json.dumps(request).encode()
            assert len(message) <= MAX_BYTES
            socket.send_fds(self._ours, [message], [there.fileno(), *numbers])
            for number in closing:
                os.close(number)
        return ForkedProcess(args, here, pipes)

    def run(
        self, module: str, *words: str, stdin: str | None = None, **options: Any
    ) -> "subprocess.CompletedProcess[str]":
        """Start it with these words on its stdin, and wait for it, two minutes at most."""
        pipes = dict.fromkeys(("stdout", "stderr"), subprocess.PIPE)
        pipes["stdin"] = subprocess.DEVNULL if stdin is None else subprocess.PIPE
        process = self.start(module, *words, **pipes, **options)
        out, err = process.communicate(stdin, timeout=120)
        return subprocess.CompletedProcess(process.args, process.wait(), out, err)

    def close(self) -> None:
        """End the server; what it forked goes on."""
        self._ours.close()
        self._process.wait()


@functools.cache
def fork_server(*modules: str) -> ForkServer:
    """The server of this process that has imported these; started when first asked for."""
    server = ForkServer(*modules)
    atexit.register(server.close)
    return server


def captionq(*words: str, **options: Any) -> "subprocess.CompletedProcess[str]":
    """Run `captionq words...`; `options` are those of ForkServer.run."""
    return fork_server(*COMMANDS).run("producer.cli", *words, **options)


def _serve(control: socket.socket) -> dict[str, Any]:
    """Fork at each request, and say how what was forked has ended; returns, with the request, in
    what is forked. Leaves by SystemExit when nobody can ask any more."""
    awake, wake = socket.socketpair()
    for end in (awake, wake):
        end.setblocking(False)
    signal.set_wakeup_fd(wake.fileno())
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # one from the keyboard is for all of the group
    children: dict[int, socket.socket] = {}
    while True:
        ready, _, _ = select.select([control, awake], [], [])
        if awake in ready:
            awake.recv(4_096)
            while children and (ended := os.waitpid(-1, os.WNOHANG))[0]:
                _say(children.pop(ended[0]), os.waitstatus_to_exitcode(ended[1]))
        if control in ready:
            message, numbers, _, _ = socket.recv_fds(control, MAX_BYTES, 4)
            if not message:
                raise SystemExit
            pid = os.fork()
            if pid == 0:
                for number, file in enumerate(numbers[1:]):
                    os.dup2(file, number)
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                signal.signal(signal.SIGINT, signal.default_int_handler)
                for left in (control, awake, wake, *children.values()):
                    left.close()
                for number in numbers:
                    os.close(number)
                request: dict[str, Any] = json.loads(message)
                return request
            children[pid] = socket.socket(fileno=numbers[0])
            children[pid].sendall(pid.to_bytes(4))
            for number in numbers[1:]:
                os.close(number)


def _say(listener: socket.socket, number: int) -> None:
    with listener:
        try:
            listener.sendall(number.to_bytes(4, signed=True))
        except BrokenPipeError:
            """Whoever started it does not wait for it."""


def main() -> None:
    """Import, serve, and in each that is forked: be the program."""
    for module in sys.argv[2:]:
        importlib.import_module(module)
    gc.freeze()
    request = _serve(socket.socket(fileno=int(sys.argv[1])))
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    if "torch" in sys.modules:  # which, unlike random, draws as its parent would
        sys.modules["torch"].seed()
    program, *words = request["args"]
    sys.argv = [program, *words]
    sys.modules.pop(program, None)  # it may be one of those that were imported
    runpy.run_module(program, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
