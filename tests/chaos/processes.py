"""What worker processes did: how they ended, whether in time, and whether they went deaf. Pure."""

import signal
from bisect import bisect
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from tests.chaos.fates import Fate
from tests.chaos.fates import Kind as FateKind
from tests.chaos.faults import KILL, SIGTERM, SIGTERM_TWICE, Fault
from tests.chaos.ledger import Event, Kind
from tests.chaos.recovery import lasted_s
from worker.shutdown import EX_SOFTWARE

OFFERED = 100
"""A process that took none of so many jobs was deaf."""

FATAL = "fatal"
"""In place of a fault's name: a job ended its process."""

ENDING_S = {SIGTERM: 40.0, SIGTERM_TWICE: 15.0, FATAL: 20.0}
"""How long a process may take to end: the worker's timeout of 30 s, or at once; returning its
messages takes up to 5 s, and a batch is known to hang after 3 s. The rest is for a busy machine."""

LAST_ACTS = frozenset({KILL, SIGTERM, SIGTERM_TWICE})
"""Faults after which a process takes nothing more."""


@dataclass(frozen=True)
class Processes:
    """The worker processes there were: when they began and ended, by pid; (pid, status) of those
    that ended; and the end of the run. Moments are seconds of CLOCK_MONOTONIC."""

    births: Mapping[int, float] = field(default_factory=dict)
    deaths: Mapping[int, float] = field(default_factory=dict)
    exits: Sequence[tuple[int, int]] = ()
    until_s: float = 0.0


def unplanned(
    exits: Iterable[tuple[int, int]], faults: Sequence[Fault], events: Sequence[Event]
) -> list[tuple[int, int]]:
    """The ends of processes, (pid, status), that are not what they were told, or made, to do.

    One that was told to end and crashed on the way has not done as it was told.
    """
    allowed: dict[int, set[int]] = defaultdict(set)
    worked = {event.pid for event in events}
    for fault in faults:
        for pid in fault.pids:
            if fault.name == KILL:
                allowed[pid].add(-signal.SIGKILL)
            elif fault.name == SIGTERM:
                allowed[pid] |= {0} if pid in worked else {0, -signal.SIGTERM}
            elif fault.name == SIGTERM_TWICE:  # the second may meet an interpreter that has ended
                allowed[pid] |= {0, -signal.SIGTERM}
    for event in events:
        if event.kind is Kind.FATAL:
            hangs = Fate.of(event.job_id).kind is FateKind.STUCK_DEVICE
            allowed[event.pid].add(EX_SOFTWARE if hangs else -signal.SIGKILL)
    return [(pid, status) for pid, status in exits if status not in allowed[pid]]


def overdue(
    faults: Sequence[Fault],
    events: Sequence[Event],
    processes: Processes,
) -> list[str]:
    """Processes that were to end and did not within ENDING_S, the time of faults not counted, or
    not at all, in words."""
    told = [(one.name, one.at_s, pid) for one in faults if one.name in ENDING_S for pid in one.pids]
    told += [(FATAL, one.at_s, one.pid) for one in events if one.kind is Kind.FATAL]
    deaths = processes.deaths
    in_order = sorted(faults, key=lambda one: one.at_s)
    found = []
    for name, at_s, pid in told:
        end_s = deaths.get(pid, processes.until_s)
        if end_s - at_s - lasted_s(in_order, at_s, end_s) > ENDING_S[name]:
            found.append(f"{pid} {name}: {'' if pid in deaths else 'not '}{end_s - at_s:.0f} s")
    return found


def deaf(
    faults: Sequence[Fault],
    events: Sequence[Event],
    processes: Processes,
    accepted_s: Iterable[float],
    limit_s: float,
) -> list[str]:
    """Processes that lived and took nothing for longer than `limit_s`, the time of faults not
    counted, while OFFERED jobs or more were sent, in words.

    `accepted_s` is when jobs were sent.
    """
    sent_s = sorted(accepted_s)
    last_s = sent_s[-1] if sent_s else 0.0
    ends = dict(processes.deaths)
    for pid, at_s in [
        *((one.pid, one.at_s) for one in events if one.kind is Kind.FATAL),
        *((pid, one.at_s) for one in faults if one.name in LAST_ACTS for pid in one.pids),
    ]:
        ends[pid] = min(at_s, ends.get(pid, at_s))
    taken: dict[int, list[float]] = {pid: [at_s] for pid, at_s in processes.births.items()}
    for event in events:
        if event.kind is Kind.TAKEN:
            taken.setdefault(event.pid, []).append(event.at_s)
    in_order = sorted(faults, key=lambda one: one.at_s)
    found = []
    for pid, moments in taken.items():
        until_s = min(last_s, ends.get(pid, last_s))
        for begin_s, end_s in zip(moments, [*moments[1:], until_s], strict=True):
            end_s = min(end_s, until_s)
            silent_s = end_s - begin_s - lasted_s(in_order, begin_s, end_s)
            offered = bisect(sent_s, end_s) - bisect(sent_s, begin_s)
            if silent_s > limit_s and offered >= OFFERED:
                found.append(f"{pid} took none of {offered} jobs for {silent_s:.0f} s")
    return found
