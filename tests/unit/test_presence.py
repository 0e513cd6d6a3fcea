"""A worker process says that it lives."""

import threading

from producer.memory_store import MemoryStore
from producer.presence import WorkerFacts
from producer.store import StoreUnavailable
from tests.stores import SUBMITTED
from worker.presence import Presence

FACTS = WorkerFacts(name="w@host", pid=1, started_at=SUBMITTED, models={"caption": "org/blip"})


class Register(MemoryStore):
    """Is away for the first `failures` times; `said` after so many more."""

    def __init__(self, failures: int = 0, often: int = 1) -> None:
        super().__init__()
        self.failures, self.often = failures, often
        self.said = threading.Event()

    def present(self, facts: WorkerFacts, life_s: float = 15) -> None:
        if self.failures:
            self.failures -= 1
            raise StoreUnavailable("away")
        super().present(facts, life_s)
        self.often -= 1
        if self.often <= 0:
            self.said.set()


def test_given_a_store_that_was_away_then_a_worker_is_known_until_it_ends() -> None:
    store = Register(failures=2, often=3)
    presence = Presence(store, lambda: FACTS, every_s=0.001)
    presence.start()

    assert store.said.wait(5)
    assert store.workers() == [FACTS]
    presence.close()

    assert store.workers() == []


def test_given_a_worker_that_never_took_work_then_nobody_was_told_of_it() -> None:
    store = Register()

    Presence(store, lambda: FACTS).close()

    assert store.workers() == []
    assert not store.said.is_set()
