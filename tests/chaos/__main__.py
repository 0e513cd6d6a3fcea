"""python -m tests.chaos: shake the house, and count."""

import argparse
import random
import sys
from collections.abc import Callable
from dataclasses import replace

from tests.chaos import overhead, reconcile, run, soak
from tests.chaos.fates import Mix
from tests.chaos.faults import ACTS, POWER_CUT
from tests.chaos.run import Plan

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
        "connection refused": 1,
        "SIGSTOP of Redis": 1,
        "Redis full": 1,
        "S3 down": 1,
        "receiver down": 2,
        "clock jump": 1,
    },
    mix=Mix(poison=1, stuck_decode=0.5, stuck_device=0.5, newer=0, longest_ms=1_500),
    newer=False,
)
"""Every day's: the leases are short, so that what is killed comes back while one waits."""

KILLS = Plan(
    seed=0,
    jobs=0,
    seconds=0,
    workers=3,
    visibility_s=3,
    mix=Mix(busy=0, missing=0, poison=0, greedy=0, stuck_decode=0, stuck_device=0, newer=0,
            http=0, s3=0, delayed=0, callback=0, median_ms=10, longest_ms=50),
    deliveries=10,
    settings={"CAPTIONQ_RECONCILE_EVERY_S": "0"},
    newer=False,
)  # fmt: skip
"""Workers are killed while they are busiest with taking, and nothing but the transport helps."""


USUAL = {name: often for name, (_, often) in ACTS.items()}
EVERYSEC = USUAL | {"kill -9 of Redis": 0.0, POWER_CUT: USUAL["kill -9 of Redis"]}
"""How often faults come, and where Redis writes to its disk once a second: there its host dies."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    commands = made.add_subparsers(dest="command", required=True)

    one = commands.add_parser("run", help="jobs and faults of all kinds; prints an account")
    one.add_argument("--short", action="store_true", help="under 90 s, for every day")
    one.add_argument("--seed", type=int, help="as printed by the run that is to be repeated")
    one.add_argument("--jobs", type=int, default=50_000)
    one.add_argument("--minutes", type=float, default=20, help="how long jobs are sent")
    one.add_argument("--workers", type=int, default=4)
    one.add_argument(
        "--fsync",
        choices=("always", "everysec"),
        default="always",
        help="Redis' appendfsync; with everysec it loses its last second each time",
    )
    one.set_defaults(main=_run)

    one = commands.add_parser("kills", help="kill -9 of busy workers, without the reconciler")
    one.add_argument("--count", type=int, default=100)
    one.add_argument("--transport", choices=("ours", "stock"), default="ours")
    one.add_argument("--seed", type=int, default=1)
    one.set_defaults(main=_kills)

    one = commands.add_parser("soak", help="memory and keys over many small jobs")
    one.add_argument("--jobs", type=int, default=200_000)
    one.set_defaults(main=lambda options: soak.main(options.jobs))

    one = commands.add_parser("overhead", help="messages per second against kombu's transport")
    one.add_argument("--rounds", type=int, default=5)
    one.add_argument("--messages", type=int, default=8_000)
    one.set_defaults(main=lambda options: overhead.main(options.rounds, options.messages))

    one = commands.add_parser("reconcile", help="the reconciler's passes over many open jobs")
    one.add_argument("--records", type=int, default=1_000_000)
    one.set_defaults(main=lambda options: reconcile.main(options.records))
    return made


def _run(options: argparse.Namespace) -> int:
    seed = random.SystemRandom().randrange(10**6) if options.seed is None else options.seed
    if options.short:
        return run.main(replace(SHORT, seed=seed), f"make chaos SHORT=1 SEED={seed}")
    plan = Plan(
        seed=seed,
        jobs=options.jobs,
        seconds=options.minutes * 60,
        workers=options.workers,
        fsync=options.fsync,
        faults=EVERYSEC if options.fsync == "everysec" else USUAL,
    )
    repeat = (
        f"python -m tests.chaos run --seed {seed} --jobs {options.jobs} "
        f"--minutes {options.minutes:g} --workers {options.workers} --fsync {options.fsync}"
    )
    return run.main(plan, repeat)


def _kills(options: argparse.Namespace) -> int:
    seconds = options.count * 1.5
    plan = replace(
        KILLS,
        seed=options.seed,
        jobs=round(seconds * 40),
        seconds=seconds,
        due={"kill -9 of a worker": options.count},
        transport=options.transport,
    )
    repeat = (
        f"python -m tests.chaos kills --count {options.count} --transport {options.transport} "
        f"--seed {options.seed}"
    )
    return run.main(plan, repeat)


if __name__ == "__main__":
    chosen = parser().parse_args()
    main: Callable[[argparse.Namespace], int] = chosen.main
    sys.exit(main(chosen))
