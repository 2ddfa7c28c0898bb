"""Coroutines that begin at once, and what they see of asyncio on the way."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import pytest

from fastapi_taskflow.engines.eager import begin

if TYPE_CHECKING:
    from collections.abc import Coroutine

seen: list[Any] = []
name: ContextVar[str] = ContextVar("name", default="nobody")


def start(coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None] | None:
    """Begin it on this loop."""
    seen.clear()
    return begin(coroutine, asyncio.get_running_loop())


async def test_what_never_waits_has_ended_at_once() -> None:
    """Before anybody else gets a turn, in a context of its own."""

    async def work() -> None:
        name.set("inner")
        seen.append(name.get())

    caller = asyncio.current_task()
    assert start(work()) is None
    assert seen == ["inner"]
    assert name.get() == "nobody"
    assert asyncio.current_task() is caller
    await asyncio.sleep(0)


async def test_what_waits_goes_on_as_one_task_in_one_context() -> None:
    """The current task is the same before and after, which time limits and cancel scopes rely on."""

    async def work() -> None:
        name.set("inner")
        first = asyncio.current_task()
        await asyncio.sleep(0)
        async with asyncio.timeout(5), asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(0))
        with anyio.move_on_after(5):
            await anyio.lowlevel.checkpoint()
        seen.append((first is asyncio.current_task(), name.get()))

    task = start(work())
    assert task is not None
    assert seen == []
    await task
    assert seen == [(True, "inner")]


async def test_a_time_limit_set_in_the_first_step_holds() -> None:
    """It cancels the task that goes on, not the caller."""

    async def work() -> None:
        try:
            async with asyncio.timeout(0.01):
                await asyncio.Event().wait()
        except TimeoutError:
            seen.append("in time")

    task = start(work())
    assert task is not None
    await task
    assert seen == ["in time"]


@pytest.mark.parametrize("turns", [0, 1, 2])
async def test_it_can_be_cancelled_at_any_time(turns: int) -> None:
    """Also before its task has had a turn."""

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    task = start(work())
    assert task is not None
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert seen == ["cancelled"]


async def test_errors_come_out_where_they_belong() -> None:
    """Of the first step to the caller, of a later one with the task."""

    async def at_once() -> None:
        msg = "at once"
        raise ValueError(msg)

    async def later() -> None:
        await asyncio.sleep(0)
        msg = "later"
        raise ValueError(msg)

    with pytest.raises(ValueError, match="at once"):
        start(at_once())
    task = start(later())
    assert task is not None
    with pytest.raises(ValueError, match="later"):
        await task


async def test_a_bare_turn_of_the_loop_is_a_wait_too() -> None:
    """``sleep(0)`` yields nothing to wait for."""

    async def work() -> None:
        for number in range(3):
            seen.append(number)
            await asyncio.sleep(0)

    task = start(work())
    assert task is not None
    assert seen == [0]
    await task
    assert seen == [0, 1, 2]


def test_it_begins_without_a_current_task_too() -> None:
    """From a plain callback of the loop."""

    async def work() -> None:
        await asyncio.sleep(0)
        seen.append("ran")

    async def main() -> None:
        done = asyncio.Event()

        def callback() -> None:
            task = start(work())
            assert task is not None
            task.add_done_callback(lambda _: done.set())

        asyncio.get_running_loop().call_soon(callback)
        await done.wait()

    asyncio.run(main())
    assert seen == ["ran"]
