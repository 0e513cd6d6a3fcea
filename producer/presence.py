"""Which workers there are: each says so every few seconds, and is forgotten when it does not."""

from datetime import datetime

from pydantic import BaseModel, ConfigDict

EVERY_S = 5.0
LIFE_S = 15.0
"""A worker that has said nothing for so long is gone."""


class WorkerFacts(BaseModel):
    """A worker process that lives."""

    model_config = ConfigDict(frozen=True)

    name: str
    """Celery's: captionq-cuda0@HOST."""
    pid: int
    started_at: datetime
    models: dict[str, str]
    """Ids of the models that it serves, by task."""
    languages: tuple[str, ...] = ()
    """BCP 47, those of its packs included."""
    packs: tuple[str, ...] = ()
    queues: tuple[str, ...] = ()
