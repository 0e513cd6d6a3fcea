"""Many small jobs through one worker: its memory, and what is left in Redis in the end."""

import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import psutil
import redis

from producer import CaptionJob, Client
from tests.chaos.fates import Source
from tests.chaos.outsiders import ends_of
from tests.chaos.run import left_in
from tests.chaos.world import World, wait

CHUNK = 500
AHEAD = 3_000
"""Jobs that are sent before they are worked on, at most."""

RESULT_TTL_S = 20


def main(jobs: int) -> int:
    """Send the jobs in two halves; print memory after each, and the keys before and after.

    Promised: the last jobs of each half did well, after the second half memory is within 2 % of
    that after the first, and when results have expired Redis holds as many keys as before.
    """
    with (
        tempfile.TemporaryDirectory(prefix="chaos-") as folder,
        World(
            Path(folder),
            workers=1,
            fsync="everysec",
            visibility_s=20,
            settings={
                "CAPTIONQ_RESULT_TTL_S": str(RESULT_TTL_S),
                "CAPTIONQ_QUEUED_TTL_S": "120",
                "CAPTIONQ_RECONCILE_EVERY_S": "5",
                "CHAOS_LEDGER_URL": "",
            },
        ) as world,
        redis.Redis.from_url(world.redis.url) as plain,
        Client(world.redis.url) as client,
    ):
        world.start()
        image = world.places[Source.FILE]
        client.submit(CaptionJob(image=image)).result(60)
        time.sleep(RESULT_TTL_S + 5)
        keys = _keys(plain)
        process = psutil.Process(world.workers[0].pid)
        sizes, files = [], []
        last: list[str] = []
        ends: Counter[str | None] = Counter()
        began_s = time.monotonic()
        for half in (1, 2):
            for sent in range(0, jobs // 2, CHUNK):
                some = [CaptionJob(image=image)] * min(CHUNK, jobs // 2 - sent)
                last = [str(handle.job_id) for handle in client.submit_many(some)]
                wait(world.workers, lambda: int(plain.llen("captionq.caption")) <= AHEAD)
            wait(world.workers, lambda: not left_in(world.redis.url))
            ends.update(ends_of(world.redis.url, last).values())
            sizes.append(process.memory_info().rss)
            files.append(process.num_fds())
            rate = half * (jobs // 2) / (time.monotonic() - began_s)
            print(
                f"after {half * (jobs // 2):,} jobs: {sizes[-1] / 2**20:.1f} MiB, "
                f"{files[-1]} open files, {rate:.0f} jobs/s",
                flush=True,
            )
        time.sleep(RESULT_TTL_S + 5)
        after = _keys(plain)
    growth = sizes[1] / sizes[0] - 1
    print(f"memory: {growth:+.2%} over the second half; keys: {len(keys)} -> {len(after)}")
    print(f"the last jobs of each half: {dict(ends)}")
    if more := sorted(after - keys):
        print(f"keys that stayed: {more[:20]}", file=sys.stderr)
    return int(growth > 0.02 or len(after) > len(keys) or {*ends} != {"succeeded"})


def _keys(client: redis.Redis) -> set[bytes]:
    return set(client.scan_iter(count=1_000))
