"""What an HTTP response's status and headers mean for a fetch: decisions only."""

from collections.abc import Iterable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from worker.errors import ErrorCode

__all__ = ["REDIRECTS", "opted_out", "refusal", "retry_after_s"]

REDIRECTS = frozenset({301, 302, 303, 307, 308})
_TRY_LATER = frozenset({408, 425, 429})  # request timeout, too early, too many requests
_OPT_OUTS = frozenset({"noai", "noimageai"})
# Directives whose own value follows a colon; any other word before a colon names a crawler.
_VALUED = frozenset({"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"})


def refusal(status: int) -> ErrorCode | None:
    """The code a status (RFC 9110, 15) stands for; None where the body is the image.

    Everything that is neither success nor trouble of the moment is permanent: a 206 or a 304
    answers a request that was not made.
    """
    if 200 <= status < 300 and status != 206:
        return None
    if status >= 500 or status in _TRY_LATER:
        return ErrorCode.HTTP_5XX
    return ErrorCode.HTTP_4XX


def retry_after_s(value: str, now: datetime, cap_s: float) -> float | None:
    """Seconds to wait by a Retry-After header (RFC 9110, 10.2.3), or None if it says nothing.

    Args:
        value: whole seconds or an HTTP date.
        now: timezone-aware.
        cap_s: the answer lies within 0 and this.
    """
    value = value.strip()
    try:
        if value.isascii() and value.isdigit():
            wait = float(value)
        else:
            moment = parsedate_to_datetime(value)
            if moment.tzinfo is None:  # "-0000": UTC without saying whose (RFC 5322)
                moment = moment.replace(tzinfo=UTC)
            wait = (moment - now).total_seconds()
    except (ValueError, OverflowError):
        return None
    return min(max(wait, 0.0), cap_s)


def opted_out(values: Iterable[str], agent: str) -> bool:
    """Whether X-Robots-Tag headers ask machine learning to leave an image alone.

    `noai` and `noimageai` count, said to all or to the product named `agent`; after
    `otherbot:` they are someone else's.
    """
    for value in values:
        addressee = ""
        for directive in value.lower().split(","):
            name, colon, rest = (part.strip() for part in directive.partition(":"))
            if colon and name in _VALUED:
                continue
            if colon:
                addressee, name = name, rest
            if name in _OPT_OUTS and addressee in ("", "*", agent.lower()):
                return True
    return False
