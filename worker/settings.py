"""The worker's settings: environment variables that begin with CAPTIONQ_, checked at start."""

import re
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator

from producer.language import ADAPTER_PATTERN, LANGUAGE_PATTERN
from producer.settings import ProducerSettings
from producer.signing import MAX_AGE_S, Verifier
from worker.callbacks.secrets import Secrets
from worker.draft import Draft
from worker.fetch.http import USER_AGENT
from worker.fetch.netguard import parse_allow
from worker.fetch.proxy import parse_proxy
from worker.formats import DEFAULT_FORMATS, parse_formats
from worker.lanes import slots
from worker.logs import LogFormat
from worker.sink_place import check_folder

BUNDLED = "bundled"
"""Value of a model setting that stands for the small checkpoint inside the package."""

DISABLED = "none"
"""Value of a model setting that switches its task off."""

MIN_THREADS = 32

EX_CONFIG = 78
"""Exit status (sysexits.h) of a process that cannot start as it is set up: trying again is vain."""


def bundled_packs(model: str) -> Path | None:
    """The folder of the packs that come with the package; None for another checkpoint than its."""
    return Path(model_path(BUNDLED)).parent / "packs" if model == BUNDLED else None


def model_path(model: str) -> str:
    """The folder of the checkpoint that comes with the package, or the name unchanged."""
    return str(resources.files("worker") / "checkpoints" / "scenes") if model == BUNDLED else model


class SettingsError(Exception):
    """Some setting is wrong; the message names each variable and what is wrong with it."""


class WorkerSettings(ProducerSettings):
    """Every setting of a worker: the field NAME is the environment variable CAPTIONQ_NAME."""

    caption_model: str = Field(
        "Salesforce/blip-image-captioning-base",
        description="Captioning checkpoint: hub id, folder, 'bundled', or 'none'",
    )
    match_model: str = Field(
        "Salesforce/blip-itm-base-coco",
        description="Matching checkpoint: hub id, folder, 'bundled', or 'none'",
    )
    caption_model_revision: str | None = Field(
        None, description="Hub revision of CAPTION_MODEL: branch, tag or commit"
    )
    match_model_revision: str | None = Field(
        None, description="Hub revision of MATCH_MODEL: branch, tag or commit"
    )
    packs: str = Field(
        "",
        description="Where language and domain packs are: folders and s3://bucket/prefix/, "
        "comma-separated; of packs of one name the first counts. Those of the bundled checkpoint "
        "are found without",
    )
    packs_loaded: int = Field(
        8, ge=1, le=4_096, description="Most packs kept on the device that no job waits for"
    )
    packs_pinned: str = Field(
        "",
        description="Names of packs that are loaded before any work is taken, and kept beside "
        "those, comma-separated",
    )
    packs_every_s: float = Field(
        60, ge=1, description="How often new packs are looked for, seconds"
    )
    pack_max_bytes: int = Field(
        2**30, ge=1, description="Largest pack that is copied from S3, bytes"
    )
    base_language: str = Field(
        "en",
        pattern=LANGUAGE_PATTERN,
        description="BCP 47: the language of the models themselves, which needs no pack",
    )
    device: str = Field(
        "auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="auto, cpu, cuda, cuda:0"
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16", "int8"] = Field(
        "auto",
        description="Arithmetic of the models; auto is float32 on CPU, bfloat16 on CUDA. int8 is "
        "for a CPU: rounded weights, faster, some captions differ",
    )
    warmup: bool = Field(True, description="Run the largest batch before taking work")

    max_batch: Literal["auto"] | Annotated[int, Field(ge=1, le=1024)] = Field(
        "auto", description="Most images on the device at once; auto measures it in the warm-up"
    )
    memory_fraction: float = Field(
        0.8,
        gt=0,
        le=1,
        description="Share of the memory free on the device that MAX_BATCH=auto may use",
    )
    max_wait_ms: float = Field(
        10, ge=0, le=1_000, description="Longest wait for more images to fill a batch, milliseconds"
    )
    concurrency: int | None = Field(
        None,
        ge=1,
        le=512,
        description="Jobs in progress at once; when empty two batches of either lane, and at least "
        "32: most of them may be waiting for slow hosts",
    )
    bulk_slots: int | None = Field(
        None,
        ge=1,
        le=512,
        description="Images of bulk lanes among them, so that an interactive job finds a free "
        "place; when empty two batches, and at most half of CONCURRENCY. A chunk takes half of "
        "them at most: two are always in progress",
    )
    decoders: int | None = Field(
        None,
        ge=1,
        le=128,
        description="Processes that decode images; when empty, one for each core, 2 to 16",
    )
    decode_timeout_s: float = Field(
        10,
        gt=0,
        description="Longest time one image may take to decode, seconds; a decoder that takes "
        "longer is killed. An image waits for a decoder no longer than that",
    )
    decoder_memory_bytes: int = Field(
        1_536 * 2**20, ge=512 * 2**20, description="Most memory of a decoder, bytes"
    )
    max_pixels_in_flight: int = Field(
        100_000_000, ge=1, description="Most pixels being decoded at the same time"
    )
    infer_timeout_s: float = Field(
        90,
        gt=0,
        description="Longest wait for the device per attempt, seconds; a bulk job, which "
        "interactive ones overtake, waits nine times as long",
    )
    batch_timeout_s: float = Field(
        60,
        gt=0,
        description="Longest time of one batch on the device, seconds, or of a part of one of many "
        "texts: what takes longer hangs, and the process ends; its jobs go back",
    )
    shutdown_timeout_s: float = Field(
        160,
        gt=0,
        description="How long a worker that is told to end lets its last jobs run, seconds; then "
        "they go back. Longer than all that one job may take",
    )
    visibility_timeout_s: float = Field(
        20,
        ge=2,
        le=3_600,
        description="How long a job stays with a worker that is silent, then it runs elsewhere, "
        "seconds; live workers renew it, however long a job takes",
    )
    max_deliveries: int = Field(
        3,
        ge=1,
        le=10,
        description="Workers a job may die with, each time it is tried, before it is given up",
    )
    reconcile_every_s: float = Field(
        30,
        ge=0,
        description="How often one worker of all looks for jobs that the broker lost, seconds; "
        "0 never",
    )
    dead_max: int = Field(10_000, ge=1, description="Most dead letters that are kept, roughly")
    dead_ttl_s: float = Field(14 * 86_400, gt=0, description="Life of a dead letter, in seconds")
    signature_max_age_s: float = Field(
        MAX_AGE_S,
        gt=0,
        description="How long a job's signature holds, in seconds: one that waits longer is "
        "refused, as is one that is replayed later",
    )
    store_patience_s: float = Field(
        30, gt=0, description="How long to keep trying to write to an absent results store, seconds"
    )

    result_cache_ttl_s: float = Field(
        0,
        ge=0,
        description="How long an answer is kept for jobs with the same image, model and options, "
        "seconds; 0 keeps none",
    )

    file_root: Path | None = Field(
        None, description="Folder that file:// images may come from; empty refuses all file://"
    )
    fetch_allow: str = Field(
        "",
        description="Addresses fetched from although not public, for tests and private networks: "
        "comma-separated CIDR or CIDR:PORT, e.g. 127.0.0.1/32:8080",
    )
    fetch_timeout_s: float = Field(
        10, gt=0, le=300, description="Longest time one fetch may take, redirects included, seconds"
    )
    max_per_host: int = Field(
        8,
        ge=1,
        le=512,
        description="Most HTTP fetches at a time from one host and port; more wait for their turn",
    )
    fetch_proxy: str | None = Field(
        None,
        description="Proxy that HTTP fetches go through, http://host:port; the environment's are "
        "never used",
    )
    max_bytes: int = Field(20 * 2**20, ge=1, description="Largest image file, bytes")
    image_formats: str = Field(
        ",".join(DEFAULT_FORMATS),
        description="Formats images may have, comma-separated; AVIF and HEIF (with the extra "
        "'heic') may be added",
    )
    max_pixels: int = Field(50_000_000, ge=1, description="Largest image, pixels")
    max_side: int = Field(
        16_383, ge=1, le=65_535, description="Longest side of the largest image, pixels"
    )
    max_jpeg_scans: int = Field(
        64, ge=1, description="Most scans of a JPEG; more cost time, and no camera writes them"
    )
    draft: Draft = Field(
        "close",
        description="Which large JPEGs are decoded at reduced size. close: those whose pixels "
        "differ by 4 of 255 at most; fast: those of cameras too, in 40 % of the time; off: none",
    )
    alpha: Literal["white", "drop"] = Field(
        "white",
        description="What becomes of transparency: pictures are laid on white, or its channel is "
        "dropped, which shows hidden colours, as BLIP's own code does",
    )
    s3_allow: str = Field(
        "",
        description="Buckets or bucket/prefix that s3:// images may come from, comma-separated; "
        "empty allows whatever the credentials can read",
    )
    s3_request_payer: Literal["requester"] | None = Field(
        None,
        description="'requester' to pay for requests to buckets whose owner wants that; empty not",
    )
    sink_allow: str = Field(
        "",
        description="Folders that chunks' shards may be written to or below: comma-separated "
        "s3://bucket/prefix/ or file:///folder/; empty refuses every sink",
    )
    sink_timeout_s: float = Field(
        30, gt=0, le=300, description="Longest time of one write to a sink, seconds"
    )
    chunk_timeout_s: float = Field(
        600,
        gt=0,
        description="Longest time of one attempt at the images of a chunk, seconds from its turn: "
        "a worker begins chunks one after the other; those not done then are tried again, as "
        "after any transient error",
    )
    chunk_threads: int | None = Field(
        None,
        ge=1,
        le=512,
        description="Images of chunks being fetched or decoded at once, of all chunks together; "
        "when empty as many as CONCURRENCY",
    )
    callback_secrets: SecretStr | None = Field(
        None,
        description="What callbacks are signed with: ID:whsec_BASE64,ID:whsec_BASE64, each of 24 "
        "to 64 bytes; several of one ID sign together, while one takes the other's place",
    )
    callback_threads: int = Field(
        4, ge=0, le=64, description="Callbacks that this process tries at a time; 0 tries none"
    )
    callback_timeout_s: float = Field(
        15, gt=0, le=60, description="Longest time of one try of a callback, seconds"
    )
    callback_allow: str = Field(
        "",
        description="Addresses that callbacks are sent to although not public: as FETCH_ALLOW, "
        "which says nothing of callbacks",
    )
    callback_http: bool = Field(
        False, description="Whether callbacks may be sent to http:// as well as https://"
    )
    callback_scale: float = Field(
        1, gt=0, le=1, description="Multiplies the waits between tries of a callback; for tests"
    )
    metrics_port: int = Field(
        0,
        ge=0,
        le=65_535,
        description="Port of /metrics and /healthz, for Prometheus and health checks; 0 for none. "
        "With several devices, each process takes the next port",
    )
    metrics_host: str = Field(
        "127.0.0.1",
        description="Address that METRICS_PORT is open on; whoever reaches it can read it",
    )
    stall_s: float = Field(
        180,
        ge=0,
        description="How long messages may wait while nothing ends before /healthz says that the "
        "process is unhealthy, seconds; 0: however long",
    )
    user_agent: str = Field(USER_AGENT, description="Who HTTP fetches say they are")
    respect_noai: bool = Field(
        True, description="Refuse images served with X-Robots-Tag: noai or noimageai"
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="Logging")
    log_format: LogFormat = Field(
        "auto",
        description="json: one object a line; text; auto: text where standard error is a terminal",
    )

    @field_validator("callback_secrets")
    @classmethod
    def _are_secrets(cls, secrets: SecretStr | None) -> SecretStr | None:
        if secrets is not None:
            Secrets.parse(secrets.get_secret_value())
        return secrets

    @model_validator(mode="after")
    def _across(self) -> Self:
        if not self.models:
            raise ValueError("CAPTION_MODEL and MATCH_MODEL are both 'none': nothing to serve")
        if self.device == "cpu" and self.dtype == "float16":
            raise ValueError("DTYPE=float16 needs a CUDA device; use float32 or bfloat16 on CPU")
        if self.device.startswith("cuda") and self.dtype == "int8":
            raise ValueError("DTYPE=int8 is for a CPU; use bfloat16 or float16 on CUDA")
        if self.file_root is not None and not self.file_root.is_dir():
            raise ValueError(f"FILE_ROOT is no folder: {self.file_root}")
        if self.max_batch == "auto" and not self.warmup:
            raise ValueError("MAX_BATCH=auto is found by the warm-up: set it, or WARMUP=true")
        if self.batch_timeout_s >= self.infer_timeout_s:
            raise ValueError("BATCH_TIMEOUT_S must be less than INFER_TIMEOUT_S")
        if self.max_pixels_in_flight < self.max_pixels:
            raise ValueError("MAX_PIXELS_IN_FLIGHT must be at least MAX_PIXELS")
        if self.longest_job_s >= self.shutdown_timeout_s:
            raise ValueError(
                f"SHUTDOWN_TIMEOUT_S={self.shutdown_timeout_s:g} must be more than FETCH_TIMEOUT_S "
                "+ 2 x DECODE_TIMEOUT_S + INFER_TIMEOUT_S (SINK_TIMEOUT_S, if longer) "
                "+ STORE_PATIENCE_S "
                f"= {self.longest_job_s:g}"
            )
        for entry in (*self.fetch_exceptions, *self.callback_exceptions):
            parse_allow(entry)
        parse_formats(self.image_formats)
        for entry in self.sink_folders:
            check_folder(entry)
        for entry in self.pack_places:
            if "://" in entry and not re.fullmatch(
                r"s3://[A-Za-z0-9][A-Za-z0-9._-]+/(.+/)?", entry
            ):
                raise ValueError(f"PACKS has folders and s3://bucket/prefix/, not {entry}")
        for name in self.pinned:
            if not re.fullmatch(ADAPTER_PATTERN, name):
                raise ValueError(f"PACKS_PINNED has names of packs, not {name!r}")
        if self.fetch_proxy is not None:
            parse_proxy(self.fetch_proxy)
        return self

    @property
    def longest_job_s(self) -> float:
        """The most that one attempt at a job takes once the worker has been told to end, if the
        store is away once. Bulk jobs are as soon done then: nothing comes that overtakes them.

        A chunk that is told begins no further image, keeps what is settled and goes back: so it
        takes as long as one image, or else as the shard that it is writing.
        """
        stages_s = self.fetch_timeout_s + 2 * self.decode_timeout_s + self.infer_timeout_s
        sink_s = self.sink_timeout_s if self.sink_folders else 0
        return max(stages_s, sink_s) + self.store_patience_s

    @property
    def pack_places(self) -> list[str]:
        """The entries of PACKS."""
        return _listed(self.packs)

    @property
    def pinned(self) -> list[str]:
        """The entries of PACKS_PINNED."""
        return _listed(self.packs_pinned)

    @property
    def fetch_exceptions(self) -> list[str]:
        """The entries of FETCH_ALLOW."""
        return _listed(self.fetch_allow)

    @property
    def callback_exceptions(self) -> list[str]:
        """The entries of CALLBACK_ALLOW."""
        return _listed(self.callback_allow)

    @property
    def signers(self) -> Secrets | None:
        """CALLBACK_SECRETS, read."""
        text = self.callback_secrets
        return Secrets.parse(text.get_secret_value()) if text else None

    @property
    def sink_folders(self) -> list[str]:
        """The entries of SINK_ALLOW."""
        return _listed(self.sink_allow)

    @property
    def s3_places(self) -> list[str] | None:
        """The entries of S3_ALLOW; None when all is allowed."""
        return _listed(self.s3_allow) or None

    @property
    def verifier(self) -> Verifier | None:
        """What tells genuine jobs; None where jobs need no signature."""
        return Verifier(self.keys, self.signature_max_age_s) if self.keys else None

    def threads(self, max_batch: int) -> int:
        """Jobs in progress at once: while one batch runs, the next is fetched and decoded, in
        either lane; and hosts that drip their images hold up others only when there are MIN_THREADS
        of them."""
        return self.concurrency or min(512, max(MIN_THREADS, 4 * max_batch))

    def bulk_slots_of(self, threads: int, max_batch: int) -> int:
        """Bulk jobs in progress at once: BULK_SLOTS, or else what worker/lanes.py says."""
        return slots(self.bulk_slots, threads, max_batch)

    @property
    def models(self) -> dict[str, str]:
        """The checkpoint of each task that is served."""
        named = {"caption": self.caption_model, "match": self.match_model}
        return {task: model for task, model in named.items() if model != DISABLED}

    @property
    def revisions(self) -> dict[str, str | None]:
        """The pinned revision of each task's checkpoint."""
        return {"caption": self.caption_model_revision, "match": self.match_model_revision}

    def shown(self, name: str) -> str:
        """A setting's value as text, what a URL holds of names and passwords left out, and all of
        a key or secret but its id."""
        value = getattr(self, name)
        if name == "signing_keys":
            return ",".join(f"{key_id}:***" for key_id in (self.keys.ids if self.keys else ()))
        if name == "callback_secrets":
            return ",".join(f"{one}:***" for one in (self.signers.ids if self.signers else ()))
        text = "" if value is None else str(value)
        return re.sub(r"(password=)[^&]*", r"\1***", re.sub(r"://[^@]*@", "://***@", text))


def _listed(text: str) -> list[str]:
    return [entry.strip() for entry in text.split(",") if entry.strip()]


def load_settings() -> WorkerSettings:
    """Read the environment.

    Raises:
        SettingsError: naming every variable that is wrong.
    """
    try:
        return WorkerSettings()
    except ValidationError as exc:
        faults: dict[str, list[str]] = {}
        for error in exc.errors(include_url=False):
            name = f"CAPTIONQ_{str(error['loc'][0]).upper()}" if error["loc"] else "CAPTIONQ_*"
            faults.setdefault(name, []).append(error["msg"])
        told = (f"{name}: {', or '.join(messages)}" for name, messages in faults.items())
        raise SettingsError("; ".join(told)) from exc
