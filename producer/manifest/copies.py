"""Files copied to where workers read them, several at a time."""

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path

from producer.manifest.reference import BadReference, Located
from producer.upload import UploadFailed

AT_ONCE = 8

Task = tuple["Future[str | BadReference]", Path]


class Copies:
    """Threads that copy files. A copy that hangs is left behind: an executor's threads are waited
    for by Python before it ends, for minutes where S3 does not answer.

    Args:
        upload: copies a file, and returns its URI.
    """

    def __init__(self, upload: Callable[[Path], str], at_once: int = AT_ONCE) -> None:
        self._upload = upload
        self._at_once = at_once
        self._tasks: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
        for _ in range(at_once):
            threading.Thread(target=self._work, name="upload", daemon=True).start()

    def uris(self, found: Sequence[Located]) -> list[str | BadReference]:
        """The URIs of these, in order; for a file that cannot be read, why.

        Raises:
            UploadFailed: S3 did not take a file.
        """
        copies: list[Future[str | BadReference]] = []
        for one in found:
            copy: Future[str | BadReference] = Future()
            copies.append(copy)
            if one.path is None:
                copy.set_result(one.uri)
            else:
                self._tasks.put((copy, one.path))
        return [copy.result() for copy in copies]

    def close(self) -> None:
        """Copy no more than what is begun."""
        with suppress(queue.Empty):
            while (task := self._tasks.get_nowait()) is not None:
                task[0].cancel()
        for _ in range(self._at_once):
            self._tasks.put(None)

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            copy, path = task
            try:
                copy.set_result(self._upload(path))
            except UploadFailed as exc:
                copy.set_exception(exc)
            except OSError as exc:
                copy.set_result(BadReference(f"The file cannot be read: {exc.strerror}."))
            except BaseException as exc:  # noqa: BLE001 - raised again by uris
                copy.set_exception(exc)
