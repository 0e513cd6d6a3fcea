"""A gateway ends when it is told to, at whatever moment."""

import asyncio
import contextlib
import signal
import socket
import threading
import time
from pathlib import Path

import httpx

from producer.embedded import RedisServer
from producer.gateway.app import create_app
from producer.gateway.settings import GatewaySettings
from tests.gateway_process import GatewayProcess


async def test_given_a_gateway_that_is_told_to_end_while_it_connects_then_it_ends(
    redis_server: RedisServer,
) -> None:
    for number in range(12):
        app = create_app(GatewaySettings(broker_url=redis_server.url))
        async with asyncio.timeout(5), app.router.lifespan_context(app):
            await asyncio.sleep(number * 0.0005)


def test_given_an_s3_that_never_answers_then_a_gateway_that_is_told_to_end_ends(
    tmp_path: Path,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings = {
            "CAPTIONQ_UPLOAD_TO": "s3://photos/uploads/",
            "CAPTIONQ_S3_ENDPOINT_URL": f"http://127.0.0.1:{silent.getsockname()[1]}",
            "AWS_ACCESS_KEY_ID": "id",
            "AWS_SECRET_ACCESS_KEY": "secret",
        }
        with GatewayProcess("redis://127.0.0.1:1/0", tmp_path / "log", **settings) as gateway:
            sender = threading.Thread(target=upload, args=(gateway.url,))
            sender.start()
            with silent.accept()[0] as taken:
                taken.recv(1)
                gateway.process.send_signal(signal.SIGINT)
                time.sleep(1)
                gateway.process.send_signal(signal.SIGINT)  # do not wait for what is under way
                status = gateway.process.wait(20)
            sender.join()

    assert status == 0
    assert "something of them may be left" in gateway.log.read_text()


def upload(url: str) -> None:
    with contextlib.suppress(httpx.HTTPError):
        httpx.post(
            f"{url}/v1/uploads",
            content=b"\x89PNG\r\n\x1a\n" + b"a" * 1_000,
            headers={"Content-Type": "image/png"},
            timeout=60,
        )
