"""captionq for producers: describe jobs, submit them, read their results.

Installs and imports without torch, transformers or Pillow. The clients, and Celery and Redis with
them, are imported when they are first named: the contract alone is light.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from producer.contract import (
    Caption,
    CaptionChunk,
    CaptionFilter,
    CaptionJob,
    CaptionOptions,
    EmbedChunk,
    Embedding,
    EmbeddingMismatch,
    EmbedJob,
    ErrorCode,
    ExplainJob,
    ExplainOptions,
    ItemResult,
    JobError,
    JobFailed,
    JobResult,
    JobState,
    Match,
    MatchChunk,
    MatchJob,
    RankChunk,
    Ranked,
    RankJob,
    RegionCaptions,
)
from producer.errors import BrokerFull, BrokerUnavailable, UnknownJob
from producer.store import Record

if TYPE_CHECKING:
    from producer.async_client import AsyncClient, AsyncJobHandle
    from producer.client import Client, JobHandle

__all__ = [
    "AsyncClient",
    "AsyncJobHandle",
    "BrokerFull",
    "BrokerUnavailable",
    "Caption",
    "CaptionChunk",
    "CaptionFilter",
    "CaptionJob",
    "CaptionOptions",
    "Client",
    "EmbedChunk",
    "EmbedJob",
    "Embedding",
    "EmbeddingMismatch",
    "ErrorCode",
    "ExplainJob",
    "ExplainOptions",
    "ItemResult",
    "JobError",
    "JobFailed",
    "JobHandle",
    "JobResult",
    "JobState",
    "Match",
    "MatchChunk",
    "MatchJob",
    "RankChunk",
    "RankJob",
    "Ranked",
    "Record",
    "RegionCaptions",
    "UnknownJob",
]

_CLIENTS = {
    "AsyncClient": "producer.async_client",
    "AsyncJobHandle": "producer.async_client",
    "Client": "producer.client",
    "JobHandle": "producer.client",
}


def __getattr__(name: str) -> Any:
    if name not in _CLIENTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_CLIENTS[name]), name)
