"""What becomes of jobs, as it happens: one subscription for all who watch in this process.

Pub/sub keeps nothing, so whoever watches looks the job up once its subscription is confirmed, and
again whenever the connection was made anew: `LOOK` says so.
"""

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from enum import Enum
from typing import Any, NamedTuple

import redis.asyncio
from redis.asyncio.client import PubSub

from producer.ledger import Ledger

RECONNECT_PAUSE_S = 0.2
LISTEN_S = 30.0
WAKE_PAUSE_S = 0.01

_log = logging.getLogger("captionq.gateway")


class Kind(Enum):
    """What a watcher is told."""

    LOOK = "look the job up: something may have been missed"
    RUNNING = "a delivery of the job has begun, or was returned"
    DONE = "the job has ended; text is its result"
    LEAVING = "this process is about to end"


class Heard(NamedTuple):
    """One thing that was heard of a job."""

    kind: Kind
    text: str = ""


Watch = asyncio.Queue[Heard]


class Live:
    """Watches jobs, from `start` to `close`.

    One task alone speaks on the subscription's connection. Whoever wants it to subscribe to more
    wakes it through Redis, by a channel of this process's own.
    """

    def __init__(self, connections: redis.asyncio.Redis, ledger: Ledger) -> None:
        self._redis = connections
        self._ledger = ledger
        self._wake_channel = f"{ledger.prefix}gateway:{secrets.token_hex(8)}"
        self._watches: dict[str, set[Watch]] = {}
        self._subscribed: set[str] = set()
        self._changed: set[str] = set()
        self._waking: asyncio.Task[None] | None = None
        self._listening: asyncio.Task[None] | None = None
        self._leaving = self._over = False
        self._heard = True

    @asynccontextmanager
    async def watch(self, job_id: str) -> AsyncIterator[Watch]:
        """What is heard of a job from now on; LOOK comes first."""
        watch: Watch = asyncio.Queue()
        if self._leaving:
            watch.put_nowait(Heard(Kind.LEAVING))
        self._watches.setdefault(job_id, set()).add(watch)
        self._change(job_id)
        if job_id in self._subscribed:  # there may be no confirmation that would say so
            watch.put_nowait(Heard(Kind.LOOK))
        try:
            yield watch
        finally:
            watches = self._watches[job_id]
            watches.discard(watch)
            if not watches:
                del self._watches[job_id]
                self._change(job_id)

    def leave(self) -> None:
        """Tell all who watch that this process is about to end."""
        self._leaving = True
        self._tell_all(Heard(Kind.LEAVING))

    def start(self) -> None:
        """Listen from now on. Redis need not be there yet."""
        self._listening = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Listen no more."""
        self._over = True
        for task in (self._listening, self._waking):
            while task is not None and not task.done():
                task.cancel()  # asyncio.wait_for, of Python 3.11, may lose one; redis-py uses it
                await asyncio.wait([task], timeout=0.1)

    async def _run(self) -> None:
        while not self._over:
            try:
                await self._listen()
            except redis.RedisError as exc:
                if self._heard:  # it is told once
                    _log.warning("The subscription is lost, and made anew: %s", exc)
                    self._heard = False
            await asyncio.sleep(RECONNECT_PAUSE_S)

    async def _listen(self) -> None:
        async with aclosing(self._redis.pubsub()) as channels:
            self._subscribed = set(self._watches)
            self._changed.clear()
            await channels.subscribe(self._wake_channel, *self._channels(self._subscribed))
            while not self._over:
                message = await channels.get_message(timeout=LISTEN_S)
                if message is not None:
                    self._heard = True
                    self._hear(message)
                if self._changed:
                    await self._follow(channels)

    async def _follow(self, channels: PubSub) -> None:
        changed, self._changed = self._changed, set()
        new = {job_id for job_id in changed if job_id in self._watches} - self._subscribed
        gone = {job_id for job_id in changed if job_id not in self._watches} & self._subscribed
        if new:
            await channels.subscribe(*self._channels(new))
        if gone:
            await channels.unsubscribe(*self._channels(gone))
        self._subscribed |= new
        self._subscribed -= gone

    def _hear(self, message: dict[str, Any]) -> None:
        kind, channel = message["type"], message["channel"]
        if kind == "subscribe" and channel.startswith(self._ledger.channel("")):
            self._tell(self._ledger.job_id(channel), Heard(Kind.LOOK))
        elif kind == "message" and channel.startswith(self._ledger.channel("")):
            self._tell(self._ledger.job_id(channel), Heard(Kind.DONE, message["data"]))
        elif kind == "message" and channel.startswith(self._ledger.running_channel("")):
            job_id = channel.removeprefix(self._ledger.running_channel(""))
            self._tell(job_id, Heard(Kind.RUNNING, message["data"]))

    def _tell(self, job_id: str, heard: Heard) -> None:
        for watch in self._watches.get(job_id, ()):
            watch.put_nowait(heard)

    def _tell_all(self, heard: Heard) -> None:
        for job_id in self._watches:
            self._tell(job_id, heard)

    def _channels(self, job_ids: set[str]) -> list[str]:
        return [
            channel
            for job_id in job_ids
            for channel in (self._ledger.running_channel(job_id), self._ledger.channel(job_id))
        ]

    def _change(self, job_id: str) -> None:
        self._changed.add(job_id)
        if self._waking is None:
            self._waking = asyncio.create_task(self._wake())

    async def _wake(self) -> None:
        await asyncio.sleep(0)  # for others that come with it
        while self._changed and not self._over:
            try:
                await self._redis.publish(self._wake_channel, "")
                await asyncio.sleep(WAKE_PAUSE_S)
            except redis.RedisError:  # made anew, it is subscribed to all that is watched
                await asyncio.sleep(RECONNECT_PAUSE_S)
        self._waking = None
