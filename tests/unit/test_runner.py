"""One attempt: every way that it can end, and what is told of it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from fastapi_taskflow import clock
from fastapi_taskflow.dependencies import Dependencies
from fastapi_taskflow.engines.local import LocalEngine
from fastapi_taskflow.errors import TaskArgumentError
from fastapi_taskflow.executors.coroutine import CoroutineExecutor
from fastapi_taskflow.executors.thread import ThreadExecutor
from fastapi_taskflow.expiry import Expiry
from fastapi_taskflow.journal import Journal
from fastapi_taskflow.kept_calls import KeptCalls
from fastapi_taskflow.lease import Lease
from fastapi_taskflow.results import Results
from fastapi_taskflow.runner import Runner
from fastapi_taskflow.store import WriteResult
from fastapi_taskflow.surroundings import Surroundings
from fastapi_taskflow.task.context import TaskContext, get_task_context, task_log, task_progress
from fastapi_taskflow.task.control import GiveUp, Retry, Snooze
from fastapi_taskflow.task.definition import TaskDefinition
from fastapi_taskflow.task.lifecycle import MAX_SNOOZED_ATTEMPTS
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
        self.kept = KeptCalls()
        self.expiry = Expiry(self.journal, self.kept)
        self.engine = LocalEngine(None)
        self.followed: list[tuple[str, Any]] = []
        self.runner = Runner(
            self.journal,
            self.tracing,
            lease=Lease(None),
            executors={"async": CoroutineExecutor(), "thread": ThreadExecutor(2)},
            expiry=self.expiry,
            kept=self.kept,
            surroundings=Surroundings(Dependencies(dict)),
            followed=lambda entry, value: self.followed.append((entry.record.task_id, value)),
            see_through=self.engine.spawn,
            result_text=Results(1_000).text_of,
        )
        self.runner.owner = "me"

    def kinds(self) -> list[str]:
        """Return the kinds of the events so far."""
        self.journal.tell()
        return self.told.kinds()

    def entry(self, func: Callable[..., Any], *, is_async: bool = True, **options: Any) -> Entry:
        """Return an admitted entry of ``func``."""
        policy = options.pop("policy", None) or RetryPolicy(options.pop("retries", 0), 2.0, 3.0)
        timeout = options.pop("timeout", None)
        entry = make_entry(func=func, max_attempts=1 + policy.retries, **options)
        entry.definition = TaskDefinition(
            name="nothing", func=func, is_async=is_async, code_name="tests.f", retry=policy, timeout=timeout
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
    assert bench.kept.get(entry.record.task_id) is None
    assert await bench.runner.run(entry) is None
    assert (entry.record.status, entry.record.attempt, len(entry.record.attempts)) == (TaskStatus.FAILED, 3, 2)
    assert bench.kept.get(entry.record.task_id) is entry
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
        while not all(entry.record.finished for entry in entries):  # noqa: ASYNC110
            await asyncio.sleep(0)
    assert most == 2
    assert await engine.stop(within=1)
    assert later.record.status is TaskStatus.PENDING


# -- what a task says of itself ----------------------------------------------------------------------------------------


async def test_only_allowed_errors_are_retried(bench: Bench) -> None:
    """Another one fails the task at once."""
    entry = bench.entry(fails, policy=RetryPolicy(3, retry_on=(ConnectionError,)))
    assert await bench.runner.run(entry) is None
    assert (entry.record.status, entry.record.attempt) == (TaskStatus.FAILED, 1)


@pytest.mark.parametrize("is_async", [True, False])
async def test_retry_says_when(bench: Bench, *, is_async: bool) -> None:
    """Whatever the policy says of the error, as long as there is a retry left; what it was raised from is shown."""

    def asks() -> None:
        raise Retry(after=timedelta(seconds=30)) from ConnectionError("busy")

    async def asks_async() -> None:
        asks()

    policy = RetryPolicy(1, give_up_on=(ConnectionError, Retry))
    entry = bench.entry(asks_async if is_async else asks, is_async=is_async, policy=policy)
    due = await bench.runner.run(entry)
    (attempt,) = entry.record.attempts
    assert due is not None
    assert due - attempt.end_time == pytest.approx(30.0)
    assert (attempt.error_type, attempt.error) == ("ConnectionError", "busy")
    assert await bench.runner.run(entry) is None
    assert (entry.record.status, entry.record.error) == (TaskStatus.FAILED, "busy")
    assert bench.kinds() == ["started", "retried", "started", "finished"]


async def test_retry_without_a_time_waits_as_the_policy_says(bench: Bench) -> None:
    """And is an error of its own, where there is no other one."""

    async def asks() -> None:
        raise Retry

    entry = bench.entry(asks, retries=1)
    due = await bench.runner.run(entry)
    assert due is not None
    assert due - entry.record.attempts[0].end_time == pytest.approx(2.0)
    assert entry.record.error_type == "fastapi_taskflow.task.control.Retry"


async def test_give_up_fails_at_once(bench: Bench) -> None:
    """With the reason, whatever retries are left."""
    span = bench.tracing.span = FakeSpan()

    async def gives_up() -> None:
        raise GiveUp("no such customer")

    entry = bench.entry(gives_up, retries=5)
    assert await bench.runner.run(entry) is None
    assert (entry.record.status, entry.record.error) == (TaskStatus.FAILED, "no such customer")
    assert span.calls[-1] == ("failed", "fastapi_taskflow.task.control.GiveUp", "GiveUp")


async def test_snooze_is_no_failure(bench: Bench) -> None:
    """It uses up no retry, does not lengthen the backoff, and its span is no error; years of it stay small."""
    span = bench.tracing.span = FakeSpan()
    rounds = 0

    async def snoozes() -> None:
        nonlocal rounds
        rounds += 1
        task_log(f"round {rounds}")
        if rounds <= 30:
            raise Snooze(60)
        msg = "now it fails"
        raise ValueError(msg)

    entry = bench.entry(snoozes, retries=1)
    for number in range(1, 31):
        due = await bench.runner.run(entry)
        record = entry.record
        assert (record.status, record.error, record.attempt) == (TaskStatus.PENDING, None, number)
        assert due == record.run_at == record.ready_at
        assert span.calls[-1] == ("snoozed", None, "Snooze")
    assert len(entry.record.attempts) == MAX_SNOOZED_ATTEMPTS
    assert len(entry.record.logs) == 30
    due = await bench.runner.run(entry)
    assert due is not None
    assert due - entry.record.attempts[-1].end_time == pytest.approx(2.0)
    assert await bench.runner.run(entry) is None
    assert entry.record.status is TaskStatus.FAILED


@pytest.mark.parametrize("wrong", [-1, float("nan"), "5", None, True])
def test_a_snooze_needs_a_span_of_time(wrong: Any) -> None:
    """The task's own mistake, told where it makes it."""
    with pytest.raises(ValueError, match="seconds must be 0 or more seconds"):
        Snooze(wrong)


# -- time limits -------------------------------------------------------------------------------------------------------


async def test_an_async_attempt_is_stopped_at_its_limit(bench: Bench) -> None:
    """That is a failure, which may be retried, and says where it was."""

    async def hangs() -> None:
        await asyncio.Event().wait()

    entry = bench.entry(hangs, policy=RetryPolicy(1, retry_on=(TimeoutError,)), timeout=0.01)
    assert await bench.runner.run(entry) is not None
    assert entry.record.error_type == "fastapi_taskflow.errors.TaskTimeoutError"
    assert entry.record.error == "it took longer than its timeout of 0.01 s"
    assert entry.record.stacktrace is not None
    assert "in hangs" in entry.record.stacktrace
    assert await bench.runner.run(entry) is None
    assert entry.record.status is TaskStatus.FAILED
    current = asyncio.current_task()
    assert current is not None
    assert current.cancelling() == 0


async def test_a_timeout_of_its_own_is_not_the_limit(bench: Bench) -> None:
    """It is told as what it is."""

    async def times_out() -> None:
        raise TimeoutError("the other side")

    entry = bench.entry(times_out, timeout=60)
    await bench.runner.run(entry)
    assert (entry.record.error_type, entry.record.error) == ("TimeoutError", "the other side")


async def test_who_keeps_the_cancellation_to_himself_ran_to_his_end(bench: Bench) -> None:
    """A line says so."""

    async def stubborn() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()

    entry = bench.entry(stubborn, timeout=0.01)
    await bench.runner.run(entry)
    assert entry.record.status is TaskStatus.SUCCESS
    assert "ran to its end" in entry.record.logs[-1].message


async def test_a_cancellation_within_the_limit_is_a_cancellation(bench: Bench) -> None:
    """By hand, while a limit is set."""
    started = asyncio.Event()

    async def waits() -> None:
        started.set()
        await asyncio.Event().wait()

    entry = bench.entry(waits, timeout=60)
    run = asyncio.create_task(bench.runner.run(entry))
    await started.wait()
    entry.cancel_requested = True
    assert entry.runner is not None
    entry.runner.cancel()
    assert await run is None
    assert entry.record.status is TaskStatus.CANCELLED


async def test_a_thread_beyond_its_limit_goes_on_alone(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """The attempt has failed, the thread is asked to stop; the next attempt and the shutdown wait for its end."""
    gate, order = threading.Event(), []

    def slow() -> None:
        context = get_task_context()
        assert context is not None
        order.append(f"begins {context.attempt}")
        if context.attempt == 1:
            gate.wait(10)
            order.append(f"ends, asked to stop: {context.cancelled}")

    entry = bench.entry(slow, is_async=False, policy=RetryPolicy(1), timeout=0.05)
    bench.engine.start(bench.runner.run)
    assert await bench.runner.run(entry) is not None
    assert (entry.record.status, entry.record.attempts[0].error_type) == (
        TaskStatus.PENDING, "fastapi_taskflow.errors.TaskTimeoutError",
    )  # fmt: skip
    assert "its thread cannot be stopped" in caplog.text
    again = asyncio.create_task(bench.runner.run(entry))
    assert not await bench.engine.stop(within=0.05)
    assert order == ["begins 1"]
    gate.set()
    await again
    assert order == ["begins 1", "ends, asked to stop: True", "begins 2"]
    assert entry.record.status is TaskStatus.SUCCESS
    assert await bench.engine.stop(within=5)


async def test_a_thread_in_time_gives_its_value_and_its_error(bench: Bench) -> None:
    """The limit changes nothing else."""

    def exits() -> None:
        raise SystemExit(3)

    entry = bench.entry(exits, is_async=False, timeout=60)
    await bench.runner.run(entry)
    assert (entry.record.status, entry.record.error_type) == (TaskStatus.FAILED, "SystemExit")
    entry = bench.entry(lambda: 7, is_async=False, timeout=60)
    await bench.runner.run(entry)
    assert (entry.record.status, entry.record.result) == (TaskStatus.SUCCESS, "7")


# -- expiry ------------------------------------------------------------------------------------------------------------


async def test_what_is_over_does_not_start(bench: Bench) -> None:
    """It is cancelled, with the reason; but a retry may come later than that."""
    entry = bench.entry(works, expires_at=1.0)
    assert await bench.runner.run(entry) is None
    assert (entry.record.status, entry.record.attempt) == (TaskStatus.CANCELLED, 0)
    assert entry.record.error == "it had not started when its time was over, at 1970-01-01T00:00:01.000000Z"
    entry = bench.entry(works, retries=1, expires_at=1.0, attempt=1)
    await bench.runner.run(entry)
    assert entry.record.status is TaskStatus.SUCCESS


async def test_what_waits_is_ended_at_its_time(bench: Bench) -> None:
    """Nothing has to look at it; one that started in time is left alone."""
    entry, started = (bench.entry(works, task_id=name, expires_at=clock.now() + 0.05) for name in "ab")
    for each in (entry, started):
        bench.journal.admit([each])
        bench.expiry.mind(each)
    await bench.runner.run(started)
    assert started.expiry is None
    entry.ended = asyncio.Event()
    async with asyncio.timeout(5):
        await entry.ended.wait()
    assert (entry.record.status, started.record.status) == (TaskStatus.CANCELLED, TaskStatus.SUCCESS)


# -- results and progress ----------------------------------------------------------------------------------------------


async def test_a_result_is_kept_as_text(bench: Bench) -> None:
    """One that cannot be kept fails nothing, and says why."""

    async def gives(value: Any) -> Any:
        return value

    kept = {}
    for value in ({"a": [1, datetime(2026, 1, 2, tzinfo=UTC)]}, None, "x" * 2_000, object()):
        entry = bench.entry(functools.partial(gives, value))
        await bench.runner.run(entry)
        assert entry.record.status is TaskStatus.SUCCESS
        kept[str(type(value).__name__)] = entry.record
    results = Results(1_000)
    assert results.value_of(kept["dict"]) == {"a": [1, datetime(2026, 1, 2, tzinfo=UTC)]}
    assert (kept["NoneType"].result, results.value_of(kept["NoneType"])) == (None, None)
    for name, why in (("str", "its text has 2002 bytes, more than result_max_bytes=1000"), ("object", "object")):
        assert why in kept[name].logs[-1].message
        with pytest.raises(TaskArgumentError, match="the result is not kept"):
            results.value_of(kept[name])


async def test_results_are_kept_by_option_only(bench: Bench) -> None:
    """Of the manager, or of the task."""

    async def gives() -> int:
        return 1

    entry = bench.entry(gives)
    entry.definition = dataclasses.replace(entry.definition, keep_result=False)
    await bench.runner.run(entry)
    assert entry.record.result is None
    context = TaskContext(entry.record)
    assert Results(0).text_of(bench.entry(gives).definition, context, 1) is None
    assert not context.logs


async def test_progress_is_seen_at_once_and_stored_soon(bench: Bench) -> None:
    """A loop that tells it all the time has it stored now and then; the end keeps the last."""
    told, go = asyncio.Event(), asyncio.Event()

    async def works_on() -> None:
        for number in range(1_000):
            task_progress(number, 1_000, "counting")
        told.set()
        await go.wait()
        task_progress(1.0)

    entry = bench.entry(works_on)
    bench.journal.admit([entry])
    run = asyncio.create_task(bench.runner.run(entry))
    await told.wait()
    seen = await bench.journal.get(entry.record.task_id)
    assert seen is not None
    assert (seen.progress, seen.progress_text) == (0.999, "counting")
    async with asyncio.timeout(5):
        while entry.record.progress is None:  # noqa: ASYNC110 - what is waited for is a timer of the journal
            await asyncio.sleep(0.01)
    assert bench.kinds() == ["started", "progressed"]
    go.set()
    await run
    assert (entry.record.progress, entry.record.progress_text) == (1.0, None)


@contextlib.asynccontextmanager
async def starting(bench: Bench, ran: list[str]) -> AsyncIterator[tuple[Entry, asyncio.Task[Any]]]:
    """A scheduled task whose start is on its way into the store, and what runs it."""
    store: Any = bench.journal.store

    async def work() -> None:
        ran.append("ran")

    entry = bench.entry(work, schedule="nightly")
    bench.journal.admit([entry])
    await bench.journal.flushed()
    store.gate.clear()
    run = asyncio.create_task(bench.runner.run(entry))
    store.writing.clear()
    await store.writing.wait()
    yield entry, run
    store.gate.set()


async def test_a_scheduled_task_runs_once_its_start_is_stored(bench: Bench) -> None:
    """Not before: until then another instance may replace it."""
    ran: list[str] = []
    async with starting(bench, ran) as (entry, run):
        assert (ran, entry.record.status, bench.kinds()) == ([], TaskStatus.RUNNING, [])
    await run
    assert (ran, entry.record.status, bench.kinds()) == (["ran"], TaskStatus.SUCCESS, ["started", "finished"])


async def test_one_that_was_replaced_meanwhile_does_not_run(bench: Bench) -> None:
    """The store refuses the start."""
    ran: list[str] = []
    async with starting(bench, ran) as (entry, run):
        bench.journal.store.result = WriteResult(stale=frozenset({entry.record.task_id}))  # type: ignore[attr-defined]
    assert await run is None
    assert (ran, entry.lost, bench.kinds()) == ([], True, [])


async def test_one_that_is_cancelled_meanwhile_does_not_run(bench: Bench) -> None:
    """It ends as cancelled, and whoever waits for its end is told."""
    ran: list[str] = []
    async with starting(bench, ran) as (entry, run):
        entry.cancel_requested, entry.ended = True, asyncio.Event()
    assert await run is None
    assert (ran, entry.record.status, entry.ended.is_set()) == ([], TaskStatus.CANCELLED, True)
    assert bench.kinds() == ["finished"]


async def test_one_that_a_shutdown_stops_meanwhile_waits_again(bench: Bench) -> None:
    """It has not run, so it is not interrupted: the next start runs it."""
    ran: list[str] = []
    async with starting(bench, ran) as (entry, run):
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
    assert (ran, entry.record.status, entry.record.owner) == ([], TaskStatus.PENDING, "")
