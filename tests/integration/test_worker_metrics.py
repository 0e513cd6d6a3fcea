"""What a real worker tells Prometheus, and whoever asks for its health."""

import json
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
import redis
from prometheus_client.parser import text_string_to_metric_families

from producer.callback import Callback
from producer.contract import CaptionChunk, CaptionJob
from producer.gateway.metrics import Metrics
from producer.gateway.open_jobs import OpenJobs
from producer.queues import INTERACTIVE
from tests.house import House, open_house
from tests.monitoring import ROOT, table
from tests.servers import Reply
from worker.bench.processes import free_port

DOCUMENTED = {
    row[0].strip("`"): (row[1], {one for one in row[2].split(", ") if one})
    for row in table((ROOT / "docs/metrics.md").read_text(), "Series")
}
TIMEOUT_S = 60


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory, port: int) -> Iterator[House]:
    settings = {
        "CAPTIONQ_METRICS_PORT": str(port),
        "CAPTIONQ_RESULT_CACHE_TTL_S": "60",
        "CAPTIONQ_STALL_S": "3",
    }
    with open_house(tmp_path_factory.mktemp("watched"), **settings) as opened:
        yield opened


def read(port: int) -> dict[tuple[str, ...], float]:
    """Values by name and labels' values, in the order of the labels' names."""
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        text = answer.read().decode()
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def health(port: int) -> tuple[int, list[str]]:
    try:
        with urlopen(f"http://127.0.0.1:{port}/healthz", timeout=10) as answer:
            return answer.status, json.loads(answer.read())["faults"]
    except HTTPError as exc:
        return exc.code, json.loads(exc.read())["faults"]


@contextmanager
def patience(timeout_s: float = TIMEOUT_S) -> Iterator[object]:
    """`until(true)` within the block waits for something to be true."""
    end_s = time.monotonic() + timeout_s

    def until(true: object) -> None:
        while not true():  # type: ignore[operator]
            assert time.monotonic() < end_s
            time.sleep(0.1)

    yield until


def families(text: str) -> dict[str, tuple[str, set[str]]]:
    """Type and labels by name, of what has a sample."""
    found: dict[str, tuple[str, set[str]]] = {}
    for family in text_string_to_metric_families(text):
        if not family.name.startswith("captionq_"):
            continue
        name = f"{family.name}_total" if family.type == "counter" else family.name
        _, labels = found.setdefault(name, (family.type, set()))
        for sample in family.samples:
            labels |= set(sample.labels) - {"le"}
    return found


def test_every_series_is_documented_and_every_documented_one_exported(
    watched: House, port: int
) -> None:
    hook = Callback(url=watched.web.url("/told"))
    ok = watched.web.url("/ok.png")
    for image in (ok, ok, watched.web.url("/missing.png")):
        watched.client.submit(CaptionJob(image=image, callback=hook)).result(TIMEOUT_S)
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        of_worker = families(answer.read().decode())
    gateway = Metrics()
    gateway.submitted("caption")
    gateway.answered({"method": "GET"}, 200, 0.1)
    gateway.open({INTERACTIVE: OpenJobs(1, 2.0)})
    of_gateway = families(gateway.text().decode())
    exported = {
        name: one for name, one in (of_worker | of_gateway).items() if not name.endswith("_created")
    }
    assert set(exported) == set(DOCUMENTED)
    on_a_gpu = {"captionq_device_memory_bytes", "captionq_device_utilization_ratio"}
    for name, (kind, labels) in exported.items():
        assert kind == DOCUMENTED[name][0], name
        if name not in on_a_gpu:
            assert labels == DOCUMENTED[name][1], name


def test_given_jobs_they_are_counted_with_their_images_tokens_and_stages(
    watched: House, port: int
) -> None:
    before = read(port)
    ok, missing = watched.web.url("/ok.png"), watched.web.url("/missing.png")
    watched.web.routes["/new.png"] = watched.web.routes["/ok.png"]
    with_new = CaptionChunk(images=(ok, missing, watched.web.url("/new.png")))
    watched.client.submit(with_new).result(TIMEOUT_S)
    watched.client.submit(CaptionJob(image=missing)).result(TIMEOUT_S)

    def grown(*key: str) -> float:
        return read(port).get(key, 0) - before.get(key, 0)

    with patience() as until:  # a result is out before it is counted
        until(lambda: grown("captionq_jobs_total", "http_4xx", "failed", "caption") == 1)
    assert grown("captionq_jobs_total", "none", "succeeded", "caption_chunk") == 1
    assert grown("captionq_images_total", "succeeded", "caption_chunk") == 2
    assert grown("captionq_images_total", "http_4xx", "caption_chunk") == 1
    assert grown("captionq_stage_seconds_count", "fetch") == 2
    assert (
        grown("captionq_cache_requests_total", "hit")
        + grown("captionq_cache_requests_total", "miss")
        == 2
    )


def test_given_messages_that_are_none_their_dead_letters_are_counted(
    watched: House, port: int
) -> None:
    before = read(port)["captionq_dead_letters_total", "job_invalid"]
    with redis.Redis.from_url(watched.broker.url) as client, patience() as until:
        client.lpush("captionq.caption", "{")
        until(lambda: read(port)["captionq_dead_letters_total", "job_invalid"] == before + 1)


def test_given_jobs_that_wait_their_number_and_age_are_told_and_that_none_ends(
    watched: House, port: int
) -> None:
    watched.web.routes["/slow.png"] = [Reply(200, b"x", delay_s=7)]
    slow = watched.web.url("/slow.png")
    watched.client.submit_many(CaptionJob(image=slow) for _ in range(80))
    queue = ("interactive", "captionq.caption")
    with patience() as until:
        until(lambda: read(port)["captionq_queue_depth", *queue] > 0)
        seen = read(port)
        assert seen["captionq_leases_held",] > 0
        assert seen["captionq_messages", "in_flight"] > 0
        until(lambda: read(port)["captionq_queue_oldest_seconds", *queue] > 0)
        until(lambda: health(port)[0] == 503)
        assert any("nothing has ended" in one for one in health(port)[1])
        assert read(port)["captionq_worker_healthy",] == 0
    watched.web.routes["/slow.png"] = [Reply(404)]  # what is tried again ends
    with redis.Redis.from_url(watched.broker.url) as client:
        client.delete("captionq.caption")
    with patience() as until:
        until(lambda: health(port) == (200, []))


def test_a_working_worker_is_healthy_also_while_redis_is_away(watched: House, port: int) -> None:
    assert health(port) == (200, [])
    process = watched.broker._process
    assert process is not None
    process.send_signal(signal.SIGSTOP)
    try:
        with patience() as until:
            until(lambda: read(port)["captionq_redis_up", "broker"] == 0)
            assert health(port) == (200, [])
    finally:
        process.send_signal(signal.SIGCONT)
    with patience() as until:
        until(lambda: read(port)["captionq_redis_up", "broker"] == 1)


def test_nothing_but_metrics_and_health_is_served(watched: House, port: int) -> None:
    with pytest.raises(HTTPError, match="404"):
        urlopen(f"http://127.0.0.1:{port}/", timeout=10)


def test_given_a_port_that_is_taken_a_worker_says_so_and_ends(
    watched: House, port: int, tmp_path: Path
) -> None:
    from tests.worker_process import WorkerProcess

    log = tmp_path / "worker.log"
    with WorkerProcess(log, watched.environment, ready=False) as worker:
        assert worker.process.wait(TIMEOUT_S) == 78
    assert f"METRICS_PORT={port}" in log.read_text()
