"""A real worker that is fed what strangers make: it goes on, and each image fails alone."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from producer import CaptionJob, Client, JobResult, JobState
from producer.embedded import RedisServer
from tests.dying import ended
from tests.house import PNG
from tests.servers import Reply, ScriptedHttp
from tests.worker_process import WorkerProcess

DRIPPING = 16


@dataclass(frozen=True)
class Intake:
    web: ScriptedHttp
    dripping: list[ScriptedHttp]
    worker: WorkerProcess
    client: Client

    def caption(self, path: str) -> JobResult:
        return self.client.submit(CaptionJob(image=self.web.url(path))).result(60)

    @property
    def decoders(self) -> list[psutil.Process]:
        [nursery] = psutil.Process(self.worker.process.pid).children()
        return nursery.children()


@contextmanager
def opened(folder: Path) -> Iterator[Intake]:
    with ExitStack() as stack:
        broker = stack.enter_context(RedisServer(folder / "redis"))
        web = stack.enter_context(ScriptedHttp({"/fine.png": [Reply(200, PNG)]}))
        drip = {
            "/head.png": [Reply(200, PNG, headers={"X": "a" * 100_000}, drip_s=0.2)],
            "/body.png": [Reply(200, bytes(100_000), headers={}, drip_s=0.2)],
        }
        dripping = [stack.enter_context(ScriptedHttp(drip)) for _ in range(DRIPPING)]
        settings = {
            "CAPTIONQ_BROKER_URL": broker.url,
            "CAPTIONQ_FETCH_ALLOW": ",".join(
                f"127.0.0.1/32:{server.port}" for server in (web, *dripping)
            ),
            "CAPTIONQ_MATCH_MODEL": "none",
            "CAPTIONQ_MAX_BATCH": "4",
            "CAPTIONQ_DECODERS": "2",
            "CAPTIONQ_DECODE_TIMEOUT_S": "3",
            "CAPTIONQ_FETCH_TIMEOUT_S": "10",
        }
        worker = stack.enter_context(WorkerProcess(folder / "worker.log", settings))
        client = stack.enter_context(Client(broker.url))
        yield Intake(web, dripping, worker, client)


@pytest.fixture(scope="module")
def intake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Intake]:
    with opened(tmp_path_factory.mktemp("intake")) as opened_intake:
        yield opened_intake


def test_given_a_worker_then_its_decoders_are_there_before_the_first_image(intake: Intake) -> None:
    assert len(intake.decoders) == 2


def test_given_an_image_that_is_never_decoded_then_its_job_fails_and_the_next_is_fine(
    intake: Intake,
) -> None:
    for decoder in intake.decoders:
        decoder.suspend()
    results = [intake.caption("/fine.png") for _ in range(3)]
    assert [result.error and result.error.code for result in results] == [
        "decode_timeout",
        "decode_timeout",
        None,
    ]
    assert results[0].attempts == 1


def test_given_a_decoder_that_crashes_once_then_its_job_succeeds_the_second_time(
    intake: Intake,
) -> None:
    intake.caption("/fine.png")
    hits = intake.web.hits("/fine.png")
    for decoder in intake.decoders:
        decoder.suspend()
    handle = intake.client.submit(CaptionJob(image=intake.web.url("/fine.png")))
    while intake.web.hits("/fine.png") == hits:
        time.sleep(0.01)
    time.sleep(0.3)  # a decoder that is killed before it has the image would be replaced
    for decoder in intake.decoders:
        decoder.kill()
    result = handle.result(60)
    assert (result.state, result.attempts) == (JobState.SUCCEEDED, 2)
    assert "decode_crashed" in intake.worker.log


def test_given_decoders_that_ended_while_they_were_idle_then_no_job_is_tried_twice(
    intake: Intake,
) -> None:
    intake.caption("/fine.png")
    decoders = intake.decoders
    for decoder in decoders:
        decoder.kill()
    assert ended(*decoders)
    result = intake.caption("/fine.png")
    assert (result.state, result.attempts) == (JobState.SUCCEEDED, 1)


def test_given_sixteen_peers_that_drip_then_a_job_on_another_host_is_not_delayed(
    intake: Intake,
) -> None:
    alone_s = min(_took_s(intake) for _ in range(5))
    jobs = [
        CaptionJob(image=server.url("/head.png" if number % 2 else "/body.png"))
        for number, server in enumerate(intake.dripping)
    ]
    handles = intake.client.submit_many(jobs)
    while sum(server.hits() for server in intake.dripping) < DRIPPING:
        time.sleep(0.01)
    beside_s = min(_took_s(intake) for _ in range(5))
    assert beside_s < 2 * alone_s + 0.25, "more than its own time"
    assert all(
        record is not None and not record.state.terminal
        for record in (handle.status() for handle in handles)
    ), "the peers no longer dripped"


def _took_s(intake: Intake) -> float:
    began_s = time.monotonic()
    assert intake.caption("/fine.png").state is JobState.SUCCEEDED
    return time.monotonic() - began_s
