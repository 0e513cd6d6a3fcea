"""Queues of SQS, listened to: moto's server, a real Redis, a listener here or in a process."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from botocore.exceptions import ClientError
from typer.testing import CliRunner

from producer.async_client import AsyncClient
from producer.cli import app
from producer.embedded import RedisServer
from producer.event_intake import Intake
from producer.event_memory import EventMemory
from producer.event_rules import Rules
from producer.listen.patience import PatientIntake
from producer.listen.sqs import SqsListener
from producer.listen.sqs_queue import NoQueue, QueueRefused, QueueUnavailable, SqsQueue
from producer.settings import ProducerSettings
from tests.event_shapes import SHAPES, TEST_EVENT, Happened, aws, records, uri
from tests.s3_events_flood import FAULTS, flooded
from tests.sqs_server import CREDENTIALS, MotoServer
from tests.stand_in_worker import messages
from worker.deadletter import DeadLetters

BULK = "captionq.caption.bulk"


@pytest.fixture(scope="module")
def moto() -> Iterator[MotoServer]:
    with MotoServer() as server:
        yield server


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)


@asynccontextmanager
async def listening(
    url: str, endpoint_url: str, name: str, *, submit_timeout_s: float = 5, **options: Any
) -> AsyncIterator[tuple[SqsListener, asyncio.Event]]:
    queue = SqsQueue(f"sqs://{name}", endpoint_url)
    await queue.open()
    stop = asyncio.Event()
    settings = ProducerSettings(broker_url=url, submit_timeout_s=submit_timeout_s)
    async with AsyncClient(settings=settings) as client:
        store = await client.open()
        memory = EventMemory(store.redis)
        intake = PatientIntake(Intake(Rules.of(), memory, client.submit_many), stop)
        yield (
            SqsListener(
                queue, intake, memory, stop, **({"once": True, "long_poll_s": 1} | options)
            ),
            stop,
        )
    queue.close()


def jobs(url: str) -> list[str]:
    with redis.Redis.from_url(url) as client:
        return [one["kwargs"]["job"]["image"] for one in messages(client, BULK)]


@pytest.mark.usefixtures("credentials")
async def test_given_events_of_every_source_then_each_object_is_one_job(
    moto: MotoServer, redis_server: RedisServer
) -> None:
    queue = moto.queue("every-source")
    each = [Happened(key=f"in/{n} +ü.jpg", version="v1") for n in range(len(SHAPES))]
    told = [shape(one) for shape, one in zip(SHAPES.values(), each, strict=True)]
    queue.send(*told, json.dumps(TEST_EVENT), *told, records(*(aws(one) for one in each)))

    async with listening(redis_server.url, moto.url, "every-source", pollers=1) as (listener, _):
        await listener.run()

    assert sorted(jobs(redis_server.url)) == sorted(uri(one) for one in each)
    assert queue.counts() == (0, 0)
    done = listener.tally.taken.document()
    assert (done["submitted"], done["repeated"]) == (len(each), len(each) * 2)
    assert listener.tally.messages == {"deleted": len(told) * 2 + 2}


@pytest.mark.usefixtures("credentials")
async def test_given_a_bucket_that_notifies_a_queue_then_uploads_are_jobs(
    moto: MotoServer, redis_server: RedisServer
) -> None:
    queue, s3 = moto.queue("notified"), moto.client("s3")
    s3.create_bucket(Bucket="notifying")
    wanted = {"QueueArn": queue.arn, "Events": ["s3:ObjectCreated:*", "s3:ObjectRemoved:*"]}
    s3.put_bucket_notification_configuration(
        Bucket="notifying", NotificationConfiguration={"QueueConfigurations": [wanted]}
    )
    keys = ["in/a b+c.jpg", "%41.jpg", "ü/猫.png", "e?f#g&h=i.png"]
    for key in keys:
        s3.put_object(Bucket="notifying", Key=key, Body=b"an image")
    s3.delete_object(Bucket="notifying", Key=keys[0])

    async with listening(redis_server.url, moto.url, "notified") as (listener, _):
        await listener.run()

    assert sorted(jobs(redis_server.url)) == sorted(uri(Happened("notifying", key)) for key in keys)
    assert listener.tally.taken.document()["removed"] == 1
    assert queue.counts() == (0, 0)


@pytest.mark.usefixtures("credentials")
async def test_given_messages_that_cannot_be_read_then_the_queue_redrives_them_and_others_go_on(
    moto: MotoServer, redis_server: RedisServer
) -> None:
    dead = moto.queue("redriven")
    policy = {"deadLetterTargetArn": dead.arn, "maxReceiveCount": 2}
    queue = moto.queue("poisoned", RedrivePolicy=json.dumps(policy))
    queue.send("junk", SHAPES["aws"](Happened()), '{"no": "event"}')

    for _ in range(3):
        async with listening(redis_server.url, moto.url, "poisoned", visibility_s=1) as (
            listener,
            _stop,
        ):
            await listener.run()

    assert sorted(dead.bodies()) == ["junk", '{"no": "event"}']
    assert queue.counts() == (0, 0)
    assert len(jobs(redis_server.url)) == 1


@pytest.mark.usefixtures("credentials")
async def test_given_the_option_then_messages_that_cannot_be_read_become_dead_letters_here(
    moto: MotoServer, redis_server: RedisServer
) -> None:
    queue = moto.queue("buried")
    queue.send("junk")

    options = {"visibility_s": 1, "dead_after": 2}
    async with listening(redis_server.url, moto.url, "buried", **options) as (listener, _):
        while queue.counts() != (0, 0):
            await listener.run()

    assert listener.tally.messages == {"unreadable": 2, "buried": 1, "deleted": 0}
    assert queue.counts() == (0, 0)
    letters = DeadLetters(redis_server.url)
    (letter,) = letters.find()
    assert (letter.raw, letter.queue) == ("junk", queue.url)
    letters.close()


@pytest.mark.usefixtures("credentials")
async def test_given_a_broker_that_is_away_then_messages_are_held_until_it_is_back(
    moto: MotoServer, tmp_path: Path
) -> None:
    queue = moto.queue("held")
    with RedisServer(tmp_path / "redis") as broker:
        options = {"visibility_s": 2, "once": False, "long_poll_s": 1, "submit_timeout_s": 2}
        async with listening(broker.url, moto.url, "held", **options) as (listener, stop):
            running = asyncio.create_task(listener.run())
            queue.send(SHAPES["aws"](Happened(key="before.jpg")))
            await until(lambda: listener.tally.messages["deleted"] == 1)

            await asyncio.to_thread(broker.stop)
            queue.send(*(SHAPES["aws"](Happened(key=f"{n}.jpg")) for n in range(3)))
            await until(lambda: queue.counts() == (0, 3))
            await asyncio.sleep(3)  # longer than they are kept from others without being held
            assert queue.counts() == (0, 3)

            await asyncio.to_thread(broker.start)
            await until(lambda: queue.counts() == (0, 0))
            stop.set()
            await running
        assert sorted(jobs(broker.url)) == [
            f"s3://photos/{name}.jpg" for name in ("0", "1", "2", "before")
        ]


@pytest.mark.usefixtures("credentials")
async def test_given_an_end_while_the_broker_is_away_then_messages_go_back_to_the_queue(
    moto: MotoServer, tmp_path: Path
) -> None:
    queue = moto.queue("given-back")
    with RedisServer(tmp_path / "redis") as broker:
        options = {"visibility_s": 60, "once": False, "long_poll_s": 1, "submit_timeout_s": 2}
        async with listening(broker.url, moto.url, "given-back", **options) as (listener, stop):
            running = asyncio.create_task(listener.run())
            queue.send(SHAPES["aws"](Happened(key="before.jpg")))
            await until(lambda: listener.tally.messages["deleted"] == 1)
            await asyncio.to_thread(broker.stop)
            queue.send(SHAPES["aws"](Happened()))
            await until(lambda: queue.counts() == (0, 1))

            stop.set()
            await running

        assert queue.counts() == (1, 0)


@pytest.mark.usefixtures("credentials")
async def test_given_messages_that_were_not_deleted_then_none_counts_as_deleted_and_they_come_again(
    moto: MotoServer, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = moto.queue("undeleted")
    queue.send(SHAPES["aws"](Happened()))

    async def refuse(*_: Any) -> None:
        raise QueueUnavailable("throttled")

    options = {"visibility_s": 2}
    async with listening(redis_server.url, moto.url, "undeleted", **options) as (listener, _):
        with monkeypatch.context() as patch:
            patch.setattr(listener._queue, "delete", refuse)
            await listener.run()
        assert listener.tally.messages["deleted"] == 0
        await until(lambda: queue.counts() == (1, 0))
        await listener.run()

    assert (queue.counts(), listener.tally.messages["deleted"]) == ((0, 0), 1)
    assert len(jobs(redis_server.url)) == 1


def test_given_a_broker_that_is_not_there_at_the_start_then_no_message_is_received(
    moto: MotoServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = moto.queue("no-broker")
    queue.send(SHAPES["aws"](Happened()))
    settings = {
        "CAPTIONQ_BROKER_URL": "redis://127.0.0.1:1/0",
        "CAPTIONQ_SQS_ENDPOINT_URL": moto.url,
    }
    for name, value in {**CREDENTIALS, **settings}.items():
        monkeypatch.setenv(name, value)

    done = CliRunner().invoke(app, ["listen", "sqs://no-broker", "--once"])

    assert done.exit_code == 3
    assert "cannot be reached" in done.stderr
    assert queue.counts() == (1, 0)  # each receipt would count towards its redrive policy


@pytest.mark.usefixtures("credentials")
async def test_given_no_such_queue_then_that_is_said(moto: MotoServer) -> None:
    with pytest.raises(NoQueue, match="missing"):
        await SqsQueue("sqs://missing", moto.url).open()


@pytest.mark.usefixtures("credentials")
async def test_given_the_url_of_no_queue_then_that_is_said(
    moto: MotoServer, redis_server: RedisServer
) -> None:
    moto.queue("url")
    async with listening(redis_server.url, moto.url, "url") as (listener, _):
        listener._queue.url = f"{moto.url}/1/missing"
        with pytest.raises(NoQueue, match="missing cannot be listened to"):
            await listener.run()


@pytest.mark.usefixtures("credentials")
async def test_given_a_queue_that_goes_then_it_is_tried_until_it_is_back(
    moto: MotoServer, redis_server: RedisServer
) -> None:
    queue = moto.queue("tried")
    async with listening(redis_server.url, moto.url, "tried") as (listener, _):
        await listener.run()
        queue.send(SHAPES["aws"](Happened()))
        url, listener._queue.url = listener._queue.url, f"{moto.url}/1/missing"
        running = asyncio.create_task(listener.run())
        await asyncio.sleep(0.5)
        assert not running.done()
        listener._queue.url = url
        await running

    assert listener.tally.messages == {"deleted": 1}


@pytest.mark.parametrize(
    ("status", "code", "refused"),
    [
        (400, "AWS.SimpleQueueService.NonExistentQueue", True),
        (403, "ExpiredToken", True),
        (403, "RequestThrottled", False),
        (400, "ThrottlingException", False),
        (429, "TooManyRequestsException", False),
        (503, "ServiceUnavailable", False),
    ],
)
async def test_refusals_are_told_from_outages(
    moto: MotoServer, credentials: None, status: int, code: str, *, refused: bool
) -> None:
    moto.queue("answers")
    queue = SqsQueue("sqs://answers", moto.url)
    await queue.open()

    def fail(**_: Any) -> None:
        answer = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
        raise ClientError(answer, "ReceiveMessage")  # type: ignore[arg-type]

    queue._sqs.receive_message = fail
    with pytest.raises(QueueUnavailable) as said:
        await queue.receive(1, 1)
    assert isinstance(said.value, QueueRefused) is refused
    queue.close()


async def until(done: Callable[[], bool], timeout_s: float = 15) -> None:
    async with asyncio.timeout(timeout_s):
        while not await asyncio.to_thread(done):
            await asyncio.sleep(0.05)


def test_given_the_command_then_it_listens_until_sigterm_and_says_what_it_did(
    moto: MotoServer, redis_server: RedisServer
) -> None:
    queue = moto.queue("commanded")
    queue.send(SHAPES["aws"](Happened()), SHAPES["aws"](Happened(key="out/cat.jpg")))
    environment = {
        "CAPTIONQ_BROKER_URL": redis_server.url,
        "CAPTIONQ_SQS_ENDPOINT_URL": moto.url,
        **CREDENTIALS,
    }
    words = ["listen", "sqs://commanded", "--prefix", "in/", "--language", "de", "--json"]
    process = subprocess.Popen(
        [sys.executable, "-m", "producer.cli", *words, "--long-poll", "1"],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    asyncio.run(until(lambda: queue.counts() == (0, 0), 30))
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=20)

    assert process.returncode == 0, err
    done = json.loads(out)
    assert (done["events"]["submitted"], done["events"]["not_wanted"]) == (1, 1)
    assert done["messages"] == {"deleted": 2, "unreadable": 0, "buried": 0}
    assert "Listening to" in err
    assert "Ended: 2 events" in err
    with redis.Redis.from_url(redis_server.url) as client:
        (message,) = messages(client, BULK)
    assert message["kwargs"]["job"]["language"] == "de"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["sqs://missing"], "missing"),
        (["sqs://"], "names no queue"),
        (["./no-such-folder"], "neither sqs://QUEUE"),
        (["sqs://missing", "--rules", "none.toml"], "none.toml cannot be read"),
        (["sqs://missing", "--rules", "x.toml", "--prefix", "a/"], "leave out the options"),
        (["sqs://missing", "--callback", "ftp://x"], "callback"),
    ],
)
def test_given_what_cannot_be_listened_to_then_one_sentence_says_why(
    words: list[str], said: str, moto: MotoServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {**CREDENTIALS, "CAPTIONQ_SQS_ENDPOINT_URL": moto.url}.items():
        monkeypatch.setenv(name, value)
    done = CliRunner().invoke(app, ["listen", *words])

    assert done.exit_code == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("missing", "source", "said"),
    [("boto3", "sqs://uploads", "needs boto3"), ("watchfiles", ".", "needs watchfiles")],
)
def test_given_an_install_without_the_extra_then_it_is_said_which_one_is_needed(
    missing: str,
    source: str,
    said: str,
    redis_server: RedisServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    monkeypatch.setenv("CAPTIONQ_BROKER_URL", redis_server.url)
    monkeypatch.chdir(tmp_path)

    done = CliRunner().invoke(app, ["listen", source])

    assert done.exit_code == 2
    assert said in done.stderr
    assert "captionq[listen]" in done.stderr


def test_given_a_flood_and_a_listener_that_is_killed_then_each_version_is_captioned_once(
    tmp_path: Path,
) -> None:
    found = flooded(tmp_path, events=200, duplicates=0.2, kills=2, seed=2)

    assert [found[fault] for fault in FAULTS] == [0] * len(FAULTS)
    assert (found["kills"], found["redriven"], found["status"]) == (2, 5, 0)
    assert found["results"] >= found["versions"] == 170
