"""Clients of Redis by URL: one server, with or without TLS, or the master that Sentinel names.

    redis://user:password@host:6379/0
    rediss://user:password@host:6379/0?ssl_ca_certs=/ca.pem&ssl_certfile=/me.pem&ssl_keyfile=/me.key
    sentinel://user:password@host1:26379;sentinel://host2:26379;sentinel://host3:26379

Of Sentinel's URLs the first one's user, password and database are those of Redis itself, as kombu
has it; its query says who we are to the Sentinels (sentinel_username, sentinel_password), and, as
that of rediss://, which certificates to use (ssl_...): then Redis and Sentinels are spoken to by
TLS. The name of the master may stand behind a `#`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import parse_qsl, quote, unquote, urlsplit

import redis
import redis.asyncio
import redis.asyncio.retry
import redis.asyncio.sentinel as typed_async_sentinel
import redis.sentinel as typed_sentinel
from kombu.utils.url import parse_ssl_cert_reqs
from redis.backoff import NoBackoff
from redis.credentials import UsernamePasswordCredentialProvider
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


def master_of(url: str) -> str:
    """The name of the master that a URL names, if it is Sentinel's.

    >>> master_of("sentinel://a:1;sentinel://b:2#blue"), master_of("sentinel://a:1")
    ('blue', 'mymaster')
    """
    return (url.partition("#")[2] if url.startswith(SENTINEL) else "") or MASTER


class _Login(UsernamePasswordCredentialProvider):
    def __json__(self) -> str:
        """What kombu writes of it: workers tell each other, and Flower, how they are connected."""
        return "**"


@dataclass(frozen=True)
class Sentinels:
    """What a URL of Sentinel says."""

    hosts: tuple[tuple[str, int], ...]
    master: str
    login: dict[str, Any]
    """user, password and database of Redis itself, as redis-py names them."""
    asking: tuple[str | None, str] | None
    """user and password of the Sentinels themselves."""
    tls: dict[str, Any]
    """Certificates, as redis-py names them; none where TLS is not used."""

    @classmethod
    def of(cls, url: str) -> Self:
        """Read a URL.

        Raises:
            ValueError: a part of it is no sentinel://host:port, or its query says something else.
        """
        parts = [urlsplit(one) for one in url.partition("#")[0].split(";") if one]
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
        query = dict(parse_qsl(parts[0].query, keep_blank_values=True))
        user, password = (query.pop(f"sentinel_{one}", "") for one in ("username", "password"))
        asking = (user or None, password) if user or password else None
        tls = said_of_tls(query)
        if unknown := query.keys() - tls.keys() or {one.query for one in parts[1:] if one.query}:
            raise ValueError(
                "what follows the first of Sentinel's URLs is sentinel_username, "
                f"sentinel_password, ssl_...: not {', '.join(sorted(unknown))}"
            )
        return cls(hosts, master_of(url), login, asking, tls)

    @property
    def celery_url(self) -> str:
        """The same as Celery takes it: what else there is it is told by its settings."""
        user, password = (quote(self.login.get(one, ""), "") for one in ("username", "password"))
        who = f"{user}:{password}@" if user or password else ""
        first, *others = (f"{host}:{port}" for host, port in self._bracketed)
        parts = [f"{SENTINEL}{who}{first}/{self.login['db']}"]
        return ";".join([*parts, *(f"{SENTINEL}{one}" for one in others)])

    @property
    def options(self) -> dict[str, Any]:
        """What redis-py is told of Redis itself."""
        return self.login | self._by_tls

    @property
    def sentinel_kwargs(self) -> dict[str, Any]:
        """What redis-py is told of the Sentinels."""
        times = {"socket_timeout": ASKING_TIMEOUT_S, "socket_connect_timeout": ASKING_TIMEOUT_S}
        who = {"credential_provider": _Login(*self.asking)} if self.asking else {}
        return times | who | self._by_tls

    @property
    def _by_tls(self) -> dict[str, Any]:
        return {"ssl": True, **self.tls} if self.tls else {}

    @property
    def _bracketed(self) -> list[tuple[str, int]]:
        return [(f"[{host}]" if ":" in host else host, port) for host, port in self.hosts]


def said_of_tls(query: Mapping[str, str]) -> dict[str, Any]:
    """What a URL's query says of certificates, as redis-py takes it; nothing where it does not.

    Raises:
        ValueError: `ssl_cert_reqs` is none that there is.
    """
    said: dict[str, Any] = {name: value for name, value in query.items() if name.startswith("ssl_")}
    if said:
        wanted = said.get("ssl_cert_reqs", "required")
        try:
            said["ssl_cert_reqs"] = parse_ssl_cert_reqs(wanted)
        except KeyError as exc:
            raise ValueError(f"ssl_cert_reqs is required, optional or none, not {wanted}") from exc
    return said


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
    never = Retry(NoBackoff(), 0)
    asking = {"retry": never, **at.sentinel_kwargs}
    sentinel = _sentinel.Sentinel(at.hosts, sentinel_kwargs=asking, **at.options, **options)
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
    asking = {"retry": never, **at.sentinel_kwargs}
    sentinel = _async_sentinel.Sentinel(at.hosts, sentinel_kwargs=asking, **at.options, **options)
    master: _AsyncMaster = sentinel.master_for(at.master, redis_class=_AsyncMaster)
    master.asked = sentinel.sentinels
    return master
