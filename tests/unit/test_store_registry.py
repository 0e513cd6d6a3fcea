"""What the results store knows of jobs together: lists, batches, events, callbacks, workers."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from producer.callback import Callback
from producer.contract import CaptionJob, JobState, utcnow
from producer.embedded import RedisServer
from producer.ledger import Ledger
from producer.memory_store import MemoryStore
from producer.presence import WorkerFacts
from producer.redis_store import RedisStore
from producer.store import Store
from producer.terms import Terms
from producer.wire import WireJob
from tests.stores import SUBMITTED, MakeStore, ended, job

TOLD = Callback(url="https://app.example.com/hooks?key=1", secret_id="main")
FAILED, SUCCEEDED, CANCELLED = JobState.FAILED, JobState.SUCCEEDED, JobState.CANCELLED
QUEUED, RUNNING = JobState.QUEUED, JobState.RUNNING


def told_of(store: Any, request: pytest.FixtureRequest) -> list[str]:
    """Jobs and batches whose callback is due, in the order in which they came to be."""
    if isinstance(store, MemoryStore):
        return [name for name, _ in store.told]
    url = request.getfixturevalue("redis_server").url
    with redis.Redis.from_url(url, decode_responses=True) as client:
        ids = [
            one
            for host in client.zrange("captionq:callbacks", 0, -1)
            for one in client.zrange(f"captionq:callbacks:{host}", 0, -1)
        ]
        found = [client.hgetall(f"captionq:callback:{one}") for one in ids]
    found.sort(key=lambda one: int(one["created_ms"]))
    return [one.get("job_id") or one["batch_id"] for one in found]


def counts_of(store: Store, batch_id: str = "b") -> dict[str, int]:
    """What is counted, states without jobs left out."""
    batch = store.batch(batch_id)
    assert batch is not None
    assert batch.total == sum(batch.counts.values())
    return {state.value: count for state, count in batch.counts.items() if count}


def reopen(url: str, one: CaptionJob, entry: str = "1-1") -> bool:
    call = Ledger(10, 100).reopen(WireJob.of(one), entry)
    with redis.Redis.from_url(url, decode_responses=True) as client:
        return call.read(client.register_script(call.script)(call.keys, call.args))


def test_a_record_names_the_owner_and_the_batch_of_its_job(store: Store) -> None:
    store.create(job(owner="web", batch_id="b"))
    assert store.get("a").owner == "web"  # type: ignore[union-attr]

    store.start("foreign", "caption", 1, "w", terms=Terms("", "b", "mail"))
    store.start("foreign", "caption", 2, "w", terms=Terms("", "c", "evil"))
    store.finish(ended("unseen"), terms=Terms("", "b", "mail"))

    for job_id, owner in {"a": "web", "foreign": "mail", "unseen": "mail"}.items():
        record = store.get(job_id)
        assert record is not None
        assert (record.owner, record.batch_id) == (owner, "b")
    assert store.batch("c") is None


def test_jobs_are_listed_the_newest_first_with_what_they_say(store: Store) -> None:
    store.create(job("a", image="https://u:p@example.com/cat.jpg?key=1", owner="web"))
    store.create(job("b"))
    store.start("b", "caption", 1, "w")
    store.start("plain", "caption", 1, "w")
    failed = ended("plain", FAILED).model_copy(
        update={"image_ref": "s3://photos/1.png", "error": None}
    )
    store.finish(failed)

    plain, b, a = store.list().records

    assert (a.job_id, a.state, a.owner, a.task) == ("a", QUEUED, "web", "caption")
    assert (a.image_ref, a.created_at) == ("https://example.com/cat.jpg", SUBMITTED)
    assert (b.job_id, b.state, b.finished_at) == ("b", RUNNING, None)
    assert (plain.job_id, plain.state, plain.image_ref) == ("plain", FAILED, "s3://photos/1.png")
    assert plain.finished_at == SUBMITTED


def test_a_list_is_read_page_by_page_and_each_job_once_while_others_come(store: Store) -> None:
    store.create_many([job(f"{n}") for n in range(7)])
    seen, before = [], None
    for _ in range(10):
        page = store.list(before=before, limit=3)
        seen.append([one.job_id for one in page.records])
        store.create(job(f"later{len(seen)}"))
        if (before := page.next) is None:
            break

    assert seen == [["6", "5", "4"], ["3", "2", "1"], ["0"]]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({"state": FAILED}, ["b2", "a2"]),
        ({"owner": "web"}, ["a3", "a2", "a1"]),
        ({"batch_id": "b"}, ["b3", "b2", "b1"]),
        ({"owner": "web", "state": QUEUED}, ["a3", "a1"]),
        ({"owner": "web", "batch_id": "b"}, []),
    ],
)
def test_a_list_is_of_the_jobs_that_are_wanted(
    store: Store, wanted: dict[str, Any], found: list[str]
) -> None:
    for n in (1, 2, 3):
        store.create_many([job(f"a{n}", owner="web"), job(f"b{n}", batch_id="b")])
    store.finish(ended("a2", FAILED))
    store.finish(ended("b2", FAILED))

    pages = [store.list(**wanted, limit=2)]
    if pages[0].next:
        pages.append(store.list(**wanted, limit=2, before=pages[0].next))

    assert [one.job_id for page in pages for one in page.records] == found
    assert pages[-1].next is None


def test_a_rare_job_is_found_behind_thousands_of_others(redis_server: Any) -> None:
    store = RedisStore(redis_server.url)
    store.create(job("rare", owner="me"))
    store.create_many([job(f"{n}") for n in range(2_100)])

    page = store.list(owner="me")

    assert ([one.job_id for one in page.records], page.next) == (["rare"], None)
    store.close()


@pytest.mark.parametrize(("kept", "found"), [(3, ["4", "3", "2"]), (0, [])])
def test_a_list_is_of_the_newest_jobs_alone(
    make_store: MakeStore, kept: int, found: list[str]
) -> None:
    store = make_store(listed_jobs=kept)
    store.create_many([job(f"{n}") for n in range(5)])

    assert [one.job_id for one in store.list().records] == found


def test_a_job_that_is_forgotten_or_whose_life_is_over_is_listed_no_more(
    make_store: MakeStore,
) -> None:
    store = make_store(result_ttl_s=0.01)
    store.create_many([job("a"), job("b"), job("c")])
    store.forget(job("a"))
    store.finish(ended("b"))
    time.sleep(0.03)

    assert [one.job_id for one in store.list().records] == ["c"]


@pytest.mark.parametrize("wrong", [{"before": "x"}, {"before": "1e9"}, {"limit": 0}])
def test_a_cursor_that_no_page_gave_is_refused(store: Store, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"cursor|a page has"):
        store.list(**wrong)


def test_a_batch_counts_its_jobs_by_state_and_ends_when_it_is_closed_and_they_have(
    store: Store, request: pytest.FixtureRequest
) -> None:
    opened = store.open_batch("b", TOLD, "web")
    assert (opened.owner, opened.total, opened.closed) == ("web", 0, False)
    assert store.batch("never") is store.close_batch("never") is None

    store.create_many([job(name, batch_id="b") for name in ("x", "y", "z")])
    assert store.batch("b:jobs") is None
    store.start("x", "caption", 1, "w")
    store.start("x", "caption", 2, "w")
    assert counts_of(store) == {"queued": 2, "running": 1}
    store.finish(ended("x"))
    store.finish(ended("y", CANCELLED))
    store.finish(ended("y", SUCCEEDED))
    closed = store.close_batch("b")
    assert closed is not None
    assert (closed.closed, closed.finished_at) == (True, None)
    assert counts_of(store) == {"queued": 1, "succeeded": 1, "cancelled": 1}
    assert told_of(store, request) == []

    store.finish(ended("z", FAILED))

    batch = store.batch("b")
    assert batch is not None
    assert batch.finished_at is not None
    assert utcnow() >= batch.finished_at >= batch.created_at.replace(microsecond=0)
    assert counts_of(store) == {"succeeded": 1, "failed": 1, "cancelled": 1}
    store.close_batch("b")
    store.finish(ended("z", FAILED))
    assert told_of(store, request) == ["b"]


def test_a_batch_without_jobs_ends_when_it_is_closed(
    store: Store, request: pytest.FixtureRequest
) -> None:
    store.open_batch("b", TOLD)

    assert store.close_batch("b").finished_at is not None  # type: ignore[union-attr]
    assert told_of(store, request) == ["b"]


def test_a_batch_that_is_opened_again_stays_as_it_is(
    store: Store, request: pytest.FixtureRequest
) -> None:
    store.create(job("early", batch_id="b"))
    first = store.open_batch("b", TOLD, "web")
    assert first.total == 1

    assert store.open_batch("b", None, "other") == first
    store.close_batch("b")
    store.finish(ended("early"))
    assert told_of(store, request) == ["b"]


@pytest.mark.parametrize(
    ("happens", "counts"),
    [
        pytest.param(
            lambda store: store.create(job("a", batch_id="b")),
            {"queued": 1},
            id="it is submitted again after a lost answer",
        ),
        pytest.param(
            lambda store: store.create(job("a", image="https://example.com/2.jpg", batch_id="c")),
            {"queued": 1},
            id="its id is submitted in another batch",
        ),
        pytest.param(
            lambda store: store.forget(job("a", batch_id="b")), {}, id="it could not be sent"
        ),
        pytest.param(
            lambda store: (
                store.start("a", "caption", 1, "w"),
                store.start("a", "caption", 1, "w"),
                store.return_delivery("a", 1),
            ),
            {"queued": 1},
            id="its delivery goes back",
        ),
        pytest.param(
            lambda store: (
                store.start("a", "caption", 1, "w"),
                store.finish(ended("a", FAILED), {"job_id": "a"}),
                store.finish(ended("a", SUCCEEDED)),
                store.start("a", "caption", 1, "w"),
            ),
            {"failed": 1},
            id="it ends, and comes again",
        ),
    ],
)
def test_whatever_happens_to_a_job_its_batch_counts_it_once(
    store: Store, happens: Callable[[Store], object], counts: dict[str, int]
) -> None:
    store.create(job("a", batch_id="b"))

    happens(store)

    assert counts_of(store) == counts
    assert store.batch("c") is None


def test_a_plain_clients_job_is_counted_from_its_start_or_its_end(store: Store) -> None:
    terms = Terms("", "b", "")
    store.start("started", "caption", 1, "w", terms=terms)
    store.finish(ended("revoked", CANCELLED), terms=terms)
    assert counts_of(store) == {"running": 1, "cancelled": 1}

    store.finish(ended("started"), terms=terms)

    assert counts_of(store) == {"succeeded": 1, "cancelled": 1}


@pytest.mark.parametrize("remembered", [True, False])
def test_given_a_job_that_is_replayed_then_it_is_counted_once_and_its_new_end_is_told(
    redis_server: Any, request: pytest.FixtureRequest, remembered: bool
) -> None:
    store, one = RedisStore(redis_server.url), job("a", batch_id="b", callback=TOLD)
    store.open_batch("b", TOLD)
    store.create(one)
    store.close_batch("b")
    store.finish(ended("a", FAILED), {"job_id": "a"})
    assert told_of(store, request) == ["a", "b"]
    with redis.Redis.from_url(redis_server.url, decode_responses=True) as client:
        first = json.loads(client.hget("captionq:job:a", "callback") or "")["id"]
        if not remembered:
            client.delete("captionq:job:a")

        assert reopen(redis_server.url, one)
        assert reopen(redis_server.url, one)
        assert counts_of(store) == {"queued": 1}
        if remembered:  # the end that is none any more is not told
            assert told_of(store, request) == ["b"]
        store.finish(ended("a"))
        second = json.loads(client.hget("captionq:job:a", "callback") or "")["id"]

    assert counts_of(store) == {"succeeded": 1}
    assert first != second
    assert told_of(store, request).count("a") == (1 if remembered else 2)
    assert told_of(store, request).count("b") == 1
    store.close()


def test_a_callback_is_due_once_when_its_job_ends_however_it_does(
    store: Store, request: pytest.FixtureRequest
) -> None:
    terms = Terms.of(job("foreign", callback=TOLD))
    store.create_many([job(name, callback=TOLD) for name in ("a", "b", "c")])
    store.start("foreign", "caption", 1, "w", terms=terms)
    assert told_of(store, request) == []

    for state in (SUCCEEDED, FAILED, CANCELLED):
        store.finish(ended("a", state))
        store.finish(ended("foreign", state), terms=terms)
    store.finish(ended("b", FAILED), {"job_id": "b"})
    store.finish(ended("unseen", CANCELLED), terms=Terms.of(job("unseen", callback=TOLD)))

    assert sorted(told_of(store, request)) == ["a", "b", "foreign", "unseen"]


def test_a_result_lives_as_long_as_somebody_is_to_be_told_of_it(redis_server: Any) -> None:
    store = RedisStore(redis_server.url, result_ttl_s=10, queued_ttl_s=10)
    store.open_batch("b", TOLD)
    store.create(job("a", callback=TOLD, batch_id="b"))
    store.finish(ended("a"))
    store.close_batch("b")

    with redis.Redis.from_url(redis_server.url, decode_responses=True) as client:
        lives = {key: client.ttl(key) for key in client.scan_iter()}
    assert {key for key, life in lives.items() if life < 0} == set()
    assert {key for key, life in lives.items() if life > 86_400} >= {
        "captionq:job:a",
        "captionq:batch:b",
        "captionq:callbacks",
        "captionq:callbacks:https://app.example.com",
    }
    store.close()


@contextmanager
def hearing(store: Any, request: pytest.FixtureRequest, job_id: str) -> Iterator[Any]:
    """A callable that returns what has been told of the job's deliveries."""
    if isinstance(store, MemoryStore):
        yield lambda: [event for named, event in store.events if named == job_id]
        return
    url = request.getfixturevalue("redis_server").url
    with redis.Redis.from_url(url) as client, client.pubsub() as channel:  # type: ignore[no-untyped-call]
        channel.subscribe(Ledger(1, 1).running_channel(job_id))

        def heard() -> list[Any]:
            said = iter(lambda: channel.get_message(timeout=0.1), None)
            return [json.loads(one["data"]) for one in said if one["type"] == "message"]

        yield heard


def test_deliveries_that_are_counted_or_go_back_are_told(
    store: Store, request: pytest.FixtureRequest
) -> None:
    with hearing(store, request, "a") as heard:
        store.create(job())
        store.start("a", "caption", 1, "one@host", SUBMITTED)
        store.start("a", "caption", 1, "one@host", SUBMITTED)
        store.start("a", "caption", 1, "two@host", only_first=True)
        store.start("a", "caption", 2, "two@host")
        store.return_delivery("a", 2)
        store.finish(ended("a"))
        store.start("a", "caption", 3, "two@host")

        assert heard() == [
            {"state": "running", "attempt": 1, "worker": "one@host"},
            {"state": "running", "attempt": 2, "worker": "two@host"},
            {"state": "queued", "attempt": 2, "worker": "two@host"},
        ]


def test_results_come_into_the_stream_once_where_one_is_wanted(
    make_store: MakeStore, request: pytest.FixtureRequest
) -> None:
    store, without = make_store(result_stream=100), make_store()
    store.create(job("a", owner="web"))
    for state in (SUCCEEDED, CANCELLED):
        store.finish(ended("a", state))
    without.finish(ended("b"))

    if isinstance(store, MemoryStore):
        assert list(store.stream) == [ended("a")]
        return
    with redis.Redis.from_url(request.getfixturevalue("redis_server").url) as client:
        ((_, fields),) = client.xrange("captionq:results")
    assert fields == {
        b"job_id": b"a",
        b"task": b"caption",
        b"state": b"succeeded",
        b"owner": b"web",
        b"result": ended("a").model_dump_json().encode(),
    }


def facts(name: str) -> WorkerFacts:
    return WorkerFacts(
        name=name,
        pid=7,
        started_at=SUBMITTED,
        models={"caption": "org/blip"},
        languages=("en", "de"),
        packs=("german",),
        queues=("captionq.caption",),
    )


def test_workers_are_those_that_said_so_lately_and_have_not_ended(store: Store) -> None:
    assert store.workers() == []
    store.present(facts("b@host"))
    store.present(facts("a@host"))
    store.present(facts("gone@host"), life_s=0.005)
    store.present(facts("ended@host"))
    store.absent("ended@host")
    time.sleep(0.03)

    assert store.workers() == [facts("a@host"), facts("b@host")]


@pytest.mark.parametrize(
    ("payload", "batch", "owner", "told"),
    [
        ({"callback": TOLD.model_dump(), "batch_id": "b", "owner": "web"}, "b", "web", True),
        ({"callback": {"url": "ftp://x"}, "batch_id": "no way", "owner": 3}, "", "", False),
        ({"callback": "https://example.com", "image": None}, "", "", False),
        ({"callback": TOLD.model_dump(), "image": "no URI", "task": "nonsense"}, "", "", True),
        ("no object", "", "", False),
    ],
)
def test_what_a_job_was_submitted_under_is_read_even_from_one_that_is_invalid(
    payload: object, batch: str, owner: str, told: bool
) -> None:
    terms = Terms.read("a", payload)

    assert (terms.batch_id, terms.owner, bool(terms.callback)) == (batch, owner, told)
    if told:
        assert terms.callback == Terms.of(job("a", callback=TOLD)).callback


def test_given_a_batch_that_is_forgotten_then_a_job_of_it_that_is_too_leaves_nothing(
    redis_server: RedisServer,
) -> None:
    store = RedisStore(redis_server.url)
    store.create(job(batch_id="b"))
    with redis.Redis.from_url(redis_server.url) as client:
        client.delete("captionq:batch:b", "captionq:counted:b")
        store.forget(job(batch_id="b"))
        assert list(client.scan_iter("captionq:batch*")) == []
    store.close()


def test_the_id_of_a_callback_follows_from_its_event_and_holds_no_full_stop() -> None:
    said = {"callback": TOLD.model_dump()}
    ids = [
        json.loads(Terms.read(job_id, said, entry).callback)["id"]
        for job_id, entry in [("a.1", ""), ("a.1", ""), ("a.1", "1-1"), ("b", "")]
    ]

    assert ids[0] == ids[1]
    assert len(set(ids)) == 3
    assert not any("." in one for one in ids)


STEPS = st.one_of(
    st.tuples(st.just("create"), st.sampled_from("xyz"), st.sampled_from([None, "b", "c"])),
    st.tuples(st.just("start"), st.sampled_from("xyzw"), st.sampled_from([1, 2])),
    st.tuples(st.just("return"), st.sampled_from("xyzw"), st.sampled_from([1, 2])),
    st.tuples(st.just("finish"), st.sampled_from("xyzw"), st.sampled_from([SUCCEEDED, FAILED])),
    st.tuples(st.just("forget"), st.sampled_from("xyz"), st.sampled_from([None, "b", "c"])),
    st.tuples(st.just("open"), st.sampled_from("bc"), st.none()),
    st.tuples(st.just("close"), st.sampled_from("bc"), st.none()),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(STEPS, max_size=14))
def test_whatever_happens_the_store_in_memory_and_the_one_in_redis_tell_the_same(
    redis_server: Any, request: pytest.FixtureRequest, steps: list[tuple[str, str, Any]]
) -> None:
    memory, real = MemoryStore(), RedisStore(redis_server.url)
    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()
    for store in (memory, real):
        for step, name, how in steps:
            terms = Terms.of(job(name, callback=TOLD, batch_id="b"))  # of a plain client's job w
            if step == "create":
                store.create(job(name, callback=TOLD, batch_id=how))
            elif step == "start":
                store.start(name, "caption", how, "w", terms=terms)
            elif step == "return":
                store.return_delivery(name, how)
            elif step == "finish":
                store.finish(ended(name, how), terms=terms)
            elif step == "forget":
                store.forget(job(name, callback=TOLD, batch_id=how))
            elif step == "open":
                store.open_batch(name, TOLD)
            else:
                store.close_batch(name)
    for batch_id in "bc":
        found, expected = real.batch(batch_id), memory.batch(batch_id)
        assert (found is None) == (expected is None)
        if found and expected:
            assert (found.total, found.counts) == (expected.total, expected.counts)
            assert (found.closed, bool(found.finished_at)) == (
                expected.closed,
                bool(expected.finished_at),
            )
            assert sum(found.counts.values()) == found.total
    listed = [[(one.job_id, one.state) for one in each.list().records] for each in (memory, real)]
    assert listed[0] == listed[1]
    told = told_of(memory, request)
    assert sorted(told_of(real, request)) == sorted(told)
    assert len(set(told)) == len(told)
    real.close()
