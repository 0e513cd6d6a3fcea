"""python -m tests.metrics_cost: what metrics cost of the null engine's throughput.

Measures `captionq-worker bench service --engine null --intake null` with and without metrics, in
turn, and prints the medians and their ratios: of images a second, and, since others may be at work
on the machine, of the worker's processor time for an image. Promised: 3 % at most. `--calls`
measures the calls alone that are made for a single job, a batch of its own included, and takes
seconds: beside the processor time of a job without metrics, that is the cost whatever else the
machine is at.
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
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=4_000)
    parser.add_argument("--chunk", type=int, default=0)
    parser.add_argument("--calls", action="store_true")
    asked = parser.parse_args()
    if asked.calls:
        print(f"the calls of a single job: {calls_us():.1f} us of processor time")
        return 0
    rates: dict[str, list[float]] = {"--no-metrics": [], "--metrics": []}
    costs: dict[str, list[float]] = {"--no-metrics": [], "--metrics": []}
    options = ["--images", str(asked.images), "--chunk", str(asked.chunk)]
    for number in range(asked.rounds):
        for flag in sorted(rates, reverse=bool(number % 2)):
            command = [sys.executable, "-m", "worker", *COMMAND, *options, flag]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found = json.loads(done.stdout)
            rates[flag].append(found["images_per_s"])
            costs[flag].append(1_000 * found["worker_cores"] / found["images_per_s"])
            print(f"{flag:>12}: {rates[flag][-1]:7.1f} images/s, {costs[flag][-1]:.3f} ms each")
    rate = {flag: statistics.median(all_) for flag, all_ in rates.items()}
    cost = {flag: statistics.median(all_) for flag, all_ in costs.items()}
    print(
        f"medians of {asked.rounds}: {rate['--metrics']:.1f} images/s with metrics, "
        f"{rate['--no-metrics']:.1f} without, "
        f"ratio {rate['--metrics'] / rate['--no-metrics']:.3f}; "
        f"processor time ratio {cost['--metrics'] / cost['--no-metrics']:.3f}"
    )
    return 0


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
