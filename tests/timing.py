"""How long something takes, on a machine that is busy with something else now and then."""

import time
from collections.abc import Callable

__all__ = ["least_s"]


def least_s(attempt: Callable[[], object], below_s: float, tries: int = 3) -> float:
    """Seconds that `attempt` took: the first time that it took less than `below_s`, else the least
    of several. What it raises is raised at once."""
    took_s = []
    for _ in range(tries):
        began_s = time.monotonic()
        attempt()
        took_s.append(time.monotonic() - began_s)
        if took_s[-1] < below_s:
            break
    return min(took_s)
