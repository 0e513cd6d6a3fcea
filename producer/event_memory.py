"""What is remembered of events, in the results store's Redis: which came before, in which order.

`captionq:order:<digest>` is the latest sequencer that was seen of a key of a bucket.
`captionq:told:<digest>` is there when an event of this content has been seen to: its jobs are in
the broker's hands, or it is out of the index. Both live for a bounded time, from the last event on.

Sources send events again, and in any order. An order is noted before jobs are submitted and what
has been told after, so that whoever dies between the two leaves an event that is taken anew: its
jobs have the same ids, and are one with those that were sent.
"""

from collections.abc import Sequence
from enum import StrEnum
from functools import cache
from typing import Any, Protocol

import redis.asyncio

from producer.contract import ErrorCode, utcnow
from producer.event_rules import Event, digest
from producer.ledger import DEAD_MAX, DEAD_TTL_S, Ledger, typed_errors

SEE = """
local life = ARGV[3]
if redis.call('EXISTS', KEYS[2]) == 1 then
    redis.call('PEXPIRE', KEYS[2], life)
    return 'repeated'
end
local function later(one, other)  -- by hexadecimal digits, the shorter one padded on the right
    local width = math.max(#one, #other)
    one = one .. string.rep('0', width - #one)
    other = other .. string.rep('0', width - #other)
    for at = 1, width, 12 do  -- 48 bits, which Lua's numbers hold
        local a = tonumber(string.sub(one, at, at + 11), 16)
        local b = tonumber(string.sub(other, at, at + 11), 16)
        if a ~= b then return a > b end
    end
    return false
end
if ARGV[1] ~= '' then
    local known = redis.call('GET', KEYS[1])
    if known and later(known, ARGV[1]) then
        redis.call('PEXPIRE', KEYS[1], life)
        return ARGV[2] == 'version' and 'new' or 'stale'
    end
    redis.call('SET', KEYS[1], ARGV[1], 'PX', life)
end
return 'new'
"""
"""KEYS are the order of a key, and what has been told of this content. ARGV: the sequencer, or
nothing; 'version' where one came, which a later one does not replace; the life in milliseconds."""

MAX_RAW = 65_536
"""Characters of an unreadable message that are kept."""


class Sighting(StrEnum):
    """What an event is, beside those that came before."""

    NEW = "new"
    REPEATED = "repeated"
    """It has been seen to."""
    STALE = "stale"
    """A later event of the same key has come: what this one tells of is no more."""


class Remembers(Protocol):
    """What an intake needs of a memory of events; see `EventMemory`."""

    async def see(self, events: Sequence[Event]) -> list[Sighting]:
        """What these events are, beside those that came before."""

    async def told(self, events: Sequence[Event]) -> None:
        """Note that these have been seen to."""

    async def untold(self, events: Sequence[Event]) -> None:
        """Note that these have not, whoever said so."""


class EventMemory:
    """Remembers events of all listeners and gateways that share a results store.

    Args:
        client: of the results store's Redis, with decoded answers.
        ttl_s: how long an event is remembered, in seconds.
        prefix: what all keys begin with.

    Every method raises StoreUnavailable when the store cannot be reached, StoreFull when it has no
    memory left.
    """

    def __init__(
        self, client: redis.asyncio.Redis, ttl_s: float = 604_800, prefix: str = "captionq:"
    ) -> None:
        self._ttl_ms = round(ttl_s * 1_000)
        self._prefix = prefix
        self._redis = client
        self._script = cache(client.register_script)

    async def see(self, events: Sequence[Event]) -> list[Sighting]:
        """What these events are, in order; each is compared with all that came before, and noted
        in the same step.

        A version is never stale: each is captioned, in whatever order they are told of, and goes
        for itself. What goes as a whole, or came without a version, is stale after what came later.
        """
        if not events:
            return []
        script = self._script(SEE)
        with typed_errors():
            async with self._redis.pipeline(transaction=False) as step:
                for event in events:
                    keys = [self._order(event), self._told(event)]
                    await script(keys, [*_ordered(event), self._ttl_ms], client=step)
                replies: list[Any] = await step.execute()
        return [Sighting(reply) for reply in replies]

    async def told(self, events: Sequence[Event]) -> None:
        """Note that these have been seen to."""
        if not events:
            return
        with typed_errors():
            async with self._redis.pipeline(transaction=False) as step:
                for event in events:
                    step.set(self._told(event), "1", px=self._ttl_ms)
                await step.execute()

    async def untold(self, events: Sequence[Event]) -> None:
        """Note that these have not been seen to, whoever said so: their jobs could not be sent, and
        whoever was told of the same meanwhile has found these jobs' records, and sent none."""
        if events:
            with typed_errors():
                await self._redis.unlink(*(self._told(event) for event in events))

    async def heard(self, message_id: str) -> bool:
        """Whether a message by this name has been seen to."""
        with typed_errors():
            return bool(await self._redis.exists(self._heard(message_id)))

    async def hear(self, message_id: str, ttl_s: float) -> None:
        """Note that a message by this name has been seen to, for so many seconds."""
        with typed_errors():
            await self._redis.set(self._heard(message_id), "1", px=round(ttl_s * 1_000))

    async def bury(self, raw: str, queue: str, reason: str) -> None:
        """Keep a message that no event can be read from as a dead letter."""
        fields = {
            "code": ErrorCode.JOB_INVALID.value,
            "reason": reason,
            "queue": queue,
            "at": utcnow().isoformat(),
            "raw": raw[:MAX_RAW].encode(errors="backslashreplace").decode(),
        }
        key = Ledger(0, 0, self._prefix).dead_key()
        with typed_errors():
            async with self._redis.pipeline() as step:
                step.xadd(key, fields, maxlen=DEAD_MAX, approximate=True)  # type: ignore[arg-type]
                step.pexpire(key, round(DEAD_TTL_S * 1_000))
                await step.execute()

    def _order(self, event: Event) -> str:
        return f"{self._prefix}order:{digest(event.bucket, event.key)[:32]}"

    def _heard(self, message_id: str) -> str:
        return f"{self._prefix}heard:{digest(message_id)[:32]}"

    def _told(self, event: Event) -> str:
        content = digest(event.kind, event.bucket, event.key, event.content)
        return f"{self._prefix}told:{content[:32]}"


def _ordered(event: Event) -> tuple[str, str]:
    """Its sequencer, where its order matters to others, and whether it has a version."""
    if event.version is None:
        return event.sequencer or "", ""
    return (event.sequencer or "") if event.kind == "created" else "", "version"
