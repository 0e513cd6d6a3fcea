"""A worker process says that it lives, every few seconds, so that it is known who takes jobs."""

import logging
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Protocol

from producer.presence import EVERY_S, WorkerFacts
from producer.queues import queues_served
from producer.store import StoreUnavailable
from worker.packs.found import Found

log = logging.getLogger(__name__)


def facts_of(
    name: str,
    started_at: datetime,
    served: Sequence[tuple[str, str]],
    packs: Iterable[Found],
    language: str,
) -> WorkerFacts:
    """What this process is; packs that cannot be used count for nothing.

    Args:
        name: Celery's, of the worker.
        served: (task, model id) of what is loaded.
        language: the models' own.
    """
    usable = [one for one in packs if one.why_not is None]
    return WorkerFacts(
        name=name,
        pid=os.getpid(),
        started_at=started_at,
        models=dict(served),
        languages=tuple(sorted({language, *(one.language for one in usable if one.language)})),
        packs=tuple(sorted({one.name for one in usable})),
        queues=tuple(queues_served(served)),
    )


class Register(Protocol):
    """Where that is said; a `Store` is one."""

    def present(self, facts: WorkerFacts) -> None:
        """See `Store.present`."""

    def absent(self, name: str) -> None:
        """See `Store.absent`."""


class Presence:
    """Says what `facts` returns, in a thread of its own, from `start` to `close`."""

    def __init__(
        self, store: Register, facts: Callable[[], WorkerFacts], every_s: float = EVERY_S
    ) -> None:
        self._store = store
        self._facts = facts
        self._every_s = every_s
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="presence", daemon=True)

    def start(self) -> None:
        """Begin: the worker takes work."""
        self._thread.start()

    def close(self) -> None:
        """End, and say so."""
        self._closed.set()
        if not self._thread.is_alive():
            return
        self._thread.join(5)
        try:
            self._store.absent(self._facts().name)
        except StoreUnavailable as exc:  # it is forgotten soon all the same
            log.info("nobody is told that this worker ends: %s", exc)

    def _loop(self) -> None:
        away = False
        while True:
            try:
                self._store.present(self._facts())
                away = False
            except StoreUnavailable as exc:
                log.log(logging.DEBUG if away else logging.WARNING, "not told of: %s", exc)
                away = True
            except Exception:
                log.exception("what this worker is could not be said; it is tried again")
            if self._closed.wait(self._every_s):
                return
