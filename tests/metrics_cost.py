"""python -m tests.metrics_cost: what metrics cost of the null engine's throughput.

Runs `captionq-worker bench service --engine null --intake null` twice at the same time, with and
without metrics, and does so several times: what a machine does to one of the two it does to both,
so that each round's ratio is worth more than rates that were taken one after the other. Prints the
medians of the ratios, and their quartiles: of images a second, and of the worker's processor time
for an image. Promised: 3 % at most. `--calls` measures the calls alone that are made for a single
job, a batch of its own included, and takes seconds.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
import timeit

from prometheus_client import CollectorRegistry

from producer.contract import JobResult, JobState, Timings, utcnow
from worker.answer import Answer
from worker.asked import BatchKey
from worker.batcher import Ran
from worker.metrics.counted import Counted
from worker.pipeline import Product

COMMAND = (
    "bench", "service", "--engine", "null", "--intake", "null", "--no-ratios", "--seconds", "1",
    "--json",
)  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--images", type=int, default=3_000)
    parser.add_argument("--chunk", type=int, default=0)
    parser.add_argument("--calls", action="store_true")
    asked = parser.parse_args()
    if asked.calls:
        print(f"the calls of a single job: {calls_us():.1f} us of processor time")
        return 0
    rates, costs = [], []
    for number in range(asked.rounds):
        found = at_once(asked.images, asked.chunk, metrics_first=bool(number % 2))
        (rate, cost), (bare_rate, bare_cost) = found["--metrics"], found["--no-metrics"]
        rates.append(rate / bare_rate)
        costs.append(cost / bare_cost)
        print(
            f"images/s {rate:6.1f} with, {bare_rate:6.1f} without: {rates[-1]:.3f}; "
            f"ms of a core {cost:.3f} with, {bare_cost:.3f} without: {costs[-1]:.3f}",
            flush=True,
        )
    for name, ratios in (("images/s", rates), ("processor time", costs)):
        low, median, high = statistics.quantiles(ratios, n=4, method="inclusive")
        print(f"{name}: with against without, median {median:.3f} ({low:.3f} to {high:.3f})")
    return 0


def at_once(images: int, chunk: int, *, metrics_first: bool) -> dict[str, tuple[float, float]]:
    """Images a second, and milliseconds of a core for each, of two workers side by side."""
    command = [*COMMAND, "--images", str(images), "--chunk", str(chunk)]
    running = {
        flag: subprocess.Popen(
            [sys.executable, "-m", "worker", *command, flag], stdout=subprocess.PIPE, text=True
        )
        for flag in sorted(("--metrics", "--no-metrics"), reverse=not metrics_first)
    }
    found = {}
    for flag, process in running.items():
        said = json.loads(process.communicate()[0])
        rate = said["images_per_s"]
        found[flag] = rate, 1_000 * said["worker_cores"] / rate
    return found


def calls_us() -> float:
    """What is counted for one caption job, microseconds: the least of several rounds."""
    counted = Counted(CollectorRegistry())
    timings = Timings(queue_ms=1, fetch_ms=1, decode_ms=1, infer_ms=1, batch_size=1)
    result = JobResult(
        job_id="a",
        task="caption",
        state=JobState.SUCCEEDED,
        attempts=1,
        timings=timings,
        finished_at=utcnow(),
    )
    product = Product(Answer(), None, timings)
    ran = Ran(BatchKey("caption"), 1, 1, 64, 0.001, "done")

    def one() -> None:
        counted.ran(ran)
        counted.produced("caption", product)
        counted.ended(result, None)

    return min(timeit.repeat(one, number=5_000, repeat=20, timer=time.process_time)) / 5_000 * 1e6


if __name__ == "__main__":
    sys.exit(main())
