"""`captionq-worker bench service`: a real worker behind a real Redis, and what it gets done.

Everything is on this machine: an embedded Redis, a server of images, a worker process. Rates are
counted by the worker's device thread between a tenth and nine tenths of the work, all of which
waits in the queue before; so neither submitting nor reading results is measured with it.
"""

import json
import math
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.request import urlopen

import redis
from celery import Celery
from typer import Option

from producer.client import Client
from producer.contract import CaptionChunk, CaptionJob, CaptionOptions, Job, JobResult
from producer.queues import queue_for
from producer.redis_server import RedisServer
from worker.bench.images import MAX_PER_HOST, jpeg, served
from worker.bench.processes import Worker, free_port, ready
from worker.flags import AsJson

__all__ = ["bench_service"]

Engine = Literal["null", "timed", "bundled", "base"]
Intake = Literal["real", "null"]
Lane = Literal["interactive", "bulk"]
URI_CHARS = 80
PROBES = 40
IDLE_JOBS = 31
BEGIN, END = 0.1, 0.9
"""Parts of the work between which rates are taken."""
SCRAPED_EVERY_S = 5
ENOUGH = 3
"""How much more load waits behind interactive jobs than was worked off in that time before."""


@dataclass(frozen=True)
class Plan:
    """What is measured."""

    engine: Engine
    intake: Intake
    lane: Lane
    chunk: int
    images: int
    max_batch: int
    rate: float | None
    seconds: float
    kilobytes: int
    beams: int
    tokens: int
    dtype: str
    ratios: bool
    metrics: bool = False


def bench_service(
    engine: Annotated[
        Engine,
        Option(
            help="null answers at once; timed sleeps for 20 ms and 0.4 ms an image; bundled; or "
            "base, BLIP-base with random weights."
        ),
    ] = "bundled",
    intake: Annotated[
        Intake, Option(help="null: nothing is fetched or decoded: the plumbing alone.")
    ] = "real",
    lane: Annotated[Lane, Option(help="Lane of the load.")] = "bulk",
    chunk: Annotated[int, Option(min=0, max=64, help="Images in one message; 0: single jobs.")] = 0,
    images: Annotated[int | None, Option(min=100, help="Images of the load.")] = None,
    max_batch: Annotated[int, Option(min=1, help="As CAPTIONQ_MAX_BATCH.")] = 64,
    rate: Annotated[
        float | None,
        Option(help="Latency at so many single jobs a second; without: of jobs beside the load."),
    ] = None,
    seconds: Annotated[float, Option(help="How long latency is measured.")] = 10,
    kilobytes: Annotated[int, Option(min=10, max=2_000, help="About the size of a JPEG.")] = 100,
    beams: Annotated[int, Option(min=1)] = 1,
    tokens: Annotated[int, Option(min=1)] = 12,
    dtype: Annotated[str, Option(help="As CAPTIONQ_DTYPE.")] = "float32",
    ratios: Annotated[bool, Option(help="Also what it is compared with.")] = True,
    metrics: Annotated[
        bool, Option(help=f"Serve metrics, and read them every {SCRAPED_EVERY_S} seconds.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """A worker behind Redis: images/s, batch fill, occupancy, latency, memory, and ratios.

    p50_ms, p95_ms, p99_ms: from before a job is submitted to its end in the worker; messages_left:
    what still waited of the load behind them, which is to be more than 0.
    idle_overhead_ms: until the producer has the result, beyond fetching, decoding and the device.

    device_occupancy: how much of the time the device thread was at a batch; worker_cores and
    decoder_cores: how many cores the worker's own process, and its decoders, were busy on.

    engine_ratio: against the engine alone, in batches as large as MAX_BATCH.
    celery_ratio: messages/s against a bare Celery task that does nothing (engine null).
    intake_ratio: against fetching and decoding the same images without a queue (engine null).
    """
    many = {"null": 20_000, "timed": 20_000, "bundled": 2_000, "base": 300}[engine]
    few = {"null": 4_000, "timed": 6_000, "bundled": 2_000, "base": 120}[engine]
    plan = Plan(
        engine, intake, lane, chunk,
        images or (many if chunk and intake == "null" else few),
        max_batch, rate, seconds, kilobytes, beams, tokens, dtype, ratios, metrics,
    )  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="captionq-bench-") as folder:
        found = Service(plan, Path(folder)).measure()
    print(json.dumps(found) if as_json else _report(found))


class Service:
    """One measurement."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self._plan = plan
        self._folder = folder
        self._file = jpeg(plan.kilobytes * 1_000)
        self._number = 0
        self._metrics_port = free_port() if plan.metrics else 0

    def measure(self) -> dict[str, Any]:
        """Everything, by name."""
        plan = self._plan
        with ExitStack() as stack:
            self._port = stack.enter_context(served(self._file))
            self._broker = stack.enter_context(RedisServer(self._folder / "redis"))
            self._client = stack.enter_context(Client(self._broker.url))
            self._redis = stack.enter_context(redis.Redis.from_url(self._broker.url))
            load = self._load(plan.images)
            handles = self._client.submit_many(islice(load, 1))  # connections, scripts: once
            further = max(1, plan.images - max(1, plan.chunk))
            before = self._memory()
            began_s = time.perf_counter()
            handles += self._client.submit_many(load)
            submitted_s = time.perf_counter() - began_s
            found: dict[str, Any] = {
                "engine": plan.engine, "intake": plan.intake, "lane": plan.lane,
                "chunk": plan.chunk, "images": plan.images,
                "submitted_per_s": further / submitted_s,
                "redis_bytes_per_image": (self._memory() - before) / further,
            }  # fmt: skip
            with ready(self._worker()) as worker, self._scraped():
                found |= self._saturated(worker)
                for _ in self._client.as_completed(handles, 600):
                    pass
                found |= self._idle(worker)
                found |= self._latency(worker, found["images_per_s"])
                found["worker_mib"] = worker.mebibytes()
            if plan.ratios:
                found |= self._ratios(found)
        return found

    def _worker(self) -> Worker:
        plan = self._plan
        settings = {
            "CAPTIONQ_BROKER_URL": self._broker.url,
            "CAPTIONQ_CAPTION_MODEL": self._checkpoint(),
            "CAPTIONQ_MATCH_MODEL": "none",
            "CAPTIONQ_MAX_BATCH": str(plan.max_batch),
            "CAPTIONQ_FETCH_ALLOW": f"127.0.0.1/32:{self._port}",
            "CAPTIONQ_MAX_PER_HOST": str(MAX_PER_HOST),
            "CAPTIONQ_DTYPE": plan.dtype,
            "CAPTIONQ_DEVICE": "cpu",
            "CAPTIONQ_HOME": str(self._folder / "home"),
            "BENCH_ENGINE": plan.engine,
            "BENCH_INTAKE": plan.intake,
            "CAPTIONQ_METRICS_PORT": str(self._metrics_port),
        }
        return Worker("worker.bench.app", self._folder, settings)

    @contextmanager
    def _scraped(self) -> Iterator[None]:
        """The block with the worker's metrics read meanwhile, as Prometheus would."""
        ended = threading.Event()

        def scrape() -> None:
            while not ended.wait(SCRAPED_EVERY_S):
                address = f"http://127.0.0.1:{self._metrics_port}/metrics"
                with urlopen(address, timeout=10) as answer:
                    answer.read()

        thread = threading.Thread(target=scrape, daemon=True)
        if self._metrics_port:
            thread.start()
        try:
            yield
        finally:
            ended.set()

    def _checkpoint(self) -> str:
        if self._plan.engine != "base":
            return "bundled"
        folder = self._folder / "base"
        if not folder.exists():
            from worker.blip.random_checkpoint import write_random_checkpoint

            folder.mkdir()
            write_random_checkpoint(folder)
        return str(folder)

    def _uri(self) -> str:
        self._number += 1
        head = f"http://127.0.0.1:{self._port}/"
        return f"{head}{self._number:0{URI_CHARS - len(head) - 4}d}.jpg"

    def _job(self, lane: Lane) -> CaptionJob:
        return CaptionJob(image=self._uri(), options=self._options, lane=lane)

    @property
    def _options(self) -> CaptionOptions:
        tokens = self._plan.tokens
        return CaptionOptions(
            num_beams=self._plan.beams, max_new_tokens=tokens, min_new_tokens=tokens
        )

    def _load(self, images: int) -> Iterator[Job]:
        plan = self._plan
        if not plan.chunk:
            yield from (self._job(plan.lane) for _ in range(images))
            return
        for begin in range(0, images, plan.chunk):
            uris = tuple(self._uri() for _ in range(min(plan.chunk, images - begin)))
            yield CaptionChunk(images=uris, options=self._options, lane=plan.lane)

    def _memory(self) -> int:
        return int(self._redis.info("memory")["used_memory"])

    def _saturated(self, worker: Worker) -> dict[str, Any]:
        used: list[tuple[float, float]] = []
        for part in (BEGIN, END):
            counts = worker.wait_until_done(math.ceil(self._plan.images * part))
            used.append(worker.cores_s())
        first = next(count for count in counts if count.images >= self._plan.images * BEGIN)
        last = next(count for count in counts if count.images >= self._plan.images * END)
        wall_s = last.at_s - first.at_s
        fill = (last.images - first.images) / max(1, last.batches - first.batches)
        return {
            "images_per_s": (last.images - first.images) / wall_s,
            "batch_fill": fill / self._plan.max_batch,
            "device_occupancy": (last.busy_s - first.busy_s) / wall_s,
            "worker_cores": (used[1][0] - used[0][0]) / wall_s,
            "decoder_cores": (used[1][1] - used[0][1]) / wall_s,
        }

    def _idle(self, worker: Worker) -> dict[str, Any]:
        """What a job takes on an idle system, until its producer has the result, beyond its own
        fetching, decoding and time on the device; waiting for the device is none of these."""
        taken = []
        began = worker.settled()
        for _ in range(IDLE_JOBS):
            began_s, handle = time.time(), self._client.submit(self._job("interactive"))
            result = handle.result(60).raise_for_state()
            taken.append(1_000 * (time.time() - began_s) - _intake_ms(result))
            time.sleep(0.02)
        ended = worker.settled()
        device_ms = 1_000 * (ended.busy_s - began.busy_s) / max(1, ended.batches - began.batches)
        return {"idle_overhead_ms": statistics.median(taken) - device_ms}

    def _latency(self, worker: Worker, rate: float) -> dict[str, Any]:
        """Of single jobs at a rate; without one, of interactive jobs while bulk work waits."""
        plan = self._plan
        if plan.rate is not None:
            pauses, jobs = 1 / plan.rate, int(plan.rate * plan.seconds)
            lane: Lane = plan.lane
        else:
            pauses, jobs, lane = plan.seconds / PROBES, PROBES, "interactive"
            self._client.submit_many(self._load(max(64, math.ceil(ENOUGH * rate * plan.seconds))))
        began = worker.counts()[-1]
        with ThreadPoolExecutor(64) as threads:
            begun_s, results = time.monotonic(), []
            for number in range(jobs):
                time.sleep(max(0.0, begun_s + number * pauses - time.monotonic()))
                sent_s, handle = time.time(), self._client.submit(self._job(lane))
                results.append((sent_s, threads.submit(handle.result, 120)))
            latencies = sorted(_latency_ms(sent_s, one.result()) for sent_s, one in results)
        ended = worker.counts()[-1]
        batch_ms = 1_000 * (ended.busy_s - began.busy_s) / max(1, ended.batches - began.batches)
        found: dict[str, Any] = {
            "p50_ms": _percentile(latencies, 50),
            "p95_ms": _percentile(latencies, 95),
            "p99_ms": _percentile(latencies, 99),
            "batch_ms": batch_ms,
        }
        if plan.rate is None:
            load = queue_for("caption", None, plan.lane)
            found["messages_left"] = self._redis.llen(load)
            self._redis.delete(load)
        return found

    def _ratios(self, found: dict[str, Any]) -> dict[str, Any]:
        from worker.bench import alone

        plan, rate = self._plan, found["images_per_s"]
        if plan.engine == "timed":
            return {"engine_ratio": rate / alone.timed_rate(plan.max_batch)}
        if plan.engine != "null":
            checkpoint = self._checkpoint()
            own = alone.engine_rate(
                checkpoint, plan.max_batch, plan.dtype, plan.beams, plan.tokens, plan.images
            )
            return {"engine_per_s": own, "engine_ratio": rate / own}
        if plan.intake == "real":
            own = alone.intake_rate(self._port, plan.images)
            return {"intake_per_s": own, "intake_ratio": rate / own}
        own = self._noop_rate()
        return {"celery_per_s": own, "celery_ratio": rate / max(1, plan.chunk) / own}

    def _noop_rate(self) -> float:
        """Messages per second of a bare Celery worker, in the same number of threads."""
        from worker.settings import WorkerSettings

        messages = 6_000
        with (
            RedisServer(self._folder / "noop") as broker,
            redis.Redis.from_url(broker.url) as client,
            Celery(broker=broker.url, backend="disabled://", set_as_current=False) as app,
            app.connection_for_write() as connection,
            connection.Producer() as producer,
        ):
            job = {"job": self._job("bulk").model_dump(mode="json")}
            for _ in range(messages):
                app.send_task("bench.noop", kwargs=job, producer=producer, ignore_result=True)
            threads = WorkerSettings.model_construct().threads(self._plan.max_batch)
            worker = Worker(
                "worker.bench.noop",
                self._folder,
                {"BENCH_BROKER": broker.url, "CAPTIONQ_BROKER_URL": broker.url},
                ("-c", str(threads)),
            )
            passed: list[tuple[float, int]] = []
            with ready(worker):
                while (left := int(client.llen("celery"))) > messages * (1 - END):
                    passed.append((time.monotonic(), messages - left))
                    time.sleep(0.02)
                passed.append((time.monotonic(), messages - left))
        first = next(one for one in passed if one[1] >= messages * BEGIN)
        return (passed[-1][1] - first[1]) / (passed[-1][0] - first[0])


def _latency_ms(began_s: float, result: JobResult) -> float:
    """From before it was submitted to its end, both by this machine's clock."""
    return 1_000 * (result.raise_for_state().finished_at.timestamp() - began_s)


def _intake_ms(result: JobResult) -> float:
    timings = result.timings
    assert timings is not None  # noqa: S101
    return sum(part or 0 for part in (timings.fetch_ms, timings.decode_ms))


def _percentile(values: list[float], percent: int) -> float:
    return values[min(len(values) - 1, math.ceil(len(values) * percent / 100) - 1)]


def _report(found: dict[str, Any]) -> str:
    rows = []
    for name, value in found.items():
        shown = f"{value:,.3f}" if isinstance(value, float) else str(value)
        rows.append(f"  {name:<24}{shown:>14}")
    return "\n".join(rows)
