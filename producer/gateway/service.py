"""What the routes of a gateway share: `request.app.state.service`."""

import asyncio
from contextlib import suppress

from producer.async_client import AsyncClient
from producer.async_redis_store import AsyncRedisStore
from producer.gateway.accepted import Accepted
from producer.gateway.access import Access
from producer.gateway.settings import GatewaySettings
from producer.gateway.submitter import Submitter


class Service:
    """Settings, client and store of one gateway process.

    `store` is there once the app has started (`open`).
    """

    store: AsyncRedisStore

    def __init__(self, settings: GatewaySettings) -> None:
        self.settings = settings
        self.access = Access(settings.api_keys)
        self.accepted = Accepted(settings)
        self.client = AsyncClient(settings=settings)
        self.submitter = Submitter(self.client)
        self._background: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        """Begin. Redis need not be there yet."""
        self.store = await self.client.open()
        self._background.append(asyncio.create_task(self.access.keep_up()))

    async def close(self) -> None:
        """Send what has come, and close the connections."""
        await self.submitter.close()
        for task in self._background:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        await self.client.close()
