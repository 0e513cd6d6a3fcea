"""API keys: what they look like, and the file that knows them by their hashes.

    cq_<id>_<secret>     the key; secret is 64 hex digits, 256 bits

    {"keys": [{"id": "shop", "sha256": ..., "scopes": ["submit"], "rate": 100, "created_at": ...}]}

A secret of 256 random bits needs neither salt nor a slow hash: there is nothing to guess. One id
may have several keys, old and new, while senders change over; jobs belong to the id.
"""

import fcntl
import hashlib
import hmac
import json
import os
import re
import secrets
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from producer.callback import ID_PATTERN
from producer.contract import utcnow

Scope = Literal["submit", "read", "upload", "hooks", "admin"]
SCOPES: tuple[Scope, ...] = ("submit", "read", "upload", "hooks", "admin")
DEFAULT_RATE = 100.0
MIN_RATE, MAX_RATE = 0.01, 1e6

_KEY = re.compile(r"cq_([A-Za-z0-9][A-Za-z0-9._-]{0,63})_([0-9a-f]{64})")


class KeyEntry(BaseModel):
    """What is kept of a key."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: Annotated[str, Field(pattern=ID_PATTERN)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    scopes: tuple[Scope, ...]
    rate: Annotated[float, Field(ge=MIN_RATE, le=MAX_RATE)] = Field(
        DEFAULT_RATE, description="Requests a second; each job of a batch counts as one"
    )
    created_at: datetime

    @property
    def fingerprint(self) -> str:
        """What tells the keys of one id apart; it is no secret."""
        return self.sha256[:8]


class _KeysFile(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    keys: tuple[KeyEntry, ...] = ()


_FILE = TypeAdapter(_KeysFile)


class BadKeysFile(ValueError):  # noqa: N818 - that is what it is
    """The keys file cannot be used; the text says why."""


class KeyRing:
    """Keys by their hashes."""

    def __init__(self, entries: Sequence[KeyEntry] = ()) -> None:
        self.entries = tuple(entries)
        self._by_id: dict[str, list[KeyEntry]] = {}
        for entry in entries:
            self._by_id.setdefault(entry.id, []).append(entry)

    def find(self, key: str) -> KeyEntry | None:
        """The entry of a key; None where it is no key of this ring. Hashes are compared in constant
        time; which ids there are is no secret."""
        parts = _KEY.fullmatch(key)
        if parts is None:
            return None
        hashed = _hash(parts[2])
        found = None
        for entry in self._by_id.get(parts[1], ()):
            if hmac.compare_digest(entry.sha256, hashed):
                found = entry
        return found


def new_key(key_id: str, scopes: Sequence[Scope], rate: float) -> tuple[str, KeyEntry]:
    """A new key, to be shown once, and what is kept of it.

    Raises:
        ValueError: naming what cannot be used.
    """
    secret = secrets.token_hex(32)
    entry = KeyEntry(
        id=key_id, sha256=_hash(secret), scopes=tuple(scopes), rate=rate, created_at=utcnow()
    )
    return f"cq_{key_id}_{secret}", entry


def read(path: Path) -> KeyRing:
    """The keys of a file.

    Raises:
        BadKeysFile: it cannot be read, others may write to it, or it is not as it should be.
    """
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                raise BadKeysFile(f"{path}: others may write to it; chmod 600 {path}")
            return KeyRing(_FILE.validate_json(file.read()).keys)
    except OSError as exc:
        raise BadKeysFile(f"{path}: {exc.strerror or exc}") from exc
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise BadKeysFile(f"{path}: {place}: {first['msg']}") from exc


def write(path: Path, entries: Sequence[KeyEntry]) -> None:
    """Put a file of these keys in place, in one step, readable by its owner alone.

    Raises:
        OSError: it cannot be written.
    """
    text = json.dumps(_KeysFile(keys=tuple(entries)).model_dump(mode="json"), indent=2)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name)  # mode 0600
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text + "\n")
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


@contextmanager
def changing(path: Path) -> Iterator[None]:
    """Hold off others who would change the file, while it is read and written."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
