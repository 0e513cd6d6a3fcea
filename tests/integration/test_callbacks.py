"""Callbacks on a real Redis to a real HTTP server: signed, tried again, given up, written down."""

import base64
import json
import logging
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from standardwebhooks import Webhook
from typer.testing import CliRunner

from producer.callback import Callback
from producer.contract import JobResult, JobState, utcnow
from producer.embedded import RedisServer
from producer.ledger import Ledger
from producer.redis_store import RedisStore
from producer.wire import WireJob
from tests.servers import Reply, ScriptedHttp, Seen
from tests.stores import ended, job
from worker.callbacks.courier import LOOK_EVERY_S
from worker.callbacks.outbox import Outbox, Told
from worker.callbacks.outbox_scripts import MOST_KEPT
from worker.callbacks.schedule import Fate
from worker.callbacks.service import Callbacks, outbox_of
from worker.cli import cli
from worker.deadletter import DeadLetter, DeadLetters
from worker.settings import WorkerSettings


def secret(byte: int) -> str:
    return "whsec_" + base64.b64encode(bytes([byte]) * 32).decode()


OLD, NEW, OTHER = secret(1), secret(2), secret(3)
BUSY = Reply(503)


class Post:
    """Redis, a receiver, and what goes between them."""

    def __init__(self, url: str, web: ScriptedHttp) -> None:
        self.url, self.web = url, web
        self.store = RedisStore(url, result_ttl_s=100)
        self.settings = WorkerSettings(
            broker_url=url,
            callback_secrets=f"main:{OLD},main:{NEW},other:{OTHER}",
            callback_allow=f"127.0.0.1/32:{web.port}",
            callback_http=True,
            callback_scale=0.001,
            callback_timeout_s=2,
            result_ttl_s=100,
        )
        self.outbox: Outbox = outbox_of(self.settings, url)

    def end(
        self,
        job_id: str,
        path: str = "/hook",
        secret_id: str = "main",
        owner: str | None = None,
    ) -> JobResult:
        """A job with a callback to `path` that ends; a whole URL goes there."""
        url = path if "://" in path else self.web.url(path)
        told = Callback(url=url, secret_id=secret_id)
        self.store.create(job(job_id, callback=told, owner=owner))
        return self.store.finish(ended(job_id))

    @contextmanager
    def couriers(self, every_s: float = 0.05, **settings: Any) -> Iterator[None]:
        """Callbacks are tried while the block lasts."""
        callbacks = Callbacks(self.settings.model_copy(update=settings), self.url, every_s)
        callbacks.start()
        try:
            yield
        finally:
            callbacks.close()

    def until(self, name: str, fate: Fate) -> Told:
        """The callback of a job or batch, once that is its fate."""
        found: Told | None = None

        def settled() -> bool:
            nonlocal found
            found = self.outbox.find(name)
            return found is not None and found.state is fate

        wait_until(settled)
        assert found is not None
        return found

    def letters(self) -> list[DeadLetter]:
        with closing(DeadLetters(self.url)) as letters:
            return list(letters.find())

    def close(self) -> None:
        self.store.close()
        self.outbox.close()


def wait_until(true: Callable[[], bool], timeout_s: float = 20) -> None:
    end_s = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < end_s, "it does not come to be"
        time.sleep(0.02)


@pytest.fixture
def post(redis_server: RedisServer) -> Iterator[Post]:
    with ScriptedHttp({"/hook": [Reply(200)]}) as web:
        made = Post(redis_server.url, web)
        yield made
        made.close()


def read(seen: Seen, whsec: str = NEW) -> Any:
    """What a receiver reads of a request, verified as receivers do."""
    return Webhook(whsec).verify(seen.body, dict(seen.headers))


def test_given_a_receiver_then_it_is_told_of_each_end_once_and_can_verify_who_says_so(
    post: Post,
) -> None:
    results = [post.end(f"{n}") for n in range(5)]
    with post.couriers():
        wait_until(lambda: post.web.hits("/hook") == 5)
        for result in results:
            one = post.until(result.job_id, Fate.DELIVERED)
            assert [each.status for each in one.tries] == [200]

    said = {read(seen)["data"]["job_id"]: seen for seen in post.web.requests}
    assert sorted(said) == ["0", "1", "2", "3", "4"]
    assert len({seen.headers["webhook-id"] for seen in said.values()}) == 5
    for seen in said.values():
        assert (seen.method, seen.headers["content-type"]) == ("POST", "application/json")
        assert "." not in seen.headers["webhook-id"]
        told = read(seen)
        assert told["type"] == "job.succeeded"
        assert told["data"]["state"] == "succeeded"
        assert told["timestamp"] == told["data"]["finished_at"]
    with redis.Redis.from_url(post.url) as client:
        assert client.zcard(f"captionq:callbacks:http://127.0.0.1:{post.web.port}") == 0
        assert client.ttl("captionq:job:0") <= 100


def test_given_a_receiver_that_fails_for_a_while_then_each_result_comes_in_the_end_under_one_id(
    post: Post,
) -> None:
    failures = [Reply(500), BUSY, Reply(302), Reply(200, hang_up=True), Reply(404)]
    for n in range(30):  # the first fails at no try, the last at five
        post.web.routes[f"/{n}"] = [*failures[: n % 6], Reply(204)]
        post.end(f"{n}", f"/{n}")

    with post.couriers(callback_scale=0.000_1):
        for n in range(30):
            one = post.until(f"{n}", Fate.DELIVERED)
            assert one.tried == n % 6 + 1

    for n in range(30):
        seen = [each for each in post.web.requests if each.path == f"/{n}"]
        assert len(seen) == n % 6 + 1
        assert {read(each)["data"]["job_id"] for each in seen} == {f"{n}"}
        assert len({each.headers["webhook-id"] for each in seen}) == 1


@pytest.mark.parametrize(
    ("settings", "url", "code"),
    [
        ({"callback_allow": ""}, "/hook", "url_invalid"),  # its port alone is none of the web
        ({}, "http://10.0.0.7/hook", "url_blocked"),
        ({}, "https://169.254.169.254/latest", "url_blocked"),
        ({}, "http://localhost/hook", "url_blocked"),
        ({"callback_http": False}, "/hook", "url_invalid"),
        ({}, "https://user:password@example.com/hook", "url_invalid"),
    ],
)
def test_given_a_url_that_nothing_is_sent_to_then_there_is_a_dead_letter_and_no_request(
    post: Post, settings: dict[str, Any], url: str, code: str
) -> None:
    post.end("a", url)

    with post.couriers(**settings):
        one = post.until("a", Fate.DEAD)

    (letter,) = post.letters()
    assert (letter.code, letter.job_id, letter.attempts) == (code, "a", 1)
    assert [each.code for each in one.tries] == [code]
    assert post.web.hits() == 0
    assert post.store.get("a").result == ended("a")  # type: ignore[union-attr]


def test_given_a_worker_that_is_killed_between_sending_and_noting_it_then_another_sends_it_again(
    post: Post, redis_server: RedisServer
) -> None:
    post.web.routes["/hook"] = [Reply(200, delay_s=30), Reply(200)]
    post.end("a")
    environment = {
        "CAPTIONQ_BROKER_URL": redis_server.url,
        "CAPTIONQ_CALLBACK_SECRETS": f"main:{NEW}",
        "CAPTIONQ_CALLBACK_ALLOW": post.settings.callback_allow,
        "CAPTIONQ_CALLBACK_HTTP": "1",
        "CAPTIONQ_CALLBACK_TIMEOUT_S": "1",
    }
    process = subprocess.Popen([sys.executable, "-m", "tests.courier_process"], env=environment)
    try:
        wait_until(lambda: post.web.hits() == 1)
    finally:
        process.kill()
        process.wait()
    assert post.until("a", Fate.DUE).tried == 0

    with post.couriers():
        one = post.until("a", Fate.DELIVERED)

    assert one.tried == 1
    assert [seen.headers["webhook-id"] for seen in post.web.requests] == [one.webhook_id] * 2


def test_given_a_receiver_that_is_gone_then_nothing_more_is_sent_until_it_is_enabled(
    post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    post.web.routes["/gone"] = [Reply(410), Reply(200)]
    monkeypatch.setenv("CAPTIONQ_BROKER_URL", post.url)

    def run(*words: str) -> str:
        return CliRunner().invoke(cli, ["callbacks", *words]).output

    with post.couriers():
        post.end("a", "/gone?key=hidden")
        assert [each.status for each in post.until("a", Fate.DROPPED).tries] == [410]
        post.end("b", "/gone?key=hidden")
        post.end("c")
        assert post.until("b", Fate.DROPPED).tried == 0
        post.until("c", Fate.DELIVERED)
        assert post.web.hits("/gone") == 1
        assert post.letters() == []

        url = post.web.url("/gone?key=hidden")
        assert f"callbacks enable '{url}'" in run("list")
        assert "nothing kept" in run("enable", post.web.url("/gone"))
        assert run("enable", url) == "enabled\n"
        assert "is due" in run("replay", "b")
        assert post.until("b", Fate.DELIVERED).tried == 1
        post.end("d", "/gone?key=hidden")
        post.until("d", Fate.DELIVERED)

    assert "dropped" in run("list", "--state", "dropped")
    shown = run("show", "a")
    assert "410 in " in shown
    assert "hidden" not in shown
    assert "no callback of 'never'" in run("show", "never")


def test_given_more_urls_that_are_gone_than_are_kept_then_the_oldest_is_forgotten(
    post: Post,
) -> None:
    post.web.routes["/gone"] = [Reply(410)]
    key = "captionq:callbacks:gone"
    with redis.Redis.from_url(post.url) as client, post.couriers():
        client.zadd(key, {f"https://example.com/{n}": n for n in range(MOST_KEPT)})
        post.end("a", "/gone")
        post.until("a", Fate.DROPPED)
        assert client.zcard(key) == MOST_KEPT
    first, second = post.outbox.disabled(2)
    assert (first, second) == (post.web.url("/gone"), f"https://example.com/{MOST_KEPT - 1}")


def test_given_a_receiver_that_asks_to_be_left_alone_then_it_is_for_as_long_as_it_says(
    post: Post,
) -> None:
    post.web.routes["/hook"] = [Reply(429, headers={"Retry-After": "2", "Content-Length": "0"})]
    post.end("a")
    with post.couriers():
        wait_until(lambda: bool(post.until("a", Fate.DUE).tries))
        post.web.routes["/hook"] = [Reply(200)]
        one = post.until("a", Fate.DELIVERED)

    first, second = one.tries
    assert (first.status, second.status) == (429, 200)
    assert first.next_at is not None
    assert (second.at - first.at).total_seconds() >= 1.9


def test_given_secrets_that_are_changed_then_receivers_with_either_can_verify(post: Post) -> None:
    post.end("a")
    post.end("b", secret_id="other")
    post.end("c", secret_id="unknown")
    post.end("mine", secret_id="main", owner="main")
    post.end("theirs", secret_id="main", owner="other")

    with post.couriers():
        for job_id in ("a", "b", "mine"):
            post.until(job_id, Fate.DELIVERED)
        for job_id in ("c", "theirs"):
            post.until(job_id, Fate.DEAD)

    by_job = {json.loads(seen.body)["data"]["job_id"]: seen for seen in post.web.requests}
    assert read(by_job["a"], OLD) == read(by_job["a"], NEW)
    assert read(by_job["b"], OTHER)["data"]["job_id"] == "b"
    with pytest.raises(Exception, match="No matching signature"):
        read(by_job["b"], NEW)
    letters = {letter.job_id: letter.code for letter in post.letters()}
    assert letters == dict.fromkeys(("c", "theirs"), "callback_secret_unknown")
    assert "theirs" not in by_job


def test_given_all_that_was_done_then_no_secret_is_in_redis_in_logs_or_in_what_is_sent(
    post: Post, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    post.web.routes["/hook"] = [Reply(500), Reply(200)]
    post.end("a")
    post.end("b", secret_id="unknown")
    with post.couriers():
        post.until("a", Fate.DELIVERED)
        post.until("b", Fate.DEAD)

    with redis.Redis.from_url(post.url) as client:
        kept = b"".join(key + (client.dump(key) or b"") for key in client.scan_iter())
        kept += repr([client.hgetall(k) for k in client.scan_iter(_type="HASH")]).encode()
    sent = b"".join(seen.body + repr(seen.headers).encode() for seen in post.web.requests)
    said = repr(post.settings) + "".join(map(post.settings.shown, WorkerSettings.model_fields))
    everything = kept + sent + caplog.text.encode() + said.encode()
    for whsec in (OLD, NEW, OTHER):
        written = whsec.removeprefix("whsec_").encode()
        assert written not in everything
        assert base64.b64decode(written) not in everything
    assert post.settings.shown("callback_secrets") == "main:***,main:***,other:***"


def test_given_a_url_with_a_password_then_that_is_in_no_log_no_reason_and_no_key(
    post: Post, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    post.end("a", "https://user:p@ss@Example.com:444/hook")
    with post.couriers():
        post.until("a", Fate.DEAD)

    (letter,) = post.letters()
    assert letter.reason.startswith("callback to https://example.com:444 of a: ")
    with redis.Redis.from_url(post.url) as client:
        keys = b" ".join(client.scan_iter()) + b" ".join(client.zrange("captionq:callbacks", 0, -1))
    assert "ss@" not in caplog.text + letter.reason + keys.decode()


def test_given_a_batch_then_its_end_is_told_once_with_its_counts(post: Post) -> None:
    post.store.open_batch("b", Callback(url=post.web.url("/hook"), secret_id="main"), "main")
    post.store.create_many([job(f"{n}", batch_id="b") for n in range(3)])
    for n, state in enumerate([JobState.SUCCEEDED, JobState.SUCCEEDED, JobState.FAILED]):
        post.store.finish(ended(f"{n}", state))
    with post.couriers():
        time.sleep(0.2)
        assert post.web.hits() == 0
        post.store.close_batch("b")
        post.until("b", Fate.DELIVERED)

    (seen,) = post.web.requests
    told = read(seen)
    assert told["type"] == "batch.completed"
    assert (told["data"]["batch_id"], told["data"]["total"]) == ("b", 3)
    assert told["data"]["counts"]["succeeded"] == 2
    assert told["data"]["counts"]["failed"] == 1


def test_given_a_receiver_that_never_accepts_then_a_dead_letter_is_kept_and_can_be_replayed(
    post: Post,
) -> None:
    post.web.routes["/hook"] = [Reply(500)]
    post.end("a")
    with post.couriers(callback_scale=0.000_001):
        one = post.until("a", Fate.DEAD)
        assert one.tried == len(one.tries) == 10
        (letter,) = post.letters()
        assert (letter.code, letter.attempts, letter.job_id) == ("callback_failed", 10, "a")
        with redis.Redis.from_url(post.url) as client:
            client.delete("captionq:job:a", f"captionq:callback:{one.webhook_id}")
        post.web.routes["/hook"] = [Reply(200)]
        with closing(DeadLetters(post.url)) as letters:
            assert letters.replay(letter, lambda job: pytest.fail("it is no job"))
        again = post.until(one.webhook_id, Fate.DELIVERED)

    assert post.letters() == []
    assert (again.webhook_id, again.tried) == (one.webhook_id, 1)
    assert len({seen.body for seen in post.web.requests}) == 1
    assert len({seen.headers["webhook-id"] for seen in post.web.requests}) == 1


def test_given_a_job_and_its_callback_that_were_both_given_up_then_its_id_names_the_job_s_letter(
    post: Post,
) -> None:
    told = Callback(url="http://10.0.0.7/hook", secret_id="main")
    one = job("a", callback=told)
    post.store.create(one)
    at = utcnow().isoformat()
    letter = {"job_id": "a", "code": "job_poisoned", "at": at, "job": one.model_dump_json()}
    post.store.finish(ended("a", JobState.FAILED), letter)
    with post.couriers():
        post.until("a", Fate.DEAD)

    with closing(DeadLetters(post.url)) as letters:
        codes = []
        while (found := letters.get("a")) is not None:
            codes.append(found.code)
            letters.remove(found.entry)
    assert codes == ["job_poisoned", "url_blocked"]


def test_given_what_the_docs_say_by_hand_then_it_tells_genuine_requests_from_others(
    post: Post,
) -> None:
    text = (Path(__file__).parents[2] / "docs" / "callbacks.md").read_text()
    (by_hand,) = re.findall(r"```python\n(import base64.*?)```", text, re.DOTALL)
    said: dict[str, Any] = {}
    exec(by_hand, said)
    post.end("a")
    with post.couriers():
        wait_until(lambda: post.web.hits() == 1)
    (seen,) = post.web.requests
    headers = dict(seen.headers)
    late = str(int(headers["webhook-timestamp"]) - 301)

    assert all(said["genuine"](seen.body, headers, one) for one in (OLD, NEW))
    assert not said["genuine"](seen.body, headers, OTHER)
    assert not said["genuine"](seen.body + b" ", headers, NEW)
    assert not said["genuine"](seen.body, headers | {"webhook-timestamp": late}, NEW)


def test_given_many_results_for_one_receiver_then_they_are_told_of_one_after_the_other_at_once(
    post: Post,
) -> None:
    for n in range(100):
        post.end(f"{n}")
    began_s = time.monotonic()
    with post.couriers():
        wait_until(lambda: post.web.hits() == 100)

    assert time.monotonic() - began_s < 5  # and not two each time that somebody looks


def test_given_a_host_that_is_slow_then_it_holds_up_no_other(post: Post) -> None:
    with ScriptedHttp({"/hook": [Reply(200, delay_s=30)]}) as slow:
        allowed = f"127.0.0.1/32:{post.web.port},127.0.0.1/32:{slow.port}"
        for n in range(20):
            post.end(f"slow{n}", slow.url("/hook"))
        post.end("quick")
        with post.couriers(callback_allow=allowed, callback_threads=3):
            one = post.until("quick", Fate.DELIVERED)
            assert slow.hits() == 1  # within the two seconds that one try may take
        assert (one.tries[0].at - one.created_at).total_seconds() < 2


def test_given_a_hundred_hosts_that_are_slow_then_one_that_was_quick_waits_for_none(
    post: Post,
) -> None:
    with ExitStack() as stack:
        silent = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(100)]
        post.end("first")
        with post.couriers(callback_allow="127.0.0.1/32:*"):
            post.until("first", Fate.DELIVERED)
            for each in silent:
                host, port = each.getsockname()
                post.end(f"{port}", f"http://{host}:{port}/")
            for n in range(10):
                post.end(f"quick{n}")
            told = [post.until(f"quick{n}", Fate.DELIVERED) for n in range(10)]
            left = sum(one.state is Fate.DUE and not one.tried for one in post.outbox.log(200))
    assert left > 80
    assert max((one.tries[0].at - one.created_at).total_seconds() for one in told) < 2


def test_given_an_answer_that_is_long_or_breaks_off_then_the_status_counts(post: Post) -> None:
    post.web.routes |= {
        "/long": [Reply(200, b"x" * 10_000_000)],
        "/broken": [Reply(200, b"x" * 1_000, truncate_at=10)],
    }
    post.end("a", "/long")
    post.end("b", "/broken")
    with post.couriers():
        for job_id in "ab":
            assert post.until(job_id, Fate.DELIVERED).tried == 1


def test_given_a_job_that_is_replayed_before_its_failure_was_told_then_that_is_not_told(
    post: Post,
) -> None:
    told = Callback(url=post.web.url("/hook"), secret_id="main")
    one = job("a", callback=told)
    post.store.create(one)
    post.store.finish(ended("a", JobState.FAILED), {"job_id": "a"})
    reopen = Ledger(10, 100).reopen(WireJob.of(one), "1-1")
    with redis.Redis.from_url(post.url) as client:
        client.register_script(reopen.script)(reopen.keys, reopen.args)
    post.store.finish(ended("a"))

    with post.couriers():
        post.until("a", Fate.DELIVERED)

    assert [read(seen)["type"] for seen in post.web.requests] == ["job.succeeded"]


def test_given_a_job_that_waits_anew_then_what_is_told_of_its_first_end_leaves_its_record_alone(
    post: Post,
) -> None:
    one = job("a", callback=Callback(url=post.web.url("/hook"), secret_id="main"))
    post.store.create(one)
    post.store.finish(ended("a", JobState.FAILED), {"job_id": "a"})
    with post.couriers(), redis.Redis.from_url(post.url) as client:
        first = post.until("a", Fate.DELIVERED).webhook_id
        reopen = Ledger(10, 1_000).reopen(WireJob.of(one), "1-1")
        client.register_script(reopen.script)(reopen.keys, reopen.args)
        post.outbox.replay(first)
        post.until(first, Fate.DROPPED)
        assert client.ttl("captionq:job:a") > 900


def test_given_nothing_that_is_due_then_couriers_cost_next_to_nothing(post: Post) -> None:
    def calls() -> int:
        with redis.Redis.from_url(post.url) as client:
            return int(client.info("stats")["total_commands_processed"])

    with post.couriers(LOOK_EVERY_S, callback_threads=8):
        time.sleep(0.3)
        before, began_s = calls(), time.monotonic()
        time.sleep(1.0)
        asked = calls() - before

    assert asked <= 12 * (time.monotonic() - began_s)  # a script of one command, twice a second


def test_given_a_redis_that_restarts_then_what_is_due_is_sent_after_it() -> None:
    with RedisServer() as server, ScriptedHttp({"/hook": [Reply(200)]}) as web:
        post = Post(server.url, web)
        with post.couriers():
            time.sleep(0.2)
            server.kill()
            time.sleep(0.7)
            server.start()
            post.end("a")
            post.until("a", Fate.DELIVERED)
        post.close()
