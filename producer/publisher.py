"""Jobs onto the broker, as Celery task messages."""

import itertools
import random
import time
from collections.abc import Iterator, Sequence

import redis
from amqp import AMQPError
from kombu.exceptions import KombuError
from kombu.pools import ProducerPool

from producer.celery_app import celery_app
from producer.contract import Job
from producer.errors import BrokerFull, BrokerUnavailable
from producer.rabbitmq import QueueKind, celery_settings
from producer.redis_at import MASTER
from producer.wire import WireJob

CONNECT_TIMEOUT_S = 3.0
SOCKET_TIMEOUT_S = 10.0
CONNECTIONS = 16
"""Threads that can publish at the same time; others wait for one of them."""


FAULTS = (KombuError, AMQPError, redis.RedisError, OSError)
"""What a broker that is away, or goes away, makes of publishing."""


def attempt_timeout_s(timeout_s: float) -> float:
    """How long one answer may be waited for, in seconds, so that several tries fit in."""
    return min(SOCKET_TIMEOUT_S, timeout_s / 4)


def pauses(deadline_s: float, attempt_s: float) -> Iterator[float]:
    """Seconds to pause before each further try, jittered, growing to 1 s.

    Ends when a try that takes `attempt_s` could no longer end before `deadline_s`, a moment of
    `time.monotonic`.
    """
    for tries in itertools.count():
        pause_s = min(1.0, 0.05 * 2 ** min(tries, 10)) * random.uniform(0.5, 1)
        if time.monotonic() + pause_s + attempt_s > deadline_s:
            return
        yield pause_s


class Publisher:
    """Sends jobs to the queues of their tasks; safe to share between threads.

    Args:
        broker_url: what Celery takes: redis://, sentinel://, amqp://.
        timeout_s: longest time that publishing is to take, in seconds.
        sentinel_master: the master that is asked for where the broker is sentinel://.
        queues: the kind of the queues where it is RabbitMQ.
    """

    def __init__(
        self,
        broker_url: str,
        timeout_s: float,
        sentinel_master: str = MASTER,
        queues: QueueKind = "classic",
    ) -> None:
        self._attempt_s = attempt_timeout_s(timeout_s)
        connect_timeout_s = min(CONNECT_TIMEOUT_S, self._attempt_s)
        self._app = celery_app(
            broker_url,
            sentinel_master,
            {
                "socket_timeout": self._attempt_s,
                "socket_connect_timeout": connect_timeout_s,
                "socket_keepalive": True,
                "health_check_interval": 10,
                "max_retries": 0,
                "connect_retries_timeout": connect_timeout_s,
                "confirm_publish": True,
            },
            backend="disabled://",
            set_as_current=False,
        )
        self._app.conf.update(
            accept_content=["json"],
            broker_connection_timeout=connect_timeout_s,
            task_ignore_result=True,
            task_send_sent_event=True,
            task_serializer="json",
            **celery_settings(broker_url, queues),
        )
        self._connections = self._app.connection_for_write().Pool(CONNECTIONS)
        self._producers = ProducerPool(self._connections, limit=CONNECTIONS)

    def publish(self, jobs: Sequence[Job | WireJob], deadline_s: float) -> None:
        """Send one message per job, all in one batch, trying until `time.monotonic()` is there.

        A batch whose outcome is unknown is sent again: a job may come to a worker twice.

        Raises:
            BrokerFull: Redis has no memory left; some of the jobs may have been sent.
            BrokerUnavailable: not all could be sent within the time; some may have been.
        """
        further = pauses(deadline_s, self._attempt_s)
        while jobs:
            try:
                self._send(jobs)
            except FAULTS as exc:
                if any(isinstance(e, redis.OutOfMemoryError) for e in (exc, exc.__cause__)):
                    raise BrokerFull("The broker (Redis) is full.") from exc
                if (pause_s := next(further, None)) is None:
                    reason = exc.__cause__ or exc
                    raise BrokerUnavailable(f"The broker cannot be reached: {reason}") from exc
                time.sleep(pause_s)
            else:
                return

    def reach(self) -> None:
        """Open a connection, unless one is open.

        Raises:
            BrokerUnavailable: the broker does not answer.
        """
        try:
            with self._connections.acquire(block=True, timeout=self._attempt_s) as connection:
                connection.ensure_connection(max_retries=1, timeout=self._attempt_s)
        except FAULTS as exc:
            raise BrokerUnavailable(f"The broker cannot be reached: {exc}") from exc

    def close(self) -> None:
        """Close the connections."""
        self._connections.force_close_all()
        self._app.close()

    def _send(self, jobs: Sequence[Job | WireJob]) -> None:
        with self._producers.acquire(block=True, timeout=self._attempt_s) as producer:
            try:
                with producer.batch():  # type: ignore[attr-defined] # newer than its stubs
                    for one in jobs:
                        job = one if isinstance(one, WireJob) else WireJob.of(one)
                        self._app.send_task(
                            job.name,
                            **job.sending,
                            queue=job.queue,
                            add_to_parent=False,
                            producer=producer,
                            retry=False,
                        )
            except BaseException:
                if producer.connection is not None:
                    producer.connection.collect()
                raise
