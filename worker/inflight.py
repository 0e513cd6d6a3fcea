"""How messages that have left their queue lie in Redis: keys and scripts; no I/O.

    captionq.inflight           hash: tag -> entry; the messages that some worker holds
    captionq.leases             sorted set: tag -> when its lease ends
    captionq.delayed            sorted set: name -> when the message is due
    captionq.delayed.messages   hash: name -> entry; worker/message.py says what names are

A tag names one taking of a message and is never used again, so a worker that lost its lease can
neither acknowledge nor return what another one holds by now. An entry is the key of the list that
the message came from, a line feed, and the message as its producer wrote it. Moments are
milliseconds of Redis' own clock. kombu's `global_keyprefix` stands before every key.

Every script is one atomic step, also in the append-only file: at any moment a message is in its
list, or in flight, or delayed, or buried, and in one of these alone. (The keys of lists are read
from the data, so this is for Redis with replicas, not for Redis Cluster.)
"""

from dataclasses import dataclass

_NOW = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""

_PUT_BACK = """
local function put_back(entry, push)
    local line = string.find(entry, '\\n', 1, true)
    redis.call(push, string.sub(entry, 1, line - 1), string.sub(entry, line + 1))
end
"""

TAKE = (
    _NOW
    + """
local inflight, leases, tag, lease_ms = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
for _, list in ipairs(KEYS) do
    local message = redis.pcall('RPOP', list)
    if type(message) == 'table' then  -- an error; Redis 6 hides its code behind the place
        return {err = (string.gsub(message.err, '^@user_script: %d+: %-', ''))}
    end
    if message then
        local kept = redis.pcall('HSET', inflight, tag, list .. '\\n' .. message)
        if type(kept) == 'table' and kept.err then
            redis.call('RPUSH', list, message)
            return kept
        end
        redis.call('ZADD', leases, now + lease_ms, tag)
        return {list, message, now}
    end
end
for _, list in ipairs(KEYS) do redis.call('EXISTS', list) end  -- ask to be told: CLIENT TRACKING
return false
"""
)
"""KEYS: the lists, in the order they are emptied. Returns {list, message, now}, or nothing."""

RENEW = (
    _NOW
    + """
local inflight, leases, lease_ms, lost = ARGV[1], ARGV[2], ARGV[3], {}
redis.call('ZREM', leases, '')  -- a full Redis refuses ZADD, but not after a write that it allowed
for i = 4, #ARGV do
    if redis.call('HEXISTS', inflight, ARGV[i]) == 1 then
        redis.call('ZADD', leases, now + lease_ms, ARGV[i])
    else
        lost[#lost + 1] = ARGV[i]
    end
end
return lost
"""
)
"""Extend the leases of tags; also those that ended, unless the message was given to another.
Returns the tags that were."""

RELEASE = """
local inflight, leases, released = ARGV[1], ARGV[2], 0
for i = 3, #ARGV do
    redis.call('ZREM', leases, ARGV[i])
    released = released + redis.call('HDEL', inflight, ARGV[i])
end
return released
"""
"""Forget messages that are done with. Returns how many were still in flight under these tags."""

RETURN = (
    _PUT_BACK
    + """
local inflight, leases, push, returned = ARGV[1], ARGV[2], ARGV[3], 0
for i = 4, #ARGV do
    local entry = redis.call('HGET', inflight, ARGV[i])
    redis.call('ZREM', leases, ARGV[i])
    if entry then
        redis.call('HDEL', inflight, ARGV[i])
        put_back(entry, push)
        returned = returned + 1
    end
end
return returned
"""
)
"""Put messages back into their lists: by RPUSH next, by LPUSH last in line. Returns how many."""

SWEEP = (
    _NOW
    + _PUT_BACK
    + """
local inflight, leases, delayed, messages = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local limit, earliest, latest = ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7])
if latest > 0 and (now > latest or now < earliest) then
    local longest = string.format('%.0f', now + ARGV[8])
    for _, tag in ipairs(redis.call('ZRANGEBYSCORE', leases, '(' .. longest, '+inf')) do
        redis.call('ZREM', leases, tag)  -- a full Redis refuses ZADD, but not after this
        redis.call('ZADD', leases, longest, tag)
    end
    return {now, -1, 0}
end

local function queue_again(index, entries)
    local names = redis.call('ZRANGEBYSCORE', index, '-inf', now, 'LIMIT', 0, limit)
    local queued = 0
    for i = #names, 1, -1 do  -- the last that is pushed is the first in line
        local entry = redis.call('HGET', entries, names[i])
        redis.call('ZREM', index, names[i])
        if entry then
            redis.call('HDEL', entries, names[i])
            put_back(entry, 'RPUSH')
            queued = queued + 1
        end
    end
    return queued
end

local ended = queue_again(leases, inflight)
return {now, ended, queue_again(delayed, messages)}
"""
)
"""Queue again, first in line, what has no lease any more and what is due. When the clock is not
between `earliest` and `latest` (0: wherever it is), nothing is queued, but no lease is left longer
than a new one. Returns {now, leases that ended or -1, messages due}."""

POSTPONE = """
local inflight, leases, delayed, messages = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local tag, id, due = ARGV[5], ARGV[6], ARGV[7]
local entry = redis.call('HGET', inflight, tag)
redis.call('ZREM', leases, tag)
if not entry then return 0 end
redis.call('HDEL', inflight, tag)
redis.call('HSET', messages, id, entry)
redis.call('ZADD', delayed, due, id)
return 1
"""
"""Move a message that was taken before its time to the delayed ones."""

DELAY = (
    _NOW
    + """
local delayed, messages, id, entry, delay_ms = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
redis.call('HSET', messages, id, entry)
redis.call('ZADD', delayed, now + delay_ms, id)
"""
)
"""Put a new message straight among the delayed ones."""


@dataclass(frozen=True)
class Keys:
    """The keys of one broker. `prefix` is kombu's `global_keyprefix`."""

    prefix: str = ""

    @property
    def inflight(self) -> str:
        """Hash of the messages that are held."""
        return f"{self.prefix}captionq.inflight"

    @property
    def leases(self) -> str:
        """Sorted set of when their leases end."""
        return f"{self.prefix}captionq.leases"

    @property
    def delayed(self) -> str:
        """Sorted set of when delayed messages are due."""
        return f"{self.prefix}captionq.delayed"

    @property
    def delayed_messages(self) -> str:
        """Hash of the delayed messages."""
        return f"{self.prefix}captionq.delayed.messages"


def entry(list_key: str, message: str) -> str:
    """A message with the list it belongs to."""
    return f"{list_key}\n{message}"
