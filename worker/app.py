"""The Celery app and the one composition root: everything the worker consists of is wired here.

    celery -A worker.app worker -P threads

starts a worker as Celery users expect; `captionq-worker run` does the same with checked settings
and one process per device.
"""

import logging
import random
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NoReturn

import redis
from celery import Celery, Task
from celery.signals import (
    task_revoked,
    worker_init,
    worker_process_init,
    worker_shutdown,
    worker_shutting_down,
)
from kombu import Exchange, Queue

from producer.contract import ErrorCode, Job, JobFailed, public_uri
from producer.embedded import EmbeddedUnavailable, ensure
from producer.ledger import Ledger
from producer.queues import DEFAULT_QUEUE, TASK_NAMES, queues_served
from producer.redis_store import RedisStore
from worker.backlog import Backlog
from worker.batcher import Batcher
from worker.consumer import Consumer
from worker.deadletter import DeadLetters
from worker.deadline import Deadline, TimedOut
from worker.delivery import Delivery
from worker.errors import Fault
from worker.fetch import Fetcher
from worker.fetch.file import FileSource
from worker.fetch.http import HttpLimits, HttpSource
from worker.fetch.netguard import parse_allow
from worker.fetch.s3 import S3Limits, S3Source
from worker.image import Decoded, ImageLimits, decode
from worker.leases import Leases
from worker.models import BatchKey, Models
from worker.pipeline import Pipeline
from worker.publish import Publisher
from worker.reconciler import Reconciler
from worker.settings import EX_CONFIG, SettingsError, WorkerSettings, load_settings, model_path
from worker.shutdown import Shutdown
from worker.supervisor import end_with_supervisor
from worker.tasks import Shell
from worker.transport import transport_for

if TYPE_CHECKING:
    from worker.blip import Engine

log = logging.getLogger(__name__)

MAX_HANGING = 8
"""Decoders that hang before the process ends."""


def refuse(sentence: str) -> NoReturn:
    """End the process with one clear sentence. Celery swallows exceptions, but not SystemExit."""
    print(f"captionq-worker: {sentence}", file=sys.stderr, flush=True)
    sys.exit(EX_CONFIG)


def make_app(settings: WorkerSettings, leases: Leases) -> Celery:
    """The Celery app of a worker; celery's own settings are explained in docs/architecture.md.

    `leases` are those of the messages that it holds, where its broker is Redis.
    """
    broker_url = settings.broker_url or ensure(settings.home)
    app = Celery("captionq", broker=broker_url)
    app.conf.update(
        result_backend=settings.results_url_beside(broker_url),
        result_expires=settings.result_ttl_s,
        task_queues=[
            Queue(name, Exchange(name), routing_key=name)
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
    if transport := transport_for(broker_url):
        app.conf.update(
            broker_transport=transport,
            broker_transport_options={
                "leases": leases,
                "unacked_restore_interval": 1,
                "socket_timeout": 5,
                "socket_connect_timeout": 3,
                "socket_keepalive": True,
                "health_check_interval": 5,
            },
        )
    return app


class House:
    """Everything a running worker holds. Built before any work is taken, closed after the last."""

    def __init__(self, settings: WorkerSettings, broker_url: str, leases: Leases) -> None:
        from worker.batch_size import settle_batch
        from worker.blip import CaptionOptions
        from worker.blip.errors import DeviceLost, InputError, OutOfMemory

        models = Models(load_engines(settings), settings.models, CaptionOptions)
        max_batch = settle_batch(settings, models)
        self.threads = settings.threads(max_batch)
        self._batcher: Batcher[BatchKey] = Batcher(
            models.run,
            max_batch=max_batch,
            max_wait_s=settings.max_wait_ms / 1_000,
            out_of_memory=(OutOfMemory, MemoryError),
            fatal=(DeviceLost,),
            on_fatal=lambda exc: self.shutdown.abandon(f"the device is lost: {exc}"),
            batch_timeout_s=settings.batch_timeout_s,
            on_hang=lambda why: self.shutdown.abandon(why),
        )
        self._fetcher = make_fetcher(settings)
        limits = ImageLimits(max_pixels=settings.max_pixels)
        decoding = Deadline(
            settings.decode_timeout_s,
            max_hanging=MAX_HANGING,
            too_many=lambda why: self.shutdown.abandon(f"decoding: {why}"),
        )
        store = RedisStore(
            settings.results_url_beside(broker_url),
            result_ttl_s=settings.result_ttl_s,
            queued_ttl_s=settings.queued_ttl_s,
            dead_max=settings.dead_max,
            dead_ttl_s=settings.dead_ttl_s,
        )
        pipeline = Pipeline(
            self._fetcher.fetch,
            lambda *image: decoded(decoding, lambda: decode(image[0], limits, *image[1:])),
            models,
            self._batcher,
            fetch_timeout_s=settings.fetch_timeout_s,
            infer_timeout_s=settings.infer_timeout_s,
            engine_errors={
                OutOfMemory: ErrorCode.OUT_OF_MEMORY,
                DeviceLost: ErrorCode.DEVICE_LOST,
                InputError: ErrorCode.JOB_INVALID,
            },
        )
        self._dead = DeadLetters(
            settings.results_url_beside(broker_url),
            dead_max=settings.dead_max,
            dead_ttl_s=settings.dead_ttl_s,
        )
        leases.bury = self._dead.bury
        self.shell = Shell(
            models=models,
            run=pipeline.run,
            store=store,
            publisher=Publisher(store, patience_s=settings.store_patience_s),
            queues=frozenset(queues_served(models.served)),
            patience_s=settings.store_patience_s,
            rng=random.Random(),
            max_deliveries=settings.max_deliveries,
        )
        self._reconciler = make_reconciler(settings, broker_url)
        self.shutdown = Shutdown(
            leases,
            self.shell.return_running,
            timeout_s=settings.shutdown_timeout_s,
            renew_every_s=settings.visibility_timeout_s / 4,
        )

    def close(self) -> None:
        """End the device thread and the fetchers, after the last job."""
        if self._reconciler is not None:
            self._reconciler.close()
        self._batcher.close(timeout_s=10)
        self._fetcher.close()
        self._dead.close()


def make_reconciler(settings: WorkerSettings, broker_url: str) -> Reconciler | None:
    """What looks for lost jobs, begun; None where that is not wanted or not possible."""
    if not settings.reconcile_every_s:
        return None
    if not broker_url.startswith(("redis://", "rediss://")):
        log.warning("jobs that the broker loses are not looked for: it is no single Redis")
        return None
    clients: list[redis.Redis] = [
        redis.Redis.from_url(
            url, decode_responses=True, socket_timeout=10, socket_connect_timeout=3
        )
        for url in (settings.results_url_beside(broker_url), broker_url)
    ]
    reconciler = Reconciler(
        Ledger(settings.result_ttl_s, settings.queued_ttl_s),
        clients[0],
        Backlog(clients[1]),
        send_again,
        every_s=settings.reconcile_every_s,
    )
    reconciler.start()
    return reconciler


def send_again(job: Job, queue: str, attempt: int) -> None:
    """Send a job's message as its producer did, in the attempt it is in."""
    app.send_task(
        TASK_NAMES[job.task],
        kwargs={"job": job.model_dump(mode="json")},
        kwargsrepr=public_uri(job.image),
        task_id=job.job_id,
        queue=queue,
        retries=attempt - 1,
        ignore_result=True,
    )


def decoded(decoding: Deadline, decode: Callable[[], Decoded]) -> Decoded:
    """What decoding gives, in time. Raises: Fault."""
    try:
        return decoding.run(decode)
    except TimedOut as exc:
        raise Fault(ErrorCode.DECODE_TIMEOUT, str(exc)) from exc


def make_fetcher(settings: WorkerSettings) -> Fetcher:
    """The three stores that images come from, each with the same bounds."""
    total_s, max_bytes = settings.fetch_timeout_s, settings.max_bytes
    if settings.fetch_exceptions:
        log.warning("fetching from addresses that are not public: %s", settings.fetch_allow)
    return Fetcher(
        http=HttpSource(
            HttpLimits(total_s=total_s, max_bytes=max_bytes),
            [parse_allow(entry) for entry in settings.fetch_exceptions],
            user_agent=settings.user_agent,
            honour_opt_out=settings.respect_noai,
        ),
        s3=S3Source(
            S3Limits(total_s=total_s, max_bytes=max_bytes),
            endpoint_url=settings.s3_endpoint_url,
            allow=settings.s3_places,
        ),
        file=FileSource(settings.file_root, max_bytes),
    )


def load_engines(settings: WorkerSettings) -> "dict[str, Engine]":
    """One engine per task; tasks on the same checkpoint share theirs.

    Ends the process when a checkpoint cannot be loaded, or not on the device.
    """
    from worker.blip import Engine
    from worker.blip.errors import BlipError

    tasks_by_model: dict[tuple[str, str | None], list[str]] = {}
    for task, model in settings.models.items():
        tasks_by_model.setdefault((model, settings.revisions[task]), []).append(task)
    engines: dict[str, Engine] = {}
    for (model, revision), tasks in tasks_by_model.items():
        try:
            engine = Engine.load(
                model_path(model),
                device=settings.device,
                dtype=settings.dtype,
                revision=revision,
                tasks=tasks,
            )
        except BlipError as exc:
            refuse(f"cannot load {model}: {exc}")
        log.info("%s by %s on %s in %s", " and ".join(tasks), model, engine.device, engine.dtype)
        engines |= dict.fromkeys(tasks, engine)
    return engines


try:
    settings = load_settings()
    leases = Leases(settings.visibility_timeout_s)
    app = make_app(settings, leases)
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
        house = House(settings, str(app.conf.broker_url), leases)
    except Exception as exc:  # Celery would go on without its models
        log.exception("the worker could not be set up")
        refuse(f"cannot start: {exc}")
    if getattr(sender, "concurrency", None) == "auto":  # no -c; the pool is not made yet
        sender.concurrency = house.threads


@worker_process_init.connect
def _refuse_children(**_: Any) -> None:
    refuse("a child process has no models; use -P threads")


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


@app.task(name=TASK_NAMES["caption"], bind=True, max_retries=None, throws=(JobFailed,))
def caption(self: "Task[Any, Any]", *args: Any, **kwargs: Any) -> dict[str, Any]:
    """Caption one image: `job` is a CaptionJob (producer/contract.py)."""
    return _shell().execute(self, "caption", args, kwargs)


@app.task(name=TASK_NAMES["match"], bind=True, max_retries=None, throws=(JobFailed,))
def match(self: "Task[Any, Any]", *args: Any, **kwargs: Any) -> dict[str, Any]:
    """Match one image with texts: `job` is a MatchJob (producer/contract.py)."""
    return _shell().execute(self, "match", args, kwargs)
