"""python -m tests.chaos: shake the house, and count."""

import argparse
import random
import sys

from tests.chaos.fates import Mix
from tests.chaos.run import Plan, main

SHORT = Plan(
    seed=0,
    jobs=2_000,
    seconds=50,
    visibility_s=3,
    due={
        "kill -9 of a worker": 20,
        "kill -9 of Redis": 3,
        "restart of Redis": 2,
        "SIGTERM of a worker": 2,
        "SIGTERM, twice": 1,
        "SIGSTOP of a worker": 2,
        "connection cut": 2,
        "connection frozen": 1,
    },
    mix=Mix(poison=1, stuck_decode=0.5, stuck_device=0.5, newer=0, longest_ms=1_500),
    newer=False,
)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    commands = made.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="jobs and faults of all kinds; prints an account")
    run.add_argument("--short", action="store_true", help="under 90 s, for every day")
    run.add_argument("--seed", type=int, help="as printed by the run that is to be repeated")
    run.add_argument("--jobs", type=int, default=50_000)
    run.add_argument("--minutes", type=float, default=20, help="how long jobs are sent")
    run.add_argument("--workers", type=int, default=4)
    run.add_argument("--fsync", choices=("always", "everysec"), default="always")
    run.add_argument("--transport", choices=("ours", "stock"), default="ours")
    return made


def run(options: argparse.Namespace) -> int:
    """The main run."""
    seed = random.SystemRandom().randrange(10**6) if options.seed is None else options.seed
    if options.short:
        plan = Plan(**{**vars(SHORT), "seed": seed, "transport": options.transport})
        return main(plan, f"make chaos SHORT=1 SEED={seed}")
    plan = Plan(
        seed=seed,
        jobs=options.jobs,
        seconds=options.minutes * 60,
        workers=options.workers,
        fsync=options.fsync,
        transport=options.transport,
    )
    repeat = (
        f"python -m tests.chaos run --seed {seed} --jobs {options.jobs} "
        f"--minutes {options.minutes:g} --workers {options.workers} --fsync {options.fsync}"
    )
    return main(plan, repeat)


if __name__ == "__main__":
    chosen = parser().parse_args()
    sys.exit({"run": run}[chosen.command](chosen))
