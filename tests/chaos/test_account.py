"""The account sees what it is there to see."""

from dataclasses import replace

import pytest

from tests.chaos.account import Account, Promises, account
from tests.chaos.fates import Errand, Fate, Kind, Sender, Source
from tests.chaos.faults import POWER_CUT, Fault
from tests.chaos.ledger import Event
from tests.chaos.ledger import Kind as Noted
from tests.chaos.outsiders import End, Told
from tests.chaos.processes import Processes
from tests.chaos.recovery import lasted_s, recoveries
from tests.chaos.testimony import Testimony as Said  # a name with Test is a class of tests

A = Errand("a", Fate(Kind.NORMAL), Source.FILE, Sender.CLIENT)
PLAIN = Errand("p", Fate(Kind.NORMAL), Source.FILE, Sender.CELERY)
POISON = Errand("x", Fate(Kind.POISON), Source.FILE, Sender.CLIENT)
WELL = End("succeeded", "noon")
SAID = Said(
    accepted={"a": A, "p": PLAIN, "x": POISON},
    accepted_s={"a": 10.0, "p": 10.0, "x": 10.0},
    records={"a": WELL, "p": WELL, "x": End("job_poisoned", "noon")},
    told={name: [Told(11.0, "noon")] for name in ("a", "p", "x")},
    answers={"p": "SUCCESS"},
    letters={"x": ["job_poisoned"]},
)


def event(kind: Noted, at_s: float, job_id: str = "a", pid: int = 1) -> Event:
    return Event(kind, job_id, 1, pid, at_s)


RUN = [event(Noted.TAKEN, 10.1), event(Noted.BEGUN, 10.2), event(Noted.LEFT, 11.0)]
KILL = Fault("kill -9 of a worker", 10.5, 0.0, frozenset({1}))
AGAIN = [
    *RUN[:2],
    event(Noted.TAKEN, 20.0, pid=2),
    event(Noted.BEGUN, 20.1, pid=2),
    event(Noted.LEFT, 21.0, pid=2),
]


def drawn_up(
    said: Said = SAID,
    events: list[Event] = RUN,
    faults: tuple[Fault, ...] = (),
    exits: tuple[tuple[int, int], ...] = (),
    recovery_s: float = 25,
) -> Account:
    deaths = {1: KILL.at_s + 0.1} if KILL in faults else {}
    processes = Processes(deaths=deaths, exits=exits, until_s=30)
    return account(said, events, faults, processes, Promises(recovery_s, jobs=3))


def test_given_what_was_promised_then_nothing_is_broken() -> None:
    made = drawn_up()
    assert made.broken == []
    assert made.last_line == "3 jobs: 0 lost, 0 doubled, 1 executions, 0 unplanned exits"


@pytest.mark.parametrize(
    ("said", "words"),
    [
        pytest.param(replace(SAID, records={**SAID.records, "a": None}), "lost: ['a']", id="lost"),
        pytest.param(
            replace(SAID, told={**SAID.told, "a": [Told(11.0, "noon"), Told(12.0, "one")]}),
            "in two ways: ['a']",
            id="told twice",
        ),
        pytest.param(
            replace(SAID, told={**SAID.told, "a": [Told(11.0, "one")]}),
            "in two ways: ['a']",
            id="told another",
        ),
        pytest.param(
            replace(SAID, records={**SAID.records, "a": End("job_poisoned", "noon")}),
            "as they should not: ['a job_poisoned']",
            id="an innocent given up",
        ),
        pytest.param(replace(SAID, answers={"p": "RETRY"}), "p succeeded RETRY", id="no answer"),
        pytest.param(
            replace(SAID, records={**SAID.records, "x": WELL}),
            "poison jobs that were not given up",
            id="poison that did well",
        ),
    ],
)
def test_given_what_outsiders_say_then_it_is_in_the_account(said: Said, words: str) -> None:
    assert words in " ".join(drawn_up(said).broken)


def test_given_a_job_that_runs_again_without_a_fault_then_that_is_broken() -> None:
    assert "1 runs more than attempts; 0 were in flight" in " ".join(drawn_up(events=AGAIN).broken)
    assert drawn_up(events=AGAIN, faults=(KILL,)).broken == []


def test_given_a_fault_that_strikes_who_holds_what_another_has_done_then_nothing_waits() -> None:
    events = [
        event(Noted.TAKEN, 1.0, pid=1),
        event(Noted.TAKEN, 5.0, pid=2),
        event(Noted.LEFT, 6.0, pid=2),
    ]
    late, early = (Fault("kill -9", at_s, 0.0, frozenset({1})) for at_s in (7.0, 5.5))
    assert [one.recovery_s for one in recoveries([late], events, {})] == [0.0]
    assert [one.recovery_s for one in recoveries([early], events, {})] == [0.5]


def test_given_a_fault_then_recovery_is_until_its_jobs_are_taken_up_again() -> None:
    (seen,) = recoveries([KILL], AGAIN, {1: 10.6})
    assert (seen.struck, seen.recovery_s) == (frozenset({"a"}), 9.5)
    assert (
        "not taken up again within 9 s"
        in drawn_up(events=AGAIN, faults=(KILL,), recovery_s=9).broken[0]
    )
    started = Event(Noted.READY, "", 0, 2, 19.0)
    alone = [Event(Noted.READY, "", 0, 1, 9.0), *AGAIN[:2], started, *AGAIN[2:]]
    assert recoveries([KILL], alone, {1: 11.0})[0].recovery_s == 1.5, "nobody was there for 8 s"
    (patient,) = recoveries([KILL], AGAIN, {1: 10.6}, frozenset({"a"}))
    assert patient.recovery_s == 0
    down = Fault("restart of Redis", 12.0, 3.0, frozenset())
    assert recoveries([KILL, down], AGAIN, {1: 10.6})[0].recovery_s == 6.5


def test_given_faults_that_overlap_then_their_time_counts_once() -> None:
    faults = [
        Fault("a", 0, 4, frozenset()),
        Fault("b", 1, 2, frozenset()),
        Fault("c", 9, 9, frozenset()),
    ]
    assert lasted_s(faults, 1, 10) == 4


def test_given_a_job_that_three_faults_broke_off_then_it_may_be_given_up() -> None:
    events, faults = [], []
    for pid in (1, 2, 3):
        events += [event(Noted.TAKEN, pid, pid=pid), event(Noted.BEGUN, pid + 0.1, pid=pid)]
        faults.append(Fault("kill -9 of a worker", pid + 0.5, 0.0, frozenset({pid})))
    events += [event(Noted.TAKEN, 9, pid=4), event(Noted.LEFT, 9.1, pid=4)]
    given_up = replace(
        SAID,
        records={**SAID.records, "a": End("job_poisoned", "noon")},
        letters={**SAID.letters, "a": ["job_poisoned"]},
    )
    made = account(
        given_up, events, faults, Processes(deaths={1: 1.6, 2: 2.6, 3: 3.6}), Promises(25)
    )
    assert made.broken == []
    assert made.condemned == 1
    planned = [fault._replace(name="SIGTERM of a worker") for fault in faults]
    made = account(
        given_up, events, planned, Processes(deaths={1: 1.6, 2: 2.6, 3: 3.6}), Promises(25)
    )
    assert "as they should not: ['a job_poisoned']" in made.broken[0]


def test_given_a_process_that_ended_by_itself_then_that_is_broken() -> None:
    made = drawn_up(exits=((1, 1),))
    assert made.last_line.endswith("1 unplanned exits")
    assert "ended by themselves" in made.broken[0]
    fatal = [*RUN, event(Noted.FATAL, 11.5, "x")]
    assert drawn_up(events=fatal, exits=((1, -9),)).unplanned == []
    assert drawn_up(events=fatal, exits=((1, 1),)).unplanned == [(1, 1)]


def test_given_a_power_cut_then_what_its_last_second_cost_is_told_apart() -> None:
    cut = Fault(POWER_CUT, 10.6, 1.0, frozenset())
    gone = replace(
        SAID,
        accepted_s={**SAID.accepted_s, "p": 2.0},
        records={**SAID.records, "a": None, "p": None},
        told={},
    )
    made = drawn_up(gone, faults=(cut,))
    assert (made.lost, made.forgotten) == (["a", "p"], ["a"])
    assert "1 jobs were lost: ['p']" in made.broken[0]
    assert "1 jobs accepted in it were lost" in made.table()
    held = [event(Noted.TAKEN, 10.1)]
    spared = replace(
        gone, records={**gone.records, "p": WELL}, told={k: SAID.told[k] for k in "px"}
    )
    assert drawn_up(spared, held, (cut,)).broken == []
