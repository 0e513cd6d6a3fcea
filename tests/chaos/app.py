"""The worker under test: worker.app as it is, with a stand-in engine, watched and told to fail.

    celery -A tests.chaos.app worker -P threads

What it does besides is said by environment variables:

    CHAOS_NAME        this worker's name in the ledger
    CHAOS_LEDGER_URL  where deliveries and runs are noted (tests/chaos/ledger.py); none: nowhere
    CHAOS_NEWER       this worker knows the next version of the contract
    CHAOS_TRANSPORT   "stock": kombu's own Redis transport in place of the worker's
    CHAOS_KILL_PLAN   a file that may say where the process kills itself (tests/chaos/killpoints.py)
    CHAOS_STUCK_S     how long what is stuck stays so
"""

import os
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

if os.environ.get("CHAOS_NEWER"):
    from tests.chaos import newer

    newer.install()

from celery import current_task
from celery.exceptions import Reject
from celery.signals import worker_init, worker_ready
from kombu.transport.redis import QoS as StockQoS

import tests.chaos.absent  # noqa: F401 - before whatever imports torch
from producer.contract import Job
from tests.chaos import clock, killpoints
from tests.chaos.engine import StandInEngine
from tests.chaos.fates import Fate, Kind
from tests.chaos.ledger import Kind as Noted
from tests.chaos.ledger import Ledger
from worker import app as composed
from worker import house
from worker.pipeline import Pipeline, Product
from worker.qos import QoS
from worker.sandbox.pool import Decoder
from worker.tasks import Shell

STUCK_IMAGE = b"stuck"
"""How a file ends that is never decoded."""

CLOCK_EVERY_S = 0.5

app = composed.app
name = os.environ.get("CHAOS_NAME", "chaos")
stuck_s = float(os.environ.get("CHAOS_STUCK_S", "60"))
ledger_url = os.environ.get("CHAOS_LEDGER_URL")
ledger = Ledger(ledger_url) if ledger_url else None
_append = {kind: kind.append for kind in (QoS, StockQoS)}
_execute, _run, _decode = Shell.execute, Pipeline.run, Decoder.decode
_ahead_s = 0.0


def _stuck(prompt: str) -> bool:
    """Whether this batch is to hang: only the first with this image."""
    if ledger is None or not ledger.first(prompt):
        return False
    ledger.note(Noted.FATAL, prompt)
    return True


def _watched_execute(
    self: Shell, task: Any, kind: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> dict[str, Any]:
    left = Noted.LEFT
    try:
        return _execute(self, task, kind, args, kwargs)
    except Reject:
        left = Noted.RETURNED
        raise
    finally:
        if ledger is not None:
            ledger.note(left, str(task.request.id))


def _fated_run(self: Pipeline, job: Job) -> Product:
    options = getattr(job, "options", None)
    fate = Fate.of(options.prompt if options is not None else None)
    attempt = int(current_task.request.retries or 0) + 1
    job_id = str(current_task.request.id)
    if ledger is not None:
        ledger.note(Noted.BEGUN, job_id, attempt)
        if fate.kind is Kind.POISON:
            ledger.note(Noted.FATAL, job_id)
            os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(fate.work_ms / 1_000)
    try:
        return _run(self, job)
    finally:
        if ledger is not None:
            ledger.note(Noted.ENDED, job_id, attempt)


def _fated_decode(self: Decoder, data: bytes, *args: Any) -> Any:
    if data.endswith(STUCK_IMAGE) and self.pid:
        os.kill(self.pid, signal.SIGSTOP)
    return _decode(self, data, *args)


def _engines(_: Any) -> dict[str, StandInEngine]:
    return {"caption": StandInEngine(_stuck, stuck_s)}


def _follow_clock(book: Ledger) -> None:
    global _ahead_s
    while True:
        _ahead_s = book.clock(name)
        threading.Event().wait(CLOCK_EVERY_S)


def _noted_append(self: Any, message: Any, delivery_tag: str) -> None:
    """The first moment at which a process knows what it has taken: before Celery hears of it."""
    if ledger is not None and "id" in (message.headers or {}):
        ledger.note(Noted.TAKEN, str(message.headers["id"]))
    _append[type(self)](self, message, delivery_tag)


@worker_ready.connect
def _ready(**_: Any) -> None:
    if ledger is not None:
        ledger.note(Noted.READY, "")


@worker_init.connect
def _begin(**_: Any) -> None:
    if ledger is not None:
        clock.install(lambda: _ahead_s)
        threading.Thread(target=_follow_clock, args=(ledger,), daemon=True).start()


@app.task(name="chaos.noop", ignore_result=True)
def noop() -> None:
    """Nothing: what a message costs by itself."""


def _stock_transport(options: Sequence[str] = ("leases",)) -> None:
    """kombu's own transport, which returns unacknowledged messages as soon as it can."""
    left = {k: v for k, v in app.conf.broker_transport_options.items() if k not in options}
    app.conf.broker_transport = None
    app.conf.broker_transport_options = left | {
        "visibility_timeout": float(os.environ.get("CAPTIONQ_VISIBILITY_TIMEOUT_S", "20")),
        "unacked_restore_interval": 1,
        "unacked_restore_throttle": 1,
        "unacked_mutex_expire": 5,
    }


house.load_engines = _engines  # type: ignore[assignment]
for kind in _append:
    kind.append = _noted_append
Shell.execute = _watched_execute  # type: ignore[method-assign]
Decoder.decode = _fated_decode  # type: ignore[method-assign]
Pipeline.run = _fated_run  # type: ignore[method-assign]
if os.environ.get("CHAOS_TRANSPORT") == "stock":
    _stock_transport()
if plan := os.environ.get("CHAOS_KILL_PLAN"):
    killpoints.arm(Path(plan))
