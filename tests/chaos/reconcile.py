"""What the reconciler costs when a million jobs are open."""

import json
import tempfile
import time
from pathlib import Path
from typing import Any

import redis

from producer.contract import CaptionJob
from producer.embedded import RedisServer
from producer.ledger import Ledger
from producer.publisher import Publisher
from producer.wire import WireJob
from worker.backlog import Backlog
from worker.reconciler import Reconciler

QUEUE = "captionq.caption"
PAGE = 5_000
MESSAGES = 1_000
"""Messages that are written out; the backlog behind them is one of these over and over."""

HOUR_MS = 3_600_000


def main(records: int) -> int:
    """Open jobs with a message each, an hour old, and one that lost its message: print how long
    passes take, and what they send. Promised: that one, in well under a second of computing, ours
    and Redis's: what else a machine does is not theirs."""
    sent: list[str] = []
    with (
        tempfile.TemporaryDirectory(prefix="chaos-") as folder,
        RedisServer(Path(folder), appendonly="no", save='""') as server,
        redis.Redis.from_url(server.url, decode_responses=True) as client,
    ):
        began_s = time.monotonic()
        _fill(server.url, client, records)
        print(f"{records:,} open jobs in {time.monotonic() - began_s:.0f} s", flush=True)

        def send(job: WireJob, _: str, __: int) -> None:
            sent.append(str(job.job_id))

        reconciler = Reconciler(Ledger(86_400, 604_800), client, Backlog(client), send)
        times, computed_s = [], []
        for _ in range(5):
            began_s, before_s = time.perf_counter(), _computed_s(client)
            reconciler.run_once()
            times.append((time.perf_counter() - began_s) * 1_000)
            computed_s.append(_computed_s(client) - before_s)
        print("passes: " + ", ".join(f"{ms:.1f} ms" for ms in times) + f"; sent again: {sent}")
    return int(sent != ["lost"] or max(computed_s) > 1)


def _computed_s(client: redis.Redis) -> float:
    """Processor time of this process and of Redis."""
    used: Any = client.info("cpu")
    return time.process_time() + float(used["used_cpu_user"]) + float(used["used_cpu_sys"])


def _fill(url: str, client: redis.Redis, records: int) -> None:
    publisher = Publisher(url, 10)
    jobs = [
        CaptionJob(job_id=f"{n:07d}", image="https://example.com/a.png") for n in range(MESSAGES)
    ]
    publisher.publish(jobs, time.monotonic() + 60)
    publisher.close()
    lost = CaptionJob(job_id="lost", image="https://example.com/a.png")
    now_ms = int(client.time()[0]) * 1_000
    text = json.dumps(lost.model_dump(mode="json"))
    filler = client.lindex(QUEUE, 0)
    with client.pipeline(transaction=False) as pipeline:
        for begin in range(0, records, PAGE):
            for n in range(begin, min(begin + PAGE, records)):
                opened_ms = now_ms - HOUR_MS + n
                fields = {"state": "queued", "task": "caption", "opened_ms": opened_ms}
                fields |= {"queue": QUEUE, "job": text}
                pipeline.hset(f"captionq:job:{n:07d}", mapping=fields)  # type: ignore[arg-type]
                pipeline.zadd(f"captionq:open:{QUEUE}", {f"captionq:job:{n:07d}": opened_ms})
                if n >= MESSAGES:
                    pipeline.lpush(QUEUE, str(filler))
            pipeline.execute()
    fields = {"state": "queued", "task": "caption", "queue": QUEUE, "job": text}
    client.hset("captionq:job:lost", mapping=fields)  # type: ignore[arg-type]
    client.zadd(f"captionq:open:{QUEUE}", {"captionq:job:lost": now_ms - 2 * HOUR_MS})
    client.sadd("captionq:open", QUEUE)
