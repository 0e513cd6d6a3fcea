"""What tests/scaling.py computes from: figures that were measured, devices, prices."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """A number of ours: which document says it in which words, and what prints it."""

    value: float
    unit: str
    document: str
    said: str
    command: str


_QUEUE = "captionq-worker bench service --engine null --intake null --chunk 64"
_BYTES = "python -m tests.redis_sizing 10000"

FIGURES = {
    "caption": Figure(
        2.34, "images/s on two cores of Zen 4, greedy, bfloat16", "performance.md",
        "| base, random weights | bfloat16 | bfloat16 | 1 | 2.34 |", "make bench",
    ),
    "intake": Figure(
        143, "images/s fetched and decoded on two cores, in a worker", "performance.md",
        "| `--engine null --chunk 64` | 143 |",
        "captionq-worker bench service --engine null --chunk 64",
    ),
    "queue": Figure(
        3_624, "images/s through one worker process, in chunks", "performance.md",
        "| `--engine null --intake null --chunk 64` | 3,624 |", _QUEUE,
    ),
    "messages": Figure(
        293, "messages/s through one worker process", "performance.md",
        "| `--engine null --intake null` | 293 |",
        "captionq-worker bench service --engine null --intake null",
    ),
    "submit": Figure(
        7_430, "images/s submitted by one producer, in chunks", "performance.md",
        "| JSON Lines | 7,430 |", "python -m tests.manifest_rate",
    ),
    "listen": Figure(
        720, "events/s of one listener", "uploads.md", "720 by four (the default)",
        "python -m tests.listen_rate",
    ),
    "gateway": Figure(
        1_950, "requests/s of one gateway", "http.md",
        "| as many as it takes | 1,950 jobs a second |",
        "chrt -r 1 python -m tests.gateway_load --jobs 12000 --rate 4000 --streams 0",
    ),
    "waiting alone": Figure(
        4_226, "bytes of Redis for a job of its own that waits", "redis.md",
        "| job: waiting, its record and its message | 4,226 |", _BYTES,
    ),
    "waiting": Figure(
        167, "bytes of Redis for an image that waits in a chunk with a sink", "redis.md",
        "| image in chunks of 64 with a sink: waiting, its record and its message | 167 |", _BYTES,
    ),
    "kept alone": Figure(
        2_847, "bytes of Redis for the result of a job of its own", "redis.md",
        "| job: finished, its record | 2,847 |", _BYTES,
    ),
    "kept": Figure(
        163, "bytes of Redis for an image of a chunk that ended, with a sink", "redis.md",
        "| image in chunks of 64 with a sink: finished, its record | 163 |", _BYTES,
    ),
}  # fmt: skip

GFLOP_PER_IMAGE = 130.5
"""Of BLIP-base and 12 greedy tokens: 111 + 16.3 + 3.2 (docs/performance.md)."""
SHARE_OF_PEAK = 0.2
"""Of a GPU's dense bfloat16 peak: an assumption. It is what the goal of 1,500 images/s takes of an
H200's; on a CPU two thirds of the peak that its products reach were measured."""


@dataclass(frozen=True)
class Device:
    """What a worker has: how many images/s it captions, `measured` or an `estimate`; the cores
    that fetch and decode for it; what such a machine costs an hour, in US dollars."""

    title: str
    images_per_s: float
    source: str
    cores: int
    price_h: float


def estimated(peak_tflops: float) -> float:
    """Images/s of a GPU, by its dense bfloat16 peak as its maker states it."""
    return round(peak_tflops * SHARE_OF_PEAK * 1_000 / GFLOP_PER_IMAGE)


PRICED = "2026-11"
"""When the prices were assumed: they are no quotations."""

DEVICES = {
    "cpu": Device("two cores (Zen 4)", FIGURES["caption"].value, "measured", 2, 0.09),
    "l4": Device("NVIDIA L4 (121 TFLOP/s)", estimated(121), "estimate", 16, 1.00),
    "h100": Device("NVIDIA H100 (989 TFLOP/s)", estimated(989), "estimate", 32, 4.00),
}

PRICES = {
    "redis_h": 0.30,  # Redis with a replica, an hour
    "host_h": 0.10,  # two cores for gateways or listeners, an hour
    "s3_get": 0.0004,  # a thousand reads: one for each image
    "s3_put": 0.005,  # a thousand writes: one for each chunk
    "sqs": 0.40,  # a million requests: 1.2 for each image
    "network_gb": 0.0,  # images from where they lie: 0 within a region
}
