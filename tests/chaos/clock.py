"""A wall clock that jumps, for one process: what NTP, a hypervisor or an operator may do to it.

`time.time`, and `datetime.now` and `utcnow` wherever captionq, Celery, kombu and redis-py have
imported datetime. Monotonic clocks are left alone, as such jumps leave them.
"""

import datetime as real
import sys
import time
from collections.abc import Callable

PATCHED = ("producer", "worker", "celery", "kombu", "redis", "billiard", "vine")


class _Likeness(type):
    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, real.datetime)


def install(ahead_s: Callable[[], float]) -> None:
    """Let this process' wall clock be ahead by `ahead_s()` from now on."""
    true_time = time.time

    class Datetime(real.datetime, metaclass=_Likeness):
        @classmethod
        def now(cls, tz: real.tzinfo | None = None) -> real.datetime:  # type: ignore[override]
            return real.datetime.fromtimestamp(true_time() + ahead_s(), tz)

        @classmethod
        def utcnow(cls) -> real.datetime:  # type: ignore[override]
            return cls.now(real.UTC).replace(tzinfo=None)

    time.time = lambda: true_time() + ahead_s()
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] not in PATCHED:
            continue
        if module.__dict__.get("datetime") is real.datetime:
            module.__dict__["datetime"] = Datetime
        if module.__dict__.get("time") is true_time:
            module.__dict__["time"] = time.time
