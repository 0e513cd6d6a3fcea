"""The scripts of what lies round the records: lists, batches, workers. See producer/registry.py.

KEYS are those of producer/script_parts.py; where no record is meant, the key of none.
"""

from producer.script_parts import COUNT, NAMES, TELL, WRITE

LISTED = (
    NAMES
    + """
local before = ARGV[1] == '' and '+inf' or '(' .. ARGV[1]
local most, looked_at = tonumber(ARGV[2]), tonumber(ARGV[3])
local page = redis.call('ZREVRANGEBYSCORE', prefix .. 'jobs', before, '-inf',
    'WITHSCORES', 'LIMIT', 0, looked_at)
local found, last = {}, ''
for i = 1, #page, 2 do
    local key = prefix .. 'job:' .. page[i]
    local judged = redis.call('HMGET', key, 'state', 'owner', 'batch_id')
    local wanted = judged[1]
    for n = 1, 3 do wanted = wanted and (ARGV[n + 3] == '' or ARGV[n + 3] == judged[n]) end
    if wanted then
        local job, about = '', redis.call('HMGET', key, 'state', 'owner', 'batch_id', 'task',
            'created_at', 'finished_at', 'code', 'image_ref')
        if not about[8] and redis.call('HSTRLEN', key, 'job') <= tonumber(ARGV[7]) then
            job = redis.call('HGET', key, 'job') or ''
        end
        for n = 1, 8 do about[n] = about[n] or '' end
        table.insert(found, {page[i], job, unpack(about)})
    elseif not judged[1] then
        redis.call('ZREM', prefix .. 'jobs', page[i])
    end
    last = page[i + 1]
    if #found == most then break end
end
local more = last ~= '' and redis.call('ZCOUNT', prefix .. 'jobs', '-inf', '(' .. last) > 0
return {found, more and last or ''}
"""
)

OPEN_BATCH = (
    WRITE
    + NAMES
    + TELL
    + COUNT
    + """
local key = prefix .. 'batch:' .. ARGV[1]
local refused = write('HSETNX', key, 'created_ms', now)
if refused then return refused end
redis.call('HSETNX', key, 'closed', 0)
if redis.call('HEXISTS', key, 'opened') == 0 then
    redis.call('HSET', key, 'opened', 1, 'owner', ARGV[3])
    if ARGV[2] ~= '' then redis.call('HSET', key, 'callback', ARGV[2]) end
end
keep(key, ARGV[4])
return redis.call('HGETALL', key)
"""
)

CLOSE_BATCH = (
    WRITE
    + NAMES
    + TELL
    + COUNT
    + """
local key = prefix .. 'batch:' .. ARGV[1]
if redis.call('EXISTS', key) == 0 then return {} end
local refused = write('HSET', key, 'closed', 1)
if refused then return refused end
settle_batch(ARGV[1])
return redis.call('HGETALL', key)
"""
)

BATCH = (
    NAMES
    + """
return redis.call('HGETALL', prefix .. 'batch:' .. ARGV[1])
"""
)

PRESENT = (
    WRITE
    + NAMES
    + """
local refused = write('SET', prefix .. 'worker:' .. ARGV[1], ARGV[2], 'PX', ARGV[3])
if refused then return refused end
redis.call('SADD', prefix .. 'workers', ARGV[1])
redis.call('PEXPIRE', prefix .. 'workers', 86400000)
"""
)

ABSENT = (
    NAMES
    + """
redis.call('DEL', prefix .. 'worker:' .. ARGV[1])
redis.call('SREM', prefix .. 'workers', ARGV[1])
"""
)

WORKERS = (
    NAMES
    + """
local found = {}
for _, name in ipairs(redis.call('SMEMBERS', prefix .. 'workers')) do
    local facts = redis.call('GET', prefix .. 'worker:' .. name)
    if facts then
        table.insert(found, facts)
    else
        redis.call('SREM', prefix .. 'workers', name)
    end
end
return found
"""
)
