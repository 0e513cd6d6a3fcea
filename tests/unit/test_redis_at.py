"""URLs of Redis, read."""

import ssl

import pytest
import redis
from amqp import RecoverableConnectionError
from kombu.exceptions import OperationalError
from redis.backoff import NoBackoff
from redis.retry import Retry

from producer import CaptionJob, Client
from producer.celery_app import celery_app
from producer.errors import BrokerUnavailable
from producer.memory_store import MemoryStore
from producer.publisher import Publisher
from producer.rabbitmq import celery_settings, delay_s, queue_named
from producer.redis_at import Sentinels, async_redis_at, redis_at
from producer.settings import ProducerSettings
from worker.transport import transport_for


def test_given_a_url_of_sentinels_the_first_says_what_redis_itself_is_told() -> None:
    read = Sentinels.of("sentinel://me:p%40ss@a:1/3;sentinel://b;sentinel://c:3#blue")
    assert read.hosts == (("a", 1), ("b", 26_379), ("c", 3))
    assert (read.master, read.login) == (
        "blue",
        {"db": 3, "username": "me", "password": "p@ss"},
    )
    assert Sentinels.of("sentinel://a").master == "mymaster"


def test_given_a_query_of_sentinels_it_says_who_we_are_to_them_and_which_certificates() -> None:
    read = Sentinels.of(
        "sentinel://me:p%40ss@a:1/3?sentinel_username=asker&sentinel_password=s%26t"
        "&ssl_ca_certs=/ca.pem;sentinel://[::1]:2"
    )
    assert read.asking == ("asker", "s&t")
    assert read.tls == {"ssl_ca_certs": "/ca.pem", "ssl_cert_reqs": ssl.CERT_REQUIRED}
    assert read.celery_url == "sentinel://me:p%40ss@a:1/3;sentinel://[::1]:2"
    assert "s&t" not in str(read.sentinel_kwargs)


def test_given_sentinels_that_do_not_answer_a_connection_keeps_password_and_transport() -> None:
    """kombu would take the next URL, which has neither."""
    url = "sentinel://me:word@127.0.0.1:1/3;sentinel://127.0.0.1:2;sentinel://127.0.0.1:3"
    app = celery_app(url, "blue", {}, set_as_current=False)
    app.conf.broker_transport = transport_for(url)
    app.conf.broker_transport_options["sentinel_kwargs"]["retry"] = Retry(NoBackoff(), 0)
    with app.connection_for_write() as connection:
        with pytest.raises(OperationalError):
            connection.ensure_connection(max_retries=2, interval_start=0, interval_step=0)
        assert connection.transport_cls == transport_for(url)
        assert (connection.userid, connection.password) == ("me", "word")
        assert (connection.virtual_host, len(connection.alt)) == ("3", 3)


@pytest.mark.parametrize(
    "url",
    [
        "sentinel://a:1;redis://b:2",
        "sentinel://a:1?password=x",
        "sentinel://a:1;sentinel://b?ssl_x=1",
        "sentinel://a:1?ssl_cert_reqs=maybe",
        "sentinel://a:1;b:2",
        "sentinel://a:1/name",
        "sentinel://",
    ],
)
def test_given_a_url_that_is_none_of_sentinels_it_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"sentinel|database|ssl_cert_reqs"):
        Sentinels.of(url)
    with pytest.raises(ValueError, match=r"RESULTS_URL|results_url"):
        ProducerSettings(results_url=url)
    with pytest.raises(ValueError, match=r"BROKER_URL|broker_url"):
        ProducerSettings(broker_url=url)


@pytest.mark.parametrize("url", ["host", "unix:///tmp/s", "http://host", "redis://host:99999/0"])
def test_given_a_url_that_is_no_brokers_settings_say_so(url: str) -> None:
    with pytest.raises(ValueError, match=r"BROKER_URL|broker_url"):
        ProducerSettings(broker_url=url)


async def test_given_no_sentinel_that_answers_no_connection_is_left_open() -> None:
    client = redis_at("sentinel://127.0.0.1:1", socket_timeout=1)
    with pytest.raises(redis.ConnectionError):
        client.ping()
    client.close()
    other = async_redis_at("sentinel://127.0.0.1:1", socket_timeout=1)
    with pytest.raises(redis.ConnectionError):
        await other.ping()
    await other.aclose()


def test_given_a_master_in_the_settings_results_are_asked_of_it() -> None:
    settings = ProducerSettings(sentinel_master="blue", results_url="sentinel://a:1")
    assert settings.results_url_beside("amqp://host") == "sentinel://a:1#blue"
    assert settings.results_url_beside("redis://host", "sentinel://b#red") == "sentinel://b#red"


def test_given_a_broker_only_rabbitmq_is_told_of_kinds() -> None:
    assert celery_settings("redis://host", "quorum") == {}
    plain = queue_named("q", "redis://host", "quorum")
    assert (plain.exchange.type, plain.queue_arguments) == ("direct", None)
    replicated = queue_named("q", "amqp://host", "quorum")
    assert (replicated.exchange.type, replicated.queue_arguments) == (
        "topic",
        {"x-queue-type": "quorum"},
    )


@pytest.mark.parametrize(
    ("url", "kind", "waits_s"),
    [
        ("redis://host", "quorum", 0.4),
        ("amqp://host", "classic", 0.4),
        ("amqp://host", "quorum", 1),
    ],
)
def test_given_a_wait_of_less_than_a_second_celery_is_never_told_of_none(
    url: str, kind: str, waits_s: float
) -> None:
    assert delay_s(url, kind, 0.4) == waits_s  # type: ignore[arg-type]


@pytest.mark.parametrize("url", ["amqp://host", "amqps://host"])
def test_given_rabbitmq_it_confirms_what_it_is_sent(url: str) -> None:
    app = celery_app(url, "blue", {"read_timeout": 1}, set_as_current=False)
    assert app.conf.broker_transport_options == {"confirm_publish": True, "read_timeout": 1}


def test_given_rabbitmq_hangs_up_while_sending_the_client_says_that_it_is_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def hang_up(*_: object) -> None:
        raise RecoverableConnectionError("Server unexpectedly closed connection")

    monkeypatch.setattr(Publisher, "_send", hang_up)
    settings = ProducerSettings(submit_timeout_s=0.2)
    client = Client(
        "amqp://127.0.0.1:1//", "redis://127.0.0.1:1", settings=settings, store=MemoryStore()
    )
    with client, pytest.raises(BrokerUnavailable, match="unexpectedly"):
        client.submit(CaptionJob(image="https://example.com/cat.jpg"))
