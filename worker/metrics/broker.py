"""What waits in Redis, as seen by whoever asks; read at most once in a few seconds."""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import redis
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from producer.errors import BrokerUnavailable
from producer.ledger import Ledger
from producer.queues import BULK, INTERACTIVE, is_bulk
from worker.backlog import PRIORITY_STEPS, SEP, job_id_of
from worker.inflight import Keys
from worker.rabbit import RabbitQueues

__all__ = ["Broker", "Waiting"]

log = logging.getLogger(__name__)

KEPT_S = 5.0
HOSTS = 1_000
"""Hosts whose callbacks are counted; those that are due first."""


@dataclass(frozen=True)
class Waiting:
    """What one reading found; None where that part did not answer."""

    depths: dict[str, int] | None = None
    """Messages by queue."""
    ages_s: dict[str, float] = field(default_factory=dict)
    """Since the oldest job next in line was submitted, by queue; those that nobody recorded, of
    plain Celery clients, have none."""
    delayed: int = 0
    in_flight: int = 0
    results: dict[str, float] | None = None
    """dead letters, workers, callbacks and how late the first is; memory where that may be read."""


class Broker(Collector):
    """Gauges of the queues that this worker serves, and of the results store.

    A Redis that is away costs a scrape the clients' timeout, and its gauges are left out but for
    `captionq_redis_up`.

    Args:
        broker: the broker's Redis, with FOREIGN; or RabbitMQ's queues, which tell depths alone.
        results: the results store's, likewise.
        queues: those served.
    """

    def __init__(
        self,
        broker: "redis.Redis | RabbitQueues",
        results: redis.Redis,
        ledger: Ledger,
        queues: Sequence[str],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._broker, self._results, self._ledger = broker, results, ledger
        self._is_redis = isinstance(broker, redis.Redis)
        self._queues, self._clock = tuple(queues), clock
        self._lock = threading.Lock()
        self._read_s: float | None = None
        self._last = Waiting()

    def read(self) -> Waiting:
        """What waits, a few seconds old at most. Never raises."""
        with self._lock:
            now_s = self._clock()
            if self._read_s is None or now_s - self._read_s >= KEPT_S:
                self._last, self._read_s = self._read(), now_s
            return self._last

    def close(self) -> None:
        """Close the connections."""
        self._results.close()
        self._broker.close()

    def collect(self) -> Iterator[Metric]:
        """The gauges."""
        seen = self.read()
        up = GaugeMetricFamily("captionq_redis_up", "Whether Redis answers", labels=["role"])
        if self._is_redis:
            up.add_metric(["broker"], float(seen.depths is not None))
        up.add_metric(["results"], float(seen.results is not None))
        yield up
        by_queue = ["queue", "lane"]
        depth = GaugeMetricFamily("captionq_queue_depth", "Messages that wait", labels=by_queue)
        age = GaugeMetricFamily(
            "captionq_queue_oldest_seconds",
            "Since the oldest job next in line was submitted; 0 where none waits",
            labels=by_queue,
        )
        for queue, messages in (seen.depths or {}).items():
            lane = BULK if is_bulk(queue) else INTERACTIVE
            depth.add_metric([queue, lane], messages)
            if queue in seen.ages_s or not messages:
                age.add_metric([queue, lane], seen.ages_s.get(queue, 0.0))
        yield depth
        yield age
        elsewhere = GaugeMetricFamily(
            "captionq_messages", "Messages out of their queues", labels=["place"]
        )
        if seen.depths is not None and self._is_redis:
            elsewhere.add_metric(["delayed"], seen.delayed)
            elsewhere.add_metric(["in_flight"], seen.in_flight)
        yield elsewhere
        results = seen.results or {}
        for name, says in _SAYS.items():
            yield GaugeMetricFamily(f"captionq_{name}", says, value=results.get(name))

    def _read(self) -> Waiting:
        depths, ages, delayed, in_flight, results = None, {}, 0, 0, None
        try:
            if isinstance(self._broker, RabbitQueues):
                results = self._stored()
                depths = self._broker.depths(self._queues)
            else:
                depths, heads, delayed, in_flight = self._queued(self._broker)
                results = self._stored()
                ages = self._ages(heads)
        except (redis.RedisError, BrokerUnavailable, ValueError) as exc:  # others write there too
            log.debug("what waits cannot be read: %s", exc)
        return Waiting(depths, ages, delayed, in_flight, results)

    def _queued(self, broker: redis.Redis) -> tuple[dict[str, int], dict[str, list[str]], int, int]:
        keys = Keys()
        with broker.pipeline(transaction=False) as pipeline:
            for queue in self._queues:
                for name in _lists(queue):
                    pipeline.llen(name)
                    pipeline.lrange(name, -1, -1)
            pipeline.zcard(keys.delayed)
            pipeline.hlen(keys.inflight)
            found = pipeline.execute()
        depths: dict[str, int] = {}
        heads: dict[str, list[str]] = {}
        for queue in self._queues:
            for _ in PRIORITY_STEPS:
                length, next_in_line, *found = found
                depths[queue] = depths.get(queue, 0) + length
                ids = [job_id for one in next_in_line if (job_id := job_id_of(one))]
                if ids:
                    heads.setdefault(queue, []).extend(ids)
        return depths, heads, found[0], found[1]

    def _ages(self, heads: dict[str, list[str]]) -> dict[str, float]:
        with self._results.pipeline(transaction=False) as pipeline:
            pipeline.time()
            for ids in heads.values():
                for job_id in ids:
                    pipeline.hget(self._ledger.key(job_id), "opened_ms")
            (seconds, microseconds), *opened = pipeline.execute()
        now_s, ages = seconds + microseconds / 1e6, {}
        for queue, ids in heads.items():
            known = [float(ms) / 1e3 for ms in opened[: len(ids)] if ms]
            opened = opened[len(ids) :]
            if known:
                ages[queue] = max(0.0, now_s - min(known))
        return ages

    def _stored(self) -> dict[str, float]:
        prefix = self._ledger.prefix
        with self._results.pipeline(transaction=False) as pipeline:
            pipeline.time()
            pipeline.xlen(self._ledger.dead_key())
            pipeline.smembers(f"{prefix}workers")
            pipeline.zrange(f"{prefix}callbacks", 0, HOSTS - 1, withscores=True)
            (seconds, microseconds), dead, names, hosts = pipeline.execute()
        now_ms = seconds * 1e3 + microseconds / 1e3
        offset_s = time.time() - now_ms / 1e3
        with self._results.pipeline(transaction=False) as pipeline:
            for name in names:
                pipeline.exists(f"{prefix}worker:{name}")
            for host, _ in hosts:
                pipeline.zcard(f"{prefix}callbacks:{host}")
            counts = pipeline.execute()
        first_ms = min((float(score) for _, score in hosts), default=now_ms)
        return {
            "dead_letters": dead,
            "clock_offset_seconds": offset_s,
            "workers": sum(counts[: len(names)]),
            "callbacks_pending": sum(counts[len(names) :]),
            "callbacks_late_seconds": max(0.0, now_ms - first_ms) / 1e3,
            **self._memory(),
        }

    def _memory(self) -> dict[str, float]:
        try:
            memory: Any = self._results.info("memory")
        except redis.ResponseError:  # its user may not ask
            return {}
        most = memory.get("maxmemory") or memory.get("total_system_memory") or 0
        return {"redis_memory_used_bytes": memory["used_memory"], "redis_memory_max_bytes": most}


_SAYS = {
    "dead_letters": "Dead letters that are kept",
    "clock_offset_seconds": "This machine's clock less that of the results store",
    "workers": "Worker processes that live, of all hosts",
    "callbacks_pending": "Callbacks that are to be tried, now or later",
    "callbacks_late_seconds": "How long the first callback has been due",
    "redis_memory_used_bytes": "Of the results store",
    "redis_memory_max_bytes": "Its maxmemory, or else its machine's memory",
}


def _lists(queue: str) -> Iterable[str]:
    return (f"{queue}{SEP}{step}" if step else queue for step in PRIORITY_STEPS)
