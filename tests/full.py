"""How often the tests do what they do many times: `make test` a share, `make test FULL=1` all."""

import os

FULL = bool(os.environ.get("FULL"))


def often(promised: int, daily: int) -> int:
    """How many this run takes. What grows with them is allowed in proportion."""
    return promised if FULL else daily
