"""Messages that say no more of their job than where it is recorded."""

import json
from typing import Any

import pytest
from celery.exceptions import Reject, Retry

from producer.contract import CaptionChunk, CaptionJob, ErrorCode, JobFailed, JobState, MatchChunk
from producer.memory_store import MemoryStore
from producer.signing import Keys, Verifier, new_key
from producer.store import StoreUnavailable
from producer.submission import cancellation, prepared
from producer.wire import WireJob
from tests.unit.test_tasks import FakeTask, House
from worker.chunk import GoesBack, TryAgain
from worker.delivery import Delivery
from worker.gate import Gate
from worker.tasks import Shell

KEYS = Keys.parse(new_key("here"))
CHUNK = MatchChunk(
    job_id="mine", images=("https://example.com/1.png?k=5ecret", "s3://b/c"), texts=("a cat",)
)
POINTER = {"job": {"recorded": "mine"}}


def bulk(retries: int = 0) -> FakeTask:
    return FakeTask(retries, queue="captionq.match.bulk")


def deliver(house: House, task: FakeTask | None = None, job: Any = None) -> Any:
    kwargs = {"job": job} if job else POINTER
    return house.shell.execute(task or bulk(), "match_chunk", (), kwargs)  # type: ignore[arg-type]


def test_given_a_recorded_chunk_then_it_runs_under_its_own_id() -> None:
    house = House(None)
    house.store.create(CHUNK)
    result = deliver(house)
    assert (result["job_id"], result["state"]) == ("mine", "succeeded")
    assert [item["index"] for item in result["items"]] == [0, 1]


def test_given_a_chunk_then_its_message_says_where_it_is_and_a_jobs_message_says_all() -> None:
    assert WireJob.of(CHUNK).message == {"recorded": "mine"}
    job = CaptionJob(job_id="one", image="s3://b/c")
    assert WireJob.of(job).message == job.model_dump(mode="json")


def test_given_a_chunk_then_neither_messages_nor_results_show_what_is_secret_in_its_urls() -> None:
    house, task = House(TryAgain(ErrorCode.HTTP_5XX, 7.0, "1 of 2")), bulk()
    house.store.create(CHUNK)
    with pytest.raises(Retry):
        deliver(house, task)
    assert "2 images from https://example.com/1.png" in repr(task.options)
    assert "5ecret" not in repr(task.options) + WireJob.of(CHUNK).shown
    record = house.store.get("mine")
    assert cancellation(record).image_ref == "2 images from https://example.com/1.png"


def test_given_images_left_then_the_message_is_sent_again_when_they_are_due() -> None:
    house, task = House(TryAgain(ErrorCode.HTTP_5XX, 7.0, "1 of 2"), None), bulk()
    house.store.create(CHUNK)
    with pytest.raises(Retry):
        deliver(house, task)
    assert task.retried == [7.0]
    assert deliver(house, bulk(task.request.retries))["state"] == "succeeded"


def test_given_a_process_that_ends_then_the_message_goes_back_and_was_not_delivered() -> None:
    house = House(GoesBack())
    house.store.create(CHUNK)
    with pytest.raises(Reject) as rejected:
        deliver(house)
    assert rejected.value.requeue
    record = house.store.get("mine")
    assert (record.state, record.history) == (JobState.QUEUED, ())


@pytest.mark.parametrize("retries", [0, 2])
def test_given_a_record_that_is_gone_then_the_job_ends_as_expired(retries: int) -> None:
    house = House()
    with pytest.raises(JobFailed) as failure:
        deliver(house, bulk(retries))
    assert failure.value.code is ErrorCode.JOB_EXPIRED
    result = house.store.get("mine").result
    assert (result.error.code, result.attempts) == (ErrorCode.JOB_EXPIRED, retries)
    assert house.store.letters == []


def test_given_a_record_without_a_job_then_the_message_is_invalid() -> None:
    house = House()
    house.store.start("mine", "match_chunk", 1, "theirs")
    with pytest.raises(JobFailed) as failure:
        deliver(house)
    assert failure.value.code is ErrorCode.JOB_INVALID


def test_given_a_message_with_more_than_where_its_job_is_then_that_is_not_looked_up() -> None:
    house = House()
    house.store.create(CHUNK)
    with pytest.raises(JobFailed) as failure:
        deliver(house, job={"recorded": "mine", "texts": ["a dog"]})
    assert failure.value.code is ErrorCode.JOB_INVALID
    assert house.store.get("mine").state is JobState.QUEUED


class Away(MemoryStore):
    def get(self, job_id: str) -> Any:
        raise StoreUnavailable("away")


def test_given_no_store_then_the_message_goes_back() -> None:
    with pytest.raises(Reject) as rejected:
        deliver(House(store=Away()))
    assert rejected.value.requeue


def test_given_a_chunk_that_is_given_up_then_its_letter_holds_the_whole_job() -> None:
    house = House(JobFailed(ErrorCode.JOB_POISONED))
    house.store.create(CHUNK)
    with pytest.raises(JobFailed):
        deliver(house)
    (letter,) = house.store.letters
    assert json.loads(letter["job"])["images"] == list(CHUNK.images)


@pytest.mark.parametrize(("expired", "state"), [(True, JobState.FAILED), (False, "cancelled")])
def test_given_a_message_that_celery_dropped_then_its_chunk_has_ended(
    expired: bool, state: str
) -> None:
    house = House()
    house.store.create(CHUNK)
    delivery = Delivery.of(FakeTask().request, (), POINTER)
    house.shell.revoked("match_chunk", delivery, expired)
    result = house.store.get("mine").result
    assert result.state == state
    assert result.image_ref == "2 images from https://example.com/1.png"


# Where jobs have to be signed


class Guarded(House):
    def __init__(self, *outcomes: Any) -> None:
        super().__init__(*outcomes)
        self.kept: list[Any] = []
        gate = Gate(Verifier(KEYS), self.store, self.kept.append, 0.05)
        fields = ("models", "run", "run_chunk", "store", "publisher", "queues", "patience_s", "rng")
        self.shell = Shell(**{name: getattr(self.shell, name) for name in fields}, gate=gate)


def test_given_keys_then_a_signed_chunk_is_read_from_its_record_and_runs() -> None:
    house = Guarded(None)
    house.store.create(prepared(CHUNK, KEYS))
    assert deliver(house)["state"] == "succeeded"


@pytest.mark.parametrize(
    "recorded",
    [
        pytest.param(CHUNK, id="unsigned"),
        pytest.param(
            prepared(CHUNK, KEYS).model_copy(update={"images": ("s3://b/other",)}), id="changed"
        ),
        pytest.param(prepared(CaptionChunk(job_id="mine", images=("s3://b/c",)), KEYS), id="task"),
    ],
)
def test_given_keys_and_a_record_that_none_of_them_signed_then_it_does_not_run(
    recorded: Any,
) -> None:
    house = Guarded(None)
    house.store.create(recorded)
    with pytest.raises(JobFailed) as failure:
        deliver(house)
    assert failure.value.code is ErrorCode.SIGNATURE_INVALID
    assert house.runs == 0


def test_given_keys_and_no_record_then_the_id_stays_free() -> None:
    house = Guarded()
    with pytest.raises(JobFailed) as failure:
        deliver(house)
    assert failure.value.code is ErrorCode.JOB_EXPIRED
    assert house.store.get("mine") is None


def test_given_keys_and_the_record_of_a_plain_clients_job_then_a_forged_message_ends_it_not() -> (
    None
):
    house = Guarded()
    house.store.start("mine", "match_chunk", 1, "theirs")
    with pytest.raises(JobFailed) as failure:
        deliver(house)
    assert failure.value.code is ErrorCode.SIGNATURE_INVALID
    assert house.store.get("mine").state is JobState.RUNNING
    assert len(house.kept) == 1
