"""The scripts of the results store, each one atomic step in Redis.

producer/ledger.py says how records lie, and what each script is for; producer/script_parts.py has
what they share. A script that may find Redis full begins with what `write` writes: where that is
refused nothing has been written, and what follows is not refused any more.
"""

from producer.script_parts import COUNT, INDEX, LIST, NAMES, NOTE, TELL, WRITE

_RECORDING = WRITE + NAMES + INDEX + LIST + TELL + COUNT + NOTE
"""What a script needs that may write a job's first record."""

CREATE = (
    _RECORDING
    + """
local known = redis.call('HGETALL', KEYS[1])
if #known > 0 then
    local about = redis.call('HMGET', KEYS[1], 'state', 'attempt', 'job')
    if about[1] == 'failed' and about[2] == '0' and not about[3] then  -- a message without a job
        redis.call('DEL', KEYS[1])
    elseif about[3] == ARGV[2] then
        return {}
    else
        return known
    end
end
local refused = write('HSET', KEYS[1], 'state', 'queued', 'task', ARGV[1], 'job', ARGV[2],
    'created_at', ARGV[3], 'queue', ARGV[5], 'opened_ms', now)
if refused then return refused end
redis.call('PEXPIRE', KEYS[1], ARGV[4])
redis.call('DEL', KEYS[3])
touch(ARGV[5], ARGV[4])
list(ARGV[6], ARGV[4])
note(ARGV[7], ARGV[8], ARGV[9])
if ARGV[8] ~= '' then count(ARGV[8], 'queued', ARGV[4]) end
if ARGV[10] then  -- the broker is this Redis: its message as well, and what is told of that
    redis.call('LPUSH', ARGV[5], ARGV[10])
    redis.call('PUBLISH', ARGV[11], ARGV[12])
end
return {}
"""
)

START = (
    _RECORDING
    + """
local about = redis.call('HMGET', KEYS[1], 'attempt', 'history', 'queue', 'batch_id', 'created_at')
local later = tonumber(about[1] or 0) > tonumber(ARGV[3])
if redis.call('HEXISTS', KEYS[1], 'result') == 0 and not later then
    local history = cjson.decode(about[2] or '[]')
    local last, before, counted = history[#history], false, false
    for _, one in ipairs(history) do before = before or one.attempt == tonumber(ARGV[3]) end
    if not (last and last.at == ARGV[2] and last.worker == ARGV[4]) then  -- not this call, repeated
        if before and ARGV[7] == '1' then return redis.call('HGETALL', KEYS[1]) end
        table.insert(history, {at = ARGV[2], worker = ARGV[4], attempt = tonumber(ARGV[3])})
        counted = true
    end
    if #history > tonumber(ARGV[6]) then table.remove(history, 1) end
    local refused = write('HSET', KEYS[1], 'state', 'running', 'started_at', ARGV[2],
        'attempt', ARGV[3], 'worker', ARGV[4], 'history', cjson.encode(history))
    if refused then return refused end
    local batch = about[4]
    if not about[5] then  -- nobody recorded it: the message is a plain client's
        redis.call('HSET', KEYS[1], 'created_at', ARGV[2], 'task', ARGV[1])
        list(ARGV[8], ARGV[5])
        note(ARGV[10], ARGV[11], ARGV[12])
        batch = ARGV[11] ~= '' and ARGV[11]
    end
    redis.call('PEXPIRE', KEYS[1], ARGV[5])
    if about[3] then touch(about[3], ARGV[5]) end
    if batch then count(batch, 'running', ARGV[5]) end
    if counted then redis.call('PUBLISH', prefix .. 'running:' .. id, ARGV[9]) end
end
return redis.call('HGETALL', KEYS[1])
"""
)

RETURN_DELIVERY = (
    NAMES
    + TELL
    + COUNT
    + """
local about = redis.call('HMGET', KEYS[1], 'history', 'batch_id')
local history = cjson.decode(about[1] or '[]')
if redis.call('HEXISTS', KEYS[1], 'result') == 1 then return end
for i = #history, 1, -1 do
    if history[i].attempt == tonumber(ARGV[1]) then
        local worker = history[i].worker
        table.remove(history, i)
        redis.call('HSET', KEYS[1], 'state', 'queued', 'history',
            #history > 0 and cjson.encode(history) or '[]')
        if about[2] then count(about[2], 'queued', 0) end
        redis.call('PUBLISH', prefix .. 'running:' .. id,
            cjson.encode({state = 'queued', attempt = tonumber(ARGV[1]), worker = worker}))
        return
    end
end
"""
)

FINISH = (
    _RECORDING
    + """
local about = redis.call('HMGET', KEYS[1],
    'result', 'queue', 'created_at', 'callback', 'batch_id', 'owner')
if about[1] then return about[1] end
local refused = write('HSET', KEYS[1], 'state', ARGV[2], 'result', ARGV[3], 'attempt', ARGV[4],
    'finished_at', ARGV[9])
if refused then return refused end
local callback, batch, owner = about[4], about[5], about[6]
if not about[3] then  -- nobody recorded it: the message is a plain client's
    redis.call('HSET', KEYS[1], 'task', ARGV[1], 'created_at', ARGV[5])
    list(ARGV[10], ARGV[8])
    note(ARGV[14], ARGV[15], ARGV[16])
    callback = ARGV[14] ~= '' and ARGV[14]
    batch = ARGV[15] ~= '' and ARGV[15]
    owner = ARGV[16]
end
if ARGV[12] ~= '' then redis.call('HSET', KEYS[1], 'code', ARGV[12]) end
if not about[2] and ARGV[13] ~= '' then redis.call('HSET', KEYS[1], 'image_ref', ARGV[13]) end
redis.call('PEXPIRE', KEYS[1], ARGV[6])
redis.call('PUBLISH', ARGV[7], ARGV[3])
close(about[2])
if callback then
    tell(callback, 'job_id', id, owner)
    keep(KEYS[1], callback_life)
end
if batch then count(batch, ARGV[2], ARGV[8]) end
if ARGV[11] ~= '0' then
    local stream = prefix .. 'results'
    redis.call('XADD', stream, 'MAXLEN', '~', ARGV[11], '*', 'job_id', id, 'task', ARGV[1],
        'state', ARGV[2], 'owner', owner or '', 'result', ARGV[3])
    redis.call('PEXPIRE', stream, ARGV[8])
end
if not ARGV[17] then
    redis.call('DEL', KEYS[3])
else
    redis.call('PEXPIRE', KEYS[3], ARGV[6])
    redis.call('XADD', ARGV[17], 'MAXLEN', '~', ARGV[18], '*',
        'deliveries', redis.call('HGET', KEYS[1], 'history') or '[]', unpack(ARGV, 21))
    redis.call('XTRIM', ARGV[17], 'MINID', '~', ARGV[19])
    redis.call('PEXPIRE', ARGV[17], ARGV[20])
end
return ARGV[3]
"""
)

SETTLE = (
    WRITE
    + """
local result = redis.call('HGET', KEYS[1], 'result')
if result then return {result, {}} end
if redis.call('EXISTS', KEYS[1]) == 1 then
    for i = 2, #ARGV, 2 do
        if redis.call('HEXISTS', KEYS[3], ARGV[i]) == 0 then
            local refused = write('HSET', KEYS[3], ARGV[i], ARGV[i + 1])
            if refused then return refused end
        end
    end
    redis.call('PEXPIRE', KEYS[3], ARGV[1])
end
return {'', redis.call('HGETALL', KEYS[3])}
"""
)

TRACE = """
if redis.call('EXISTS', KEYS[1]) == 1 then redis.call('HSETNX', KEYS[1], 'traceparent', ARGV[1]) end
"""

TRACEPARENT = "return redis.call('HGET', KEYS[1], 'traceparent')"

GET = "return redis.call('HGETALL', KEYS[1])"

RESULT = "return redis.call('HGET', KEYS[1], 'result')"

FORGET = (
    NAMES
    + INDEX
    + TELL
    + COUNT
    + """
local about = redis.call('HMGET', KEYS[1], 'state', 'job', 'queue', 'batch_id')
if about[1] == 'queued' and about[2] == ARGV[1] then
    redis.call('DEL', KEYS[1])  -- first: a full Redis refuses no deletion, and then no more at all
    redis.call('ZREM', prefix .. 'jobs', id)
    close(about[3])
    if about[4] then count(about[4], nil, 0) end
end
"""
)

REOPEN = (
    NAMES
    + INDEX
    + LIST
    + TELL
    + COUNT
    + NOTE
    + """
local about = redis.call('HMGET', KEYS[1], 'state', 'replayed', 'callback', 'traceparent')
if about[1] == 'queued' and about[2] == ARGV[6] then return 1 end  -- cut off before it was sent
if about[1] and about[1] ~= 'failed' then return 0 end
if about[3] then untell(about[3]) end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'state', 'queued', 'task', ARGV[1], 'job', ARGV[2],
    'created_at', ARGV[3], 'queue', ARGV[5], 'opened_ms', now, 'replayed', ARGV[6])
if about[4] then redis.call('HSET', KEYS[1], 'traceparent', about[4]) end
redis.call('PEXPIRE', KEYS[1], ARGV[4])
redis.call('PEXPIRE', KEYS[3], ARGV[4])
touch(ARGV[5], ARGV[4])
list(ARGV[7], ARGV[4])
note(ARGV[8], ARGV[9], ARGV[10])
if ARGV[9] ~= '' then count(ARGV[9], 'queued', ARGV[4]) end
return 1
"""
)
