"""The app under test. Its tasks write evidence; where, and the database, come from the environment."""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import os
import random
import signal
import time
from typing import TYPE_CHECKING, Any, Final

from fastapi import FastAPI

from fastapi_taskflow import ManagedBackgroundTasks, TaskAdmin, TaskManager, get_task_context
from tests.chaos.environment import DATABASE, EVIDENCE, LEASE, SHUTDOWN_TIMEOUT
from tests.chaos.evidence import Event, Witness
from tests.chaos.kinds import KINDS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

STEP: Final = 0.05
"""Seconds between the lines of a slow task."""

faulthandler.register(signal.SIGUSR1)  # a service that hangs is asked where

witness = Witness(os.environ[EVIDENCE])
task_manager = TaskManager(
    snapshot_backend=os.environ[DATABASE], requeue_pending=True, lease=LEASE, shutdown_timeout=SHUTDOWN_TIMEOUT
)
task = task_manager.task


class NotYetError(Exception):
    """The first attempt of a task that fails first."""


@contextlib.contextmanager
def witnessed() -> Iterator[tuple[int, Callable[[], None]]]:
    """Write start and end of the running task; give its attempt, and what writes a line between."""
    context = get_task_context()
    if context is None:
        msg = "there is no task here"
        raise RuntimeError(msg)
    facts = (context.task_id, context.func_name, context.attempt)
    witness.write(Event.START, *facts)
    try:
        yield context.attempt, lambda: witness.write(Event.STEP, *facts)
    except NotYetError:
        witness.write(Event.FAIL, *facts)
        raise
    except BaseException:
        witness.write(Event.STOPPED, *facts)
        raise
    witness.write(Event.END, *facts)


async def in_steps(seconds: float) -> None:
    """Take that long, and write a line now and then."""
    with witnessed() as (_, step):
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            await asyncio.sleep(STEP)
            step()


@task()
async def quick() -> None:
    """Never wait."""
    with witnessed():
        pass


@task()
def in_thread() -> None:
    """Be sync."""
    with witnessed():
        time.sleep(random.uniform(0.0, 0.02))


@task(requeue_on_interrupt=True)
async def again() -> None:
    """Run at least once."""
    with witnessed():
        await asyncio.sleep(random.uniform(0.0, 0.05))


@task(requeue_on_interrupt=True)
async def slow() -> None:
    """Run at least once, and long enough to be hit."""
    await in_steps(random.uniform(0.1, 1.0))


@task()
async def slow_once() -> None:
    """Run at most once, and long enough to be hit."""
    await in_steps(random.uniform(0.1, 1.0))


@task(requeue_on_interrupt=True, retries=1, delay=0.1)
async def fails_first() -> None:
    """Fail in the first attempt; every attempt that a kill has not cut off counts."""
    with witnessed() as (attempt, _):
        await asyncio.sleep(random.uniform(0.0, 0.02))
        if attempt == 1:
            raise NotYetError


@task()
async def keyed() -> None:
    """Be added once."""
    with witnessed():
        await asyncio.sleep(random.uniform(0.0, 0.05))


@contextlib.asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Tell that the process is up, before it takes over what others left."""
    witness.write(Event.UP)
    yield


class FirstAnswer:
    """Tells when this process first answered a request.

    Args:
        app: The next ASGI app.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._answered = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""

        async def telling(message: Message) -> None:
            await send(message)
            if not self._answered and message["type"] == "http.response.start":
                self._answered = True
                witness.write(Event.SERVING)

        await self._app(scope, receive, telling)


app = FastAPI(lifespan=lifespan)
TaskAdmin(app, task_manager)
app.add_middleware(FirstAnswer)


def added(kinds: str, key: str | None, tasks: ManagedBackgroundTasks) -> dict[str, Any]:
    """Add the tasks whose kinds are named, with a comma between them; return their ids."""
    functions = {name: globals()[name] for name in KINDS}
    return {"ids": [tasks.add_task(functions[kind], idempotency_key=key) for kind in kinds.split(",")]}


@app.post("/add")
async def add(kinds: str, tasks: ManagedBackgroundTasks, key: str | None = None) -> dict[str, Any]:
    """Add from an async route."""
    return added(kinds, key, tasks)


@app.post("/add-in-thread")
def add_in_thread(kinds: str, tasks: ManagedBackgroundTasks, key: str | None = None) -> dict[str, Any]:
    """Add from a sync route."""
    return added(kinds, key, tasks)
