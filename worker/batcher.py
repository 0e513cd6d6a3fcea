"""Dynamic batching: many threads submit items, one device thread runs them together.

Which batch is run next is the policy's (worker/batching.py) to say.

Every future is resolved, whatever happens: a batch that fails is bisected, so that one poison
item fails alone and running out of memory only halves the batch, and those that follow; a lost
device fails what waits and ends the process.
"""

import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any, Generic, Literal, NamedTuple

from producer.queues import BULK, INTERACTIVE, Lane
from worker.admission import Admission
from worker.batching import Key, Take, Wait, decide
from worker.lines import Done, Item, Lines

log = logging.getLogger(__name__)


class QueueFull(Exception):  # noqa: N818 - named as queue.Full is
    """The batcher holds `max_queue` items of this lane already."""


class BatcherClosed(Exception):  # noqa: N818
    """The batcher takes no more items."""


Outcome = Literal["done", "failed", "out_of_memory"]


class Ran(NamedTuple):
    """A batch, or a part of one that had failed, that the device was at."""

    key: Any
    items: int
    weight: int
    room: int
    """What it might have weighed."""
    seconds: float
    outcome: Outcome


class Batcher(Generic[Key]):
    """Gathers items by key and runs them on one device thread.

    `run(key, payloads)` returns one result per payload, in order. `weigh` says how much of a
    batch's room a payload takes; one that is heavier than a batch runs alone. `out_of_memory` are
    exceptions of a batch that was too large: where its parts fit, no later batch is larger than
    they were.
    `fatal` are those after which the device is of no more use: `on_fatal` is then called once,
    from the device thread, before any future fails: it may return the jobs and end the process.
    So may `on_hang`, which is called once, from another thread, when a batch has run for
    `batch_timeout_s` since it began, or since `run` last called `alive`. `on_ran` hears, on the
    device thread, of each batch that did not end the device; it must not raise.
    """

    def __init__(
        self,
        run: Callable[[Key, Sequence[Any]], Sequence[Any]],
        *,
        max_batch: int,
        max_wait_s: float,
        max_queue: int = 1024,
        out_of_memory: tuple[type[BaseException], ...] = (MemoryError,),
        fatal: tuple[type[BaseException], ...] = (),
        on_fatal: Callable[[BaseException], None] = lambda _: None,
        batch_timeout_s: float = math.inf,
        on_hang: Callable[[str], None] = lambda _: None,
        weigh: Callable[[Any], int] = lambda _: 1,
        on_ran: Callable[[Ran], object] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._run = run
        self._max_batch = max_batch
        self._max_wait_s = max_wait_s
        self._max_queue = max_queue
        self._out_of_memory = out_of_memory
        self._fatal = fatal
        self._on_fatal = on_fatal
        self._batch_timeout_s = batch_timeout_s
        self._on_hang = on_hang
        self._weigh = weigh
        self._on_ran = on_ran
        self._clock = clock
        self._changed = threading.Condition()
        self._lines: Lines[Key] = Lines()
        self._on_the_way: dict[Lane, int] = {INTERACTIVE: 0, BULK: 0}
        self._reserved: dict[Lane, int] = {INTERACTIVE: 0, BULK: 0}
        self._passed_over = 0
        self._closed = False
        self._began_s: float | None = None
        self._thread = threading.Thread(target=self._loop, name="device", daemon=True)
        self._thread.start()
        if batch_timeout_s < math.inf:
            threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    @property
    def max_batch(self) -> int:
        """What a batch weighs at most, as far as memory allowed so far."""
        return self._max_batch

    @property
    def device_lives(self) -> bool:
        """Whether the device thread still takes batches."""
        return self._thread.is_alive()

    def running_s(self) -> float:
        """How long the device has been at its batch, or at a part of it; 0 between batches."""
        began_s = self._began_s
        return 0.0 if began_s is None else max(0.0, self._clock() - began_s)

    def waiting(self, lane: Lane) -> int:
        """Items that wait for the device."""
        return self._lines.length(lane)

    def admit(self, lane: Lane = INTERACTIVE) -> Admission[Key]:
        """Announce an item that is being fetched or decoded. Raises: BatcherClosed."""
        with self._changed:
            if self._closed:
                raise BatcherClosed
            self._on_the_way[lane] += 1
        return Admission(
            partial(self._reserve, lane), partial(self._arrive, lane), partial(self._give_up, lane)
        )

    def submit(self, key: Key, payload: Any, lane: Lane = INTERACTIVE) -> "Future[Done]":
        """Hand an item over at once. Raises: QueueFull, BatcherClosed."""
        with self.admit(lane) as admission:
            return admission.submit(key, payload)

    def alive(self) -> None:
        """For `run`: a part of the batch is done, and its time begins anew."""
        if self._began_s is not None:
            self._began_s = self._clock()

    def close(self, timeout_s: float | None = None) -> bool:
        """Take no more items, run those that wait, and end the thread; False if it still runs."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _room(self, lane: Lane, items: int) -> bool:
        return self._lines.length(lane) + self._reserved[lane] + items <= self._max_queue

    def _reserve(self, lane: Lane, items: int, timeout_s: float) -> None:
        with self._changed:
            if not self._changed.wait_for(
                lambda: self._closed or self._room(lane, items), timeout_s
            ):
                raise QueueFull
            if self._closed:
                raise BatcherClosed
            self._reserved[lane] += items

    def _arrive(
        self, lane: Lane, reserved: int, key: Key, payloads: Sequence[Any]
    ) -> "list[Future[Done]]":
        with self._changed:
            self._give_up(lane, reserved)
            if self._closed:
                raise BatcherClosed
            if not self._room(lane, len(payloads)):
                raise QueueFull
            since_s = self._clock()
            items = [Item(one, Future(), since_s, self._weigh(one)) for one in payloads]
            self._lines.add(key, lane, items)
        return [item.future for item in items]

    def _give_up(self, lane: Lane, reserved: int) -> None:
        with self._changed:
            self._on_the_way[lane] -= 1
            self._reserved[lane] -= reserved
            self._changed.notify_all()

    def _loop(self) -> None:
        while (batch := self._gather()) is not None:
            key, items = batch
            if not items:
                continue
            try:
                self._run_batch(key, items)
            except BaseException as exc:  # noqa: BLE001 - every future is resolved, then the end
                try:
                    self._on_fatal(exc)
                except Exception:
                    log.exception("the end of the device could not be told")
                self._fail_all(items, exc)
                return

    def _watch(self) -> None:
        """Count the time that one batch takes in ticks of this thread: a process that was stopped
        and goes on (SIGSTOP, a virtual machine that is moved) has not been at it meanwhile."""
        tick_s = min(1.0, self._batch_timeout_s / 4)
        watched, ticks = None, 0
        while self._thread.is_alive():
            time.sleep(tick_s)
            began_s = self._began_s
            ticks = ticks + 1 if began_s is not None and began_s == watched else 0
            watched = began_s
            if ticks * tick_s >= self._batch_timeout_s:
                self._on_hang(f"the device has been at one batch for {self._batch_timeout_s:g} s")
                return

    def _gather(self) -> tuple[Key, list[Item]] | None:
        """The next batch, without its cancelled items; None when closed and drained."""
        with self._changed:
            while True:
                if self._closed and not self._lines:
                    return None
                match self._decide():
                    case Take(key, first):
                        longest = self._lines.longest_waiting_bulk()
                        items = self._lines.take(key, first, self._max_batch)
                        passed = longest is self._lines.longest_waiting_bulk() is not None
                        self._passed_over = self._passed_over + 1 if passed else 0
                        self._changed.notify_all()  # there is room
                        return key, items
                    case Wait(timeout_s):
                        self._changed.wait(timeout_s)

    def _decide(self) -> Take[Key] | Wait:
        return decide(
            self._lines.waiting(),
            self._clock(),
            0 if self._closed else self._on_the_way[INTERACTIVE],
            self._max_batch,
            self._max_wait_s,
            bulk_on_the_way=0 if self._closed else self._on_the_way[BULK],
            passed_over=self._passed_over,
        )

    def _run_batch(self, key: Key, items: list[Item]) -> int:
        """Run items, in parts if need be. Returns what the largest part that memory allowed weighs,
        and 0 when an item did not fit even alone: that says nothing of batches."""
        began_s = self._clock()
        weight = sum(item.weight for item in items)
        room = self._max_batch
        values, too_large = self._attempt(key, items)
        ran_s = self._clock() - began_s
        outcome = _outcome(values is not None, too_large)
        self._on_ran(Ran(key, len(items), weight, room, ran_s, outcome))
        if values is None:
            if len(items) == 1:
                return 0 if too_large else weight
            # The failed batch's exception is gone by now, and with its traceback the tensors of
            # its frames: the parts have the memory to themselves.
            middle = len(items) // 2
            parts = [self._run_batch(key, part) for part in (items[:middle], items[middle:])]
            fitting = max(parts) if all(parts) else 0
            if too_large and 0 < fitting < self._max_batch:
                self._max_batch = fitting
                log.warning("out of memory with %d images; from now on at most %d", weight, fitting)
            return fitting
        for item, value in zip(items, values, strict=True):
            item.future.set_result(Done(value, len(items), began_s - item.since_s, ran_s))
        return weight

    def _attempt(self, key: Key, items: list[Item]) -> tuple[Sequence[Any] | None, bool]:
        """(results, False), or (None, whether memory was short); a lone item gets its exception."""
        self._began_s = self._clock()
        try:
            values = self._run(key, [item.payload for item in items])
            if len(values) != len(items):
                raise RuntimeError(f"{len(items)} items gave {len(values)} results")
        except self._fatal:
            raise
        except Exception as exc:  # noqa: BLE001 - whatever it is belongs to the items
            if len(items) == 1:
                items[0].future.set_exception(exc)
            return None, isinstance(exc, self._out_of_memory)
        finally:
            self._began_s = None
        return values, False

    def _fail_all(self, items: list[Item], exc: BaseException) -> None:
        with self._changed:
            self._closed = True
            left = self._lines.take_all()
            self._changed.notify_all()
        for item in [*items, *left]:
            if not item.future.done():
                item.future.set_exception(exc)


def _outcome(done: bool, too_large: bool) -> Outcome:
    if done:
        return "done"
    return "out_of_memory" if too_large else "failed"
