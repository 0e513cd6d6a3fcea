"""Many jobs in one request: all or none, counted together."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from producer.embedded import RedisServer
from tests.gateway_process import IMAGE, JOB, GatewayProcess, new_key, worker
from tests.stand_in_worker import messages


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    path = tmp_path_factory.mktemp("batches") / "keys.json"
    return path, new_key(path, "shop", rate=1e6)[0], new_key(path, "other", rate=1e6)[0]


@pytest.fixture(scope="module")
def gateway(_redis_server: RedisServer, keys: tuple[Path, str, str]) -> Iterator[GatewayProcess]:
    path = keys[0]
    with GatewayProcess(_redis_server.url, path.with_name("log"), "--keys", str(path)) as process:
        yield process


@pytest.fixture
def shop(
    redis_server: RedisServer, gateway: GatewayProcess, keys: tuple[Path, str, str]
) -> Iterator[httpx.Client]:
    with gateway.client(keys[1]) as client:
        yield client


@pytest.fixture
def other(gateway: GatewayProcess, keys: tuple[Path, str, str]) -> Iterator[httpx.Client]:
    with gateway.client(keys[2]) as client:
        yield client


@pytest.fixture
def broker(redis_server: RedisServer) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_server.url) as client:
        yield client


def ended(client: httpx.Client, where: str) -> dict[str, Any]:
    while True:
        batch: dict[str, Any] = client.get(where).json()
        if "finished_at" in batch:
            return batch


def test_a_batch_is_submitted_in_order_counted_and_ends(
    shop: httpx.Client, redis_server: RedisServer, broker: redis.Redis
) -> None:
    jobs = [JOB, {"task": "match", "image": IMAGE, "texts": ["a cat"]}, JOB | {"job_id": "mine"}]

    accepted = shop.post("/v1/jobs:batch", json={"jobs": jobs})
    where, batch = accepted.headers["location"], accepted.json()
    waiting = shop.get(where).json()
    with worker(redis_server.url):
        done = ended(shop, where)

    assert accepted.status_code == 202
    assert batch["job_ids"] == [f"{batch['batch_id']}/0", f"{batch['batch_id']}/1", "mine"]
    assert (waiting["total"], waiting["counts"]["queued"], waiting["closed"]) == (3, 3, True)
    assert done["counts"]["succeeded"] == 3
    assert shop.get(f"/v1/jobs/{batch['job_ids'][0]}").json()["batch_id"] == batch["batch_id"]


def test_five_thousand_jobs_are_one_request(shop: httpx.Client, broker: redis.Redis) -> None:
    jobs = [JOB | {"image": f"https://example.com/{number}.jpg"} for number in range(5_000)]

    accepted = shop.post("/v1/jobs:batch", json={"jobs": jobs})

    assert accepted.status_code == 202
    assert broker.llen("captionq.caption") == 5_000
    assert shop.get(accepted.headers["location"]).json()["total"] == 5_000


def test_the_jobs_of_a_batch_are_listed_by_it(shop: httpx.Client) -> None:
    batch = shop.post("/v1/jobs:batch", json={"jobs": [JOB, JOB]}).json()
    shop.post("/v1/jobs", json=JOB)

    listed = shop.get("/v1/jobs", params={"batch_id": batch["batch_id"]}).json()["jobs"]

    assert [one["job_id"] for one in reversed(listed)] == batch["job_ids"]


@pytest.mark.parametrize(
    ("jobs", "where"),
    [
        ([JOB, JOB | {"image": "cat.jpg"}], ["/jobs/1/image"]),
        (
            [{"task": "paint"}, JOB, JOB | {"options": {"num_beams": 99}}],
            ["/jobs/0/task", "/jobs/2/options/num_beams"],
        ),
        ([JOB, JOB | {"owner": "other"}], ["/jobs/1/owner"]),
        ([JOB | {"job_id": "a"}, JOB, JOB | {"job_id": "a"}], ["/jobs/2/job_id"]),
        ([], ["/jobs"]),
    ],
)
def test_when_one_is_invalid_none_is_submitted_and_all_faults_are_told(
    shop: httpx.Client, broker: redis.Redis, jobs: list[Any], where: list[str]
) -> None:
    refused = shop.post("/v1/jobs:batch", json={"jobs": jobs})

    assert (refused.status_code, refused.json()["code"]) == (422, "job_invalid")
    assert [fault["pointer"] for fault in refused.json()["errors"]] == where
    assert broker.keys("captionq:*") == []


def test_the_same_key_and_batch_is_one_batch(shop: httpx.Client, broker: redis.Redis) -> None:
    headers = {"Idempotency-Key": "b1"}
    first, second = (
        shop.post("/v1/jobs:batch", json={"jobs": [JOB, JOB]}, headers=headers) for _ in "12"
    )
    shorter = shop.post("/v1/jobs:batch", json={"jobs": [JOB]}, headers=headers)

    assert first.json() == second.json()
    assert (shorter.status_code, shorter.json()["code"]) == (422, "idempotency_conflict")
    assert len(messages(broker, "captionq.caption")) == 2
    assert shop.get(first.headers["location"]).json()["total"] == 2


def test_a_batch_that_was_cut_off_is_completed_by_the_same_request(
    shop: httpx.Client, broker: redis.Redis
) -> None:
    """As if the first try had ended after its first job: that one is known already."""
    headers = {"Idempotency-Key": "b2"}
    whole = shop.post("/v1/jobs:batch", json={"jobs": [JOB, JOB]}, headers=headers).json()
    broker.delete(f"captionq:job:{whole['job_ids'][1]}", "captionq.caption")

    again = shop.post("/v1/jobs:batch", json={"jobs": [JOB, JOB]}, headers=headers)

    (message,) = messages(broker, "captionq.caption")
    assert again.json() == whole
    assert message["headers"]["id"] == whole["job_ids"][1]


def test_anothers_batch_is_unknown_and_anothers_id_is_taken(
    shop: httpx.Client, other: httpx.Client, broker: redis.Redis
) -> None:
    jobs = [JOB | {"job_id": "mine"}]
    where = shop.post("/v1/jobs:batch", json={"jobs": jobs}).headers["location"]

    unseen = other.get(where)
    taken = other.post("/v1/jobs:batch", json={"jobs": [JOB, *jobs]})

    assert (unseen.status_code, unseen.json()["code"]) == (404, "batch_unknown")
    assert (taken.status_code, taken.json()["code"]) == (409, "job_id_taken")
    assert taken.json()["errors"][0]["pointer"] == "/jobs/1/job_id"
    assert broker.llen("captionq.caption") == 1


def test_an_id_that_another_has_taken_meanwhile_is_told(
    shop: httpx.Client, other: httpx.Client, broker: redis.Redis
) -> None:
    """As if they had been quicker: here by an id that they have worked out."""
    batch = hashlib.sha256(b"shop\nbatches\nguessed").hexdigest()[:32]
    other.post("/v1/jobs", json=JOB | {"job_id": f"{batch}/1"})

    headers = {"Idempotency-Key": "guessed"}
    refused = shop.post("/v1/jobs:batch", json={"jobs": [JOB, JOB]}, headers=headers)

    assert (refused.status_code, refused.json()["code"]) == (409, "job_id_taken")
    assert f"{batch}/1" in refused.json()["errors"][0]["detail"]
    assert shop.get(f"/v1/batches/{batch}").json()["closed"]


def test_a_callback_of_the_batch_is_due_once_it_has_ended(
    shop: httpx.Client, redis_server: RedisServer, broker: redis.Redis
) -> None:
    callback = {"url": "https://app.example.com/hooks"}
    batch = {"jobs": [JOB, JOB], "callback": callback}
    where = shop.post("/v1/jobs:batch", json=batch).headers["location"]
    assert broker.keys("captionq:callback*") == []

    with worker(redis_server.url):
        ended(shop, where)

    assert len(broker.keys("captionq:callback:*")) == 1
