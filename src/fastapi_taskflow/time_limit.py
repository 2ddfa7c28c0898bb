"""A time limit on one attempt."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from fastapi_taskflow.errors import TaskTimeoutError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine


async def stopped_after(seconds: float, work: Awaitable[Any], *, on_late: Callable[[], None]) -> Any:
    """Await ``work`` and return its value; cancel it once it took ``seconds``.

    Args:
        seconds: The limit.
        work: What stops when it is cancelled.
        on_late: Called if it ended well all the same, having kept the cancellation to itself.

    Raises:
        TaskTimeoutError: If it was stopped.
    """
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            value = await work
    except TimeoutError as error:
        if not limit.expired():
            raise
        raise TaskTimeoutError(message(seconds)) from error.__cause__
    if limit.expired():
        on_late()
    return value


async def given_up_after(
    seconds: float, work: Coroutine[Any, Any, Any], *, on_overrun: Callable[[asyncio.Task[None]], None]
) -> Any:
    """Await ``work`` and return its value, for at most ``seconds``; then let it go on alone.

    A cancellation shortens nothing: what runs cannot be stopped.

    Args:
        seconds: The limit.
        work: What cannot be stopped.
        on_overrun: Given the asyncio task that goes on.

    Raises:
        TaskTimeoutError: If it took longer.
        BaseException: What it raised.
    """
    ending: list[tuple[Any, BaseException | None]] = []

    async def to_its_end() -> None:
        # Caught here, since a SystemExit that comes out of an asyncio task ends the loop.
        try:
            ending.append((await work, None))
        except BaseException as error:  # noqa: BLE001
            ending.append((None, error))

    loop = asyncio.get_running_loop()
    task = loop.create_task(to_its_end())
    deadline = loop.time() + seconds
    while not task.done() and (left := deadline - loop.time()) > 0:
        try:
            await asyncio.wait({task}, timeout=left)
        except asyncio.CancelledError:
            if task.done():
                raise
    if not task.done():
        on_overrun(task)
        raise TaskTimeoutError(message(seconds))
    value, error = ending[0]
    if error is not None:
        raise error
    return value


def message(seconds: float) -> str:
    """Return what the error says."""
    return f"it took longer than its timeout of {seconds:g} s"
