"""What Prometheus is told of one gateway."""

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import Scope

from producer.gateway.open_jobs import OpenJobs
from producer.queues import Lane

BUCKETS_S = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """Of one app, in a registry of its own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "captionq_gateway_requests_total",
            "Requests answered",
            ("route", "method", "status"),
            registry=self._registry,
        )
        self._latency = Histogram(
            "captionq_gateway_request_seconds",
            "Until the head of the answer",
            ("route", "method"),
            buckets=BUCKETS_S,
            registry=self._registry,
        )
        self._jobs = Counter(
            "captionq_gateway_jobs_total",
            "Jobs submitted that were not known before",
            ("task",),
            registry=self._registry,
        )
        self.streams = Gauge(
            "captionq_gateway_streams", "Streams of events that are open", registry=self._registry
        )
        self._open = Gauge(
            "captionq_open_jobs", "Jobs that have not ended", ("lane",), registry=self._registry
        )
        self._oldest_s = Gauge(
            "captionq_open_oldest_seconds",
            "Since anything happened to the open job to which nothing did for longest",
            ("lane",),
            registry=self._registry,
        )
        self._children: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}

    def answered(self, scope: Scope, status: int, took_s: float) -> None:
        """One request has its answer."""
        route = getattr(scope.get("route"), "path", "none")
        method = scope["method"] if route != "none" else "any"
        key = (route, method, status)
        found = self._children.get(key)
        if found is None:
            found = self._children[key] = (
                self._requests.labels(route, method, str(status)),
                self._latency.labels(route, method),
            )
        found[0].inc()
        found[1].observe(took_s)

    def submitted(self, task: str, count: int = 1) -> None:
        """So many jobs are new."""
        self._jobs.labels(task).inc(count)

    def open(self, found: Mapping[Lane, OpenJobs]) -> None:
        """So many jobs have not ended; lanes that are not named are not known of."""
        self._open.clear()
        self._oldest_s.clear()
        for lane, open_ in found.items():
            self._open.labels(lane).set(open_.jobs)
            self._oldest_s.labels(lane).set(open_.oldest_s)

    def text(self) -> bytes:
        """All of it, in Prometheus' text format."""
        return generate_latest(self._registry)
