"""What the scripts of the results store share, in Lua.

KEYS are always the key of a record, `captionq:open`, and the key of the record's settled images;
other keys are made from these. producer/ledger.py says how everything lies.
"""

CALLBACK_LIFE_S = 4 * 86_400
"""How long a result that somebody is to be told of is kept at least, and what is noted of telling:
longer than all tries take (worker/callbacks/schedule.py). After that, as long as other results."""

LOGGED_CALLBACKS = 10_000
"""Callbacks, the latest, that can be listed."""

WRITE = """
local function write(...)
    local reply = redis.pcall(...)
    if type(reply) == 'table' and reply.err then
        if string.find(reply.err, 'OOM', 1, true) then  -- Redis 6 puts words before the code
            return redis.error_reply('OOM the results store is full')
        end
        return reply
    end
end
"""

NAMES = """
local prefix = string.sub(KEYS[2], 1, -5)
local id = string.sub(KEYS[1], #prefix + 5)
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function keep(key, life)  -- never shorter: others may keep theirs for longer
    if redis.call('PTTL', key) < tonumber(life) then redis.call('PEXPIRE', key, life) end
end
"""

INDEX = """
local function touch(queue, life)
    local index = KEYS[2] .. ':' .. queue
    redis.call('SADD', KEYS[2], queue)
    redis.call('ZADD', index, now, KEYS[1])
    keep(KEYS[2], life)
    keep(index, life)
end

local function close(queue)
    if queue then redis.call('ZREM', KEYS[2] .. ':' .. queue, KEYS[1]) end
end
"""
"""The open jobs of each queue."""

LIST = """
local function list(most, life)  -- by the microsecond: no two have the same
    if most == '0' then return end
    local key = prefix .. 'jobs'
    redis.call('ZADD', key, string.format('%.0f', time[1] * 1000000 + time[2]), id)
    redis.call('ZREMRANGEBYRANK', key, 0, -1 - most)
    keep(key, life)
end
"""
"""The newest jobs."""

TELL = f"""
local callback_life = {CALLBACK_LIFE_S * 1000}

local function tell(callback, about, name, owner)  -- that a job or a batch has ended
    local to = cjson.decode(callback)
    local scheme, authority = string.match(to.url, '^(%a+://)([^/?#]*)')
    local host = string.lower(scheme .. string.gsub(authority, '^.*@', ''))  -- no passwords
    local key, due = prefix .. 'callback:' .. to.id, prefix .. 'callbacks'
    redis.call('DEL', key)
    redis.call('HSET', key, about, name, 'url', to.url, 'secret_id', to.secret_id, 'host', host,
        'created_ms', now, 'state', 'due', 'owner', owner or '')
    redis.call('ZREMRANGEBYSCORE', due .. ':' .. host, '-inf', now - callback_life)  -- by nobody
    redis.call('ZADD', due .. ':' .. host, now, to.id)
    redis.call('ZADD', due, 'LT', now, host)
    redis.call('ZADD', due .. ':log', now, to.id)
    redis.call('ZREMRANGEBYRANK', due .. ':log', 0, {-1 - LOGGED_CALLBACKS})
    for _, each in ipairs({{key, due .. ':' .. host, due, due .. ':log'}}) do
        keep(each, callback_life)
    end
end

local function untell(callback)  -- what has not been told yet, and is true no longer
    local to = cjson.decode(callback)
    local key = prefix .. 'callback:' .. to.id
    if redis.call('HGET', key, 'state') == 'due' then
        redis.call('ZREM', prefix .. 'callbacks:' .. redis.call('HGET', key, 'host'), to.id)
        redis.call('DEL', key)
    end
end
"""
"""Callbacks that are due: hosts by the first of each, and those of each host."""

COUNT = """
local function settle_batch(batch)  -- it ends once: closed, and all its jobs ended
    local key = prefix .. 'batch:' .. batch
    local about = redis.call('HMGET', key,
        'closed', 'finished_ms', 'queued', 'running', 'callback', 'owner')
    if about[1] ~= '1' or about[2] or tonumber(about[3] or 0) + tonumber(about[4] or 0) > 0 then
        return
    end
    redis.call('HSET', key, 'finished_ms', now)
    if about[5] then
        tell(about[5], 'batch_id', batch, about[6])
        keep(key, callback_life)
    end
end

local function count(batch, state, life)  -- no state: the job is none of it any more
    local key = prefix .. 'batch:' .. batch
    local jobs = prefix .. 'counted:' .. batch
    local before = redis.call('HGET', jobs, id) or nil
    if before == state then return end
    if before then
        redis.call('HINCRBY', key, before, -1)
    else
        redis.call('HINCRBY', key, 'total', 1)
        redis.call('HSETNX', key, 'created_ms', now)
    end
    if state then
        redis.call('HINCRBY', key, state, 1)
        redis.call('HSET', jobs, id, state)
        keep(jobs, life)
        keep(key, life)
    else
        redis.call('HINCRBY', key, 'total', -1)
        redis.call('HDEL', jobs, id)
    end
    settle_batch(batch)
end
"""
"""Batches: counts, and the state in which each job is counted."""

NOTE = """
local function note(callback, batch, owner)  -- of a new record; '' is none
    if callback ~= '' then redis.call('HSET', KEYS[1], 'callback', callback) end
    if batch ~= '' then redis.call('HSET', KEYS[1], 'batch_id', batch) end
    if owner ~= '' then redis.call('HSET', KEYS[1], 'owner', owner) end
end
"""
"""What a job was submitted under."""
