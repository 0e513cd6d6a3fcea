"""The gateway's pure parts, by tables: rates, preferences, bodies, ids, bounds."""

import asyncio
import json
import time
from collections.abc import Sequence
from typing import Any

import pytest
from pydantic import TypeAdapter

from producer.errors import BrokerUnavailable
from producer.gateway import examples
from producer.gateway.accepted import Accepted, AnyJob, nameable
from producer.gateway.access import rate_headers
from producer.gateway.batches import BatchOfJobs, read_batch
from producer.gateway.body import too_deep
from producer.gateway.gathering import Gathering
from producer.gateway.problems import MEANING, Code, Problem, pointer
from producer.gateway.rate import Allowed, Bucket
from producer.gateway.server import OpenToOthers, check_exposure
from producer.gateway.settings import GatewaySettings
from producer.gateway.views import BatchStatus, JobList, JobStatus
from producer.gateway.waiting import preferred_wait_s


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_a_bucket_grants_a_seconds_worth_at_once_then_its_rate() -> None:
    clock = Clock()
    bucket = Bucket(2, clock)

    at_once = [bucket.ask().granted for _ in range(3)]
    clock.now_s += 0.5
    later = [bucket.ask().granted for _ in range(2)]

    assert at_once == [True, True, False]
    assert later == [True, False]


def test_a_bucket_of_less_than_one_a_second_grants_one() -> None:
    clock = Clock()
    bucket = Bucket(0.1, clock)

    first, second = bucket.ask(), bucket.ask()
    clock.now_s += second.wait_s
    third = bucket.ask()

    assert (first.granted, second.granted, third.granted) == (True, False, True)
    assert second.wait_s == pytest.approx(10)


def test_a_debt_is_waited_for() -> None:
    clock = Clock()
    bucket = Bucket(10, clock)
    bucket.ask()
    bucket.spend(59)

    assert bucket.ask().wait_s == pytest.approx(5.1)
    clock.now_s += 5.2
    assert bucket.ask().granted


@pytest.mark.parametrize(
    ("rate", "allowed", "policy", "left"),
    [
        (100, Allowed(True, 99, 0), '"key";q=100;w=1', '"key";r=99'),
        (100, Allowed(False, 0, 0.01), '"key";q=100;w=1', '"key";r=0;t=1'),
        (0.1, Allowed(False, 0, 9.5), '"key";q=1;w=10', '"key";r=0;t=10'),
    ],
)
def test_rates_are_told_in_headers(rate: float, allowed: Allowed, policy: str, left: str) -> None:
    assert rate_headers(rate, allowed) == (policy, left)


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ([], None),
        (["respond-async"], None),
        (["wait=5"], 5),
        (["respond-async, wait=5"], 5),
        (["respond-async", "wait=5"], 5),
        (["WAIT = 5"], 5),
        (['wait="5"'], 5),
        (["wait=5; foo"], 5),
        (["wait=99999"], 30),
        (["wait=0"], 0),
        (["wait=-1"], None),
        (["wait=1.5"], None),
        (["wait"], None),
        (["await=5"], None),
        (["wait=5x"], None),
    ],
)
def test_how_long_a_sender_would_wait(headers: list[str], wait_s: int | None) -> None:
    assert preferred_wait_s(headers, 30) == wait_s


@pytest.mark.parametrize(
    ("text", "deep"),
    [
        (b"{}", False),
        (b"[" * 16 + b"]" * 16, False),
        (b"[" * 17, True),
        (b'{"a":' * 17, True),
        (b"[]" * 1_000, False),
        (b'{"a": "' + b"[" * 1_000 + b'"}', False),
        (b'{"a": "\\"' + b"[" * 1_000 + b'"}', False),
        (b'{"a": "\\\\"}' + b"[" * 17, True),
        (b'"' + b"\\" * 99_999, False),
        (b'"' + b"\\" * 99_998 + b"[" * 17, False),
    ],
)
def test_how_deep_a_body_is_nested(text: bytes, deep: bool) -> None:
    assert too_deep(text) is deep


def test_how_deep_a_body_is_nested_is_told_in_a_time_that_grows_as_the_body_does() -> None:
    """Each of these quotes may begin a string that never ends."""
    began_s = time.process_time()

    too_deep(b'\\"' * 500_000 + b"[" * 17)

    assert time.process_time() - began_s < 2


@pytest.mark.parametrize(
    ("job_id", "can"),
    [
        ("a", True),
        ("s3:photos/2026/cat.jpg", True),
        ("a/events/b", True),
        ("a.b..c", True),
        ("events", False),
        ("a/events", False),
        ("a/./b", False),
        ("a/..", False),
    ],
)
def test_which_ids_a_path_can_name(job_id: str, can: bool) -> None:
    assert nameable(job_id) is can


@pytest.mark.parametrize(
    ("uri", "accepted"),
    [
        ("https://example.com/cat.jpg", True),
        ("S3://photos/cat.jpg", True),
        ("file:///uploads/5f1c.jpg", True),
        ("file:///uploads/../etc/passwd", False),
        ("file:///uploads/%2e%2e/etc/passwd", False),
        ("file:///uploads", False),
        ("file:///etc/passwd", False),
        ("file://localhost/uploads/5f1c.jpg", False),
    ],
)
def test_which_images_are_accepted_where_uploads_go_to_a_folder(uri: str, accepted: bool) -> None:
    settings = GatewaySettings(upload_to="file:///uploads/")

    assert (Accepted(settings).refused(uri) is None) is accepted


@pytest.mark.parametrize(
    ("host", "has_keys", "allowed", "refused"),
    [
        ("127.0.0.1", False, False, False),
        ("::1", False, False, False),
        ("localhost", False, False, False),
        ("0.0.0.0", False, False, True),
        ("192.0.2.1", False, False, True),
        ("gateway.example", False, False, True),
        ("0.0.0.0", True, False, False),
        ("0.0.0.0", False, True, False),
    ],
)
def test_without_keys_only_this_machine_is_served(
    host: str, has_keys: bool, allowed: bool, refused: bool
) -> None:
    if refused:
        with pytest.raises(OpenToOthers, match="captionq keys new"):
            check_exposure(host, has_keys, allowed)
    else:
        check_exposure(host, has_keys, allowed)


@pytest.mark.parametrize(
    "wrong",
    [
        {"accept_schemes": "https,ftp"},
        {"allowed_origins": "app.example.com"},
        {"allowed_origins": "https://app.example.com/"},
        {"allowed_origins": "*"},
        {"upload_to": "s3://bucket/prefix"},
        {"max_job_bytes": 10},
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        GatewaySettings(**wrong)


def test_every_code_has_a_meaning_and_its_problem_follows_it() -> None:
    assert set(MEANING) == set(Code)
    for code in Code:
        problem = Problem(code)
        assert problem.body["detail"]
        assert 400 <= problem.body["status"] <= 599


def test_a_place_is_told_by_rfc_6901() -> None:
    assert pointer(("jobs", 3, "a/b~c")) == "/jobs/3/a~1b~0c"
    assert pointer(()) == ""


@pytest.mark.parametrize("body", examples.JOBS.values(), ids=examples.JOBS)
def test_examples_of_jobs_are_jobs(body: dict[str, Any]) -> None:
    TypeAdapter(AnyJob).validate_json(json.dumps(body))


@pytest.mark.parametrize(
    ("model", "body"),
    [
        (BatchOfJobs, next(iter(examples.BATCHES.values()))),
        (JobStatus, examples.QUEUED),
        (JobStatus, examples.ENDED),
        (JobList, examples.JOB_LIST),
        (BatchStatus, examples.BATCH),
    ],
)
def test_examples_are_what_they_are_examples_of(model: Any, body: dict[str, Any]) -> None:
    model.model_validate_json(json.dumps(body))


@pytest.mark.parametrize(
    ("jobs", "code", "where"),
    [
        (b",".join([b"{}"] * 500_000), Code.BODY_TOO_LARGE, []),
        (b",".join([b"{}"] * 5_000), Code.JOB_INVALID, ["/jobs/0/task", "/jobs/1/task"]),
        (b"{%b}" % b",".join(b'"%d":0' % n for n in range(500_000)), Code.JOB_INVALID, ["/jobs/0"]),
        (b'0], "callback": ["%b"' % (b"a" * 100_000), Code.JOB_INVALID, ["", "/jobs/0"]),
    ],
)
def test_a_batch_in_which_all_is_wrong_is_soon_told_so(
    jobs: bytes, code: Code, where: list[str]
) -> None:
    began_s = time.process_time()

    with pytest.raises(Problem) as refused:
        read_batch(b'{"jobs": [%b]}' % jobs, Accepted(GatewaySettings()), 5_000)

    assert refused.value.code is code
    assert [fault.pointer for fault in refused.value.errors][:2] == where
    assert time.process_time() - began_s < 2


class Slow:
    """A call that can be held up."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []
        self.go = asyncio.Event()

    async def __call__(self, items: list[int]) -> Sequence[int]:
        self.calls.append(items)
        await self.go.wait()
        if 13 in items:
            raise BrokerUnavailable("13")
        return [-item for item in items]


async def test_what_comes_while_a_call_is_under_way_goes_in_the_next() -> None:
    call = Slow()
    gathering: Gathering[int, int] = Gathering(call, most=3)
    asked = [asyncio.create_task(gathering.ask(1))]
    await asyncio.sleep(0.01)
    asked += [asyncio.create_task(gathering.ask(item)) for item in range(2, 7)]
    await asyncio.sleep(0.01)
    call.go.set()

    assert await asyncio.gather(*asked) == [-1, -2, -3, -4, -5, -6]
    assert call.calls == [[1], [2, 3, 4], [5, 6]]


async def test_a_call_that_fails_fails_its_own_and_the_next_goes_on() -> None:
    call = Slow()
    gathering: Gathering[int, int] = Gathering(call, most=2)
    asked = [asyncio.create_task(gathering.ask(item)) for item in (13, 1, 2)]
    call.go.set()

    answers = await asyncio.gather(*asked, return_exceptions=True)

    assert [type(answer) for answer in answers] == [BrokerUnavailable, BrokerUnavailable, int]


async def test_one_who_waits_no_more_changes_nothing_for_others() -> None:
    call = Slow()
    gathering: Gathering[int, int] = Gathering(call, most=2)
    gone, here = (asyncio.create_task(gathering.ask(item)) for item in (1, 2))
    await asyncio.sleep(0.01)
    gone.cancel()
    call.go.set()

    assert await here == -2


async def test_more_than_may_wait_are_refused_and_the_end_waits_for_the_rest() -> None:
    call = Slow()
    gathering: Gathering[int, int] = Gathering(call, most=1, max_waiting=2)
    asked = [asyncio.create_task(gathering.ask(1))]
    await asyncio.sleep(0.01)
    asked += [asyncio.create_task(gathering.ask(item)) for item in (2, 3)]
    await asyncio.sleep(0.01)

    with pytest.raises(BrokerUnavailable):
        await gathering.ask(4)
    call.go.set()
    await gathering.close()

    assert [task.result() for task in asked] == [-1, -2, -3]
