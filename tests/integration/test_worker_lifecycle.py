"""Starting, stopping and outages of a real worker process."""

import os
import random
import signal
import threading
import time
from io import BytesIO
from pathlib import Path

import pytest
import redis
from celery import Celery

from producer import CaptionJob, Client, JobResult, JobState
from producer.embedded import RedisServer
from producer.queues import DEFAULT_QUEUE
from tests.servers import Reply, ScriptedHttp
from tests.worker_process import WorkerProcess
from worker.settings import EX_CONFIG
from worker.shutdown import END_TIMEOUT_S
from worker.training import scenes


def png(seed: int = 3) -> bytes:
    out = BytesIO()
    scenes.draw(scenes.sample(random.Random(seed), shapes=1), side=96).save(out, "PNG")
    return out.getvalue()


def environment(broker: RedisServer, web: ScriptedHttp) -> dict[str, str]:
    return {
        "CAPTIONQ_BROKER_URL": broker.url,
        "CAPTIONQ_FETCH_ALLOW": f"127.0.0.1/32:{web.port}",
        "CAPTIONQ_MATCH_MODEL": "none",
        "CAPTIONQ_MAX_BATCH": "4",
    }


def test_given_running_jobs_when_the_worker_is_terminated_none_is_lost_and_none_doubled(
    tmp_path: Path,
) -> None:
    paths = [f"/{n}.png" for n in range(40)]
    routes = {path: [Reply(200, png(n), delay_s=0.2)] for n, path in enumerate(paths)}
    with (
        RedisServer(tmp_path / "redis") as broker,
        ScriptedHttp(routes) as web,
        Client(broker.url) as client,
    ):
        settings = environment(broker, web)
        with WorkerProcess(tmp_path / "first.log", settings, name="first") as first:
            handles = client.submit_many([CaptionJob(image=web.url(path)) for path in paths])
            next(client.as_completed(handles, 60))
            first.terminate()
            assert first.process.wait(60) == 0
        states = [record.state for handle in handles if (record := handle.status())]
        assert set(states) == {JobState.SUCCEEDED, JobState.QUEUED}, "terminated in the middle"
        with WorkerProcess(tmp_path / "second.log", settings, name="second"):
            results = list(client.as_completed(handles, 60))
        assert [r.state for r in results] == [JobState.SUCCEEDED] * len(handles)
        assert {path: web.hits(path) for path in paths} == dict.fromkeys(paths, 1)


def test_given_jobs_that_hang_when_the_worker_has_to_end_they_go_back_uncounted(
    tmp_path: Path,
) -> None:
    """At a second signal."""
    paths = [f"/{n}.png" for n in range(12)]
    routes = {path: [Reply(200, png(n))] for n, path in enumerate(paths)}
    routes |= {path: [Reply(200, png(1), delay_s=8), Reply(200, png(1))] for path in paths[:8]}
    with (
        RedisServer(tmp_path / "redis") as broker,
        ScriptedHttp(routes) as web,
        Client(broker.url) as client,
        redis.Redis.from_url(broker.url) as plain,
    ):
        settings = environment(broker, web)
        with WorkerProcess(tmp_path / "first.log", settings, name="first") as first:
            handles = client.submit_many([CaptionJob(image=web.url(path)) for path in paths])
            while web.hits() < 8:
                time.sleep(0.01)
            first.terminate()
            first.wait_for_log("Warm shutdown", 10)
            first.terminate()
            began_s = time.monotonic()
            assert first.process.wait(10) == 0
            assert time.monotonic() - began_s < 5
        assert plain.hlen("captionq.inflight") == plain.zcard("captionq.leases") == 0
        records = [client.status(handle.job_id) for handle in handles]
        assert {(r.state, r.history) for r in records if r} == {(JobState.QUEUED, ())}
        with WorkerProcess(tmp_path / "second.log", settings, name="second"):
            results = list(client.as_completed(handles, 60))
        assert [r.state for r in results] == [JobState.SUCCEEDED] * len(handles)
        assert {r.attempts for r in results} == {1}


@pytest.mark.parametrize("how", ["the button in Flower", "SIGHUP"])
def test_given_an_end_that_is_no_signal_of_termination_leases_are_kept_while_the_last_jobs_run(
    tmp_path: Path, how: str
) -> None:
    routes = {f"/{n}.png": [Reply(200, png(n), delay_s=4)] for n in range(4)}
    with (
        RedisServer(tmp_path / "redis") as broker,
        ScriptedHttp(routes) as web,
        Client(broker.url) as client,
        redis.Redis.from_url(broker.url) as plain,
        Celery(broker=broker.url, set_as_current=False) as operator,
    ):
        settings = environment(broker, web) | {"CAPTIONQ_VISIBILITY_TIMEOUT_S": "2"}
        with WorkerProcess(tmp_path / "worker.log", settings) as worker:
            handles = client.submit_many([CaptionJob(image=web.url(path)) for path in routes])
            while web.hits() < len(routes):
                time.sleep(0.01)
            if how == "SIGHUP":
                worker.process.send_signal(signal.SIGHUP)
            else:
                operator.control.shutdown(destination=["test@localhost"])
            results, began_s = client.as_completed(handles, 30), time.monotonic()
            done = threading.Thread(target=lambda: ended.extend(results), daemon=True)
            ended: list[JobResult] = []
            done.start()
            while done.is_alive() and time.monotonic() < began_s + 30:
                assert plain.zrangebyscore("captionq.leases", "-inf", time.time() * 1_000) == []
                done.join(0.05)
        assert [one.state for one in ended] == [JobState.SUCCEEDED] * len(routes)


def test_given_a_first_sigquit_everything_goes_back_at_once(tmp_path: Path) -> None:
    routes = {f"/{n}.png": [Reply(200, png(n), delay_s=8)] for n in range(4)}
    with (
        RedisServer(tmp_path / "redis") as broker,
        ScriptedHttp(routes) as web,
        Client(broker.url) as client,
        redis.Redis.from_url(broker.url) as plain,
    ):
        with WorkerProcess(tmp_path / "worker.log", environment(broker, web)) as worker:
            handles = client.submit_many([CaptionJob(image=web.url(path)) for path in routes])
            while web.hits() < len(routes):
                time.sleep(0.01)
            worker.process.send_signal(signal.SIGQUIT)
            began_s = time.monotonic()
            assert worker.process.wait(10) == 0
            assert time.monotonic() - began_s < 5
        assert "Error" not in worker.log
        assert plain.hlen("captionq.inflight") == plain.zcard("captionq.leases") == 0
        records = [client.status(handle.job_id) for handle in handles]
        assert {(r.state, r.history) for r in records if r} == {(JobState.QUEUED, ())}


def test_given_jobs_that_hang_with_the_results_store_they_go_back_when_the_time_is_over(
    tmp_path: Path,
) -> None:
    stages = {"FETCH": 0.5, "DECODE": 0.5, "BATCH": 0.5, "INFER": 1, "SHUTDOWN": 4}
    with (
        RedisServer(tmp_path / "broker") as broker,
        RedisServer(tmp_path / "results") as results,
        ScriptedHttp({}) as web,
        redis.Redis.from_url(broker.url) as plain,
        Celery(broker=broker.url, set_as_current=False) as operator,
    ):
        settings = environment(broker, web) | {
            "CAPTIONQ_RESULTS_URL": results.url,
            "CAPTIONQ_RECONCILE_EVERY_S": "0",
            "CAPTIONQ_STORE_PATIENCE_S": "1",
            **{f"CAPTIONQ_{stage}_TIMEOUT_S": str(s) for stage, s in stages.items()},
        }
        with WorkerProcess(tmp_path / "worker.log", settings) as worker:
            os.kill(results.pid, signal.SIGSTOP)
            try:
                for n in range(4):
                    job = {"image": web.url(f"/{n}.png")}
                    operator.send_task("captionq.caption", kwargs={"job": job}, ignore_result=True)
                while plain.hlen("captionq.inflight") < 4:
                    time.sleep(0.01)
                worker.terminate()
                began_s = time.monotonic()
                assert worker.process.wait(20) == 0
                assert 4 <= time.monotonic() - began_s < 4 + END_TIMEOUT_S
            finally:
                os.kill(results.pid, signal.SIGCONT)
        assert plain.hlen("captionq.inflight") == plain.zcard("captionq.leases") == 0
        assert plain.llen(DEFAULT_QUEUE) == 4


def test_given_a_job_longer_than_its_lease_it_runs_once_and_a_killed_workers_runs_elsewhere(
    tmp_path: Path,
) -> None:
    """Leases last 2 s here; the default of 20 s makes it 22 s until a killed worker's job runs."""
    routes = {
        "/long.png": [Reply(302, headers={"Location": "/longer.png"}, delay_s=2.5)],
        "/longer.png": [Reply(200, png(), delay_s=2.5)],
        "/next.png": [Reply(200, png(), delay_s=2)],
    }
    with (
        RedisServer(tmp_path / "redis") as broker,
        ScriptedHttp(routes) as web,
        Client(broker.url) as client,
    ):
        settings = environment(broker, web) | {"CAPTIONQ_VISIBILITY_TIMEOUT_S": "2"}
        with (
            WorkerProcess(tmp_path / "one.log", settings, name="one") as one,
            WorkerProcess(tmp_path / "two.log", settings, name="two") as two,
        ):
            handle = client.submit(CaptionJob(image=web.url("/long.png")))
            result = handle.result(60)
            record = handle.status()
            assert record is not None
            assert (result.state, len(record.history)) == (JobState.SUCCEEDED, 1)
            assert web.hits("/long.png") == 1

            handle = client.submit(CaptionJob(image=web.url("/next.png")))
            while not web.hits("/next.png"):
                time.sleep(0.01)
            record = handle.status()
            assert record is not None
            holder, other = (one, two) if record.worker == "one@localhost" else (two, one)
            holder.process.kill()
            began_s = time.monotonic()
            assert handle.result(60).state is JobState.SUCCEEDED
            assert time.monotonic() - began_s < 2 + 5 + 2
            record = handle.status()
            assert record is not None
            assert len({delivery.worker for delivery in record.history}) == 2
            assert other.process.poll() is None


def test_given_outages_of_redis_no_job_is_lost_and_the_device_runs_once_for_each(
    tmp_path: Path,
) -> None:
    """The results store is down for 5 s when results are published; then the broker restarts."""
    routes = {path: [Reply(200, png(), delay_s=2)] for path in ("/1.png", "/2.png", "/3.png")}
    with (
        RedisServer(tmp_path / "broker") as broker,
        RedisServer(tmp_path / "results") as results,
        ScriptedHttp(routes) as web,
        Client(broker.url, results.url) as client,
        Celery(broker=broker.url, backend=results.url, set_as_current=False) as plain,
    ):
        settings = environment(broker, web) | {
            "CAPTIONQ_RESULTS_URL": results.url,
            "CAPTIONQ_LOG_LEVEL": "DEBUG",  # Celery's lines as well
        }
        with WorkerProcess(tmp_path / "worker.log", settings) as worker:
            handle = client.submit(CaptionJob(image=web.url("/1.png")))
            theirs = plain.send_task(
                "captionq.caption", kwargs={"job": {"image": web.url("/2.png")}}
            )
            while not (web.hits("/1.png") and web.hits("/2.png")):
                time.sleep(0.01)
            results.stop()
            outage = threading.Timer(5, results.restart)
            outage.start()
            worker.wait_for_log("the results store is away", 30)
            outage.join()
            assert handle.result(60).state is JobState.SUCCEEDED
            assert handle.result().attempts == 1
            assert theirs.get(timeout=60)["state"] == "succeeded"
            assert worker.log.count("received") == 2, "one delivery each, one run each"

            handle = client.submit(CaptionJob(image=web.url("/3.png")))
            while not web.hits("/3.png"):
                time.sleep(0.01)
            broker.kill()
            broker.restart()
            assert handle.result(60).state is JobState.SUCCEEDED
            assert worker.process.poll() is None, "the worker lives on"
            after = client.submit(CaptionJob(image=web.url("/1.png")))
            assert after.result(60).state is JobState.SUCCEEDED
            assert worker.process.poll() is None


@pytest.mark.parametrize(
    "pool",
    [
        pytest.param("processes", id="each process would need the models"),
        pytest.param("solo", id="jobs in the event loop lose their leases"),
    ],
)
def test_given_a_pool_other_than_threads_the_worker_refuses_it(tmp_path: Path, pool: str) -> None:
    with RedisServer(tmp_path / "redis") as broker:
        settings = {"CAPTIONQ_BROKER_URL": broker.url}
        log = tmp_path / "worker.log"
        with WorkerProcess(log, settings, ready=False, pool=pool) as worker:
            assert worker.process.wait(60) == EX_CONFIG
    assert "use -P threads" in worker.log


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        pytest.param({"CAPTIONQ_CAPTION_MODEL": "/nowhere"}, "/nowhere", id="no checkpoint"),
        pytest.param(
            {"CAPTIONQ_MAX_BATCH": "0"}, "CAPTIONQ_MAX_BATCH", id="a setting out of range"
        ),
    ],
)
def test_given_a_worker_that_cannot_start_it_ends_with_one_clear_sentence(
    tmp_path: Path, settings: dict[str, str], sentence: str
) -> None:
    with RedisServer(tmp_path / "redis") as broker:
        settings = {"CAPTIONQ_BROKER_URL": broker.url} | settings
        with WorkerProcess(tmp_path / "worker.log", settings, ready=False) as worker:
            assert worker.process.wait(60) == EX_CONFIG
    said = [line for line in worker.log.splitlines() if line.startswith("captionq-worker: ")]
    assert len(said) == 1
    assert sentence in said[0]
    assert "Traceback" not in worker.log
