"""Who asks, and what they may: API keys, their scopes and rates.

@router.post("/v1/things")
async def make(caller: Annotated[Caller, Depends(Requires("submit"))]) -> ...
"""

import asyncio
import base64
import binascii
import logging
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection

from producer.gateway.keys import SCOPES, BadKeysFile, KeyEntry, KeyRing, Scope, read
from producer.gateway.problems import Code, Problem
from producer.gateway.rate import Allowed, Bucket
from producer.loopback import is_loopback

HEADERS = "captionq.headers"
"""In a request's scope: headers that its answer is to have besides."""

RELOAD_S = 1.0
"""How often the keys file is looked at."""

CHALLENGE = 'Bearer realm="captionq", Basic realm="captionq"'
CHALLENGE_OF_PAGES = 'Bearer realm="captionq"'
"""To browsers' scripts: Basic would have the browser itself ask for a password."""

SAFE = {"GET", "HEAD", "OPTIONS"}
"""Methods that change nothing."""

_log = logging.getLogger("captionq.gateway")


@dataclass(frozen=True)
class Caller:
    """Who sent a request. `id` is None where the gateway has no keys: then all is allowed."""

    id: str | None
    scopes: frozenset[Scope]
    key: str = ""
    """The hash of the key that they have shown."""

    @property
    def sees_all(self) -> bool:
        """Whether the jobs of every owner are theirs to see."""
        return "admin" in self.scopes

    def sees(self, owner: str | None) -> bool:
        """Whether a job of this owner is theirs to see."""
        return self.sees_all or (owner is not None and owner == self.id)


ANYONE = Caller(None, frozenset(SCOPES))


class Access:
    """The keys of a gateway and their rates, in this process alone.

    Raises:
        BadKeysFile: from the constructor. A file that is damaged later is logged, and the keys
            that were read before hold on.
    """

    def __init__(self, keys_file: Path | None) -> None:
        self._file = keys_file
        self._stamp = self._stamped()
        self._ring = KeyRing() if keys_file is None else read(keys_file)
        self._buckets: dict[str, Bucket] = {}
        self.this_machine_alone = False
        """Set where nobody else is to be let in without keys: a request's Host is then this
        machine, for a page of another site could reach it by a name of its own (DNS rebinding)."""

    @property
    def open(self) -> bool:
        """Whether anyone may ask for anything."""
        return self._file is None

    def caller(self, headers: Mapping[str, str]) -> tuple[Caller, KeyEntry | None]:
        """Who sent a request with these headers.

        Raises:
            Problem: key_invalid, host_refused.
        """
        if self._file is None:
            if self.this_machine_alone and not is_loopback(_host(headers.get("host", ""))):
                raise Problem(Code.HOST_REFUSED)
            return ANYONE, None
        entry = self._ring.find(_presented(headers.get("authorization", "")))
        if entry is None:
            challenge = CHALLENGE_OF_PAGES if "sec-fetch-mode" in headers else CHALLENGE
            raise Problem(Code.KEY_INVALID, headers={"WWW-Authenticate": challenge})
        return Caller(entry.id, frozenset(entry.scopes), entry.sha256), entry

    def ask(self, entry: KeyEntry) -> Allowed:
        """Take one request from a key's bucket."""
        bucket = self._buckets.get(entry.sha256)
        if bucket is None or bucket.rate != entry.rate:
            bucket = self._buckets[entry.sha256] = Bucket(entry.rate, time.monotonic)
        return bucket.ask()

    def spend(self, caller: Caller, tokens: int) -> None:
        """Count so many requests more, of a caller who has just asked."""
        bucket = self._buckets.get(caller.key)
        if bucket is not None:
            bucket.spend(tokens)

    async def keep_up(self) -> None:
        """Read the file again whenever it changes, until cancelled."""
        while self._file is not None:
            await asyncio.sleep(RELOAD_S)
            await asyncio.to_thread(self.look)

    def look(self) -> None:
        """Read the file again if it has changed."""
        stamp = self._stamped()
        if self._file is None or stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._ring = read(self._file)
        except BadKeysFile as exc:
            _log.error("The API keys stay as they were: %s", exc)
            return
        known = {entry.sha256 for entry in self._ring.entries}
        for gone in self._buckets.keys() - known:
            del self._buckets[gone]
        _log.info("The API keys were read again: %d", len(known))

    def _stamped(self) -> tuple[int, int, int] | None:
        try:
            seen = self._file.stat() if self._file else None
        except OSError:
            return None
        return None if seen is None else (seen.st_mtime_ns, seen.st_size, seen.st_ino)


class Requires:
    """A dependency of routes: the caller, who has this scope, or `admin`, which stands for each of
    them; None for whoever has a key.

    Raises:
        Problem: key_invalid, scope_missing, rate_limited; host_refused; origin_refused.
    """

    def __init__(self, scope: Scope | None) -> None:
        self.scope = scope

    async def __call__(self, connection: HTTPConnection) -> Caller:
        """See there."""
        service = connection.app.state.service
        asked = connection.headers
        unasked_for = connection.scope["method"] not in SAFE and elsewhere(asked)
        if unasked_for and asked.get("origin") not in service.settings.origins:
            raise Problem(Code.ORIGIN_REFUSED, headers={"Connection": "close"})
        access: Access = service.access
        caller, entry = access.caller(connection.headers)
        if entry is not None:
            allowed = access.ask(entry)
            policy, left = rate_headers(entry.rate, allowed)
            connection.scope[HEADERS] = [
                (b"ratelimit-policy", policy.encode()),
                (b"ratelimit", left.encode()),
            ]
            if not allowed.granted:
                seconds = str(max(1, math.ceil(allowed.wait_s)))
                raise Problem(Code.RATE_LIMITED, headers={"Retry-After": seconds})
        if self.scope is not None and not caller.scopes & {self.scope, "admin"}:
            raise Problem(Code.SCOPE_MISSING, f"This needs a key with the scope {self.scope}.")
        return caller


def rate_headers(rate: float, allowed: Allowed) -> tuple[str, str]:
    """RateLimit-Policy and RateLimit (draft-ietf-httpapi-ratelimit-headers).

    >>> rate_headers(100, Allowed(True, 99, 0))
    ('"key";q=100;w=1', '"key";r=99')
    """
    window_s = max(1, math.ceil(1 / rate))
    policy = f'"key";q={max(1, int(rate * window_s))};w={window_s}'
    wait = f";t={math.ceil(allowed.wait_s)}" if allowed.wait_s else ""
    return policy, f'"key";r={allowed.remaining}{wait}'


def elsewhere(headers: Mapping[str, str]) -> bool:
    """Whether a browser sends a request for a page of another site: its forms may go anywhere,
    unasked, with what the browser knows of passwords. The rules are those of Go's
    http.CrossOriginProtection; what is no browser sends neither header.

    >>> elsewhere({"sec-fetch-site": "cross-site"}), elsewhere({"sec-fetch-site": "same-origin"})
    (True, False)
    >>> elsewhere({"origin": "http://a.example", "host": "b.example"}), elsewhere({})
    (True, False)
    """
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site not in ("none", "same-origin")
    origin = headers.get("origin")  # of older browsers, and where there is no TLS
    return origin is not None and origin.partition("://")[2] != headers.get("host")


def _host(header: str) -> str:
    """The name or address in a Host header, without its port."""
    try:
        return urlsplit(f"//{header}").hostname or ""
    except ValueError:
        return ""


def _presented(authorization: str) -> str:
    scheme, _, rest = authorization.strip().partition(" ")
    rest = rest.strip()
    if scheme.lower() == "bearer":
        return rest
    if scheme.lower() == "basic":
        try:
            decoded = base64.b64decode(rest, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError, ValueError):
            return ""
        return decoded.partition(":")[2]
    return ""
