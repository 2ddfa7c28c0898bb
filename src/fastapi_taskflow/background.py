"""``ManagedBackgroundTasks``: the tasks of one request.

It reads two private scope keys of FastAPI: ``fastapi_inner_astack``, the exit stack that closes last and sees every
exception before its error response starts, and ``fastapi_function_astack``, which closes after the endpoint and before
the response starts.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final

from fastapi import BackgroundTasks, HTTPException
from starlette.background import BackgroundTask

from fastapi_taskflow.early_start import EarlyStart
from fastapi_taskflow.entry import Entry
from fastapi_taskflow.errors import ConfigurationError, StoreUnavailableError
from fastapi_taskflow.task.placing import placed
from fastapi_taskflow.task.queue import DEFAULT
from fastapi_taskflow.task.step import Step, checked_group, failure_steps, whole_step

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping, Sequence
    from datetime import datetime, timedelta
    from types import TracebackType

    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
    from sqlalchemy.orm import Session

    from fastapi_taskflow.dispatcher import Dispatcher
    from fastapi_taskflow.task.step import Steps, TaskGroup
    from fastapi_taskflow.transaction import CarriedTask

logger = logging.getLogger("fastapi_taskflow.background")

SCOPE_KEY: Final = "fastapi_taskflow"
REQUEST_STACK: Final = "fastapi_inner_astack"
FUNCTION_STACK: Final = "fastapi_function_astack"
UNAVAILABLE: Final = "The background tasks of this request could not be stored; nothing was kept. Please try again."


class ManagedBackgroundTasks(BackgroundTasks):
    """FastAPI's ``BackgroundTasks`` whose tasks have an id, are stored, retried, traced and shown.

    Tasks run one after another after the response, but for those of another queue than the default one, with a priority
    or ``eager``: each of these runs on its own. A plain Starlette ``BackgroundTask`` put into ``tasks`` runs in its
    place in that order, unmanaged.

    Args:
        dispatcher: Takes the tasks.
        scope: The request's ASGI scope.
        held: Whether the middleware holds the response; otherwise FastAPI's exit stack is used for it.
    """

    tasks: list[Any]

    def __init__(self, dispatcher: Dispatcher, scope: MutableMapping[str, Any], *, held: bool) -> None:
        self.tasks = []
        self._dispatcher = dispatcher
        self._scope = scope
        self._held = held
        self._closed = False
        self._running: asyncio.Task[None] | None = None
        self._waiting: list[Entry] = []
        self._alone: list[Entry] = []
        self._early: list[EarlyStart] = []
        self._carried: list[CarriedTask] = []
        self._ran = 0
        self._watched = False

    def add_task(  # type: ignore[override]
        self,
        func: Callable[..., Any] | Step,
        /,
        *args: Any,
        tags: Sequence[str] = (),
        idempotency_key: str | None = None,
        session: AsyncSession | AsyncConnection | Session | None = None,
        queue: str | None = None,
        priority: int | None = None,
        delay: float | timedelta | None = None,
        run_at: datetime | None = None,
        expires: float | timedelta | None = None,
        deadline: datetime | None = None,
        unique_for: float | timedelta | None = None,
        eager: bool = False,
        on_success: Steps = None,
        on_failure: Steps = None,
        **kwargs: Any,
    ) -> str:
        """Add ``func(*args, **kwargs)`` as a task, and return its id.

        Args:
            func: A function, sync or async, decorated or not; or a `step`, such as a `chain`, with its own arguments.
            *args: Its positional arguments.
            tags: Labels to find it by.
            idempotency_key: At most one task of this function with this key is ever stored; for a second one the first
                one's id is returned, and nothing runs.
            session: A SQLAlchemy session or connection on the tasks' own database. The task becomes part of its
                transaction: it begins with the commit, without waiting for the response, and a rollback undoes it.
            queue: The queue that it waits in, instead of its definition's.
            priority: Higher runs first within the queue, instead of its definition's.
            delay: Seconds, or a ``timedelta``, before which it does not run.
            run_at: The time before which it does not run, with a time zone.
            expires: Seconds, or a ``timedelta``, after which it is cancelled if it has not started.
            deadline: The same as a time, with a time zone.
            unique_for: Seconds, or a ``timedelta``: within each window of that length a task with the same arguments
                (or the same ``idempotency_key``) exists once. Windows follow each other from the Unix epoch on.
            eager: Start it as soon as it is stored, before the response.
            on_success: What is added when it has succeeded: a `step`, or several.
            on_failure: What is added when it has failed for good.
            **kwargs: Its keyword arguments.

        Raises:
            TaskArgumentError: If an argument cannot be stored. Nothing was added.
            QueueFullError: If as many tasks wait in the queue as may. Nothing was added.
            ConfigurationError: If an option is wrong or contradicts another one, has the name of an argument of
                ``func``, the session is on another database, or the request is over.
        """
        self._require_open()
        transactions = self._dispatcher.transactions
        carrier = None if session is None else transactions.carrier(session)
        placing = placed(
            tags=tags,
            idempotency_key=idempotency_key,
            queue=queue,
            priority=priority,
            delay=delay,
            run_at=run_at,
            expires=expires,
            deadline=deadline,
            unique_for=unique_for,
            eager=eager,
        )
        if on_success is None and on_failure is None and not isinstance(func, Step):
            entry = self._dispatcher.prepare(func, args, kwargs, placing)
        else:
            whole = whole_step(func, args, kwargs, on_success, on_failure)
            entry = self._dispatcher.prepare_step(whole, placing)
        record = entry.record
        in_order = record.queue == DEFAULT and not record.priority and not eager
        if carrier is not None:
            carried = transactions.add(entry, carrier, in_order=in_order)
            self._carried.append(carried)
            self.tasks.append(carried)
            return record.task_id
        if eager:
            early = EarlyStart(self._dispatcher, entry)
            self._early.append(early)
            early.soon()
            return record.task_id
        if not self._watched:
            self._watch()
        self._waiting.append(entry)
        if in_order:
            self.tasks.append(entry)
        else:
            self._alone.append(entry)
        return record.task_id

    def add_group(
        self, steps: Sequence[Step], /, *, callback: Step | None = None, on_failure: Steps = None
    ) -> TaskGroup:
        """Add several tasks at once, which run side by side, and one that runs when all have succeeded.

        Args:
            steps: The members.
            callback: What runs when all have succeeded; `previous_result` is the list of what they returned.
            on_failure: What is added once, when all have ended and one has failed.

        Raises:
            TaskArgumentError: If an argument cannot be stored. Nothing was added.
            QueueFullError: If as many tasks wait in a member's queue as may. Nothing was added.
            ConfigurationError: If something is wrong with a member, or the request is over.
        """
        self._require_open()
        members = checked_group(steps, callback, on_failure)
        group, entries = self._dispatcher.prepare_group(members, callback, failure_steps(on_failure))
        if not self._watched:
            self._watch()
        self._waiting += entries
        self._alone += entries
        return group

    def _require_open(self) -> None:
        if self._closed:
            msg = "this request is over, nobody would run the task: use `await task_manager.enqueue(…)` instead"
            raise ConfigurationError(msg)

    def run_among(self, others: BackgroundTasks) -> None:
        """Run after what ``others`` holds by now, and before what it gets later. Harmless when done already."""
        if others is not self and not any(task.func is self for task in others.tasks):
            others.tasks.append(BackgroundTask(self))

    @property
    def waiting(self) -> bool:
        """Whether there are tasks that are not known to be stored yet."""
        return bool(self._waiting or self._early)

    async def finish(self) -> None:
        """End the request: run what was accepted and nobody has run, and take nothing more.

        That is what was added late, or after a broken stream, or where the response has a background of its own.
        """
        if self._running is not None or self._ran < len(self.tasks):
            await self()
        if self.waiting:
            await self._admit_late()
        for carried in self._carried:
            # Those whose transaction was committed after their turn, in the exit code of a dependency.
            await carried()
        self._closed = True

    def abandon(self, reason: str) -> None:
        """End a request that failed: drop what is not admitted, and let the rest run without anybody who waits."""
        self.drop(reason)
        self._go_on()
        self._closed = True

    def admit_at_once(self) -> bool:
        """Have the waiting tasks taken in, if the store makes nobody wait; return whether it was done."""
        if self._early or not self._dispatcher.admit_at_once(self._waiting):
            return False
        self._waiting = []
        if self._alone:
            alone, self._alone = self._alone, []
            self._submit(alone)
        return True

    async def admit(self) -> None:
        """Have the waiting tasks stored.

        Raises:
            StoreUnavailableError: If the store did not commit in time. They are withdrawn.
        """
        waiting, self._waiting = self._waiting, []
        alone, self._alone = self._alone, []
        try:
            if self._early:
                await self._begin_early()
            await self._dispatcher.admit(waiting)
        except StoreUnavailableError:
            for entry in waiting:
                entry.withdrawn = True
            raise
        self._submit(alone)

    async def _begin_early(self) -> None:
        early, self._early = self._early, []
        for each in early:
            each.begin()
        for each in early:
            await each.begun()

    def _submit(self, alone: Sequence[Entry]) -> None:
        """Have those run that leave the request's order."""
        for entry in alone:
            if entry.admitted:
                self._dispatcher.start(entry)

    async def __call__(self) -> None:
        """Run the tasks in order. The request may be cancelled; they are not."""
        self._go_on()
        if self._running is not None:
            await asyncio.shield(self._running)
            self._running = None

    def _go_on(self) -> None:
        left = self.tasks[self._ran :]
        if self._running is None and any(not isinstance(task, Entry) or not task.withdrawn for task in left):
            self._running = self._dispatcher.engine.begin(self._run())

    async def _admit_late(self) -> None:
        """Have tasks stored that were added after the response had begun; those before them go on in any case."""
        try:
            await self.admit()
        except StoreUnavailableError:
            logger.exception("tasks that were added after the response had begun are lost")

    async def _run(self) -> None:
        engine = self._dispatcher.engine
        while self._ran < len(self.tasks):
            task = self.tasks[self._ran]
            self._ran += 1
            if not isinstance(task, Entry):
                await task()
                continue
            if self._waiting:
                await self._admit_late()
            if not (task.withdrawn or task.lost):
                await engine.run(task)

    def drop(self, reason: str) -> None:
        """Forget the tasks that are not admitted, as FastAPI forgets those of a request that failed."""
        waiting, self._waiting = self._waiting, []
        self._alone = []
        for entry in waiting:
            entry.withdrawn = True
        if waiting:
            names = ", ".join(f"{entry.record.func_name} ({entry.record.task_id})" for entry in waiting[:10])
            logger.warning("%d task(s) dropped, because %s: %s", len(waiting), reason, names)

    def _watch(self) -> None:
        """Be told when the endpoint or a dependency raises."""
        self._watched = True
        stack = self._scope.get(REQUEST_STACK)
        if self._held and stack is not None:
            stack.push(self)

    def hold_by_stacks(self) -> None:
        """Hold the response by FastAPI's exit stacks, where the manager has no middleware (a lifespan by hand)."""
        self._scope[REQUEST_STACK].push_async_callback(self.finish)
        self._scope[FUNCTION_STACK].push_async_exit(self._left_unheld)

    def __enter__(self) -> None:
        """Be a context manager for FastAPI's exit stack."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """Drop what is not admitted, if the endpoint or a dependency raised."""
        if kind is not None:
            self.drop(f"the endpoint raised {kind.__name__}: {error}")

    async def _left_unheld(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Have the tasks stored before the response starts."""
        self.__exit__(kind, error, trace)
        if self.waiting:
            try:
                await self.admit()
            except StoreUnavailableError as failure:
                logger.error("a request gets 503: %s", failure)  # noqa: TRY400 - the store's trouble, not a bug's trace
                raise HTTPException(503, UNAVAILABLE) from failure
