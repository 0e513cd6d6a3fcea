"""Decoding in processes that are killed: what they give, what they may do, what they leave."""

import errno
import gc
import io
import os
import platform
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from producer.errors import JobFailed
from tests.dying import ended
from tests.full import often
from tests.images.jpeg import more_scans
from worker.blip.framing import Framing
from worker.errors import ErrorCode, Fault
from worker.image import Decoded, ImageLimits, decode
from worker.sandbox import Sandbox, seccomp, wire
from worker.sandbox.budget import PixelBudget
from worker.sandbox.decoder import request
from worker.sandbox.memory import CAPACITY_BYTES, KEPT_BYTES, SharedMemory
from worker.sandbox.nursery import Nursery, NurseryGone
from worker.sandbox.process import Decoder

LIMITS = ImageLimits()
FRAMING = Framing("stretch", (384, 384), 16, 3, (0, 0, 0))
SLACK_S = 0.5
"""How much later than its deadline a decoder may be given up."""


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    made = Sandbox(LIMITS, decoders=2, timeout_s=60)
    made.start()
    yield made
    made.close()


@pytest.fixture
def single() -> Iterator[Sandbox]:
    """One decoder, begun."""
    made = Sandbox(LIMITS, decoders=1, timeout_s=60)
    made.start()
    yield made
    made.close()


def picture(width: int = 80, height: int = 60, seed: int = 0, **options: Any) -> bytes:
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    file = io.BytesIO()
    coarse.resize((width, height)).save(file, **({"format": "PNG"} | options))
    return file.getvalue()


def flat(width: int, height: int, mode: str = "RGB") -> bytes:
    file = io.BytesIO()
    Image.new(mode, (width, height)).save(file, "PNG", compress_level=1)
    return file.getvalue()


def code(call: Callable[[], object]) -> ErrorCode:
    with pytest.raises(Fault) as caught:
        call()
    return caught.value.code


def nursery_of(sandbox: Sandbox) -> psutil.Process:
    process = sandbox._nursery._process
    assert process is not None
    return psutil.Process(process.pid)


def decoders_of(sandbox: Sandbox) -> list[psutil.Process]:
    return nursery_of(sandbox).children()


def end(process: psutil.Process) -> None:
    """Kill it, and wait until that is done."""
    process.kill()
    assert ended(process)


def same(one: Decoded, other: Decoded) -> bool:
    return one.facts == other.facts and all(
        np.array_equal(a, b) for a, b in zip(one.images, other.images, strict=True)
    )


# What they give


@pytest.mark.parametrize("framing", [None, FRAMING])
@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "GIF", "BMP"])
def test_given_a_file_then_its_pixels_are_those_of_decoding_it_here(
    sandbox: Sandbox, format_: str, framing: Framing | None
) -> None:
    data = picture(format=format_)
    assert same(sandbox.decode(data, framing), decode(data, LIMITS, framing))


def test_given_regions_then_each_has_its_own_pixels(sandbox: Sandbox) -> None:
    data, boxes = picture(200, 100), [(0, 0, 100, 50), (50, 50, 200, 100), (199, 99, 200, 100)]
    assert same(sandbox.decode(data, None, boxes), decode(data, LIMITS, None, boxes))


def test_given_a_region_outside_the_image_then_the_job_is_told_which(sandbox: Sandbox) -> None:
    with pytest.raises(JobFailed) as here:
        decode(picture(), LIMITS, None, [(0, 0, 81, 60)])
    with pytest.raises(JobFailed) as there:
        sandbox.decode(picture(), None, [(0, 0, 81, 60)])
    assert there.value.args == here.value.args


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\0", id="one byte"),
        pytest.param(b"%PDF-1.7", id="another format"),
        pytest.param(picture()[:-40], id="cut short"),
        pytest.param(flat(16_384, 1), id="a side too long"),
    ],
)
def test_given_a_file_that_is_refused_then_the_fault_is_that_of_decoding_it_here(
    sandbox: Sandbox, data: bytes
) -> None:
    assert code(lambda: sandbox.decode(data)) is code(lambda: decode(data, LIMITS))


def test_given_a_refused_file_then_its_decoder_goes_on(sandbox: Sandbox) -> None:
    sandbox.decode(picture())
    before = {process.pid for process in decoders_of(sandbox)}
    for _ in range(5):
        assert code(lambda: sandbox.decode(b"no image")) is ErrorCode.IMAGE_UNSUPPORTED_FORMAT
    sandbox.decode(picture())
    assert {process.pid for process in decoders_of(sandbox)} == before


def test_given_many_threads_then_each_gets_its_own_image(sandbox: Sandbox) -> None:
    files = [picture(40 + n, 30 + n, seed=n) for n in range(40)]
    with ThreadPoolExecutor(16) as threads:
        found = list(threads.map(sandbox.decode, files))
    assert all(same(one, decode(data, LIMITS)) for one, data in zip(found, files, strict=True))
    assert len(decoders_of(sandbox)) <= 2


def test_given_more_pixels_than_the_shared_memory_holds_then_the_image_is_too_large(
    sandbox: Sandbox,
) -> None:
    data, boxes = flat(4_000, 4_000), [(0, 0, 4_000, 4_000)] * 6
    assert CAPACITY_BYTES < 6 * 4_000 * 4_000 * 3
    assert code(lambda: sandbox.decode(data, None, boxes)) is ErrorCode.IMAGE_TOO_LARGE
    assert sandbox.decode(data, None, boxes[:5]).images[4].shape == (4_000, 4_000, 3)


# Killed


def test_given_a_decoder_that_hangs_then_it_is_killed_at_the_deadline_and_replaced(
    single: Sandbox,
) -> None:
    took_s = []
    for _ in range(3):  # the machine may be busy with something else, once or twice
        [stopped] = decoders_of(single)
        stopped.suspend()
        single._timeout_s = 0.5
        began_s = time.monotonic()
        assert code(lambda: single.decode(picture())) is ErrorCode.DECODE_TIMEOUT
        took_s.append(time.monotonic() - began_s)
        assert ended(stopped)
        single._timeout_s = 60
        assert same(single.decode(picture()), decode(picture(), LIMITS))
    assert 0.5 <= min(took_s) < 0.5 + SLACK_S


def test_given_an_image_that_takes_too_long_then_it_alone_fails() -> None:
    """Inside libjpeg, where no thread could be stopped."""
    endless = more_scans(picture(4_000, 3_000, format="JPEG", progressive=True), 5_000)
    slow = Sandbox(ImageLimits(max_jpeg_scans=10_000), decoders=2, timeout_s=3)
    try:
        slow.start()
        with ThreadPoolExecutor(1) as threads:
            late = threads.submit(slow.decode, endless)
            while len(slow._idle) == 2:
                time.sleep(0.001)
            slow.decode(picture(8, 8))
            assert not late.done()
            assert code(lambda: late.result(60)) is ErrorCode.DECODE_TIMEOUT
    finally:
        slow.close()


@pytest.mark.parametrize("sig", [signal.SIGSEGV, signal.SIGKILL, signal.SIGABRT])
def test_given_a_decoder_that_crashes_with_an_image_then_that_image_alone_fails(
    sandbox: Sandbox, sig: signal.Signals
) -> None:
    data, asked = picture(), request(len(picture()), None, None)
    with ExitStack() as stack:
        one, other = (
            stack.enter_context(sandbox._borrowed(time.monotonic() + 60)) for _ in range(2)
        )
        assert one.pid is not None
        os.kill(one.pid, sig)
        with pytest.raises(Fault, match=f"decode_crashed: .*exit status {-sig}"):
            one.decode(data, asked, 60, 60)
        assert same(other.decode(data, asked, 60, 60), decode(data, LIMITS))
    assert same(sandbox.decode(data), decode(data, LIMITS))


def test_given_a_decoder_that_ended_while_it_was_idle_then_no_image_fails_for_it(
    single: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever needed memory may have killed it."""
    [decoder] = decoders_of(single)
    end(decoder)
    assert same(single.decode(picture()), decode(picture(), LIMITS))
    assert caplog.messages == ["a decoder ended without an image: exit status -9"]


def test_given_a_nursery_that_died_then_the_next_image_has_a_new_one(single: Sandbox) -> None:
    old, [decoder] = nursery_of(single), decoders_of(single)
    end(old)
    assert ended(decoder), "a decoder outlived its nursery"
    assert same(single.decode(picture()), decode(picture(), LIMITS))
    assert nursery_of(single) != old


def test_given_hundreds_of_kills_then_no_process_file_or_memory_is_left() -> None:
    me, kills = psutil.Process(), often(1_000, 250)
    tortured = Sandbox(LIMITS, decoders=1, timeout_s=60)
    data, asked = picture(8, 8), request(len(picture(8, 8)), None, None)
    try:
        tortured.start()
        nursery = nursery_of(tortured)

        def kill(times: int) -> None:
            for _ in range(times):
                with tortured._borrowed(time.monotonic() + 60) as decoder:
                    assert decoder.pid is not None
                    os.kill(decoder.pid, signal.SIGKILL)
                    with pytest.raises(Fault) as caught:
                        decoder.decode(data, asked, 60, 60)
                    assert caught.value.code is ErrorCode.DECODE_CRASHED
                tortured.decode(data)

        kill(100)
        gc.collect()
        files, memory = (me.num_fds(), nursery.num_fds()), me.memory_info().rss
        nursery_memory = nursery.memory_info().rss
        kill(kills)
        gc.collect()
        assert nursery_of(tortured) == nursery
        [last] = tortured._idle
        assert ended(*(process for process in nursery.children() if process.pid != last.pid))
        assert (me.num_fds(), nursery.num_fds()) == files
        grown = me.memory_info().rss - memory, nursery.memory_info().rss - nursery_memory
        print(f"grown by {grown} bytes")
        assert max(grown) < kills / 1_000 * 2 * 2**20
    finally:
        tortured.close()
    assert ended(nursery)


@pytest.mark.parametrize("busy", [False, True])
def test_given_a_worker_that_is_killed_then_nothing_of_its_sandbox_lives_on(
    tmp_path: Path, busy: bool
) -> None:
    file = tmp_path / "large.png"
    file.write_bytes(flat(7_000, 7_000))
    program = f"""
from pathlib import Path
from worker.image import ImageLimits
from worker.sandbox import Sandbox
sandbox = Sandbox(ImageLimits(), decoders=2)
sandbox.start()
print("ready", flush=True)
while {busy}:
    sandbox.decode(Path({str(file)!r}).read_bytes())
input()
"""
    worker = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with worker:
        assert worker.stdout is not None
        assert worker.stdout.readline() == b"ready\n"
        time.sleep(0.3)
        family = psutil.Process(worker.pid).children(recursive=True)
        worker.kill()
    assert len(family) == 3
    assert ended(*family)


def test_given_a_closed_sandbox_then_no_process_is_left_and_an_image_is_refused() -> None:
    closed = Sandbox(LIMITS, decoders=2)
    closed.start()
    family = [nursery_of(closed), *decoders_of(closed)]
    closed.close()
    assert ended(*family)
    assert code(lambda: closed.decode(picture())) is ErrorCode.WORKER_OVERLOADED
    assert closed._nursery._process is None


def test_given_a_sandbox_that_is_closed_meanwhile_then_no_nursery_is_begun_for_a_late_image(
    sandbox: Sandbox,
) -> None:
    nursery = Nursery(LIMITS, 2**30)
    nursery.close()
    with pytest.raises(NurseryGone):
        Decoder(nursery, PixelBudget(1))
    assert nursery._process is None


# Confined


def test_given_credentials_in_the_environment_then_no_decoder_has_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret-to-look-for")
    made = Sandbox(LIMITS, decoders=1)
    try:
        made.start()
        for process in (nursery_of(made), *decoders_of(made)):
            assert b"a-secret" not in Path(f"/proc/{process.pid}/environ").read_bytes()
    finally:
        made.close()


def test_given_a_decoder_then_it_holds_its_socket_and_its_memory_alone(sandbox: Sandbox) -> None:
    sandbox.decode(picture())
    for process in decoders_of(sandbox):
        assert process.num_fds() == 5
        held = [str(Path(f"/proc/{process.pid}/fd/{fd}").readlink()) for fd in (3, 4)]
        assert held[0].startswith("socket:")
        assert held[1].startswith("/memfd:captionq")


CONFINED = """
import ctypes, os, signal, socket, sys, threading
from worker.sandbox.decoder import confine
libc = ctypes.CDLL(None, use_errno=True)

def call(name, *args):
    if getattr(libc, name)(*args) < 0:
        raise OSError(ctypes.get_errno(), name)

confine(600 * 2**20, os.getppid())
if libc.prctl(21, 0, 0, 0, 0) != 2:
    sys.exit("the kernel filters no system calls")
os.close(0)
kept = []
for name, attempt in {
    "a file": lambda: open("/etc/passwd"),
    "a socket": lambda: socket.socket(),
    "a copy of a descriptor": lambda: os.dup(1),
    "a pipe": lambda: os.pipe(),
    "its worker signalled": lambda: os.kill(os.getppid(), 0),
    "its worker traced": lambda: call("ptrace", 16, os.getppid(), 0, 0),
    "its worker limited": lambda: call("prlimit", os.getppid(), 7, None, None),
    "a file renamed": lambda: os.rename(sys.argv[1], sys.argv[1] + "2"),
    "a file removed": lambda: os.unlink(sys.argv[1]),
    "a process": lambda: os.fork(),
    "a program": lambda: os.execv("/bin/true", ["true"]),
    "a system call of tomorrow": lambda: call("syscall", 460),
}.items():
    try:
        kept.append(attempt())
        print(name, "done")
    except OSError as exc:
        print(name, exc.errno)
try:
    bytearray(700 * 2**20)
except MemoryError:
    print("memory")
print("no new privileges", libc.prctl(39, 0, 0, 0, 0))
thread = threading.Thread(target=lambda: print("a thread"))
thread.start()
thread.join()
sys.stdout.flush()
os.abort()
"""


def test_given_a_confined_process_then_it_opens_nothing_and_reaches_nobody(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    done = subprocess.run(
        [sys.executable, "-c", CONFINED, file], capture_output=True, text=True, check=False
    )
    if "the kernel filters" in done.stderr:
        pytest.skip(done.stderr)
    assert done.stdout.splitlines() == [
        f"a file {errno.EMFILE}",
        f"a socket {errno.EMFILE}",
        f"a copy of a descriptor {errno.EINVAL}",
        f"a pipe {errno.EMFILE}",
        f"its worker signalled {errno.EPERM}",
        f"its worker traced {errno.EPERM}",
        f"its worker limited {errno.EPERM}",
        f"a file renamed {errno.EPERM}",
        f"a file removed {errno.EPERM}",
        f"a process {errno.EPERM}",
        f"a program {errno.EPERM}",
        f"a system call of tomorrow {errno.ENOSYS}",
        "memory",
        "no new privileges 1",
        "a thread",
    ]
    assert done.returncode == -signal.SIGABRT


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_given_a_machine_then_its_filter_ends_with_an_answer_whatever_is_called(
    machine: str,
) -> None:
    steps = seccomp._steps(machine, 4_711)
    for at, (_, so, not_so, _) in enumerate(steps[:-1], 1):
        assert at + max(so, not_so) < len(steps)
    assert steps[-1][0] == 0x06


def test_given_another_machine_then_nothing_is_filtered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    assert not seccomp.forbid()


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_given_a_signal_of_the_terminal_then_decoders_leave_it_to_the_worker(
    sandbox: Sandbox, sig: signal.Signals
) -> None:
    sandbox.decode(picture())
    before = decoders_of(sandbox)
    for process in (nursery_of(sandbox), *before):
        process.send_signal(sig)
    sandbox.decode(picture())
    assert decoders_of(sandbox) == before


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "I;16", "L"])
def test_given_the_largest_image_then_it_is_decoded_within_the_memory_of_a_decoder(
    sandbox: Sandbox, mode: str
) -> None:
    decoded = sandbox.decode(flat(7_071, 7_071, mode), FRAMING)
    assert (decoded.facts.width, decoded.facts.height) == (7_071, 7_071)


def test_given_an_image_that_needs_more_memory_than_a_decoder_has_then_it_alone_fails() -> None:
    small = Sandbox(LIMITS, decoders=1, memory_bytes=400 * 2**20)
    try:
        large = flat(7_000, 7_000, "RGBA")
        assert code(lambda: small.decode(large, FRAMING)) is ErrorCode.IMAGE_TOO_LARGE
        assert same(small.decode(picture()), decode(picture(), LIMITS))
    finally:
        small.close()


# Not believed


class _Impostor:
    """A nursery whose decoders answer what they like."""

    def __init__(self, says: Callable[[socket.socket, SharedMemory], None]) -> None:
        self.says = says
        self.ended: list[int] = []

    def fork(self, peer: socket.socket, memory: SharedMemory) -> int:
        ours, copy = peer.dup(), SharedMemory(os.dup(memory.descriptor))
        threading.Thread(target=self._run, args=(ours, copy)).start()
        return 4_711

    def end(self, pid: int) -> int:
        self.ended.append(pid)
        return -9

    def _run(self, peer: socket.socket, memory: SharedMemory) -> None:
        with peer:
            try:
                wire.receive(peer)
                self.says(peer, memory)
            except (OSError, EOFError):
                pass
            finally:
                memory.close()


def answered(
    says: Callable[[socket.socket, SharedMemory], None], timeout_s: float = 60
) -> tuple[Decoder, _Impostor, Any]:
    """What becomes of an image whose decoder says this."""
    nursery: Any = _Impostor(says)
    decoder = Decoder(nursery, PixelBudget(100))
    try:
        outcome: Any = decoder.decode(b"data", {}, timeout_s, 0)
    except Fault as fault:
        outcome = fault.code
    decoder.close()
    return decoder, nursery, outcome


FACTS = {"format": "PNG", "width": 1, "height": 1, "bytes": 4, "sha256": "0"}


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param({}, id="nothing"),
        pytest.param({"fault": "no such code", "detail": ""}, id="an unknown code"),
        pytest.param({"fault": "signature_invalid", "detail": ""}, id="a code of no image"),
        pytest.param({"fault": "image_corrupt"}, id="no detail"),
        pytest.param({"shapes": [], "facts": FACTS}, id="no image"),
        pytest.param({"shapes": [[1, 1, 3]]}, id="no facts"),
        pytest.param({"shapes": [[1, 1, 4]], "facts": FACTS}, id="four channels"),
        pytest.param({"shapes": [[-1, 1, 3]], "facts": FACTS}, id="a negative side"),
        pytest.param({"shapes": [[1, 3]], "facts": FACTS}, id="two sides"),
        pytest.param({"shapes": [[10**9, 10**9, 3]], "facts": FACTS}, id="a huge shape"),
        pytest.param({"shapes": [[9_000, 9_000, 3]] * 2, "facts": FACTS}, id="huge shapes"),
        pytest.param({"shapes": [[5, 5, 3]], "facts": FACTS}, id="pixels that are not there"),
        pytest.param({"shapes": [[1, 1, 3]], "facts": {"width": "one"}}, id="odd facts"),
        pytest.param({"pixels": "many"}, id="odd pixels"),
        pytest.param({"pixels": -1}, id="negative pixels"),
    ],
)
def test_given_an_answer_that_makes_no_sense_then_the_decoder_is_ended(
    answer: dict[str, Any],
) -> None:
    decoder, nursery, outcome = answered(lambda peer, _: wire.send(peer, answer))
    assert outcome is ErrorCode.DECODE_CRASHED
    assert not decoder.usable
    assert nursery.ended == [4_711]


def test_given_an_answer_that_makes_sense_then_it_is_taken() -> None:
    def say(peer: socket.socket, memory: SharedMemory) -> None:
        memory.write(b"\1\2\3\4\5\6")
        wire.send(peer, {"shapes": [[1, 1, 3], [1, 1, 3]], "facts": FACTS})

    _, _, outcome = answered(say)
    assert [image.tolist() for image in outcome.images] == [[[[1, 2, 3]]], [[[4, 5, 6]]]]


@given(said=st.binary(max_size=200) | st.binary(max_size=50).map(lambda b: len(b).to_bytes(4) + b))
@settings(max_examples=60, deadline=None)
def test_given_any_bytes_for_an_answer_then_the_fault_is_typed(said: bytes) -> None:
    def say(peer: socket.socket, _: SharedMemory) -> None:
        peer.sendall(said)
        peer.recv(1)  # neither more nor the end

    decoder, _, outcome = answered(say, timeout_s=0.2)
    assert outcome in (ErrorCode.DECODE_CRASHED, ErrorCode.DECODE_TIMEOUT)
    assert not decoder.usable


def test_given_an_answer_that_drips_then_it_is_waited_for_no_longer_than_one_that_does_not() -> (
    None
):
    def say(peer: socket.socket, _: SharedMemory) -> None:
        peer.sendall((1_000).to_bytes(4))
        while True:
            peer.sendall(b" ")
            time.sleep(0.01)

    took_s = []
    for _ in range(3):
        began_s = time.monotonic()
        _, _, outcome = answered(say, timeout_s=0.2)
        took_s.append(time.monotonic() - began_s)
        assert outcome is ErrorCode.DECODE_TIMEOUT
    assert min(took_s) < 0.2 + SLACK_S


def test_given_an_image_that_waited_long_for_its_decoder_then_it_does_not_for_room_as_well() -> (
    None
):
    decoder = Decoder(_Impostor(lambda peer, _: wire.send(peer, {"pixels": 1})), PixelBudget(1))  # type: ignore[arg-type]
    decoder._budget.take(1, 0)
    began_s = time.monotonic()
    assert code(lambda: decoder.decode(b"data", {}, 60, 0)) is ErrorCode.WORKER_OVERLOADED
    assert time.monotonic() - began_s < 30, "as long as for a whole image"
    assert not decoder.usable
    decoder.close()


def test_given_a_decoder_that_speaks_ahead_of_the_next_image_then_it_is_lent_no_more() -> None:
    def say(peer: socket.socket, _: SharedMemory) -> None:
        for _ in range(2):
            wire.send(peer, {"fault": "image_corrupt", "detail": ""})
        peer.recv(1)

    nursery: Any = _Impostor(say)
    decoder = Decoder(nursery, PixelBudget(100))
    assert decoder.silent
    with pytest.raises(Fault):
        decoder.decode(b"data", {}, 60, 0)
    until_s = time.monotonic() + 20
    while decoder.silent and time.monotonic() < until_s:
        time.sleep(0.001)
    assert not decoder.silent
    decoder.close()


def test_given_messages_then_only_those_within_the_bound_are_read() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        wire.send(theirs, {"a": [1, "ü"]})
        assert wire.receive(ours) == {"a": [1, "ü"]}
        for junk in ((2**31).to_bytes(4), (2).to_bytes(4) + b"[]", (5).to_bytes(4) + b"[[[[["):
            theirs.sendall(junk)
            with pytest.raises(ValueError, match=r"message|Expecting"):
                wire.receive(ours)
        with pytest.raises(TimeoutError):
            wire.receive(ours, time.monotonic() + 0.05)
        wire.send(theirs, {"late": True})
        assert wire.receive(ours, time.monotonic() - 5) == {"late": True}, "what has come is read"
        theirs.close()
        with pytest.raises(EOFError):
            wire.receive(ours)


# Pixels in flight


def test_given_room_for_two_then_the_third_waits_and_the_fourth_behind_it() -> None:
    budget, order = PixelBudget(100), []
    assert budget.take(60, 0)
    assert budget.take(40, 0)
    far = time.monotonic() + 60

    def wait(pixels: int) -> None:
        assert budget.take(pixels, far)
        order.append(pixels)

    threads = []
    for pixels in (95, 10):
        threads.append(threading.Thread(target=wait, args=(pixels,)))
        threads[-1].start()
        while len(budget._waiting) < len(threads):
            time.sleep(0.001)
    budget.give_back(40)
    time.sleep(0.05)
    assert order == [], "a small one went past a large one"
    budget.give_back(60)
    threads[0].join(20)
    assert order == [95]
    budget.give_back(95)
    threads[1].join(20)
    assert order == [95, 10]
    assert budget.left == 90


def test_given_no_room_in_time_then_nothing_is_held() -> None:
    budget = PixelBudget(100)
    assert budget.take(1_000, 0), "more than the sum counts as the sum"
    assert not budget.take(1, time.monotonic() + 0.02)
    budget.give_back(1_000)
    assert budget.left == 100
    assert budget.take(100, 0)


def test_given_many_large_images_at_once_then_few_are_decoded_at_a_time() -> None:
    """Three decoders could hold 75 MP; they are given room for one image of 25."""
    large = flat(5_000, 5_000)
    bounded = Sandbox(LIMITS, decoders=3, timeout_s=150, pixels_in_flight=25_000_000)
    over = threading.Event()
    held: list[int] = []

    def watch(decoders: list[psutil.Process], held_bytes: int) -> None:
        while not over.wait(0.01):
            held.append(sum(process.memory_info().rss > held_bytes for process in decoders))

    try:
        bounded.start()
        decoders = decoders_of(bounded)
        # Half of what the pixels take, beside what a decoder takes.
        half = max(process.memory_info().rss for process in decoders) + 50 * 2**20
        watcher = threading.Thread(target=watch, args=(decoders, half))
        watcher.start()
        with ThreadPoolExecutor(6) as threads:
            found = list(threads.map(lambda _: bounded.decode(large, FRAMING), range(6)))
    finally:
        over.set()
        watcher.join()
        bounded.close()
    assert len(found) == 6
    assert max(held) == 1
    assert bounded._budget.left == 25_000_000


def test_given_a_large_image_then_its_memory_is_given_back() -> None:
    memory = SharedMemory()
    memory.write(bytes(50 * 2**20))
    memory.trim()
    assert os.fstat(memory.descriptor).st_blocks * 512 <= KEPT_BYTES
    memory.write(b"abc")
    assert memory.read(3) == b"abc"
    memory.close()


def test_given_no_descriptors_left_then_an_image_is_refused_for_now_and_nothing_leaks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    full = Sandbox(LIMITS, decoders=1)
    gc.collect()
    before = psutil.Process().num_fds()

    def none_left() -> tuple[socket.socket, socket.socket]:
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patched:
        patched.setattr(socket, "socketpair", none_left)
        for _ in range(3):
            assert code(lambda: full.decode(picture())) is ErrorCode.WORKER_OVERLOADED
    assert psutil.Process().num_fds() == before
    full.close()


def test_given_a_nursery_that_cannot_start_then_an_image_is_refused_for_now(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    broken = Sandbox(LIMITS, decoders=1)
    assert code(lambda: broken.decode(picture())) is ErrorCode.WORKER_OVERLOADED
    with pytest.raises(Fault):
        broken.start()
    broken.close()


def test_given_modules_in_the_current_folder_then_none_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where files are checked by hand, anything may lie."""
    (tmp_path / "PIL.py").write_text("raise SystemExit('not this one')")
    (tmp_path / "worker").mkdir()
    (tmp_path / "worker" / "__init__.py").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    elsewhere = Sandbox(LIMITS, decoders=1, timeout_s=60)
    try:
        assert same(elsewhere.decode(picture()), decode(picture(), LIMITS))
    finally:
        elsewhere.close()


def test_given_a_nursery_asked_twice_for_an_end_then_it_says_that_it_knows_nothing() -> None:
    nursery = Nursery(LIMITS, 2**30)
    ours, theirs = socket.socketpair()
    memory = SharedMemory()
    with ours, theirs:
        pid = nursery.fork(theirs, memory)
        assert nursery.end(pid) == -signal.SIGKILL
        assert nursery.end(pid) is None
    memory.close()
    nursery.close()
