"""What an operator sees in Flower: real jobs of a real worker, read from Flower's API."""

import json
import urllib.request
from collections.abc import Iterator
from typing import Any
from urllib.error import HTTPError

import pytest
from celery import Celery

from producer import CaptionJob
from producer.words import outcome
from tests.flower_process import TIMEOUT_S, flower_at, get, until
from tests.house import PNG, House
from tests.servers import Reply


@pytest.fixture(scope="module")
def flower(house: House, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("flower")
    with flower_at(folder, {"CAPTIONQ_BROKER_URL": house.broker.url}) as url:
        until(lambda: json.loads(get(url, "/api/workers?refresh=1")))
        yield url


def ended(flower: str, *ids: str) -> dict[str, Any]:
    def found() -> dict[str, Any] | None:
        tasks: dict[str, Any] = json.loads(get(flower, "/api/tasks"))
        over = all(tasks.get(one, {}).get("state") in ("SUCCESS", "FAILURE") for one in ids)
        return tasks if over else None

    return until(found)  # type: ignore[no-any-return]


def test_given_jobs_that_succeed_fail_and_are_tried_again_flower_says_so_in_words(
    house: House, flower: str
) -> None:
    good = house.client.submit(CaptionJob(image=house.web.url("/ok.png")))
    bad = house.client.submit(CaptionJob(image=house.web.url("/missing.png")))
    house.web.routes["/busy-in-flower.png"] = [Reply(503), Reply(503), Reply(200, PNG)]
    busy = house.client.submit(CaptionJob(image=house.web.url("/busy-in-flower.png")))
    said = outcome(good.result(TIMEOUT_S))
    tasks = ended(flower, good.job_id, bad.job_id, busy.job_id)
    assert tasks[good.job_id]["name"] == "captionq.caption"
    assert tasks[good.job_id]["result"] == said
    assert "http_4xx" in tasks[bad.job_id]["exception"]
    assert tasks[busy.job_id]["retries"] == 2
    assert tasks[busy.job_id]["kwargs"] == house.web.url("/busy-in-flower.png")


def test_given_signed_urls_of_any_client_flower_shows_no_signature(
    house: House, flower: str
) -> None:
    image = house.web.url("/ok.png?X-Amz-Signature=5ec2e7")
    ours = house.client.submit(CaptionJob(image=image))
    url = house.broker.url
    with Celery("plain", broker=url, backend=url, set_as_current=False) as plain:
        theirs = plain.send_task("captionq.caption", [{"image": image}])
        kept = theirs.get(timeout=TIMEOUT_S)
        ours.result(TIMEOUT_S)
        assert kept["captions"][0]["text"]
        tasks = ended(flower, ours.job_id, theirs.id)
        theirs.forget()
    for one in (ours.job_id, theirs.id):
        shown = f"{tasks[one]['args']} {tasks[one]['kwargs']}"
        assert house.web.url("/ok.png") in shown
    assert "5ec2e7" not in json.dumps(tasks)
    assert "5ec2e7" not in json.dumps(json.loads(get(flower, "/api/workers?refresh=1")))


def test_given_no_login_or_a_wrong_one_flower_shows_nothing(flower: str) -> None:
    for path in ("/", "/tasks", "/api/tasks", "/broker"):
        for headers in ({}, {"Authorization": "Basic b3BlcmF0b3I6d3Jvbmc="}):
            with pytest.raises(HTTPError) as refused:
                urllib.request.urlopen(urllib.request.Request(flower + path, headers=headers))
            assert refused.value.code == 401
            refused.value.close()
