"""What can be fuzzed: bytes in; a decoded image out, or a Fault. And bad ones, to test with."""

import os
import signal
import time
from collections.abc import Callable
from functools import cache, partial

import numpy as np

from worker.blip.framing import Framing
from worker.errors import ErrorCode, Fault
from worker.image import Decoded, ImageLimits, decode
from worker.sandbox import Sandbox

Target = Callable[[bytes], Decoded]

# A tenth of the service's pixels: limits are limits, and the fuzzer gets further.
LIMITS = ImageLimits(max_pixels=5_000_000)
FRAMING = Framing("stretch", (32, 32), 16, 3, (1, 2, 3))

in_this_process: Target = partial(decode, limits=LIMITS, framing=FRAMING)
unframed: Target = partial(decode, limits=LIMITS)


@cache
def _sandbox() -> Sandbox:
    return Sandbox(LIMITS, decoders=1)


def in_a_sandbox(data: bytes) -> Decoded:
    try:
        return _sandbox().decode(data, FRAMING)
    except Fault as fault:
        if fault.code in (ErrorCode.DECODE_CRASHED, ErrorCode.DECODE_TIMEOUT):
            raise RuntimeError(f"a decoder was lost: {fault}") from fault
        raise


def raising(data: bytes) -> Decoded:
    if len(data) % 7 == 0:
        raise ZeroDivisionError(f"{len(data)} bytes")
    return in_this_process(data)


def crashing(data: bytes) -> Decoded:
    if len(data) % 7 == 0:
        os.kill(os.getpid(), signal.SIGSEGV)
    return in_this_process(data)


def hanging(data: bytes) -> Decoded:
    if len(data) % 7 == 0:
        time.sleep(600)
    return in_this_process(data)


def misshapen(data: bytes) -> Decoded:
    decoded = in_this_process(data)
    return Decoded((np.zeros((2, 2), np.uint8),), decoded.facts)
