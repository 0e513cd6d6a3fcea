"""Whose turn it is at the broker: which lanes the next message is taken from, in which order. Pure.

Which batch the device runs next is decided in worker/batching.py.
"""

from collections.abc import Iterable

from producer.queues import BULK, INTERACTIVE, Lane

INTERACTIVE_IN_A_ROW = 20
"""Interactive messages taken one after the other while bulk might wait: then bulk is asked first,
once. So one take in 21 is bulk's under any load, and an interactive message waits for at most one
place that a bulk message has taken before it."""


def offered(bulk_held: int, bulk_slots: float, interactive_in_a_row: int) -> tuple[Lane, ...]:
    """The lanes of the next take, the first that is to be emptied first.

    Args:
        bulk_held: slots that the bulk messages which this process holds take.
        bulk_slots: the most that may be taken; the threads beyond are for interactive ones.
        interactive_in_a_row: see `in_a_row`.
    """
    if bulk_held >= bulk_slots:
        return (INTERACTIVE,)
    if interactive_in_a_row >= INTERACTIVE_IN_A_ROW:
        return (BULK, INTERACTIVE)
    return (INTERACTIVE, BULK)


def in_a_row(before: int, lanes: tuple[Lane, ...], taken: Lane) -> int:
    """How many interactive messages have been taken one after the other since bulk was taken, or
    asked first, counting this one; those taken while bulk has all its slots do not count."""
    if BULK not in lanes:
        return before
    return 0 if BULK in (taken, lanes[0]) else before + 1


def slots_taken(images: Iterable[int], bulk_slots: float) -> int:
    """The slots that bulk messages take, given how many images are behind each: one for each image,
    but at most half of all slots. So a few chunks fill the device, and no more are begun, which
    interactive jobs would share the process with; and one is always on its way meanwhile."""
    most = max(1.0, bulk_slots / 2)
    return sum(int(min(one, most)) for one in images)


def slots(wanted: int | None, threads: int, max_batch: int) -> int:
    """How many images of bulk messages a process may work at: what the setting says, but a thread
    is always left to interactive ones; or else two batches of single images, one on the device and
    one on its way, and at most half the threads. At least one, and that is all where there is one
    thread."""
    return max(1, min(2 * max_batch, threads // 2) if wanted is None else min(wanted, threads - 1))
