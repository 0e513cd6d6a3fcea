"""A real worker finds its batch size before it takes work, and its threads follow."""

import re
from pathlib import Path

from producer import CaptionJob, Client, JobState
from producer.embedded import RedisServer
from tests.house import PNG
from tests.worker_process import WorkerProcess
from worker.settings import MIN_THREADS

MEASURED = re.compile(r"batch size (\d+): [\d.]+ images/s, .*; tried 1: ")
REMEMBERED = re.compile(r"batch size (\d+), as measured before")
THREADS = re.compile(r"concurrency: (\d+) \(thread\)")


def test_given_no_batch_size_a_worker_measures_it_says_so_and_remembers_it(tmp_path: Path) -> None:
    (tmp_path / "scene.png").write_bytes(PNG)
    with RedisServer(tmp_path / "redis") as broker, Client(broker.url) as client:
        settings = {
            "CAPTIONQ_BROKER_URL": broker.url,
            "CAPTIONQ_HOME": str(tmp_path / "home"),
            "CAPTIONQ_FILE_ROOT": str(tmp_path),
        }
        with WorkerProcess(tmp_path / "first.log", settings) as worker:
            first = worker.log
            job = client.submit(CaptionJob(image=(tmp_path / "scene.png").as_uri()))
            assert job.result(60).state is JobState.SUCCEEDED
        with WorkerProcess(tmp_path / "second.log", settings) as worker:
            second = worker.log
    [batch] = MEASURED.findall(first)
    threads = str(max(MIN_THREADS, 4 * int(batch)))
    assert THREADS.findall(first) == [threads]
    assert REMEMBERED.findall(second) == [batch]
    assert THREADS.findall(second) == [threads]
