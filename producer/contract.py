"""The contract: jobs, results and their JSON, version 1.

Models are frozen and strict and refuse unknown fields. Parse what came over the wire with
`parse_job` or `JobResult.model_validate_json`: strict models take JSON text, not decoded dicts.
"""

import json
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from producer.chunk_jobs import MAX_CHUNK, CaptionChunk, EmbedChunk, MatchChunk, RankChunk
from producer.embedding import Embedding, EmbeddingMismatch, Encoding
from producer.errors import PUBLIC_TEXT, ErrorCode, JobFailed
from producer.explaining import ExplainOptions, Preview, WordExplanation, WordsExplained
from producer.filtering import CaptionFilter
from producer.jobs import JOB_ID_PATTERN, CaptionJob, EmbedJob, ExplainJob, MatchJob, RankJob, Text
from producer.language import PackFacts
from producer.options import CaptionOptions
from producer.queues import Lane
from producer.references import ImageRef, images_shown, public_uri
from producer.result import (
    SCHEMA_VERSION,
    Caption,
    ImageFacts,
    ItemResult,
    JobError,
    JobResult,
    JobState,
    Match,
    ModelFacts,
    Ranked,
    RegionCaptions,
    Timings,
)

__all__ = [
    "JOB_ID_PATTERN",
    "JOB_MODELS",
    "MAX_CHUNK",
    "MAX_CHUNK_BYTES",
    "MAX_MESSAGE_BYTES",
    "SCHEMA_VERSION",
    "Caption",
    "CaptionChunk",
    "CaptionFilter",
    "CaptionJob",
    "CaptionOptions",
    "Chunk",
    "EmbedChunk",
    "EmbedJob",
    "Embedding",
    "EmbeddingMismatch",
    "Encoding",
    "ErrorCode",
    "ExplainJob",
    "ExplainOptions",
    "ImageFacts",
    "ImageJob",
    "ImageRef",
    "ItemResult",
    "Job",
    "JobError",
    "JobFailed",
    "JobResult",
    "JobState",
    "Lane",
    "Match",
    "MatchChunk",
    "MatchJob",
    "ModelFacts",
    "PackFacts",
    "Preview",
    "RankChunk",
    "RankJob",
    "Ranked",
    "RegionCaptions",
    "Text",
    "Timings",
    "WordExplanation",
    "WordsExplained",
    "images_shown",
    "parse_job",
    "public_uri",
    "schema",
    "utcnow",
]

MAX_MESSAGE_BYTES = 65_536
MAX_CHUNK_BYTES = 262_144
"""JSON of a chunk: it lies in its record, and is in no message."""

ImageJob = CaptionJob | MatchJob | EmbedJob | RankJob | ExplainJob
Chunk = CaptionChunk | MatchChunk | EmbedChunk | RankChunk
Job = ImageJob | Chunk
JOB_MODELS: dict[str, type[ImageJob] | type[Chunk]] = {
    "caption": CaptionJob,
    "match": MatchJob,
    "embed": EmbedJob,
    "rank": RankJob,
    "explain": ExplainJob,
    "caption_chunk": CaptionChunk,
    "match_chunk": MatchChunk,
    "embed_chunk": EmbedChunk,
    "rank_chunk": RankChunk,
}


def utcnow() -> datetime:
    """Now, timezone-aware, in UTC."""
    return datetime.now(UTC)


def parse_job(task: str, job: Any) -> Job:
    """Validate a decoded JSON object (or JSON text) as a job of `task`.

    Raises:
        JobFailed: `schema_unsupported` for a newer version than this one, else `job_invalid`,
            naming the fields at fault.
    """
    try:
        decoded = json.loads(job) if isinstance(job, str | bytes) else job
        text = json.dumps(decoded)
    except (TypeError, ValueError, RecursionError) as exc:
        raise JobFailed(ErrorCode.JOB_INVALID, "The job is not a JSON object.") from exc
    version = decoded.get("schema_version", 1) if isinstance(decoded, dict) else 1
    if type(version) is int and version > SCHEMA_VERSION:
        raise JobFailed(ErrorCode.SCHEMA_UNSUPPORTED)
    try:
        return JOB_MODELS[task].model_validate_json(text)
    except ValidationError as exc:
        faults = "; ".join(
            f"{'.'.join(map(str, e['loc'])) or 'job'}: {e['msg']}"
            for e in exc.errors(include_url=False, include_input=False)[:5]
            if e["type"] != "default_factory_not_called"  # it follows from another fault
        )
        raise JobFailed(
            ErrorCode.JOB_INVALID, f"{PUBLIC_TEXT[ErrorCode.JOB_INVALID]} {faults}"
        ) from exc


def schema() -> dict[str, Any]:
    """JSON Schemas of everything on the wire, by name."""
    models = (*JOB_MODELS.values(), JobResult)
    return {model.__name__: model.model_json_schema() for model in models}
