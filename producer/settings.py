"""Settings of the producing side, from `CAPTIONQ_*` in the environment."""

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from producer.listing import LISTED_JOBS
from producer.rabbitmq import QueueKind
from producer.redis_at import MASTER, REDIS_SCHEMES, SENTINEL, Sentinels, with_master
from producer.signing import Keys

BROKER_SCHEMES = ("redis://", "rediss://", "redis+socket://", SENTINEL, "amqp://", "amqps://")


class ProducerSettings(BaseSettings):
    """What submitting jobs and reading their results needs.

    Each field is read from the environment variable `CAPTIONQ_` + its name in capitals.

    Raises:
        pydantic.ValidationError: naming the variable whose value cannot be used.
    """

    model_config = SettingsConfigDict(
        env_prefix="CAPTIONQ_",
        frozen=True,
        env_ignore_empty=True,
        hide_input_in_errors=True,  # keys and passwords
    )

    broker_url: str | None = Field(
        None,
        description="Celery broker, e.g. redis://host:6379/0; unset: the embedded Redis of `home`",
    )
    sentinel_master: str = Field(
        MASTER, description="The master that is asked for where a URL is sentinel://"
    )
    rabbitmq_queues: QueueKind = Field(
        "classic",
        description="Kind of the queues where the broker is RabbitMQ: classic, priority (classic, "
        "of priorities 0 to 9) or quorum (replicated). The same for all workers and producers",
    )
    results_url: str | None = Field(
        None, description="Redis of the results store; unset: the broker, when that is Redis"
    )
    result_ttl_s: float = Field(
        86_400, gt=0, description="Life of a finished job's record, in seconds"
    )
    queued_ttl_s: float = Field(
        604_800, gt=0, description="Life of an unfinished job's record, in seconds"
    )
    listed_jobs: int = Field(
        LISTED_JOBS, ge=0, description="How many of the newest jobs can be listed; 0 keeps no list"
    )
    result_stream: int = Field(
        0,
        ge=0,
        description="Most results, roughly, that the stream of results keeps, for 'captionq tail' "
        "and consumer groups; 0 for no stream. The same for workers and for producers that cancel",
    )
    home: Path = Field(
        Path("~/.captionq"),
        description="Folder of what is kept: the embedded Redis server, measured batch sizes",
        validate_default=True,
    )
    index: str | None = Field(
        None,
        description="Vector index of what was captioned: a folder, or s3://bucket/prefix/ for a "
        "team; unset: index under `home`",
    )
    submit_timeout_s: float = Field(
        10, gt=0, description="Longest time, in seconds, that submitting tries to reach the broker"
    )
    upload_url: str | None = Field(
        None,
        pattern=r"^s3://[^/]+(/.*)?$",
        description="s3://bucket/prefix that local images are copied to before they are submitted",
    )
    s3_endpoint_url: str | None = Field(
        None, description="S3 endpoint other than AWS, e.g. http://minio:9000"
    )

    sqs_endpoint_url: str | None = Field(
        None, description="SQS endpoint other than AWS, e.g. http://localhost:4566"
    )
    events_rules: Path | None = Field(
        None,
        description="TOML file of which objects have which jobs when they come; unset: each is "
        "captioned, in the bulk lane",
    )
    events_allow: str = Field(
        "",
        description="Buckets or bucket/prefix whose events are listened to, comma-separated; empty "
        "allows all",
    )
    events_memory_s: float = Field(
        604_800,
        gt=0,
        description="How long events are remembered, in seconds, so that one that comes again, or "
        "too late, is known",
    )
    events_remove: bool = Field(
        False, description="Whether an object that goes is taken out of the vector index too"
    )

    tracing: bool = Field(
        False,
        description="Whether traces are sent by OpenTelemetry (extra 'tracing'), to where "
        "OTEL_EXPORTER_OTLP_ENDPOINT says",
    )

    signing_keys: SecretStr | None = Field(
        None,
        description="Secret keys that jobs are signed and verified with: ID:BASE64,ID:BASE64, each "
        "of 32 bytes or more. The first signs, all verify; without any, jobs are neither",
    )

    @field_validator("home")
    @classmethod
    def _expanded(cls, home: Path) -> Path:
        return home.expanduser().absolute()

    @field_validator("broker_url")
    @classmethod
    def _is_a_broker(cls, url: str | None) -> str | None:
        if url is None:
            return None
        if not url.startswith(BROKER_SCHEMES):
            raise ValueError(f"the broker is one of {', '.join(BROKER_SCHEMES)}")
        if url.startswith(SENTINEL):
            Sentinels.of(url)
        for one in url.split(";"):  # nodes of a RabbitMQ may be several
            _ = urlsplit(one).port  # raises
        return url

    @field_validator("results_url")
    @classmethod
    def _is_redis(cls, url: str | None) -> str | None:
        if url is not None and not url.startswith(REDIS_SCHEMES):
            raise ValueError(f"the results store is Redis: {', '.join(REDIS_SCHEMES)}")
        if url is not None and url.startswith(SENTINEL):
            Sentinels.of(url)
        return url

    @field_validator("signing_keys")
    @classmethod
    def _are_keys(cls, keys: SecretStr | None) -> SecretStr | None:
        if keys is not None:
            Keys.parse(keys.get_secret_value())
        return keys

    @property
    def keeping(self) -> dict[str, Any]:
        """What a results store is told of these."""
        names = ("result_ttl_s", "queued_ttl_s", "listed_jobs", "result_stream")
        return {name: getattr(self, name) for name in names}

    @property
    def keys(self) -> Keys | None:
        """SIGNING_KEYS, read."""
        return Keys.parse(self.signing_keys.get_secret_value()) if self.signing_keys else None

    def results_url_beside(self, broker_url: str, results_url: str | None = None) -> str:
        """The URL of the results store that goes with a broker, or else `results_url`, as
        `redis_at` takes it.

        Raises:
            ValueError: the broker is not Redis and no results store is set.
        """
        if found := results_url or self.results_url:
            return with_master(found, self.sentinel_master)
        if not broker_url.startswith(REDIS_SCHEMES):
            raise ValueError(
                "The broker is not Redis: set CAPTIONQ_RESULTS_URL to the Redis that keeps results."
            )
        return with_master(broker_url, self.sentinel_master)
