"""What callbacks are signed with, as Standard Webhooks says: HMAC-SHA256, by secrets with names."""

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from standardwebhooks import Webhook

from producer.callback import ID_PATTERN

MIN_BYTES, MAX_BYTES = 24, 64
"""Of a secret, by the specification."""

DEFAULT = "default"
"""The secret of jobs that name none."""

_PREFIX = "whsec_"


class UnknownSecret(LookupError):  # noqa: N818 - it names the secret, not a fault
    """No secret of this id is set here for who asks; the text says which."""


def may_sign(secret_id: str, owner: str) -> bool:
    """Whether a secret signs for an owner of jobs: DEFAULT for everybody, others for who is called
    so, or so up to a full stop. Jobs that nobody owns come from who has access to Redis itself.

    Who could have any message signed by another's secret, and sent to a place of his own, could
    forge messages to that other's receiver.

    >>> [may_sign(one, "web") for one in ("default", "web", "web.2026", "webshop", "mail")]
    [True, True, True, False, False]
    """
    return not owner or secret_id in (DEFAULT, owner) or secret_id.startswith(f"{owner}.")


@dataclass(frozen=True)
class Secrets:
    """Secrets by their ids; of one id several, while one takes the place of another: what is signed
    by all of them is accepted by receivers who know any. What they are is never shown."""

    _by_id: Mapping[str, Sequence[Webhook]] = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> "Secrets":
        """Read ID:whsec_BASE64,ID:whsec_BASE64.

        Raises:
            ValueError: telling the place of the fault, and nothing of what stands there.
        """
        by_id: dict[str, list[Webhook]] = {}
        entries = [entry.strip() for entry in text.split(",") if entry.strip()]
        for place, entry in enumerate(entries, start=1):
            secret_id, _, written = entry.partition(":")
            if not re.fullmatch(ID_PATTERN, secret_id) or not written.startswith(_PREFIX):
                raise ValueError(f"secret {place} is not ID:{_PREFIX}BASE64")
            try:
                secret = base64.b64decode(written.removeprefix(_PREFIX), validate=True)
            except ValueError:  # binascii.Error is one
                raise ValueError(f"secret {place} is not Base64 (RFC 4648, section 4)") from None
            if not MIN_BYTES <= len(secret) <= MAX_BYTES:
                raise ValueError(
                    f"secret {place} has {len(secret)} bytes, not {MIN_BYTES} to {MAX_BYTES}: "
                    f'echo "{_PREFIX}$(openssl rand -base64 32)" makes one'
                )
            by_id.setdefault(secret_id, []).append(Webhook(secret))
        if not by_id:
            raise ValueError("it holds no secret; unset it where nobody is told of results")
        return cls(by_id)

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids, each as often as it has secrets; they are no secret."""
        return tuple(one for one, secrets in self._by_id.items() for _ in secrets)

    def headers(
        self, secret_id: str, owner: str, webhook_id: str, at: datetime, body: bytes
    ) -> dict[str, str]:
        """The headers that tell a receiver whose message this is, and of when.

        Args:
            owner: whose job it is; "" for one of nobody's.
            at: this moment, in UTC: each try has its own.

        Raises:
            UnknownSecret: none of this id, or it is another's.
        """
        if not (secrets := self._by_id.get(secret_id)):
            raise UnknownSecret(f"CALLBACK_SECRETS has no {secret_id!r}")
        if not may_sign(secret_id, owner):
            raise UnknownSecret(f"{secret_id!r} is no secret of {owner!r}")
        text = body.decode()
        return {
            "webhook-id": webhook_id,
            "webhook-timestamp": str(int(at.timestamp())),
            "webhook-signature": " ".join(one.sign(webhook_id, at, text) for one in secrets),
        }
