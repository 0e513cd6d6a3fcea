"""The whole service by TLS alone, with a private authority and certificates of clients."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from producer import AsyncClient, CaptionJob, JobState
from producer.errors import StoreUnavailable
from producer.redis_store import RedisStore
from tests.flower_process import flower_at, get, until
from tests.house import House, open_house
from tests.redis_family import TlsServer, certificates, knows_tls

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
