"""How often each job ran, and how often faults allowed it to run again. Pure."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf

from tests.chaos.fates import Errand
from tests.chaos.fates import Kind as FateKind
from tests.chaos.faults import POWER_CUT, Fault
from tests.chaos.ledger import Event, Kind
from tests.chaos.power import LOST_S

AFTER_S = 1.0
"""What is taken so soon after a fault may be struck by it still."""


@dataclass
class Hold:
    """A delivery in the hands of a process."""

    job_id: str
    pid: int
    from_s: float
    until_s: float


def holds(events: Sequence[Event], deaths: Mapping[int, float]) -> list[Hold]:
    """All deliveries; `events` in order, `deaths` when processes ended, by pid."""
    made: list[Hold] = []
    open_: dict[tuple[int, str], list[Hold]] = defaultdict(list)
    for event in events:
        key = event.pid, event.job_id
        if event.kind is Kind.TAKEN:
            hold = Hold(event.job_id, event.pid, event.at_s, deaths.get(event.pid, inf))
            open_[key].append(hold)
            made.append(hold)
        elif event.kind in (Kind.LEFT, Kind.RETURNED) and open_[key]:
            open_[key].pop(0).until_s = event.at_s
    return made


def hits(faults: Sequence[Fault], held: Sequence[Hold]) -> Counter[str]:
    """How many faults struck each job: while they lasted it was in the hands of who they touched.

    A power cut strikes what left those hands in the second that it takes back, too.
    """
    found: Counter[str] = Counter()
    for fault in faults:
        begin_s = fault.at_s - (LOST_S + 0.1 if fault.name == POWER_CUT else 0)
        end_s = fault.at_s + fault.length_s + AFTER_S
        found.update(
            {
                hold.job_id
                for hold in held
                if hold.from_s <= end_s
                and hold.until_s >= begin_s
                and (not fault.pids or hold.pid in fault.pids)
            }
        )
    return found


def unexplained(
    errands: Mapping[str, Errand],
    events: Sequence[Event],
    struck: Mapping[str, int],
    sent_again: Mapping[str, int],
) -> list[str]:
    """Jobs that ran more often than their fate wants, the faults that struck them allow, and their
    producer can have sent them, in words. What one job was allowed excuses no other one.

    Poison jobs are not among them: how often they run is promised by itself.
    """
    runs = Counter(event.job_id for event in events if event.kind is Kind.BEGUN)
    return [
        f"{job_id} {times} times, struck by {struck.get(job_id, 0)}"
        for job_id, times in sorted(runs.items())
        if (errand := errands.get(job_id)) is not None
        and errand.fate.kind is not FateKind.POISON
        and times > errand.tries + struck.get(job_id, 0) + sent_again.get(job_id, 0)
    ]
