"""Several instances on one store, in one loop, with a clock that is set by hand: what the model test plays with."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from fastapi_taskflow import clock
from fastapi_taskflow.dependencies import Dependencies
from fastapi_taskflow.dispatcher import Dispatcher
from fastapi_taskflow.engines.local import LocalEngine
from fastapi_taskflow.errors import InvalidTransitionError, StoreUnavailableError
from fastapi_taskflow.executors.coroutine import CoroutineExecutor
from fastapi_taskflow.expiry import Expiry
from fastapi_taskflow.following import Following
from fastapi_taskflow.journal import Journal
from fastapi_taskflow.kept_calls import KeptCalls
from fastapi_taskflow.lease import Lease
from fastapi_taskflow.results import Results
from fastapi_taskflow.runner import Runner
from fastapi_taskflow.services.groups import Groups
from fastapi_taskflow.services.heartbeat import Heartbeat
from fastapi_taskflow.services.liveness import Liveness
from fastapi_taskflow.services.recovery import Recovery
from fastapi_taskflow.services.turns import Turns
from fastapi_taskflow.settings import Settings
from fastapi_taskflow.store import Instance
from fastapi_taskflow.surroundings import Surroundings
from fastapi_taskflow.task.call import Calls
from fastapi_taskflow.task.context import get_task_context
from fastapi_taskflow.task.definition import TaskDefinition
from fastapi_taskflow.task.registry import Registry
from fastapi_taskflow.task.retry import RetryPolicy
from fastapi_taskflow.task.schedule import Schedules
from fastapi_taskflow.telemetry.tracing import OtelTracing

if TYPE_CHECKING:
    import pytest

    from fastapi_taskflow.store import Store

LEASE = 15.0
NEVER = 1e6
TURNS = 30
SETTINGS = Settings(requeue_pending=True, lease=LEASE, max_recoveries=3)


class Clock:
    """Wall and monotonic seconds, set by hand."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def time(self) -> float:
        """Seconds since the Unix epoch."""
        return self.now

    monotonic = time

    def install(self, patch: pytest.MonkeyPatch) -> None:
        """Let the parts that judge by time look at this one."""
        patch.setattr(clock, "now", self.time)
        for module in ("lease", "services.liveness", "services.recovery", "services.heartbeat"):
            patch.setattr(f"fastapi_taskflow.{module}.time", self)


class Line:
    """An instance's connection to the shared store; once cut, nothing of a dead process gets through."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.cut = False

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        if not callable(found):
            return found

        async def call(*args: Any, **kwargs: Any) -> Any:
            if self.cut:
                msg = "the line is cut"
                raise StoreUnavailableError(msg)
            return await found(*args, **kwargs)

        return call


class Process:
    """One instance: what a manager builds, but for the loops, which the test turns by hand.

    Attributes:
        running: The futures that its running functions wait for, by task id.
        stands_still: Whether it gets no turn, as after a SIGSTOP.
    """

    def __init__(self, name: str, store: Store) -> None:
        self.name = name
        self.running: dict[str, asyncio.Future[None]] = {}
        self.stands_still = False
        self.line = Line(store)
        self.me = Instance(name, f"host of {name}", 1, 0, clock.now(), clock.now())
        self.lease = Lease(LEASE)
        self.journal = Journal(self.line, [], max_backlog=10_000, linger=NEVER)
        self.engine = LocalEngine(2, self.lease)
        registry = Registry()
        for kind, again, retries in (("once", False, 0), ("again", True, 0), ("retried", False, 1)):
            registry.add(
                TaskDefinition(
                    name=kind, func=self._function(), is_async=True, code_name=kind, declared=True,
                    retry=RetryPolicy(retries), requeue_on_interrupt=again,
                )
            )  # fmt: skip
        self.functions = {definition.name: definition.func for definition in registry}
        calls, tracing = Calls(registry), OtelTracing(capture=None)
        kept = KeptCalls()
        expiry = Expiry(self.journal, kept)
        self.dispatcher = Dispatcher(
            self.journal, self.engine, registry, tracing, calls=calls, expiry=expiry, kept=kept, commit_timeout=30.0
        )
        self.runner = Runner(
            self.journal, tracing, lease=self.lease, executors={"async": CoroutineExecutor()},
            expiry=expiry, kept=kept, surroundings=Surroundings(Dependencies(dict)), see_through=self.engine.spawn,
            followed=Following(self.dispatcher, calls).ended,
            result_text=Results(1_000).text_of,
        )  # fmt: skip
        self.dispatcher.owner = self.runner.owner = name
        liveness = Liveness(self.me, LEASE)
        self.heartbeat = Heartbeat(
            self.line,
            self.journal,
            self.me,
            lease=self.lease,
            liveness=liveness,
            seconds=LEASE,
        )
        following = Following(self.dispatcher, calls)
        self.recovery = Recovery(
            self.line, self.journal, self.engine, registry, calls, expiry, following,
            Groups(self.journal, self.dispatcher, following, Results(1_000)),
            Turns(Schedules(), self.journal, self.engine.submit),
            settings=SETTINGS, liveness=liveness, lease=self.lease, me=self.me,
        )  # fmt: skip

    def _function(self) -> Any:
        async def work() -> None:
            context = get_task_context()
            assert context is not None
            end = self.running[context.task_id] = asyncio.get_running_loop().create_future()
            try:
                await end
            finally:
                del self.running[context.task_id]

        return work

    def let_go_on(self) -> None:
        """Let every function of it that runs return."""
        for end in self.running.values():
            if not end.done():
                end.set_result(None)

    async def start(self) -> None:
        """Come up, as the runtime does it."""
        self.lease.pulse()
        await self.heartbeat.beat()
        self.journal.start()
        self.engine.hold()
        self.engine.start(self.runner.run)
        await self.recovery.sweep()

    async def look(self) -> None:
        """Take what others left, as the inbox does it."""
        for task_id in await self.line.asked_to_cancel(self.name):
            with contextlib.suppress(InvalidTransitionError):
                if await self.dispatcher.cancel_here(task_id) is None:
                    await self.line.ask_to_cancel(task_id)

    async def crash(self) -> None:
        """End as by SIGKILL: what is not committed is lost."""
        self.line.cut = True
        self.lease.renew(clock.now())  # its coroutines are torn down here; nothing of it reaches the store
        self.lease.pulse()
        self.lease.renew(clock.now())
        await self.engine.stop(within=0.0)
        await self.engine.abort(within=5.0)
        await self.journal.stop(within=0.0)

    async def stop(self) -> None:
        """End as by SIGTERM with no time to finish."""
        await self.engine.stop(within=0.0)
        await self.engine.abort(within=5.0)
        await self.journal.stop(within=30.0)
        await self.line.forget(self.name)


async def turns() -> None:
    """Let everything go on that can."""
    for _ in range(TURNS):
        await asyncio.sleep(0)
