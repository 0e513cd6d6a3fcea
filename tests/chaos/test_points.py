"""A worker killed between any two steps: no job lost, none doubled, every callback heard."""

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from producer import Client
from tests.chaos.fates import Errand, Fate, Kind, Sender, Source
from tests.chaos.killpoints import POINTS
from tests.chaos.ledger import Kind as Noted
from tests.chaos.outsiders import Receiver, ends_of, records_of
from tests.chaos.run import left_in
from tests.chaos.world import World

VISIBILITY_S = 2.0


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One worker, which dies where the file `plan` says."""
    folder = tmp_path_factory.mktemp("points")
    settings = {"CAPTIONQ_RECONCILE_EVERY_S": "0", "CHAOS_KILL_PLAN": str(folder / "plan")}
    with World(
        folder, workers=1, fsync="always", visibility_s=VISIBILITY_S, settings=settings, threads=4
    ) as world:
        yield world


@pytest.mark.parametrize("point", POINTS)
def test_given_a_worker_killed_between_two_steps_then_every_job_ends_once(
    world: World, point: str
) -> None:
    """The worker that takes up what the killed one left is the next one to be killed."""
    (worker,) = world.workers
    errands = [
        Errand(
            f"{point.replace(':', '-')}-{n}", Fate(kind, 5), source, Sender.CLIENT, callback=True
        )
        for n, (kind, source) in enumerate(
            [(Kind.NORMAL, Source.FILE)] * 9 + [(Kind.BUSY, Source.HTTP)]
        )
    ]
    plan = Path(worker.environment["CHAOS_KILL_PLAN"])
    world.ledger.news()
    receiver = Receiver(world.redis.url)
    time.sleep(0.3)
    try:
        plan.write_text(f"{point} {1 if 'retry' in point else 3}")
        with Client(world.redis.url) as client:
            client.submit_many([one.job(world.places) for one in errands])
        worker.look_after()
        assert worker.process is not None
        assert worker.process.wait(30) == -9, "it did not come to this point"
        plan.unlink()
        worker.look_after()
        ids = [one.job_id for one in errands]
        until_s = time.monotonic() + 30
        ends = {}
        while time.monotonic() < until_s and (
            set(ends.values()) != {"succeeded"} or left_in(world.redis.url)
        ):
            time.sleep(0.05)
            ends = ends_of(world.redis.url, ids)
    finally:
        plan.unlink(missing_ok=True)
        receiver.close()
    assert ends == dict.fromkeys(ids, "succeeded")
    assert left_in(world.redis.url) == 0
    assert receiver.received == Counter(ids)
    records, heard = records_of(world.redis.url, ids), world.hooks.heard
    for job_id in ids:
        (call,) = set(heard[job_id])
        assert call.finished_at == records[job_id].finished_at  # type: ignore[union-attr]
    events = world.ledger.news()
    assert worker.pid in {e.pid for e in events}, "the next one has taken up what was left"
    runs = [(e.job_id, e.attempt) for e in events if e.kind is Noted.BEGUN]
    assert len(runs) - len(set(runs)) <= 4, "no more run again than were in flight"
