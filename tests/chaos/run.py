"""A run: jobs are sent, faults happen, and when all is quiet again the account is drawn up."""

import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import redis

from tests.chaos.account import Account, Promises, account
from tests.chaos.fates import Mix, Sender, draw
from tests.chaos.faults import ACTS, Fault, happen
from tests.chaos.ledger import Event
from tests.chaos.outsiders import (
    CALLBACK_KEYS,
    Receiver,
    answers_of,
    ends_of,
    left_of,
    letters_of,
    records_of,
)
from tests.chaos.processes import Processes
from tests.chaos.producers import Producers
from tests.chaos.recovery import Hands
from tests.chaos.sizes import Flatness, Sizes
from tests.chaos.testimony import Testimony
from tests.chaos.world import Worker, World

QUIET_S = 20.0
"""How long nothing may happen to any job before what has not ended is called lost, besides two
visibility timeouts, and RECONCILED_S where a job may have been recorded and not sent."""

RECOVERY_S = 25.0
"""Until what was in flight at a fault is taken up again."""

RECONCILED_S = 130.0
"""Until the reconciler sends it: a minute of grace, and two passes, the first of them late."""


TOLD_S = 120.0
"""Until the fourth try of a callback, when all else is done."""


@dataclass(frozen=True)
class Plan:
    """What is to be done.

    `faults` names those that come at random; `due` are those that come in any case. The visibility
    timeout of the workers is `visibility_s`.
    """

    seed: int
    jobs: int
    seconds: float
    workers: int = 4
    visibility_s: float = 20.0
    fsync: str = "always"
    gap_s: float = 4.0
    faults: dict[str, float] = field(
        default_factory=lambda: {name: share for name, (_, share) in ACTS.items()}
    )
    due: dict[str, int] = field(default_factory=dict)
    mix: Mix = field(default_factory=Mix)
    deliveries: int = 3
    settings: dict[str, str] = field(default_factory=dict)
    transport: str = "ours"
    newer: bool = True


class Run:
    """One run of a plan; `say` hears how it goes."""

    def __init__(self, plan: Plan, say: Callable[[str], object]) -> None:
        self.plan = plan
        self.say = say
        self.rng = random.Random(plan.seed)
        self.faults: list[Fault] = []
        self.deaths: dict[int, float] = {}
        self.events: list[Event] = []
        self.hands = Hands()
        self.sizes = Sizes()

    def go(self) -> tuple[Account, Flatness | None]:
        """Do it all."""
        plan = self.plan
        errands = [draw(self.rng, n, plan.mix) for n in range(plan.jobs)]
        with (
            tempfile.TemporaryDirectory(prefix="chaos-") as folder,
            World(
                Path(folder),
                workers=plan.workers,
                fsync=plan.fsync,
                visibility_s=plan.visibility_s,
                settings=plan.settings
                | {
                    "CHAOS_TRANSPORT": plan.transport,
                    "CAPTIONQ_MAX_DELIVERIES": str(plan.deliveries),
                },
                newer=plan.newer,
            ) as world,
        ):
            receiver = Receiver(world.redis.url)
            producers = Producers(world, errands, plan.seconds)
            world.start()
            try:
                producers.start()
                self._shake(world, producers)
                self.say("no more faults; what is left is finished")
                self._until_quiet(world, producers)
                drawn_up = account(
                    self._hear(world, producers, receiver),
                    self.events,
                    self.faults,
                    Processes(
                        births={k: v for one in world.workers for k, v in one.born.items()},
                        deaths=self.deaths,
                        exits=[one for worker in world.workers for one in worker.ended],
                        until_s=time.monotonic(),
                    ),
                    Promises(RECOVERY_S, plan.deliveries, plan.jobs),
                )
                if drawn_up.broken:
                    self._keep_logs(Path(folder))
                return drawn_up, self.sizes.flatness()
            finally:
                receiver.close()
                producers.close()

    def _hear(self, world: World, producers: Producers, receiver: Receiver) -> Testimony:
        url = world.redis.url
        plain = [
            one.job_id for one in producers.accepted.values() if one.sender is not Sender.CLIENT
        ]
        return Testimony(
            accepted=producers.accepted,
            accepted_s=producers.accepted_s,
            records=records_of(url, producers.accepted),
            told=receiver.told,
            answers=answers_of(url, plain),
            letters=letters_of(url),
            again=producers.sent_again,
            left=left_of(url),
            heard=world.hooks.heard,
        )

    def _shake(self, world: World, producers: Producers) -> None:
        due = [name for name, times in self.plan.due.items() for _ in range(times)]
        self.rng.shuffle(due)
        moments = sorted(self.rng.uniform(0, self.plan.seconds) for _ in due)
        began_s = time.monotonic()
        for name, moment_s in zip(due, moments, strict=True):
            self._pause(world, began_s + moment_s - time.monotonic())
            self._happen(world, name, producers)
        while not (due or producers.done):
            self._pause(world, self.plan.gap_s * self.rng.uniform(0.5, 1.5))
            names, shares = list(self.plan.faults), list(self.plan.faults.values())
            self._happen(world, self.rng.choices(names, shares)[0], producers)
        while not producers.done:
            self._pause(world, 0.5)

    def _happen(self, world: World, name: str, producers: Producers) -> None:
        victim = self._victim(world)
        with ThreadPoolExecutor(1) as pool:  # what else dies meanwhile is seen, and started again
            under_way = pool.submit(happen, world, victim, self.rng, name, self.plan.visibility_s)
            while not under_way.done():
                self._pause(world, 0.05)
            fault = under_way.result()
        self.faults.append(fault)
        self.say(f"{name} ({fault.length_s:.1f} s); {len(producers.accepted)} jobs sent")

    def _victim(self, world: World) -> Worker:
        """A worker that is at work, or after a while whichever there is."""
        until_s = time.monotonic() + 10
        while True:
            self._pause(world, 0)
            there = [worker for worker in world.workers if worker.process is not None]
            busy = [worker for worker in there if self.hands.of(frozenset({worker.pid}))]
            if busy or (there and time.monotonic() > until_s):
                return self.rng.choice(busy or there)
            time.sleep(0.02)

    def _pause(self, world: World, seconds: float) -> None:
        until_s = time.monotonic() + seconds
        while True:
            self._look_after(world)
            left_s = until_s - time.monotonic()
            if left_s <= 0:
                return
            time.sleep(min(0.1, left_s))

    def _look_after(self, world: World) -> None:
        for event in world.ledger.news():
            self.events.append(event)
            self.hands.see(event)
        now_s = time.monotonic()
        for worker in world.workers:
            before = worker.process
            worker.look_after()
            if before is not None and worker.process is not before:
                self.deaths[before.pid] = now_s
                self.hands.gone(before.pid)
            else:
                self.sizes.weigh(worker.pid, now_s - worker.started_s)

    def _until_quiet(self, world: World, producers: Producers) -> None:
        patience_s = QUIET_S + 2 * self.plan.visibility_s
        if producers.sent_again:  # one may be recorded and not sent: it is the reconciler's
            patience_s += RECONCILED_S
        told_s = last_s = time.monotonic()
        while True:
            before = len(self.events)
            self._pause(world, 0.5)
            if len(self.events) > before:
                last_s = time.monotonic()
            ends = ends_of(world.redis.url, producers.accepted)
            open_ = [job_id for job_id, end in ends.items() if end is None]
            if not open_ and not left_in(world.redis.url):
                return
            if time.monotonic() - told_s > 10:
                told_s = time.monotonic()
                left = left_in(world.redis.url)
                self.say(f"{len(open_)} jobs have not ended, {left} messages left: {open_[:3]}")
            if time.monotonic() - last_s > patience_s + (0 if open_ else TOLD_S):
                return

    def _keep_logs(self, folder: Path) -> None:
        kept = Path(tempfile.mkdtemp(prefix="chaos-logs-"))
        for log in folder.glob("*.log"):
            (kept / log.name).write_bytes(log.read_bytes())
        self.say(f"the workers' logs: {kept}")


def left_in(url: str) -> int:
    """Messages that wait, are in flight, or are delayed, and callbacks that are due."""
    with redis.Redis.from_url(url, decode_responses=True) as client:
        lists: Iterable[str] = client.scan_iter("c*", _type="list")
        waiting = sum(int(client.llen(key)) for key in lists)  # type: ignore[arg-type]
        held = int(client.hlen("captionq.inflight")) + int(client.hlen("unacked"))  # type: ignore[arg-type]
        untold = sum(int(client.zcard(key)) for key in client.scan_iter(CALLBACK_KEYS))  # type: ignore[arg-type]
        return waiting + held + int(client.zcard("captionq.delayed")) + untold  # type: ignore[arg-type]


def main(plan: Plan, repeat: str) -> int:
    """Run a plan and print its account; returns the exit status."""

    def say(words: str) -> None:
        print(f"{time.monotonic() - began_s:7.1f} s  {words}", file=sys.stderr, flush=True)

    began_s = time.monotonic()
    drawn_up, flatness = Run(plan, say).go()
    print(drawn_up.table())
    if flatness is not None:
        print(flatness)
    broken = drawn_up.broken + (flatness.broken if flatness is not None else [])
    for words in broken:
        print(f"BROKEN: {words}")
    print(f"again: {repeat}")
    print(drawn_up.last_line, flush=True)
    return 1 if broken else 0
