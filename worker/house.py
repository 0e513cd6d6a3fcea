"""Everything that a running worker holds, wired: the one composition root."""

import logging
import random
from collections.abc import Callable, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import redis

from producer.contract import ErrorCode, utcnow
from producer.ledger import Ledger
from producer.queues import queues_served
from producer.rabbitmq import delay_s
from producer.redis_at import REDIS_SCHEMES, redis_at, with_master
from producer.redis_store import RedisStore
from producer.tracing import TracingUnavailable, begin
from worker.asked import BatchKey
from worker.backlog import FOREIGN, Backlog
from worker.batcher import Batcher
from worker.calibration import Calibration, CalibrationError, find
from worker.callbacks.courier import untraced
from worker.callbacks.service import Callbacks
from worker.chunk import Chunks
from worker.deadletter import DeadLetters
from worker.errors import Fault
from worker.fetch import Fetcher
from worker.fetch.file import FileSource
from worker.fetch.http import HttpLimits, HttpSource
from worker.fetch.netguard import parse_allow
from worker.fetch.s3 import S3Limits, S3Source
from worker.formats import parse_formats
from worker.gate import Gate
from worker.heard import Heard
from worker.image import ImageLimits
from worker.intake import Intake, IntakeLimits
from worker.job_log import log_ended
from worker.leases import Bury, Leases
from worker.metrics.process import ProcessMetrics
from worker.models import Models
from worker.packs.library import Packs, PacksMissing
from worker.packs.places import places_of
from worker.pipeline import Pipeline
from worker.presence import Presence, facts_of
from worker.publish import Publisher
from worker.rabbit import HELD_MS, RabbitQueues
from worker.reconciler import GRACE_MS, Reconciler, Send
from worker.redis_care import warn
from worker.result_cache import ResultCache
from worker.sandbox import Sandbox
from worker.settings import SettingsError, WorkerSettings, model_path
from worker.shutdown import Shutdown
from worker.sink import Sinks, Writer
from worker.tasks import Shell
from worker.told_store import ToldStore
from worker.traces import Traces

if TYPE_CHECKING:
    from worker.blip import Engine

log = logging.getLogger(__name__)


class House:
    """Built before any work is taken, closed after the last.

    Args:
        leases: of the messages this process holds; malformed ones are buried from now on.
        send_again: sends a job's message once more.

    Raises:
        SettingsError: a checkpoint cannot be loaded, or not on the device.
    """

    def __init__(
        self, settings: WorkerSettings, broker_url: str, leases: Leases, send_again: Send
    ) -> None:
        from worker.batch_size import settle_batch
        from worker.blip import CaptionOptions
        from worker.blip.errors import DeviceLost, InputError, OutOfMemory

        engines = load_engines(settings)
        calibration = load_calibration(settings, engines)
        self._packs = load_packs(settings, engines)
        models = Models(engines, settings.models, CaptionOptions, calibration, self._packs)
        max_batch = settle_batch(settings, models)
        self.threads = settings.threads(max_batch)
        self._metrics = ProcessMetrics() if settings.metrics_port else None
        self._traces = make_traces(settings, lambda **of: self._store.traceparent(**of))
        heard = Heard.together(
            Heard(ended=log_ended),
            *(one.heard() for one in (self._metrics, self._traces) if one is not None),
        )
        self._settings, self._leases, self._max_batch = settings, leases, max_batch
        self._batcher: Batcher[BatchKey] = Batcher(
            models.run,
            max_batch=max_batch,
            max_wait_s=settings.max_wait_ms / 1_000,
            out_of_memory=(OutOfMemory, MemoryError),
            fatal=(DeviceLost,),
            on_fatal=lambda exc: self.shutdown.abandon(f"the device is lost: {exc}"),
            batch_timeout_s=settings.batch_timeout_s,
            on_hang=lambda why: self.shutdown.abandon(why),
            weigh=lambda one: one.weight,
            on_ran=heard.ran,
        )
        models.tell(self._batcher.alive)
        self._fetcher = make_fetcher(settings)
        self._sandbox = make_sandbox(settings)
        try:
            self._sandbox.start()
        except Fault as exc:
            raise SettingsError(f"no image could be decoded: {exc}") from exc
        self._store = store = ToldStore(
            settings.results_url_beside(broker_url),
            heard.ended,
            dead_max=settings.dead_max,
            dead_ttl_s=settings.dead_ttl_s,
            **settings.keeping,
        )
        pipeline = Pipeline(
            self._fetcher.fetch,
            self._sandbox.decode,
            models,
            self._batcher,
            fetch_timeout_s=settings.fetch_timeout_s,
            infer_timeout_s=settings.infer_timeout_s,
            engine_errors={
                OutOfMemory: ErrorCode.OUT_OF_MEMORY,
                DeviceLost: ErrorCode.DEVICE_LOST,
                InputError: ErrorCode.JOB_INVALID,
            },
            cache=make_cache(settings, broker_url, models),
            told=heard.produced,
        )
        self._dead = DeadLetters(
            settings.results_url_beside(broker_url),
            dead_max=settings.dead_max,
            dead_ttl_s=settings.dead_ttl_s,
        )
        leases.bury = partial(_bury, self._dead.bury, heard.buried)
        keep = partial(_keep, self._dead.keep, heard.buried)
        sinks = make_sinks(settings)
        threads = settings.chunk_threads or self.threads
        limits = IntakeLimits(threads, threads + 2 * max_batch, settings.chunk_timeout_s)
        self._chunks = Chunks(
            Intake(pipeline, limits, ending=lambda: self.shutdown.begun),
            models,
            store,
            sinks,
            patience_s=settings.store_patience_s,
            rng=random.Random(),
            ending=lambda: self.shutdown.begun,
            told=heard.judged,
        )
        self.shell = Shell(
            models=models,
            run=pipeline.run,
            run_chunk=self._chunks.run,
            store=store,
            publisher=Publisher(store, patience_s=settings.store_patience_s),
            queues=frozenset(queues_served(models.served)),
            patience_s=settings.store_patience_s,
            rng=random.Random(),
            max_deliveries=settings.max_deliveries,
            sinks=sinks,
            gate=make_gate(settings, store, keep),
            heard=heard,
            delayed_s=partial(delay_s, broker_url, settings.rabbitmq_queues),
        )
        self._reconciler = make_reconciler(settings, broker_url, send_again, heard)
        look_after(settings, broker_url)
        self._models = models
        self._presence: Presence | None = None
        self._callbacks = make_callbacks(settings, broker_url, heard, self._traces)
        self.shutdown = Shutdown(
            leases,
            self.shell.return_running,
            timeout_s=settings.shutdown_timeout_s,
            renew_every_s=settings.visibility_timeout_s / 4,
        )
        if self._metrics is not None:
            ending = lambda: self.shutdown.begun  # noqa: E731
            self._metrics.serve(settings, broker_url, models, self._batcher, leases, ending=ending)

    def share(self, threads: int) -> None:
        """Leave so many of the pool's threads to interactive jobs as the settings say."""
        slots = self._settings.bulk_slots_of(threads, self._max_batch)
        self._leases.bulk_slots = slots
        log.info("%d jobs at a time, %d of them of bulk lanes", threads, slots)

    def announce(self, name: str) -> None:
        """Say that work is taken under this name (Celery's), from now on until the end."""
        started_at, served = utcnow(), self._models.served
        self._presence = Presence(
            self._store,
            lambda: facts_of(name, started_at, served, self._packs.listed, self._packs.language),
        )
        self._presence.start()
        if self._metrics is not None:
            self._metrics.health.begin()
        if self._callbacks is not None:
            self._callbacks.start()

    def beat(self) -> None:
        """The event loop turns."""
        if self._metrics is not None:
            self._metrics.health.beat()

    def cut_off(self) -> None:
        """The connection to the broker is lost."""
        if self._metrics is not None:
            self._metrics.cut_off()

    def close(self) -> None:
        """End the device thread and the fetchers, after the last job."""
        if self._presence is not None:
            self._presence.close()
        if self._callbacks is not None:
            self._callbacks.close()
        if self._reconciler is not None:
            self._reconciler.close()
        self._batcher.close(timeout_s=10)
        self._chunks.close()
        self._packs.close()
        self._fetcher.close()
        self._sandbox.close()
        self._dead.close()
        self._store.close()
        if self._metrics is not None:
            self._metrics.close()
        if self._traces is not None:
            self._traces.close()


def make_gate(
    settings: WorkerSettings, store: RedisStore, keep: Callable[[Mapping[str, str]], None]
) -> Gate | None:
    """What lets genuine jobs in; None where jobs need no signature."""
    if (verifier := settings.verifier) is None:
        return None
    log.info("jobs have to be signed, by any of these keys: %s", ", ".join(verifier.keys.ids))
    return Gate(verifier, store, keep, settings.store_patience_s)


def look_after(settings: WorkerSettings, broker_url: str) -> None:
    """Log a warning for each Redis of these that is not set up to keep what it is given."""
    urls = {"results": settings.results_url_beside(broker_url)}
    if broker_url.startswith(REDIS_SCHEMES):
        urls["broker"] = with_master(broker_url, settings.sentinel_master)
    for url in dict.fromkeys(urls.values()):
        used_for = " and ".join(name for name, of in urls.items() if of == url)
        with closing(redis_at(url, decode_responses=True, socket_timeout=5)) as client:
            warn(used_for, client)


def make_reconciler(
    settings: WorkerSettings, broker_url: str, send: Send, heard: Heard
) -> Reconciler | None:
    """What looks for lost jobs, begun; None where that is not wanted."""
    if not settings.reconcile_every_s:
        return None

    def client(url: str) -> redis.Redis:
        return redis_at(url, **FOREIGN, socket_timeout=10, socket_connect_timeout=3)

    broker = with_master(broker_url, settings.sentinel_master)
    is_redis = broker.startswith(REDIS_SCHEMES)
    reconciler = Reconciler(
        Ledger(settings.result_ttl_s, settings.queued_ttl_s),
        client(settings.results_url_beside(broker_url)),
        Backlog(client(broker)) if is_redis else RabbitQueues(broker),
        send,
        every_s=settings.reconcile_every_s,
        grace_ms=GRACE_MS if is_redis else HELD_MS,
        told=heard.reconciled,
    )
    reconciler.start()
    return reconciler


def make_callbacks(
    settings: WorkerSettings, broker_url: str, heard: Heard, traces: Traces | None
) -> Callbacks | None:
    """What tells submitters of results, not begun; None where that is left to others."""
    if not settings.callback_threads:
        return None
    if settings.callback_exceptions:
        log.warning("callbacks to addresses that are not public: %s", settings.callback_allow)
    return Callbacks(
        settings,
        settings.results_url_beside(broker_url),
        told=heard.called_back,
        telling=traces.telling if traces is not None else untraced,
    )


def make_traces(
    settings: WorkerSettings, traceparent_of: Callable[..., str | None]
) -> Traces | None:
    """Who adds to jobs' traces; None where that is not wanted.

    Raises:
        SettingsError: it is, and cannot be.
    """
    try:
        tracing = begin(settings.tracing, "captionq-worker")
    except TracingUnavailable as exc:
        raise SettingsError(str(exc)) from exc
    return None if tracing is None else Traces(tracing, traceparent_of)


def _bury(keep: Bury, told: Callable[[str], object], message: str, queue: str, reason: str) -> None:
    keep(message, queue, reason)
    told(ErrorCode.JOB_INVALID.value)


def _keep(
    keep: Callable[[Mapping[str, str]], None],
    told: Callable[[str], object],
    letter: Mapping[str, str],
) -> None:
    keep(letter)
    told(letter["code"])


def make_sinks(settings: WorkerSettings) -> Sinks:
    """Where shards may be written."""
    s3: Writer | None = None
    if any(entry.startswith("s3://") for entry in settings.sink_folders):
        from worker.sink_s3 import S3Sink

        s3 = S3Sink(settings.sink_timeout_s, settings.s3_endpoint_url, settings.s3_request_payer)
    return Sinks(settings.sink_folders, settings.sink_timeout_s, s3)


def make_cache(settings: WorkerSettings, broker_url: str, models: Models) -> ResultCache | None:
    """What was answered before; None where nothing is kept."""
    if not settings.result_cache_ttl_s:
        return None
    client = redis_at(
        settings.results_url_beside(broker_url), decode_responses=True, socket_timeout=2
    )
    decide = (
        "alpha", "draft", "image_formats", "max_pixels", "max_side", "max_jpeg_scans", "max_bytes",
    )  # fmt: skip
    seen_by = " ".join(settings.shown(name) for name in decide)
    return ResultCache(client, settings.result_cache_ttl_s, models.seen_by, seen_by)


def make_sandbox(settings: WorkerSettings) -> Sandbox:
    """What decodes images, not started yet."""
    return Sandbox(
        ImageLimits(
            formats=parse_formats(settings.image_formats),
            max_pixels=settings.max_pixels,
            max_side=settings.max_side,
            max_jpeg_scans=settings.max_jpeg_scans,
            draft=settings.draft,
            alpha=settings.alpha,
        ),
        decoders=settings.decoders,
        timeout_s=settings.decode_timeout_s,
        memory_bytes=settings.decoder_memory_bytes,
        pixels_in_flight=settings.max_pixels_in_flight,
    )


def make_fetcher(settings: WorkerSettings) -> Fetcher:
    """The three stores that images come from, each with the same bounds."""
    total_s, max_bytes = settings.fetch_timeout_s, settings.max_bytes
    if settings.fetch_exceptions:
        log.warning("fetching from addresses that are not public: %s", settings.fetch_allow)
    return Fetcher(
        http=HttpSource(
            HttpLimits(total_s=total_s, max_bytes=max_bytes, max_per_host=settings.max_per_host),
            [parse_allow(entry) for entry in settings.fetch_exceptions],
            user_agent=settings.user_agent,
            honour_opt_out=settings.respect_noai,
            proxy=settings.fetch_proxy,
        ),
        s3=S3Source(
            S3Limits(total_s=total_s, max_bytes=max_bytes),
            endpoint_url=settings.s3_endpoint_url,
            allow=settings.s3_places,
            request_payer=settings.s3_request_payer,
        ),
        file=FileSource(settings.file_root, max_bytes),
    )


def load_calibration(
    settings: WorkerSettings, engines: "dict[str, Engine]"
) -> "Calibration | None":
    """The calibration of the matching model; None where there is none.

    Raises:
        SettingsError: it is of another revision, or cannot be read.
    """
    if (matcher := engines.get("match")) is None:
        return None
    folder = Path(model_path(settings.match_model))
    beside = folder if folder.is_dir() else None
    try:
        found = find(beside, settings.home, matcher.model_id, matcher.revision)
    except (CalibrationError, OSError) as exc:
        raise SettingsError(str(exc)) from exc
    if found is not None:
        log.info("matches are calibrated on %d pairs", found.pairs)
    return found


def load_packs(settings: WorkerSettings, engines: "dict[str, Engine]") -> Packs:
    """The packs that adapt the engines, known by their cards, those that are pinned loaded.

    Raises:
        SettingsError: a folder cannot be read, or a pinned pack cannot be had.
    """
    packs = Packs(
        engines,
        places_of(settings, settings.models.values()),
        room=settings.packs_loaded,
        pinned=settings.pinned,
        language=settings.base_language,
        every_s=settings.packs_every_s,
    )
    try:
        packs.start()
    except PacksMissing as exc:
        raise SettingsError(f"CAPTIONQ_PACKS, CAPTIONQ_PACKS_PINNED: {exc}") from exc
    return packs


def load_engines(settings: WorkerSettings) -> "dict[str, Engine]":
    """One engine per task; tasks on the same checkpoint share theirs.

    Raises:
        SettingsError: a checkpoint cannot be loaded, or not on the device.
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
            raise SettingsError(f"cannot load {model}: {exc}") from exc
        log.info("%s by %s on %s in %s", " and ".join(tasks), model, engine.device, engine.dtype)
        engines |= dict.fromkeys(tasks, engine)
    return engines
