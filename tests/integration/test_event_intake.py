"""Events in, jobs out: each once, none lost, whatever fails between."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio

from producer.async_client import AsyncClient
from producer.contract import ImageJob, JobState
from producer.embedded import RedisServer
from producer.errors import BrokerUnavailable
from producer.event_intake import Fate, Intake, Prepare, Taken
from producer.event_memory import EventMemory
from producer.event_rules import Event, Rule, Rules
from producer.index.removal import remover
from producer.index.table import VectorIndex
from producer.object_event import ObjectEvent
from producer.settings import ProducerSettings
from tests.index_entries import entry
from tests.stand_in_worker import messages, succeeded
from worker.deadletter import DeadLetters


class House:
    """An intake whose broker, or index, can be made to fail; `sent` are the jobs it was given."""

    def __init__(self, url: str, rules: Rules, **parts: Any) -> None:
        self.url = url
        self._redis = redis.asyncio.Redis.from_url(url, decode_responses=True)
        self.memory = EventMemory(self._redis)
        self.sent: list[ImageJob] = []
        self.away: Exception | None = None
        self.removed: list[str] = []
        self.intake = Intake(rules, self.memory, self._submit, **({"remove": self._out} | parts))

    async def _submit(self, jobs: Sequence[ImageJob]) -> None:
        if self.away is not None:
            raise self.away
        self.sent += jobs

    def _out(self, refs: Sequence[str]) -> None:
        if self.away is not None:
            raise self.away
        self.removed += refs

    async def close(self) -> None:
        await self._redis.aclose()

    async def take(self, *events: Event) -> dict[str, int]:
        taken = await self.intake.take(events)
        return {fate.value: n for fate, n in taken.events.items() if n} | {"jobs": taken.jobs}


@pytest.fixture
async def house(redis_server: RedisServer) -> AsyncIterator[House]:
    opened = House(redis_server.url, Rules.of([Rule(prefix="in/")]))
    yield opened
    await opened.close()


def came(name: str = "cat.jpg", sequencer: str = "1", **fields: Any) -> ObjectEvent:
    return ObjectEvent("aws", "created", "photos", f"in/{name}", sequencer=sequencer, **fields)


def went(name: str = "cat.jpg", sequencer: str = "2", **fields: Any) -> ObjectEvent:
    return ObjectEvent("aws", "removed", "photos", f"in/{name}", sequencer=sequencer, **fields)


async def test_given_events_then_those_that_are_wanted_and_new_are_submitted(house: House) -> None:
    other = ObjectEvent("aws", "created", "photos", "out/cat.jpg")

    assert await house.take(came(), other, came("dog.jpg")) == {
        "submitted": 2,
        "not_wanted": 1,
        "jobs": 2,
    }
    assert await house.take(came(), came(sequencer="0")) == {"repeated": 1, "stale": 1, "jobs": 0}
    assert [job.image for job in house.sent] == ["s3://photos/in/cat.jpg", "s3://photos/in/dog.jpg"]


async def test_given_a_broker_that_is_away_then_the_events_are_taken_anew_by_the_same_ids(
    house: House,
) -> None:
    house.away = BrokerUnavailable("away")
    with pytest.raises(BrokerUnavailable):
        await house.take(came(), came("dog.jpg"))
    assert house.sent == []

    house.away = None
    assert await house.take(came("dog.jpg"), came()) == {"submitted": 2, "jobs": 2}
    assert await house.take(came("dog.jpg"), came()) == {"repeated": 2, "jobs": 0}
    assert len({job.job_id for job in house.sent}) == 2


async def test_given_an_object_that_went_then_it_leaves_the_index(house: House) -> None:
    outside = ObjectEvent("aws", "removed", "photos", "out/cat.jpg", sequencer="2")

    assert await house.take(came(), went(), outside) == {
        "submitted": 1,
        "removed": 1,
        "not_wanted": 1,
        "jobs": 1,
    }
    assert await house.take(went()) == {"repeated": 1, "jobs": 0}
    assert house.removed == ["s3://photos/in/cat.jpg"]


async def test_given_a_removal_older_than_what_came_then_it_does_nothing(house: House) -> None:
    await house.take(came(sequencer="3"))

    assert await house.take(went(sequencer="2")) == {"stale": 1, "jobs": 0}
    assert house.removed == []


async def test_given_an_index_that_fails_then_the_removal_is_tried_anew(house: House) -> None:
    house.away = OSError("the index is away")
    with pytest.raises(OSError, match="away"):
        await house.take(went())

    house.away = None
    assert await house.take(went()) == {"removed": 1, "jobs": 0}
    assert house.removed == ["s3://photos/in/cat.jpg"]


async def test_given_removals_that_change_nothing_then_they_are_counted_alone(
    redis_server: RedisServer,
) -> None:
    house = House(redis_server.url, Rules.of(), remove=None)

    assert await house.take(went()) == {"removed": 1, "jobs": 0}
    assert await house.take(came(sequencer="1")) == {"stale": 1, "jobs": 0}
    await house.close()


async def test_given_a_key_that_no_job_can_name_then_the_others_go_on(house: House) -> None:
    unnamed = came("猫" * 340)

    assert await house.take(unnamed, came()) == {"submitted": 1, "no_reference": 1, "jobs": 1}
    assert await house.take(unnamed) == {"repeated": 1, "jobs": 0}


async def test_given_what_has_to_be_made_ready_then_only_what_is_new_is(
    redis_server: RedisServer,
) -> None:
    asked: list[str] = []

    async def prepare(events: Sequence[Event]) -> list[Event]:
        asked.extend(event.key for event in events)
        return [event for event in events if "gone" not in event.key]

    ready: Prepare = prepare
    house = House(redis_server.url, Rules.of(), prepare=ready)

    first = {"submitted": 1, "no_reference": 1, "jobs": 1}
    assert await house.take(came(), came("gone.jpg")) == first
    assert await house.take(came(), came("gone.jpg")) == {"repeated": 2, "jobs": 0}
    assert asked == ["in/cat.jpg", "in/gone.jpg"]
    await house.close()


async def test_given_a_real_broker_then_a_repeated_event_sends_no_second_message_nor_runs_again(
    redis_server: RedisServer,
) -> None:
    client = AsyncClient(redis_server.url)
    store = await client.open()
    forgetful = EventMemory(store.redis, ttl_s=0.001)  # all it knows is the jobs' records
    intake = Intake(Rules.of(), forgetful, client.submit_many)
    await intake.take([came()])
    (job,) = Rules.of().jobs(came())
    assert job.job_id is not None

    await intake.take([came()])
    with redis.Redis.from_url(redis_server.url) as broker:
        assert len(messages(broker, "captionq.caption.bulk")) == 1
        broker.delete("captionq.caption.bulk")
        await store.finish(succeeded(job))
        await intake.take([came()])
        assert messages(broker, "captionq.caption.bulk") == []
    record = await client.status(job.job_id)
    assert record is not None
    assert record.state is JobState.SUCCEEDED
    await client.close()


async def test_given_a_broker_apart_that_is_away_then_who_hears_the_same_meanwhile_loses_nothing(
    redis_server: RedisServer,
) -> None:
    settings = ProducerSettings(
        broker_url="redis://127.0.0.1:1/0", results_url=redis_server.url, submit_timeout_s=1
    )
    (job,) = Rules.of().jobs(came())
    async with AsyncClient(settings=settings) as one, AsyncClient(settings=settings) as two:
        memory = EventMemory((await two.open()).redis)
        trying = asyncio.create_task(Intake(Rules.of(), memory, one.submit_many).take([came()]))
        while await two.status(str(job.job_id)) is None:
            await asyncio.sleep(0.01)

        await Intake(Rules.of(), memory, two.submit_many).take([came()])  # finds the record
        with pytest.raises(BrokerUnavailable):
            await trying

        sent: list[ImageJob] = []

        async def submit(jobs: Sequence[ImageJob]) -> None:
            sent.extend(jobs)

        await Intake(Rules.of(), memory, submit).take([came()])
        assert [each.job_id for each in sent] == [job.job_id]


async def test_given_the_setting_then_what_goes_leaves_the_index_and_may_come_back(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    assert remover(ProducerSettings(index=str(tmp_path / "index"))) is None
    settings = ProducerSettings(index=str(tmp_path / "index"), events_remove=True)
    remove = remover(settings)
    assert remove is not None
    house = House(redis_server.url, Rules.of(), remove=remove)
    assert await house.take(went("none.jpg")) == {"removed": 1, "jobs": 0}  # no index yet

    from producer.index.place import Place

    index = VectorIndex(Place.of(None, settings))
    versions = [entry(n, image_ref=f"s3://photos/in/cat.jpg?versionId=v{n}") for n in (1, 2, 3)]
    index.upsert([*versions, entry(9)])

    await house.take(went(version="v1", sequencer="5"))
    assert VectorIndex(index.place).stats().rows == 3
    await house.take(went(sequencer="6"))  # a delete marker
    assert VectorIndex(index.place).stats().rows == 1
    index.upsert(versions[:1])
    assert VectorIndex(index.place).stats().rows == 2
    await house.close()


async def test_given_a_message_that_is_buried_then_operators_find_it(house: House) -> None:
    await house.memory.bury("junk \ud800" + "x" * 100_000, "sqs://uploads", "No event: not JSON")

    with redis.Redis.from_url(house.url) as client:
        assert client.pttl("captionq:dead") > 0
    letters = DeadLetters(house.url)
    (letter,) = letters.find()
    assert (letter.code, letter.queue) == ("job_invalid", "sqs://uploads")
    assert letter.reason == "No event: not JSON"
    assert letter.raw is not None
    assert letter.raw.startswith("junk \\ud800xxx")
    letters.close()


def test_what_was_taken_is_told_in_words_and_to_programs() -> None:
    total = Taken()
    for _ in range(2):
        one = Taken()
        one.events[Fate.SUBMITTED] += 1_000
        one.events[Fate.NO_REFERENCE] += 1
        one.events[Fate.STALE] += 0
        one.jobs = 1_500
        total.add(one)

    assert total.words() == "2,002 events (2,000 submitted, 2 no reference), 3,000 jobs"
    assert total.document()["submitted"] == 2_000
    assert total.document()["repeated"] == 0
    assert Taken().words() == "0 events (none), 0 jobs"


async def test_given_the_same_event_twice_at_once_then_it_is_one_job(house: House) -> None:
    assert await house.take(came(), came(), came("dog.jpg")) == {
        "submitted": 2,
        "repeated": 1,
        "jobs": 2,
    }
    assert len(house.sent) == 2
