"""A gateway ends when it is told to, at whatever moment."""

import asyncio

from producer.embedded import RedisServer
from producer.gateway.app import create_app
from producer.gateway.settings import GatewaySettings


async def test_given_a_gateway_that_is_told_to_end_while_it_connects_then_it_ends(
    redis_server: RedisServer,
) -> None:
    for number in range(12):
        app = create_app(GatewaySettings(broker_url=redis_server.url))
        async with asyncio.timeout(5), app.router.lifespan_context(app):
            await asyncio.sleep(number * 0.0005)
