"""The gate: what a message that no key signed may do, and what it may not."""

import json
import random
from types import SimpleNamespace
from typing import Any

import pytest
from celery.exceptions import Reject, Retry

from producer.contract import CaptionJob, ErrorCode, JobFailed, JobResult, JobState, utcnow
from producer.memory_store import MemoryStore
from producer.signing import Keys, Verifier, new_key
from producer.store import StoreUnavailable
from producer.submission import prepared
from worker.delivery import Delivery
from worker.errors import Fault
from worker.gate import Gate
from worker.publish import Publisher
from worker.tasks import Shell

KEYS = Keys.parse(new_key("a"))
JOB = CaptionJob(job_id="mine", image="https://example.com/cat.jpg")


class FakeTask:
    """A Celery task as the shell sees it."""

    def __init__(self, task_id: str = "celery-id", retries: int = 0) -> None:
        self.request = SimpleNamespace(
            id=task_id,
            retries=retries,
            hostname="captionq@here",
            delivery_info={"routing_key": "celery"},
            headers=None,
        )

    def retry(self, *, exc: Exception, **_: Any) -> Retry:
        return Retry(exc=exc)

    def signature_from_request(self, *_: Any, **__: Any) -> Any:
        raise AssertionError("sent on to another queue")


class House:
    """A shell with a gate, over a memory store. `clock_s` is ahead of the time by as much."""

    def __init__(self, store: Any = None, later_s: float = 0) -> None:
        self.store = store or MemoryStore()
        self.letters: list[dict[str, str]] = []
        self.runs: list[Any] = []
        verifier = Verifier(KEYS, 3_600, lambda: utcnow().timestamp() + later_s)
        self.shell = Shell(
            models=SimpleNamespace(served=(("caption", "tiny"),)),  # type: ignore[arg-type]
            run=self.run,
            run_chunk=self.run,
            store=self.store,
            publisher=Publisher(self.store, patience_s=0.05),
            queues=frozenset({"celery"}),
            patience_s=0.05,
            rng=random.Random(0),
            gate=Gate(verifier, self.store, self.keep, 0.05),
        )

    def keep(self, fields: Any) -> None:
        self.letters.append(dict(fields))

    def run(self, job: Any, delivery: Any = None) -> Any:
        self.runs.append(job)
        raise Fault(ErrorCode.HTTP_4XX, "404")

    def deliver(self, job: Any, kind: str = "caption", task: FakeTask | None = None) -> ErrorCode:
        with pytest.raises(JobFailed) as failure:
            self.shell.execute(task or FakeTask(), kind, (), {"job": job})  # type: ignore[arg-type]
        return failure.value.code

    @property
    def kept(self) -> list[dict[str, str]]:
        return [*self.letters, *self.store.letters]


def wire(job: Any) -> Any:
    return json.loads(job.model_dump_json())


FORGED = wire(JOB)


def test_given_a_genuine_job_then_it_runs() -> None:
    house = House()
    assert house.deliver(wire(prepared(JOB, KEYS))) is ErrorCode.HTTP_4XX
    assert [job.job_id for job in house.runs] == ["mine"]
    assert house.kept == []


def test_given_a_genuine_job_as_json_text_then_it_runs() -> None:
    house = House()
    assert house.deliver(prepared(JOB, KEYS).model_dump_json()) is ErrorCode.HTTP_4XX
    assert len(house.runs) == 1


def test_given_a_genuine_job_whose_numbers_are_spelled_anew_then_it_runs_as_it_was_signed() -> None:
    """Which is the same to RFC 8785, but 3.0 would be no number of beams."""
    house = House()
    came = wire(prepared(JOB, KEYS))
    came["options"]["num_beams"] = 3.0
    assert house.deliver(came) is ErrorCode.HTTP_4XX
    assert [job.options.num_beams for job in house.runs] == [3]


def test_given_an_unsigned_job_of_an_id_that_nobody_knows_then_the_id_stays_free() -> None:
    """Else a forger could take the ids of jobs that are yet to be submitted."""
    house = House()
    assert house.deliver(FORGED) is ErrorCode.SIGNATURE_INVALID
    assert house.store.get("mine") is None
    (letter,) = house.letters
    assert (letter["job_id"], letter["code"]) == ("mine", "signature_invalid")
    assert letter["reason"] == "it is not signed"
    assert json.loads(letter["job"]) == FORGED
    assert house.store.create(prepared(JOB, KEYS)) is None
    assert house.runs == []


@pytest.mark.parametrize("running", [False, True])
def test_given_a_forged_message_under_a_genuine_jobs_id_then_that_job_is_not_touched(
    running: bool,
) -> None:
    house = House()
    genuine = prepared(JOB, KEYS)
    house.store.create(genuine)
    if running:
        house.store.start("mine", "caption", 1, "worker@host")
    before = house.store.get("mine")
    altered = wire(genuine) | {"image": "https://example.com/dog.jpg"}
    for forged in (FORGED, altered, altered | {"signature": 5}):
        assert house.deliver(forged) is ErrorCode.SIGNATURE_INVALID
    assert house.deliver(wire(genuine), "match") is ErrorCode.SIGNATURE_INVALID
    assert house.store.get("mine") == before
    assert len(house.letters) == 4
    assert house.runs == []


def test_given_a_forged_message_under_the_id_of_a_plain_celery_clients_job_then_it_goes_on() -> (
    None
):
    house = House()
    house.store.start("mine", "caption", 1, "worker@host")
    before = house.store.get("mine")
    house.deliver(FORGED)
    assert house.store.get("mine") == before


def test_given_a_forged_message_of_a_job_that_has_ended_then_its_result_is_kept() -> None:
    house = House()
    end = JobResult(
        job_id="mine", task="caption", state=JobState.SUCCEEDED, attempts=1, finished_at=utcnow()
    )
    house.store.finish(end)
    assert house.deliver(FORGED) is ErrorCode.SIGNATURE_INVALID
    assert house.store.get("mine").result == end
    assert len(house.letters) == 1


@pytest.mark.parametrize(
    ("recorded", "later_s", "reason"),
    [
        pytest.param(JOB, 0, "it is not signed", id="without a key"),
        pytest.param(
            prepared(JOB, Keys.parse(new_key("b"))), 0, "signed with b", id="an unknown key"
        ),
        pytest.param(prepared(JOB, KEYS), 3_700, " s ago", id="too long ago"),
    ],
)
def test_given_a_job_that_was_submitted_so_that_no_worker_runs_it_then_it_ends_as_that(
    recorded: Any, later_s: float, reason: str
) -> None:
    """Who waits for it is told, and the reconciler does not send it for ever."""
    house = House(later_s=later_s)
    house.store.create(recorded)
    task = FakeTask(retries=1)
    assert house.deliver(wire(recorded), task=task) is ErrorCode.SIGNATURE_INVALID
    result = house.store.get("mine").result
    assert (result.state, result.error.code) == (JobState.FAILED, ErrorCode.SIGNATURE_INVALID)
    assert result.attempts == 1
    assert result.image_ref == JOB.image
    (letter,) = house.kept
    assert reason in letter["reason"]
    assert house.deliver(wire(recorded)) is ErrorCode.SIGNATURE_INVALID
    assert len(house.kept) == 2


@pytest.mark.parametrize("expired", [False, True])
def test_given_a_forged_message_that_celery_drops_then_the_job_whose_id_it_names_goes_on(
    expired: bool,
) -> None:
    """An `expires` in the past is enough to be dropped, and anybody can write that."""
    house = House()
    genuine = prepared(JOB, KEYS)
    house.store.create(genuine)
    before = house.store.get("mine")

    def dropped(job: Any) -> None:
        delivery = Delivery.of(FakeTask().request, (), {"job": job})
        house.shell.revoked("caption", delivery, expired)

    dropped(FORGED)
    assert house.store.get("mine") == before
    assert len(house.letters) == 1
    dropped(wire(genuine))
    assert house.store.get("mine").state.terminal


class AbsentStore(MemoryStore):
    """A store that cannot be reached so many times."""

    def __init__(self, failures: int) -> None:
        super().__init__()
        self.failures = failures

    def get(self, job_id: str) -> Any:
        self.failures -= 1
        if self.failures >= 0:
            raise StoreUnavailable("away")
        return super().get(job_id)


def test_given_no_store_when_a_message_is_refused_then_it_goes_back_and_nothing_is_remembered() -> (
    None
):
    house = House(AbsentStore(failures=99))
    house.store.create(genuine := prepared(JOB, KEYS))
    with pytest.raises(Reject) as rejected:
        house.shell.execute(FakeTask(), "caption", (), {"job": FORGED})  # type: ignore[arg-type]
    assert rejected.value.requeue
    house.store.failures = 0
    assert house.deliver(wire(genuine)) is ErrorCode.HTTP_4XX
    assert len(house.runs) == 1


def test_given_no_store_for_a_moment_then_what_is_refused_is_kept_all_the_same() -> None:
    house = House(AbsentStore(failures=1))
    assert house.deliver(FORGED) is ErrorCode.SIGNATURE_INVALID
    assert len(house.letters) == 1


class UnreadableStore(MemoryStore):
    """A store whose records others wrote."""

    def get(self, job_id: str) -> Any:
        raise ValueError("1 validation error for Record")


def test_given_a_record_that_cannot_be_read_then_the_message_is_refused_all_the_same() -> None:
    house = House(UnreadableStore())
    assert house.deliver(FORGED) is ErrorCode.SIGNATURE_INVALID
    assert len(house.letters) == 1


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param({"job_id": "mine", "at": utcnow()}, id="a moment, by kombu"),
        pytest.param({"image": "\ud83d"}, id="half a character"),
        pytest.param("[" * 100_000, id="nesting as text"),
        pytest.param(None, id="nothing"),
    ],
)
@pytest.mark.parametrize("task_id", ["celery-id", "half a pair: \ud83d", ""])
def test_given_whatever_strangers_write_then_it_is_refused_and_can_be_kept(
    payload: Any, task_id: str
) -> None:
    house = House()
    assert house.deliver(payload, task=FakeTask(task_id)) is ErrorCode.SIGNATURE_INVALID
    (letter,) = house.letters
    assert all(isinstance(text, str) and text.encode() for text in letter.values() if text)
