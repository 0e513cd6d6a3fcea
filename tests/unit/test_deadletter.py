"""Dead letters: kept, found, replayed under the same id, purged; by code and by hand."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis
from click.testing import Result
from typer.testing import CliRunner

from producer.contract import (
    CaptionJob,
    ErrorCode,
    Job,
    JobError,
    JobFailed,
    JobResult,
    JobState,
    parse_job,
    utcnow,
)
from producer.embedded import RedisServer
from producer.redis_store import RedisStore
from producer.signing import Keys, Verifier, new_key
from producer.submission import prepared
from producer.wire import WireJob
from tests.stand_in_worker import messages
from worker.cli import cli
from worker.dead_cli import moment
from worker.deadletter import DeadLetter, DeadLetters, NotReplayable, letter

JOB = CaptionJob(job_id="a", image="https://example.com/cat.jpg")


@pytest.fixture
def store(redis_server: RedisServer) -> Iterator[RedisStore]:
    store = RedisStore(redis_server.url)
    yield store
    store.close()


@pytest.fixture
def letters(redis_server: RedisServer) -> Iterator[DeadLetters]:
    letters = DeadLetters(redis_server.url)
    yield letters
    letters.close()


@pytest.fixture
def plain(redis_server: RedisServer) -> Iterator["redis.Redis"]:
    with redis.Redis.from_url(redis_server.url, decode_responses=True) as client:
        yield client


def give_up(
    store: RedisStore, job: Job = JOB, code: ErrorCode = ErrorCode.HTTP_5XX, deliveries: int = 1
) -> JobResult:
    """A job that was recorded, delivered and given up."""
    store.create(job)
    for n in range(deliveries):
        store.start(str(job.job_id), job.task, 1, f"worker-{n}@host")
    failure = JobFailed(code)
    result = JobResult(
        job_id=str(job.job_id),
        task=job.task,
        state=JobState.FAILED,
        attempts=1,
        error=JobError.of(failure),
        finished_at=utcnow(),
    )
    fields = letter(result, failure, job.model_dump(mode="json"), "captionq.caption", "a reason")
    return store.finish(result, fields)


def test_given_a_job_that_was_given_up_then_its_letter_tells_all_of_it(
    store: RedisStore, letters: DeadLetters
) -> None:
    give_up(store, code=ErrorCode.JOB_POISONED, deliveries=3)
    (one,) = letters.find()
    assert (one.job_id, one.task, one.code, one.reason, one.queue, one.attempts) == (
        "a",
        "caption",
        "job_poisoned",
        "a reason",
        "captionq.caption",
        1,
    )
    assert [delivery.worker for delivery in one.deliveries] == [
        f"worker-{n}@host" for n in range(3)
    ]
    assert one.replayed().body["image"] == JOB.image
    assert letters.get("a") == letters.get(one.entry) == one
    assert letters.get("b") is letters.get("1-1") is None


def test_given_many_letters_then_they_are_found_by_code_and_time_the_latest_first(
    letters: DeadLetters, plain: "redis.Redis"
) -> None:
    began = datetime(2026, 1, 1, tzinfo=UTC)
    for n in range(1_200):
        at = began + timedelta(minutes=n)
        fields = {
            "code": ("http_5xx", "job_poisoned")[n % 2],
            "job_id": str(n),
            "at": at.isoformat(),
        }
        plain.xadd("captionq:dead", fields, id=f"{round(at.timestamp() * 1_000)}-0")  # type: ignore[arg-type]

    def ids(**filters: Any) -> list[int]:
        return [int(one.job_id) for one in letters.find(**filters)]

    def minute(n: int) -> datetime:
        return began + timedelta(minutes=n)

    assert ids() == list(range(1_199, -1, -1))
    assert ids(limit=3) == [1_199, 1_198, 1_197]
    assert ids(codes={"job_poisoned"}, limit=2) == [1_199, 1_197]
    assert ids(since=minute(1_190), until=minute(1_195)) == list(range(1_195, 1_189, -1))
    assert ids(codes={"http_5xx"}, until=minute(3)) == [2, 0]
    assert ids(codes={"out_of_memory"}) == []


def test_given_letters_then_their_number_and_their_age_are_bounded(
    redis_server: RedisServer, plain: "redis.Redis"
) -> None:
    few = DeadLetters(redis_server.url, dead_max=100)
    old = round((utcnow() - timedelta(days=20)).timestamp() * 1_000)
    for n in range(300):
        plain.xadd("captionq:dead", {"code": "x", "at": "2026-01-01"}, id=f"{old + n}-0")
    few.bury("junk", "celery", "malformed")
    (one,) = few.find()
    assert (one.raw, one.queue, one.code, one.job) == ("junk", "celery", "job_invalid", None)
    for _ in range(600):
        few.bury("junk", "celery", "malformed")
    assert 100 <= len(list(few.find())) <= 300
    few.close()


def test_given_a_letter_that_is_replayed_then_its_job_is_queued_as_if_never_tried(
    store: RedisStore, letters: DeadLetters
) -> None:
    give_up(store, deliveries=3)
    sent: list[WireJob] = []
    (one,) = letters.find()
    assert letters.replay(one, sent.append)
    (job,) = sent
    assert (job.job_id, job.body["image"]) == ("a", JOB.image)
    record = store.get("a")
    assert record is not None
    assert (record.state, record.attempt, record.history) == (JobState.QUEUED, 0, ())
    assert record.result is None
    assert list(letters.find()) == []
    assert store.start("a", "caption", 1, "worker@host").deliveries(1) == 1


def test_given_a_replay_that_is_cut_off_then_it_can_be_done_again(
    store: RedisStore, letters: DeadLetters
) -> None:
    give_up(store)
    (one,) = letters.find()

    def away(_: WireJob) -> None:
        raise ConnectionError("away")

    with pytest.raises(ConnectionError):
        letters.replay(one, away)
    assert list(letters.find()) == [one]
    sent: list[WireJob] = []
    assert letters.replay(one, sent.append)
    assert len(sent) == 1


@pytest.mark.parametrize(
    ("state", "sent"),
    [
        (JobState.SUCCEEDED, 0),
        (JobState.CANCELLED, 0),
        (JobState.RUNNING, 0),
        (JobState.QUEUED, 0),
        (None, 1),
    ],
)
def test_given_a_job_that_went_on_since_then_its_end_is_kept_and_its_run_not_disturbed(
    store: RedisStore,
    letters: DeadLetters,
    plain: "redis.Redis",
    state: JobState | None,
    sent: int,
) -> None:
    give_up(store)
    (one,) = letters.find()
    plain.delete("captionq:job:a")
    if state is JobState.RUNNING:
        store.start("a", "caption", 1, "worker@host")
    elif state is JobState.QUEUED:
        store.create(JOB)
    elif state is not None:
        store.finish(
            JobResult(job_id="a", task="caption", state=state, attempts=1, finished_at=utcnow())
        )
    jobs: list[WireJob] = []
    assert letters.replay(one, jobs.append) == bool(sent)
    assert len(jobs) == sent
    record = store.get("a")
    assert record is not None
    assert record.state is (state or JobState.QUEUED)
    assert list(letters.find()) == []


def test_given_two_letters_of_one_job_then_it_is_sent_once(
    store: RedisStore, letters: DeadLetters, plain: "redis.Redis"
) -> None:
    """Its first failure was forgotten, it was submitted anew, and failed again."""
    give_up(store)
    plain.delete("captionq:job:a")
    give_up(store)
    sent: list[WireJob] = []
    assert [letters.replay(one, sent.append) for one in list(letters.find())] == [True, False]
    assert len(sent) == 1
    assert list(letters.find()) == []


def test_given_a_replay_that_was_cut_off_and_began_all_the_same_then_it_is_not_sent_again(
    store: RedisStore, letters: DeadLetters
) -> None:
    give_up(store)
    (one,) = letters.find()
    sent: list[WireJob] = []

    def sent_and_killed(job: WireJob) -> None:
        sent.append(job)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        letters.replay(one, sent_and_killed)
    store.start("a", "caption", 1, "worker@host")
    assert not letters.replay(one, sent.append)
    assert (len(sent), list(letters.find())) == (1, [])


def test_given_a_job_that_failed_again_after_its_replay_then_that_can_be_replayed(
    store: RedisStore, letters: DeadLetters
) -> None:
    give_up(store)
    sent: list[WireJob] = []
    assert letters.replay(next(letters.find()), sent.append)
    give_up(store, parse_job("caption", sent[0].text), ErrorCode.FETCH_TIMEOUT)
    (again,) = letters.find()
    assert again.code == "fetch_timeout"
    assert letters.replay(again, sent.append)
    assert len(sent) == 2


def test_given_a_job_whose_time_has_run_out_then_it_is_not_replayed_and_its_letter_stays(
    store: RedisStore, letters: DeadLetters
) -> None:
    """It would end as expired at once, and be nowhere any more."""
    expired = JOB.model_copy(update={"expires_at": utcnow() - timedelta(seconds=1)})
    give_up(store, expired)
    (one,) = letters.find()
    sent: list[WireJob] = []
    with pytest.raises(NotReplayable, match="was to end by"):
        letters.replay(one, sent.append)
    assert sent == []
    assert list(letters.find()) == [one]
    assert store.get("a").state is JobState.FAILED  # type: ignore[union-attr]


def test_given_a_letter_of_a_task_unknown_here_then_that_is_said() -> None:
    one = DeadLetter(entry="1-0", code="http_5xx", at=utcnow(), task="segment", job="{}")
    with pytest.raises(NotReplayable, match="'segment'"):
        one.replayed()


@pytest.mark.parametrize("job_id", ["1-1", "99999999999999999999999-1", "\u00b2-1"])
def test_given_a_job_id_that_looks_like_an_entry_then_its_letter_is_found_all_the_same(
    letters: DeadLetters, plain: "redis.Redis", job_id: str
) -> None:
    plain.xadd("captionq:dead", {"code": "http_5xx", "job_id": job_id, "at": "2026-01-01"})
    one = letters.get(job_id)
    assert one is not None
    assert one.job_id == job_id


def test_given_a_reason_that_cannot_be_stored_then_its_letter_is(
    store: RedisStore, letters: DeadLetters
) -> None:
    letters.bury("junk", "celery", "half a pair: \ud83d")
    failure = JobFailed(ErrorCode.INTERNAL_ERROR)
    result = JobResult(
        job_id="a", task="caption", state=JobState.FAILED, attempts=1, finished_at=utcnow()
    )
    store.finish(result, letter(result, failure, {}, None, "half a pair: \ud83d"))
    assert [one.reason for one in letters.find()] == [r"half a pair: \ud83d"] * 2


@pytest.mark.parametrize("buried", [False, True])
def test_given_no_further_letters_then_the_last_go_too_when_they_are_too_old(
    redis_server: RedisServer, plain: "redis.Redis", buried: bool
) -> None:
    if buried:
        letters = DeadLetters(redis_server.url, dead_ttl_s=100)
        letters.bury("junk", "celery", "no JSON")
        letters.close()
    else:
        store = RedisStore(redis_server.url, dead_ttl_s=100)
        give_up(store)
        store.close()
    assert 90 < plain.ttl("captionq:dead") <= 100


def test_given_a_malformed_message_then_it_cannot_be_replayed(letters: DeadLetters) -> None:
    letters.bury("junk", "celery", "no JSON")
    (one,) = letters.find()
    with pytest.raises(NotReplayable, match="no JSON"):
        one.replayed()


def test_given_a_letter_of_a_newer_version_with_other_fields_then_it_is_read() -> None:
    fields = {"code": "quota_exceeded", "at": "2026-01-01T00:00:00Z", "more": "x"}
    assert DeadLetter.of("1-0", fields).code == "quota_exceeded"


# Signed jobs

KEY = new_key("a")
SIGNED = prepared(JOB, Keys.parse(KEY))


def verifier(key: str = KEY, age_s: float = 0) -> Verifier:
    return Verifier(Keys.parse(key), 3_600, lambda: utcnow().timestamp() + age_s)


def test_given_a_signed_job_that_is_replayed_then_not_a_field_of_it_has_changed(
    store: RedisStore, redis_server: RedisServer
) -> None:
    give_up(store, SIGNED)
    letters = DeadLetters(redis_server.url, verifier=verifier())
    sent: list[WireJob] = []
    assert letters.replay(next(letters.find()), sent.append)
    letters.close()
    record = store.get("a")
    assert record is not None
    for came in (sent[0].body, json.loads(record.job or "")):
        assert came == json.loads(SIGNED.model_dump_json())
        assert verifier().verified("caption", "a", came)


@pytest.mark.parametrize(
    ("job", "verify", "reason"),
    [
        pytest.param(JOB, verifier(), "not signed", id="unsigned"),
        pytest.param(SIGNED, verifier(new_key("a")), "is wrong", id="by another key"),
        pytest.param(SIGNED, verifier(new_key("b")), "no key of", id="by an unknown key"),
        pytest.param(SIGNED, verifier(age_s=3_700), "s ago", id="too old"),
        pytest.param(
            SIGNED.model_copy(update={"image": "https://example.com/dog.jpg"}),
            verifier(),
            "is wrong",
            id="altered",
        ),
    ],
)
def test_given_a_letter_that_workers_would_refuse_then_it_is_neither_signed_nor_sent_and_stays(
    store: RedisStore, redis_server: RedisServer, job: Job, verify: Verifier, reason: str
) -> None:
    give_up(store, job)
    before = store.get("a")
    letters = DeadLetters(redis_server.url, verifier=verify)
    sent: list[WireJob] = []
    (one,) = letters.find()
    with pytest.raises(NotReplayable, match=f"workers would refuse its job: .*{reason}"):
        letters.replay(one, sent.append)
    assert (sent, list(letters.find()), store.get("a")) == ([], [one], before)
    letters.close()


def test_given_a_letter_under_the_id_of_another_job_then_it_is_not_sent_as_that(
    store: RedisStore,
) -> None:
    forged = DeadLetter(
        entry="1-0",
        code="http_5xx",
        at=utcnow(),
        task="caption",
        job_id="b",
        job=SIGNED.model_dump_json(),
    )
    with pytest.raises(NotReplayable, match="does not carry the id"):
        forged.replayed(verifier())


# By hand


@pytest.fixture
def dead(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("CAPTIONQ_BROKER_URL", redis_server.url)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*words: str, typed: str = "") -> Result:
        return CliRunner().invoke(cli, ["dead", *words], input=typed)

    return run


def test_given_nothing_dead_then_the_list_says_so(dead: Any) -> None:
    assert dead("list").stdout == "no dead letters\n"


def test_given_letters_when_listed_then_each_has_a_row_or_a_document(
    dead: Any, store: RedisStore, letters: DeadLetters
) -> None:
    give_up(store, code=ErrorCode.JOB_POISONED, deliveries=3)
    letters.bury("junk", "celery", "no JSON")
    shown = dead("list").stdout
    assert "job_poisoned" in shown
    assert "1 (3 deliveries)" in shown
    assert "(no job; queue celery)" in shown
    documents = [json.loads(line) for line in dead("list", "--json").stdout.splitlines()]
    assert [document["code"] for document in documents] == ["job_invalid", "job_poisoned"]
    only = dead("list", "--code", "job_poisoned", "--since", "1h", "--json").stdout
    assert [json.loads(line)["job_id"] for line in only.splitlines()] == ["a"]
    assert dead("list", "--until", "1h").stdout == "no dead letters\n"


def test_given_a_letter_when_shown_then_all_deliveries_are_named(
    dead: Any, store: RedisStore
) -> None:
    give_up(store, code=ErrorCode.JOB_POISONED, deliveries=3)
    shown = dead("show", "a").stdout
    assert [f"worker-{n}@host" in shown for n in range(3)] == [True] * 3
    assert "https://example.com/cat.jpg" in shown
    assert json.loads(dead("show", "a", "--json").stdout)["code"] == "job_poisoned"


def test_given_ids_when_replayed_then_their_messages_are_in_the_queue(
    dead: Any, store: RedisStore, plain: "redis.Redis", redis_server: RedisServer
) -> None:
    give_up(store)
    give_up(store, JOB.model_copy(update={"job_id": "b"}))
    assert dead("replay", "a").stdout == "1 replayed\n"
    with redis.Redis.from_url(redis_server.url) as client:
        (message,) = messages(client, "captionq.caption")
    assert message["headers"]["id"] == message["kwargs"]["job"]["job_id"] == "a"
    assert store.get("a").state is JobState.QUEUED  # type: ignore[union-attr]
    assert store.get("b").state is JobState.FAILED  # type: ignore[union-attr]


def test_given_bulk_jobs_when_replayed_then_they_wait_in_their_lane_and_its_index(
    dead: Any, store: RedisStore, plain: "redis.Redis"
) -> None:
    give_up(store, JOB.model_copy(update={"lane": "bulk"}))
    assert dead("replay", "a").stdout == "1 replayed\n"
    assert plain.llen("captionq.caption.bulk") == 1
    assert plain.zcard("captionq:open:captionq.caption.bulk") == 1
    assert plain.llen("captionq.caption") == 0


def test_given_a_letter_named_twice_when_replayed_then_its_job_is_sent_once(
    dead: Any, store: RedisStore, letters: DeadLetters, plain: "redis.Redis"
) -> None:
    give_up(store)
    (one,) = letters.find()
    assert dead("replay", "a", one.entry, "a").stdout == "1 replayed\n"
    assert plain.llen("captionq.caption") == 1


def test_given_a_job_under_way_when_replayed_then_it_is_left_alone_and_that_is_said(
    dead: Any, store: RedisStore, plain: "redis.Redis"
) -> None:
    give_up(store)
    plain.delete("captionq:job:a")
    store.start("a", "caption", 1, "worker@host")
    assert dead("replay", "a").stdout == "0 replayed, 1 had gone on since\n"
    assert plain.llen("captionq.caption") == 0


def test_given_a_filter_when_replayed_or_purged_then_it_asks_first(
    dead: Any, store: RedisStore, letters: DeadLetters, plain: "redis.Redis"
) -> None:
    for n in range(3):
        give_up(store, JOB.model_copy(update={"job_id": str(n)}))
    refused = dead("replay", "--code", "http_5xx", typed="n\n")
    assert refused.exit_code == 1
    assert "Replay 3 dead letters?" in refused.stderr
    assert plain.llen("captionq.caption") == 0
    assert dead("replay", "--code", "http_5xx", "--limit", "1", typed="y\n").exit_code == 0
    assert plain.llen("captionq.caption") == 1
    assert dead("purge", "--all", "--yes").stdout == "2 removed\n"
    assert list(letters.find()) == []
    assert store.get("0").state is JobState.FAILED  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["replay"], "which?"),
        (["purge", "a", "--all"], "not both"),
        (["show", "nobody"], "no dead letter of 'nobody'"),
        (["list", "--code", "http_6xx"], "no such code"),
        (["list", "--since", "yesterday"], "an age such as 2h"),
    ],
)
def test_given_a_mistake_then_one_sentence_says_what_to_do(
    dead: Any, words: list[str], says: str
) -> None:
    result = dead(*words)
    assert result.exit_code == 2
    assert says in " ".join(result.stderr.replace("│", "").split())


def test_given_a_letter_without_a_job_when_replayed_then_it_stays_and_the_status_tells(
    dead: Any, letters: DeadLetters
) -> None:
    letters.bury("junk", "celery", "no JSON")
    result = dead("replay", "--all", "--yes")
    assert (result.exit_code, result.stdout) == (1, "0 replayed\n")
    assert "holds no job: no JSON" in result.stderr
    assert len(list(letters.find())) == 1


def test_given_keys_when_replayed_by_hand_then_only_what_they_signed_is_sent(
    dead: Any, store: RedisStore, plain: "redis.Redis", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAPTIONQ_SIGNING_KEYS", KEY)
    give_up(store, SIGNED, ErrorCode.SIGNATURE_INVALID)
    give_up(store, JOB.model_copy(update={"job_id": "b"}), ErrorCode.SIGNATURE_INVALID)
    result = dead("replay", "--code", "signature_invalid", "--yes")
    assert (result.exit_code, result.stdout) == (1, "1 replayed\n")
    assert "workers would refuse its job: it is not signed" in result.stderr
    assert plain.llen("captionq.caption") == 1


def test_given_no_redis_then_that_is_said(dead: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAPTIONQ_BROKER_URL", "redis://127.0.0.1:1/0")
    result = dead("list")
    assert result.exit_code == 1
    assert "cannot be reached" in result.stderr


@pytest.mark.parametrize(
    ("text", "ago_s"),
    [("90s", 90), ("15m", 900), ("2h", 7_200), ("3d", 259_200), ("1.5w", 907_200)],
)
def test_an_age_is_a_moment_before_now(text: str, ago_s: float) -> None:
    assert abs((datetime.now(UTC) - moment(text)).total_seconds() - ago_s) < 5


def test_a_time_without_a_zone_is_utc() -> None:
    assert moment("2026-05-01T12:00") == datetime(2026, 5, 1, 12, tzinfo=UTC)
    assert moment("2026-05-01T12:00+02:00") == datetime(2026, 5, 1, 10, tzinfo=UTC)
