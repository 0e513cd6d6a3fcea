"""The whole service by TLS alone, with a private authority and certificates of clients."""

import json
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import redis
from kombu.exceptions import OperationalError
from redis.backoff import NoBackoff
from redis.retry import Retry

from producer import AsyncClient, CaptionJob, Client, JobState
from producer.celery_app import celery_app, results_at
from producer.errors import StoreUnavailable
from producer.redis_at import redis_at, with_master
from producer.redis_server import Address
from producer.redis_store import RedisStore
from producer.settings import ProducerSettings
from tests.flower_process import flower_at, get, until
from tests.house import House, open_house
from tests.redis_family import MASTER, TlsServer, certificates, knows_tls, sentinel, signed
from worker.transport import transport_for

TIMEOUT_S = 60


@pytest.fixture(scope="module")
def tls_server(tmp_path_factory: pytest.TempPathFactory) -> TlsServer:
    if not knows_tls():
        pytest.skip("no TLS: this redis-server is built without; apt-get install redis-server")
    folder = tmp_path_factory.mktemp("tls")
    return TlsServer(folder / "redis", certificates(folder))


@pytest.fixture(scope="module")
def tls_house(tls_server: TlsServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with open_house(tmp_path_factory.mktemp("house"), tls_server) as opened:
        yield opened


def test_given_certificates_in_the_url_jobs_and_retries_go_by_tls(tls_house: House) -> None:
    assert tls_house.broker.url.startswith("rediss://")
    good = tls_house.client.submit(CaptionJob(image=tls_house.web.url("/ok.png")))
    tried_again = tls_house.client.submit(CaptionJob(image=tls_house.web.url("/busy.png")))
    assert good.result(TIMEOUT_S).state is JobState.SUCCEEDED
    assert tried_again.result(TIMEOUT_S).attempts == 3


async def test_given_certificates_in_the_url_the_asyncio_client_has_results(
    tls_house: House,
) -> None:
    async with AsyncClient(tls_house.broker.url) as client:
        handle = await client.submit(CaptionJob(image=tls_house.web.url("/ok.png")))
        assert (await handle.result(TIMEOUT_S)).state is JobState.SUCCEEDED


def test_given_certificates_in_the_url_flower_sees_workers_and_queues(
    tls_house: House, tmp_path: Path
) -> None:
    with flower_at(tmp_path, {"CAPTIONQ_BROKER_URL": tls_house.broker.url}) as flower:
        until(lambda: json.loads(get(flower, "/api/workers?refresh=1")))
        assert b"captionq.caption.bulk" in get(flower, "/broker")


def test_given_no_certificate_or_no_trust_nothing_is_let_in(
    tls_house: House, tls_server: TlsServer
) -> None:
    plain = tls_house.broker.url.partition("?")[0]
    without_own = plain + tls_server._trusted.query(client=False)
    for url in (plain, without_own, plain.replace("rediss://", "redis://")):
        store = RedisStore(url, socket_timeout_s=2)
        with pytest.raises(StoreUnavailable):
            store.get("any")
        store.close()
    with redis.Redis.from_url(tls_house.broker.url) as trusted:
        assert trusted.ping()


async def test_given_a_sentinel_that_speaks_tls_alone_all_reach_its_master(
    tls_house: House, tls_server: TlsServer, tmp_path: Path
) -> None:
    at, sentinel_at = tls_server._trusted, Address.fresh()
    tls = f"port 0\ntls-port {sentinel_at.port}\ntls-replication yes\ntls-auth-clients yes\n"
    files = {"cert": "server.pem", "key": "server.key", "ca-cert": "ca.pem"}
    tls += "".join(f"tls-{kind}-file {at.folder}/{file}\n" for kind, file in files.items())
    url = (
        f"sentinel://:{tls_server._address.password}@127.0.0.1:{sentinel_at.port}/0"
        f"{at.query()}&sentinel_password={sentinel_at.password}"
    )
    settings = ProducerSettings(sentinel_master=MASTER)
    image = tls_house.web.url("/ok.png")
    word = tls_server._address.password
    with sentinel(tmp_path / "s", sentinel_at, tls_server, word, quorum=1, before=tls):
        with redis_at(with_master(url, MASTER)) as asked:
            until(lambda: _named(asked))
        with Client(url, settings=settings) as client:
            assert client.submit(CaptionJob(image=image)).result(TIMEOUT_S).captions
        async with AsyncClient(url, settings=settings) as other:
            handle = await other.submit(CaptionJob(image=image))
            assert (await handle.result(TIMEOUT_S)).state is JobState.SUCCEEDED
        app = celery_app(url, MASTER, {}, set_as_current=False)
        app.conf.update(results_at(with_master(url, MASTER)), broker_transport=transport_for(url))
        with app.connection_for_read() as connection:
            connection.ensure_connection(max_retries=1)
        assert app.backend.get("nothing") is None
        environment = {"CAPTIONQ_BROKER_URL": url, "CAPTIONQ_SENTINEL_MASTER": MASTER}
        (tmp_path / "flower").mkdir()
        with flower_at(tmp_path / "flower", environment) as flower:
            until(lambda: json.loads(get(flower, "/api/workers?refresh=1")))
            assert b"captionq.caption.bulk" in get(flower, "/broker")
    app.close()


def _named(asked: redis.Redis) -> bool:
    try:
        return bool(asked.ping())
    except redis.ConnectionError:
        return False


@contextmanager
def listening(certificate: str) -> Iterator[tuple[int, list[bytes]]]:
    """Its port, and what it was told by whoever trusts it."""
    heard: list[bytes] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def listen() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with (
                    suppress(OSError),
                    connection,
                    context.wrap_socket(connection, server_side=True) as trusted,
                ):
                    heard.append(trusted.recv(1_000))

        thread = threading.Thread(target=listen)
        thread.start()
        try:
            yield server.getsockname()[1], heard
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.fixture(scope="module")
def authorities(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return certificates(tmp_path_factory.mktemp("authorities")).folder


@pytest.mark.parametrize(
    ("what", "trusted"),
    [
        ({}, True),
        ({"of": "DNS:redis.example"}, False),
        ({"by": "server"}, False),
        ({"days": -1}, False),
    ],
    ids=["good", "of another name", "of another authority", "expired"],
)
def test_given_a_certificate_that_is_not_good_no_password_is_told(
    authorities: Path, what: dict[str, Any], trusted: bool
) -> None:
    with listening(signed(authorities, f"{what}", **what)) as (port, heard):
        for said in (f"?ssl_ca_certs={authorities}/ca.pem", ""):
            url = f"rediss://:word@127.0.0.1:{port}/0{said}"
            app = celery_app(url, MASTER, {}, set_as_current=False)
            never = Retry(NoBackoff(), 0)
            with redis_at(url, retry=never) as client, pytest.raises(redis.ConnectionError):
                client.ping()
            with app.connection() as connection, pytest.raises(OperationalError):
                connection.ensure_connection(max_retries=1, interval_start=0)
            if said:
                amqp = url.replace("rediss:", "amqps:")
                rabbit = celery_app(amqp, MASTER, {}, set_as_current=False)
                with rabbit.connection() as connection, pytest.raises(OperationalError):
                    connection.ensure_connection(max_retries=1, interval_start=0)
                assert any(one.startswith(b"AMQP") for one in heard) is trusted
                assert bool(heard) is trusted
                heard.clear()
        assert heard == []


def test_given_a_url_of_tls_that_says_no_more_celery_speaks_no_other_language() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"rediss://:word@127.0.0.1:{server.getsockname()[1]}/0"
        app = celery_app(url, MASTER, {"socket_timeout": 0.2}, set_as_current=False)
        app.conf.broker_transport = transport_for(url)  # as a worker
        with app.connection() as connection, pytest.raises(OperationalError):
            connection.ensure_connection(max_retries=1, interval_start=0)
        told, _ = server.accept()
        with told:
            assert told.recv(1) == b"\x16"  # a handshake
        assert results_at(url)["result_backend"] == f"{url}?ssl_cert_reqs=required"
