"""What went from a bucket or a folder, taken out of the index."""

import threading
from collections.abc import Callable, Sequence

from producer.index.place import Place
from producer.index.table import VectorIndex
from producer.settings import ProducerSettings


def remover(settings: ProducerSettings) -> Callable[[Sequence[str]], int] | None:
    """`VectorIndex.remove` of the settings' index, one call at a time, from any thread; None where
    objects that go are to stay in it.

    Raises:
        NotInstalled: without LanceDB.
        IndexUnavailable: the index cannot be opened.
    """
    if not settings.events_remove:
        return None
    index = VectorIndex(Place.of(None, settings))
    index.space()
    lock = threading.Lock()

    def remove(image_refs: Sequence[str]) -> int:
        with lock:
            return index.remove(image_refs)

    return remove
