"""Jobs in a list, the newest first: what is shown of each, and a page of them."""

import json
from datetime import datetime
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict

from producer.references import images_shown
from producer.result import JobState

LISTED_JOBS = 10_000
"""Jobs, the newest, that can be listed."""

LOOKED_AT = 1_000
"""Jobs that one step of Redis looks at: a millisecond or so."""

SHOWN_BYTES = 8_192
"""Jobs whose text is longer are listed without what they say of their images while they run."""


class Summary(BaseModel):
    """What a list says of a job."""

    model_config = ConfigDict(frozen=True)

    job_id: str
    task: str
    state: JobState
    created_at: datetime
    finished_at: datetime | None = None
    image_ref: str | None = None
    code: str | None = None
    """Of its error, when it has failed."""
    owner: str | None = None
    batch_id: str | None = None


class Page(NamedTuple):
    """Some jobs, the newest first; `next` goes on behind them as `before`, None at the end."""

    records: list[Summary]
    next: str | None


class Wanted(NamedTuple):
    """Which jobs are listed; None is any."""

    state: JobState | None = None
    owner: str | None = None
    batch_id: str | None = None

    def takes(self, one: Any) -> bool:
        """Whether a record or summary is one of them."""
        return all(want in (None, getattr(one, name)) for name, want in self._asdict().items())


def checked_cursor(before: str | None) -> str:
    """A cursor as it came, "" for none.

    Raises:
        ValueError: it is not one that a page gave.
    """
    if before is None:
        return ""
    if not (before.isascii() and before.isdigit() and len(before) <= 20):
        raise ValueError("not a cursor: 'before' is the 'next' of an earlier page")
    return before


def checked_limit(limit: int) -> int:
    """The limit itself. Raises ValueError: it is not between 1 and 1,000."""
    if not 1 <= limit <= LOOKED_AT:
        raise ValueError(f"a page has 1 to {LOOKED_AT:,} jobs, not {limit}")
    return limit


def shown(job: str) -> str | None:
    """What may be shown of the images of a job, by its JSON text, whatever that is."""
    try:
        return images_shown(json.loads(job))
    except (ValueError, RecursionError):  # others write to the store as well
        return None
