"""Publishing results: patient with a store that is away, so that no device work is done twice."""

import logging
import random
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import TypeVar

from producer.contract import JobResult
from producer.store import Store, StoreUnavailable
from producer.terms import Terms

log = logging.getLogger(__name__)
T = TypeVar("T")
Letter = Mapping[str, str]
Ended = tuple[JobResult, Letter | None, Terms | None]


def patiently(
    call: Callable[[], T],
    patience_s: float,
    *,
    sleep: Callable[[float], object] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> T:
    """Call until the store answers, with jittered backoff from 0.1 s to 2 s, for `patience_s`.

    Raises:
        StoreUnavailable: the last one, when patience is over.
    """
    give_up_s = clock() + patience_s
    pause_s = 0.1
    while True:
        try:
            return call()
        except StoreUnavailable as exc:
            if clock() >= give_up_s:
                raise
            log.warning("the results store is away (%s); trying again", exc)
            sleep(pause_s * random.uniform(0.5, 1.0))
            pause_s = min(2.0, pause_s * 2)


class Publisher:
    """Writes results to the store; remembers those it could not write.

    A job that comes back to this process after its patience ran out finds its result here
    (`unpublished`), so that the device does not run again.
    """

    def __init__(self, store: Store, *, patience_s: float, remember: int = 1_000) -> None:
        self._store = store
        self._patience_s = patience_s
        self._remember = remember
        self._lock = threading.Lock()
        self._unpublished: OrderedDict[str, Ended] = OrderedDict()

    def publish(
        self, result: JobResult, letter: Letter | None = None, terms: Terms | None = None
    ) -> JobResult:
        """Write a terminal state; returns the result that counts (the first one to be written).

        `letter` is the dead letter that goes with it, if any; `terms` are the job's.

        Raises:
            StoreUnavailable: after `patience_s` seconds without the store.
        """
        try:
            kept = patiently(lambda: self._store.finish(result, letter, terms), self._patience_s)
        except StoreUnavailable:
            with self._lock:
                self._unpublished[result.job_id] = result, letter, terms
                while len(self._unpublished) > self._remember:
                    self._unpublished.popitem(last=False)
            raise
        with self._lock:
            self._unpublished.pop(result.job_id, None)
        return kept

    def unpublished(self, job_id: str) -> Ended | None:
        """What an earlier run of this job ended with that could not be written, if any."""
        with self._lock:
            return self._unpublished.get(job_id)
