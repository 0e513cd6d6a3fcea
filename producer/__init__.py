"""captionq for producers: describe jobs, submit them, read their results.

Installs and imports without torch, transformers or Pillow.
"""

from producer.async_client import AsyncClient, AsyncJobHandle
from producer.client import Client, JobHandle
from producer.contract import (
    Caption,
    CaptionJob,
    CaptionOptions,
    ErrorCode,
    JobError,
    JobFailed,
    JobResult,
    JobState,
    Match,
    MatchJob,
)
from producer.errors import BrokerFull, BrokerUnavailable, UnknownJob
from producer.store import Record

__all__ = [
    "AsyncClient",
    "AsyncJobHandle",
    "BrokerFull",
    "BrokerUnavailable",
    "Caption",
    "CaptionJob",
    "CaptionOptions",
    "Client",
    "ErrorCode",
    "JobError",
    "JobFailed",
    "JobHandle",
    "JobResult",
    "JobState",
    "Match",
    "MatchJob",
    "Record",
    "UnknownJob",
]
