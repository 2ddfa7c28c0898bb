"""One attempt, from a pending record to its verdict."""

from __future__ import annotations

import asyncio
import functools
import logging
from dataclasses import dataclass
from random import random
from typing import TYPE_CHECKING, Final

from fastapi_taskflow import clock
from fastapi_taskflow.task import lifecycle
from fastapi_taskflow.task.context import TaskContext, reset_task_context, set_task_context
from fastapi_taskflow.task.event import EventKind, TaskEvent
from fastapi_taskflow.task.outcome import Failure, failure_from
from fastapi_taskflow.task.record import TaskStatus

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastapi_taskflow.entry import Entry
    from fastapi_taskflow.executor import Executor
    from fastapi_taskflow.journal import Journal
    from fastapi_taskflow.lease import Lease
    from fastapi_taskflow.observer import AttemptSpan, Tracing
    from fastapi_taskflow.surroundings import Surroundings
    from fastapi_taskflow.task.definition import TaskDefinition
    from fastapi_taskflow.task.record import LogEntry, SpanFact, TaskRecord

logger = logging.getLogger("fastapi_taskflow.runner")

CANCELLED_REASON: Final = "cancelled while it ran"
RAN_TO_END: Final = "cancel was requested, but the task never looked at get_task_context().cancelled and ran to its end"


@dataclass(frozen=True, slots=True)
class Ending:
    """How the call ended.

    Attributes:
        error: What it raised, or None.
        failure: ``error`` as facts; None if it ended well, or if it was stopped from outside.
    """

    error: BaseException | None = None
    failure: Failure | None = None


WELL: Final = Ending()


class Runner:
    """Runs attempts: started → span → context → middleware → dependencies → call → settled → told.

    Args:
        journal: Where records go.
        tracing: Makes the process span.
        lease: Nothing starts while it is not held.
        coroutines: Runs async functions.
        threads: Runs sync functions.
        on_end: Told of an entry whose task has ended.
        surroundings: What is around each call.

    Attributes:
        owner: The id of this instance, new with each start.
    """

    def __init__(
        self,
        journal: Journal,
        tracing: Tracing,
        *,
        lease: Lease,
        coroutines: Executor,
        threads: Executor,
        on_end: Callable[[Entry], None],
        surroundings: Surroundings,
    ) -> None:
        self._journal = journal
        self._tracing = tracing
        self._lease = lease
        self._coroutines = coroutines
        self._threads = threads
        self.owner = ""
        self._on_end = on_end
        self._surroundings = surroundings

    async def run(self, entry: Entry) -> float | None:
        """Run one attempt; return when the next one is due (seconds since the Unix epoch), or None.

        What is not pending any more (cancelled, taken over) is left alone.
        """
        while not self._lease.held:
            await self._lease.regained()
        waiting = entry.record
        if waiting.status is not TaskStatus.PENDING or entry.lost or entry.withdrawn:
            return None
        definition = entry.definition
        at = clock.now()
        span = self._begin_span(definition, waiting, at)
        record = lifecycle.start(waiting, at=at, owner=self.owner, span_id=span.span_id if span is not None else None)
        self._journal.append(entry, record)
        sampled = span is not None and span.sampled
        self._journal.publish(TaskEvent(EventKind.STARTED, record, at, sampled=sampled))
        context = entry.context = TaskContext(record, on_log=functools.partial(self._journal.logged, entry))
        ending = await self._call(entry, context, span)
        return self._settle(entry, context, span, ending)

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
            executor = self._threads
            if entry.definition.is_async:
                entry.runner = asyncio.current_task()
                executor = self._coroutines
            if self._surroundings.middleware or entry.definition.needs:
                await self._surroundings.run(executor, entry, context)
            else:
                await executor.run(entry.func, entry.args, entry.kwargs)
        except asyncio.CancelledError as error:
            return self._stopped(entry, error)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - SystemExit and the like end the attempt, not the service
            return Ending(error, failure_from(error))
        else:
            if entry.cancel_requested and entry.runner is not None and entry.runner.cancelling():
                # The task's code kept the cancellation to itself; the request's next task must not feel it.
                entry.runner.uncancel()
            return WELL
        finally:
            entry.runner = None
            if span is not None:
                span.deactivate(span_token)
            reset_task_context(token)

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
            spans = self._end_span(span, record, ending)
            if spans:
                record = record.evolve(spans=(*record.spans, *spans))
        entry.context = None
        self._journal.append(entry, record)
        kind = EventKind.FINISHED if record.finished else EventKind.RETRIED
        self._journal.publish(TaskEvent(kind, record, now, sampled=sampled))
        if record.finished:
            self._on_end(entry)
            if entry.ended is not None:
                entry.ended.set()
        return record.run_at

    def _end_span(self, span: AttemptSpan, record: TaskRecord, ending: Ending) -> tuple[SpanFact, ...]:
        # A failed attempt is failed in its span, also when another one follows.
        told = TaskStatus.FAILED if ending.failure is not None and not record.finished else record.status
        try:
            return span.end(told.value, ending.failure, ending.error)
        except Exception:
            logger.exception("the span of task %s could not be ended", record.task_id)
            return ()

    def _verdict(self, entry: Entry, context: TaskContext, ending: Ending, now: float) -> TaskRecord:
        asked = entry.cancel_requested
        stopped = ending.error is not None and ending.failure is None
        if asked and ending is WELL and not context.cancel_seen:
            context.log(RAN_TO_END, level="warning")
        record = _with_logs(entry.record, context.logs)
        if stopped and not asked:
            return self._cut_off(record, now)
        if asked and (stopped or context.cancel_seen):
            return lifecycle.cancel(record, at=now, reason=CANCELLED_REASON)
        if ending.failure is None:
            return lifecycle.succeed(record, at=now)
        if record.attempt < record.max_attempts and not asked:
            pause = entry.definition.retry.pause_before(record.attempt - _cut_offs(record), chance=random)
            return lifecycle.retry(record, ending.failure, at=now, run_at=now + pause)
        return lifecycle.fail(record, ending.failure, at=now)

    def _cut_off(self, record: TaskRecord, now: float) -> TaskRecord:
        """Settle an attempt that the shutdown cancelled."""
        if record.requeue_on_interrupt:
            return lifecycle.requeue(record, at=now, owner="")
        return lifecycle.interrupt(record, at=now, owner=self.owner, reason="the service was shut down while it ran")


def _cut_offs(record: TaskRecord) -> int:
    """Return how many attempts a crash cut off: they do not lengthen the backoff."""
    return sum(1 for attempt in record.attempts if attempt.error_type is None)


def _with_logs(record: TaskRecord, lines: tuple[LogEntry, ...]) -> TaskRecord:
    if not lines:
        return record
    earlier = tuple(line for line in record.logs if line.attempt != record.attempt)
    return record.evolve(logs=(*earlier, *lines))
