"""Which jobs a stranger with a key may submit: what they may name, and what is not theirs."""

from collections.abc import Iterator
from typing import Annotated, Any
from urllib.parse import unquote, urlsplit

from pydantic import Field, TypeAdapter, ValidationError

from producer.chunk_jobs import CaptionChunk, EmbedChunk, MatchChunk, RankChunk
from producer.contract import CaptionJob, EmbedJob, ExplainJob, Job, MatchJob, RankJob
from producer.gateway.problems import Code, Fault, Problem, faults_of, pointer
from producer.gateway.settings import GatewaySettings

AnyJob = Annotated[
    CaptionJob
    | MatchJob
    | EmbedJob
    | RankJob
    | ExplainJob
    | CaptionChunk
    | MatchChunk
    | EmbedChunk
    | RankChunk,
    Field(discriminator="task"),
]
_JOB: TypeAdapter[Job] = TypeAdapter(AnyJob)

NOT_THEIRS = ("owner", "batch_id", "signature", "submitted_at")
"""Fields that the gateway sets."""

NOT_JSON = "The body is not JSON in UTF-8."


class Accepted:
    """Tells which jobs the gateway takes, by its settings."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._schemes = settings.schemes
        self._sinks = settings.accept_sinks
        self._uploads = settings.upload_to

    def job(self, text: bytes, at: tuple[str | int, ...] = ()) -> Job:
        """The job that a JSON text is; `at` is its place in the body.

        Raises:
            Problem: body_invalid, job_invalid, schema_unsupported.
        """
        try:
            job = _JOB.validate_json(text)
        except ValidationError as exc:
            raise _invalid(exc, at) from None
        faults = list(self._faults(job, at))
        if faults:
            raise Problem(Code.JOB_INVALID, errors=faults)
        return job

    def _faults(self, job: Job, at: tuple[str | int, ...]) -> Iterator[Fault]:
        for name in NOT_THEIRS:
            if getattr(job, name) is not None:
                yield Fault(detail="The gateway sets this field.", pointer=pointer((*at, name)))
        if job.job_id is not None and not nameable(job.job_id):
            yield Fault(detail="No path can name it.", pointer=pointer((*at, "job_id")))
        for place, uri in _images(job):
            reason = self.refused(uri)
            if reason:
                yield Fault(detail=reason, pointer=pointer((*at, *place)))
        for place in _sinks(job):
            if not self._sinks:
                yield Fault(
                    detail="Sinks are not accepted over HTTP here (ACCEPT_SINKS).",
                    pointer=pointer((*at, *place)),
                )

    def refused(self, uri: str) -> str | None:
        """Why images may not lie there; None where they may."""
        scheme = urlsplit(uri).scheme.lower()
        if scheme in self._schemes or self._uploaded(uri):
            return None
        return f"Images of {scheme}:// are not accepted over HTTP here (ACCEPT_SCHEMES)."

    def _uploaded(self, uri: str) -> bool:
        if self._uploads is None or ".." in unquote(uri).split("/"):
            return False
        return uri.startswith(self._uploads)


def nameable(job_id: str) -> bool:
    """Whether a path can name a job: clients take . and .. for folders, and /events is its events.

    >>> nameable("shop/1"), nameable("shop/../1"), nameable("shop/events")
    (True, False, False)
    """
    parts = job_id.split("/")
    return not {".", ".."} & set(parts) and parts[-1] != "events"


def _invalid(exc: ValidationError, at: tuple[str | int, ...]) -> Problem:
    said = exc.errors(include_url=False, include_input=False, include_context=False)
    if said[0]["type"] == "json_invalid":
        return Problem(Code.BODY_INVALID, NOT_JSON)
    newer = any(
        (one["type"], one["loc"][1:]) == ("less_than_equal", ("schema_version",)) for one in said
    )
    code = Code.SCHEMA_UNSUPPORTED if newer else Code.JOB_INVALID
    return Problem(code, errors=faults_of(exc, at, tagged=True))


def _images(job: Job) -> Iterator[tuple[tuple[str | int, ...], str]]:
    if isinstance(job, CaptionChunk | MatchChunk | EmbedChunk | RankChunk):
        for index, uri in enumerate(job.images):
            yield ("images", index), uri
    elif job.image is not None:
        yield ("image",), job.image


def _sinks(job: Any) -> Iterator[tuple[str, ...]]:
    if getattr(job, "sink", None) is not None:
        yield ("sink",)
    explain = getattr(job, "explain", None)
    if explain is not None and explain.sink is not None:
        yield ("explain", "sink")
