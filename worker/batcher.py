"""Dynamic batching: many threads submit items, one device thread runs them together.

The policy is mosec's: wait for the first item without a timer, then gather until the batch is
full or the oldest item has waited `max_wait_s`. One refinement: it waits only while admitted
items are still on their way (being fetched or decoded), so an idle system pays no wait at all.

Every future is resolved, whatever happens: a batch that fails is bisected, so that one poison
item fails alone and running out of memory only halves the batch, and those that follow; a lost
device fails what waits and ends the process.
"""

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, NamedTuple, Self, TypeVar

log = logging.getLogger(__name__)

Key = TypeVar("Key", bound=Hashable)
"""What separates batches: items of one key have the same computation shape."""


class QueueFull(Exception):  # noqa: N818 - named as queue.Full is
    """The batcher holds `max_queue` items already."""


class BatcherClosed(Exception):  # noqa: N818
    """The batcher takes no more items."""


class Waiting(NamedTuple):
    """How much of one key waits, and since when (seconds of the batcher's clock)."""

    items: int
    oldest_s: float


class Take(NamedTuple, Generic[Key]):
    """Run the oldest items of `key` now."""

    key: Key


class Wait(NamedTuple):
    """Nothing to run yet: wait this long, or without a timer when None."""

    timeout_s: float | None


def decide(
    waiting: Mapping[Key, Waiting],
    now_s: float,
    on_the_way: int,
    max_batch: int,
    max_wait_s: float,
) -> Take[Key] | Wait:
    """The batching policy: which key to run now, or how long to wait.

    The key of the oldest item goes first once its batch is full, has waited long enough, or has
    nobody left to wait for. Until then another key that is full already may use the device.
    """
    if not waiting:
        return Wait(None)
    by_age = sorted(waiting, key=lambda key: waiting[key].oldest_s)
    oldest = waiting[by_age[0]]
    left_s = oldest.oldest_s + max_wait_s - now_s
    if on_the_way == 0 or left_s <= 0:
        return Take(by_age[0])
    for key in by_age:
        if waiting[key].items >= max_batch:
            return Take(key)
    return Wait(left_s)


@dataclass(frozen=True)
class Done:
    """An item's result, and how it came to it."""

    value: Any
    batch_size: int
    waited_s: float
    ran_s: float


@dataclass(frozen=True)
class _Item:
    payload: Any
    future: "Future[Done]"
    since_s: float


class Admission(Generic[Key]):
    """Items on their way; leaving the block without submitting them gives up their place."""

    def __init__(self, batcher: "Batcher[Key]") -> None:
        self._batcher = batcher
        self._pending = True

    def submit(self, key: Key, payload: Any) -> "Future[Done]":
        """Hand one item over. Raises: QueueFull, BatcherClosed, RuntimeError when called twice."""
        return self.submit_all(key, [payload])[0]

    def submit_all(self, key: Key, payloads: Sequence[Any]) -> "list[Future[Done]]":
        """Hand all items over at once: into one batch where it has room. Raises as `submit`."""
        if not self._pending:
            raise RuntimeError("an admission is used once")
        self._pending = False
        return self._batcher._arrive(key, payloads)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._pending:
            self._pending = False
            self._batcher._give_up()


class Batcher(Generic[Key]):
    """Gathers items by key and runs them on one device thread.

    `run(key, payloads)` returns one result per payload, in order. `out_of_memory` are exceptions
    of a batch that was too large: where its parts fit, no later batch is larger than they were.
    `fatal` are those after which the device is of no more use: `on_fatal` is then called once,
    from the device thread, before any future fails: it may return the jobs and end the process.
    So may `on_hang`, which is called once, from another thread, when a batch has run for
    `batch_timeout_s`.
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
        self._clock = clock
        self._changed = threading.Condition()
        self._queues: dict[Key, deque[_Item]] = {}
        self._on_the_way = 0
        self._closed = False
        self._began_s: float | None = None
        self._thread = threading.Thread(target=self._loop, name="device", daemon=True)
        self._thread.start()
        if batch_timeout_s < math.inf:
            threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    @property
    def max_batch(self) -> int:
        """Most items of a batch, as far as memory allowed so far."""
        return self._max_batch

    def admit(self) -> Admission[Key]:
        """Announce an item that is being fetched or decoded. Raises: BatcherClosed."""
        with self._changed:
            if self._closed:
                raise BatcherClosed
            self._on_the_way += 1
        return Admission(self)

    def submit(self, key: Key, payload: Any) -> "Future[Done]":
        """Hand an item over at once. Raises: QueueFull, BatcherClosed."""
        with self.admit() as admission:
            return admission.submit(key, payload)

    def close(self, timeout_s: float | None = None) -> bool:
        """Take no more items, run those that wait, and end the thread; False if it still runs."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _arrive(self, key: Key, payloads: Sequence[Any]) -> "list[Future[Done]]":
        with self._changed:
            self._on_the_way -= 1
            self._changed.notify_all()
            if self._closed:
                raise BatcherClosed
            if sum(map(len, self._queues.values())) + len(payloads) > self._max_queue:
                raise QueueFull
            since_s = self._clock()
            items = [_Item(payload, Future(), since_s) for payload in payloads]
            self._queues.setdefault(key, deque()).extend(items)
        return [item.future for item in items]

    def _give_up(self) -> None:
        with self._changed:
            self._on_the_way -= 1
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

    def _gather(self) -> tuple[Key, list[_Item]] | None:
        """The next batch, without its cancelled items; None when closed and drained."""
        with self._changed:
            while True:
                waiting = {k: Waiting(len(q), q[0].since_s) for k, q in self._queues.items()}
                if self._closed and not waiting:
                    return None
                on_the_way = 0 if self._closed else self._on_the_way
                match decide(waiting, self._clock(), on_the_way, self._max_batch, self._max_wait_s):
                    case Take(key):
                        return key, self._take(key)
                    case Wait(timeout_s):
                        self._changed.wait(timeout_s)

    def _take(self, key: Key) -> list[_Item]:
        queue = self._queues[key]
        items: list[_Item] = []
        while queue and len(items) < self._max_batch:
            item = queue.popleft()
            if item.future.set_running_or_notify_cancel():
                items.append(item)
        if not queue:
            del self._queues[key]
        return items

    def _run_batch(self, key: Key, items: list[_Item]) -> int:
        """Run items, in parts if need be. Returns the largest part that memory allowed, and 0 when
        an item did not fit even alone: that says nothing of batches."""
        began_s = self._clock()
        values, too_large = self._attempt(key, items)
        if values is None:
            if len(items) == 1:
                return 0 if too_large else 1
            # The failed batch's exception is gone by now, and with its traceback the tensors of
            # its frames: the parts have the memory to themselves.
            middle = len(items) // 2
            parts = [self._run_batch(key, part) for part in (items[:middle], items[middle:])]
            fitting = max(parts) if all(parts) else 0
            if too_large and 0 < fitting < self._max_batch:
                self._max_batch = fitting
                log.warning(
                    "out of memory with %d images; from now on at most %d", len(items), fitting
                )
            return fitting
        ran_s = self._clock() - began_s
        for item, value in zip(items, values, strict=True):
            item.future.set_result(Done(value, len(items), began_s - item.since_s, ran_s))
        return len(items)

    def _attempt(self, key: Key, items: list[_Item]) -> tuple[Sequence[Any] | None, bool]:
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

    def _fail_all(self, items: list[_Item], exc: BaseException) -> None:
        with self._changed:
            self._closed = True
            left = [item for queue in self._queues.values() for item in queue]
            self._queues.clear()
        for item in left:
            if item.future.set_running_or_notify_cancel():
                items = [*items, item]
        for item in items:
            if not item.future.done():
                item.future.set_exception(exc)
