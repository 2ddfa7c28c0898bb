"""Calls in processes of their own."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider

from fastapi_taskflow.errors import TaskArgumentError, TaskProcessError
from fastapi_taskflow.executors.process import ProcessExecutor
from fastapi_taskflow.task.context import TaskContext, reset_task_context, set_task_context
from fastapi_taskflow.task.control import GiveUp, Retry, Snooze
from fastapi_taskflow.task.outcome import failure_from
from fastapi_taskflow.task.portable import carried
from fastapi_taskflow.task.record import TaskRecord, TaskStatus
from fastapi_taskflow.telemetry.child_spans import ChildSpans
from tests.unit.executors import work

RECORD = TaskRecord("t1", "work", TaskStatus.RUNNING, 1.0, attempt=2, tags=("a",), payload="x" * 100)


class Calls:
    """Makes calls as the runner does."""

    def __init__(self, workers: int = 1, calls: int = 100) -> None:
        self.executor = ProcessExecutor(workers, calls, ChildSpans)
        self.context = TaskContext(RECORD)

    async def __call__(self, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self.context = TaskContext(RECORD)
        token = set_task_context(self.context)
        try:
            return await self.executor.run(func, args, kwargs)
        finally:
            reset_task_context(token)


@pytest.fixture
async def call() -> AsyncIterator[Calls]:
    """Make calls, in one process at a time."""
    made = Calls()
    yield made
    made.executor.close()


def is_alive(pid: int) -> bool:
    """Whether the process runs."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


async def hanging(call: Calls, path: Path) -> tuple[asyncio.Task[Any], int]:
    """Begin a call that hangs; return it, and its process id."""
    task = asyncio.create_task(call(work.hangs, str(path)))
    async with asyncio.timeout(20):
        while not (path.exists() and path.read_text(encoding="ascii")):  # noqa: ASYNC110, ASYNC240
            await asyncio.sleep(0.01)
    return task, int(path.read_text(encoding="ascii"))  # noqa: ASYNC240


async def test_a_call_runs_elsewhere_with_its_context(call: Calls) -> None:
    """One process after another call; the trace goes on there."""
    with TracerProvider().get_tracer("t").start_as_current_span("attempt") as span:
        told = await call(work.whoami, 1, b=(2,))
    again = await call(work.whoami)
    assert told["pid"] == again["pid"] != os.getpid()
    assert (told["values"], told["named"]) == ((1,), {"b": (2,)})
    assert (told["task_id"], told["attempt"], told["tags"]) == ("t1", 2, ("a",))
    assert told["trace_id"] == f"{span.get_span_context().trace_id:032x}"
    assert again["trace_id"] == "0" * 32


async def test_lines_and_progress_come_across(call: Calls, caplog: pytest.LogCaptureFixture) -> None:
    """In order, and the last progress for sure."""
    await call(work.tells)
    assert [(line.message, line.level, line.attempt, line.extra) for line in call.context.logs] == [
        ("first", "warning", 2, {"number": 1}), ("last", "info", 2, None),
    ]  # fmt: skip
    assert call.context.progress == (499 / 500, "counting")
    assert [each.message for each in caplog.records if each.name == "fastapi_taskflow.task"] == ["first"]


async def test_spans_of_the_task_come_across(call: Calls) -> None:
    """Under the attempt's span, for the timeline; those of one call only."""
    await call(work.traces, 0)
    assert list(call.context.spans) == []
    for number in (1, 2):
        with TracerProvider().get_tracer("t").start_as_current_span("attempt") as span:
            await call(work.traces, number)
        outer, inner = call.context.spans
        assert (outer.name, outer.attributes, inner.name) == ("outer", {"number": number}, "inner")
        assert outer.parent_id == f"{span.get_span_context().span_id:016x}"
        assert inner.parent_id == outer.span_id


async def test_errors_come_across(call: Calls) -> None:
    """As themselves where that can be, with the traceback from there; else as text."""
    with pytest.raises(ValueError, match="no good") as plain:
        await call(work.raises, "plain")
    told = failure_from(plain.value)
    assert (told.error_type, told.message) == ("ValueError", "no good")
    assert told.stacktrace is not None
    assert "work.py" in told.stacktrace
    with pytest.raises(TaskProcessError) as odd:
        await call(work.raises, "odd")
    told = failure_from(odd.value)
    assert (told.error_type, told.message) == (f"{work.__name__}.Odd", "1 and 2")
    assert told.stacktrace is not None
    assert "in raises" in told.stacktrace
    with pytest.raises(SystemExit):
        await call(work.raises, "exit")
    with pytest.raises(TaskProcessError, match="what it returned cannot be carried"):
        await call(work.gives_lambda)
    assert (await call(work.whoami))["pid"]


async def test_signals_of_a_task_come_across(call: Calls) -> None:
    """With what they say."""
    with pytest.raises(Retry) as again:
        await call(work.raises, "retry")
    with pytest.raises(GiveUp) as never:
        await call(work.raises, "give up")
    with pytest.raises(Snooze) as later:
        await call(work.raises, "snooze")
    assert (again.value.after, never.value.reason, later.value.seconds) == (7.0, "never", 9.0)


@pytest.mark.parametrize(("how", "told"), [("exit", "exit code 7"), ("kill", "by SIGKILL")])
async def test_a_process_that_ends_fails_its_call_alone(call: Calls, how: str, told: str) -> None:
    """The next call gets another one."""
    with pytest.raises(TaskProcessError, match=told):
        await call(work.dies, how)
    assert (await call(work.whoami))["pid"]


async def test_a_cancelled_call_is_killed(call: Calls, tmp_path: Path) -> None:
    """It has ended when that is told; the next call gets another process."""
    task, pid = await hanging(call, tmp_path / "pid")
    assert is_alive(pid)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not is_alive(pid)
    assert (await call(work.whoami))["pid"] != pid


async def test_one_that_is_killed_from_outside_is_told(call: Calls, tmp_path: Path) -> None:
    """As the kernel does when memory runs out."""
    task, pid = await hanging(call, tmp_path / "pid")
    os.kill(pid, 9)
    with pytest.raises(TaskProcessError, match="SIGKILL"):
        await task


async def test_ctrl_c_is_the_parents_business(call: Calls) -> None:
    """The call goes on."""
    assert await call(work.interrupts)


async def test_a_process_is_replaced_after_so_many_calls() -> None:
    """What leaked is given back."""
    call = Calls(calls=2)
    pids = [(await call(work.whoami))["pid"] for _ in range(5)]
    assert pids[0] == pids[1] != pids[2] == pids[3] != pids[4]
    async with asyncio.timeout(10):
        while is_alive(pids[0]):  # noqa: ASYNC110 - it may say its last words
            await asyncio.sleep(0.01)
    call.executor.close()
    assert not is_alive(pids[4])


async def test_calls_wait_for_a_place() -> None:
    """No more processes than allowed."""
    call = Calls(workers=2)
    told = await asyncio.gather(*(call(work.whoami) for _ in range(8)))
    assert len({each["pid"] for each in told}) <= 2
    call.executor.close()


@pytest.mark.parametrize(
    ("func", "args", "where"),
    [(lambda: None, (), "func"), (work.whoami, (1, open), ""), (work.whoami, ({"a": contextlib.suppress},), "")],
)
def test_what_can_be_carried(func: Any, args: Any, where: str) -> None:
    """Functions and classes that can be imported."""
    if not where:
        assert carried(func, args, {})
    else:
        with pytest.raises(TaskArgumentError, match="cannot run in a process of its own") as refused:
            carried(func, args, {})
        assert refused.value.argument == where


def test_an_argument_that_cannot_be_carried_is_named() -> None:
    """Before the task is added."""
    with pytest.raises(TaskArgumentError) as refused:
        carried(work.whoami, (1,), {"callback": lambda: None})
    assert refused.value.argument == "kwargs['callback']"
