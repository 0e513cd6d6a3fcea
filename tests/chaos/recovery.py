"""Who had which jobs in hand when a fault struck, and how soon they were taken up again. Pure."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf

from tests.chaos.faults import Fault
from tests.chaos.ledger import Event, Kind

GOES_ON = frozenset({Kind.TAKEN, Kind.BEGUN, Kind.LEFT})
"""Events that say that a job was taken up again, or ended. The end of a run does not: its result
has still to be stored; and what is returned waits again."""


@dataclass
class Hands:
    """Which jobs are in whose hands, as the events of the ledger pass by."""

    held: dict[tuple[int, str], float] = field(default_factory=dict)
    settled: dict[str, float] = field(default_factory=dict)
    """When somebody was last done with a job."""

    def see(self, event: Event) -> None:
        """Take notice of an event."""
        key = event.pid, event.job_id
        if event.kind is Kind.TAKEN:
            self.held[key] = event.at_s
        elif event.kind in (Kind.LEFT, Kind.RETURNED):
            self.held.pop(key, None)
            if event.kind is Kind.LEFT:
                self.settled[event.job_id] = event.at_s

    def waiting_of(self, pids: frozenset[int]) -> set[str]:
        """Of these jobs, those that nobody has been done with since they were taken: a process that
        was stopped may still hold what another one, that had it next, has done."""
        return {
            job_id
            for (pid, job_id), taken_s in self.held.items()
            if (not pids or pid in pids) and self.settled.get(job_id, -inf) < taken_s
        }

    def gone(self, pid: int) -> None:
        """A process has ended, and all it held is out of its hands."""
        for key in [key for key in self.held if key[0] == pid]:
            del self.held[key]

    def of(self, pids: frozenset[int]) -> set[str]:
        """The jobs in the hands of these processes; of all when there are none named."""
        return {job_id for pid, job_id in self.held if not pids or pid in pids}


@dataclass(frozen=True)
class Seen:
    """A fault, the jobs in the hands it struck, and how long the last of them was neither taken up
    again nor ended, beyond the fault's own length and that of others meanwhile, and beyond the time
    in which no worker ran (seconds)."""

    fault: Fault
    struck: frozenset[str]
    recovery_s: float
    last: str = ""


def recoveries(
    faults: Sequence[Fault],
    events: Sequence[Event],
    deaths: Mapping[int, float],
    patient: frozenset[str] = frozenset(),
    forgotten: frozenset[str] = frozenset(),
) -> list[Seen]:
    """Faults with what they struck.

    Args:
        events: in order.
        deaths: when processes ended, by pid.
        patient: jobs of low priority: what is more urgent goes before them, so that how long they
            wait says nothing of the fault. They have to go on all the same.
        forgotten: jobs that Redis lost with its host; they cannot go on.
    """
    after: dict[str, list[float]] = defaultdict(list)
    for event in events:
        if event.kind in GOES_ON:
            after[event.job_id].append(event.at_s)
    hands, seen, left, dead = Hands(), [], list(events), dict(deaths)
    left.reverse()
    nobodys = sorted([*faults, *absences(events, deaths)], key=lambda one: one.at_s)
    for fault in sorted(faults, key=lambda one: one.at_s):
        while left and left[-1].at_s <= fault.at_s:
            hands.see(left.pop())
        for pid in [pid for pid, at_s in dead.items() if at_s <= fault.at_s]:
            del dead[pid]
            hands.gone(pid)
        struck = hands.of(fault.pids)
        moments = {
            job_id: next((at_s for at_s in after[job_id] if at_s > fault.at_s), inf)
            for job_id in hands.waiting_of(fault.pids) - forgotten
        }
        moments = {
            job_id: moment_s
            for job_id, moment_s in moments.items()
            if moment_s == inf or job_id not in patient
        }
        last = max(moments, key=lambda job_id: moments[job_id], default="")
        last_s = moments.get(last, fault.at_s)
        took_s = last_s - fault.at_s
        if last_s < inf:
            took_s -= lasted_s(nobodys, fault.at_s, last_s)
        seen.append(Seen(fault, frozenset(struck), max(0.0, took_s), last))
    return seen


def absences(events: Sequence[Event], deaths: Mapping[int, float]) -> list[Fault]:
    """When there was no worker to take anything up: all had ended, and the next still started.

    >>> ready = [Event(Kind.READY, "", 0, pid, at_s) for pid, at_s in ((1, 0.0), (2, 9.0))]
    >>> [(one.at_s, one.length_s) for one in absences(ready, {1: 4.0})]
    [(4.0, 5.0)]
    """
    ready = [(event.at_s, event.pid) for event in events if event.kind is Kind.READY]
    changes = sorted([*ready, *((at_s, -pid) for pid, at_s in deaths.items())])
    found, there, since_s = [], set[int](), inf
    for at_s, pid in changes:
        if pid > 0:
            there.add(pid)
            if since_s < at_s:
                found.append(Fault("no worker", since_s, at_s - since_s, frozenset()))
                since_s = inf
        elif -pid in there:
            there.remove(-pid)
            since_s = inf if there else at_s
    return found


def lasted_s(faults: Sequence[Fault], from_s: float, until_s: float) -> float:
    """For how much of a time there was some fault; `faults` in order.

    >>> lasted_s([Fault("a", 0, 2, frozenset()), Fault("b", 1, 3, frozenset())], 1, 10)
    3.0
    """
    lasted, reached_s = 0.0, from_s
    for fault in faults:
        begin_s, end_s = max(fault.at_s, reached_s), min(fault.at_s + fault.length_s, until_s)
        if end_s > begin_s:
            lasted += end_s - begin_s
            reached_s = end_s
    return lasted
