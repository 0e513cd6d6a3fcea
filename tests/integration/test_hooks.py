"""The hook over HTTP: each source as it sends, each refusal as it is documented."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from producer.embedded import RedisServer
from producer.event_rules import BadRules
from producer.gateway.app import create_app
from producer.gateway.fetching import FetchFailed, fetch
from producer.gateway.keys import Scope, new_key, read, write
from producer.gateway.settings import GatewaySettings
from tests.event_shapes import SHAPES, TEST_EVENT, Happened, aws, records, uri
from tests.servers import Reply, ScriptedHttp
from tests.sns_messages import (
    CERTIFICATE,
    CONFIRM,
    TOPIC,
    certificate,
    confirmation,
    message,
    signed,
)
from tests.stand_in_worker import messages

CAT = Happened(key="in/a b+ü.jpg", version="v1")


class Door:
    """A gateway, and what stands on the other side of it."""

    def __init__(self, app: Any, http: httpx.AsyncClient, key: str, url: str) -> None:
        self.app = app
        self.http = http
        self.key = key
        self.redis = redis.Redis.from_url(url)
        self.fetched: list[str] = []
        self.away: Exception | None = None
        app.state.hearing.fetch = self._fetch

    async def _fetch(self, url: str) -> bytes:
        self.fetched.append(url)
        if self.away is not None:
            raise self.away
        return certificate() if url == CERTIFICATE else b"<ConfirmSubscriptionResponse/>"

    async def post(self, body: Any, key: str | None = "", **headers: str) -> httpx.Response:
        if key is not None:
            headers = {"Authorization": f"Bearer {key or self.key}", **headers}
        content = body if isinstance(body, str | bytes) else json.dumps(body)
        return await self.http.post("/hooks/s3", content=content, headers=headers)

    async def sns(self, said: dict[str, Any]) -> httpx.Response:
        """As SNS posts: text, a header that says the type, no key."""
        return await self.http.post(
            "/hooks/s3",
            content=json.dumps(said),
            headers={
                "Content-Type": "text/plain; charset=UTF-8",
                "x-amz-sns-message-type": said["Type"],
            },
        )

    @property
    def jobs(self) -> list[dict[str, Any]]:
        return [one["kwargs"]["job"] for one in messages(self.redis, "captionq.caption.bulk")]


def add(keys: Path, key_id: str, scope: Scope) -> str:
    """A key for one more sender."""
    key, entry = new_key(key_id, [scope], 1_000)
    write(keys, [*(read(keys).entries if keys.exists() else ()), entry])
    return key


@asynccontextmanager
async def opened(url: str, folder: Path, **settings: Any) -> AsyncIterator[Door]:
    keys = folder / "keys.json"
    key = add(keys, "storage", "hooks")
    app = create_app(
        GatewaySettings(broker_url=url, api_keys=keys, sns_topics=f"{TOPIC}, x", **settings)
    )
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://gateway") as http,
    ):
        yield Door(app, http, key, url)


@pytest.fixture
async def door(redis_server: RedisServer, tmp_path: Path) -> AsyncIterator[Door]:
    async with opened(redis_server.url, tmp_path) as one:
        yield one


def is_problem(answer: httpx.Response, status: int, code: str) -> bool:
    found = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.status_code, found["code"]) == (status, code), answer.text
    return True


@pytest.mark.parametrize("shape", [name for name in SHAPES if "sns" not in name])
async def test_given_an_event_of_any_source_then_it_is_a_job_of_the_key_that_sent_it(
    shape: str, door: Door
) -> None:
    answer = await door.post(SHAPES[shape](CAT))

    assert answer.status_code == 200, answer.text
    assert answer.json() == {
        "jobs": 1,
        "events": {"submitted": 1},
        "confirmed": False,
        "repeated_message": False,
    }
    (job,) = door.jobs
    assert (job["image"], job["owner"], job["lane"]) == (uri(CAT), "storage", "bulk")
    again = await door.post(SHAPES[shape](CAT))
    assert (again.status_code, again.json()["events"]) == (200, {"repeated": 1})
    assert len(door.jobs) == 1


async def test_given_an_event_by_two_ways_then_it_is_one_job(door: Door) -> None:
    for shape in ("aws", "eventbridge"):
        assert (await door.post(SHAPES[shape](Happened()))).status_code == 200

    assert len(door.jobs) == 1


async def test_given_a_test_event_then_it_is_well(door: Door) -> None:
    answer = await door.post(TEST_EVENT)

    assert (answer.status_code, answer.json()["jobs"]) == (200, 0)


async def test_given_a_sender_that_knows_urls_alone_then_its_password_is_the_key(
    door: Door,
) -> None:
    basic = base64.b64encode(f"ceph:{door.key}".encode()).decode()

    answer = await door.post(SHAPES["ceph"](CAT), None, Authorization=f"Basic {basic}")

    assert answer.status_code == 200


async def test_given_minio_that_asks_whether_somebody_is_there_then_somebody_is(door: Door) -> None:
    key = {"Authorization": f"Bearer {door.key}"}

    assert (await door.http.head("/hooks/s3", headers=key)).status_code == 204
    assert (await door.http.get("/hooks/s3", headers=key)).status_code == 204
    assert (await door.http.head("/hooks/s3")).status_code == 401


async def test_given_no_key_or_another_then_it_is_refused(door: Door, tmp_path: Path) -> None:
    submitter = add(tmp_path / "keys.json", "shop", "submit")
    door.app.state.service.access.look()

    assert is_problem(await door.post(SHAPES["aws"](CAT), None), 401, "key_invalid")
    assert is_problem(await door.post(SHAPES["aws"](CAT), "cq_x_" + "0" * 64), 401, "key_invalid")
    assert is_problem(await door.post(SHAPES["aws"](CAT), submitter), 403, "scope_missing")
    assert door.jobs == []


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ("junk", 422, "event_unknown"),
        ("{}", 422, "event_unknown"),
        ("", 422, "event_unknown"),
        (records({"eventSource": "aws:sqs"}), 422, "event_unknown"),
        ("[" * 17 + "]" * 17, 400, "body_invalid"),
        ("x" * 1_048_577, 413, "body_too_large"),
    ],
    ids=["no JSON", "another object", "nothing", "another service", "deep", "large"],
)
async def test_given_what_is_no_event_then_it_is_refused(
    body: str, status: int, code: str, door: Door
) -> None:
    assert is_problem(await door.post(body), status, code)


@pytest.mark.parametrize("version", ["1", "2"])
async def test_given_a_signed_message_of_sns_then_it_is_a_job(version: str, door: Door) -> None:
    said = signed(message(records(aws(CAT))), version)

    first, again = await door.sns(said), await door.sns(said)

    assert (first.status_code, first.json()["jobs"]) == (200, 1)
    assert (again.status_code, again.json()["repeated_message"]) == (200, True)
    (job,) = door.jobs
    assert (job["image"], job["owner"]) == (uri(CAT), None)
    assert door.fetched == [CERTIFICATE]


async def test_given_raw_delivery_of_sns_then_it_needs_a_key(door: Door) -> None:
    raw = {"x-amz-sns-message-type": "Notification", "x-amz-sns-rawdelivery": "true"}

    assert is_problem(await door.post(SHAPES["aws"](CAT), None, **raw), 401, "key_invalid")
    assert (await door.post(SHAPES["aws"](CAT), **raw)).json()["jobs"] == 1


async def test_given_an_event_of_eventbridge_by_sns_then_it_is_a_job(door: Door) -> None:
    answer = await door.sns(signed(message(SHAPES["eventbridge"](CAT))))

    assert answer.json()["jobs"] == 1


async def test_given_a_message_that_is_not_signed_or_not_by_sns_then_it_is_refused(
    door: Door,
) -> None:
    said = message(records(aws(CAT)))
    forged = signed(said) | {"Message": records(aws(Happened(key="theirs.jpg")))}
    elsewhere = signed(said) | {"SigningCertURL": "https://evil.example/a.pem"}

    assert is_problem(await door.sns(said), 401, "signature_missing")
    for one in (forged, elsewhere, signed(said, number=1)):
        answer = await door.sns(one)
        assert is_problem(answer, 401, "signature_wrong")
        assert "evil" not in answer.text
    assert door.jobs == []
    assert "evil" not in "".join(door.fetched)


async def test_given_an_old_message_then_it_is_refused_as_replayed(door: Door) -> None:
    for hours in (3, -1):
        at = datetime.now(UTC) - timedelta(hours=hours)
        answer = await door.sns(signed(message(records(aws(CAT)), at=at)))
        assert is_problem(answer, 403, "message_replayed")
    assert door.jobs == []


async def test_given_a_topic_that_is_not_on_the_list_then_it_is_refused_unasked(door: Door) -> None:
    theirs = message(records(aws(CAT)), TopicArn="arn:aws:sns:eu-west-1:999999999999:theirs")

    for said in (theirs, confirmation(TopicArn=theirs["TopicArn"])):
        assert is_problem(await door.sns(signed(said)), 403, "topic_not_allowed")
    assert (door.fetched, door.jobs) == ([], [])


async def test_given_a_subscription_to_a_topic_on_the_list_then_it_is_confirmed(door: Door) -> None:
    said = signed(confirmation())

    answer = await door.sns(said)
    again = await door.sns(said)

    assert answer.json()["confirmed"] is True
    assert again.json()["repeated_message"] is True
    assert door.fetched == [CERTIFICATE, CONFIRM]


async def test_given_a_subscription_whose_answer_goes_elsewhere_then_it_is_not_confirmed(
    door: Door,
) -> None:
    said = signed(confirmation(SubscribeURL="https://evil.example/?Action=ConfirmSubscription"))

    assert is_problem(await door.sns(said), 422, "event_unknown")
    assert door.fetched == [CERTIFICATE]


async def test_given_the_end_of_a_subscription_then_it_is_noted_and_not_undone(door: Door) -> None:
    said = signed(confirmation(Type="UnsubscribeConfirmation"))

    assert (await door.sns(said)).status_code == 200
    assert door.fetched == [CERTIFICATE]


async def test_given_sns_that_cannot_be_asked_then_the_sender_is_to_repeat(door: Door) -> None:
    door.away = FetchFailed("no route")
    for said in (signed(message(records(aws(CAT)))), signed(confirmation())):
        answer = await door.sns(said)
        assert is_problem(answer, 503, "sns_unavailable")
        assert "Retry-After" in answer.headers
        door.away = None
        assert (await door.sns(said)).status_code == 200
        door.away = FetchFailed("no route")


@pytest.mark.parametrize("body", ["junk", "{}", json.dumps({"Type": "Notification"})])
async def test_given_what_only_says_that_it_is_of_sns_then_it_is_refused(
    body: str, door: Door
) -> None:
    answer = await door.post(body, None, **{"x-amz-sns-message-type": "Notification"})

    assert is_problem(answer, 422, "event_unknown")


async def test_given_a_signed_message_that_is_no_event_then_that_is_said(door: Door) -> None:
    assert is_problem(await door.sns(signed(message("hello"))), 422, "event_unknown")
    assert (await door.sns(signed(message(json.dumps(TEST_EVENT))))).status_code == 200


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path / "redis") as server:
        yield server


async def test_given_a_broker_that_is_away_then_the_sender_is_to_repeat_and_nothing_is_lost(
    own_redis: RedisServer, tmp_path: Path
) -> None:
    async with opened(own_redis.url, tmp_path, submit_timeout_s=2) as door:
        said = signed(message(records(aws(CAT))))
        own_redis.stop()
        for answer in (await door.post(SHAPES["minio"](CAT)), await door.sns(said)):
            assert is_problem(answer, 503, "broker_unavailable")
            assert "Retry-After" in answer.headers

        own_redis.start()
        assert (await door.sns(said)).json()["jobs"] == 1
        assert (await door.post(SHAPES["minio"](CAT))).json()["events"] == {"repeated": 1}
        assert len(door.jobs) == 1


async def test_given_rules_then_they_say_which_jobs_there_are(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    rules = tmp_path / "rules.toml"
    rules.write_text('[[rule]]\nprefix = "in/"\njob = { language = "de", lane = "interactive" }\n')
    async with opened(
        redis_server.url, tmp_path, events_rules=rules, events_allow="photos"
    ) as door:
        answer = await door.post(
            records(
                aws(CAT),
                aws(Happened(key="out/cat.jpg")),
                aws(Happened(bucket="other", key="in/x")),
            )
        )
        assert answer.json()["events"] == {"submitted": 1, "not_wanted": 2}
        (message_,) = messages(door.redis, "captionq.caption")
        assert message_["kwargs"]["job"]["language"] == "de"

    rules.write_text("[[rule]]\npre = 1\n")
    with pytest.raises(BadRules):
        create_app(GatewaySettings(events_rules=rules))


async def test_given_an_index_that_cannot_be_changed_then_the_sender_is_to_repeat(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    place = tmp_path / "index"
    async with opened(redis_server.url, tmp_path, events_remove=True, index=str(place)) as door:
        went = SHAPES["aws"](Happened(removed=True))
        assert (await door.post(went)).json()["events"] == {"removed": 1}

        (place / "captions.lance").mkdir(parents=True)
        answer = await door.post(SHAPES["aws"](Happened(removed=True, key="in/dog.jpg")))
        assert is_problem(answer, 503, "index_unavailable")


async def test_a_get_is_bounded_in_size_and_status_and_follows_nothing() -> None:
    replies = {
        "/ok": [Reply(200, b"x" * 65_536)],
        "/large": [Reply(200, b"x" * 65_537)],
        "/gone": [Reply(404)],
        "/moved": [Reply(302, headers={"Location": "/ok"})],
        "/cut": [Reply(200, b"x" * 100, truncate_at=50)],
        "/hangs_up": [Reply(hang_up=True)],
    }
    with ScriptedHttp(replies) as server:
        assert await fetch(server.url("/ok")) == b"x" * 65_536
        for path in ("/large", "/gone", "/moved", "/cut", "/hangs_up"):
            with pytest.raises(FetchFailed):
                await fetch(server.url(path))
    with pytest.raises(FetchFailed):
        await fetch("http://127.0.0.1:1/")


async def test_given_many_senders_at_once_then_each_is_answered_and_each_object_is_one_job(
    door: Door,
) -> None:
    each = [Happened(key=f"in/{n % 150}.jpg", version="v") for n in range(300)]

    answers = await asyncio.gather(*(door.post(SHAPES["minio"](one)) for one in each))

    assert {answer.status_code for answer in answers} == {200}
    assert len(door.jobs) == 150
