"""What an operator sees in Flower: real jobs of a real worker, read from Flower's API."""

import json
import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest
from celery import Celery
from flower.urls import handlers

from producer import CaptionJob
from producer.words import outcome
from tests.flower_process import LOGIN, TIMEOUT_S, authorization, flower_at, get, until
from tests.house import PNG, House
from tests.servers import Reply


@pytest.fixture(scope="module")
def flower(house: House, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("flower")
    (folder / "flowerconfig.py").write_text("basic_auth = []\n")  # whoever put it there
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


def test_given_a_broker_that_does_not_answer_flower_ends_at_once_when_told(tmp_path: Path) -> None:
    """Its threads ask that broker, and would wait for an answer."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        with flower_at(tmp_path, {"CAPTIONQ_BROKER_URL": url}):
            asking, _ = silent.accept()
    asking.close()


OPEN = ("/metrics", "/healthcheck", "/static/(.*)", "/login/?", "/logout", ".*")
PATHS = [
    path.replace("(.+)", "x").replace("(.*)", "x")
    for path in (one[0] if isinstance(one, tuple) else one.regex.pattern[:-1] for one in handlers)
    if path not in OPEN
]
"""All that Flower answers, but for what is nobody's secret."""


def refusal(flower: str, path: str, headers: dict[str, str], method: str) -> int:
    request = urllib.request.Request(flower + path, headers=headers, method=method)
    with pytest.raises(HTTPError) as refused:
        urllib.request.urlopen(request, timeout=10)
    with refused.value as answer:
        return answer.code


@pytest.mark.parametrize("login", [None, "operator:wrong", "operator:", "", ":"])
def test_given_no_login_or_a_wrong_one_flower_shows_nothing(flower: str, login: str | None) -> None:
    headers = {} if login is None else {"Authorization": authorization(login)}
    for path in PATHS:
        codes = {refusal(flower, path, headers, method) for method in ("GET", "POST")}
        assert codes <= {401, 405}, path
        assert 401 in codes, path


def test_given_a_page_elsewhere_that_knows_a_browsers_login_flower_does_nothing(
    flower: str,
) -> None:
    for other in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://elsewhere.example"}):
        headers = {"Authorization": authorization(LOGIN), **other}
        assert refusal(flower, "/api/worker/shutdown/test@localhost", headers, "POST") == 403
