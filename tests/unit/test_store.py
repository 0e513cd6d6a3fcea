"""The results store: one suite for the one in memory, the one in Redis and its asyncio twin."""

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import pytest
import redis

from producer.async_redis_store import AsyncRedisStore
from producer.contract import (
    CaptionChunk,
    CaptionJob,
    ErrorCode,
    ItemResult,
    JobError,
    JobFailed,
    JobResult,
    JobState,
)
from producer.embedded import RedisServer
from producer.errors import StoreFull, StoreUnavailable
from producer.ledger import Ledger
from producer.memory_store import MemoryStore
from producer.redis_store import RedisStore
from producer.store import MAX_HISTORY, Delivered, Record, Settled, Store
from producer.waiting import RECHECK_S, Waiting
from producer.wire import WireJob
from tests.stores import SUBMITTED, MakeStore, ended, job


def letters_of(store: Any, request: pytest.FixtureRequest) -> list[dict[str, str]]:
    """The dead letters of a store, oldest first."""
    if isinstance(store, MemoryStore):
        return store.letters
    url = request.getfixturevalue("redis_server").url
    with redis.Redis.from_url(url, decode_responses=True) as client:
        return [fields for _, fields in client.xrange("captionq:dead")]


def test_a_new_job_is_recorded_as_queued_with_all_it_says(store: Store) -> None:
    assert store.create(job()) is None

    assert store.get("a") == Record(
        job_id="a",
        task="caption",
        state=JobState.QUEUED,
        job=job().model_dump_json(),
        created_at=SUBMITTED,
    )


def test_a_job_never_seen_is_unknown(store: Store) -> None:
    assert store.get("never") is None


def test_a_known_id_is_not_written_again(store: Store) -> None:
    store.create(job())

    known = store.create(job(image="https://example.com/dog.jpg"))

    assert known == store.get("a")
    assert known is not None
    assert known.job == job().model_dump_json()


def test_the_same_submission_repeated_after_a_lost_answer_counts_as_new(store: Store) -> None:
    store.create(job())

    assert store.create(job()) is None


def test_a_job_without_an_id_cannot_be_recorded(store: Store) -> None:
    with pytest.raises(ValueError, match="needs an id"):
        store.create(CaptionJob(image="https://example.com/cat.jpg"))


def test_many_are_recorded_in_order_and_known_ones_told(store: Store) -> None:
    store.create(job("b", image="https://example.com/dog.jpg"))

    known = store.create_many([job("a"), job("b"), job("c")])

    assert known == [None, store.get("b"), None]
    assert store.create_many([]) == []


def test_a_job_that_starts_is_running_and_names_its_worker(store: Store) -> None:
    store.create(job())

    record = store.start("a", "caption", 1, "worker@host")

    assert record == store.get("a")
    assert (record.state, record.worker, record.attempt) == (JobState.RUNNING, "worker@host", 1)
    assert record.started_at is not None
    assert record.job == job().model_dump_json()
    assert record.created_at == SUBMITTED


def test_a_job_of_a_plain_celery_client_is_recorded_when_it_starts(store: Store) -> None:
    record = store.start("foreign", "match", 1, "worker@host")

    assert (record.state, record.task, record.job) == (JobState.RUNNING, "match", None)
    assert record == store.get("foreign")


def test_a_retry_starts_a_running_job_again(store: Store) -> None:
    store.start("a", "caption", 1, "one@host")

    record = store.start("a", "caption", 2, "two@host")

    assert (record.state, record.worker, record.attempt) == (JobState.RUNNING, "two@host", 2)


def test_every_delivery_is_counted_by_attempt_and_named(store: Store) -> None:
    store.start("a", "caption", 1, "one@host")
    store.start("a", "caption", 1, "two@host")

    record = store.start("a", "caption", 2, "one@host")

    assert [record.deliveries(attempt) for attempt in (1, 2, 3)] == [2, 1, 0]
    assert [(one.worker, one.attempt) for one in record.history] == [
        ("one@host", 1),
        ("two@host", 1),
        ("one@host", 2),
    ]


def test_a_start_repeated_after_a_lost_answer_counts_once(store: Store) -> None:
    for _ in range(3):
        record = store.start("a", "caption", 1, "one@host", SUBMITTED)

    assert record.deliveries(1) == 1
    assert record.history[0].at == SUBMITTED


def test_a_delivery_that_is_held_back_changes_nothing(store: Store) -> None:
    first = store.start("a", "caption", 1, "one@host", SUBMITTED, only_first=True)
    assert (first.deliveries(1), first.started_at) == (1, SUBMITTED)

    assert store.start("a", "caption", 1, "two@host", only_first=True) == first == store.get("a")
    assert store.start("a", "caption", 1, "one@host", SUBMITTED, only_first=True) == first
    assert store.start("a", "caption", 1, "two@host").deliveries(1) == 2
    assert store.start("a", "caption", 1, "three@host", only_first=True).deliveries(1) == 2
    assert store.start("a", "caption", 2, "three@host", only_first=True).deliveries(2) == 1


def test_a_start_of_an_earlier_attempt_changes_nothing(store: Store) -> None:
    later = store.start("a", "caption", 2, "two@host")

    assert store.start("a", "caption", 1, "one@host") == later == store.get("a")


def test_a_history_is_bounded(store: Store) -> None:
    for n in range(MAX_HISTORY + 5):
        record = store.start("a", "caption", 1, f"{n}@host")

    assert [one.worker for one in record.history] == [
        f"{n}@host" for n in range(5, MAX_HISTORY + 5)
    ]


def test_a_delivery_that_is_returned_does_not_count(store: Store) -> None:
    store.start("a", "caption", 1, "one@host")
    store.start("a", "caption", 1, "two@host")

    store.return_delivery("a", 1)
    store.return_delivery("a", 2)
    store.return_delivery("never", 1)

    record = store.get("a")
    assert record is not None
    assert [one.worker for one in record.history] == ["one@host"]
    assert record.state is JobState.QUEUED
    store.return_delivery("a", 1)
    assert store.get("a").history == ()  # type: ignore[union-attr]
    assert store.get("never") is None
    assert store.start("a", "caption", 1, "three@host").deliveries(1) == 1


def test_a_job_that_has_ended_keeps_its_history(store: Store) -> None:
    store.start("a", "caption", 1, "one@host")
    store.finish(ended())

    store.return_delivery("a", 1)

    record = store.get("a")
    assert record is not None
    assert (record.state, record.deliveries(1)) == (JobState.SUCCEEDED, 1)


def test_a_dead_letter_is_written_with_the_first_end_and_with_no_other(
    store: Store, request: pytest.FixtureRequest
) -> None:
    store.start("a", "caption", 1, "one@host", SUBMITTED)

    for n in range(3):
        store.finish(ended(state=JobState.FAILED), {"job_id": "a", "code": "http_5xx", "n": str(n)})

    (letter,) = letters_of(store, request)
    (delivered,) = json.loads(letter.pop("deliveries"))
    assert letter == {"job_id": "a", "code": "http_5xx", "n": "0"}
    assert Delivered.model_validate_json(json.dumps(delivered)) == Delivered(
        at=SUBMITTED, worker="one@host", attempt=1
    )


def test_open_jobs_are_in_the_index_of_their_queue_until_they_end(
    redis_server: RedisServer,
) -> None:
    store = RedisStore(redis_server.url)
    large = CaptionJob(job_id="large", image="https://example.com/cat.jpg", model="org/large")
    with redis.Redis.from_url(redis_server.url, decode_responses=True) as client:

        def indexed(queue: str = "captionq.caption") -> dict[str, float]:
            return dict(client.zrange(f"captionq:open:{queue}", 0, -1, withscores=True))

        store.create_many([job("a"), job("b"), job("c"), large])
        assert list(indexed("captionq.caption.org-large")) == ["captionq:job:large"]
        assert set(indexed()) == {f"captionq:job:{name}" for name in "abc"}
        assert client.smembers("captionq:open") == {
            "captionq.caption",
            "captionq.caption.org-large",
        }
        later = CaptionJob(job_id="later", image="https://example.com/cat.jpg", lane="bulk")
        store.create(later)
        assert list(indexed("captionq.caption.bulk")) == ["captionq:job:later"]
        store.finish(ended("later"))
        assert indexed("captionq.caption.bulk") == {}
        created = indexed()["captionq:job:a"]
        assert float(client.hget("captionq:job:a", "opened_ms") or 0) == created
        time.sleep(0.01)
        store.start("a", "caption", 1, "worker@host")
        store.start("foreign", "caption", 1, "worker@host")
        assert indexed()["captionq:job:a"] > created
        store.finish(ended("a"))
        store.finish(ended("foreign"))
        store.forget(job("b"))
        assert set(indexed()) == {"captionq:job:c"}


def test_given_records_of_several_lives_then_the_index_lives_as_long_as_the_longest(
    redis_server: RedisServer,
) -> None:
    with redis.Redis.from_url(redis_server.url, decode_responses=True) as client:
        for name, life_s in {"a": 100, "b": 5, "c": 200}.items():
            RedisStore(redis_server.url, queued_ttl_s=life_s).create(job(name))
            longest_s = {"a": 100, "b": 100, "c": 200}[name]
            for key in ("captionq:open", "captionq:open:captionq.caption"):
                assert longest_s - 5 < client.ttl(key) <= longest_s  # type: ignore[operator]


def test_a_job_that_has_ended_does_not_start(store: Store) -> None:
    store.create(job())
    store.finish(ended(state=JobState.CANCELLED))

    record = store.start("a", "caption", 1, "worker@host")

    assert record.state is JobState.CANCELLED
    assert record.result == ended(state=JobState.CANCELLED)
    assert record.worker is None
    assert record == store.get("a")


def test_a_job_that_ends_keeps_its_result(store: Store) -> None:
    store.create(job())
    result = ended(state=JobState.FAILED, attempts=3).model_copy(
        update={"error": JobError.of(JobFailed(ErrorCode.IMAGE_CORRUPT))}
    )

    assert store.finish(result) == result

    record = store.get("a")
    assert record is not None
    assert (record.state, record.result, record.attempt) == (JobState.FAILED, result, 3)
    assert record.job == job().model_dump_json()


def test_the_first_end_is_kept(store: Store) -> None:
    store.finish(ended(state=JobState.CANCELLED))

    assert store.finish(ended(state=JobState.SUCCEEDED)) == ended(state=JobState.CANCELLED)
    record = store.get("a")
    assert record is not None
    assert record.state is JobState.CANCELLED


def test_of_many_that_end_a_job_at_once_all_see_the_same_end(store: Store) -> None:
    results = [ended(attempts=n) for n in range(16)]

    with ThreadPoolExecutor(16) as threads:
        kept = list(threads.map(store.finish, results))

    assert len({result.attempts for result in kept}) == 1


def test_a_state_that_is_not_the_last_cannot_be_an_end(store: Store) -> None:
    with pytest.raises(ValueError, match="not a terminal"):
        store.finish(ended(state=JobState.RUNNING))


def test_an_unsent_job_is_forgotten(store: Store) -> None:
    store.create_many([job("a"), job("b")])

    store.forget(job("a"), job("b"), job("never"))

    assert store.get("a") is None
    assert store.get("b") is None


def test_a_job_of_another_submission_is_not_forgotten(store: Store) -> None:
    store.create(job())

    store.forget(job(image="https://example.com/dog.jpg"))

    assert store.get("a") is not None


def test_a_job_that_was_sent_after_all_is_not_forgotten(store: Store) -> None:
    store.create(job())
    store.start("a", "caption", 1, "worker@host")

    store.forget(job())

    assert store.get("a") is not None


def test_an_ended_job_lives_as_long_as_results_do(make_store: MakeStore) -> None:
    store = make_store(result_ttl_s=0.15, queued_ttl_s=60)
    store.create_many([job("a"), job("b")])
    store.start("a", "caption", 1, "worker@host")
    store.finish(ended("a"))
    assert store.get("a") is not None

    time.sleep(0.2)

    assert store.get("a") is None
    assert store.get("b") is not None


def test_an_unfinished_job_lives_on_when_it_starts(make_store: MakeStore) -> None:
    store = make_store(queued_ttl_s=1.0)
    store.create_many([job("a"), job("b")])
    time.sleep(0.6)
    store.start("a", "caption", 1, "worker@host")

    time.sleep(0.5)

    assert store.get("a") is not None
    assert store.get("b") is None


def test_waiting_yields_what_has_ended_already(store: Store) -> None:
    store.finish(ended("a"))
    store.finish(ended("b"))

    waited = store.wait(["a", "b", "a"], timeout_s=10)

    assert {result.job_id for result in waited} == {"a", "b"}


def test_waiting_for_nothing_ends_at_once(store: Store) -> None:
    assert list(store.wait([], timeout_s=10)) == []


def test_waiting_yields_each_result_when_it_comes(make_store: MakeStore) -> None:
    store, other = make_store(), make_store()
    if isinstance(store, MemoryStore):
        other = store
    store.create_many([job("a"), job("b")])
    began_s = time.monotonic()

    def work() -> None:
        for job_id in ("b", "a"):
            time.sleep(0.1)
            other.finish(ended(job_id))

    thread = threading.Thread(target=work)
    thread.start()
    waited = [result.job_id for result in store.wait(["a", "b"], timeout_s=30)]
    thread.join()

    assert waited == ["b", "a"]
    assert time.monotonic() - began_s < RECHECK_S  # heard, not found by looking again


def test_waiting_too_long_says_how_many_are_missing(store: Store) -> None:
    store.finish(ended("a"))
    waited = store.wait(["a", "b", "c"], timeout_s=0.1)

    assert next(waited).job_id == "a"
    with pytest.raises(TimeoutError, match=r"2 jobs have not ended within 0\.1 s"):
        next(waited)


def test_waiting_no_time_at_all_still_finds_what_has_ended(store: Store) -> None:
    store.finish(ended("a"))

    assert next(store.wait(["a"], timeout_s=0)).job_id == "a"
    with pytest.raises(TimeoutError, match="1 job has"):
        next(store.wait(["b"], timeout_s=0))


@pytest.fixture(params=["memory", "redis"])
def watched(request: pytest.FixtureRequest) -> Iterator[Store]:
    """A store whose jobs can be watched: the asynchronous one has no such call."""
    if request.param == "memory":
        yield MemoryStore()
    else:
        with closing(RedisStore(request.getfixturevalue("redis_server").url)) as store:
            yield store


def test_given_jobs_that_are_added_as_others_end_then_a_watch_has_each_result_once(
    watched: Store,
) -> None:
    store, watch = watched, watched.watch()
    store.finish(ended("early"))
    watch.add(["early", "late"])
    store.create(job("late"))
    heard: list[str] = []

    def listen(until: int) -> None:
        began_s = time.monotonic()
        while len(heard) < until:
            heard.extend(result.job_id for result in watch.next(1.0))
            assert time.monotonic() - began_s < RECHECK_S  # heard, not found by looking again

    listen(1)
    store.finish(ended("late"))
    watch.add(["later"])
    listen(2)
    store.finish(ended("later"))
    store.finish(ended("later"))
    listen(3)

    assert heard == ["early", "late", "later"]
    assert watch.next(0.05) == []
    watch.close()


def test_given_nothing_to_watch_then_there_is_nothing_to_wait_for(watched: Store) -> None:
    watch = watched.watch()
    began_s = time.monotonic()

    assert watch.next(5.0) == []
    assert time.monotonic() - began_s < 1


def test_given_results_of_many_pieces_then_a_wait_and_a_watch_hear_them_whole(
    redis_server: RedisServer,
) -> None:
    """Each is a megabyte: a part of it is there, and the rest is not yet."""
    count = 20
    large = [ended(str(n)).model_copy(update={"image_ref": "x" * 1_000_000}) for n in range(count)]
    with (
        closing(RedisStore(redis_server.url)) as store,
        closing(RedisStore(redis_server.url)) as other,
    ):
        watch = store.watch()
        watch.add(result.job_id for result in large)
        assert watch.next(0.05) == []

        def finish() -> None:
            for result in large:
                other.finish(result)

        worker = threading.Thread(target=finish)
        worker.start()
        heard: list[JobResult] = []
        while len(heard) < count:
            heard += watch.next(1.0)  # raises where a part is taken for a lost connection
        worker.join()
        watch.close()

    assert heard == large


def test_given_a_redis_restart_then_a_watch_tells_of_it_and_loses_no_result() -> None:
    with RedisServer() as server:
        store, worker = RedisStore(server.url), RedisStore(server.url)
        watch = store.watch()
        watch.add(["a", "b"])
        assert watch.next(0.1) == []
        worker.finish(ended("a"))
        server.kill()
        outages, heard = 0, []
        for _ in range(500):
            try:
                heard += watch.next(0.1)
            except StoreUnavailable:
                if outages == 0:
                    server.start()
                    worker.finish(ended("b"))
                outages += 1
            if len(heard) == 2:
                break
        store.close()
        worker.close()

    assert outages
    assert {result.job_id for result in heard} == {"a", "b"}


def test_a_wait_survives_a_redis_restart() -> None:
    with RedisServer() as server:
        store, worker = RedisStore(server.url), RedisStore(server.url)
        store.create_many([job("a"), job("b")])

        def restart_and_finish() -> None:
            time.sleep(0.2)
            worker.finish(ended("a"))
            server.kill()
            server.start()
            worker.finish(ended("b"))

        thread = threading.Thread(target=restart_and_finish)
        thread.start()
        waited = [result.job_id for result in store.wait(["a", "b"], timeout_s=30)]
        thread.join()
        store.close()
        worker.close()

    assert waited == ["a", "b"]


async def test_an_async_wait_survives_a_redis_restart() -> None:
    with RedisServer() as server:
        store = AsyncRedisStore(server.url)

        async def restart_and_finish() -> None:
            await asyncio.sleep(0.2)
            server.kill()
            server.start()
            await store.finish(ended("a"))

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(restart_and_finish())
            waited = [result.job_id async for result in store.wait(["a"], timeout_s=30)]
        await store.close()

    assert waited == ["a"]


def test_an_end_before_a_restart_is_there_after_it() -> None:
    with RedisServer() as server:
        store = RedisStore(server.url)
        store.finish(ended("a"))

        server.kill()
        server.start()

        assert store.finish(ended("a", JobState.FAILED)) == ended("a")
        store.close()


def test_a_store_out_of_reach_is_unavailable_at_once() -> None:
    store = RedisStore("redis://127.0.0.1:1/0")
    began_s = time.monotonic()

    for call in (
        lambda: store.get("a"),
        lambda: store.create(job()),
        lambda: store.finish(ended()),
        lambda: next(store.wait(["a"], timeout_s=60)),
    ):
        with pytest.raises(StoreUnavailable, match="cannot be reached"):
            call()

    assert time.monotonic() - began_s < 3
    store.close()


def test_a_full_store_says_so_and_still_reads_and_forgets(redis_server: RedisServer) -> None:
    store = RedisStore(redis_server.url)
    store.create(job())
    store.create(job("counted", batch_id="b"))
    with redis.Redis.from_url(redis_server.url) as client:
        client.config_set("maxmemory", 1)
        try:
            for call in (
                lambda: store.create(job("b")),
                lambda: store.create_many([job("b")]),
                lambda: store.start("a", "caption", 1, "worker@host"),
                lambda: store.finish(ended("a")),
            ):
                with pytest.raises(StoreFull):
                    call()
            assert store.get("a") is not None
            store.forget(job(), job("counted", batch_id="b"))
            assert store.get("a") is store.get("counted") is None
            assert store.batch("b").total == 0  # type: ignore[union-attr]
        finally:
            client.config_set("maxmemory", 0)
    store.close()


def item(index: int, code: ErrorCode | None = None, attempts: int = 1) -> ItemResult:
    return ItemResult(
        index=index,
        state=JobState.FAILED if code else JobState.SUCCEEDED,
        attempts=attempts,
        error=JobError.of(JobFailed(code)) if code else None,
    )


def test_given_images_that_settle_then_the_first_end_of_each_is_kept(store: Store) -> None:
    store.start("a", "caption_chunk", 1, "worker@host")
    assert store.settle("a") == Settled({})

    first = [item(0), item(2, ErrorCode.HTTP_4XX)]
    assert store.settle("a", first) == Settled({0: first[0], 2: first[1]})
    later = [item(1, attempts=2), item(2, attempts=2)]

    kept = Settled({0: first[0], 1: later[0], 2: first[1]})
    assert store.settle("a", later) == kept
    assert store.settle("a") == kept
    assert store.settle("b") == Settled({})


def test_given_a_job_without_a_record_then_none_of_its_images_is_kept(store: Store) -> None:
    assert store.settle("a", [item(0)]) == Settled({})
    assert store.get("a") is None


def test_given_a_chunk_that_has_ended_then_its_images_are_forgotten_and_its_result_is_told(
    store: Store,
) -> None:
    store.start("a", "caption_chunk", 1, "worker@host")
    store.settle("a", [item(0)])
    store.finish(ended())

    assert store.settle("a", [item(1)]) == Settled({}, ended())


def test_given_a_chunk_that_is_given_up_then_its_images_are_kept_for_its_replay(
    redis_server: RedisServer,
) -> None:
    store = RedisStore(redis_server.url, result_ttl_s=10)
    chunk = CaptionChunk(job_id="a", images=("https://example.com/cat.jpg",))
    store.create(chunk)
    store.settle("a", [item(0)])
    store.finish(ended(state=JobState.FAILED), {"job_id": "a"})
    reopen = Ledger(10, 100).reopen(WireJob.of(chunk), "1-1")
    with redis.Redis.from_url(redis_server.url) as client:
        assert 0 < client.ttl("captionq:items:a") <= 10
        assert reopen.read(client.register_script(reopen.script)(reopen.keys, reopen.args))
        assert client.ttl("captionq:items:a") > 10

        assert store.settle("a") == Settled({0: item(0)})
        client.delete("captionq:job:a")
        store.create(chunk)  # another submission under this id

    assert store.settle("a") == Settled({})
    store.close()


@pytest.mark.parametrize(
    ("attempts", "state", "taken"),
    [
        pytest.param(0, JobState.FAILED, False, id="nothing was known of it"),
        pytest.param(1, JobState.FAILED, True, id="it was tried"),
        pytest.param(0, JobState.CANCELLED, True, id="it was cancelled"),
    ],
)
def test_given_the_record_of_a_message_whose_job_was_gone_then_a_submission_takes_its_place(
    store: Store, attempts: int, state: JobState, taken: bool
) -> None:
    store.finish(ended(state=state, attempts=attempts))

    known = store.create(job())

    assert (known is not None) == taken
    record = store.get("a")
    assert record is not None
    assert record.state is (state if taken else JobState.QUEUED)


def test_every_key_in_redis_has_a_bounded_life(redis_server: RedisServer) -> None:
    store = RedisStore(redis_server.url, result_ttl_s=10, queued_ttl_s=100, prefix="mine:")
    store.create(job("queued"))
    store.start("running", "caption", 1, "worker@host")
    store.settle("running", [item(0)])
    store.start("done", "caption", 1, "worker@host")
    store.settle("done", [item(0)])
    store.finish(ended("done"))

    with redis.Redis.from_url(redis_server.url, decode_responses=True) as client:
        lives = {key: client.ttl(key) for key in client.scan_iter()}

    assert {key: life > 10 for key, life in lives.items()} == {
        "mine:job:queued": True,
        "mine:job:running": True,
        "mine:job:done": False,
        "mine:items:running": True,
        "mine:open": True,
        "mine:open:captionq.caption": True,
        "mine:jobs": True,
    }
    assert lives["mine:job:done"] > 0
    store.close()


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_a_wait_looks_up_what_was_confirmed_and_all_of_it_now_and_then() -> None:
    ledger, clock = Ledger(1, 1, "p:"), Clock()
    waiting = Waiting(ledger, ["a", "b"], 60, clock)
    assert waiting.channels() == ["p:done:a", "p:done:b"]
    assert waiting.due() == []

    waiting.hear({"type": "subscribe", "channel": "p:done:b", "data": 1})
    assert waiting.due() == ["b"]
    assert waiting.due() == []

    clock.now_s = RECHECK_S
    assert waiting.due() == ["a", "b"]
    assert waiting.due() == []


def test_a_result_heard_and_looked_up_counts_once() -> None:
    ledger = Ledger(1, 1, "p:")
    waiting = Waiting(ledger, ["a"], 60)

    waiting.hear({"type": "message", "channel": "p:done:a", "data": ended("a").model_dump_json()})
    waiting.found(ended("a"))

    assert waiting.arrived() == [ended("a")]
    assert waiting.arrived() == []
    assert not waiting


def test_a_lost_store_is_waited_out_once_it_was_reached() -> None:
    ledger, clock, lost = Ledger(1, 1, "p:"), Clock(), StoreUnavailable("gone")
    waiting = Waiting(ledger, ["a"], 60, clock)
    with pytest.raises(StoreUnavailable):
        waiting.interrupted(lost)

    waiting.hear({"type": "subscribe", "channel": "p:done:a", "data": 1})

    assert waiting.interrupted(lost) > 0
    clock.now_s = 60
    with pytest.raises(TimeoutError):
        waiting.interrupted(lost)
