"""Who sends the jobs, patiently: a job is accepted when its producer has been told so."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import redis
from celery import Celery
from kombu.exceptions import OperationalError

from producer import Client
from producer.contract import Job
from producer.errors import BrokerUnavailable
from producer.settings import ProducerSettings
from tests.chaos.fates import Errand, Kind, Sender
from tests.chaos.world import World

CHUNK = 10


class Producers:
    """Sends errands at an even rate, from a thread of its own, whatever befalls the broker.

    Attributes:
        accepted: the jobs that the broker has, by id.
        accepted_s: since when (CLOCK_MONOTONIC).
        sent_again: how often each may have been sent before, because nothing was heard of it.
    """

    def __init__(self, world: World, errands: Sequence[Errand], seconds: float) -> None:
        self._world = world
        self._errands = errands
        self._seconds = seconds
        self.accepted: dict[str, Errand] = {}
        self.accepted_s: dict[str, float] = {}
        self.sent_again: Counter[str] = Counter()
        self._client = Client(world.redis.url, settings=ProducerSettings(submit_timeout_s=2))
        self._send_batch = self._client._publisher._send
        self._client._publisher._send = self._watched_send  # type: ignore[method-assign]
        self._celery = self._fresh()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _watched_send(self, jobs: Sequence[Job]) -> None:
        """The client sends a batch again by itself when it heard nothing of it."""
        try:
            self._send_batch(jobs)
        except BaseException:
            self.sent_again.update(str(job.job_id) for job in jobs)
            raise

    def _fresh(self) -> Celery:
        url = self._world.redis.url
        app = Celery(broker=url, backend="disabled://", set_as_current=False)
        options = {"socket_timeout": 2, "socket_connect_timeout": 2}
        app.conf.update(broker_transport_options=options, task_publish_retry=False)
        return app

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    @property
    def done(self) -> bool:
        """Whether all are sent."""
        return not self._thread.is_alive()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()
        self._celery.close()

    def _run(self) -> None:
        began_s = time.monotonic()
        for number, chunk in enumerate(_chunks(self._errands)):
            due_s = began_s + self._seconds * number * CHUNK / len(self._errands)
            time.sleep(max(0.0, due_s - time.monotonic()))
            ours = [one for one in chunk if one.sender is Sender.CLIENT]
            if ours:
                self._until_sent(ours, self._submit)
            for one in chunk:
                if one.sender is not Sender.CLIENT:
                    self._until_sent([one], self._send)

    def _until_sent(self, errands: list[Errand], send: Callable[[list[Errand]], None]) -> None:
        while True:
            try:
                send(errands)
            except (BrokerUnavailable, OSError, redis.RedisError, OperationalError):
                self.sent_again.update(one.job_id for one in errands)
                self._celery = self._fresh()
                time.sleep(0.3)
            else:
                self.accepted |= {one.job_id: one for one in errands}
                self.accepted_s |= {one.job_id: time.monotonic() for one in errands}
                return

    def _submit(self, errands: list[Errand]) -> None:
        self._client.submit_many([one.job(self._world.places) for one in errands])

    def _send(self, errands: list[Errand]) -> None:
        for one in errands:
            job = one.job(self._world.places).model_dump(mode="json")
            if one.fate.kind is Kind.NEWER:
                job["schema_version"] = 2
            self._celery.send_task(
                "captionq.caption",
                kwargs={"job": job},
                task_id=one.job_id,
                countdown=one.delay_s or None,
                priority=one.priority,
                ignore_result=False,  # Celery's own backend is to answer as well
            )


def _chunks(errands: Sequence[Errand]) -> Iterator[Sequence[Errand]]:
    for begin in range(0, len(errands), CHUNK):
        yield errands[begin : begin + CHUNK]
