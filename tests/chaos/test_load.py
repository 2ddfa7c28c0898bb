"""The client believes whole responses only."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING

import pytest

from tests.chaos.load import RefusedError, UnknownOutcomeError, post

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@contextlib.asynccontextmanager
async def answering(answer: bytes) -> AsyncIterator[int]:
    """Serve this answer to every connection, then hang up; give the port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


async def test_a_whole_response_is_told() -> None:
    """Status and body."""
    async with answering(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello") as port:
        assert await post(port, "/add") == (200, b"hello")


@pytest.mark.parametrize(
    "answer",
    [b"", b"HTTP/1.1 200 OK\r\nContent-Len", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell"],
    ids=["nothing", "half a head", "half a body"],
)
async def test_less_than_a_whole_response_is_an_unknown_outcome(answer: bytes) -> None:
    """The server may have been killed right after its commit, or before."""
    async with answering(answer) as port:
        with pytest.raises(UnknownOutcomeError):
            await post(port, "/add")


async def test_a_refused_connection_is_told_apart() -> None:
    """Nothing was sent then."""
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        with pytest.raises(RefusedError):
            await post(unheard.getsockname()[1], "/add")
