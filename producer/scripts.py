"""The scripts of the results store, each one atomic step in Redis.

producer/ledger.py says how records lie, and what each script is for. KEYS are always the key of a
record, `captionq:open`, and the key of the record's settled images.
"""

_WRITE = """
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

_INDEX = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function touch(queue, life)
    local index = KEYS[2] .. ':' .. queue
    redis.call('SADD', KEYS[2], queue)
    redis.call('ZADD', index, now, KEYS[1])
    for _, key in ipairs({KEYS[2], index}) do  -- never shorter: others may keep theirs for longer
        if redis.call('PTTL', key) < tonumber(life) then redis.call('PEXPIRE', key, life) end
    end
end

local function close()
    local queue = redis.call('HGET', KEYS[1], 'queue')
    if queue then redis.call('ZREM', KEYS[2] .. ':' .. queue, KEYS[1]) end
end
"""
"""What scripts know of the index: KEYS are a record and `captionq:open`."""

CREATE = (
    _WRITE
    + _INDEX
    + """
local known = redis.call('HGETALL', KEYS[1])
local about = redis.call('HMGET', KEYS[1], 'state', 'attempt', 'job')
if about[1] == 'failed' and about[2] == '0' and not about[3] then  -- of a message without a job
    redis.call('DEL', KEYS[1])
    known = {}
end
if #known > 0 then
    if redis.call('HGET', KEYS[1], 'job') == ARGV[2] then return {} end
    return known
end
local refused = write('HSET', KEYS[1], 'state', 'queued', 'task', ARGV[1], 'job', ARGV[2],
    'created_at', ARGV[3], 'queue', ARGV[5], 'opened_ms', now)
if refused then return refused end
redis.call('PEXPIRE', KEYS[1], ARGV[4])
redis.call('DEL', KEYS[3])
touch(ARGV[5], ARGV[4])
return {}
"""
)

START = (
    _WRITE
    + _INDEX
    + """
local later = tonumber(redis.call('HGET', KEYS[1], 'attempt') or 0) > tonumber(ARGV[3])
if redis.call('HEXISTS', KEYS[1], 'result') == 0 and not later then
    local history = cjson.decode(redis.call('HGET', KEYS[1], 'history') or '[]')
    local last, before = history[#history], false
    for _, one in ipairs(history) do before = before or one.attempt == tonumber(ARGV[3]) end
    if not (last and last.at == ARGV[2] and last.worker == ARGV[4]) then  -- not this call, repeated
        if before and ARGV[7] == '1' then return redis.call('HGETALL', KEYS[1]) end
        table.insert(history, {at = ARGV[2], worker = ARGV[4], attempt = tonumber(ARGV[3])})
    end
    if #history > tonumber(ARGV[6]) then table.remove(history, 1) end
    local refused = write('HSET', KEYS[1], 'state', 'running', 'started_at', ARGV[2],
        'attempt', ARGV[3], 'worker', ARGV[4], 'history', cjson.encode(history))
    if refused then return refused end
    redis.call('HSETNX', KEYS[1], 'created_at', ARGV[2])
    redis.call('HSETNX', KEYS[1], 'task', ARGV[1])
    redis.call('PEXPIRE', KEYS[1], ARGV[5])
    local queue = redis.call('HGET', KEYS[1], 'queue')
    if queue then touch(queue, ARGV[5]) end
end
return redis.call('HGETALL', KEYS[1])
"""
)

RETURN_DELIVERY = """
local history = cjson.decode(redis.call('HGET', KEYS[1], 'history') or '[]')
if redis.call('HEXISTS', KEYS[1], 'result') == 1 then return end
for i = #history, 1, -1 do
    if history[i].attempt == tonumber(ARGV[1]) then
        table.remove(history, i)
        redis.call('HSET', KEYS[1], 'state', 'queued', 'history',
            #history > 0 and cjson.encode(history) or '[]')
        return
    end
end
"""

FINISH = (
    _WRITE
    + _INDEX
    + """
local kept = redis.call('HGET', KEYS[1], 'result')
if kept then return kept end
local refused = write('HSET', KEYS[1], 'state', ARGV[2], 'result', ARGV[3], 'attempt', ARGV[4])
if refused then return refused end
redis.call('HSETNX', KEYS[1], 'task', ARGV[1])
redis.call('HSETNX', KEYS[1], 'created_at', ARGV[5])
redis.call('PEXPIRE', KEYS[1], ARGV[6])
redis.call('PUBLISH', ARGV[7], ARGV[3])
close()
if not ARGV[8] then
    redis.call('DEL', KEYS[3])
else
    redis.call('PEXPIRE', KEYS[3], ARGV[6])
    redis.call('XADD', ARGV[8], 'MAXLEN', '~', ARGV[9], '*',
        'deliveries', redis.call('HGET', KEYS[1], 'history') or '[]', unpack(ARGV, 12))
    redis.call('XTRIM', ARGV[8], 'MINID', '~', ARGV[10])
    redis.call('PEXPIRE', ARGV[8], ARGV[11])
end
return ARGV[3]
"""
)

SETTLE = (
    _WRITE
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

GET = "return redis.call('HGETALL', KEYS[1])"

RESULT = "return redis.call('HGET', KEYS[1], 'result')"

FORGET = (
    _INDEX
    + """
local record = redis.call('HMGET', KEYS[1], 'state', 'job')
if record[1] == 'queued' and record[2] == ARGV[1] then
    close()
    redis.call('DEL', KEYS[1])
end
"""
)

REOPEN = (
    _INDEX
    + """
local record = redis.call('HMGET', KEYS[1], 'state', 'replayed')
if record[1] == 'queued' and record[2] == ARGV[6] then return 1 end  -- cut off before it was sent
if record[1] and record[1] ~= 'failed' then return 0 end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'state', 'queued', 'task', ARGV[1], 'job', ARGV[2],
    'created_at', ARGV[3], 'queue', ARGV[5], 'opened_ms', now, 'replayed', ARGV[6])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
redis.call('PEXPIRE', KEYS[3], ARGV[4])
touch(ARGV[5], ARGV[4])
return 1
"""
)
