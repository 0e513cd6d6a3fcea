"""The short form of tests.gateway_load: nothing is lost, and memory does not grow with jobs."""

from pathlib import Path

from producer.embedded import RedisServer
from tests.gateway_load import Load, Streams, rss_mb, slow_worker
from tests.gateway_process import GatewayProcess


async def test_a_thousand_jobs_and_two_hundred_streams_are_all_answered(tmp_path: Path) -> None:
    with (
        RedisServer(tmp_path / "redis") as server,
        GatewayProcess(server.url, tmp_path / "log") as gateway,
        slow_worker(server.url),
    ):
        load = Load(gateway.port, connections=16)
        await load.send(200, rate=500)
        before_mb = rss_mb(gateway.process.pid)
        await load.send(1_000, rate=500)
        grown_mb = rss_mb(gateway.process.pid) - before_mb
        streams = Streams(gateway.port)
        await streams.hold(200)
        await streams.end(server.url)

    assert load.statuses == {202: 1_200}
    assert grown_mb < 10
