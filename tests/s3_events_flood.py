"""Ten thousand uploads, told of twice and in any order, to a listener that is killed ten times:

python -m tests.s3_events_flood [--events 10000] [--duplicates 0.2] [--kills 10]

moto's SQS in a process of its own, a real Redis, `captionq listen` as a real process that is killed
with SIGKILL and started anew, a worker without a model. Most objects have versions, and are told of
by S3, SNS, EventBridge, MinIO or Ceph; some lie in a bucket without, and are overwritten. A few
messages are no events: the queue's redrive policy takes them away. At the end every version has one
result, nothing is lost, and the queue is empty.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis

from producer.contract import JobResult
from producer.embedded import RedisServer
from producer.event_rules import Rules
from producer.s3_events import parse
from tests.chunk_worker import ChunkWorker
from tests.event_shapes import SHAPES, TEST_EVENT, Happened, aws, records, uri
from tests.sqs_server import CREDENTIALS, MotoServer, Queue

OVERWRITTEN = 0.15
"""Share of the events that are of keys without versions."""

AT_ONCE = 40
"""Messages that wait in the queue: moto looks at each of them whenever it is asked."""

FAULTS = ("lost", "captioned_twice", "of_nothing", "last_contents_missing", "left_in_queue")
"""Counts that have to be 0."""

JUNK = 5
RECEIVES = 3


@dataclass(frozen=True)
class Flood:
    """`versions` have each to be captioned once; of `overwritten`, the last of each key."""

    versions: list[Happened]
    overwritten: list[list[Happened]]
    bodies: list[str]

    @classmethod
    def of(cls, count: int, duplicates: float, rng: random.Random) -> "Flood":
        names = ["a b", "c+d", "ü", "%41", "e?f#g", "x&y=z", "猫", "plain"]
        keys = [f"in/{rng.choice(names)}-{n}.jpg" for n in range(count)]
        plain = round(count * OVERWRITTEN)
        versions = [
            Happened("versioned", keys[rng.randrange(count)], version=f"v/{n}+{n}", moment=n)
            for n in range(count - plain)
        ]
        overwritten: list[list[Happened]] = []
        while plain:
            times = min(plain, rng.randint(1, 3))
            key = f"plain/{len(overwritten)}.jpg"
            first = rng.randrange(10_000)
            overwritten.append(
                [
                    Happened("plain", key, etag=f"{len(overwritten)}-{n}", moment=first + n)
                    for n in range(times)
                ]
            )
            plain -= times
        told = [*versions, *(one for each in overwritten for one in each)]
        told += rng.choices(told, k=round(count * duplicates))
        rng.shuffle(told)
        bodies = [*_bodies(told, rng), json.dumps(TEST_EVENT), *(f"junk {n}" for n in range(JUNK))]
        rng.shuffle(bodies)
        return cls(versions, overwritten, bodies)


def _bodies(told: Sequence[Happened], rng: random.Random) -> Iterator[str]:
    shapes = list(SHAPES.values())
    place = 0
    while place < len(told):
        if rng.random() < 0.1:  # S3 may put several into one message
            several = told[place : place + 3]
            yield records(*(aws(one) for one in several))
            place += len(several)
        else:
            # A key without versions is told of by one source: others have sequencers of their own.
            one = told[place]
            yield (rng.choice(shapes) if one.version else rng.choice(shapes[:4]))(one)
            place += 1


class Listener:
    """`captionq listen` as an operator runs it; its log is a file."""

    def __init__(self, queue_url: str, environment: dict[str, str], log: Path) -> None:
        self._words = [sys.executable, "-m", "producer.cli", "listen", queue_url]
        self._environment = environment
        self._log = log.open("ab")
        self.process = self._started()

    def _started(self) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            [*self._words, "--visibility", "3", "--pollers", "2", "--long-poll", "2"],
            env=os.environ | self._environment,
            stderr=self._log,
            stdout=self._log,
        )

    def kill(self) -> None:
        """Kill it, wherever it is, and start another."""
        self.process.kill()
        self.process.wait()
        self.process = self._started()

    def end(self) -> int:
        """Ask it to end; its status."""
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(40)
        self._log.close()
        return status


class Worker:
    """Ends jobs as they come, in a thread; also those that are recorded and in no queue."""

    def __init__(self, url: str) -> None:
        self._worker = ChunkWorker(url)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._over.is_set():
            self._worker.step()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()


def _fed(queue: Queue, bodies: list[str], killed: Sequence[int], listener: Listener) -> None:
    """Send all messages, and kill the listener when so many have been sent."""
    sent, due = 0, list(killed)
    while sent < len(bodies) or due:
        if due and sent >= due[0]:
            due.pop(0)
            listener.kill()
        waiting, _ = queue.counts()
        room = min(AT_ONCE - waiting, (due[0] if due else len(bodies)) - sent)
        if room > 0:
            queue.send(*bodies[sent : sent + room])
            sent += room
        else:
            time.sleep(0.02)


def _drained(queue: Queue, timeout_s: float) -> None:
    deadline_s = time.monotonic() + timeout_s
    while any(queue.counts()):
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"messages are left: {queue.counts()}")
        time.sleep(0.1)


def results(url: str) -> list[JobResult]:
    """The result of every record; a job that has none fails here."""
    found = []
    with redis.Redis.from_url(url, decode_responses=True) as client:
        for key in client.scan_iter("captionq:job:*", count=1_000):
            text = client.hget(key, "result")
            assert text is not None, f"{key} has no result"
            found.append(JobResult.model_validate_json(text))
    return found


def judged(flood: Flood, found: Sequence[JobResult]) -> dict[str, int]:
    """What came of the events. Of keys without versions, contents that were overwritten before
    they were told of are stale, and have no result."""
    by_uri = Counter(result.image_ref for result in found if result.captions)
    contents = {uri(one): 1 for one in flood.versions}
    contents |= {uri(each[0]): len(each) for each in flood.overwritten}
    return {
        "results": by_uri.total(),
        "versions": len(flood.versions),
        "stale": sum(max(0, most - by_uri[name]) for name, most in contents.items()),
        "lost": sum(by_uri[name] == 0 for name in contents),
        "captioned_twice": sum(by_uri[name] > most for name, most in contents.items()),
        "of_nothing": len(set(by_uri) - set(contents)),
    }


def last_contents_missing(flood: Flood, url: str) -> int:
    """Of the keys that were overwritten, those whose last content has no job of its own."""
    missing = 0
    with redis.Redis.from_url(url) as client:
        for each in flood.overwritten:
            (job,) = Rules.of().jobs(*parse(records(aws(each[-1]))))
            missing += not client.exists(f"captionq:job:{job.job_id}")
    return missing


def flooded(folder: Path, events: int, duplicates: float, kills: int, seed: int) -> dict[str, Any]:
    """Run it, and what came of it."""
    rng = random.Random(seed)
    flood = Flood.of(events, duplicates, rng)
    killed = sorted(rng.sample(range(AT_ONCE // 2, len(flood.bodies) - AT_ONCE // 2), kills))
    with RedisServer(folder / "redis") as broker, MotoServer() as moto:
        dead = moto.queue("dead")
        policy = {"deadLetterTargetArn": dead.arn, "maxReceiveCount": RECEIVES}
        queue = moto.queue("uploads", RedrivePolicy=json.dumps(policy))
        environment = {
            "CAPTIONQ_BROKER_URL": broker.url,
            "CAPTIONQ_SQS_ENDPOINT_URL": moto.url,
            **CREDENTIALS,
        }
        worker = Worker(broker.url)
        began_s = time.monotonic()
        listener = Listener(queue.url, environment, folder / "listen.log")
        try:
            _fed(queue, flood.bodies, killed, listener)
            _drained(queue, 60 + events / 100)
            took_s = time.monotonic() - began_s
            status = listener.end()
        finally:
            listener.process.kill()
            listener.process.wait()
        deadline_s = time.monotonic() + 30
        with redis.Redis.from_url(broker.url) as client:
            while client.zcard("captionq:open:captionq.caption.bulk"):
                assert time.monotonic() < deadline_s, "jobs have not ended"
                time.sleep(0.1)
        worker.stop()
        left, buried = sum(queue.counts()), dead.counts()[0]
        counts = judged(flood, results(broker.url))
        counts["last_contents_missing"] = last_contents_missing(flood, broker.url)
    return {
        "events": events,
        "duplicates": round(events * duplicates),
        "messages": len(flood.bodies),
        "kills": kills,
        **counts,
        "left_in_queue": left,
        "redriven": buried,
        "status": status,
        "seconds": round(took_s, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--events", type=int, default=10_000)
    parser.add_argument("--duplicates", type=float, default=0.2)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = flooded(Path(folder), asked.events, asked.duplicates, asked.kills, asked.seed)
    print(json.dumps(found))
    sys.exit(any(found[fault] for fault in FAULTS))


if __name__ == "__main__":
    main()
