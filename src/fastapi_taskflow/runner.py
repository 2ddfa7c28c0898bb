"""One attempt, from a pending record to its verdict."""

from __future__ import annotations

import asyncio
import functools
import logging
from random import random
from typing import TYPE_CHECKING, Final

from fastapi_taskflow import clock
from fastapi_taskflow.entry import live_record
from fastapi_taskflow.task import lifecycle
from fastapi_taskflow.task.context import TaskContext, reset_task_context, set_task_context
from fastapi_taskflow.task.control import Snooze, shown_error
from fastapi_taskflow.task.event import EventKind, TaskEvent
from fastapi_taskflow.task.lifecycle import SNOOZED
from fastapi_taskflow.task.outcome import failure_from
from fastapi_taskflow.task.record import TaskStatus
from fastapi_taskflow.time_limit import given_up_after, stopped_after
from fastapi_taskflow.verdict import WELL, Circumstances, Ending, verdict

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Mapping
    from typing import Any

    from fastapi_taskflow.entry import Entry
    from fastapi_taskflow.executor import Executor
    from fastapi_taskflow.expiry import Expiry
    from fastapi_taskflow.journal import Journal
    from fastapi_taskflow.kept_calls import KeptCalls
    from fastapi_taskflow.lease import Lease
    from fastapi_taskflow.observer import AttemptSpan, Tracing
    from fastapi_taskflow.surroundings import Surroundings
    from fastapi_taskflow.task.context import LineRules
    from fastapi_taskflow.task.definition import TaskDefinition
    from fastapi_taskflow.task.record import SpanFact, TaskRecord

logger = logging.getLogger("fastapi_taskflow.runner")

RAN_TO_END: Final = "cancel was requested, but the task never looked at get_task_context().cancelled and ran to its end"
LATE: Final = "it took longer than its timeout of {:g} s, but kept the cancellation to itself and ran to its end"


class Runner:
    """Runs attempts: started → span → context → middleware → dependencies → call → settled → told.

    Args:
        journal: Where records go.
        tracing: Makes the process span.
        lease: Nothing starts while it is not held.
        executors: What runs functions, by name.
        expiry: Ends what may not start any more.
        kept: Keeps the calls of tasks that have ended.
        surroundings: What is around each call.
        followed: Told of a task with follow-ups that has ended, and of what it returned, before it is written.
        see_through: Runs what is left of an attempt, so that the shutdown waits for it.
        lines: What is done with the lines of tasks; None for nothing.
        result_text: Returns what a task returned as stored text, or None if it is not to be kept.

    Attributes:
        owner: The id of this instance, new with each start.
    """

    def __init__(
        self,
        journal: Journal,
        tracing: Tracing,
        *,
        lease: Lease,
        executors: Mapping[str, Executor],
        expiry: Expiry,
        kept: KeptCalls,
        surroundings: Surroundings,
        followed: Callable[[Entry, Any], None],
        see_through: Callable[[Coroutine[Any, Any, None]], None],
        result_text: Callable[[TaskDefinition, TaskContext, Any], str | None],
        lines: LineRules | None = None,
    ) -> None:
        self._journal = journal
        self._tracing = tracing
        self._lease = lease
        self._executors = executors
        self.owner = ""
        self._expiry = expiry
        self._kept = kept
        self._surroundings = surroundings
        self._followed = followed
        self._see_through = see_through
        self._result_text = result_text
        self._lines = lines

    async def run(self, entry: Entry) -> float | None:
        """Run one attempt; return when the next one is due (seconds since the Unix epoch), or None.

        What is not pending any more (cancelled, taken over) is left alone.
        """
        while not self._lease.held:
            await self._lease.regained()
        waiting = entry.record
        if waiting.status is not TaskStatus.PENDING or entry.lost or entry.withdrawn:
            return None
        if entry.overrun is not None:
            # The last attempt's thread goes on beyond its time limit: two must not run at once.
            await asyncio.wait({entry.overrun})
            entry.overrun = None
            return await self.run(entry)
        at = clock.now()
        if waiting.expires_at is not None and self._expiry.ends(entry, at):
            return None
        definition = entry.definition
        if waiting.schedule is not None and self._journal.store.persistent:
            if not await self._start_is_stored(entry, at):
                return None
            at = clock.now()
            span = self._begin_span(definition, waiting, at)
            record = entry.record.evolve(start_time=at, span_id=span.span_id if span is not None else None)
        else:
            span = self._begin_span(definition, waiting, at)
            span_id = span.span_id if span is not None else None
            record = lifecycle.start(waiting, at=at, owner=self.owner, span_id=span_id)
        self._journal.append(entry, record)
        sampled = span is not None and span.sampled
        self._journal.publish(TaskEvent(EventKind.STARTED, record, at, sampled=sampled))
        context = entry.context = TaskContext(
            record,
            on_log=functools.partial(self._journal.logged, entry),
            on_progress=functools.partial(self._journal.progressed, entry),
            lines=self._lines,
        )
        ending = await self._call(entry, context, span)
        return self._settle(entry, context, span, ending)

    async def _start_is_stored(self, entry: Entry, at: float) -> bool:
        """Have it stored that a scheduled task starts; return whether it is to go on.

        Another instance may replace or cancel it until that moment, and not after it: the store says which was first.
        """
        waiting = entry.record
        self._journal.append(entry, lifecycle.start(waiting, at=at, owner=self.owner))
        try:
            await self._journal.next_commit().wait()
        except asyncio.CancelledError:
            if not entry.lost:
                self._journal.append(entry, lifecycle.requeue(entry.record, at=clock.now(), owner=""))
            raise
        if entry.lost:
            return False
        if entry.cancel_requested:
            now = clock.now()
            record = lifecycle.cancel(entry.record, at=now, reason="cancelled before it started")
            self._journal.append(entry, record)
            self._journal.publish(TaskEvent(EventKind.FINISHED, record, now))
            self._kept.keep(entry)
            if entry.ended is not None:
                entry.ended.set()
        return not entry.record.finished

    def _begin_span(self, definition: TaskDefinition, waiting: TaskRecord, at: float) -> AttemptSpan | None:
        wait = max(0.0, at - waiting.ready_at)
        try:
            return self._tracing.process(definition, waiting, attempt=waiting.attempt + 1, queue_wait=wait)
        except Exception:
            logger.exception("the span of task %s could not be made", waiting.task_id)
            return None

    async def _call(self, entry: Entry, context: TaskContext, span: AttemptSpan | None) -> Ending:
        token = set_task_context(context)
        span_token = span.activate() if span is not None else None
        try:
            executor = self._executors[entry.definition.executor]
            if executor.can_stop:
                entry.runner = asyncio.current_task()
            work = self._surroundings.call(executor, entry, context)
            seconds = entry.definition.timeout
            value = await (work if seconds is None else self._limited(work, seconds, executor, entry, context))
        except asyncio.CancelledError as error:
            return self._stopped(entry, error)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - SystemExit and the like end the attempt, not the service
            return Ending(error, None if isinstance(error, Snooze) else failure_from(shown_error(error)))
        else:
            if entry.cancel_requested and entry.runner is not None and entry.runner.cancelling():
                # The task's code kept the cancellation to itself; the request's next task must not feel it.
                entry.runner.uncancel()
            return WELL if value is None else Ending(value=value)
        finally:
            entry.runner = None
            if span is not None:
                span.deactivate(span_token)
            reset_task_context(token)

    def _limited(
        self, work: Awaitable[Any], seconds: float, executor: Executor, entry: Entry, context: TaskContext
    ) -> Awaitable[Any]:
        if executor.can_stop:
            note = functools.partial(context.log, LATE.format(seconds), level="warning")
            return stopped_after(seconds, work, on_late=note)

        async def call() -> Any:
            return await work

        def overrun(task: asyncio.Task[None]) -> None:
            context.request_cancel()
            entry.overrun = task
            self._see_through(_end_of(task))
            logger.warning(
                "task %s (%s) took longer than its timeout of %g s; its thread cannot be stopped and goes on",
                context.task_id, context.func_name, seconds,
            )  # fmt: skip

        return given_up_after(seconds, call(), on_overrun=overrun)

    def _stopped(self, entry: Entry, error: asyncio.CancelledError) -> Ending:
        """Tell a cancellation that was meant for this attempt from one that its own code raised."""
        runner = asyncio.current_task()
        if entry.cancel_requested and entry.runner is not None:
            # The asyncio task goes on with the request's next task: only this attempt was cancelled.
            entry.runner.uncancel()
            return Ending(error, None)
        if runner is not None and runner.cancelling():
            return Ending(error, None)
        return Ending(error, failure_from(error))

    def _settle(self, entry: Entry, context: TaskContext, span: AttemptSpan | None, ending: Ending) -> float | None:
        now = clock.now()
        record = self._verdict(entry, context, ending, now)
        sampled = False
        if span is not None:
            sampled = span.sampled
            spans = self._end_span(span, record, ending) + context.spans
            if spans:
                record = record.evolve(spans=(*record.spans, *spans))
        entry.context = None
        self._journal.append(entry, record)
        if record.follow is not None and record.finished:
            self._followed(entry, ending.value)
        kind = EventKind.FINISHED if record.finished else EventKind.RETRIED
        self._journal.publish(TaskEvent(kind, record, now, sampled=sampled))
        if record.finished:
            self._kept.keep(entry)
        return record.run_at

    def _end_span(self, span: AttemptSpan, record: TaskRecord, ending: Ending) -> tuple[SpanFact, ...]:
        told = record.status.value
        if not record.finished:
            # A failed attempt is failed in its span, also when another one follows.
            told = SNOOZED if ending.snoozed else TaskStatus.FAILED.value if ending.failure is not None else told
        try:
            return span.end(told, ending.failure, ending.error)
        except Exception:
            logger.exception("the span of task %s could not be ended", record.task_id)
            return ()

    def _verdict(self, entry: Entry, context: TaskContext, ending: Ending, now: float) -> TaskRecord:
        asked = entry.cancel_requested
        if asked and ending.error is None and not context.cancel_seen:
            context.log(RAN_TO_END, level="warning")
        result = None
        if ending.value is not None and entry.definition.keep_result:
            result = self._result_text(entry.definition, context, ending.value)
        if ending.error is None and not asked:
            # Most attempts: there is nothing to weigh.
            return lifecycle.succeed(live_record(entry), at=now, result=result)
        around = Circumstances(
            at=now,
            owner=self.owner,
            policy=entry.definition.retry,
            cancel_asked=asked,
            cancel_seen=context.cancel_seen,
            chance=random,
        )
        return verdict(live_record(entry), ending, around, result=result)


async def _end_of(task: asyncio.Task[None]) -> None:
    await asyncio.wait({task})
