"""What those outside are told of jobs: by a channel, by the results store, by Celery's backend."""

import json
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import redis

PAGE = 1_000

CALLBACK_KEYS = "captionq:callbacks:http*"
"""Callbacks that are due, by host."""

BROKER_KEYS = ("celery*", "captionq.*", "captionq:open:*", "unacked*", CALLBACK_KEYS)
"""Queues, what is in flight or delayed in ours and in kombu's way, the index of open jobs, and what
is still to be told."""


class Told(NamedTuple):
    """A result that was published: when it was heard (CLOCK_MONOTONIC), and which end it names."""

    at_s: float
    finished_at: str


class End(NamedTuple):
    """A job's end on record: "succeeded", "cancelled" or an error code, and its moment."""

    outcome: str
    finished_at: str


class Receiver:
    """An outsider who hears of every result, as long as the results store lets him.

    Attributes:
        told: what he heard, by job.
    """

    def __init__(self, url: str) -> None:
        self.told: dict[str, list[Told]] = defaultdict(list)
        self._url = url
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    @property
    def received(self) -> Counter[str]:
        """How many results were heard of each job."""
        return Counter({job_id: len(told) for job_id, told in self.told.items()})

    def close(self) -> None:
        """Hear no more."""
        self._closed.set()
        self._thread.join(10)

    def _listen(self) -> None:
        while not self._closed.is_set():
            try:
                with redis.Redis.from_url(self._url, socket_timeout=2) as client:
                    channels = client.pubsub(ignore_subscribe_messages=True)
                    channels.psubscribe("captionq:done:*")
                    while not self._closed.is_set():
                        message = channels.get_message(timeout=0.5)
                        if message is not None and message["type"] == "pmessage":
                            self._hear(message)
            except (redis.RedisError, OSError):
                time.sleep(0.1)

    def _hear(self, message: dict[str, Any]) -> None:
        job_id = message["channel"].decode().removeprefix("captionq:done:")
        finished_at = json.loads(message["data"])["finished_at"]
        self.told[job_id].append(Told(time.monotonic(), finished_at))


def records_of(url: str, job_ids: Iterable[str]) -> dict[str, End | None]:
    """How jobs ended as their records say; None for those that have not."""
    ends: dict[str, End | None] = {}
    ids = list(job_ids)
    with redis.Redis.from_url(url, decode_responses=True) as client:
        for begin in range(0, len(ids), PAGE):
            page = ids[begin : begin + PAGE]
            with client.pipeline(transaction=False) as pipeline:
                for job_id in page:
                    pipeline.hget(f"captionq:job:{job_id}", "result")
                texts: list[Any] = pipeline.execute()
            ends |= {job_id: _end(text) for job_id, text in zip(page, texts, strict=True)}
    return ends


def _end(text: str | None) -> End | None:
    if not text:
        return None
    result = json.loads(text)
    outcome = (result.get("error") or {}).get("code") or result["state"]
    return End(outcome, result["finished_at"])


def ends_of(url: str, job_ids: Iterable[str]) -> dict[str, str | None]:
    """The outcomes alone."""
    return {
        job_id: end.outcome if end is not None else None
        for job_id, end in records_of(url, job_ids).items()
    }


def letters_of(url: str) -> dict[str, list[str]]:
    """The codes of the dead letters there are, by job; under "" those that name none."""
    letters: dict[str, list[str]] = defaultdict(list)
    with redis.Redis.from_url(url, decode_responses=True) as client:
        entries: Any = client.xrange("captionq:dead")
    for _, fields in entries:
        letters[fields.get("job_id", "")].append(fields["code"])
    return dict(letters)


def left_of(url: str) -> dict[str, int]:
    """What a broker and the ledger's index still hold, by key; nothing once all jobs are done."""
    sizes: dict[str, int] = {}
    with redis.Redis.from_url(url, decode_responses=True) as client:
        measures: dict[str, Callable[[str], Any]] = {
            "list": client.llen,
            "hash": client.hlen,
            "zset": client.zcard,
        }
        for kind, measure in measures.items():
            for pattern in BROKER_KEYS:
                for key in client.scan_iter(pattern, count=PAGE, _type=kind):
                    sizes[key] = int(measure(key))
    return {key: size for key, size in sizes.items() if size}


def answers_of(url: str, job_ids: Iterable[str]) -> dict[str, str | None]:
    """What plain Celery clients read of their jobs: SUCCESS, FAILURE, ...; None for nothing."""
    answers: dict[str, str | None] = {}
    ids = list(job_ids)
    with redis.Redis.from_url(url, decode_responses=True) as client:
        for begin in range(0, len(ids), PAGE):
            page = ids[begin : begin + PAGE]
            texts: list[Any] = client.mget([f"celery-task-meta-{job_id}" for job_id in page])
            for job_id, text in zip(page, texts, strict=True):
                answers[job_id] = json.loads(text)["status"] if text else None
    return answers
