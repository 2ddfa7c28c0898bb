"""Coroutines that begin at once, and what they see of asyncio on the way."""

from __future__ import annotations

import asyncio
import weakref
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import pytest

from fastapi_taskflow.engines.eager import Starter

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

seen: list[Any] = []
name: ContextVar[str] = ContextVar("name", default="nobody")


def start(coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None] | None:
    """Begin it on this loop."""
    seen.clear()
    return Starter(asyncio.get_running_loop()).begin(coroutine)


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


async def note_task(*, hold: Callable[[asyncio.Task[Any]], object] | None = None) -> None:
    """Take down which asyncio task this runs in, without keeping it."""
    task = asyncio.current_task()
    assert task is not None
    seen.append((id(task), task.get_name()))
    if hold is not None:
        held.append(hold(task))


held: list[object] = []


@pytest.fixture(autouse=True)
def _nothing_held() -> Iterator[None]:
    yield
    held.clear()


def others() -> set[asyncio.Task[Any]]:
    """The tasks of this loop but the test's own."""
    return asyncio.all_tasks() - {asyncio.current_task()}


async def test_a_task_that_nobody_needed_serves_the_next_coroutine() -> None:
    """Whether its own first turn has come meanwhile or not; and it serves one that waits as well."""
    starter = Starter(asyncio.get_running_loop())
    seen.clear()
    for turns in (0, 0, 1, 2):
        for _ in range(turns):
            await asyncio.sleep(0)
        assert starter.begin(note_task()) is None
    assert len(set(seen)) == 1

    async def work() -> None:
        await note_task()
        await asyncio.sleep(0)
        await note_task()

    task = starter.begin(work())
    assert task is not None
    await task
    assert len(set(seen)) == 1
    starter.close()
    assert not others()


@pytest.mark.parametrize(
    "hold",
    [
        lambda task: task,
        weakref.ref,
        lambda task: task.cancel(),
        lambda task: task.add_done_callback(lambda _: seen.append("done")),
    ],
    ids=["by a name", "weakly", "to cancel it", "to be told of its end"],
)
async def test_a_task_that_somebody_got_hold_of_is_not_used_again(hold: Callable[[asyncio.Task[Any]], object]) -> None:
    """It ends soon, as a task of its own would have, and its callbacks are called."""
    starter = Starter(asyncio.get_running_loop())
    seen.clear()
    assert starter.begin(note_task(hold=hold)) is None
    first = seen.pop()
    assert starter.begin(note_task()) is None
    assert seen.pop() != first
    starter.close()
    for _ in range(3):
        await asyncio.sleep(0)
    assert not others()
    assert seen in ([], ["done"])
    if held == [None]:
        assert seen == ["done"]


async def test_a_kept_task_that_was_cancelled_is_not_used() -> None:
    """As by somebody who cancels all tasks of the loop."""
    starter = Starter(asyncio.get_running_loop())
    for turns in (0, 1):
        seen.clear()
        assert starter.begin(note_task()) is None
        for _ in range(turns):
            await asyncio.sleep(0)
        for task in others():
            task.cancel()

        async def work() -> None:
            await asyncio.sleep(0)
            seen.append("ran")

        begun = starter.begin(work())
        assert begun is not None
        await begun
        assert seen[1:] == ["ran"]


async def test_one_may_begin_within_another() -> None:
    """Each in a task of its own; one of them is kept, and none is left over."""
    starter = Starter(asyncio.get_running_loop())
    seen.clear()

    async def work() -> None:
        await note_task()
        assert starter.begin(note_task()) is None
        await note_task()

    assert starter.begin(work()) is None
    assert seen[0] == seen[2] != seen[1]
    starter.close()
    for _ in range(3):
        await asyncio.sleep(0)
    assert not others()


async def test_it_works_after_it_was_closed_and_keeps_nothing_then() -> None:
    """A request may end while the engine stops."""
    starter = Starter(asyncio.get_running_loop())
    starter.close()
    seen.clear()
    assert starter.begin(note_task()) is None
    for _ in range(3):
        await asyncio.sleep(0)
    assert not others()
