"""The callbacks of a worker process, wired."""

from typing import TYPE_CHECKING

from producer.redis_at import redis_at
from worker.callbacks.courier import LOOK_EVERY_S, Courier, Couriers, Telling, Told, untraced
from worker.callbacks.outbox import Outbox
from worker.fetch.netguard import parse_allow
from worker.fetch.post import HttpPoster

if TYPE_CHECKING:
    from worker.settings import WorkerSettings

__all__ = ["Callbacks", "outbox_of"]


def outbox_of(settings: "WorkerSettings", results_url: str) -> Outbox:
    """The callbacks of a results store, with the bounds of the settings."""
    return Outbox(
        redis_at(results_url, decode_responses=True, socket_timeout=10, socket_connect_timeout=3),
        lease_s=2 * settings.callback_timeout_s + 2,
        result_ttl_s=settings.result_ttl_s,
        dead_max=settings.dead_max,
        dead_ttl_s=settings.dead_ttl_s,
    )


class Callbacks:
    """All that a worker process needs to try callbacks: begun, and closed, with it."""

    def __init__(
        self,
        settings: "WorkerSettings",
        results_url: str,
        every_s: float = LOOK_EVERY_S,
        told: Told = lambda *_: None,
        telling: Telling = untraced,
    ) -> None:
        self._outbox = outbox_of(settings, results_url)
        self._poster = HttpPoster(
            settings.callback_timeout_s,
            [parse_allow(entry) for entry in settings.callback_exceptions],
            plain=settings.callback_http,
            user_agent=settings.user_agent,
            proxy=settings.fetch_proxy,
        )
        courier = Courier(
            self._outbox,
            self._poster.post,
            settings.signers,
            scale=settings.callback_scale,
            told=told,
            telling=telling,
        )
        self._couriers = Couriers(
            self._outbox.claim, courier.deliver, settings.callback_threads, every_s
        )

    def start(self) -> None:
        """Begin."""
        self._couriers.start()

    def close(self) -> None:
        """Let what is under way end."""
        self._couriers.close()
        self._poster.close()
        self._outbox.close()
