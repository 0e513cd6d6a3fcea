"""The server of tools, wired and run until its agent goes."""

from pathlib import Path

import anyio

from producer.agents.image import Images
from producer.agents.jobs import Jobs
from producer.agents.server import Tools, server_of
from producer.async_client import AsyncClient
from producer.index.place import Place
from producer.settings import ProducerSettings


def serve(
    settings: ProducerSettings,
    root: Path | None,
    index: str | None,
    timeout_s: float,
    port: int | None,
    version: str,
) -> None:
    """Serve stdin and stdout until they close, or, with a port, 127.0.0.1 until a signal."""
    place = Place.of(index, settings)

    async def until_it_goes() -> None:
        async with AsyncClient(settings=settings) as client:
            tools = Tools(Jobs(client, timeout_s), Images(settings, root), place)
            server = server_of(tools, version)
            if port is None:
                await server.run_stdio_async()
            else:
                await server.run_streamable_http_async(host="127.0.0.1", port=port)

    anyio.run(until_it_goes)
