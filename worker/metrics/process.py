"""The metrics of one worker process, wired: counted, held, waiting; served with its health."""

import platform
from collections.abc import Callable
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import redis
from prometheus_client import (
    CollectorRegistry,
    Gauge,
    ProcessCollector,
    disable_created_metrics,
)

from producer.ledger import Ledger
from producer.queues import TASK_NAMES, model_task, queues_served
from producer.redis_at import REDIS_SCHEMES, redis_at, with_master
from worker.backlog import FOREIGN
from worker.batcher import Batcher
from worker.heard import Heard
from worker.leases import Leases
from worker.metrics.broker import Broker
from worker.metrics.counted import Counted
from worker.metrics.health import Health
from worker.metrics.held import Held, Use
from worker.metrics.server import MetricsServer
from worker.models import Models
from worker.rabbit import RabbitQueues
from worker.settings import SettingsError, WorkerSettings
from worker.supervisor import supervised_ports

if TYPE_CHECKING:
    from collections.abc import Mapping

    from producer.contract import ModelFacts

__all__ = ["ProcessMetrics"]

TIMEOUT_S = 2.0
"""A scrape must not hang as long as Redis does."""


class ProcessMetrics:
    """Counts from its construction on; answers once `serve` was called."""

    health: Health

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = CollectorRegistry()
        self._counted = Counted(self._registry)
        ProcessCollector(registry=self._registry)
        Gauge(
            "captionq_build_info",
            "Of what this process is made",
            ("version", "python"),
            registry=self._registry,
        ).labels(_version(), platform.python_version()).set(1)

    def heard(self) -> Heard:
        """Who counts what happens."""
        counted = self._counted
        return Heard(
            ended=counted.ended,
            buried=counted.buried,
            again=counted.again,
            redelivered=counted.redelivered,
            returned=counted.returned,
            produced=counted.produced,
            ran=counted.ran,
            called_back=counted.called_back,
            reconciled=counted.reconciled,
        )

    def cut_off(self) -> None:
        """The connection to the broker is lost."""
        self._counted.cut_off()

    def serve(
        self,
        settings: WorkerSettings,
        broker_url: str,
        models: Models,
        batcher: Batcher[Any],
        leases: Leases,
        *,
        ending: Callable[[], bool],
    ) -> None:
        """Answer on the port of the settings.

        Raises:
            SettingsError: it cannot be opened.
        """
        broker = with_master(broker_url, settings.sentinel_master)
        self._broker = Broker(
            _client(broker) if broker.startswith(REDIS_SCHEMES) else RabbitQueues(broker),
            _client(settings.results_url_beside(broker_url)),
            Ledger(settings.result_ttl_s, settings.queued_ttl_s),
            queues_served(models.served),
        )
        self.health = Health(
            self._depth,
            lambda: self._counted.progress_s,
            lambda: batcher.device_lives,
            ending,
            stall_s=settings.stall_s,
        )
        self._counted.expect(task for task in TASK_NAMES if model_task(task) in dict(models.served))
        facts: Mapping[str, ModelFacts] = {task: models.facts(task) for task, _ in models.served}
        held = Held(batcher, leases, self.health, facts, models.device, _use(models.device))
        self._registry.register(self._broker)
        self._registry.register(held)
        host, port = settings.metrics_host, settings.metrics_port
        try:
            self._server = MetricsServer(
                host, port, self._registry, self.health.faults, supervised_ports()
            )
        except OSError as exc:
            raise SettingsError(
                f"METRICS_PORT={port} on METRICS_HOST={host} cannot be opened: {exc}"
            ) from exc

    def close(self) -> None:
        """Answer no more."""
        self._server.close()
        self._broker.close()

    def _depth(self) -> int | None:
        depths = self._broker.read().depths
        return None if depths is None else sum(depths.values())


def _client(url: str) -> redis.Redis:
    return redis_at(url, **FOREIGN, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S)


def _use(device: str) -> Callable[[], Use | None]:
    if not device.startswith("cuda"):
        return lambda: None
    from worker.blip.device_use import device_use

    return partial(device_use, device)


def _version() -> str:
    try:
        return version("captionq")
    except PackageNotFoundError:
        return "unknown"
