"""A line between a client and a server that a test can disturb."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Proxy:
    """Passes on what comes in at a port of 127.0.0.1 to a server, and its answers back.

    Attributes:
        port: Where it listens.
        swallow_answers: Whether what the server says is thrown away.
    """

    def __init__(self, host: str, port: int) -> None:
        self._target = host, port
        self._server: asyncio.Server | None = None
        self._pairs: set[asyncio.StreamWriter] = set()
        self._pumps: set[asyncio.Task[None]] = set()
        self._moving = asyncio.Event()
        self._moving.set()
        self.port = 0
        self.swallow_answers = False

    async def open(self) -> None:
        """Listen, at the same port as before."""
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        """Break every connection, and refuse new ones until ``open``."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        for writer in self._pairs:
            writer.transport.abort()
        pumps = tuple(self._pumps)
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)
        self._pairs.clear()

    def freeze(self) -> None:
        """Pass nothing on, as when a cable is pulled: connections stay, and are taken, but are silent."""
        self._moving.clear()

    def thaw(self) -> None:
        """Go on, with what was held back."""
        self._moving.set()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._pumps.add(task)
        self._pairs.add(writer)
        try:
            there = await asyncio.open_connection(*self._target)
            self._pairs.add(there[1])
            await asyncio.gather(self._pump(reader, there[1]), self._pump(there[0], writer, answers=True))
        except (OSError, asyncio.CancelledError):
            writer.transport.abort()
        finally:
            self._pumps.discard(task)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool = False) -> None:
        while data := await reader.read(65536):
            await self._moving.wait()
            if not (answers and self.swallow_answers):
                writer.write(data)
                await writer.drain()
        with contextlib.suppress(OSError):
            writer.write_eof()


@contextlib.asynccontextmanager
async def between(host: str, port: int) -> AsyncIterator[Proxy]:
    """Give an open proxy to a server."""
    proxy = Proxy(host, port)
    await proxy.open()
    try:
        yield proxy
    finally:
        await proxy.cut()
