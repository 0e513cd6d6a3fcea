"""The Celery app: its settings, its signals, its tasks. What runs them is worker/house.py.

    celery -A worker.app worker -P threads

starts a worker as Celery users expect; `captionq-worker run` does the same with checked settings
and one process per device.
"""

import logging
import sys
from contextlib import suppress
from typing import Any, NoReturn

import redis
from celery import Celery, Task
from celery.signals import (
    after_setup_logger,
    after_setup_task_logger,
    heartbeat_sent,
    task_revoked,
    worker_init,
    worker_process_init,
    worker_ready,
    worker_shutdown,
    worker_shutting_down,
)
from celery.utils.log import mlevel

from producer.celery_app import celery_app, results_at
from producer.contract import JOB_MODELS, ErrorCode, JobFailed
from producer.embedded import EmbeddedUnavailable, ensure
from producer.queues import DEFAULT_QUEUE, TASK_NAMES, queues_served
from producer.rabbitmq import celery_settings, queue_named
from producer.wire import WireJob
from worker.answered import Answered
from worker.consumer import Consumer, broker_lost
from worker.delivery import Delivery
from worker.house import House
from worker.leases import Leases
from worker.logs import dress
from worker.request import Request
from worker.settings import EX_CONFIG, SettingsError, WorkerSettings, load_settings
from worker.supervisor import end_with_supervisor
from worker.tasks import Shell
from worker.transport import transport_for

log = logging.getLogger(__name__)


def refuse(sentence: str) -> NoReturn:
    """End the process with one clear sentence. Celery swallows exceptions, but not SystemExit."""
    print(f"captionq-worker: {sentence}", file=sys.stderr, flush=True)
    sys.exit(EX_CONFIG)


def make_app(settings: WorkerSettings, broker_url: str, leases: Leases) -> Celery:
    """The Celery app of a worker; celery's own settings are explained in docs/architecture.md.

    `leases` are those of the messages that it holds, where its broker is Redis.
    """
    results_url = settings.results_url_beside(broker_url)
    transport = transport_for(broker_url)
    app = celery_app(
        broker_url,
        settings.sentinel_master,
        {
            "leases": leases,
            "unacked_restore_interval": min(1.0, settings.visibility_timeout_s / 8),
            "socket_timeout": 5,
            "socket_connect_timeout": 3,
            "socket_keepalive": True,
            "health_check_interval": 5,
        }
        if transport
        else {},
    )
    if transport:
        app.conf.broker_transport = transport
    app.conf.update(
        results_at(results_url),
        result_expires=settings.result_ttl_s,
        task_queues=[
            queue_named(name, broker_url, settings.rabbitmq_queues)
            for name in queues_served(settings.models.items())
        ],
        task_default_queue=DEFAULT_QUEUE,
        task_acks_late=True,
        task_reject_on_worker_lost=False,
        task_serializer="json",
        result_serializer="json",
        accept_content=["json"],
        result_backend_always_retry=True,
        result_backend_max_retries=30,
        task_publish_retry_policy={
            "max_retries": 20,
            "interval_start": 0,
            "interval_step": 0.2,
            "interval_max": 1,
        },
        task_send_sent_event=True,
        worker_send_task_events=True,
        worker_pool="threads",
        worker_concurrency="auto",  # without -c, as many as go with the batch: see _open
        worker_prefetch_multiplier=1,
        worker_eta_task_limit=None,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_soft_shutdown_timeout=0,
        worker_hijack_root_logger=True,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_channel_error_retry=True,
        worker_consumer=f"{Consumer.__module__}:{Consumer.__name__}",
        worker_enable_prefetch_count_reduction=False,
    )
    app.conf.update(celery_settings(broker_url, settings.rabbitmq_queues))
    return app


def send_again(job: WireJob, queue: str, attempt: int) -> None:
    """Send a job's message as its producer did, in the attempt it is in."""
    app.send_task(job.name, **job.sending, queue=queue, retries=attempt - 1)


try:
    settings = load_settings()
    leases = Leases(settings.visibility_timeout_s)
    broker_url = settings.broker_url or ensure(settings.home)
    app = make_app(settings, broker_url, leases)
except (SettingsError, EmbeddedUnavailable, ValueError) as error:
    refuse(str(error))
house: House | None = None


def _shell() -> Shell:
    if house is None:
        raise JobFailed(ErrorCode.INTERNAL_ERROR, "This process has not loaded its models.")
    return house.shell


@worker_init.connect
def _open(sender: Any = None, **_: Any) -> None:
    global house
    end_with_supervisor()
    pool = str(getattr(sender, "pool_cls", "threads"))
    if "thread" not in pool:  # solo: jobs hold up the loop that renews leases
        refuse(f"the pool is {pool}; use -P threads: the models live in one process per device")
    if sender is not None:
        sender.setup_logging()  # Celery would do so next: what the models say would be lost
    try:
        house = House(settings, broker_url, leases, send_again)
    except SettingsError as exc:
        refuse(str(exc))
    except Exception as exc:  # Celery would go on without its models
        log.exception("the worker could not be set up")
        refuse(f"cannot start: {exc}")
    if getattr(sender, "concurrency", None) == "auto":  # no -c; the pool is not made yet
        sender.concurrency = house.threads
    house.share(int(getattr(sender, "concurrency", None) or house.threads))


@worker_process_init.connect
def _refuse_children(**_: Any) -> None:
    refuse("a child process has no models; use -P threads")


@worker_ready.connect
def _begun(sender: Any = None, **_: Any) -> None:
    if house is not None:
        house.announce(str(getattr(sender, "hostname", "worker")))
        house.shutdown.heed_signals()


@after_setup_logger.connect
@after_setup_task_logger.connect
def _dress(logger: logging.Logger, loglevel: Any = None, **_: Any) -> None:
    asked = logging.DEBUG if settings.log_level == "DEBUG" else mlevel(loglevel)
    dress(logger.handlers, settings.log_format, quiet=asked > logging.DEBUG)


@heartbeat_sent.connect
def _beat(**_: Any) -> None:
    if house is not None:
        house.beat()


@broker_lost.connect
def _cut_off(**_: Any) -> None:
    if house is not None:
        house.cut_off()


@worker_shutting_down.connect
def _told_to_end(**_: Any) -> None:
    if house is not None:
        house.shutdown.begin()


@worker_shutdown.connect
def _close(**_: Any) -> None:
    if house is not None:
        house.close()
    with suppress(redis.RedisError):  # they end by themselves
        leases.return_all()


@task_revoked.connect
def _revoked(sender: Any = None, request: Any = None, expired: bool = False, **_: Any) -> None:
    kinds = [kind for kind, name in TASK_NAMES.items() if name == sender.name]
    if house is not None and kinds:
        delivery = Delivery.of(request, request.args, request.kwargs)
        house.shell.revoked(kinds[0], delivery, bool(expired))


def _task(kind: str) -> Any:
    def run(self: "Task[Any, Any]", *args: Any, **kwargs: Any) -> Answered:
        return _shell().execute(self, kind, args, kwargs)

    run.__doc__ = JOB_MODELS[kind].__doc__
    make = app.task(
        name=TASK_NAMES[kind],
        bind=True,
        max_retries=None,
        throws=(JobFailed,),
        Request=f"{Request.__module__}:{Request.__name__}",
    )
    return make(run)


TASKS = {kind: _task(kind) for kind in TASK_NAMES}
"""One for each kind of job: its argument `job` is the JSON of a model of producer/contract.py, or,
of a chunk, says where that is recorded."""
