"""What is remembered of events: once seen to, never again; in order, whatever comes first."""

import asyncio
import itertools
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import redis
import redis.asyncio

from producer.embedded import RedisServer
from producer.errors import StoreUnavailable
from producer.event_memory import EventMemory, Sighting
from producer.object_event import ObjectEvent, later

NEW, REPEATED, STALE = Sighting.NEW, Sighting.REPEATED, Sighting.STALE


@asynccontextmanager
async def opened(url: str, **options: float) -> AsyncIterator[EventMemory]:
    client = redis.asyncio.Redis.from_url(url, decode_responses=True, socket_timeout=5)
    async with client:
        yield EventMemory(client, **options)


def came(sequencer: str | None, **fields: str) -> ObjectEvent:
    return ObjectEvent("aws", "created", "photos", "cat", sequencer=sequencer, **fields)  # type: ignore[arg-type]


def went(sequencer: str | None, **fields: str) -> ObjectEvent:
    return ObjectEvent("aws", "removed", "photos", "cat", sequencer=sequencer, **fields)  # type: ignore[arg-type]


@pytest.fixture
async def memory(redis_server: RedisServer) -> AsyncIterator[EventMemory]:
    async with opened(redis_server.url, ttl_s=60) as memory:
        yield memory


STORIES = {
    "in order": ([came("1"), came("2"), came("3")], [NEW, NEW, NEW]),
    "an older one comes late": ([came("2"), came("1"), came("3")], [NEW, STALE, NEW]),
    "the same twice": ([came("1"), came("1")], [NEW, REPEATED]),
    "an older one twice": ([came("2"), came("1"), came("1")], [NEW, STALE, STALE]),
    "of other lengths": ([came("61f"), came("61"), came("61f0")], [NEW, STALE, NEW]),
    "long ones": ([came("f" * 24 + "2"), came("f" * 24 + "1")], [NEW, STALE]),
    "no order": ([came(None, etag="a"), came(None, etag="b")], [NEW, NEW]),
    "no order, twice": ([came(None, etag="a"), came(None, etag="a")], [NEW, REPEATED]),
    "it went": ([came("1"), went("2")], [NEW, NEW]),
    "it went, told of late": ([came("2"), went("1")], [NEW, STALE]),
    "it had gone when it was told that it came": ([went("2"), came("1")], [NEW, STALE]),
    "it went and came back": ([came("1"), went("2"), came("3")], [NEW, NEW, NEW]),
    "versions in any order": (
        [came("3", version="c"), came("1", version="a"), came("2", version="b")],
        [NEW, NEW, NEW],
    ),
    "a version twice": ([came("1", version="a"), came("2", version="a")], [NEW, REPEATED]),
    "a version goes for itself": (
        [came("3", version="c"), went("2", version="a"), came("1", version="a")],
        [NEW, NEW, NEW],
    ),
    "a version that went is no order for the others": (
        [went("9", version="a"), went("5"), came("3")],
        [NEW, NEW, STALE],
    ),
    "a delete marker older than a version": ([came("5", version="b"), went("4")], [NEW, STALE]),
    "a delete marker": ([came("5", version="b"), went("6")], [NEW, NEW]),
}


@pytest.mark.parametrize("name", STORIES)
async def test_events_are_what_their_order_makes_them(name: str, memory: EventMemory) -> None:
    events, expected = STORIES[name]
    found = []
    for event in events:
        (sighting,) = await memory.see([event])
        found.append(sighting)
        if sighting is NEW:
            await memory.told([event])

    assert found == expected


async def test_given_events_together_then_they_are_compared_as_they_come(
    memory: EventMemory,
) -> None:
    assert await memory.see([came("2"), came("1"), came("3")]) == [NEW, STALE, NEW]
    assert await memory.see([]) == []
    await memory.told([])


async def test_given_an_event_that_was_not_seen_to_then_it_is_new_again(
    memory: EventMemory,
) -> None:
    assert await memory.see([came("1")]) == [NEW]  # and who saw it died

    assert await memory.see([came("1")]) == [NEW]
    await memory.told([came("1")])
    assert await memory.see([came("1")]) == [REPEATED]
    await memory.untold([came("1")])
    await memory.untold([])
    assert await memory.see([came("1")]) == [NEW]


async def test_given_other_keys_and_buckets_then_they_have_orders_of_their_own(
    memory: EventMemory,
) -> None:
    others = [
        ObjectEvent("aws", "created", "photos", "cat2", sequencer="1"),
        ObjectEvent("aws", "created", "photosc", "at", sequencer="1"),
    ]

    assert await memory.see([came("2"), *others]) == [NEW, NEW, NEW]


async def test_scripts_compare_as_python_does(memory: EventMemory) -> None:
    rng = random.Random(1)
    digits = ["".join(rng.choices("0123456789abcdef", k=rng.randint(1, 40))) for _ in range(40)]
    digits += [one[: rng.randint(1, len(one))] for one in digits]
    digits += [f"{one}0" for one in digits[:10]]
    pairs = list(itertools.product(digits[::3], digits[1::4]))
    keys = [f"k{place}" for place in range(len(pairs))]

    def noted(key: str, sequencer: str) -> ObjectEvent:
        return ObjectEvent("aws", "created", "photos", key, sequencer=sequencer)

    await memory.see([noted(key, first) for key, (first, _) in zip(keys, pairs, strict=True)])
    found = await memory.see([noted(key, then) for key, (_, then) in zip(keys, pairs, strict=True)])

    expected = [STALE if later(first, then) else NEW for first, then in pairs]
    assert found == expected
    assert {STALE, NEW} == set(found)


async def test_given_many_who_see_the_same_then_order_is_kept(redis_server: RedisServer) -> None:
    events = [came(f"{n:04x}") for n in range(100)]

    async def all_of_them(memory: EventMemory, order: list[ObjectEvent]) -> None:
        for event in order:
            await memory.see([event])

    orders = [random.Random(n).sample(events, k=len(events)) for n in range(4)]
    async with opened(redis_server.url) as one, opened(redis_server.url) as other:
        memories = [one, other, one, other]
        await asyncio.gather(*(all_of_them(*pair) for pair in zip(memories, orders, strict=True)))

        assert await one.see(events) == [STALE] * 99 + [NEW]


async def test_what_is_remembered_has_a_bounded_life_from_the_last_event_on(
    redis_server: RedisServer,
) -> None:
    async with opened(redis_server.url, ttl_s=0.4) as memory:
        await memory.see([came("2")])
        await memory.told([came("2")])
        for _ in range(3):
            await asyncio.sleep(0.2)
            assert await memory.see([came("2"), came("1")]) == [REPEATED, STALE]

        with redis.Redis.from_url(redis_server.url) as client:
            assert len(client.keys("captionq:*")) == 2
            await asyncio.sleep(0.6)
            assert client.keys("captionq:*") == []
        assert await memory.see([came("1")]) == [NEW]


async def test_given_a_message_that_has_been_seen_to_then_it_is_known_for_a_while(
    memory: EventMemory,
) -> None:
    assert not await memory.heard("m1")
    await memory.hear("m1", 0.2)
    assert await memory.heard("m1")
    assert not await memory.heard("m2")
    await asyncio.sleep(0.3)
    assert not await memory.heard("m1")


async def test_given_no_redis_then_it_is_said_in_bounded_time() -> None:
    async with opened("redis://127.0.0.1:1/0") as memory:
        calls = (memory.see([came("1")]), memory.told([came("1")]), memory.heard("m"))
        for call in (*calls, memory.hear("m", 1), memory.bury("junk", "sqs://uploads", "No event")):
            with pytest.raises(StoreUnavailable):
                await call
