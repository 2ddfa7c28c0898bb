"""``TaskManager``: builds everything, and takes what an application asks for."""

from __future__ import annotations

import dataclasses
import logging
from typing import TYPE_CHECKING, Any

from fastapi_taskflow import injection
from fastapi_taskflow.clear import Clear, Lines
from fastapi_taskflow.dependencies import Dependencies, needs_of
from fastapi_taskflow.dispatcher import Dispatcher
from fastapi_taskflow.encryption import FernetCipher
from fastapi_taskflow.engines.local import LocalEngine
from fastapi_taskflow.errors import ConfigurationError, NotStartedError
from fastapi_taskflow.executors.coroutine import CoroutineExecutor
from fastapi_taskflow.executors.process import ProcessExecutor
from fastapi_taskflow.executors.thread import ThreadExecutor
from fastapi_taskflow.expiry import Expiry
from fastapi_taskflow.following import Following
from fastapi_taskflow.hosting import Hosted
from fastapi_taskflow.journal import Journal
from fastapi_taskflow.kept_calls import KeptCalls
from fastapi_taskflow.lease import Lease
from fastapi_taskflow.results import Results
from fastapi_taskflow.runner import Runner
from fastapi_taskflow.runtime import Runtime
from fastapi_taskflow.services.bulk import BulkJobs
from fastapi_taskflow.services.groups import Groups
from fastapi_taskflow.services.one_offs import OneOffs
from fastapi_taskflow.services.queue_settings import QueueSettings
from fastapi_taskflow.services.reencryption import Reencrypted, reencrypt
from fastapi_taskflow.services.scheduler import Scheduler
from fastapi_taskflow.services.turns import Turns
from fastapi_taskflow.settings import Settings
from fastapi_taskflow.stores.memory import MemoryStore
from fastapi_taskflow.surroundings import Surroundings
from fastapi_taskflow.task.arguments import checked_tags
from fastapi_taskflow.task.call import Calls
from fastapi_taskflow.task.cipher import NO_CIPHER
from fastapi_taskflow.task.definition import short_name
from fastapi_taskflow.task.once import checked_run_key
from fastapi_taskflow.task.options import checked_options, declared
from fastapi_taskflow.task.placing import placed
from fastapi_taskflow.task.queue import checked_queues
from fastapi_taskflow.task.redaction import Redaction
from fastapi_taskflow.task.registry import Registry
from fastapi_taskflow.task.schedule import Schedule, Schedules, checked_schedule, refuse_unfit
from fastapi_taskflow.task.step import Step, checked_group, failure_steps, whole_step
from fastapi_taskflow.telemetry.child_spans import ChildSpans
from fastapi_taskflow.telemetry.logs import FileLogger
from fastapi_taskflow.telemetry.metrics import OtelMetrics
from fastapi_taskflow.telemetry.prometheus import PrometheusMetrics
from fastapi_taskflow.telemetry.pump import ObserverPump
from fastapi_taskflow.telemetry.spans import SpanCapture
from fastapi_taskflow.telemetry.tracing import OtelTracing
from fastapi_taskflow.waiter import wait_for_end

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import datetime, timedelta
    from pathlib import Path
    from typing import Literal, ParamSpec, TypeVar
    from zoneinfo import ZoneInfo

    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider
    from prometheus_client import CollectorRegistry
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
    from sqlalchemy.orm import Session

    from fastapi_taskflow.store import Store
    from fastapi_taskflow.surroundings import AttemptMiddleware
    from fastapi_taskflow.task.cipher import Cipher
    from fastapi_taskflow.task.once import ScheduledOnce
    from fastapi_taskflow.task.payload import Serializer
    from fastapi_taskflow.task.queue import QueueConfig
    from fastapi_taskflow.task.record import TaskRecord
    from fastapi_taskflow.task.schedule import Misfire, Overlap
    from fastapi_taskflow.task.step import Steps, TaskGroup
    from fastapi_taskflow.telemetry.task_observer import TaskObserver

    P = ParamSpec("P")
    R = TypeVar("R")
    Middle = TypeVar("Middle", bound=AttemptMiddleware)

logger = logging.getLogger("fastapi_taskflow")

LINGER = 0.005
"""Seconds that ``running`` and the like wait for company: most often ``success``, or the next request's tasks."""

LINGER_IN_MEMORY = 0.0005


class TaskManager(Hosted):
    """The tasks of one application.

    Args:
        snapshot_db: Path of the SQLite file that keeps the tasks; None keeps them in memory, until the process ends.
        snapshot_backend: A database URL instead, such as ``sqlite+aiosqlite:///tasks.db``, or a `Store` of your own.
        requeue_pending: Run what had not started when the process stopped. Otherwise it becomes ``interrupted``.
        retention_days: Delete finished records after so many days; None keeps them.
        audit_retention_days: Delete acts from the audit log after so many days.
        log_file: A file that gets each line of `task_log`, and with ``log_lifecycle`` each change of status.
        log_file_max_bytes: Size at which the file is rotated.
        log_file_backup_count: Rotated files to keep.
        log_file_mode: ``rotate``, or ``watched`` where logrotate moves the file.
        log_lifecycle: Write changes of status to ``log_file`` too.
        loggers: Observers that are told of each line and each change of status, off the request's way.
        max_sync_threads: Sync tasks at the same time.
        max_process_workers: Tasks with ``executor="process"`` at the same time, each in a process of its own; as many
            as there are cores by default, but at most 4.
        process_max_tasks: Tasks after which a process is replaced by a new one.
        max_concurrent_tasks: Tasks at the same time, in all queues together; None is without limit.
        queues: The limits of queues by name, such as ``{"email": QueueConfig(concurrency=30)}``; in each process.
        max_finished: Finished tasks that the memory store remembers.
        commit_timeout: Seconds that a request waits for its tasks to be stored before it fails with 503.
        shutdown_timeout: Seconds that running tasks have to finish at shutdown.
        lease: Seconds without a sign of life after which another instance takes this one's tasks. One whose process has
            gone from this host is found within a second, whatever the lease.
        max_recoveries: How often a task may be cut off by the end of its process before it is parked as failed.
        result_max_bytes: What a task returns is kept with its record, if its text is not longer; 0 keeps no results.
        serializer: For arguments of types that are not supported, such as ``PickleSerializer()``.
        encrypt_args_key: A Fernet key, or a list of them with the newest first: arguments are stored encrypted.
        encrypt_results: Encrypt what tasks return, too.
        encrypt_logs: Encrypt their lines, too.
        redact: Names of arguments and fields whose values are not shown, in no view, log or span; or a function of a
            name and a value that returns what is to be shown.
        synchronous: SQLite's ``synchronous``: ``NORMAL`` survives a crash of the process, ``FULL`` a power loss too.
        capture_spans: Keep the app's own spans that run under a task with its record.
        trace_relationship: ``parent`` puts attempts into the request's trace; ``link`` begins a new one, linked to it.
        tracer_provider: Used instead of the global one.
        meter_provider: Used instead of the global one.
        registry: Prometheus metrics go here instead of to a registry of the manager's own.

    Raises:
        ConfigurationError: If an option, or a combination, is wrong.
    """

    def __init__(
        self,
        *,
        snapshot_db: str | Path | None = None,
        snapshot_backend: str | Store | None = None,
        requeue_pending: bool = False,
        retention_days: float | None = None,
        audit_retention_days: float = 365.0,
        log_file: str | Path | None = None,
        log_file_max_bytes: int = 10 * 1024 * 1024,
        log_file_backup_count: int = 5,
        log_file_mode: Literal["rotate", "watched"] = "rotate",
        log_lifecycle: bool = False,
        loggers: Iterable[TaskObserver] | None = None,
        max_sync_threads: int | None = None,
        max_process_workers: int | None = None,
        process_max_tasks: int = 100,
        max_concurrent_tasks: int | None = None,
        queues: Mapping[str, QueueConfig] | None = None,
        max_finished: int = 10_000,
        commit_timeout: float = 5.0,
        shutdown_timeout: float = 30.0,
        lease: float = 15.0,
        max_recoveries: int = 3,
        result_max_bytes: int = 65_536,
        serializer: Serializer | None = None,
        encrypt_args_key: str | bytes | Sequence[str | bytes] | None = None,
        encrypt_results: bool = False,
        encrypt_logs: bool = False,
        redact: Iterable[str] | Callable[[str, Any], Any] = (),
        synchronous: Literal["NORMAL", "FULL"] = "NORMAL",
        capture_spans: bool = True,
        trace_relationship: Literal["parent", "link"] = "parent",
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        registry: CollectorRegistry | None = None,
    ) -> None:
        defaults = Settings()
        self.settings = Settings(
            requeue_pending=requeue_pending,
            retention_days=retention_days,
            audit_retention_days=audit_retention_days,
            max_sync_threads=defaults.max_sync_threads if max_sync_threads is None else max_sync_threads,
            max_process_workers=defaults.max_process_workers if max_process_workers is None else max_process_workers,
            process_max_tasks=process_max_tasks,
            max_concurrent_tasks=max_concurrent_tasks,
            commit_timeout=commit_timeout,
            shutdown_timeout=shutdown_timeout,
            lease=lease,
            max_recoveries=max_recoveries,
            result_max_bytes=result_max_bytes,
        )
        if encrypt_args_key is None and (encrypt_results or encrypt_logs):
            msg = "encrypt_results and encrypt_logs need encrypt_args_key"
            raise ConfigurationError(msg)
        self._cipher = None if encrypt_args_key is None else FernetCipher(encrypt_args_key)
        cipher: Cipher = self._cipher or NO_CIPHER
        redaction = Redaction(redact)
        self.store: Store = store_from(
            snapshot_db, snapshot_backend, max_finished=max_finished, synchronous=synchronous
        )
        super().__init__()
        held = Lease(self.settings.lease if self.store.persistent else None)
        engine = LocalEngine(max_concurrent_tasks, held, checked_queues(queues))
        self.queues = QueueSettings(self.store, engine.queues)
        self.prometheus = PrometheusMetrics(
            registry=registry,
            # The journal is made after it, as it tells it of events.
            live_counts=lambda: self.journal.live_counts(),  # noqa: PLW0108
            oldest_pending=lambda queue: self.journal.oldest_pending(queue),  # noqa: PLW0108
            backlog=lambda: self.journal.backlog,
            catch_up=lambda: self.journal.tell(),  # noqa: PLW0108
            limits=engine.queues.limits,
        )
        self.registry = Registry(on_add=self.prometheus.declare, needs_of=needs_of)
        self.surroundings = Surroundings(Dependencies(self._overrides))
        observers = list(loggers or ())
        if log_file is not None:
            observers.append(
                FileLogger(
                    log_file,
                    max_bytes=log_file_max_bytes,
                    backup_count=log_file_backup_count,
                    mode=log_file_mode,
                    lifecycle=log_lifecycle,
                )
            )
        pump = ObserverPump(observers)
        self._tracing = tracing = OtelTracing(
            tracer_provider=tracer_provider,
            trace_relationship=trace_relationship,
            capture=SpanCapture(redact=redaction.fields if redaction.active else None) if capture_spans else None,
        )
        self.journal = Journal(
            self.store,
            [self.prometheus, OtelMetrics(meter_provider=meter_provider), *([pump] if observers else [])],
            max_backlog=self.settings.max_backlog,
            linger=LINGER if self.store.persistent else LINGER_IN_MEMORY,
            on_flush=self.prometheus.observe_flush,
        )
        self.calls = calls = Calls(self.registry, serializer, cipher)
        self.clear = Clear(self.registry, cipher, redaction)
        kept = KeptCalls()
        expiry = Expiry(self.journal, kept)
        self._results = Results(self.settings.result_max_bytes, serializer, cipher, seals=encrypt_results)
        self.dispatcher = Dispatcher(
            self.journal,
            engine,
            self.registry,
            tracing,
            calls=calls,
            expiry=expiry,
            kept=kept,
            commit_timeout=commit_timeout,
        )
        following = Following(self.dispatcher, calls)
        groups = Groups(self.journal, self.dispatcher, following, self._results)
        self.dispatcher.hold = groups.submit
        self.bulk = BulkJobs(self.dispatcher, self.journal, self.registry)
        threads = ThreadExecutor(self.settings.max_sync_threads)
        processes = ProcessExecutor(
            self.settings.max_process_workers,
            self.settings.process_max_tasks,
            ChildSpans if capture_spans else None,
        )
        runner = Runner(
            self.journal,
            tracing,
            lease=held,
            executors={each.name: each for each in (CoroutineExecutor(), threads, processes)},
            expiry=expiry,
            kept=kept,
            surroundings=self.surroundings,
            followed=following.ended,
            see_through=engine.spawn,
            result_text=self._results.text_of,
            lines=Lines(redaction, cipher if encrypt_logs else None) if redaction.active or encrypt_logs else None,
        )
        self._schedules = Schedules()
        # Looked up at each call: a test may have put another engine there.
        self._turns = turns = Turns(self._schedules, self.journal, lambda entry: self.dispatcher.engine.submit(entry))  # noqa: PLW0108
        self.scheduler = Scheduler(self._schedules, self.journal, self.dispatcher, turns, lease=self.settings.lease)
        self.one_offs = OneOffs(self.journal, self.dispatcher)
        self._runtime = Runtime(
            self.store,
            self.journal,
            engine,
            self.dispatcher,
            runner,
            self.registry,
            calls,
            expiry,
            following,
            groups,
            self.scheduler,
            turns,
            self.one_offs,
            processes,
            pump,
            self.prometheus,
            held,
            self.queues,
            self.settings,
        )

    # -- declaring tasks ---------------------------------------------------------------------------------------------

    def task(
        self,
        *,
        retries: int = 0,
        delay: float = 0.0,
        backoff: float = 1.0,
        max_delay: float | None = None,
        jitter: float = 0.0,
        retry_on: type[BaseException] | Sequence[type[BaseException]] = (),
        give_up_on: type[BaseException] | Sequence[type[BaseException]] = (),
        timeout: float | None = None,
        expires: float | None = None,
        unique_for: float | None = None,
        queue: str = "default",
        priority: int = 0,
        executor: Literal["async", "thread", "process"] | None = None,
        keep_result: bool = True,
        persist: bool = False,
        name: str | None = None,
        requeue_on_interrupt: bool = False,
    ) -> Callable[[Callable[P, R]], Callable[P, R]]:
        """Declare a function, sync or async, as a task. The function itself stays as it is.

        Args:
            retries: Further attempts after a failed one.
            delay: Seconds before the first retry.
            backoff: Factor on the delay for each further retry.
            max_delay: Seconds that no delay exceeds.
            jitter: The part of each delay that is left to chance, 0 to 1, so that tasks that failed together do not
                come back together.
            retry_on: Retry after these exceptions only.
            give_up_on: Never retry after these, whatever ``retry_on`` says.
            timeout: Seconds that one attempt may take.
            expires: Seconds after which a task that has not started is cancelled.
            unique_for: Seconds; see ``add_task``.
            queue: The queue that it waits in.
            priority: Higher runs first within the queue.
            executor: What runs it: ``async`` or ``thread`` by default, by the kind of function; ``process`` for work
                that keeps a core busy.
            keep_result: Keep what it returns, if it can be stored.
            persist: Run what had not started when the process stopped, also without ``requeue_pending``.
            name: The task's name; the function's own by default.
            requeue_on_interrupt: Run again what a stop of the process cut off. The function must bear to run twice.

        Raises:
            ConfigurationError: If a value is wrong, another function has the name, or a dependency needs a request.
        """
        options = checked_options(
            retries=retries,
            delay=delay,
            backoff=backoff,
            max_delay=max_delay,
            jitter=jitter,
            retry_on=retry_on,
            give_up_on=give_up_on,
            timeout=timeout,
            expires=expires,
            unique_for=unique_for,
            name=name,
            queue=queue,
            priority=priority,
            executor=executor,
            persist=persist,
            requeue_on_interrupt=requeue_on_interrupt,
            keep_result=keep_result,
        )

        def declare(func: Callable[P, R]) -> Callable[P, R]:
            self.registry.add(declared(func, options))
            return func

        return declare

    def schedule(
        self,
        *,
        every: float | timedelta | None = None,
        cron: str | None = None,
        timezone: str | ZoneInfo | None = None,
        run_on_startup: bool = False,
        jitter: float | timedelta = 0.0,
        overlap: Overlap = "skip",
        misfire: Misfire = "run_once",
        tags: Sequence[str] = (),
        retries: int = 0,
        delay: float = 0.0,
        backoff: float = 1.0,
        max_delay: float | None = None,
        retry_jitter: float = 0.0,
        retry_on: type[BaseException] | Sequence[type[BaseException]] = (),
        give_up_on: type[BaseException] | Sequence[type[BaseException]] = (),
        timeout: float | None = None,
        expires: float | None = None,
        queue: str = "default",
        priority: int = 0,
        executor: Literal["async", "thread", "process"] | None = None,
        keep_result: bool = True,
        name: str | None = None,
        requeue_on_interrupt: bool = False,
    ) -> Callable[[Callable[P, R]], Callable[P, R]]:
        """Declare a function that can be called without arguments as a task that runs by the clock.

        Each time at which it is due is one task, however many instances there are. The function itself stays as it
        is, and can be added as a task too. Options that are not told here are those of `task`.

        Args:
            every: Seconds, or a ``timedelta``, 0.1 or more: due at their multiples since the Unix epoch.
            cron: Five fields, minute to day of week, or a nickname such as ``@daily``; needs the extra ``cron``.
            timezone: The time zone of ``cron``, by default UTC.
            run_on_startup: Run it when the application starts too, once for all instances that start together.
            jitter: Seconds, or a ``timedelta``, by which each task is put off at most, by an amount of its own.
            overlap: When the task before has not ended: ``skip`` the new one, ``queue`` it behind, or ``allow`` both.
            misfire: When nobody was there: ``run_once`` for all that was missed, ``skip`` it, or ``run_all``, at most
                the newest 100.
            tags: Labels of its tasks.
            retries: See `task`.
            delay: See `task`.
            backoff: See `task`.
            max_delay: See `task`.
            retry_jitter: The ``jitter`` of `task`.
            retry_on: See `task`.
            give_up_on: See `task`.
            timeout: See `task`.
            expires: See `task`.
            queue: See `task`.
            priority: See `task`.
            executor: See `task`.
            keep_result: See `task`.
            name: The name of the schedule and of its task; the function's own by default.
            requeue_on_interrupt: See `task`.

        Raises:
            ConfigurationError: If a value is wrong, the function needs arguments, another one has the name, or the
                manager is started.
        """
        when = checked_schedule(
            every=every,
            cron=cron,
            timezone=timezone,
            jitter=jitter,
            overlap=overlap,
            misfire=misfire,
            run_on_startup=run_on_startup,
        )
        labels = checked_tags(tags)
        options = checked_options(
            retries=retries,
            delay=delay,
            backoff=backoff,
            max_delay=max_delay,
            jitter=retry_jitter,
            retry_on=retry_on,
            give_up_on=give_up_on,
            timeout=timeout,
            expires=expires,
            name=name,
            queue=queue,
            priority=priority,
            executor=executor,
            requeue_on_interrupt=requeue_on_interrupt,
            keep_result=keep_result,
        )

        def declare(func: Callable[P, R]) -> Callable[P, R]:
            definition = declared(func, options)
            if self._started_by is not None:
                msg = f"the schedule {definition.name} comes too late: the manager was started by {self._started_by}"
                raise ConfigurationError(msg)
            refuse_unfit(definition.name, func, frozenset(need.parameter for need in needs_of(func)))
            self._schedules.refuse_second(definition.name, func)
            self.registry.add(definition)
            known = self.registry.get(definition.name) or definition
            if overlap == "queue" and all(other.overlap != "queue" for other in self._schedules):
                self.journal.add_observer(self._turns)
            self._schedules.add(Schedule(known.name, known, tags=labels, **when))
            return func

        return declare

    def middleware(self, around: Middle) -> Middle:
        """Have ``around(context, call_next)`` run around each attempt of each task. For ``@task_manager.middleware``.

        It runs within the attempt's span and task context, the first one declared outermost, and around the task's
        dependencies. ``await call_next()`` goes on, at most once, and returns what the function returned; what
        ``around`` returns or raises takes its place.

        Args:
            around: An async function of the attempt's `TaskContext` and ``call_next``.

        Raises:
            ConfigurationError: If it is no such function, or the manager is started.
        """
        if self._started_by is not None:
            msg = f"the middleware {short_name(around)} comes too late: the manager was started by {self._started_by}"
            raise ConfigurationError(msg)
        self.surroundings.add(around)
        return around

    # -- adding tasks ------------------------------------------------------------------------------------------------

    async def enqueue(
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
        on_success: Steps = None,
        on_failure: Steps = None,
        **kwargs: Any,
    ) -> str:
        """Add ``func(*args, **kwargs)`` as a task from outside of a request; return its id once it is stored.

        Args:
            func: A function, sync or async, decorated or not; or a `step`, such as a `chain`, with its own arguments.
            *args: Its positional arguments.
            tags: Labels to find it by.
            idempotency_key: At most one task of this function with this key is ever stored.
            session: A SQLAlchemy session or connection on the tasks' own database. The task becomes part of its
                transaction: its row is inserted now, it runs as soon as that is committed, and a rollback undoes it.
            queue: The queue that it waits in, instead of its definition's.
            priority: Higher runs first within the queue, instead of its definition's.
            delay: Seconds, or a ``timedelta``, before which it does not run.
            run_at: The time before which it does not run, with a time zone.
            expires: Seconds, or a ``timedelta``, after which it is cancelled if it has not started.
            deadline: The same as a time, with a time zone.
            unique_for: Seconds, or a ``timedelta``: within each window of that length a task with the same arguments
                (or the same ``idempotency_key``) exists once. Windows follow each other from the Unix epoch on.
            on_success: What is added when it has succeeded: a `step`, or several.
            on_failure: What is added when it has failed for good.
            **kwargs: Its keyword arguments.

        Raises:
            TaskArgumentError: If an argument cannot be stored.
            QueueFullError: If as many tasks wait in the queue as may.
            StoreUnavailableError: If the store did not commit in time; nothing was kept.
            ConfigurationError: If an option is wrong or contradicts another one, or ``session`` is on another database.
            NotStartedError: If the manager is not started.
        """
        dispatcher = self._dispatcher_or_none()
        if dispatcher is None:
            raise NotStartedError(injection.NOT_STARTED)
        carrier = None if session is None else dispatcher.transactions.carrier(session)
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
        )
        if on_success is None and on_failure is None and not isinstance(func, Step):
            entry = dispatcher.prepare(func, args, kwargs, placing, source="manual")
        else:
            whole = whole_step(func, args, kwargs, on_success, on_failure)
            entry = dispatcher.prepare_step(whole, placing, source="manual")
        if carrier is not None:
            return await dispatcher.transactions.enqueue(entry, carrier)
        return await dispatcher.enqueue(entry)

    async def enqueue_group(
        self, steps: Sequence[Step], /, *, callback: Step | None = None, on_failure: Steps = None
    ) -> TaskGroup:
        """Add several tasks at once from outside of a request; return their ids once all are stored.

        Args:
            steps: The members, which run side by side.
            callback: What runs when all have succeeded; `previous_result` is the list of what they returned.
            on_failure: What is added once, when all have ended and one has failed.

        Raises:
            TaskArgumentError: If an argument cannot be stored.
            QueueFullError: If as many tasks wait in a member's queue as may.
            StoreUnavailableError: If the store did not commit in time; nothing was kept.
            ConfigurationError: If something is wrong with a member.
            NotStartedError: If the manager is not started.
        """
        self._require_started()
        members = checked_group(steps, callback, on_failure)
        group, entries = self.dispatcher.prepare_group(members, callback, failure_steps(on_failure), source="manual")
        await self.dispatcher.admit(entries)
        for entry in entries:
            if entry.admitted:
                self.dispatcher.start(entry)
        return group

    async def schedule_once(
        self,
        func: Callable[..., Any],
        /,
        *args: Any,
        run_at: datetime | None = None,
        delay: float | timedelta | None = None,
        run_key: str | None = None,
        replace: bool = False,
        tags: Sequence[str] = (),
        queue: str | None = None,
        priority: int | None = None,
        expires: float | timedelta | None = None,
        deadline: datetime | None = None,
        **kwargs: Any,
    ) -> str:
        """Have ``func(*args, **kwargs)`` run once at a certain time; return the task's id once it is stored.

        It runs whatever becomes of this process, also without ``requeue_pending``, and needs no schedule.

        Args:
            func: A function, sync or async, decorated or not.
            *args: Its positional arguments.
            run_at: The time, with a time zone; at once if that is past.
            delay: Seconds from now, or a ``timedelta``, instead.
            run_key: A key for it. While there is a task with this key that waits, runs or has run, nothing is added
                and its id is returned, in all instances. One that was cancelled does not count.
            replace: Put this one in the place of a task with ``run_key`` that waits; add it if that one has started.
            tags: Labels to find it by.
            queue: The queue that it waits in when it is due, instead of its definition's.
            priority: Higher runs first within the queue, instead of its definition's.
            expires: Seconds, or a ``timedelta``, from now after which it is cancelled if it has not started.
            deadline: The same as a time, with a time zone.
            **kwargs: Its keyword arguments.

        Raises:
            TaskArgumentError: If an argument cannot be stored.
            StoreUnavailableError: If the store did not commit in time. A replacement is done once it works again.
            ConfigurationError: If an option is wrong, or there is no time.
            NotStartedError: If the manager is not started.
        """
        self._require_started()
        if run_at is None and delay is None:
            msg = "schedule_once needs a time: give run_at= (a datetime with a time zone) or delay= (seconds)"
            raise ConfigurationError(msg)
        if replace and run_key is None:
            msg = "replace=True needs a run_key: which task is to be replaced cannot be told without"
            raise ConfigurationError(msg)
        key = None if run_key is None else checked_run_key(run_key)
        placing = placed(
            tags=tags, queue=queue, priority=priority, delay=delay, run_at=run_at, expires=expires, deadline=deadline
        )
        given = placing.given | ({"run_key"} if key is not None else set()) | ({"replace"} if replace else set())
        placing = dataclasses.replace(placing, given=given)
        return await self.one_offs.add(func, args, kwargs, placing, run_key=key, replace=replace)

    async def cancel_scheduled(self, key: str) -> bool:
        """Cancel what `schedule_once` added, if it has not started; return whether it was cancelled.

        Args:
            key: Its ``run_key``, or its id.

        Raises:
            StoreUnavailableError: If the store did not commit in time. It is cancelled once it works again.
            NotStartedError: If the manager is not started.
        """
        self._require_started()
        return await self.one_offs.cancel(checked_run_key(key))

    async def list_scheduled(self) -> Sequence[ScheduledOnce]:
        """Return what `schedule_once` added and what waits for its time, in all instances, the first due first.

        Raises:
            StoreError: If the store fails.
            NotStartedError: If the manager is not started.
        """
        self._require_started()
        return await self.one_offs.waiting()

    def _require_started(self) -> None:
        if self._dispatcher_or_none() is None:
            raise NotStartedError(injection.NOT_STARTED)

    async def wait(self, task_id: str, *, timeout: float | None = None) -> TaskRecord:  # noqa: ASYNC109 - the API
        """Wait until a task has ended, in whatever worker; return its record.

        Args:
            task_id: Which one.
            timeout: Seconds to wait at most; None is without limit.

        Raises:
            TaskNotFoundError: If there is no such task.
            WaitTimeoutError: If it has not ended by then. It goes on.
            NotStartedError: If the manager is not started.
        """
        if self._dispatcher_or_none() is None:
            raise NotStartedError(injection.NOT_STARTED)
        return await wait_for_end(self.journal, task_id, timeout)

    async def result(self, task_id: str, *, timeout: float | None = None) -> Any:  # noqa: ASYNC109 - the API
        """Wait until a task has ended; return what it returned, None if results are not kept.

        Args:
            task_id: Which one.
            timeout: Seconds to wait at most; None is without limit.

        Raises:
            TaskFailedError: If it did not succeed.
            TaskArgumentError: If its result could not be kept, such as one that is too large.
            TaskNotFoundError: If there is no such task.
            WaitTimeoutError: If it has not ended by then. It goes on.
            NotStartedError: If the manager is not started.
        """
        return self._results.value_of(await self.wait(task_id, timeout=timeout))

    async def reencrypt(self) -> Reencrypted:
        """Encrypt all that is stored with the first of ``encrypt_args_key``, so that the others can be dropped.

        Raises:
            ConfigurationError: If there is no key.
            NotStartedError: If the manager is not started.
            StoreError: If the store fails. What was done stays done.
        """
        if self._cipher is None:
            msg = "there is nothing to encrypt with: TaskManager(encrypt_args_key=[new, old])"
            raise ConfigurationError(msg)
        if self._dispatcher_or_none() is None:
            raise NotStartedError(injection.NOT_STARTED)
        return await reencrypt(self.store, self._cipher)


def store_from(
    snapshot_db: str | Path | None,
    snapshot_backend: str | Store | None,
    *,
    max_finished: int = 10_000,
    synchronous: Literal["NORMAL", "FULL"] = "NORMAL",
) -> Store:
    """Return the store that a manager's options name.

    Raises:
        ConfigurationError: If they name two, or the URL is wrong.
    """
    if snapshot_db is not None and snapshot_backend is not None:
        msg = "give snapshot_db (a file) or snapshot_backend (a URL or a Store), not both"
        raise ConfigurationError(msg)
    if snapshot_backend is not None and not isinstance(snapshot_backend, str):
        return snapshot_backend
    if snapshot_backend is None and snapshot_db is None:
        return MemoryStore(max_finished=max_finished)
    from fastapi_taskflow.stores.sql import SqlStore, sqlite_url

    if snapshot_db is None and str(snapshot_backend).startswith("postgres"):
        from fastapi_taskflow.stores.postgresql import PostgresqlStore

        return PostgresqlStore(str(snapshot_backend))
    url = snapshot_backend if snapshot_db is None else sqlite_url(snapshot_db)
    return SqlStore(str(url), synchronous=synchronous)
