"""Memory that is freed goes back to the system: what is resident is then what is in use."""

import ctypes

_M_MMAP_THRESHOLD = -3  # mallopt(3)
BLOCK_BYTES = 4 * 2**20


def give_back_freed_blocks() -> None:
    """Have glibc map each block of BLOCK_BYTES and more by itself, and unmap it when it is freed.

    Left alone, it raises that limit to 32 MiB as such blocks are freed, and then keeps a heap full
    of holes: a third of all that a run on BLIP-base held. Where there is no glibc, nothing is done.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, BLOCK_BYTES)
