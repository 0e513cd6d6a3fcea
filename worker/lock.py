"""A lock in Redis with a life and a fencing token.

See Kleppmann, "How to do distributed locking", 2016: a holder that slept past the lock's life
cannot know it. So each taking has a token that is greater than all before it, and what the lock
guards is done by scripts that compare the token first.
"""

import redis

_TAKE = """
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
local token = holder or redis.call('INCR', KEYS[2])
redis.call('SET', KEYS[1], token, 'PX', ARGV[2])
return tonumber(token)
"""

_RELEASE = """
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
"""


class Lock:
    """One of those who want the lock `key`.

    Attributes:
        key: holds the token of who has the lock, while someone has.
        token: the last one that was ours; empty when another has the lock.

    Both methods raise redis.RedisError when Redis cannot be reached.
    """

    def __init__(self, client: redis.Redis, key: str, life_s: float) -> None:
        self.key = key
        self.token = ""
        self._life_ms = round(life_s * 1_000)
        self._take = client.register_script(_TAKE)
        self._release = client.register_script(_RELEASE)

    def take(self) -> bool:
        """Take the lock, or keep it, for its life from now. False when another has it."""
        token = int(self._take([self.key, f"{self.key}:token"], [self.token, self._life_ms]))
        self.token = str(token) if token else ""
        return bool(token)

    def release(self) -> None:
        """Leave it to others, if it is ours."""
        if self.token:
            self._release([self.key], [self.token])
            self.token = ""
