"""What a task returns: the result for whoever stores it, and a line of words for people."""

from collections import UserDict
from typing import Any

from producer.contract import JobResult
from producer.words import outcome


class Answered(UserDict[str, Any]):
    """A job's result as its JSON object, which Celery's backend stores as it would a dict.

    Celery's events, and so Flower and the worker's log, show a task's `repr`: here what was
    answered, in words. (Of a dict Celery would show the beginning of its JSON.)
    """

    def __init__(self, result: JobResult) -> None:
        super().__init__(result.model_dump(mode="json"))
        self._result = result

    def __json__(self) -> dict[str, Any]:
        """What kombu's JSON asks for."""
        return self.data

    def __repr__(self) -> str:
        return outcome(self._result)
