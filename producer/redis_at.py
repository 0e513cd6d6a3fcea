"""Clients of Redis by URL: one server, with or without TLS, or the master that Sentinel names.

    redis://user:password@host:6379/0
    rediss://user:password@host:6379/0?ssl_ca_certs=/ca.pem&ssl_certfile=/me.pem&ssl_keyfile=/me.key
    sentinel://user:password@host1:26379;sentinel://host2:26379;sentinel://host3:26379

Of Sentinel's URLs, as kombu reads them, the first one's user, password and database are those of
Redis itself; the name of the master may stand behind a `#`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import unquote, urlsplit

import redis
import redis.asyncio
import redis.asyncio.retry
import redis.asyncio.sentinel as typed_async_sentinel
import redis.sentinel as typed_sentinel
from redis.backoff import NoBackoff
from redis.retry import Retry

_sentinel: Any = typed_sentinel
_async_sentinel: Any = typed_async_sentinel

SENTINEL = "sentinel://"
REDIS_SCHEMES = ("redis://", "rediss://", "unix://", SENTINEL)
MASTER = "mymaster"
SENTINEL_PORT = 26_379
ASKING_TIMEOUT_S = 1.0
"""How long one Sentinel is waited for before the next one is asked."""


def with_master(url: str, master: str) -> str:
    """A URL that says which master is meant, where that is needed and it does not say so already.

    >>> with_master("sentinel://a:1;sentinel://b:2", "blue"), with_master("redis://a/0", "blue")
    ('sentinel://a:1;sentinel://b:2#blue', 'redis://a/0')
    """
    return f"{url}#{master}" if url.startswith(SENTINEL) and "#" not in url else url


def without_master(url: str) -> str:
    """The same URL as Celery takes it, which is told of the master in another way."""
    return url.partition("#")[0] if url.startswith(SENTINEL) else url


def master_of(url: str) -> str:
    """The name of the master that a URL names, if it is Sentinel's.

    >>> master_of("sentinel://a:1;sentinel://b:2#blue"), master_of("sentinel://a:1")
    ('blue', 'mymaster')
    """
    return (url.partition("#")[2] if url.startswith(SENTINEL) else "") or MASTER


@dataclass(frozen=True)
class Sentinels:
    """What a URL of Sentinel says."""

    hosts: tuple[tuple[str, int], ...]
    master: str
    login: dict[str, Any]
    """user, password and database of Redis itself, as redis-py names them."""

    @classmethod
    def of(cls, url: str) -> Self:
        """Read a URL.

        Raises:
            ValueError: a part of it is no sentinel://host:port.
        """
        parts = [urlsplit(one) for one in without_master(url).split(";") if one]
        if any(f"{one.scheme}://" != SENTINEL or not one.hostname for one in parts):
            raise ValueError(f"every part of the URL, between semicolons, is {SENTINEL}host:port")
        db = parts[0].path.strip("/") or "0"
        if not db.isdecimal():
            raise ValueError(f"a database of Redis has a number, not the name {db!r}")
        login: dict[str, Any] = {"db": int(db)}
        for name in ("username", "password"):
            if given := getattr(parts[0], name):
                login[name] = unquote(given)
        hosts = tuple((str(one.hostname), one.port or SENTINEL_PORT) for one in parts)
        return cls(hosts, master_of(url), login)


class _Master(redis.Redis):
    asked: Sequence[Any] = ()
    """The clients of the Sentinels, which end with this one."""

    def close(self) -> None:
        super().close()
        for one in self.asked:
            one.close()


class _AsyncMaster(redis.asyncio.Redis):
    asked: Sequence[Any] = ()

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        await super().aclose(close_connection_pool)
        for one in self.asked:
            await one.aclose()


def redis_at(url: str, **options: Any) -> redis.Redis:
    """A client of the Redis at a URL, which connects when it is used; `options` are redis-py's.

    Behind Sentinel every new connection asks for the master anew, so that it is found after a
    failover.

    Raises:
        ValueError: the URL cannot be read.
    """
    if not url.startswith(SENTINEL):
        client: redis.Redis = redis.Redis.from_url(url, **options)
        return client
    at = Sentinels.of(url)
    sentinel = _sentinel.Sentinel(
        at.hosts, sentinel_kwargs=_asking(Retry(NoBackoff(), 0)), **at.login, **options
    )
    master: _Master = sentinel.master_for(at.master, redis_class=_Master)
    master.asked = sentinel.sentinels
    return master


def async_redis_at(url: str, **options: Any) -> redis.asyncio.Redis:
    """`redis_at`, for asyncio."""
    if not url.startswith(SENTINEL):
        client: redis.asyncio.Redis = redis.asyncio.Redis.from_url(url, **options)
        return client
    at = Sentinels.of(url)
    never = redis.asyncio.retry.Retry(NoBackoff(), 0)
    sentinel = _async_sentinel.Sentinel(
        at.hosts, sentinel_kwargs=_asking(never), **at.login, **options
    )
    master: _AsyncMaster = sentinel.master_for(at.master, redis_class=_AsyncMaster)
    master.asked = sentinel.sentinels
    return master


def _asking(retry: Any) -> dict[str, Any]:
    times = {"socket_timeout": ASKING_TIMEOUT_S, "socket_connect_timeout": ASKING_TIMEOUT_S}
    return {"retry": retry, **times}
