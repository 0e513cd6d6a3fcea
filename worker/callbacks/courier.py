"""Couriers: threads that take callbacks to their receivers, a try at a time."""

import json
import logging
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime, timedelta

from producer.contract import utcnow
from producer.errors import ErrorCode, StoreUnavailable
from worker.callbacks.body import body
from worker.callbacks.outbox import Claimed, Outbox, Try
from worker.callbacks.outbox import Told as OutboxTold
from worker.callbacks.schedule import Fate, Outcome, Pace, Step, decide, slowest
from worker.callbacks.secrets import Secrets, UnknownSecret
from worker.errors import Fault
from worker.fetch.post import Posted

log = logging.getLogger(__name__)

LOOK_EVERY_S = 0.5
PAUSE_S = 2.0
"""After Redis could not be reached."""

Told = Callable[[str, Mapping[str, str] | None], object]
"""(fate, the dead letter's fields, if there is one)."""

Telling = Callable[[OutboxTold], AbstractContextManager[Mapping[str, str]]]

Post = Callable[[str, Mapping[str, str], bytes], Posted]


def untraced(_: OutboxTold) -> AbstractContextManager[Mapping[str, str]]:
    """No headers."""
    return nullcontext({})


class Courier:
    """One try: what is sent, how it went, what follows.

    Args:
        post: see `HttpPoster.post`.
        secrets: None where none are set.
        scale: of the waits between tries; 1 but for tests.
        told: hears of each fate that is written down; it must not raise.
        telling: goes round each try, and gives the headers that it has besides.
    """

    def __init__(
        self,
        outbox: Outbox,
        post: Post,
        secrets: Secrets | None,
        *,
        scale: float = 1.0,
        rng: random.Random | None = None,
        told: Told = lambda *_: None,
        telling: Telling = untraced,
    ) -> None:
        self._outbox, self._post, self._secrets = outbox, post, secrets
        self._told, self._telling = told, telling
        self._scale = scale
        self._rng = rng or random.Random()

    def deliver(self, claimed: Claimed) -> None:
        """Try once, and write down what came of it.

        Raises:
            StoreUnavailable: that could not be written down; it is tried again.
        """
        told = claimed.told
        if claimed.gone:
            self._drop(claimed, "its receiver wants no more: see 'captionq-worker callbacks'")
        elif (text := written(claimed)) is None:
            self._drop(claimed, "what it tells of is no longer kept")
        else:
            at, began_s = utcnow(), time.monotonic()
            outcome, reason = self._send(claimed, text, at)
            ms = round(1_000 * (time.monotonic() - began_s))
            step = decide(outcome, told.tried + 1, self._rng, self._scale)
            self._settle(claimed, text, _tried(at, outcome, step, ms), step, reason)

    def _send(self, claimed: Claimed, text: bytes, at: datetime) -> tuple[Outcome, str]:
        told = claimed.told
        try:
            if self._secrets is None:
                raise UnknownSecret("CALLBACK_SECRETS is not set")
            headers = self._secrets.headers(told.secret_id, told.owner, told.webhook_id, at, text)
            with self._telling(told) as more:
                headers = {"Content-Type": "application/json", **more, **headers}
                posted = self._post(told.url, headers, text)
        except UnknownSecret as exc:
            return Outcome(code=ErrorCode.CALLBACK_SECRET_UNKNOWN), str(exc)
        except Fault as exc:
            return Outcome(code=exc.code), str(exc)
        return Outcome(posted.status, None, posted.retry_after_s), f"status {posted.status}"

    def _settle(self, claimed: Claimed, text: bytes, tried: Try, step: Step, reason: str) -> None:
        told = claimed.told
        log.log(
            logging.WARNING if step.fate in (Fate.DEAD, Fate.DROPPED) else logging.INFO,
            "callback %s to %s: try %d: %s; %s",
            told.webhook_id,
            claimed.host,
            told.tried + 1,
            reason,
            f"next in {step.wait_s:.0f} s" if step.wait_s is not None else step.fate.value,
        )
        letter = _letter(claimed, text, step, reason) if step.fate is Fate.DEAD else None
        self._outbox.settle(
            claimed,
            step.fate,
            tried,
            wait_s=step.wait_s,
            disable=step.code is ErrorCode.CALLBACK_GONE,
            letter=letter,
        )
        self._told(step.fate.value, letter)

    def _drop(self, claimed: Claimed, why: str) -> None:
        log.warning("callback %s to %s: %s", claimed.told.webhook_id, claimed.host, why)
        self._outbox.settle(claimed, Fate.DROPPED)
        self._told(Fate.DROPPED.value, None)


class Couriers:
    """Threads that try callbacks as they come to be due. One of them looks; when there is something
    it goes, and the next looks. No host keeps more than half of them; see `slowest` for hosts
    together.

    Args:
        claim: see `Outbox.claim`.
        deliver: see `Courier.deliver`.
        threads: how many tries are made at a time.
    """

    def __init__(
        self,
        claim: Callable[[list[str], Pace], Claimed | None],
        deliver: Callable[[Claimed], None],
        threads: int,
        every_s: float = LOOK_EVERY_S,
    ) -> None:
        self._claim, self._deliver, self._every_s = claim, deliver, every_s
        self._couriers = threads
        self._under_way: Counter[str] = Counter()
        self._paces: Counter[Pace] = Counter()
        self._looking = threading.Lock()
        self._ended = threading.Condition()  # a try has, or all have
        self._closed = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, name=f"courier-{n}", daemon=True)
            for n in range(threads)
        ]

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def close(self, timeout_s: float = 5.0) -> None:
        """Begin nothing more, and wait for what is under way; what is not done then, another does
        when its lease ends."""
        self._closed.set()
        with self._ended:
            self._ended.notify_all()
        end_s = time.monotonic() + timeout_s
        for thread in self._threads:
            if thread.is_alive():
                thread.join(max(0.0, end_s - time.monotonic()))

    def _run(self) -> None:
        away = False
        while not self._closed.is_set():
            try:
                with self._looking:
                    claimed = self._next()
                if claimed is not None:
                    self._take(claimed)
                away = False
            except StoreUnavailable as exc:
                log.log(logging.DEBUG if away else logging.WARNING, "no callbacks: %s", exc)
                away = True
                self._closed.wait(PAUSE_S)
            except Exception:
                log.exception("a callback could not be tried; it is tried again")
                self._closed.wait(PAUSE_S)

    def _next(self) -> Claimed | None:
        while not self._closed.is_set():
            taken = self._taken()
            if (claimed := self._claim(*taken)) is not None:
                with self._ended:
                    self._under_way[claimed.host] += 1
                    self._paces[claimed.pace] += 1
                return claimed
            with self._ended:
                if self._taken() == taken and not self._closed.is_set():
                    self._ended.wait(self._every_s)
        return None

    def _taken(self) -> tuple[list[str], Pace]:
        """Hosts that have all the couriers they may, and the pace that the next may have."""
        most = max(1, self._couriers // 2)
        with self._ended:
            busy = [host for host, n in self._under_way.items() if n >= most]
            return busy, slowest(self._paces, self._couriers)

    def _take(self, claimed: Claimed) -> None:
        try:
            self._deliver(claimed)
        finally:
            with self._ended:
                self._paces[claimed.pace] -= 1
                self._under_way[claimed.host] -= 1
                if not self._under_way[claimed.host]:
                    del self._under_way[claimed.host]
                self._ended.notify_all()


def written(claimed: Claimed) -> bytes | None:
    """What its receiver is told; None when what it tells of is gone."""
    if claimed.told.body is not None:
        return claimed.told.body.encode()
    if claimed.batch is not None:
        batch = claimed.batch
        at = (batch.finished_at or utcnow()).isoformat()
        return body("batch.completed", at, batch.model_dump(mode="json"))
    if not claimed.result:
        return None
    result = json.loads(claimed.result)
    return body(f"job.{result['state']}", result["finished_at"], result)


def _tried(at: datetime, outcome: Outcome, step: Step, ms: int) -> Try:
    again = None if step.wait_s is None else datetime.now(UTC) + timedelta(seconds=step.wait_s)
    return Try(at=at, status=outcome.status, code=outcome.code, ms=ms, next_at=again)


def _letter(claimed: Claimed, text: bytes, step: Step, reason: str) -> dict[str, str]:
    told = claimed.told
    again = {
        "webhook_id": told.webhook_id,
        "url": told.url,
        "secret_id": told.secret_id,
        "owner": told.owner,
        "host": claimed.host,
        "body": text.decode(),
        **({"job_id": told.job_id} if told.job_id else {"batch_id": str(told.batch_id)}),
    }
    return {
        "job_id": told.job_id or "",
        "code": (step.code or ErrorCode.CALLBACK_FAILED).value,
        "reason": f"callback to {claimed.host} of {told.job_id or told.batch_id}: {reason}",
        "attempts": str(told.tried + 1),
        "at": utcnow().isoformat(),
        "callback": json.dumps(again),
    }
