"""What runs while a manager is started, and the order in which it comes up and goes down."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Final

from fastapi_taskflow.errors import StoreError
from fastapi_taskflow.services.heartbeat import Heartbeat, this_instance
from fastapi_taskflow.services.host_numbers import HostNumbers
from fastapi_taskflow.services.inbox import Inbox
from fastapi_taskflow.services.liveness import Liveness
from fastapi_taskflow.services.recovery import Recovery
from fastapi_taskflow.services.retention import Retention

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from fastapi_taskflow.dispatcher import Dispatcher
    from fastapi_taskflow.engine import Engine
    from fastapi_taskflow.expiry import Expiry
    from fastapi_taskflow.following import Following
    from fastapi_taskflow.journal import Journal
    from fastapi_taskflow.lease import Lease
    from fastapi_taskflow.runner import Runner
    from fastapi_taskflow.services.groups import Groups
    from fastapi_taskflow.services.one_offs import OneOffs
    from fastapi_taskflow.services.queue_settings import QueueSettings
    from fastapi_taskflow.services.scheduler import Scheduler
    from fastapi_taskflow.services.turns import Turns
    from fastapi_taskflow.settings import Settings
    from fastapi_taskflow.store import Instance, Store
    from fastapi_taskflow.task.call import Calls
    from fastapi_taskflow.task.registry import Registry
    from fastapi_taskflow.telemetry.prometheus import PrometheusMetrics
    from fastapi_taskflow.telemetry.pump import ObserverPump

    class ProcessPool(Protocol):
        """Processes that run tasks."""

        def close(self) -> None:
            """End them."""

    class Service(Protocol):
        """A loop that keeps the store in order."""

        async def start(self) -> None:
            """Begin."""

        async def stop(self) -> None:
            """End."""


logger = logging.getLogger("fastapi_taskflow")

ABORT_WAIT: Final = 2.0
FLUSH_WAIT: Final = 10.0


class Runtime:
    """Comes up and goes down in two steps each, so that the application's own lifespan fits between.

    Tasks use what that lifespan makes, such as a connection pool. So it comes up after the store is open (its code may
    add tasks) and before anything runs, and goes down after everything has ended and before the store is closed.

    Args:
        store: Where tasks are kept.
        journal: The way into it.
        engine: Starts tasks.
        dispatcher: Takes tasks.
        runner: Runs attempts.
        registry: The known functions.
        calls: Restores calls.
        expiry: Ends what may not start any more.
        following: Adds what follows a task.
        groups: Holds callbacks back.
        scheduler: Adds the tasks of schedules.
        turns: Has some of them wait for each other.
        one_offs: Adds and replaces tasks that run once.
        processes: Closed once nothing runs.
        pump: Feeds the user's observers.
        metrics: Shared with the other workers of this host.
        lease: Kept by this process's signs of life.
        queues: Applies what operators changed of the queues.
        settings: The manager's settings.

    Attributes:
        retention_days: Days after which finished records are deleted; None keeps them.
        openers: Called when it comes up.
        closers: Called when the end begins, before running tasks are waited for.
    """

    def __init__(
        self,
        store: Store,
        journal: Journal,
        engine: Engine,
        dispatcher: Dispatcher,
        runner: Runner,
        registry: Registry,
        calls: Calls,
        expiry: Expiry,
        following: Following,
        groups: Groups,
        scheduler: Scheduler,
        turns: Turns,
        one_offs: OneOffs,
        processes: ProcessPool,
        pump: ObserverPump,
        metrics: PrometheusMetrics,
        lease: Lease,
        queues: QueueSettings,
        settings: Settings,
    ) -> None:
        self._store = store
        self._journal = journal
        self._engine = engine
        self._dispatcher = dispatcher
        self._runner = runner
        self._registry = registry
        self._calls = calls
        self._expiry = expiry
        self._following = following
        self._groups = groups
        self._scheduler = scheduler
        self._turns = turns
        self._one_offs = one_offs
        self._processes = processes
        self._pump = pump
        self._metrics = metrics
        self._lease = lease
        self._queues = queues
        self._settings = settings
        self._heartbeat: Heartbeat | None = None
        self._numbers: HostNumbers | None = None
        self._services: list[Service] = []
        self._all_ended = True
        self.retention_days = settings.retention_days
        self.openers: list[Callable[[], None]] = []
        self.closers: list[Callable[[], None]] = []

    async def open(self) -> None:
        """Open the store and take tasks, which wait.

        Raises:
            StoreError: If the store cannot be opened; then nothing stays open.
        """
        me = this_instance()
        try:
            await self._store.open()
            if self._store.persistent:
                await self._go_live(me)
        except BaseException:
            await self._fall_silent()
            await self._store.close()
            raise
        self._dispatcher.owner = self._runner.owner = me.instance_id
        self._all_ended = True
        self._journal.start()
        self._engine.hold()
        await self._pump.start()
        for begin in self.openers:
            begin()

    async def work(self, *, scheduled: bool = True) -> None:
        """Run what waits, and take over what dead processes left.

        Args:
            scheduled: Whether schedules run too.

        Raises:
            StoreError: If the store fails.
        """
        # First of all, or what is paused would start.
        await self._queues.start()
        self._engine.start(self._runner.run)
        self._services.append(self._one_offs)
        if self.retention_days is not None:
            self._services.append(Retention(self._store.prune, "record(s)", days=self.retention_days))
        if self._store.persistent:
            days = self._settings.audit_retention_days
            self._services.append(Retention(self._store.prune_acts, "act(s)", days=days))
        for service in self._services:
            await service.start()
        if scheduled:
            await self._scheduler.start()

    async def rest(self) -> None:
        """Let running tasks finish within ``shutdown_timeout``, and cancel the rest.

        A thread that goes on after that keeps its task ``running`` under this instance, until the process has ended.
        """
        for close in self.closers:
            try:
                close()
            except Exception:
                logger.exception("%r failed at the shutdown", close)
        await self._scheduler.stop()
        deadline = time.monotonic() + self._settings.shutdown_timeout
        if not (self._store.persistent and self._settings.requeue_pending):
            # Nobody would run later what waits now.
            await self._engine.drain(within=self._settings.shutdown_timeout)
        ended = await self._engine.stop(within=max(0.0, deadline - time.monotonic()))
        self._all_ended = ended or await self._engine.abort(within=ABORT_WAIT)
        self._processes.close()
        await self._groups.stop()
        services, self._services = self._services, []
        for service in reversed(services):
            await service.stop()
        await self._queues.stop()

    async def close(self) -> None:
        """Store everything, and close the store."""
        try:
            await self._fall_silent()
            stored = await self._journal.stop(within=FLUSH_WAIT)
            if self._numbers is not None:
                await self._numbers.stop()
                self._numbers = None
            if stored and self._store.persistent and self._all_ended:
                await self._store.forget(self._dispatcher.owner)
        except StoreError as error:
            logger.warning("this instance's row stays in the store: %s", error)
        finally:
            try:
                await self._pump.stop(FLUSH_WAIT)
            finally:
                await self._store.close()

    async def _fall_silent(self) -> None:
        heartbeat, self._heartbeat = self._heartbeat, None
        if heartbeat is not None:
            await heartbeat.stop()

    async def _go_live(self, me: Instance) -> None:
        """Show a sign of life before the first task: whoever owns one without it counts as dead."""
        store, settings = self._store, self._settings
        liveness = Liveness(me, settings.lease)
        heartbeat = Heartbeat(store, self._journal, me, lease=self._lease, liveness=liveness, seconds=settings.lease)
        await heartbeat.start()
        self._heartbeat = heartbeat
        self._numbers = HostNumbers(store, self._metrics, me)
        await self._numbers.start()
        recovery = Recovery(
            store, self._journal, self._engine, self._registry, self._calls, self._expiry, self._following,
            self._groups, self._turns,
            settings=settings, liveness=liveness, lease=self._lease, me=me,
        )  # fmt: skip
        self._services = [recovery, Inbox(store, self._dispatcher, me)]
