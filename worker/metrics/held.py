"""What a worker process holds at the moment of a scrape: nothing of this is counted meanwhile."""

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from producer.contract import ModelFacts
from producer.queues import BULK, INTERACTIVE
from worker.batcher import Batcher
from worker.leases import Leases
from worker.metrics.health import Health

__all__ = ["Held", "Use"]

log = logging.getLogger(__name__)

PREFIX = "captionq_"


class Use(Protocol):
    """worker.blip.device_use.DeviceUse."""

    @property
    def utilization(self) -> float | None:
        """0 to 1."""

    def _asdict(self) -> dict[str, Any]: ...


@dataclass(frozen=True, eq=False)
class Held(Collector):
    """Gauges of one process.

    Args:
        models: which weights answer each task.
        use: of the device; None for a CPU.
    """

    batcher: Batcher[Any]
    leases: Leases
    health: Health
    models: Mapping[str, ModelFacts]
    device: str
    use: Callable[[], Use | None]

    def collect(self) -> Iterator[Metric]:
        """The gauges."""
        healthy = float(not self.health.faults())
        yield _gauge("worker_healthy", "Whether /healthz says so", healthy)
        yield _gauge(
            "hub_silent_seconds", "Since the event loop was heard of", self.health.hub_silent_s()
        )
        yield _gauge(
            "device_thread_up", "Whether it runs batches", float(self.batcher.device_lives)
        )
        yield _gauge(
            "batch_running_seconds", "Of the batch on the device", self.batcher.running_s()
        )
        yield _gauge("max_batch", "Most images of a batch", self.batcher.max_batch)
        waiting = GaugeMetricFamily(
            f"{PREFIX}batcher_items", "Items that wait for the device", labels=["lane"]
        )
        for lane in (INTERACTIVE, BULK):
            waiting.add_metric([lane], self.batcher.waiting(lane))
        yield waiting
        yield _gauge("leases_held", "Messages held", self.leases.held())
        yield _counter("leases_lost", "Leases that ended too soon", self.leases.lost)
        yield _counter(
            "leases_ended",
            "Messages whose worker was gone, queued again here",
            self.leases.queued_again,
        )
        info = GaugeMetricFamily(
            f"{PREFIX}model_info",
            "The weights that answer a task",
            labels=["task", "model", "revision", "dtype", "device"],
        )
        for task, facts in self.models.items():
            info.add_metric([task, facts.id, facts.revision, facts.dtype, self.device], 1)
        yield info
        yield from self._device()

    def _device(self) -> Iterator[Metric]:
        try:
            use = self.use()
        except Exception as exc:  # noqa: BLE001 - of a device that is lost, all else is told
            log.debug("the device does not say how it is used: %s", exc)
            use = None
        memory = GaugeMetricFamily(
            f"{PREFIX}device_memory_bytes", "Of a CUDA device", labels=["device", "kind"]
        )
        busy = GaugeMetricFamily(
            f"{PREFIX}device_utilization_ratio", "Of a CUDA device", labels=["device"]
        )
        if use is not None:
            kinds = use._asdict()
            ratio = kinds.pop("utilization")
            for kind, value in kinds.items():
                memory.add_metric([self.device, kind], value)
            if ratio is not None:
                busy.add_metric([self.device], ratio)
        yield memory
        yield busy


def _gauge(name: str, says: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"{PREFIX}{name}", says, value=value)


def _counter(name: str, says: str, value: float) -> CounterMetricFamily:
    return CounterMetricFamily(f"{PREFIX}{name}", says, value=value)
