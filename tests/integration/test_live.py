"""One subscription for all who watch jobs: what each hears, on a real Redis."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import redis

from producer.async_redis_store import AsyncRedisStore
from producer.contract import CaptionJob
from producer.embedded import RedisServer
from producer.gateway.live import Heard, Kind, Live, Watch
from tests.stand_in_worker import succeeded

IMAGE = "https://example.com/cat.jpg"


@pytest.fixture
async def store(redis_server: RedisServer) -> AsyncIterator[AsyncRedisStore]:
    store = AsyncRedisStore(redis_server.url)
    yield store
    await store.close()


@pytest.fixture
async def live(store: AsyncRedisStore) -> AsyncIterator[Live]:
    live = Live(store.redis, store.ledger)
    live.start()
    yield live
    await live.close()


async def heard(watch: Watch) -> Heard:
    return await asyncio.wait_for(watch.get(), 30)


async def until(true: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(60):
        while not await true():
            await asyncio.sleep(0.02)


async def end(store: AsyncRedisStore, job_id: str) -> None:
    await store.finish(succeeded(CaptionJob(job_id=job_id, image=IMAGE)))


async def test_whoever_watches_is_to_look_then_hears_what_comes(
    live: Live, store: AsyncRedisStore
) -> None:
    async with live.watch("a") as watch:
        assert (await heard(watch)).kind is Kind.LOOK
        await store.start("a", "caption", 1, "worker")
        assert (await heard(watch)).kind is Kind.RUNNING
        await end(store, "a")
        done = await heard(watch)

    assert done.kind is Kind.DONE
    assert '"succeeded"' in done.text


async def test_each_hears_of_its_own_job_and_all_of_the_same(
    live: Live, store: AsyncRedisStore
) -> None:
    async with live.watch("a") as a, live.watch("b") as b, live.watch("a") as again:
        for watch in (a, b, again):
            assert (await heard(watch)).kind is Kind.LOOK
        await end(store, "a")
        for watch in (a, again):
            while (await heard(watch)).kind is not Kind.DONE:
                pass

        assert b.empty()


async def test_who_comes_as_another_goes_is_to_look_all_the_same(
    live: Live, store: AsyncRedisStore
) -> None:
    """The subscription stays, so that nothing confirms it anew."""
    async with live.watch("a") as watch:
        await heard(watch)
    async with live.watch("a") as watch:
        assert (await heard(watch)).kind is Kind.LOOK
        await end(store, "a")
        while (await heard(watch)).kind is not Kind.DONE:
            pass


async def test_nothing_stays_subscribed_to_when_nobody_watches(
    live: Live, store: AsyncRedisStore, redis_server: RedisServer
) -> None:
    for number in range(50):
        async with live.watch(f"job-{number}") as watch:
            await heard(watch)

    async def none() -> bool:
        return await store.redis.pubsub_channels("captionq:done:*") == []

    await until(none)


async def test_given_a_connection_that_breaks_all_are_to_look_again(
    live: Live, store: AsyncRedisStore, redis_server: RedisServer
) -> None:
    async with live.watch("a") as a, live.watch("b") as b:
        await heard(a)
        await heard(b)
        with redis.Redis.from_url(redis_server.url) as plain:
            plain.client_kill_filter(_type="pubsub")
        for watch in (a, b):
            assert (await heard(watch)).kind is Kind.LOOK
        await end(store, "b")
        while (await heard(b)).kind is not Kind.DONE:
            pass


async def test_it_ends_at_once_whatever_it_is_doing(store: AsyncRedisStore) -> None:
    """Cancelled at any moment, also while its connection is being made, and while one goes."""
    for pauses in range(100):
        live = Live(store.redis, store.ledger)
        live.start()
        async with live.watch("a"):
            for _ in range(pauses):
                await asyncio.sleep(0)
        async with asyncio.timeout(30):
            await live.close()


async def test_when_the_process_is_about_to_end_all_are_told_and_who_comes_later(
    live: Live,
) -> None:
    async with live.watch("a") as watch:
        await heard(watch)
        live.leave()
        assert (await heard(watch)).kind is Kind.LEAVING
        async with live.watch("b") as late:
            assert (await heard(late)).kind is Kind.LEAVING


async def test_three_hundred_watches_at_once_each_hear_their_own(
    live: Live, store: AsyncRedisStore
) -> None:
    async def follow(job_id: str) -> str:
        async with live.watch(job_id) as watch:
            while (one := await heard(watch)).kind is not Kind.DONE:
                if one.kind is Kind.LOOK:
                    watching.add(job_id)
        return one.text

    watching: set[str] = set()
    ids = [f"job-{number}" for number in range(300)]
    following = [asyncio.create_task(follow(job_id)) for job_id in ids]

    async def all_of_them() -> bool:
        return len(watching) == len(ids)

    await until(all_of_them)
    for job_id in ids:
        await end(store, job_id)

    for job_id, text in zip(ids, await asyncio.gather(*following), strict=True):
        assert f'"job_id":"{job_id}"' in text
