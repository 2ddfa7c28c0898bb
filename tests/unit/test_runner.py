"""One attempt: every way that it can end, and what is told of it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from fastapi_taskflow.dependencies import Dependencies
from fastapi_taskflow.engines.local import LocalEngine
from fastapi_taskflow.executors.coroutine import CoroutineExecutor
from fastapi_taskflow.executors.thread import ThreadExecutor
from fastapi_taskflow.journal import Journal
from fastapi_taskflow.lease import Lease
from fastapi_taskflow.runner import Runner
from fastapi_taskflow.surroundings import Surroundings
from fastapi_taskflow.task.context import get_task_context, task_log
from fastapi_taskflow.task.definition import TaskDefinition
from fastapi_taskflow.task.record import SpanFact, TaskStatus
from fastapi_taskflow.task.retry import RetryPolicy
from tests.unit.fakes import RecordingObserver, RecordingStore, make_entry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from fastapi_taskflow.entry import Entry
    from fastapi_taskflow.task.outcome import Failure
    from fastapi_taskflow.task.record import TaskRecord


class FakeSpan:
    """Takes down how it ended."""

    span_id = "b" * 16
    sampled = True

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.broken = False

    def activate(self) -> object:
        """Take it down."""
        self.calls.append("activate")
        return 7

    def deactivate(self, token: object) -> None:
        """Take it down."""
        self.calls.append(("deactivate", token))

    def end(self, status: str, failure: Failure | None, error: BaseException | None) -> tuple[SpanFact, ...]:
        """Take it down, or break."""
        if self.broken:
            msg = "no"
            raise RuntimeError(msg)
        self.calls.append((status, failure.error_type if failure else None, type(error).__name__ if error else None))
        return (SpanFact("c" * 16, self.span_id, "SELECT", "client", 1.0, 2.0),)


class FakeTracing:
    """Hands out one span."""

    def __init__(self) -> None:
        self.span: FakeSpan | None = None
        self.waits: list[float] = []

    def send(self, *_: Any, **__: Any) -> None:
        """Make no span."""

    def process(
        self, _definition: TaskDefinition, _record: TaskRecord, *, attempt: int, queue_wait: float
    ) -> FakeSpan | None:
        """Return the span."""
        assert attempt >= 1
        self.waits.append(queue_wait)
        return self.span


class Bench:
    """A runner with everything around it in view."""

    def __init__(self) -> None:
        self.told = RecordingObserver()
        self.journal = Journal(RecordingStore(), [self.told], max_backlog=100)  # type: ignore[arg-type]
        self.tracing = FakeTracing()
        self.ended: list[Entry] = []
        self.runner = Runner(
            self.journal,
            self.tracing,
            lease=Lease(None),
            coroutines=CoroutineExecutor(),
            threads=ThreadExecutor(2),
            on_end=self.ended.append,
            surroundings=Surroundings(Dependencies(dict)),
        )
        self.runner.owner = "me"

    def kinds(self) -> list[str]:
        """Return the kinds of the events so far."""
        self.journal.tell()
        return self.told.kinds()

    def entry(self, func: Callable[..., Any], *, is_async: bool = True, **options: Any) -> Entry:
        """Return an admitted entry of ``func``."""
        retries = options.pop("retries", 0)
        entry = make_entry(func=func, max_attempts=1 + retries, **options)
        entry.definition = TaskDefinition(
            name="nothing", func=func, is_async=is_async, code_name="tests.f", retry=RetryPolicy(retries, 2.0, 3.0)
        )
        entry.admitted = True
        return entry


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    """Return a started bench."""
    bench = Bench()
    bench.journal.start()
    yield bench
    await bench.journal.stop(within=1)


async def fails() -> None:
    """Fail."""
    msg = "boom"
    raise ValueError(msg)


async def works() -> None:
    """Write a line."""
    task_log("working")


async def test_success(bench: Bench) -> None:
    """Started, finished, with the line and the spans in the record."""
    span = bench.tracing.span = FakeSpan()
    entry = bench.entry(works)
    assert await bench.runner.run(entry) is None
    record = entry.record
    assert (record.status, record.attempt, record.owner, record.span_id) == (TaskStatus.SUCCESS, 1, "me", "b" * 16)
    assert [line.message for line in record.logs] == ["working"]
    assert [each.name for each in record.spans] == ["SELECT"]
    assert bench.kinds() == ["started", "logged", "finished"]
    assert bench.told.events[-1].sampled
    assert span.calls == ["activate", ("deactivate", 7), ("success", None, None)]
    assert bench.ended == [entry]
    assert get_task_context() is None


async def test_a_retry_is_due_after_its_backoff(bench: Bench) -> None:
    """Its span says failed, its record pending; the second wait is longer; then it has failed."""
    span = bench.tracing.span = FakeSpan()
    entry = bench.entry(fails, retries=2)
    for factor in (1, 3):
        due = await bench.runner.run(entry)
        assert due is not None
        assert entry.record.status is TaskStatus.PENDING
        assert due - entry.record.attempts[-1].end_time == pytest.approx(2.0 * factor)
    assert bench.ended == []
    assert await bench.runner.run(entry) is None
    assert (entry.record.status, entry.record.attempt, len(entry.record.attempts)) == (TaskStatus.FAILED, 3, 2)
    assert bench.kinds() == ["started", "retried", "started", "retried", "started", "finished"]
    assert span.calls[2] == span.calls[-1] == ("failed", "ValueError", "ValueError")


async def test_a_cancelled_error_of_the_tasks_own_is_a_failure(bench: Bench) -> None:
    """Nobody asked for it, so it is not a cancellation."""

    async def odd() -> None:
        raise asyncio.CancelledError

    entry = bench.entry(odd)
    await bench.runner.run(entry)
    assert (entry.record.status, entry.record.error_type) == (TaskStatus.FAILED, "asyncio.exceptions.CancelledError")


@pytest.mark.parametrize("again", [True, False])
async def test_what_the_shutdown_cuts_off_waits_again_or_is_interrupted(bench: Bench, *, again: bool) -> None:
    """As its definition says; it belongs to nobody then."""
    started = asyncio.Event()

    async def forever() -> None:
        started.set()
        await asyncio.Event().wait()

    entry = bench.entry(forever, requeue_on_interrupt=again)
    engine = LocalEngine(None)
    engine.start(bench.runner.run)
    engine.submit(entry)
    await started.wait()
    assert not await engine.stop(within=0)
    await engine.abort(within=1)
    assert entry.record.status is (TaskStatus.PENDING if again else TaskStatus.INTERRUPTED)
    assert entry.record.owner == ("" if again else "me")


async def test_a_cancelled_task_is_not_retried(bench: Bench) -> None:
    """Whoever asked for the end does not want another attempt."""
    entry = bench.entry(fails, retries=5)

    async def asked() -> None:
        entry.cancel_requested = True
        await fails()

    entry.func = asked
    assert await bench.runner.run(entry) is None
    assert entry.record.status is TaskStatus.FAILED


async def test_a_span_that_breaks_does_not_lose_the_verdict(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """A broken part stays broken alone."""
    bench.tracing.span = FakeSpan()
    bench.tracing.span.broken = True
    entry = bench.entry(works)
    await bench.runner.run(entry)
    assert entry.record.status is TaskStatus.SUCCESS
    assert "could not be ended" in caplog.text


async def test_only_a_pending_task_is_run(bench: Bench) -> None:
    """One that was cancelled, lost or withdrawn meanwhile is left alone."""
    for change in ("lost", "withdrawn"):
        entry = bench.entry(works)
        setattr(entry, change, True)
        await bench.runner.run(entry)
        assert entry.record.status is TaskStatus.PENDING
    entry = bench.entry(works)
    entry.record = entry.record.evolve(status=TaskStatus.CANCELLED)
    await bench.runner.run(entry)
    assert bench.kinds() == []


async def test_queue_wait_is_without_the_deliberate_delay(bench: Bench) -> None:
    """It counts from when the task was ready; a clock that was set back gives no negative wait."""
    entry = bench.entry(works)
    entry.record = entry.record._replace(ready_at=9e12)
    await bench.runner.run(entry)
    assert bench.tracing.waits == [0.0]


async def test_the_engine_waits_for_a_due_time_and_keeps_to_its_limit(bench: Bench) -> None:
    """A retry holds no place while it waits; cancelled timers start nothing."""
    running, most = 0, 0

    async def counted() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1

    engine = LocalEngine(2)
    engine.start(bench.runner.run)
    entries = [bench.entry(counted, task_id=str(number)) for number in range(10)]
    for entry in entries:
        engine.submit(entry)
    later = bench.entry(counted, task_id="later")
    later.record = later.record._replace(run_at=9e12)
    await engine.run(later)
    async with asyncio.timeout(5):
        while len(bench.ended) < 10:  # noqa: ASYNC110
            await asyncio.sleep(0)
    assert most == 2
    assert await engine.stop(within=1)
    assert later.record.status is TaskStatus.PENDING
