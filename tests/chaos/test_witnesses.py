"""What could be broken in silence is in the account: each case passes where nobody looks for it."""

import subprocess
import sys
from dataclasses import replace
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from tests.chaos.faults import KILL, S3_DOWN, SIGTERM, SIGTERM_TWICE, Fault, happen
from tests.chaos.hooks import Call
from tests.chaos.ledger import Event
from tests.chaos.ledger import Kind as Noted
from tests.chaos.processes import Processes, deaf, overdue, unplanned
from tests.chaos.recovery import recoveries
from tests.chaos.runs import hits, holds, unexplained
from tests.chaos.test_account import RUN, SAID, A, drawn_up, event
from tests.chaos.testimony import Testimony as Said
from tests.chaos.world import wait

CALLED = replace(A, callback=True)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        pytest.param(replace(SAID, letters={}), "['x []']", id="given up without a letter"),
        pytest.param(
            replace(SAID, letters={"x": ["job_poisoned"] * 2}), "dead letters", id="two letters"
        ),
        pytest.param(
            replace(SAID, letters={**SAID.letters, "a": ["internal_error"]}),
            "a ['internal_error']",
            id="a letter for a job that did well",
        ),
        pytest.param(
            replace(SAID, letters={**SAID.letters, "": ["job_invalid"]}),
            "no job ['job_invalid']",
            id="a message taken for malformed",
        ),
        pytest.param(
            replace(SAID, left={"captionq.inflight": 2}), "'captionq.inflight': 2", id="left over"
        ),
        pytest.param(
            replace(SAID, accepted={**SAID.accepted, "a": CALLED}),
            "1 callbacks never came: ['a']",
            id="a receiver that hears nothing",
        ),
        pytest.param(
            replace(
                SAID,
                accepted={**SAID.accepted, "a": CALLED},
                heard={"a": [Call("msg_1", "one")]},
            ),
            "1 callbacks never came: ['a']",
            id="a receiver that hears of another end",
        ),
        pytest.param(
            replace(
                SAID,
                accepted={**SAID.accepted, "a": CALLED},
                heard={"a": [Call("msg_1", "noon"), Call("msg_2", "noon")]},
            ),
            "several ids, of another end, or unasked: ['a']",
            id="one end under two ids",
        ),
        pytest.param(
            replace(SAID, heard={"a": [Call("msg_1", "noon")]}),
            "several ids, of another end, or unasked: ['a']",
            id="a callback that nobody asked for",
        ),
        pytest.param(replace(SAID, told={}), "too little to bear witness", id="a deaf listener"),
        pytest.param(
            replace(
                SAID,
                accepted={"a": A, "x": SAID.accepted["x"]},
                records={k: v for k, v in SAID.records.items() if k != "p"},
            ),
            "2 of 3 jobs were sent",
            id="a producer that gave up",
        ),
    ],
)
def test_given_witnesses_who_are_missing_or_disagree_then_that_is_broken(
    said: Said, words: str
) -> None:
    assert words in " ".join(drawn_up(said).broken)


def test_given_a_callback_that_came_twice_under_one_id_then_nothing_is_broken() -> None:
    said = replace(
        SAID,
        accepted={**SAID.accepted, "a": CALLED},
        heard={"a": [Call("msg_1", "noon")] * 2},
    )
    assert drawn_up(said).broken == []


def again(job_id: str, pid: int, at_s: float) -> list[Event]:
    return [
        event(Noted.TAKEN, at_s, job_id, pid),
        event(Noted.BEGUN, at_s + 0.1, job_id, pid),
        event(Noted.LEFT, at_s + 0.5, job_id, pid),
    ]


def test_given_a_job_that_no_fault_struck_then_what_others_suffer_is_no_excuse() -> None:
    kill = Fault(KILL, 10.2, 0.0, frozenset({1}))
    events = sorted(
        [event(Noted.TAKEN, 10.0, "p"), *again("a", 2, 10.0), *again("a", 2, 20.0)],
        key=lambda one: one.at_s,
    )
    deaths = {1: 10.3}
    struck = hits([kill], holds(events, deaths))
    assert struck == {"p": 1}
    assert unexplained(SAID.accepted, events, struck, {}) == ["a 2 times, struck by 0"]
    assert unexplained(SAID.accepted, events, struck, {"a": 1}) == []
    made = drawn_up(events=events, faults=(kill,))
    assert made.executions - made.attempts <= made.again_allowed, "the sum alone sees nothing"
    assert "jobs ran more often" in " ".join(made.broken)


def test_given_a_job_tried_again_for_no_reason_then_another_attempt_is_no_excuse() -> None:
    second = [replace(one, attempt=2) for one in again("a", 1, 12.0)]
    events = [*again("a", 1, 10.0), *second]
    assert unexplained(SAID.accepted, events, {}, {}) == ["a 2 times, struck by 0"]


def test_given_what_is_taken_while_a_fault_lasts_then_it_is_struck_too() -> None:
    full = Fault("Redis full", 10.0, 5.0, frozenset())
    assert hits([full], holds(again("a", 1, 14.0), {})) == {"a": 1}
    assert hits([full], holds(again("a", 1, 17.0), {})) == {}


@pytest.mark.parametrize(
    ("name", "status", "planned"),
    [
        (KILL, -9, True),
        (KILL, 1, False),
        (SIGTERM, 0, True),
        (SIGTERM, 1, False),
        (SIGTERM, 70, False),
        (SIGTERM, -15, False),
        (SIGTERM_TWICE, 0, True),
        (SIGTERM_TWICE, -11, False),
    ],
)
def test_given_a_process_told_to_end_then_its_status_says_whether_it_did_so(
    name: str, status: int, planned: bool
) -> None:
    exits = [(1, status)]
    assert unplanned(exits, [Fault(name, 10.5, 0.0, frozenset({1}))], RUN) == (
        [] if planned else exits
    )


def test_given_a_process_that_does_not_end_then_that_is_broken() -> None:
    term = Fault(SIGTERM, 10.0, 0.0, frozenset({1}))
    assert overdue([term], [], Processes(deaths={1: 45.0}, until_s=300)) == []
    assert overdue([term], [], Processes(deaths={1: 55.0}, until_s=300)) == [
        "1 SIGTERM of a worker: 45 s"
    ]
    assert overdue([term], [], Processes(until_s=300)) == ["1 SIGTERM of a worker: not 290 s"]
    frozen = Fault("SIGSTOP of a worker", 20.0, 26.0, frozenset({1}))
    assert overdue([term, frozen], [], Processes(deaths={1: 55.0}, until_s=300)) == []
    hangs = [event(Noted.FATAL, 10.0, "stuck_device 5 1 1", 3)]
    assert overdue([], hangs, Processes(deaths={3: 15.0}, until_s=300)) == []
    assert overdue([], hangs, Processes(until_s=300)) == ["3 fatal: not 290 s"]


def test_given_a_process_that_takes_nothing_while_jobs_are_sent_then_it_is_deaf() -> None:
    sent_s = [n / 10 for n in range(1_000)]
    busy = [event(Noted.TAKEN, float(n), f"job {n}", 1) for n in range(100)]
    processes = Processes(births={1: 0.0, 2: 0.0}, until_s=200)
    last_words = [event(Noted.TAKEN, 30.0, "last", 2)]
    restart = Fault("restart of Redis", 31.0, 5.0, frozenset())
    assert deaf([restart], busy + last_words, processes, sent_s, 35) == [
        "2 took none of 699 jobs for 65 s"
    ]
    ended = replace(processes, deaths={2: 50.0})
    assert deaf([restart], busy + last_words, ended, sent_s, 35) == []
    term = Fault(SIGTERM, 32.0, 0.0, frozenset({2}))
    assert deaf([restart, term], busy + last_words, processes, sent_s, 35) == []
    assert deaf([restart], busy + last_words, processes, sent_s[::20], 35) == [], "too few sent"


def test_given_a_job_whose_run_ends_while_redis_is_down_then_it_has_not_recovered_by_that() -> None:
    down = Fault("kill -9 of Redis", 10.5, 1.0, frozenset())
    events = [*RUN[:2], event(Noted.ENDED, 10.6)]
    (seen,) = recoveries([down], [*events, event(Noted.LEFT, 45.0)], {})
    assert seen.recovery_s == 33.5
    returned = [*events, event(Noted.RETURNED, 12.0), event(Noted.TAKEN, 40.0, pid=2)]
    (seen,) = recoveries([down], returned, {})
    assert seen.recovery_s == 28.5


def test_given_s3_down_then_it_touches_all_workers() -> None:
    refused: list[bool] = []
    world: Any = SimpleNamespace(s3=SimpleNamespace(refuse=refused.append))
    worker: Any = SimpleNamespace(pid=1)
    assert happen(world, worker, Random(1), S3_DOWN, 0.01).pids == frozenset()
    assert refused == [True, False]


def test_given_a_worker_that_has_ended_then_nobody_waits_for_what_it_was_to_do() -> None:
    worker: Any = SimpleNamespace(name="one", process=subprocess.Popen([sys.executable, "-c", ""]))
    with pytest.raises(RuntimeError, match="one has ended with status 0"):
        wait([worker], lambda: False, 30)
    with pytest.raises(RuntimeError, match="still not done"):
        wait([], lambda: False, 0.01)
    wait([], lambda: True)
