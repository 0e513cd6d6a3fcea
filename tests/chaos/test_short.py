"""The short form of the survival run; `make chaos` is the long one."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def chaos(*words: str, timeout_s: float = 170) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "tests.chaos", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )


@pytest.mark.timeout(420)
def test_given_twenty_kills_of_workers_and_five_restarts_of_redis_then_no_promise_is_broken() -> (
    None
):
    done = chaos("run", "--short", timeout_s=400)  # 60 s alone, more on a busy machine
    said = f"{done.stderr[-3_000:]}\n{done.stdout}"
    assert done.returncode == 0, said
    *_, last = done.stdout.splitlines()
    assert last.startswith("2000 jobs: 0 lost, 0 doubled, "), said
    assert last.endswith(", 0 unplanned exits"), said
    times = {line[:22].strip(): line[22:].split() for line in done.stdout.splitlines()}
    kills, struck = map(int, times["kill -9 of a worker"][:2])
    assert kills >= 20, said
    assert struck >= kills, "workers were killed while they were at work"
    assert int(times["kill -9 of Redis"][0]) + int(times["restart of Redis"][0]) >= 5, said


@pytest.mark.parametrize("words", [[], ["run"], ["kills"], ["soak"], ["overhead"], ["reconcile"]])
def test_every_command_says_what_it_does(words: list[str]) -> None:
    done = chaos(*words, "--help")
    assert done.returncode == 0
    assert "usage: python -m tests.chaos" in done.stdout


def test_given_many_open_jobs_then_a_pass_of_the_reconciler_is_cheap() -> None:
    done = chaos("reconcile", "--records", "20000")
    assert done.returncode == 0, done.stdout
    assert "sent again: ['lost']" in done.stdout
