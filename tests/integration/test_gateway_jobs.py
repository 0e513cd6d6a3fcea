"""Jobs over HTTP: a real gateway, a real Redis, a worker that stands in."""

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from producer.embedded import RedisServer
from producer.gateway.examples import JOBS
from tests.gateway_process import IMAGE, JOB, GatewayProcess, new_key, worker
from tests.stand_in_worker import messages


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gateway")


@pytest.fixture(scope="module")
def shop_key(folder: Path) -> str:
    return new_key(folder / "keys.json", "shop")[0]


@pytest.fixture(scope="module")
def other_key(folder: Path) -> str:
    return new_key(folder / "keys.json", "other")[0]


@pytest.fixture(scope="module")
def admin_key(folder: Path) -> str:
    return new_key(folder / "keys.json", "operator", "admin")[0]


@pytest.fixture(scope="module")
def gateway(
    _redis_server: RedisServer, folder: Path, shop_key: str, other_key: str, admin_key: str
) -> Iterator[GatewayProcess]:
    with GatewayProcess(
        _redis_server.url, folder / "log", CAPTIONQ_API_KEYS=str(folder / "keys.json")
    ) as process:
        yield process


@pytest.fixture
def broker(redis_server: RedisServer) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_server.url) as client:
        yield client


@pytest.fixture
def shop(
    redis_server: RedisServer, gateway: GatewayProcess, shop_key: str
) -> Iterator[httpx.Client]:
    with gateway.client(shop_key) as client:
        yield client


@pytest.fixture
def other(gateway: GatewayProcess, other_key: str) -> Iterator[httpx.Client]:
    with gateway.client(other_key) as client:
        yield client


@pytest.fixture
def admin(gateway: GatewayProcess, admin_key: str) -> Iterator[httpx.Client]:
    with gateway.client(admin_key) as client:
        yield client


def problem(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert response.headers["content-type"] == "application/problem+json"
    said: dict[str, Any] = response.json()
    assert (response.status_code, said["status"], said["code"]) == (status, status, code)
    assert said["type"] == f"/problems/{code}"
    return said


def test_a_job_is_accepted_and_lies_where_location_says(
    shop: httpx.Client, broker: redis.Redis
) -> None:
    accepted = shop.post("/v1/jobs", json=JOB)

    (message,) = messages(broker, "captionq.caption")
    assert accepted.status_code == 202
    assert accepted.json()["state"] == "queued"
    assert message["headers"]["id"] == accepted.json()["job_id"]
    assert message["kwargs"]["job"]["owner"] == "shop"
    assert shop.get(accepted.headers["location"]).json() == accepted.json()


@pytest.mark.parametrize("body", JOBS.values(), ids=JOBS)
def test_a_job_of_every_task_is_accepted(shop: httpx.Client, body: dict[str, Any]) -> None:
    accepted = shop.post("/v1/jobs", json=body)

    assert (accepted.status_code, accepted.json()["task"]) == (202, body["task"])


@pytest.mark.parametrize("job_id", ["s3:photos/2026/cat.jpg", "a:b@c=d+e/f", "a//b", "a/"])
def test_an_id_may_hold_slashes_and_colons(shop: httpx.Client, job_id: str) -> None:
    accepted = shop.post("/v1/jobs", json=JOB | {"job_id": job_id})

    assert shop.get(accepted.headers["location"]).json()["job_id"] == job_id


def test_an_id_that_is_known_is_that_job(shop: httpx.Client, broker: redis.Redis) -> None:
    first = shop.post("/v1/jobs", json=JOB | {"job_id": "mine"})
    second = shop.post("/v1/jobs", json=JOB | {"job_id": "mine"})

    assert first.json() == second.json()
    assert len(messages(broker, "captionq.caption")) == 1


def test_given_a_job_that_has_ended_submitting_it_again_answers_its_result(
    shop: httpx.Client, redis_server: RedisServer
) -> None:
    with worker(redis_server.url):
        shop.post("/v1/jobs", json=JOB | {"job_id": "mine"}, headers={"Prefer": "wait=10"})
    again = shop.post("/v1/jobs", json=JOB | {"job_id": "mine"})

    assert again.status_code == 200
    assert again.json()["result"]["state"] == "succeeded"


FAULTS: list[tuple[str, Any, str, str]] = [
    ("no task", {"image": IMAGE}, "/task", "task"),
    ("another task", {"task": "paint", "image": IMAGE}, "/task", "paint"),
    ("an unknown field", JOB | {"colour": "red"}, "/colour", "not permitted"),
    ("a wrong option", JOB | {"options": {"num_beams": 0}}, "/options/num_beams", "greater"),
    ("no texts", {"task": "match", "image": IMAGE}, "/texts", "required"),
    ("an owner", JOB | {"owner": "other"}, "/owner", "gateway sets"),
    ("a batch", JOB | {"batch_id": "b"}, "/batch_id", "gateway sets"),
    ("a signature", JOB | {"signature": "v1.a.1.f"}, "/signature", "gateway sets"),
    ("a moment", JOB | {"submitted_at": "2026-01-31T12:00:00Z"}, "/submitted_at", "gateway sets"),
    ("a file", JOB | {"image": "file:///etc/passwd"}, "/image", "ACCEPT_SCHEMES"),
    ("a file in capitals", JOB | {"image": "FILE:///etc/passwd"}, "/image", "ACCEPT_SCHEMES"),
    (
        "a file among others",
        {"task": "caption_chunk", "images": [IMAGE, "file:///etc/passwd"]},
        "/images/1",
        "ACCEPT_SCHEMES",
    ),
    (
        "a sink",
        {"task": "caption_chunk", "images": [IMAGE], "sink": "s3://photos/out/"},
        "/sink",
        "ACCEPT_SINKS",
    ),
    ("a sink of maps", JOB | {"explain": {"sink": "s3://a/"}}, "/explain/sink", "ACCEPT_SINKS"),
    ("an id that is no path", JOB | {"job_id": "a/../b"}, "/job_id", "path"),
    ("an id that is another path", JOB | {"job_id": "a/events"}, "/job_id", "path"),
    ("a list", [JOB], "", "object"),
]


def test_a_job_of_a_newer_contract_is_told_so_whatever_else_it_has(shop: httpx.Client) -> None:
    newer = JOB | {"schema_version": 2, "mood": "wistful"}

    said = problem(shop.post("/v1/jobs", json=newer), 422, "schema_unsupported")

    assert [fault["pointer"] for fault in said["errors"]] == ["/schema_version", "/mood"]


@pytest.mark.parametrize(
    ("body", "where", "why"), [fault[1:] for fault in FAULTS], ids=[fault[0] for fault in FAULTS]
)
def test_an_invalid_job_is_refused_with_the_place_of_its_fault(
    shop: httpx.Client, broker: redis.Redis, body: Any, where: str, why: str
) -> None:
    said = problem(shop.post("/v1/jobs", json=body), 422, "job_invalid")

    (fault,) = said["errors"]
    assert fault["pointer"] == where
    assert why in fault["detail"]
    assert broker.keys("captionq:job:*") == []


def test_what_fastapi_would_call_null_may_be_sent(shop: httpx.Client) -> None:
    """Clients that write every field of a job write these too."""
    body = JOB | {"owner": None, "batch_id": None, "signature": None, "submitted_at": None}

    assert shop.post("/v1/jobs", json=body).status_code == 202


def test_the_same_idempotency_key_and_body_is_one_job(
    shop: httpx.Client, broker: redis.Redis
) -> None:
    answers = [shop.post("/v1/jobs", json=JOB, headers={"Idempotency-Key": "k1"}) for _ in "12"]

    assert [answer.status_code for answer in answers] == [202, 202]
    assert answers[0].json() == answers[1].json()
    assert answers[0].headers["location"] == answers[1].headers["location"]
    assert len(messages(broker, "captionq.caption")) == 1


def test_an_idempotency_key_with_another_body_is_refused(
    shop: httpx.Client, broker: redis.Redis
) -> None:
    shop.post("/v1/jobs", json=JOB, headers={"Idempotency-Key": "k1"})

    other_body = JOB | {"lane": "bulk"}
    refused = shop.post("/v1/jobs", json=other_body, headers={"Idempotency-Key": "k1"})

    problem(refused, 422, "idempotency_conflict")
    assert broker.llen("captionq.caption.bulk") == 0


def test_an_idempotency_key_is_its_callers_own(shop: httpx.Client, other: httpx.Client) -> None:
    mine = shop.post("/v1/jobs", json=JOB, headers={"Idempotency-Key": "k1"})
    theirs = other.post("/v1/jobs", json=JOB | {"lane": "bulk"}, headers={"Idempotency-Key": "k1"})

    assert mine.status_code == theirs.status_code == 202
    assert mine.json()["job_id"] != theirs.json()["job_id"]


@pytest.mark.parametrize("key", ["", "a  b", "x" * 256, "\u00e9"])
def test_what_is_no_idempotency_key_is_refused(shop: httpx.Client, key: str) -> None:
    refused = shop.post("/v1/jobs", json=JOB, headers=[("Idempotency-Key", key.encode("latin-1"))])

    said = problem(refused, 422, "query_invalid")
    assert said["errors"][0]["parameter"] == "Idempotency-Key"


def test_who_would_wait_is_answered_with_the_result(
    shop: httpx.Client, redis_server: RedisServer
) -> None:
    with worker(redis_server.url):
        answer = shop.post("/v1/jobs", json=JOB, headers={"Prefer": "respond-async, wait=10"})

    assert answer.status_code == 200
    assert answer.headers["preference-applied"] == "wait=10"
    assert answer.json()["state"] == "succeeded"
    assert answer.json()["result"]["captions"][0]["text"] == f"a picture of {IMAGE}"


def test_who_has_waited_long_enough_is_told_where_the_job_is(shop: httpx.Client) -> None:
    began_s = time.monotonic()
    answer = shop.post("/v1/jobs", json=JOB, headers={"Prefer": "wait=1"})

    assert 1 <= time.monotonic() - began_s < 5
    assert (answer.status_code, answer.json()["state"]) == (202, "queued")
    assert answer.headers["location"].endswith(answer.json()["job_id"])


def test_a_cancelled_job_is_told_as_such_and_stays_so(shop: httpx.Client) -> None:
    where = shop.post("/v1/jobs", json=JOB).headers["location"]

    cancelled = shop.delete(where)

    assert cancelled.status_code == 200
    assert cancelled.json()["result"]["error"]["code"] == "job_cancelled"
    assert shop.get(where).json()["state"] == "cancelled"
    assert shop.delete(where).json() == cancelled.json()


def test_a_job_that_has_ended_is_not_cancelled(
    shop: httpx.Client, redis_server: RedisServer
) -> None:
    with worker(redis_server.url):
        ended = shop.post("/v1/jobs", json=JOB, headers={"Prefer": "wait=10"})

    assert shop.delete(ended.headers["location"]).json()["state"] == "succeeded"


def test_another_owners_job_is_unknown_and_its_id_taken(
    shop: httpx.Client, other: httpx.Client
) -> None:
    where = shop.post("/v1/jobs", json=JOB | {"job_id": "mine"}).headers["location"]

    problem(other.get(where), 404, "job_unknown")
    problem(other.delete(where), 404, "job_unknown")
    problem(other.get(f"{where}/events"), 404, "job_unknown")
    problem(other.post("/v1/jobs", json=JOB | {"job_id": "mine"}), 409, "job_id_taken")
    assert shop.get(where).json()["state"] == "queued"


def test_an_admin_sees_and_cancels_the_jobs_of_all(
    shop: httpx.Client, other: httpx.Client, admin: httpx.Client
) -> None:
    where = [client.post("/v1/jobs", json=JOB).headers["location"] for client in (shop, other)]

    assert [admin.get(one).status_code for one in where] == [200, 200]
    assert len(admin.get("/v1/jobs").json()["jobs"]) == 2
    assert admin.delete(where[0]).json()["state"] == "cancelled"


def test_jobs_are_listed_the_newest_first_a_page_at_a_time_and_to_their_owner(
    shop: httpx.Client, other: httpx.Client
) -> None:
    for number in range(5):
        shop.post("/v1/jobs", json=JOB | {"job_id": f"mine-{number}"})
        other.post("/v1/jobs", json=JOB)
    shop.delete("/v1/jobs/mine-1")

    first = shop.get("/v1/jobs", params={"limit": 3}).json()
    second = shop.get("/v1/jobs", params={"limit": 3, "cursor": first["next"]}).json()
    cancelled = shop.get("/v1/jobs", params={"state": "cancelled"}).json()

    assert [one["job_id"] for one in first["jobs"]] == ["mine-4", "mine-3", "mine-2"]
    assert [one["job_id"] for one in second["jobs"]] == ["mine-1", "mine-0"]
    assert (
        "next" not in second
        or not shop.get("/v1/jobs", params={"cursor": second["next"]}).json()["jobs"]
    )
    assert [one["job_id"] for one in cancelled["jobs"]] == ["mine-1"]
    assert first["jobs"][0]["image_ref"] == IMAGE


@pytest.mark.parametrize(
    "query", [{"cursor": "next"}, {"limit": "0"}, {"limit": "many"}, {"state": "lost"}]
)
def test_a_query_that_makes_no_sense_is_refused(shop: httpx.Client, query: dict[str, str]) -> None:
    said = problem(shop.get("/v1/jobs", params=query), 422, "query_invalid")

    assert said["errors"][0]["parameter"] == next(iter(query))


def test_a_job_that_stands_where_it_stood_is_not_sent_again(shop: httpx.Client) -> None:
    where = shop.post("/v1/jobs", json=JOB).headers["location"]
    tag = shop.get(where).headers["etag"]

    same = shop.get(where, headers={"If-None-Match": tag})
    shop.delete(where)
    changed = shop.get(where, headers={"If-None-Match": tag})

    assert (same.status_code, same.content) == (304, b"")
    assert (changed.status_code, changed.json()["state"]) == (200, "cancelled")


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("GET", "/v1/jobs/nowhere", 404, "job_unknown"),
        ("GET", "/v1/jobs/%00", 422, "query_invalid"),
        ("GET", "/v1/batches/nowhere", 404, "batch_unknown"),
        ("PUT", "/v1/jobs", 405, "method_not_allowed"),
        ("GET", "/v1/jobs:batch", 405, "method_not_allowed"),
        ("DELETE", "/v1/jobs/mine/events", 405, "method_not_allowed"),
        ("GET", "/problems/nothing", 404, "not_found"),
    ],
)
def test_what_is_not_there_is_a_problem_like_any(
    shop: httpx.Client, method: str, path: str, status: int, code: str
) -> None:
    problem(shop.request(method, path), status, code)


def test_a_method_that_is_not_allowed_says_which_are(shop: httpx.Client) -> None:
    assert shop.put("/v1/jobs").headers["allow"] == "GET, POST"
    assert shop.post("/v1/jobs/mine").headers["allow"] == "DELETE, GET"


def test_what_a_problems_type_means_is_served(shop: httpx.Client) -> None:
    said = shop.get("/v1/jobs/nowhere").json()

    meaning = shop.get(said["type"]).json()

    assert (meaning["code"], meaning["status"]) == ("job_unknown", 404)
    assert meaning["title"] == said["title"]


def test_answers_are_safe_in_browsers(shop: httpx.Client) -> None:
    for path in ("/healthz", "/nowhere", "/v1/jobs"):
        headers = shop.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["content-security-policy"].startswith("default-src 'none'")
        assert headers["cache-control"] == "no-store"
        assert "access-control-allow-origin" not in headers
        assert "server" not in headers


def test_a_ready_gateway_has_a_worker_and_says_what_it_can_do(
    shop: httpx.Client, redis_server: RedisServer
) -> None:
    time.sleep(1.1)  # what was asked before is forgotten
    said = problem(shop.get("/readyz"), 503, "not_ready")
    assert said["detail"] == "No worker lives."

    with worker(redis_server.url):
        time.sleep(1.1)
        facts = shop.get("/v1/service").json()
        assert shop.get("/readyz").json() == {"status": "ok"}

    assert facts["models"] == {"caption": ["bundled"], "match": ["bundled"]}
    assert facts["tasks"][:2] == ["caption", "match"]
    assert facts["languages"] == ["de", "en"]
    assert facts["uploads"] is False
    assert facts["keys"] is True
    assert facts["scopes"] == ["read", "submit", "upload"]
    assert facts["limits"]["batch_jobs"] == 5_000


def test_metrics_count_jobs_and_requests_by_route(shop: httpx.Client) -> None:
    def value(line: str) -> float:
        text = shop.get("/metrics").text
        return sum(float(one.split()[-1]) for one in text.splitlines() if one.startswith(line))

    jobs = 'captionq_gateway_jobs_total{task="embed"}'
    route = (
        'captionq_gateway_requests_total{method="GET",route="/v1/jobs/{job_id:job}",status="404"}'
    )
    before = value(jobs), value(route)
    shop.post("/v1/jobs", json={"task": "embed", "texts": ["a cat"]})
    shop.get("/v1/jobs/nowhere")

    assert (value(jobs) - before[0], value(route) - before[1]) == (1, 1)
    assert value('captionq_gateway_request_seconds_count{method="POST",route="/v1/jobs"}') > 0


def test_metrics_tell_of_jobs_that_have_not_ended_by_lane_while_the_store_answers(
    shop: httpx.Client, broker: redis.Redis, redis_server: RedisServer
) -> None:
    """Whether or not a worker serves them."""

    def told() -> dict[str, float]:
        lines = [line.rpartition(" ") for line in shop.get("/metrics").text.splitlines()]
        return {name: float(value) for name, _, value in lines if name.startswith("captionq_open_")}

    for lane in ("interactive", "bulk", "bulk"):
        shop.post("/v1/jobs", json=JOB | {"lane": lane, "model": "nobody"})
    seconds, _ = broker.time()  # type: ignore[misc]
    for key in broker.zrange("captionq:open:captionq.caption.nobody.bulk", 0, 0):  # type: ignore[union-attr]
        broker.zadd("captionq:open:captionq.caption.nobody.bulk", {key: (seconds - 90) * 1e3})
    found = told()
    assert found['captionq_open_jobs{lane="interactive"}'] == 1
    assert found['captionq_open_jobs{lane="bulk"}'] == 2
    assert found['captionq_open_oldest_seconds{lane="interactive"}'] < 30
    assert 90 <= found['captionq_open_oldest_seconds{lane="bulk"}'] < 120
    process = redis_server._process
    assert process is not None
    process.send_signal(signal.SIGSTOP)
    try:
        assert told() == {}
    finally:
        process.send_signal(signal.SIGCONT)


def test_json_that_is_none_is_told_as_such(shop: httpx.Client) -> None:
    for body in (b"", b"{", b"\xff", b"nonsense", json.dumps(JOB).encode("utf-16")):
        answer = shop.post("/v1/jobs", content=body, headers={"Content-Type": "application/json"})
        problem(answer, 400, "body_invalid")
