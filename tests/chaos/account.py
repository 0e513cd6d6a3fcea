"""What became of all jobs: counted from the independent ledger and from what outsiders received."""

import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from tests.chaos.fates import Errand
from tests.chaos.fates import Kind as FateKind
from tests.chaos.faults import Fault
from tests.chaos.ledger import Event, Kind


@dataclass
class Hands:
    """Which jobs are in whose hands, as the events of the ledger pass by."""

    held: dict[tuple[int, str], float] = field(default_factory=dict)

    def see(self, event: Event) -> None:
        """Take notice of an event."""
        key = event.pid, event.job_id
        if event.kind is Kind.TAKEN:
            self.held[key] = event.at_s
        elif event.kind is Kind.LEFT:
            self.held.pop(key, None)

    def gone(self, pid: int) -> None:
        """A process has ended, and all it held is out of its hands."""
        for key in [key for key in self.held if key[0] == pid]:
            del self.held[key]

    def of(self, pids: frozenset[int]) -> set[str]:
        """The jobs in the hands of these processes; of all when there are none named."""
        return {job_id for pid, job_id in self.held if not pids or pid in pids}


@dataclass(frozen=True)
class Seen:
    """A fault, how many jobs were in the hands it struck, and how long after its end the last of
    them was taken up again, or ended (seconds)."""

    fault: Fault
    struck: int
    recovery_s: float


def recoveries(
    faults: Sequence[Fault], events: Sequence[Event], deaths: Mapping[int, float]
) -> list[Seen]:
    """Faults with what they struck.

    Args:
        events: in order.
        deaths: when processes ended, by pid.
    """
    after: dict[str, list[float]] = defaultdict(list)
    for event in events:
        after[event.job_id].append(event.at_s)
    hands, seen, left, dead = Hands(), [], list(events), dict(deaths)
    left.reverse()
    for fault in sorted(faults, key=lambda one: one.at_s):
        while left and left[-1].at_s <= fault.at_s:
            hands.see(left.pop())
        for pid in [pid for pid, at_s in dead.items() if at_s <= fault.at_s]:
            del dead[pid]
            hands.gone(pid)
        struck = hands.of(fault.pids)
        waits = [
            next((at_s for at_s in after[job_id] if at_s > fault.at_s), float("inf"))
            for job_id in struck
        ]
        last_s = max(waits, default=fault.at_s) - fault.at_s - fault.length_s
        seen.append(Seen(fault, len(struck), max(0.0, last_s)))
    return seen


@dataclass(frozen=True)
class Account:
    """The whole account of a run. Jobs are named by their ids."""

    jobs: int
    lost: list[str]
    doubled: list[str]
    wrong: list[str]
    executions: int
    attempts: int
    again_allowed: int
    poisoned: int
    poison_wrong: list[str]
    seen: list[Seen]
    unplanned: list[tuple[int, int]]
    recovery_limit_s: float

    @property
    def broken(self) -> list[str]:
        """The promises that were broken, in words."""
        slow = [one for one in self.seen if one.recovery_s > self.recovery_limit_s]
        again = self.executions - self.attempts
        found = {
            f"{len(self.lost)} jobs were lost: {self.lost[:20]}": self.lost,
            f"{len(self.doubled)} results came twice: {self.doubled[:20]}": self.doubled,
            f"{len(self.wrong)} jobs ended as they should not: {self.wrong[:20]}": self.wrong,
            f"poison jobs that were not given up after 3 runs: {self.poison_wrong}": (
                self.poison_wrong
            ),
            f"{again} runs more than attempts; {self.again_allowed} were in flight at faults": (
                again > self.again_allowed
            ),
            f"not taken up again within {self.recovery_limit_s:g} s: "
            + ", ".join(f"{one.fault.name} {one.recovery_s:.1f} s" for one in slow): slow,
            f"worker processes that ended by themselves (pid, status): {self.unplanned}": (
                self.unplanned
            ),
        }
        return [words for words, it_is_so in found.items() if it_is_so]

    @property
    def last_line(self) -> str:
        """The account in one line."""
        return (
            f"{self.jobs} jobs: {len(self.lost)} lost, {len(self.doubled)} doubled, "
            f"{self.executions} executions, {len(self.unplanned)} unplanned exits"
        )

    def table(self) -> str:
        """Faults by name: how many, what they struck, how soon that was taken up again."""
        lines = [f"{'fault':<22}{'times':>6}{'struck':>8}{'median':>9}{'longest':>9}"]
        by_name: dict[str, list[Seen]] = defaultdict(list)
        for one in self.seen:
            by_name[one.fault.name].append(one)
        for name, all_of_it in sorted(by_name.items(), key=lambda item: -len(item[1])):
            times = [one.recovery_s for one in all_of_it]
            lines.append(
                f"{name:<22}{len(all_of_it):>6}{sum(one.struck for one in all_of_it):>8}"
                f"{statistics.median(times):>7.1f} s{max(times):>7.1f} s"
            )
        again = self.executions - self.attempts
        lines.append(
            f"runs: {self.executions}, {again} of them again "
            f"(at most {self.again_allowed}: what was in flight at faults, or sent twice)"
        )
        lines.append(f"poison jobs given up: {self.poisoned}")
        return "\n".join(lines)


def account(
    errands: Mapping[str, Errand],
    ends: Mapping[str, str | None],
    received: Counter[str],
    events: Sequence[Event],
    faults: Sequence[Fault],
    deaths: Mapping[int, float],
    exits: Iterable[tuple[int, int]],
    ours: frozenset[int],
    sent_twice: int,
    recovery_limit_s: float,
) -> Account:
    """Draw up the account.

    Args:
        errands: the jobs that were accepted, by id.
        ends: how each ended: "succeeded", an error code, or None.
        received: how many results outsiders received of each.
        exits: (pid, status) of worker processes that ended.
        ours: those that were ended from outside.
        sent_twice: messages that may have been sent twice, because their producer heard nothing.
    """
    begun = [event for event in events if event.kind is Kind.BEGUN]
    fatal = {event.pid: event for event in events if event.kind is Kind.FATAL}
    self_made = [
        Fault("a job ended its worker", event.at_s - 0.001, 0, frozenset({pid}))
        for pid, event in fatal.items()
        if pid in deaths
    ]
    seen = recoveries([*faults, *self_made], events, deaths)
    poison = [one for one in errands.values() if one.fate.kind is FateKind.POISON]
    runs = Counter(event.job_id for event in begun)
    return Account(
        jobs=len(errands),
        lost=sorted(job_id for job_id in errands if ends.get(job_id) is None),
        doubled=sorted(job_id for job_id, times in received.items() if times > 1),
        wrong=sorted(
            f"{job_id} {end}"
            for job_id, end in ends.items()
            if end is not None and end not in errands[job_id].outcomes
        ),
        executions=len(begun),
        attempts=len({(event.job_id, event.attempt) for event in begun}),
        again_allowed=sum(one.struck for one in seen) + sent_twice,
        poisoned=sum(ends.get(one.job_id) == "job_poisoned" for one in poison),
        poison_wrong=[
            f"{one.job_id}: {ends.get(one.job_id)} after {runs[one.job_id]} runs"
            for one in poison
            if ends.get(one.job_id) != "job_poisoned" or runs[one.job_id] > 3
        ],
        seen=seen,
        unplanned=[(pid, status) for pid, status in exits if pid not in ours and pid not in fatal],
        recovery_limit_s=recovery_limit_s,
    )
