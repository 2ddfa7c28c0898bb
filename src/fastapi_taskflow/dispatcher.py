"""The only door in: every new task, retry by hand and cancellation goes through here."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import inspect
import logging
import time
from typing import TYPE_CHECKING, Any, Final

from fastapi_taskflow import clock
from fastapi_taskflow.entry import Entry, live_record
from fastapi_taskflow.errors import (
    ConfigurationError,
    InvalidTransitionError,
    StoreUnavailableError,
    TaskArgumentError,
    TaskNotFoundError,
)
from fastapi_taskflow.task import lifecycle
from fastapi_taskflow.task.arguments import require_callable
from fastapi_taskflow.task.event import EventKind, TaskEvent
from fastapi_taskflow.task.follow import follow_text, member_id, waits_for_group
from fastapi_taskflow.task.placing import AS_DEFINED, Placing, placed
from fastapi_taskflow.task.portable import carried
from fastapi_taskflow.task.record import (
    DEAD,
    RETRYABLE,
    Resolution,
    TaskRecord,
    TaskStatus,
    keyed_task_id,
    new_task_id,
    windowed_key,
)
from fastapi_taskflow.task.registry import split_call
from fastapi_taskflow.task.step import Step, TaskGroup, awaits_result
from fastapi_taskflow.transaction import Transactions

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fastapi_taskflow.commit import Commit
    from fastapi_taskflow.engine import Engine
    from fastapi_taskflow.expiry import Expiry
    from fastapi_taskflow.journal import Journal
    from fastapi_taskflow.kept_calls import KeptCalls
    from fastapi_taskflow.observer import Tracing
    from fastapi_taskflow.task.call import Calls
    from fastapi_taskflow.task.definition import TaskDefinition
    from fastapi_taskflow.task.registry import Registry

logger = logging.getLogger("fastapi_taskflow.dispatcher")

RETRIED_ALREADY: Final = "task {} was retried already; retry the newer one, if that has failed too"

CANCEL_NOTICE: Final = 1.0
"""Seconds that a cancel request waits for a running async task to end, so that its answer can say so."""

ELSEWHERE_NOTICE: Final = 1.5
ELSEWHERE_POLL: Final = 0.1
"""The same, in which another instance has to end it; and how often the store is looked at meanwhile."""

CROWDED: Final = 1_000
"""Waiting changes at which even a store that keeps nothing is waited for: whoever adds tasks in a loop is slowed."""

OF_STEPS: Final = ("tags", "queue", "priority", "run_at", "expires_at")
"""Options that a step can have of its own."""

LIMITED_SOURCES: Final = frozenset({"request", "manual"})
"""Where tasks come from that a full queue refuses: whoever adds them can try again."""


class Dispatcher:
    """Makes records from calls, has them stored, and hands them to the engine.

    Args:
        journal: The way into the store.
        engine: Where admitted tasks go.
        registry: The known functions.
        tracing: Makes the send span.
        calls: Stores and restores calls.
        expiry: Ends what may not start any more.
        kept: Keeps the calls of tasks that have ended.
        commit_timeout: Seconds to wait for the store.

    Attributes:
        owner: The id of this instance, new with each start.
        transactions: Takes what is added within a transaction of the user's.
        hold: Takes callbacks that wait for their group.
    """

    def __init__(
        self,
        journal: Journal,
        engine: Engine,
        registry: Registry,
        tracing: Tracing,
        *,
        calls: Calls,
        expiry: Expiry,
        kept: KeptCalls,
        commit_timeout: float,
    ) -> None:
        self.engine = engine
        self.owner = ""
        self.hold: Callable[[Entry], None] = engine.submit
        self.transactions = Transactions(journal, engine, expiry, lambda: self.owner)
        self._journal = journal
        self._registry = registry
        self._tracing = tracing
        self._commit_timeout = commit_timeout
        self._calls = calls
        self._persistent = journal.store.persistent
        self._expiry = expiry
        self._kept = kept
        self._late: set[asyncio.Task[None]] = set()

    def lead_to(self, engine: Engine) -> Engine:
        """Hand tasks to ``engine`` from here on; return where they went before. For test aids."""
        before, self.engine = self.engine, engine
        self.transactions.engine = engine
        return before

    # -- in ----------------------------------------------------------------------------------------------------------

    def call_soon(self, callback: Callable[[], object]) -> None:
        """Have ``callback`` called on the loop; may be called from any thread.

        Raises:
            RuntimeError: If the loop is closed.
        """
        self._journal.call_soon(callback)

    def prepare(
        self,
        func: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        placing: Placing = AS_DEFINED,
        *,
        source: str = "request",
        definition: TaskDefinition | None = None,
        after: TaskRecord | None = None,
    ) -> Entry:
        """Make the entry of a new task, with its send span. Does no I/O and may be called in any thread.

        Args:
            func: What is called.
            args: Its positional arguments.
            kwargs: Its keyword arguments.
            placing: The options of the call.
            source: As in the record.
            definition: The definition, where ``func`` has several.
            after: The task that it follows.

        Raises:
            TaskArgumentError: If an argument cannot be stored.
            ConfigurationError: If ``func`` is not callable, or takes an argument that has the name of a given option.
            QueueFullError: If as many tasks wait in its queue as may.
        """
        definition = definition or self._registry.known(func)
        if definition is None:
            require_callable(func)
            func, args, kwargs = split_call(func, args, kwargs)
            definition = self._registry.resolve(func)
        if placing.given & definition.parameters:
            _refuse_unclear(placing.given & definition.parameters, definition, func, args, kwargs)
        if definition.executor == "process":
            carried(func, args, kwargs)
        unique_for = (placing.unique_for or definition.unique_for) if placing.task_id is None else None
        target, text = self._calls.store(func, args, kwargs) if self._persistent else (None, None)
        key = placing.idempotency_key
        if unique_for is not None:
            same = f"args:{self._calls.digest(func, args, kwargs)}" if key is None else key
            key = windowed_key(same, seconds=unique_for, now=clock.now())
        task_id = placing.task_id or (new_task_id() if key is None else keyed_task_id(definition.name, key))
        # What is to run later takes no place until then; what there is already takes none at all.
        limited = self.engine.bounded and source in LIMITED_SOURCES
        limited = limited and placing.run_at is None and task_id not in self._journal.live
        if limited:
            # Before the send span is made, which would tell of a task that never was.
            self.engine.require_room(definition.queue if placing.queue is None else placing.queue)
        record = self._pending(
            definition, task_id, placing, source=source, link=None, idempotency_key=key, payload=text, target=target,
            after=after,
        )  # fmt: skip
        entry = Entry(record, definition, func, args, kwargs)
        if limited:
            self.engine.reserve(entry)
        return entry

    def prepare_step(self, step: Step, placing: Placing = AS_DEFINED, *, source: str = "request") -> Entry:
        """Make the entry of a step that nothing goes before, with all that follows it; see `prepare`.

        Args:
            step: The call.
            placing: The options of the call. The step's own, where it has them, come before these.
            source: As in the record.

        Raises:
            TaskArgumentError: If an argument of it, or of a step that follows, cannot be stored.
            ConfigurationError: If it waits for a result.
            QueueFullError: If as many tasks wait in its queue as may.
        """
        if step.awaits_result:
            msg = f"{step.func!r} is to get previous_result, but nothing goes before it"
            raise ConfigurationError(msg)
        follow = follow_text(step.on_success, step.on_failure, self._registry, self._calls)
        return self._of_step(step, dataclasses.replace(placing, follow=follow), source)

    def prepare_group(
        self, steps: Sequence[Step], callback: Step | None, on_failure: Sequence[Step], *, source: str = "request"
    ) -> tuple[TaskGroup, list[Entry]]:
        """Make the entries of a group's members, and of its callback; see `prepare`.

        Args:
            steps: The members.
            callback: Runs when all have succeeded.
            on_failure: What is added once when some have ended and one has failed.
            source: As in the record of the members.

        Raises:
            TaskArgumentError: If an argument cannot be stored.
            ConfigurationError: If a member cannot be one.
            QueueFullError: If as many tasks wait in a member's queue as may.
        """
        group_id = new_task_id()
        last: list[Entry] = []
        if callback is not None:
            follow = follow_text(
                callback.on_success, callback.on_failure, self._registry, self._calls,
                group_size=len(steps), alarm=on_failure,
            )  # fmt: skip
            follow_text([callback], [], self._registry, self._calls)  # it may be made again elsewhere
            placing = Placing(task_id=group_id, group_id=group_id, follow=follow)
            last.append(self._of_step(callback, placing, "follow"))
        members: list[Entry] = []
        for index, step in enumerate(steps):
            placing = Placing(task_id=member_id(group_id, index), group_id=group_id)
            entry = self.prepare_step(step, placing, source=source)
            if callback is not None and callback.awaits_result and not entry.definition.keep_result:
                msg = f"the callback is to get the results, but {entry.definition.name} has keep_result=False"
                raise ConfigurationError(msg)
            members.append(entry)
        task_ids = tuple(entry.record.task_id for entry in members)
        return TaskGroup(group_id, task_ids), [*members, *last]

    def _of_step(self, step: Step, placing: Placing, source: str) -> Entry:
        own = placed(**step.options)
        changes = {name: getattr(own, name) for name in OF_STEPS if getattr(own, name) not in (None, ())}
        placing = dataclasses.replace(placing, **changes)
        return self.prepare(step.func, step.args, dict(step.kwargs), placing, source=source)

    def _pending(
        self,
        definition: TaskDefinition,
        task_id: str,
        placing: Placing,
        *,
        source: str,
        link: str | None,
        payload: str | None,
        target: str | None,
        idempotency_key: str | None = None,
        retry_of: str | None = None,
        after: TaskRecord | None = None,
    ) -> TaskRecord:
        """Return the record of a new task, with its send span; ``link``: the traceparent that a new trace links to."""
        queue = definition.queue if placing.queue is None else placing.queue
        priority = definition.priority if placing.priority is None else placing.priority
        try:
            span = self._tracing.send(
                definition, task_id, queue=queue, source=source, priority=priority, link=link, after=after
            )
        except Exception:
            logger.exception("the send span of task %s could not be made", task_id)
            span = None
        now = clock.now()
        return TaskRecord(
            task_id,
            definition.name,
            TaskStatus.PENDING,
            now,
            owner=self.owner,
            queue=queue,
            priority=priority,
            source=source,
            executor=definition.executor,
            max_attempts=1 + definition.retry.retries,
            run_at=placing.run_at,
            ready_at=now if placing.run_at is None else placing.run_at,
            tags=placing.tags,
            idempotency_key=idempotency_key,
            payload=payload,
            target=target,
            retry_of=retry_of,
            requeue_on_interrupt=definition.requeue_on_interrupt,
            traceparent=span.traceparent if span is not None else None,
            tracestate=span.tracestate if span is not None else None,
            expires_at=_expires_at(definition, placing, now),
            parent_id=placing.parent_id,
            group_id=placing.group_id,
            schedule=placing.schedule,
            follow=placing.follow,
        )

    async def admit(self, entries: Sequence[Entry]) -> None:
        """Have new tasks stored; on return they are committed (if the store is persistent) and may run.

        One whose key is taken is not admitted: the first one stands for it.

        Raises:
            StoreUnavailableError: If the store did not commit in time. The tasks are withdrawn.
        """
        fresh, seconds, waits = self._sorted(entries)
        if fresh:
            self._journal.admit(fresh)
            keyed = any(entry.record.idempotency_key is not None for entry in fresh)
            if self._persistent or keyed or self._journal.backlog > CROWDED:
                waits.append(self._journal.next_commit())
        if waits:
            await self._committed(waits, fresh)
        self._accept(fresh)
        orphaned = [entry for entry, first in seconds if first.withdrawn and first.committed is None]
        if orphaned:
            # The first request with the key got 503 or went away: now it is up to the second one.
            for entry in orphaned:
                entry.lost = False
            await self.admit(orphaned)

    def _sorted(self, entries: Sequence[Entry]) -> tuple[list[Entry], list[tuple[Entry, Entry]], list[Commit]]:
        """Tell the new entries from those whose key is taken, each with the first one, and what the latter wait for."""
        fresh: list[Entry] = []
        seconds: list[tuple[Entry, Entry]] = []
        waits: list[Commit] = []
        keyed: dict[str, Entry] = {}
        for entry in entries:
            task_id = entry.record.task_id
            if entry.record.idempotency_key is not None:
                first = keyed.get(task_id) or self._journal.live.get(task_id)
                if first is not None:
                    entry.lost = True
                    seconds.append((entry, first))
                    commit = self._journal.commit_of(task_id)
                    if commit is not None:
                        waits.append(commit)
                    continue
                keyed[task_id] = entry
            fresh.append(entry)
        return fresh, seconds, waits

    def admit_at_once(self, entries: Sequence[Entry]) -> bool:
        """Do what ``admit`` does, if there is nothing to wait for; return whether it was done."""
        journal = self._journal
        if self._persistent or journal.backlog > CROWDED or journal.full:
            return False
        if any(entry.record.idempotency_key is not None for entry in entries):
            return False
        journal.admit(entries)
        self._accept(entries)
        return True

    def _accept(self, entries: Sequence[Entry]) -> None:
        now = clock.now()
        for entry in entries:
            if not entry.lost:
                entry.admitted = True
                if entry.record.expires_at is not None:
                    self._expiry.mind(entry)
                self._journal.publish(TaskEvent(EventKind.ENQUEUED, entry.record, now))

    async def _committed(self, waits: Sequence[Commit], fresh: list[Entry]) -> None:
        deadline = time.monotonic() + self._commit_timeout
        try:
            for commit in waits:
                if not await commit.wait(max(0.0, deadline - time.monotonic())):
                    self._give_up(fresh)
                    what = "; the tasks were withdrawn, try again" if fresh else ""
                    msg = f"the store did not commit within {self._commit_timeout:g} s{what}"
                    raise StoreUnavailableError(msg)
        except asyncio.CancelledError:
            self._give_up(fresh)
            raise

    def _give_up(self, fresh: list[Entry]) -> None:
        """Withdraw what the store may or may not hold by now.

        A task with a key stays if the commit is under way: the client's second try gets the same id, and it runs once.
        """
        for entry in fresh:
            task_id = entry.record.task_id
            outcome = self._journal.outcome_of(task_id)
            self._journal.withdraw(entry)
            if self._journal.live.get(task_id) is entry and (outcome is not None or entry.uncertain):
                self.engine.spawn(self._after_late_commit(entry, outcome))

    async def _after_late_commit(self, entry: Entry, outcome: Commit | None) -> None:
        if outcome is not None:
            await outcome.wait()
        commit = self._journal.commit_of(entry.record.task_id)
        if entry.uncertain and entry.committed is None and commit is not None:
            # It is written again, since only then the store is known to hold it.
            await commit.wait()
        if entry.committed is None or entry.lost:
            return
        if entry.record.idempotency_key is not None:
            entry.withdrawn = False
            entry.admitted = True
            await self.engine.run(entry)
            return
        now = clock.now()
        record = lifecycle.reject(entry.record, at=now, reason="withdrawn: its request got 503, the store was too slow")
        self._journal.append(entry, record)
        self._journal.publish(TaskEvent(EventKind.FINISHED, record, now))

    async def enqueue(self, entry: Entry) -> str:
        """Admit one task and submit it; return its id.

        Raises:
            StoreUnavailableError: If the store did not commit in time.
        """
        await self.admit([entry])
        if entry.admitted:
            self.start(entry)
        return entry.record.task_id

    def start(self, entry: Entry) -> None:
        """Have an admitted task run: at once, when it is due, or when the group that it waits for has ended."""
        if entry.record.follow is not None and waits_for_group(entry.record):
            self.hold(entry)
        else:
            self.engine.submit(entry)

    async def turn_away(self, entry: Entry, reason: str) -> None:
        """Have a new task stored that does not run, as ``rejected``; nothing happens if its key is taken.

        Raises:
            StoreUnavailableError: If the store did not commit in time.
        """
        entry.record = lifecycle.reject(entry.record, at=clock.now(), reason=reason)
        await self.admit([entry])
        if entry.admitted:
            self._journal.publish(TaskEvent(EventKind.FINISHED, entry.record, clock.now()))

    async def end_waiting(self, old: Entry, reason: str, *, instead: Entry | None = None) -> None:
        """Cancel a task that waits here, and add another one in its place: in one transaction, both or neither.

        Args:
            old: The one that waits.
            reason: Why.
            instead: The new one, or None. It runs unless its key is taken.

        Raises:
            StoreUnavailableError: If the store did not commit in time. It is done once it works again.
        """
        now = clock.now()
        if instead is not None:
            self._journal.admit([instead])
        record = lifecycle.cancel(old.record, at=now, reason=reason)
        self._journal.append(old, record)
        old.leave()
        self._journal.publish(TaskEvent(EventKind.FINISHED, record, now))
        # Seen through, whatever becomes of the caller: what is under way cannot be taken back.
        work = asyncio.get_running_loop().create_task(self._go_on_after(self._journal.next_commit(), instead))
        self._late.add(work)
        work.add_done_callback(self._late.discard)
        done, _ = await asyncio.wait({work}, timeout=self._commit_timeout)
        if not done:
            msg = f"the store did not commit within {self._commit_timeout:g} s; it is done once it works again"
            raise StoreUnavailableError(msg)

    async def _go_on_after(self, commit: Commit, entry: Entry | None) -> None:
        await commit.wait()
        if entry is not None and not entry.lost:
            self._accept([entry])
            self.engine.submit(entry)

    def add_after(self, parent: Entry, children: Sequence[Entry]) -> None:
        """Add what follows a task that has ended, in the batch of that one's last record: both are stored or neither.

        Call it in the same turn as the journal gets that record.
        """
        fresh = [child for child in children if child.record.task_id not in self._journal.live]
        if fresh:
            self._journal.take(fresh)
            self.engine.spawn(self._begin_after(parent, fresh, self._journal.next_commit()))

    async def _begin_after(self, parent: Entry, children: Sequence[Entry], commit: Commit) -> None:
        await commit.wait()
        for child in children:
            if child.lost:
                continue
            if parent.lost and not child.record.finished:
                # Somebody else has the parent, and adds what follows that one's own attempt.
                reason = f"task {parent.record.task_id}, which it follows, was taken over by another instance"
                child.record = lifecycle.reject(child.record, at=clock.now(), reason=reason)
                self._journal.append(child, child.record)
            self._accept([child])
            if child.record.finished:
                self._journal.publish(TaskEvent(EventKind.FINISHED, child.record, clock.now()))
            else:
                self.start(child)

    # -- by hand -----------------------------------------------------------------------------------------------------

    async def cancel(self, task_id: str) -> TaskRecord:
        """Cancel a task, wherever it is; return its record as it is then.

        A pending one does not start. A running async one gets ``CancelledError``. A running sync one is asked through
        its context's ``cancelled`` and stays ``running`` until it really ends. Another instance that holds the task is
        asked to do it, which takes up to a second.

        Raises:
            TaskNotFoundError: If there is no such task.
            InvalidTransitionError: If it has ended.
        """
        record = await self.cancel_here(task_id)
        if record is None:
            record = await self._cancel_elsewhere(task_id)
        if record is None:
            raise TaskNotFoundError(task_id)
        return record

    async def _cancel_elsewhere(self, task_id: str) -> TaskRecord | None:
        store = self._journal.store
        record = await store.get(task_id)
        if record is None:
            return None
        lifecycle.target(record.status, lifecycle.Transition.CANCEL)
        await store.ask_to_cancel(task_id)
        deadline = time.monotonic() + ELSEWHERE_NOTICE
        while record is not None and not record.finished and time.monotonic() < deadline:
            await asyncio.sleep(ELSEWHERE_POLL)
            record = await store.get(task_id)
        return record

    async def cancel_here(self, task_id: str) -> TaskRecord | None:
        """Cancel a task that this instance holds, as `cancel` says; return its record, or None if it does not.

        Raises:
            InvalidTransitionError: If it has ended.
        """
        entry = self._journal.live.get(task_id)
        if entry is None or entry.lost:
            return None
        lifecycle.target(entry.record.status, lifecycle.Transition.CANCEL)
        if entry.record.status is TaskStatus.PENDING:
            now = clock.now()
            record = lifecycle.cancel(entry.record, at=now, reason="cancelled before it started")
            self._journal.append(entry, record)
            self._journal.publish(TaskEvent(EventKind.FINISHED, record, now))
            entry.leave()
            self._kept.keep(entry)
            await self._committed([self._journal.next_commit()], [])
            return entry.record
        entry.cancel_requested = True
        if entry.context is not None:
            entry.context.request_cancel()
        if entry.runner is not None:
            ended = entry.ended = entry.ended or asyncio.Event()
            entry.runner.cancel()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(ended.wait(), CANCEL_NOTICE)
        return live_record(entry)

    async def retry(self, task_id: str) -> TaskRecord:
        """Run an unsuccessful task again, as a new task in a new trace linked to the old one; return the new record.

        The old one is told to be resolved in the same commit. Of two that do so at once, one is refused.

        Raises:
            TaskNotFoundError: If there is no such task.
            InvalidTransitionError: If its status does not allow it, it was retried already, or its call cannot be made
                again.
            QueueFullError: If as many tasks wait in its queue as may.
            StoreUnavailableError: If the store did not commit in time.
        """
        record = await self._found(task_id)
        if record.status not in RETRYABLE:
            allowed = ", ".join(sorted(status.value for status in RETRYABLE))
            msg = f"cannot retry a task that is {record.status.value}; only one that is {allowed}"
            raise InvalidTransitionError(msg)
        if record.resolution == Resolution.RETRIED:
            raise InvalidTransitionError(RETRIED_ALREADY.format(task_id))
        entry = self._again(record)
        if entry.record.task_id in self._journal.live:
            raise InvalidTransitionError(RETRIED_ALREADY.format(task_id))
        self._journal.require_room()
        # From here to the admission nothing waits, so that both are in one batch.
        old = self._journal.amend(record, resolution=Resolution.RETRIED)
        try:
            await self.enqueue(entry)
        except StoreUnavailableError:
            self._journal.append(old, old.record.evolve(resolution=record.resolution))
            raise
        if entry.lost:
            raise InvalidTransitionError(RETRIED_ALREADY.format(task_id))
        return entry.record

    async def discard(self, task_id: str) -> TaskRecord:
        """Take a failed or interrupted task off the dead letters without running it again; return its record.

        Raises:
            TaskNotFoundError: If there is no such task.
            InvalidTransitionError: If it is no dead letter, or not any more.
            StoreUnavailableError: If the store did not commit in time.
        """
        record = await self._found(task_id)
        if record.status not in DEAD or record.resolution is not None:
            state = f"was {record.resolution} already" if record.resolution else f"is {record.status.value}"
            allowed = " or ".join(sorted(status.value for status in DEAD))
            msg = f"cannot discard task {task_id}, which {state}; only one that is {allowed} and waits for a decision"
            raise InvalidTransitionError(msg)
        self._journal.require_room()
        entry = self._journal.amend(record, resolution=Resolution.DISCARDED)
        await self._committed([self._journal.next_commit()], [])
        if entry.lost:
            msg = f"task {task_id} was resolved by somebody else just now"
            raise InvalidTransitionError(msg)
        return entry.record

    async def _found(self, task_id: str) -> TaskRecord:
        record = await self._journal.get(task_id)
        if record is None:
            raise TaskNotFoundError(task_id)
        return record

    def _again(self, old: TaskRecord) -> Entry:
        kept = self._kept.get(old.task_id)
        if kept is not None:
            definition, func, args, kwargs = kept.definition, kept.func, kept.args, kept.kwargs
        elif old.payload is not None:
            try:
                definition, func, args, kwargs = self._calls.restore(old)
            except TaskArgumentError as error:
                raise InvalidTransitionError(str(error)) from error
        else:
            msg = f"task {old.task_id} cannot be retried: its arguments were not kept"
            raise InvalidTransitionError(msg)
        if awaits_result(args, kwargs) and not waits_for_group(old):
            msg = (
                f"task {old.task_id} cannot be retried: it needs a result that could not be kept; retry what it follows"
            )
            raise InvalidTransitionError(msg)
        self.engine.require_room(old.queue)
        record = self._pending(
            definition,
            # The same for all who retry this version of it: the store takes one.
            keyed_task_id(old.task_id, f"retry of version {old.version}"),
            Placing(
                tags=old.tags,
                queue=old.queue,
                priority=old.priority,
                parent_id=old.parent_id,
                group_id=old.group_id,
                follow=old.follow,
            ),
            source="retry",
            link=old.traceparent,
            payload=old.payload,
            target=old.target,
            retry_of=old.task_id,
        )
        entry = Entry(record, definition, func, args, kwargs)
        if self.engine.bounded:
            self.engine.reserve(entry)
        return entry


def _expires_at(definition: TaskDefinition, placing: Placing, now: float) -> float | None:
    if placing.expires_at is not None or definition.expires is None:
        return placing.expires_at
    return (now if placing.run_at is None else placing.run_at) + definition.expires


def _refuse_unclear(
    names: frozenset[str],
    definition: TaskDefinition,
    func: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> None:
    """Refuse options that have the name of an argument that is not given: which one was meant cannot be told."""
    try:
        given = inspect.signature(func).bind_partial(*args, **kwargs).arguments
    except TypeError:
        return  # the call itself is wrong, and will say so
    for name in sorted(names - given.keys()):
        msg = (
            f"{name}= is an option of adding a task, and {definition.name} has an argument of that name: give the "
            f"argument by its place, or as functools.partial({definition.name}, {name}=…)"
        )
        raise ConfigurationError(msg)
