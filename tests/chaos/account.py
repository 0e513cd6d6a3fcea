"""What became of all jobs: counted from the independent ledger and from what outsiders received."""

import statistics
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tests.chaos.fates import Kind as FateKind
from tests.chaos.faults import POWER_CUT, SPARING, Fault
from tests.chaos.ledger import Event, Kind
from tests.chaos.power import LOST_S
from tests.chaos.processes import Processes, deaf, overdue, unplanned
from tests.chaos.recovery import Seen, recoveries
from tests.chaos.runs import hits, holds, unexplained
from tests.chaos.testimony import Testimony

PATIENCE_S = 10.0
"""How much longer than its recovery a worker may take nothing: it starts, or others are faster."""


@dataclass(frozen=True)
class Promises:
    """What a run is held to. `recovery_s`: until what was in flight at a fault is taken up again.
    A job may end unrun after `deliveries` that faults broke off. So many `jobs` are to be sent."""

    recovery_s: float
    deliveries: int = 3
    jobs: int = 0


@dataclass(frozen=True)
class Account:
    """The whole account of a run. Jobs are named by their ids.

    `forgotten` and `retold` are those of the lost and the doubled that were accepted, or told, in
    the last second before a power cut that Redis had not written to its disk.
    """

    promises: Promises
    jobs: int
    lost: list[str]
    forgotten: list[str]
    doubled: list[str]
    retold: list[str]
    wrong: list[str]
    unanswered: list[str]
    executions: int
    attempts: int
    again_allowed: int
    poisoned: int
    condemned: int
    poison_wrong: list[str]
    seen: list[Seen]
    unplanned: list[tuple[int, int]]
    unexplained: list[str]
    misfiled: list[str]
    calls: int
    untold: list[str]
    mistold: list[str]
    left: Mapping[str, int]
    deaf_listener: bool
    idle: list[str]

    @property
    def broken(self) -> list[str]:
        """The promises that were broken, in words."""
        slow = [one for one in self.seen if one.recovery_s > self.promises.recovery_s]
        again = self.executions - self.attempts
        lost = sorted({*self.lost} - {*self.forgotten})
        doubled = sorted({*self.doubled} - {*self.retold})
        found: dict[str, object] = {
            f"{len(lost)} jobs were lost: {lost[:20]}": lost,
            f"{len(doubled)} results came twice, or in two ways: {doubled[:20]}": doubled,
            f"{len(self.wrong)} jobs ended as they should not: {self.wrong[:20]}": self.wrong,
            f"{len(self.unanswered)} plain clients have no answer, or another than the record: "
            f"{self.unanswered[:20]}": self.unanswered,
            f"poison jobs that were not given up after {self.promises.deliveries} runs: "
            f"{self.poison_wrong}": self.poison_wrong,
            f"{again} runs more than attempts; {self.again_allowed} were in flight at faults": (
                again > self.again_allowed
            ),
            f"not taken up again within {self.promises.recovery_s:g} s: "
            + ", ".join(
                f"{one.fault.name} {one.recovery_s:.1f} s {one.last}" for one in slow
            ): slow,
            f"worker processes that ended by themselves (pid, status): {self.unplanned}": (
                self.unplanned
            ),
            f"{self.jobs} of {self.promises.jobs} jobs were sent": self.jobs < self.promises.jobs,
            f"{len(self.unexplained)} jobs ran more often than the faults that struck them allow: "
            f"{self.unexplained[:20]}": self.unexplained,
            f"dead letters that are missing, or are not of the job's end: {self.misfiled[:20]}": (
                self.misfiled
            ),
            f"{len(self.untold)} callbacks never came: {self.untold[:20]}": self.untold,
            f"{len(self.mistold)} callbacks came under several ids, of another end, or unasked: "
            f"{self.mistold[:20]}": self.mistold,
            f"all is done, and the broker still keeps {dict(self.left)}": self.left,
            "the listener heard too little to bear witness": self.deaf_listener,
            f"processes that were deaf, or did not end when they were to: {self.idle}": self.idle,
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
                f"{name:<22}{len(all_of_it):>6}{sum(len(one.struck) for one in all_of_it):>8}"
                f"{statistics.median(times):>7.1f} s{max(times):>7.1f} s"
            )
        again = self.executions - self.attempts
        lines.append(
            f"runs: {self.executions}, {again} of them again "
            f"(at most {self.again_allowed}: what was in flight at faults, or sent twice)"
        )
        lines.append(
            f"poison jobs given up: {self.poisoned}; others, after "
            f"{self.promises.deliveries} deliveries that faults broke off: {self.condemned}"
        )
        lines.append(f"callbacks heard: {self.calls}")
        if cuts := len(by_name[POWER_CUT]):
            lines.append(
                f"the last second of everysec, {cuts} times: {len(self.forgotten)} jobs accepted "
                f"in it were lost, {len(self.retold)} results told in it came again"
            )
        return "\n".join(lines)


def account(
    said: Testimony,
    events: Sequence[Event],
    faults: Sequence[Fault],
    processes: Processes,
    promises: Promises,
) -> Account:
    """Draw up the account; `events` in order."""
    deaths = processes.deaths
    begun = [event for event in events if event.kind is Kind.BEGUN]
    fatal = {event.pid: event for event in events if event.kind is Kind.FATAL}
    cuts_s = [fault.at_s for fault in faults if fault.name == POWER_CUT]
    forgotten = [job_id for job_id in said.lost if _last(said.accepted_s[job_id], cuts_s)]
    patient = frozenset(job_id for job_id, one in said.accepted.items() if one.priority)
    every = [*faults, *_self_made(fatal, deaths)]
    seen = recoveries(every, events, deaths, patient, frozenset(forgotten))
    held = holds(events, deaths)
    struck = hits(every, held)
    costly = hits([one for one in every if one.name not in SPARING], held)
    poison = [one for one in said.accepted.values() if one.fate.kind is FateKind.POISON]
    runs = Counter(event.job_id for event in begun)
    outcomes = {job_id: end.outcome if end else None for job_id, end in said.records.items()}
    unexpected = {
        job_id: outcome
        for job_id, outcome in outcomes.items()
        if outcome is not None and outcome not in said.accepted[job_id].outcomes
    }
    condemned = {
        job_id
        for job_id, outcome in unexpected.items()
        if outcome == "job_poisoned" and costly[job_id] >= promises.deliveries
    }
    return Account(
        promises=promises,
        jobs=len(said.accepted),
        lost=said.lost,
        forgotten=forgotten,
        doubled=said.doubled,
        retold=[
            job_id
            for job_id in said.doubled
            if any(_last(one.at_s, cuts_s) for one in said.told.get(job_id, ()))
        ],
        wrong=[f"{job_id} {unexpected[job_id]}" for job_id in sorted({*unexpected} - condemned)],
        unanswered=said.unanswered,
        executions=len(begun),
        attempts=len({(event.job_id, event.attempt) for event in begun}),
        again_allowed=sum(len(one.struck) for one in seen)
        + sum(said.again.values())
        + sum(_last(event.at_s, cuts_s) for event in events if event.kind is Kind.LEFT),
        poisoned=sum(outcomes.get(one.job_id) == "job_poisoned" for one in poison),
        condemned=len(condemned),
        poison_wrong=[
            f"{one.job_id}: {outcomes.get(one.job_id)} after {runs[one.job_id]} runs"
            for one in poison
            if outcomes.get(one.job_id) not in ("job_poisoned", None)
            or runs[one.job_id] > promises.deliveries + len(cuts_s)
        ],
        seen=seen,
        unplanned=unplanned(processes.exits, faults, events),
        unexplained=unexplained(said.accepted, events, struck, said.again),
        misfiled=[] if cuts_s else said.misfiled,
        calls=sum(map(len, said.heard.values())),
        untold=said.untold,
        mistold=[] if cuts_s else said.mistold,
        left=said.left,
        deaf_listener=said.deaf,
        idle=overdue(faults, events, processes)
        + deaf(
            faults, events, processes, said.accepted_s.values(), promises.recovery_s + PATIENCE_S
        ),
    )


def _self_made(fatal: Mapping[int, Event], deaths: Mapping[int, float]) -> list[Fault]:
    """The faults that jobs brought about themselves: from the fatal moment to the process' end."""
    return [
        Fault(
            "a job ended its worker",
            event.at_s - 0.001,
            max(0.0, deaths[pid] - event.at_s),
            frozenset({pid}),
        )
        for pid, event in fatal.items()
        if pid in deaths
    ]


def _last(at_s: float, cuts_s: Sequence[float]) -> bool:
    """Whether a moment lies in the last second before a power cut, or during it."""
    return any(cut_s - LOST_S - 0.1 <= at_s <= cut_s + 0.1 for cut_s in cuts_s)
