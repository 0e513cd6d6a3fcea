"""Which jobs an object's coming asks for: rules, from a file or of one's own. Pure.

[[rule]]
name = "alt-texts"                     # part of the jobs' ids
allow = ["photos/uploads/", "press"]   # buckets, or bucket/prefix; all without
suffixes = [".jpg", ".png"]            # in small or capital letters
max_bytes = 20_000_000

[rule.job]                             # a job in the contract's words, but for its image and id
task = "caption"
language = "de"
options = { style = "alt_text" }
callback = { url = "https://app.example.com/hooks/captions" }
"""

import hashlib
import json
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Protocol, Self, cast

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from producer.contract import (
    MAX_MESSAGE_BYTES,
    ImageJob,
    ImageRef,
    JobFailed,
    parse_job,
)
from producer.object_event import Kind
from producer.references import MAX_URI_CHARS
from producer.settings import ProducerSettings

TASKS = ("caption", "match", "explain", "embed", "rank")
PER_IMAGE = frozenset({"job_id", "image", "images", "submitted_at", "batch_id", "signature"})
"""What a rule's job cannot say: it is made for each image."""

MAX_RULES = 100
ROOM_BYTES = 1_024 + MAX_URI_CHARS
"""Of a job's JSON text for what is not in its rule."""

_URI = TypeAdapter(ImageRef)


class BadRules(ValueError):  # noqa: N818 - that is what they are
    """The rules cannot be used; the text says where and why."""


class NoReference(ValueError):  # noqa: N818 - that is what it lacks
    """No job can name this object: its key is too long once it is percent-encoded."""


class Event(Protocol):
    """What came or went: an object (producer/object_event.py), or a file in a folder."""

    @property
    def kind(self) -> Kind:
        """Whether it came or went."""

    @property
    def bucket(self) -> str:
        """The bucket, or the folder."""

    @property
    def key(self) -> str:
        """Its key, or its path below the folder."""

    @property
    def version(self) -> str | None:
        """The version's id, where there are versions."""

    @property
    def size(self) -> int | None:
        """In bytes."""

    @property
    def sequencer(self) -> str | None:
        """Tells the order of events on one key, by `later`."""

    @property
    def content(self) -> str:
        """Tells this content of the key from others."""

    @property
    def image_ref(self) -> str:
        """How jobs name it."""


def digest(*parts: str) -> str:
    """64 hexadecimal digits, the same for the same parts alone."""
    text = "".join(f"{len(part)}:{part}" for part in parts)
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


class Rule(BaseModel):
    """What is to be done with objects that pass its filters. Every rule is asked for itself: an
    object that passes several has a job by each.

    Raises:
        ValidationError: also where `job` is none of the contract.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    name: str = Field("uploads", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,39}$")
    allow: list[Annotated[str, Field(pattern=r"^[^/]+(/.*)?$")]] | None = None
    prefix: str = ""
    suffixes: list[Annotated[str, Field(min_length=1)]] | None = None
    min_bytes: int = Field(1, ge=0)
    max_bytes: int | None = Field(None, ge=1)
    job: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _job_is_one(self) -> Self:
        if forbidden := PER_IMAGE & set(self.job):
            raise ValueError(f"job.{min(forbidden)} is each image's own")
        if self.job.get("task", "caption") not in TASKS:
            raise ValueError(f"job.task is one of {', '.join(TASKS)}")
        if self.max_bytes is not None and self.max_bytes < self.min_bytes:
            raise ValueError(
                f"nothing has {self.min_bytes} bytes or more, and {self.max_bytes} or less"
            )
        try:
            self.template()
        except JobFailed as exc:
            raise ValueError(exc.message) from exc
        return self

    def template(self) -> ImageJob:
        """The job that it asks for, of an image yet to be named.

        Raises:
            JobFailed: there is no such job, or it is too large.
        """
        said = {"task": "caption", "lane": "bulk", **self.job, "image": "s3://bucket/key"}
        text = json.dumps(said, default=str)
        job = parse_job(said["task"], text)
        if len(job.model_dump_json().encode()) > MAX_MESSAGE_BYTES - ROOM_BYTES:
            raise JobFailed("job_invalid", "the job is too large for a message")
        return cast(ImageJob, job)  # all TASKS are of images

    def takes(self, event: Event) -> bool:
        """Whether an object passes its filters. A size that is not known passes; what ends with a
        slash is a folder's place and no image."""
        return (
            _allowed(event.bucket, event.key, self.allow)
            and event.key.startswith(self.prefix)
            and not event.key.endswith("/")
            and (
                self.suffixes is None
                or event.key.lower().endswith(tuple(one.lower() for one in self.suffixes))
            )
            and (
                event.size is None
                or event.kind == "removed"  # of which Ceph says 0
                or self.min_bytes <= event.size <= (self.max_bytes or event.size)
            )
        )


def _allowed(bucket: str, key: str, allow: Sequence[str] | None) -> bool:
    """Whether an object is on a list of `bucket` and `bucket/prefix`, as workers read theirs."""
    if allow is None:
        return True
    entries = (entry.partition("/") for entry in allow)
    return any(bucket == place and key.startswith(prefix) for place, _, prefix in entries)


@dataclass(frozen=True)
class Rules:
    """Rules with names of their own, each with the job that it asks for."""

    each: tuple[tuple[Rule, ImageJob], ...]
    allow: tuple[str, ...] | None = None
    """Buckets, and bucket/prefix, beyond which no rule reaches."""

    @classmethod
    def of(cls, rules: Sequence[Rule] = (Rule(),), allow: Sequence[str] | None = None) -> Self:
        """Raises: BadRules: two have one name."""
        names = [rule.name for rule in rules]
        if doubled := {name for name in names if names.count(name) > 1}:
            raise BadRules(f"Two rules are called {min(doubled)!r}: jobs have ids by these names.")
        each = tuple((rule, rule.template()) for rule in rules)
        return cls(each, None if allow is None else tuple(allow))

    @classmethod
    def read(cls, path: Path, allow: Sequence[str] | None = None) -> Self:
        """The rules of a file.

        Raises:
            BadRules: naming the file, the rule and what is wrong with it.
        """
        try:
            said = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as exc:
            raise BadRules(f"{path} cannot be read: {exc.strerror}.") from exc
        except ValueError as exc:
            raise BadRules(f"{path} is not TOML: {exc}.") from exc
        rules = said.get("rule")
        if set(said) != {"rule"} or not isinstance(rules, list) or not 0 < len(rules) <= MAX_RULES:
            raise BadRules(f"{path}: [[rule]] tables are expected, 1 to {MAX_RULES}, nothing else.")
        found = []
        for place, one in enumerate(rules, 1):
            try:
                found.append(Rule.model_validate(one))
            except ValidationError as exc:
                fault = exc.errors(include_url=False, include_input=False)[0]
                where = ".".join(map(str, fault["loc"]))
                what = fault["msg"].removeprefix("Value error, ")
                raise BadRules(f"{path}: rule {place}{where and f', {where}'}: {what}.") from exc
        return cls.of(found, allow)

    @classmethod
    def of_settings(cls, settings: ProducerSettings) -> Self:
        """The rules that the settings name. Raises: BadRules."""
        allow = [one for entry in settings.events_allow.split(",") if (one := entry.strip())]
        if settings.events_rules is None:
            return cls.of(allow=allow or None)
        return cls.read(settings.events_rules, allow or None)

    def matching(self, event: Event) -> Iterator[tuple[Rule, ImageJob]]:
        """The rules that an object passes."""
        if _allowed(event.bucket, event.key, self.allow):
            yield from (pair for pair in self.each if pair[0].takes(event))

    def jobs(self, event: Event) -> list[ImageJob]:
        """The jobs for an object that came; none where no rule wants it.

        Ids are the same whenever the same content of the same key is told of, and whatever else
        the rule says by then.

        Raises:
            NoReference: it cannot be named in a job.
        """
        wanted = list(self.matching(event))
        if not wanted:
            return []
        uri = event.image_ref
        try:
            _URI.validate_python(uri)
        except ValidationError as exc:
            raise NoReference(f"s3://{event.bucket}/... of {len(uri):,} characters") from exc
        content = digest(event.bucket, event.key, event.content)
        return [
            job.model_copy(update={"image": uri, "job_id": f"{rule.name}-{content}"})
            for rule, job in wanted
        ]
