"""A TCP proxy whose connections can be frozen, cut and refused."""

import asyncio
import contextlib
import ssl
import threading
from types import TracebackType
from typing import Any, Self

CHUNK_BYTES = 65_536


class Proxy:
    """Passes connections to 127.0.0.1:`port` on, from `self.port`, in a thread of its own.

    `tls` makes it the end of a TLS connection, before a server that speaks none.
    """

    def __init__(self, port: int, tls: ssl.SSLContext | None = None) -> None:
        self._target = port
        self._loop = asyncio.new_event_loop()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._refusing = False
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server = self._do(
            asyncio.start_server(self._accept, "127.0.0.1", 0, backlog=128, ssl=tls)
        )
        self.port: int = self._server.sockets[0].getsockname()[1]

    def freeze(self) -> None:
        """Pass nothing on, as a network that drops packets; connections stay."""
        self._do(self._set_flowing(False))

    def thaw(self) -> None:
        """Pass on again, first what was held up."""
        self._do(self._set_flowing(True))

    def cut(self) -> None:
        """Reset all connections; new ones are taken."""
        self._do(self._reset())

    def refuse(self, refusing: bool) -> None:
        """Reset all connections, and every new one, until told otherwise."""
        self._refusing = refusing
        if refusing:
            self.cut()

    def close(self) -> None:
        """Reset all connections and end."""
        self.refuse(True)
        self.thaw()
        self._do(self._stop_accepting())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _do(self, step: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(step, self._loop).result(10)

    async def _set_flowing(self, flowing: bool) -> None:
        if flowing:
            self._flowing.set()
        else:
            self._flowing.clear()

    async def _stop_accepting(self) -> None:
        self._server.close()

    async def _reset(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refusing:
            writer.transport.abort()
            return
        self._writers.add(writer)
        try:
            await self._flowing.wait()
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            self._writers.discard(writer)
            writer.transport.abort()
            return
        self._writers.add(far_writer)
        pumps = [
            asyncio.create_task(self._pump(reader, far_writer)),
            asyncio.create_task(self._pump(far_reader, writer)),
        ]
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        for end in (writer, far_writer):
            self._writers.discard(end)
            end.transport.abort()
        await asyncio.gather(*pumps, return_exceptions=True)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK_BYTES):
                await self._flowing.wait()
                writer.write(data)
                await writer.drain()
