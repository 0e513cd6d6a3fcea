"""Signed jobs: HMAC-SHA256 (RFC 2104) over a job's task, id, moment of signing and JSON.

    v1.KEYID.ISSUED_AT.MAC      the job's field `signature`; seconds since 1970, 64 hex digits

    captionq-job-v1 LF TASK LF JOB_ID LF ISSUED_AT LF JSON      what the MAC is of, in UTF-8

TASK is Celery's name of it; JSON is the job's object without `signature`, in the one spelling that
RFC 8785 (JCS) gives it. What is verified is the object as it came, before defaults are filled in:
clients of other languages, and of other versions, sign what they send. docs/security.md has an
example to test a client with.
"""

import base64
import hmac
import json
import re
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import rfc8785

from producer.queues import TASK_NAMES

MIN_KEY_BYTES = 32
"""As long as the hash: RFC 2104, section 3."""

MAX_AHEAD_S = 300
"""How far a producer's clock may be ahead of a worker's, seconds."""

MAX_AGE_S = 604_800.0
"""How long a signature holds unless a setting says otherwise, seconds: as long as the record of a
job that has not ended."""

KEY_ID = r"[A-Za-z0-9_-]{1,32}"
_SIGNATURE = re.compile(rf"v1\.({KEY_ID})\.([1-9][0-9]{{0,11}})\.([0-9a-f]{{64}})")


class BadSignature(ValueError):  # noqa: N818 - that is what it is
    """The job is not signed, or not so that it may run; the text is for logs alone."""


class Unsignable(BadSignature):
    """The object has no spelling in RFC 8785: a number beyond 2^53-1, half a surrogate pair."""


@dataclass(frozen=True)
class Keys:
    """Secret keys by their ids, in order. The first signs, all verify, so that keys can be changed
    one machine at a time. What they are is never shown."""

    _by_id: Mapping[str, bytes] = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> "Keys":
        """Read ID:BASE64,ID:BASE64.

        Raises:
            ValueError: telling the place of the fault, and nothing of what stands there.
        """
        by_id: dict[str, bytes] = {}
        entries = [entry.strip() for entry in text.split(",") if entry.strip()]
        for place, entry in enumerate(entries, start=1):
            key_id, _, encoded = entry.partition(":")
            if not re.fullmatch(KEY_ID, key_id) or not encoded:
                raise ValueError(
                    f"key {place} is not ID:BASE64, with an ID of 1 to 32 letters, digits, _ and -"
                )
            if key_id in by_id:
                raise ValueError(f"key {place} has the ID of an earlier one")
            try:
                key = base64.b64decode(encoded, validate=True)
            except ValueError:  # binascii.Error is one
                raise ValueError(f"key {place} is not Base64 (RFC 4648, section 4)") from None
            if len(key) < MIN_KEY_BYTES:
                raise ValueError(
                    f"key {place} has {len(key)} bytes; {MIN_KEY_BYTES} are the least: "
                    "'captionq new-key' makes one"
                )
            by_id[key_id] = key
        if not by_id:
            raise ValueError("it holds no key; unset it where jobs are not signed")
        return cls(by_id)

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids, that of the signing key first; they are no secret."""
        return tuple(self._by_id)

    def sign(self, task: str, job: Mapping[str, Any], now_s: float) -> str:
        """The value of `signature` for a job of this task, which has its `job_id`; `now_s` is the
        moment, in seconds since 1970.

        Raises:
            Unsignable: see there.
        """
        key_id, issued_at = self.ids[0], str(int(now_s))
        mac = self.mac(key_id, task, job["job_id"], issued_at, canonical(job))
        return f"v1.{key_id}.{issued_at}.{mac}"

    def mac(self, key_id: str, task: str, job_id: str, issued_at: str, text: bytes) -> str:
        """The MAC, 64 hex digits, by one of the keys, of a job whose canonical JSON is `text`."""
        head = f"captionq-job-v1\n{TASK_NAMES[task]}\n{job_id}\n{issued_at}\n"
        return hmac.digest(self._by_id[key_id], head.encode() + text, "sha256").hex()


def canonical(job: Mapping[str, Any]) -> bytes:
    """A job's JSON without its signature, as RFC 8785 spells it: one line.

    Raises:
        Unsignable: see there.
    """
    try:
        return rfc8785.dumps({name: job[name] for name in job if name != "signature"})
    except (ValueError, TypeError, RecursionError) as exc:
        raise Unsignable(f"it cannot be spelled by RFC 8785: {exc}"[:200]) from exc


@dataclass(frozen=True)
class Verifier:
    """Tells genuine jobs by their signatures.

    Args:
        max_age_s: how long a signature holds, seconds.
        clock_s: seconds since 1970.
    """

    keys: Keys
    max_age_s: float = MAX_AGE_S
    clock_s: Callable[[], float] = time.time

    def verified(self, task: str, job_id: str, job: Any) -> dict[str, Any]:
        """The job as it was signed, read anew from the very text that the MAC is of.

        So nothing that the signature does not cover, be it 3.0 for 3, comes to who uses it.

        Args:
            task: what it would be run as.
            job_id: what it would be run under.
            job: what came, decoded from JSON; anything at all.

        Raises:
            BadSignature: it may not run.
        """
        if task not in TASK_NAMES or not isinstance(job, dict):
            raise BadSignature("it is no job")
        signature = job.get("signature")
        if signature is None:
            raise BadSignature("it is not signed")
        found = _SIGNATURE.fullmatch(signature) if isinstance(signature, str) else None
        if found is None:
            raise BadSignature("its signature is not v1.KEYID.ISSUED_AT.MAC")
        key_id, issued_at, mac = found.groups()
        if key_id not in self.keys.ids:
            raise BadSignature(f"it is signed with {key_id}, which is no key of this worker's")
        age_s = self.clock_s() - int(issued_at)
        if age_s > self.max_age_s:
            raise BadSignature(f"it was signed {age_s:.0f} s ago; {self.max_age_s:g} are the most")
        if age_s < -MAX_AHEAD_S:
            raise BadSignature(f"it was signed {-age_s:.0f} s from now")
        if job.get("job_id") != job_id:
            raise BadSignature("it does not carry the id it would be run under")
        text = canonical(job)
        if not hmac.compare_digest(mac, self.keys.mac(key_id, task, job_id, issued_at, text)):
            raise BadSignature("its signature is wrong")
        signed: dict[str, Any] = json.loads(text)
        return signed | {"signature": signature}


def new_key(key_id: str) -> str:
    """A new key, as the setting takes it.

    Raises:
        ValueError: that is no id.
    """
    key = f"{key_id}:{base64.b64encode(secrets.token_bytes(MIN_KEY_BYTES)).decode()}"
    Keys.parse(key)
    return key
