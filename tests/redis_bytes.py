"""What Redis holds of an image: python -m tests.redis_bytes [--images 6400]

While its job waits and after it has ended, as a job of its own, in chunks whose items stay in the
result, and in chunks whose items go to a sink. A line of JSON each: bytes for each image, records,
messages and all lists included. A real Redis; a stand-in ends the jobs with a caption and its
tokens.
"""

import argparse
import json
from collections.abc import Sequence
from typing import Any

import redis

from producer import CaptionChunk, CaptionJob, Client
from producer.contract import Job, JobResult
from producer.embedded import RedisServer
from tests.stand_in_worker import StandInWorker, succeeded

CHUNK = 64
SINK = "s3://captions/2026/"


def kept_elsewhere(job: Job) -> JobResult:
    """A result whose items are in a sink."""
    return succeeded(job).model_copy(update={"items": None, "shard": f"{SINK}{job.job_id}.jsonl"})


def url(number: int) -> str:
    """One of 80 characters."""
    return f"https://images.example.com/2026/01/{number:040}.jpg"


def held(images: int, chunked: bool, sink: bool) -> dict[str, Any]:
    """Bytes for each image while it waits, and when its job has ended."""
    names = tuple(map(url, range(images)))
    jobs: list[Job] = [CaptionJob(image=name) for name in names]
    if chunked:
        jobs = [
            CaptionChunk(images=names[at : at + CHUNK], sink=SINK if sink else None)
            for at in range(0, images, CHUNK)
        ]
    with RedisServer() as server, redis.Redis.from_url(server.url) as broker:

        def used() -> int:
            return int(broker.info("memory")["used_memory"])

        with Client(server.url) as client:
            with StandInWorker(server.url):  # Redis loads our scripts once
                client.submit(CaptionJob(image=url(images))).result(timeout_s=60)
            empty = used()
            handles = client.submit_many(jobs)
            waiting = used() - empty
            with StandInWorker(server.url, kept_elsewhere if sink else succeeded):
                for handle in handles:
                    handle.result(timeout_s=60)
            ended = used() - empty
    kind = "in chunks, to a sink" if sink else "in chunks" if chunked else "alone"
    each = {"waiting_bytes": waiting, "ended_bytes": ended}
    return {"kind": kind} | {name: round(value / images) for name, value in each.items()}


def main(given: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--images", type=int, default=6_400)
    images = parser.parse_args(given).images
    for chunked, sink in ((False, False), (True, False), (True, True)):
        print(json.dumps(held(images, chunked, sink)), flush=True)


if __name__ == "__main__":
    main()
