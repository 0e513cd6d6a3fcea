"""Items that are on their way to the batcher: announced, being fetched or decoded."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Generic, Self

from worker.batching import Key
from worker.lines import Done


class Admission(Generic[Key]):
    """Items on their way; leaving the block without submitting them gives up their place."""

    def __init__(
        self,
        reserve: Callable[[int, float], object],
        arrive: "Callable[[int, Key, Sequence[Any]], list[Future[Done]]]",
        give_up: Callable[[int], object],
    ) -> None:
        self._reserve = reserve
        self._arrive = arrive
        self._give_up = give_up
        self._pending = True
        self._reserved = 0

    def reserve(self, items: int, timeout_s: float) -> None:
        """Wait, so many seconds at most, until there is room for so many items, and keep it.

        Raises: QueueFull, BatcherClosed.
        """
        self._reserve(items, timeout_s)
        self._reserved = items

    def submit(self, key: Key, payload: Any) -> "Future[Done]":
        """Hand one item over. Raises: QueueFull, BatcherClosed, RuntimeError when called twice."""
        return self.submit_all(key, [payload])[0]

    def submit_all(self, key: Key, payloads: Sequence[Any]) -> "list[Future[Done]]":
        """Hand all items over at once: into one batch where it has room. Raises as `submit`."""
        if not self._pending:
            raise RuntimeError("an admission is used once")
        self._pending = False
        return self._arrive(self._reserved, key, payloads)

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
            self._give_up(self._reserved)
