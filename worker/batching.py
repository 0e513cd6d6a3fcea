"""The batching policy: which batch the device runs next, or how long it waits. Pure.

It is mosec's (wait for the first item without a timer, then gather until the batch is full or the
oldest item has waited long enough), with two refinements. It waits only while admitted items are
still on their way (being fetched or decoded), so an idle system pays no wait at all. And there are
two lanes: interactive items overtake bulk ones, and bulk fills what they leave of a batch.

So while bulk saturates the device, an interactive item waits for the batch that runs, perhaps for
bulk's turn, and for its own: three batch times.

Bulk waits no longer for its batches to fill than interactive does. It would not pay: when more
comes than small batches can take, what waits meanwhile makes the next ones larger.
"""

import math
from collections.abc import Hashable, Mapping
from typing import Generic, NamedTuple, TypeVar

from producer.queues import BULK, INTERACTIVE, Lane

Key = TypeVar("Key", bound=Hashable)
"""What separates batches: items of one key have the same computation shape."""

BATCHES_IN_A_ROW = 8
"""Batches that may pass over the bulk item that has waited longest: then it is its turn. So a bulk
item waits for no more than this many batches for each batch of bulk before it, and bulk has at
least a ninth of the device."""


class Waiting(NamedTuple):
    """How much of one key waits in each lane, and since when (seconds of the batcher's clock)."""

    items: int = 0
    oldest_s: float = math.inf
    bulk: int = 0
    bulk_oldest_s: float = math.inf


class Take(NamedTuple, Generic[Key]):
    """Run the oldest items of `key` now: those of lane `first`, then of the other as there is
    room."""

    key: Key
    first: Lane = INTERACTIVE


class Wait(NamedTuple):
    """Nothing to run yet: wait this long, or without a timer when None."""

    timeout_s: float | None


def decide(
    waiting: Mapping[Key, Waiting],
    now_s: float,
    on_the_way: int,
    max_batch: int,
    max_wait_s: float,
    *,
    bulk_on_the_way: int = 0,
    passed_over: int = 0,
) -> Take[Key] | Wait:
    """The batching policy: which key to run now, or how long to wait.

    While interactive items wait, only they count: the key of the oldest goes first once its batch
    is full, has waited long enough, or has nobody left to wait for. Until then another key that is
    full already may use the device. Bulk items alone are treated the same, and what is on the way
    in either lane is waited for.

    Args:
        on_the_way: interactive items that are being fetched or decoded.
        bulk_on_the_way: bulk items that are.
        passed_over: batches in a row that ran without the bulk item that has waited longest.
    """
    since = {key: each.oldest_s for key, each in waiting.items() if each.items}
    bulk_since = {key: each.bulk_oldest_s for key, each in waiting.items() if each.bulk}
    if since and bulk_since and passed_over >= BATCHES_IN_A_ROW:
        return Take(min(bulk_since, key=bulk_since.__getitem__), BULK)
    if not since:
        since, on_the_way = bulk_since, on_the_way + bulk_on_the_way
    if not since:
        return Wait(None)
    by_age = sorted(since, key=since.__getitem__)
    left_s = since[by_age[0]] + max_wait_s - now_s
    if on_the_way == 0 or left_s <= 0:
        return Take(by_age[0])
    for key in by_age:
        if waiting[key].items + waiting[key].bulk >= max_batch:
            return Take(key)
    return Wait(left_s)
