"""Settings of the gateway, from `CAPTIONQ_*` in the environment."""

from pathlib import Path

from pydantic import Field, field_validator

from producer.references import SCHEMES
from producer.settings import ProducerSettings


class GatewaySettings(ProducerSettings):
    """What `captionq serve` needs beyond what submitting does; read in the same way."""

    api_keys: Path | None = Field(
        None,
        description="File of the API keys, which 'captionq keys new' writes; without, the gateway "
        "is for this machine alone",
    )
    accept_schemes: str = Field(
        "https,http,s3",
        description="Where images may lie that jobs over HTTP name, comma-separated: https, http, "
        "s3, file. What the gateway keeps of uploads is accepted besides",
    )
    accept_sinks: bool = Field(
        False,
        description="Whether jobs over HTTP may have workers write to sinks (into SINK_ALLOW "
        "of the workers)",
    )
    upload_to: str | None = Field(
        None,
        pattern=r"^(s3://[^/?#]+/|file:///)([^?#\\]*/)?$",
        description="Where uploaded images are kept: s3://bucket/prefix/, or file:///folder/ below "
        "the workers' FILE_ROOT; unset: there are no uploads",
    )
    sns_topics: str = Field(
        "",
        description="ARNs of the topics of Amazon SNS whose messages POST /hooks/s3 takes, "
        "comma-separated; empty takes none",
    )
    sns_max_age_s: float = Field(
        7_200,
        gt=0,
        description="How long ago, in seconds, a message of SNS may have been published: older "
        "ones may be replayed. SNS itself tries for an hour",
    )
    max_upload_bytes: int = Field(
        20_971_520, ge=1_024, description="Largest image that is uploaded, in bytes"
    )
    upload_timeout_s: float = Field(
        60, gt=0, description="Longest time, in seconds, that an upload's body may take to come"
    )
    max_uploads: int = Field(
        16,
        ge=1,
        description="Most uploads at a time; each holds 10 MiB at most while it is written",
    )
    allowed_origins: str = Field(
        "",
        description="Origins whose pages may call the gateway from browsers (CORS): "
        "https://app.example.com, comma-separated",
    )
    max_job_bytes: int = Field(65_536, ge=1_024, description="Longest body of one job, in bytes")
    max_batch_bytes: int = Field(
        16_777_216, ge=1_024, description="Longest body of a batch, in bytes"
    )
    max_batch_jobs: int = Field(5_000, ge=1, description="Most jobs of a batch")
    body_timeout_s: float = Field(
        10, gt=0, description="Longest time, in seconds, that a request's body may take to come"
    )
    head_timeout_s: float = Field(
        10, gt=0, description="Longest time, in seconds, that a request's head may take to come"
    )
    send_timeout_s: float = Field(
        60, gt=0, description="Longest time, in seconds, that a receiver may take none of an answer"
    )
    max_wait_s: float = Field(
        30, ge=0, description="Longest time, in seconds, that 'Prefer: wait' is honoured for"
    )
    max_streams: int = Field(4_000, ge=0, description="Most streams of events at a time")
    keep_alive_s: float = Field(
        15, gt=0, description="How often, in seconds, a silent stream of events says that it lives"
    )

    @field_validator("api_keys")
    @classmethod
    def _expanded_keys(cls, path: Path | None) -> Path | None:
        return None if path is None else path.expanduser().absolute()

    @field_validator("accept_schemes")
    @classmethod
    def _are_schemes(cls, listed: str) -> str:
        unknown = set(_words(listed)) - set(SCHEMES)
        if unknown:
            raise ValueError(f"schemes are {', '.join(SCHEMES)}, not {', '.join(sorted(unknown))}")
        return listed

    @field_validator("allowed_origins")
    @classmethod
    def _are_origins(cls, listed: str) -> str:
        for origin in _words(listed):
            if not origin.startswith(("https://", "http://")) or origin.count("/") != 2:
                raise ValueError(f"an origin is https://host or https://host:port, not {origin!r}")
        return listed

    @property
    def schemes(self) -> frozenset[str]:
        """ACCEPT_SCHEMES, read."""
        return frozenset(_words(self.accept_schemes))

    @property
    def topics(self) -> frozenset[str]:
        """SNS_TOPICS, read."""
        return frozenset(_words(self.sns_topics))

    @property
    def origins(self) -> list[str]:
        """ALLOWED_ORIGINS, read."""
        return _words(self.allowed_origins)


def _words(listed: str) -> list[str]:
    return [word for entry in listed.split(",") if (word := entry.strip())]
