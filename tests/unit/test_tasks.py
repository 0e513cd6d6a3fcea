"""The task shell, delivery by delivery: what is stored, what is raised, what is run again."""

import json
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from celery.exceptions import Ignore, Reject, Retry

from producer.contract import (
    CaptionJob,
    ErrorCode,
    ImageFacts,
    JobFailed,
    JobResult,
    JobState,
    Match,
    ModelFacts,
    Timings,
    utcnow,
)
from producer.embedded import RedisServer
from producer.memory_store import MemoryStore
from producer.redis_store import RedisStore
from producer.store import StoreUnavailable
from tests.stand_in_worker import succeeded
from worker.answer import Answer
from worker.delivery import BOUNCES, Delivery
from worker.errors import Fault
from worker.pipeline import Product
from worker.publish import Publisher
from worker.sink import Sinks
from worker.tasks import Shell

IMAGE = "https://example.com/cat.jpg"
FACTS = ImageFacts(format="PNG", width=4, height=3, bytes=99, sha256="0" * 64)
MATCH = Match(text="a cat", itm_probability=0.5, itm_logit=0.0, itc_cosine=0.1)


class FakeTask:
    """A Celery task as the shell sees it: a request, retry and signature_from_request."""

    def __init__(
        self,
        retries: Any = 0,
        queue: str | None = "celery",
        headers: dict[str, Any] | None = None,
        broker_away: bool = False,
    ) -> None:
        self.request = SimpleNamespace(
            id="celery-id",
            retries=retries,
            hostname="captionq@here",
            delivery_info={"routing_key": queue},
            headers=headers,
        )
        self.retried: list[float] = []
        self.options: dict[str, Any] = {}
        self.sent_on: list[str] = []
        self.broker_away = broker_away

    def retry(self, *, countdown: float, throw: bool, exc: Exception, **options: Any) -> Retry:
        assert not throw
        if self.broker_away:
            raise Reject("away", requeue=False)  # as Celery does
        self.request.retries += 1  # as Celery does: a TypeError where it is no number
        self.retried.append(countdown)
        self.options = options
        return Retry(exc=exc)

    def again(self) -> "FakeTask":
        """The delivery that follows a retry."""
        return FakeTask(self.request.retries, headers=self.options["headers"])

    def signature_from_request(self, request: Any, queue: str) -> Any:
        return SimpleNamespace(apply_async=lambda: self.sent_on.append(queue))


class FakeModels:
    served = (("match", "tiny"),)

    def facts_of(self, job: Any) -> dict[str, ModelFacts]:
        return {"model": ModelFacts(id="tiny", revision="1", dtype="float32")}


class House:
    """A shell over a memory store and a scripted pipeline."""

    def __init__(self, *outcomes: Any, store: Any = None) -> None:
        self.outcomes = list(outcomes)
        self.runs = 0
        self.store = store or MemoryStore()
        self.shell = Shell(
            models=FakeModels(),  # type: ignore[arg-type]
            run=self.run,
            run_chunk=self.run_chunk,
            store=self.store,
            publisher=Publisher(self.store, patience_s=0.05),
            queues=frozenset({"celery", "captionq.match", "captionq.match.bulk"}),
            patience_s=0.05,
            rng=random.Random(0),
        )

    def run(self, job: Any) -> Product:
        self.runs += 1
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, BaseException):
            raise outcome
        if callable(outcome):
            outcome()
        return Product(Answer(matches=(MATCH,)), FACTS, Timings(fetch_ms=1.0))

    def run_chunk(self, chunk: Any, delivery: Delivery) -> JobResult:
        self.runs += 1
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, BaseException):
            raise outcome
        return succeeded(chunk)

    def deliver(self, task: FakeTask | None = None, **fields: Any) -> Any:
        job = {"image": IMAGE, "texts": ["a cat"]} | fields
        return self.shell.execute(task or FakeTask(), "match", (), {"job": job})  # type: ignore[arg-type]


def test_given_samples_whose_maps_are_written_then_another_try_draws_the_same(
    tmp_path: Path,
) -> None:
    sink = f"{tmp_path.as_uri()}/"
    seeds: list[int | None] = []

    def run(job: Any) -> Product:
        seeds.append(job.options.seed)
        if len(seeds) == 1:
            raise Fault(ErrorCode.SINK_UNAVAILABLE, "full")
        return Product(Answer(captions=()), FACTS, Timings())

    def deliver(task: FakeTask, job_id: str, **options: Any) -> None:
        asked = {"do_sample": True, "num_beams": 1, **options}
        job = {"job_id": job_id, "image": IMAGE, "options": asked, "explain": {"sink": sink}}
        shell.execute(task, "caption", (), {"job": job})  # type: ignore[arg-type]

    models = FakeModels()
    models.served = (("caption", "tiny"),)
    shell = replace(House().shell, models=models, run=run, sinks=Sinks([sink], 5))  # type: ignore[arg-type]
    first = FakeTask()
    with pytest.raises(Retry):
        deliver(first, "a")
    deliver(first.again(), "a")
    deliver(FakeTask(), "b")
    deliver(FakeTask(), "c", seed=7)
    assert seeds[0] == seeds[1]
    assert len({None, *seeds[1:]}) == 4
    assert seeds[3] == 7


def test_given_a_job_without_an_id_when_it_runs_it_takes_celerys() -> None:
    house = House(None)
    result = house.deliver()
    assert result["job_id"] == "celery-id"
    assert result["state"] == "succeeded"
    assert result["matches"][0]["text"] == "a cat"
    assert result["attempts"] == 1
    record = house.store.get("celery-id")
    assert record is not None
    assert record.state is JobState.SUCCEEDED


def test_given_a_positional_job_it_runs_all_the_same() -> None:
    house = House(None)
    job = {"image": IMAGE, "texts": ["a cat"], "job_id": "mine"}
    result = house.shell.execute(FakeTask(), "match", (job,), {})  # type: ignore[arg-type]
    assert result["job_id"] == "mine"


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        pytest.param((), {}, id="no job"),
        pytest.param((), {"task": {}}, id="another keyword"),
        pytest.param(({"image": IMAGE, "texts": ["a"]}, 1), {}, id="two positionals"),
        pytest.param((["image"],), {}, id="a list"),
        pytest.param(({"image": IMAGE, "texts": ["a"]},), {"job": {}}, id="both ways"),
        pytest.param(({"image": IMAGE, "texts": []},), {}, id="no texts"),
        pytest.param(({"image": "gopher://a/b", "texts": ["a"]},), {}, id="another scheme"),
        pytest.param(({"image": IMAGE, "texts": ["a"], "x": 1},), {}, id="unknown field"),
    ],
)
def test_given_a_message_that_is_no_job_it_fails_as_invalid_and_is_stored(
    args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    house = House()
    with pytest.raises(JobFailed) as failure:
        house.shell.execute(FakeTask(), "match", args, kwargs)  # type: ignore[arg-type]
    assert failure.value.code is ErrorCode.JOB_INVALID
    record = house.store.get("celery-id")
    assert record is not None
    assert record.state is JobState.FAILED


def test_given_a_finished_job_when_it_is_delivered_again_its_result_returns_unrun() -> None:
    house = House(None)
    first = house.deliver(job_id="mine")
    assert house.deliver(job_id="mine") == first
    assert house.runs == 1


def test_given_a_cancelled_job_when_it_is_delivered_it_fails_as_cancelled_unrun() -> None:
    from producer.submission import cancellation

    house = House()
    job = CaptionJob(image=IMAGE, job_id="mine")
    house.store.create(job)
    house.store.finish(cancellation(house.store.get("mine")))
    with pytest.raises(JobFailed) as failure:
        house.deliver(job_id="mine")
    assert failure.value.code is ErrorCode.JOB_CANCELLED
    assert house.runs == 0


def test_given_a_job_cancelled_while_it_runs_the_cancellation_is_kept() -> None:
    from producer.submission import cancellation

    house = House(lambda: house.store.finish(cancellation(house.store.get("mine"))))
    with pytest.raises(JobFailed) as failure:
        house.deliver(job_id="mine")
    assert failure.value.code is ErrorCode.JOB_CANCELLED


@pytest.mark.parametrize(
    ("expired", "state", "code"),
    [
        pytest.param(False, JobState.CANCELLED, ErrorCode.JOB_CANCELLED, id="revoked"),
        pytest.param(True, JobState.FAILED, ErrorCode.JOB_EXPIRED, id="expired"),
    ],
)
def test_given_a_message_that_celery_dropped_its_job_has_ended(
    expired: bool, state: JobState, code: ErrorCode
) -> None:
    house = House()
    job = CaptionJob(image=IMAGE, job_id="mine")
    house.store.create(job)
    delivery = Delivery.of(FakeTask().request, (), {"job": job.model_dump(mode="json")})
    house.shell.revoked("caption", delivery, expired)
    result = house.store.get("mine").result
    assert (result.state, result.error.code, result.attempts) == (state, code, 0)


def test_given_a_job_that_has_ended_when_its_message_is_dropped_its_result_is_kept() -> None:
    house = House(None)
    house.deliver()
    delivery = Delivery.of(FakeTask().request, ({"image": IMAGE},), {})
    house.shell.revoked("match", delivery, False)
    assert house.store.get("celery-id").state is JobState.SUCCEEDED


def test_given_no_store_when_a_message_is_dropped_celery_goes_on() -> None:
    house = House(store=FlakyStore(failures=1))
    house.shell.revoked("match", Delivery.of(FakeTask().request, (), {}), False)


def test_given_a_transient_fault_the_job_is_retried_twice_and_then_fails() -> None:
    house = House(*[Fault(ErrorCode.HTTP_5XX, "503", retry_after_s=9.0) for _ in range(3)])
    for retries in (0, 1):
        task = FakeTask(retries)
        with pytest.raises(Retry):
            house.deliver(task)
        assert task.retried == [9.0]
        record = house.store.get("celery-id")
        assert record is not None
        assert record.state is JobState.RUNNING
    with pytest.raises(JobFailed) as failure:
        house.deliver(FakeTask(2))
    assert failure.value.code is ErrorCode.HTTP_5XX
    assert house.store.get("celery-id").result.attempts == 3


@pytest.mark.parametrize(
    ("exc", "code", "tries"),
    [
        pytest.param(Fault(ErrorCode.HTTP_4XX, "404"), ErrorCode.HTTP_4XX, 1, id="permanent"),
        pytest.param(MemoryError(), ErrorCode.OUT_OF_MEMORY, 3, id="MemoryError"),
        pytest.param(SystemExit(3), ErrorCode.INTERNAL_ERROR, 2, id="SystemExit"),
        pytest.param(KeyboardInterrupt(), ErrorCode.INTERNAL_ERROR, 2, id="KeyboardInterrupt"),
        pytest.param(ZeroDivisionError(), ErrorCode.INTERNAL_ERROR, 2, id="a fault of ours"),
    ],
)
def test_given_whatever_a_run_raises_the_job_ends_typed(
    exc: BaseException, code: ErrorCode, tries: int
) -> None:
    house = House(*[exc] * tries)
    for retries in range(tries - 1):
        with pytest.raises(Retry):
            house.deliver(FakeTask(retries))
    with pytest.raises(JobFailed) as failure:
        house.deliver(FakeTask(tries - 1))
    assert failure.value.code is code
    assert house.store.get("celery-id").result.error.code is code


def test_given_an_expired_job_it_fails_unrun() -> None:
    house = House()
    with pytest.raises(JobFailed) as failure:
        house.deliver(expires_at=(utcnow() - timedelta(seconds=1)).isoformat())
    assert failure.value.code is ErrorCode.JOB_EXPIRED
    assert house.runs == 0


def test_given_a_newer_contract_the_message_goes_back_a_bounded_number_of_times() -> None:
    house, task = House(), FakeTask()
    for _ in range(9):
        with pytest.raises(Retry):
            house.deliver(task, schema_version=2)
        assert task.retried[0] > 1
        task = task.again()
    with pytest.raises(JobFailed) as failure:
        house.deliver(task, schema_version=2)
    assert failure.value.code is ErrorCode.SCHEMA_UNSUPPORTED


def test_given_a_message_that_went_back_for_its_contract_its_job_has_all_its_attempts() -> None:
    house, task = House(*[Fault(ErrorCode.HTTP_5XX)] * 3), FakeTask()
    for _ in range(4):
        with pytest.raises(Retry):
            house.deliver(task, schema_version=2)
        task = task.again()
    for _ in range(2):
        with pytest.raises(Retry):
            house.deliver(task)
        task = task.again()
    with pytest.raises(JobFailed):
        house.deliver(task)
    assert house.store.get("celery-id").result.attempts == 3


def test_given_a_retry_that_cannot_be_sent_the_message_stays() -> None:
    house = House(Fault(ErrorCode.HTTP_5XX))
    with pytest.raises(Reject) as rejected:
        house.deliver(FakeTask(broker_away=True))
    assert rejected.value.requeue


@pytest.mark.parametrize(
    ("came_by", "goes_to"),
    [
        pytest.param("captionq.match", "captionq.match", id="a queue consumed here"),
        pytest.param("captionq.match.bulk", "captionq.match.bulk", id="one of bulk's"),
        pytest.param("elsewhere", "celery", id="a routing key that leads nowhere"),
        pytest.param(None, "celery", id="no routing key"),
    ],
)
def test_given_a_retry_it_goes_to_a_queue_that_is_consumed_here(
    came_by: str | None, goes_to: str
) -> None:
    house, task = House(Fault(ErrorCode.HTTP_5XX)), FakeTask(queue=came_by)
    with pytest.raises(Retry):
        house.deliver(task)
    assert task.options["queue"] == goes_to


def test_given_a_signed_url_its_signature_is_shown_nowhere() -> None:
    signed = "https://example.com/cat.jpg?X-Amz-Signature=5ecret"
    house, task = House(Fault(ErrorCode.HTTP_5XX), None), FakeTask()
    with pytest.raises(Retry):
        house.deliver(task, image=signed)
    assert "5ecret" not in repr(task.options)
    assert house.deliver(task.again(), image=signed)["image_ref"] == "https://example.com/cat.jpg"


def test_given_text_that_cannot_be_stored_the_job_ends_as_invalid_all_the_same(
    redis_server: RedisServer,
) -> None:
    """JSON may hold half of a surrogate pair, which no UTF-8 can."""
    store = RedisStore(redis_server.url)
    for fields in ({"image": "https://example.com/\ud800"}, {"texts": ["\ud800"]}):
        house = House(store=store)
        with pytest.raises(JobFailed) as failure:
            house.deliver(job_id="mine", **fields)
        assert failure.value.code is ErrorCode.JOB_INVALID
        record = store.get("mine")
        assert record is not None
        assert record.state is JobState.FAILED
    store.close()


@pytest.mark.parametrize("job_id", ["x" * 5_000, "", "has spaces", 7, None])
def test_given_an_id_that_cannot_be_one_the_failure_is_kept_under_celerys(job_id: Any) -> None:
    house = House()
    with pytest.raises(JobFailed):
        house.deliver(job_id=job_id, texts=[])
    assert house.store.get("celery-id") is not None


def test_given_a_job_as_json_text_its_own_id_is_kept() -> None:
    house = House(None)
    job = json.dumps({"image": IMAGE, "texts": ["a cat"], "job_id": "mine"})
    assert house.shell.execute(FakeTask(), "match", (job,), {})["job_id"] == "mine"  # type: ignore[arg-type]


def test_given_retries_that_are_no_number_the_job_runs_as_the_first_try() -> None:
    assert House(None).deliver(FakeTask(retries="many"))["attempts"] == 1


@pytest.mark.parametrize("bounces", [0, 10**9, "9"])
@pytest.mark.parametrize("retries", [None, "1", -(10**9), 0])
def test_given_counts_that_cannot_be_a_transient_fault_is_still_tried_a_few_times(
    retries: Any, bounces: Any
) -> None:
    house = House(*(Fault(ErrorCode.HTTP_5XX) for _ in range(3)))
    task = FakeTask(retries=retries, headers={BOUNCES: bounces})
    for _ in range(2):
        with pytest.raises(Retry):
            house.deliver(task)
        task = task.again()
    with pytest.raises(JobFailed):
        house.deliver(task)
    assert house.runs == 3


def test_given_a_job_for_another_model_it_is_sent_on_to_that_models_queue() -> None:
    house = House()
    task = FakeTask(queue="celery")
    with pytest.raises(Ignore):
        house.deliver(task, model="org/large")
    assert task.sent_on == ["captionq.match.org-large"]
    with pytest.raises(JobFailed) as failure:
        house.deliver(FakeTask(queue="captionq.match.org-large"), model="org/large")
    assert failure.value.code is ErrorCode.MODEL_LACKS_MATCHING


@pytest.mark.parametrize(
    ("queue", "fields", "sent_on"),
    [
        pytest.param("celery", {}, None, id="interactive: it is where it belongs"),
        pytest.param("captionq.match", {}, None, id="interactive, by its own queue"),
        pytest.param("captionq.match.bulk", {}, None, id="interactive, though it came by bulk's"),
        pytest.param("captionq.match.bulk", {"lane": "bulk"}, None, id="bulk, by its own queue"),
        pytest.param("captionq.match.tiny.bulk", {"lane": "bulk"}, None, id="bulk, of one model"),
        pytest.param("celery", {"lane": "bulk"}, "captionq.match.bulk", id="bulk, of a client"),
        pytest.param(
            "captionq.match",
            {"lane": "bulk", "model": "tiny"},
            "captionq.match.tiny.bulk",
            id="bulk, where interactive jobs wait",
        ),
        pytest.param(
            "celery",
            {"lane": "bulk", "model": "org/large"},
            "captionq.match.org-large.bulk",
            id="bulk, for another model",
        ),
    ],
)
def test_given_a_job_then_it_runs_or_is_sent_on_to_wait_in_its_lane(
    queue: str, fields: dict[str, str], sent_on: str | None
) -> None:
    house, task = House(None), FakeTask(queue=queue)
    if sent_on is None:
        assert house.deliver(task, **fields)["state"] == "succeeded"
    else:
        with pytest.raises(Ignore):
            house.deliver(task, **fields)
        assert house.runs == 0
    assert task.sent_on == ([sent_on] if sent_on else [])


def test_given_a_bulk_job_for_a_model_that_is_nowhere_then_it_does_not_go_in_circles() -> None:
    task = FakeTask(queue="captionq.match.org-large.bulk")
    with pytest.raises(JobFailed) as failure:
        House().deliver(task, model="org/large", lane="bulk")
    assert failure.value.code is ErrorCode.MODEL_LACKS_MATCHING
    assert task.sent_on == []


class FlakyStore(MemoryStore):
    """Its `finish` fails a given number of times, as Redis does while it is away."""

    def __init__(self, failures: int) -> None:
        super().__init__()
        self.failures = failures

    def finish(self, result: Any, *args: Any, **options: Any) -> Any:
        if self.failures:
            self.failures -= 1
            raise StoreUnavailable("away")
        return super().finish(result, *args, **options)


def test_given_a_store_that_is_away_for_long_the_device_runs_once_all_the_same() -> None:
    store = FlakyStore(failures=2)
    house = House(None, store=store)
    with pytest.raises(Reject) as rejected:
        house.deliver()
    assert rejected.value.requeue
    assert house.deliver()["state"] == "succeeded"
    assert house.runs == 1


class WitnessedStore(MemoryStore):
    """Tells that `start` answered, and how often each job was counted at most. While it is `away`
    deliveries are not counted; once it `leaves` it is, after its next answer."""

    def __init__(self) -> None:
        super().__init__()
        self.answered = threading.Event()
        self.most: dict[str, int] = {}
        self.away = self.leaves = False
        self.returns = 0

    def start(self, job_id: str, task: str, attempt: int, *args: Any, **options: Any) -> Any:
        if self.away:
            raise StoreUnavailable("away")
        record = super().start(job_id, task, attempt, *args, **options)
        self.most[job_id] = max(self.most.get(job_id, 0), record.deliveries(attempt))
        self.answered.set()
        self.away = self.leaves
        return record

    def return_delivery(self, job_id: str, attempt: int) -> None:
        self.returns += 1
        if self.away:
            raise StoreUnavailable("away")
        super().return_delivery(job_id, attempt)


def died(house: House, times: int, attempt: int = 1, job_id: str = "celery-id") -> None:
    """What is left of deliveries whose worker was killed."""
    for _ in range(times):
        house.store.start(job_id, "match", attempt, "captionq@dead")


@pytest.mark.parametrize(("deaths", "runs"), [(0, 1), (1, 1), (2, 1), (3, 0), (4, 0)])
def test_given_a_job_that_ended_its_workers_then_it_is_run_three_times_at_most(
    deaths: int, runs: int
) -> None:
    house = House(None)
    died(house, deaths)
    if runs:
        assert house.deliver()["state"] == "succeeded"
        assert house.store.letters == []
    else:
        with pytest.raises(JobFailed) as failure:
            house.deliver()
        assert failure.value.code is ErrorCode.JOB_POISONED
        (letter,) = house.store.letters
        assert (letter["job_id"], letter["code"]) == ("celery-id", "job_poisoned")
        assert json.loads(letter["job"])["image"] == IMAGE
        workers = [one["worker"] for one in json.loads(letter["deliveries"])]
        assert workers == ["captionq@dead"] * deaths + ["captionq@here"]
    assert house.runs == runs


def test_given_deaths_in_an_earlier_attempt_then_the_next_one_begins_with_none() -> None:
    house = House(None)
    died(house, 2, attempt=1)
    house.deliver(FakeTask(retries=1))
    assert house.runs == 1


def test_given_an_old_message_of_a_job_that_was_retried_since_then_it_is_dropped() -> None:
    """Its worker was killed between sending the retry and acknowledging."""
    house = House(Fault(ErrorCode.HTTP_5XX), None)
    first = FakeTask()
    with pytest.raises(Retry):
        house.deliver(first)
    died(house, 1, attempt=2)
    with pytest.raises(Ignore):
        house.deliver(FakeTask())
    assert house.runs == 1
    house.deliver(first.again())
    assert house.runs == 2


@pytest.mark.parametrize("deaths", [1, 2])
def test_given_suspects_then_they_run_one_at_a_time_and_others_beside_them(deaths: int) -> None:
    inside, most = [0], [0]
    gate = threading.Lock()

    def slow() -> None:
        with gate:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
        time.sleep(0.02)
        with gate:
            inside[0] -= 1

    house = House(*[slow] * 6)
    ids = [f"suspect-{n}" for n in range(6)]
    for job_id in ids:
        died(house, deaths, job_id=job_id)
    with ThreadPoolExecutor(6) as threads:
        list(threads.map(lambda job_id: house.deliver(job_id=job_id), ids))
    assert (house.runs, most) == (6, [1])

    house = House(*[slow] * 6)
    with ThreadPoolExecutor(6) as threads:
        list(threads.map(lambda job_id: house.deliver(job_id=job_id), ids))
    assert most[0] > 1


def test_given_a_suspect_that_waits_for_its_turn_then_it_is_not_counted_as_delivered() -> None:
    began, go_on = threading.Event(), threading.Event()

    def wait() -> None:
        began.set()
        go_on.wait(5)

    house = House(wait, None, store=WitnessedStore())
    for job_id in ("one", "other"):
        died(house, 2, job_id=job_id)
    with ThreadPoolExecutor(2) as threads:
        one = threads.submit(house.deliver, job_id="one")
        assert began.wait(5)
        house.store.answered.clear()
        other = threads.submit(house.deliver, job_id="other")
        try:
            assert house.store.answered.wait(5)
            house.shell.return_running()
            assert house.store.get("other").deliveries(1) == 2
            assert house.store.get("one").deliveries(1) == 2  # it ran, and goes back
        finally:
            go_on.set()
        assert one.result(5)["state"] == other.result(5)["state"] == "succeeded"
    assert house.store.most["other"] == 3


def test_given_a_store_that_leaves_before_a_suspects_turn_then_that_is_no_death() -> None:
    store = WitnessedStore()
    house = House(None, None, store=store)
    died(house, 2)
    store.leaves = True
    with suppress(Reject):
        house.deliver()
    store.leaves = store.away = False
    assert house.deliver()["state"] == "succeeded"


def test_given_retries_that_cannot_be_sent_then_their_job_is_not_taken_for_poison() -> None:
    house = House(*[Fault(ErrorCode.HTTP_5XX)] * 5, None)
    for _ in range(5):
        with pytest.raises(Reject):
            house.deliver(FakeTask(broker_away=True))
    assert house.deliver()["state"] == "succeeded"


def test_given_a_message_that_cannot_be_sent_on_before_it_was_counted_then_no_death_is_undone() -> (
    None
):
    house = House()
    died(house, 2)
    with pytest.raises(Reject):
        house.deliver(FakeTask(broker_away=True), schema_version=2)
    assert house.store.get("celery-id").deliveries(1) == 2


def test_given_a_planned_end_then_what_runs_is_not_counted_as_delivered() -> None:
    house = House()
    house.outcomes = [lambda: house.shell.return_running()]
    house.deliver()
    record = house.store.get("celery-id")
    assert record is not None
    assert record.history == ()
    house.shell.return_running()


def test_given_an_absent_store_when_all_goes_back_then_it_is_asked_once() -> None:
    """Each question could take as long as the whole end may."""
    store = WitnessedStore()
    house = House(*[lambda: all_run.wait(5)] * 3, store=store)
    all_run = threading.Barrier(4)
    with ThreadPoolExecutor(3) as threads:
        jobs = [threads.submit(house.deliver, job_id=str(n)) for n in range(3)]
        deadline_s = time.monotonic() + 5
        while house.runs < 3:
            assert time.monotonic() < deadline_s
        store.away = True
        house.shell.return_running()
        all_run.wait(5)
        assert [job.result(5)["state"] for job in jobs] == ["succeeded"] * 3
    assert store.returns == 1


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Fault(ErrorCode.HTTP_5XX), "http_5xx"),
        (Fault(ErrorCode.DECODE_CRASHED), "decode_crashed"),
        (RuntimeError("a bug"), "internal_error"),
        (Fault(ErrorCode.HTTP_4XX), None),
        (Fault(ErrorCode.IMAGE_CORRUPT), None),
        (JobFailed(ErrorCode.JOB_INVALID), None),
    ],
)
def test_given_a_job_that_is_given_up_then_a_dead_letter_tells_of_it_unless_trying_again_is_vain(
    error: Exception, code: str | None
) -> None:
    house = House(*[error] * 3)
    task, ended = FakeTask(queue="captionq.match"), False
    while not ended:
        try:
            house.deliver(task)
        except Retry:
            task = task.again()
        except JobFailed:
            ended = True
    assert [letter["code"] for letter in house.store.letters] == ([code] if code else [])
