"""python -m tests.metrics_cost: what metrics cost of the null engine's throughput.

Measures `captionq-worker bench service --engine null --intake null` with and without metrics, in
turn, and prints the medians and their ratios: of images a second, and, since others may be at work
on the machine, of the worker's processor time for an image. Promised: 3 % at most.
"""

import argparse
import json
import statistics
import subprocess
import sys

COMMAND = (
    "bench", "service", "--engine", "null", "--intake", "null", "--no-ratios", "--seconds", "1",
    "--json",
)  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=4_000)
    parser.add_argument("--chunk", type=int, default=0)
    asked = parser.parse_args()
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


if __name__ == "__main__":
    sys.exit(main())
