"""The scripts of worker/callbacks/outbox.py, each one atomic step in Redis.

KEYS are those of producer/script_parts.py, of no record.
"""

from producer.script_parts import LOGGED_CALLBACKS, NAMES, TELL, WRITE

MOST_KEPT = 10_000

_PARTS = (
    NAMES
    + TELL
    + f"""
local due = prefix .. 'callbacks'
local quick, slow = due .. ':quick', due .. ':slow'
local most_kept = {MOST_KEPT}  -- hosts, and URLs that want no more

local function wait_until(host, webhook_id, at)
    redis.call('ZADD', due .. ':' .. host, at, webhook_id)
    redis.call('ZADD', due, 'LT', at, host)
    keep(due, callback_life)
    keep(due .. ':' .. host, callback_life)
end

local function note_down(webhook_id)
    redis.call('ZADD', due .. ':log', now, webhook_id)
    redis.call('ZREMRANGEBYRANK', due .. ':log', 0, {-1 - LOGGED_CALLBACKS})
    keep(due .. ':log', callback_life)
end

local function told_of(key)  -- the key of the record or the batch
    local about = redis.call('HMGET', key, 'job_id', 'batch_id')
    return about[1] and prefix .. 'job:' .. about[1] or prefix .. 'batch:' .. (about[2] or '')
end
"""
)

CLAIM = (
    _PARTS
    + """
local busy, slowest = {}, tonumber(ARGV[2])
for n = 3, #ARGV do busy[ARGV[n]] = true end
local most = slowest < 2 and 1000 or #ARGV + 14
for _, host in ipairs(redis.call('ZRANGEBYSCORE', due, '-inf', now, 'LIMIT', 0, most)) do
    local pace = redis.call('ZSCORE', quick, host) and 0
        or redis.call('ZSCORE', slow, host) and 2 or 1
    if not busy[host] and pace <= slowest then
        local waiting = due .. ':' .. host
        local webhook_id = redis.call('ZRANGEBYSCORE', waiting, '-inf', now, 'LIMIT', 0, 1)[1]
        local key = prefix .. 'callback:' .. (webhook_id or '')
        local is_due = webhook_id and redis.call('HGET', key, 'state') == 'due'
        if is_due then
            redis.call('ZADD', waiting, now + ARGV[1], webhook_id)
        elseif webhook_id then
            redis.call('ZREM', waiting, webhook_id)
        end
        local first = redis.call('ZRANGE', waiting, 0, 0, 'WITHSCORES')
        if first[1] then  -- its next, behind those of the others
            redis.call('ZADD', due, math.max(first[2], now), host)
        else
            redis.call('ZREM', due, host)
        end
        if is_due then
            local token = redis.call('HINCRBY', key, 'claims', 1)
            local about = redis.call('HGETALL', key)
            local url = redis.call('HGET', key, 'url')
            local gone = redis.call('ZSCORE', due .. ':gone', url) and 1 or 0
            local result, batch = '', {}
            if redis.call('HEXISTS', key, 'job_id') == 1 then
                result = redis.call('HGET', told_of(key), 'result') or ''
            else
                batch = redis.call('HGETALL', told_of(key))
            end
            return {webhook_id, token, gone, about, result, batch, pace}
        end
    end
end
return false
"""
)
"""The next callback that is due, leased. Hosts take turns; those that are busy are passed over, and
so are those that are slower (a Pace) than is asked for."""

SETTLE = (
    WRITE
    + _PARTS
    + """
local webhook_id, token, state, wait = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local key = prefix .. 'callback:' .. webhook_id
local about = redis.call('HMGET', key, 'claims', 'host', 'url', 'state')
if about[1] ~= token or about[4] ~= 'due' then return 0 end
local refused = write('HSET', key, 'state', state, 'tries', ARGV[5], 'tried', ARGV[6])
if refused then return refused end
local record = told_of(key)
if state == 'due' then
    redis.call('HSET', key, 'due_ms', now + wait)
    wait_until(about[2], webhook_id, now + wait)
    keep(key, callback_life)
    if redis.call('EXISTS', record) == 1 then keep(record, callback_life) end
else
    redis.call('HDEL', key, 'due_ms')
    redis.call('ZREM', due .. ':' .. about[2], webhook_id)
    redis.call('PEXPIRE', key, state == 'delivered' and ARGV[7] or callback_life)
    if redis.call('HEXISTS', record, 'result') == 1  -- and is no job that was replayed
            and redis.call('PTTL', record) > tonumber(ARGV[7]) then
        redis.call('PEXPIRE', record, ARGV[7])
    end
end
note_down(webhook_id)
if ARGV[8] == '1' then
    redis.call('ZADD', due .. ':gone', now, about[3])
    redis.call('ZREMRANGEBYRANK', due .. ':gone', 0, -1 - most_kept)
    redis.call('PEXPIRE', due .. ':gone', 7776000000)
end
if ARGV[9] ~= '' then  -- a Pace
    local is, was = quick, slow
    if ARGV[9] ~= '0' then is, was = slow, quick end
    redis.call('ZREM', was, about[2])
    redis.call('ZADD', is, now, about[2])
    redis.call('ZREMRANGEBYRANK', is, 0, -1 - most_kept)
    keep(is, callback_life)
end
if ARGV[10] then
    local dead = prefix .. 'dead'
    redis.call('XADD', dead, 'MAXLEN', '~', ARGV[10], '*', unpack(ARGV, 13))
    redis.call('XTRIM', dead, 'MINID', '~', ARGV[11])
    redis.call('PEXPIRE', dead, ARGV[12])
end
return 1
"""
)
"""What a try came to, if the callback is still leased to who tried."""

REPLAY = (
    WRITE
    + _PARTS
    + """
local webhook_id = ARGV[1]
local key = prefix .. 'callback:' .. webhook_id
if redis.call('EXISTS', key) == 0 and #ARGV == 1 then return 0 end
local refused = write('HSET', key, 'state', 'due', 'tried', 0, 'due_ms', now, unpack(ARGV, 2))
if refused then return refused end
redis.call('HINCRBY', key, 'claims', 1)
redis.call('HSETNX', key, 'created_ms', now)
keep(key, callback_life)
wait_until(redis.call('HGET', key, 'host'), webhook_id, now)
note_down(webhook_id)
return 1
"""
)
"""A callback due again, as if it had never been tried; with the fields that a letter kept of it."""

LOG = (
    NAMES
    + """
local found = {}
for _, webhook_id in ipairs(redis.call('ZREVRANGE', prefix .. 'callbacks:log', 0, ARGV[1] - 1)) do
    local about = redis.call('HGETALL', prefix .. 'callback:' .. webhook_id)
    if #about > 0 then table.insert(found, {webhook_id, about}) end
end
return found
"""
)

SHOW = (
    NAMES
    + """
local webhook_id = ARGV[1]
if redis.call('EXISTS', prefix .. 'callback:' .. webhook_id) == 0 then
    local told = redis.call('HGET', prefix .. 'job:' .. ARGV[1], 'callback')
        or redis.call('HGET', prefix .. 'batch:' .. ARGV[1], 'callback')
    if not told then return false end
    webhook_id = cjson.decode(told).id
end
local about = redis.call('HGETALL', prefix .. 'callback:' .. webhook_id)
if #about == 0 then return false end
return {webhook_id, about}
"""
)
"""One callback, by its webhook-id, or by the job or batch that it tells of."""

ENABLE = (
    NAMES
    + """
return redis.call('ZREM', prefix .. 'callbacks:gone', ARGV[1])
"""
)

DISABLED = (
    NAMES
    + """
return redis.call('ZREVRANGE', prefix .. 'callbacks:gone', 0, ARGV[1] - 1, 'WITHSCORES')
"""
)
