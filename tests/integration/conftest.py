"""Applications as users build them, in the process and as servers of their own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from fastapi import FastAPI

from fastapi_taskflow.stores.sql import SqlStore
from tests import postgresql

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator


@contextlib.asynccontextmanager
async def serving(app: FastAPI, *, root_path: str = "") -> AsyncIterator[httpx.AsyncClient]:
    """Run the app's lifespan around a client that calls it in this loop."""
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app, root_path=root_path)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            yield client


@dataclass
class Server:
    """A uvicorn of our own."""

    process: subprocess.Popen[bytes]
    url: str

    def kill(self) -> None:
        """End it, with all of its workers, as a power cut does."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)

    def terminate(self) -> int:
        """End it as a deployment does; return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(40)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database, of each kind in turn."""
    if request.param == "sqlite":
        yield f"sqlite+aiosqlite:///{tmp_path / 'app.db'}"
    else:
        with postgresql.database() as made:
            yield made


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a SQLite database is to be."""
    return tmp_path / "tasks.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqlStore]:
    """An open SQLite store there."""
    made = SqlStore(path)
    await made.open()
    yield made
    await made.close()


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Return a function that starts ``app.py`` with the given source under uvicorn, and waits until it answers."""
    with servers_in(tmp_path) as start:
        yield start


@contextlib.contextmanager
def servers_in(folder: Path) -> Iterator[Callable[..., Server]]:
    """Give what the fixture ``start_server`` gives, for servers with this working directory."""
    started: list[Server] = []

    def start(source: str, *arguments: str, ready: str = "/ready", **environment: str) -> Server:
        (folder / "app.py").write_text(source)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        uvicorn = [sys.executable, "-m", "uvicorn", "app:app", "--port", str(port), "--log-level", "warning"]
        command = [*uvicorn, *arguments]
        # In a session of its own: workers would outlive a parent that was killed.
        process = subprocess.Popen(command, cwd=folder, env={**os.environ, **environment}, start_new_session=True)
        server = Server(process, f"http://127.0.0.1:{port}")
        started.append(server)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            assert process.poll() is None, f"the server ended with {process.returncode}"
            with contextlib.suppress(httpx.TransportError):
                httpx.get(server.url + ready, timeout=2)
                return server
            time.sleep(0.05)
        pytest.fail("the server did not answer within 30 s")

    try:
        yield start
    finally:
        for server in started:
            server.kill()


def wait_for(get: Callable[[], Any], done: Callable[[Any], bool], *, within: float = 15.0) -> Any:
    """Ask again and again until ``done`` says yes; fail with the last answer."""
    deadline = time.monotonic() + within
    while True:
        answer = get()
        if done(answer):
            return answer
        if time.monotonic() > deadline:
            pytest.fail(f"not within {within:g} s; the last answer was {answer!r}")
        time.sleep(0.02)


async def eventually(get: Callable[[], Any], done: Callable[[Any], bool], *, within: float = 15.0) -> Any:
    """Await ``get()`` again and again until ``done`` says yes; fail with the last answer."""
    async with asyncio.timeout(within):
        while not done(answer := await get()):  # noqa: ASYNC110 - what is waited for is seen over HTTP only
            await asyncio.sleep(0.01)
    return answer
