"""Carries out a plan of faults, and keeps what was done."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from typing import TYPE_CHECKING, Final

from tests.chaos.facts import SECOND, Hit, Kill, Lock
from tests.chaos.faults import Fault

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from tests.chaos.database import Database
    from tests.chaos.faults import Step
    from tests.chaos.server import Service

UP_WITHIN: Final = 60.0
KILL_LASTS: Final = 1.0
END_LASTS: Final = 15.0


class Driver:
    """Does one fault after another. SIGSTOPs and locks go on beside the next ones.

    Args:
        service: Who is hit.
        database: What is locked.
        lease: The lease of the app under test, seconds.

    Attributes:
        hits: What was done.
        locks: When the store was locked.
        kills: Each SIGKILL, with what it left.
        done: How often each fault was done.
    """

    def __init__(self, service: Service, database: Database, *, lease: float) -> None:
        self.hits: list[Hit] = []
        self.locks: list[Lock] = []
        self.kills: list[Kill] = []
        self.done: Counter[Fault] = Counter()
        self._service = service
        self._database = database
        self._lease = lease
        self._frozen: set[int] = set()
        self._beside = asyncio.TaskGroup()

    async def run(self, steps: Sequence[Step], *, deadline: float) -> None:
        """Do all of ``steps``, or what the time allows.

        Args:
            steps: The plan.
            deadline: By ``time.monotonic()``.

        Raises:
            TimeoutError: If no worker comes up again.
        """
        async with self._beside:
            for step in steps:
                if time.monotonic() > deadline:
                    break
                if not step.hasty:
                    await self._service.all_up(within=UP_WITHIN)
                await asyncio.sleep(step.pause)
                await self._do(step)

    async def _do(self, step: Step) -> None:
        service = self._service
        victim = await self._victim(step)
        self.done[step.fault] += 1
        match step.fault:
            case Fault.KILL_WORKER:
                self._hit(step.fault, {victim}, KILL_LASTS)
                service.signal(victim, signal.SIGKILL)
                await self._killed({victim})
            case Fault.KILL_ALL:
                await self._killed(service.kill_all())
            case Fault.END_WORKER:
                self._hit(step.fault, {victim}, END_LASTS)
                service.signal(victim, signal.SIGTERM)
            case Fault.RESTART_ALL:
                self._hit(step.fault, service.up(), END_LASTS)
                several = service.workers > 1
                service.signal(service.main_pid, signal.SIGHUP if several else signal.SIGTERM)
            case Fault.FREEZE | Fault.FREEZE_PAST_LEASE:
                self._beside.create_task(self._freeze(victim, step))
            case Fault.LOCK:
                self._beside.create_task(self._lock(step))

    async def _victim(self, step: Step) -> int:
        """Pick a worker, one that is not frozen if there is one."""
        up = self._service.up()
        if not up:
            await self._service.all_up(within=UP_WITHIN)
            up = self._service.up()
        if not up:
            msg = f"no worker came up within {UP_WITHIN:g} s"
            raise TimeoutError(msg)
        targets = [pid for pid in up if pid not in self._frozen] or up
        return targets[int(step.which * len(targets))]

    async def _killed(self, pids: Collection[int]) -> None:
        at = time.monotonic_ns()
        self.kills.append(Kill(at, await self._database.orphans(pids)))

    async def _freeze(self, pid: int, step: Step) -> None:
        # One that is stopped within a transaction keeps the others from beating.
        before, since = self._service.up(), time.monotonic_ns()
        self._frozen.add(pid)
        self._service.signal(pid, signal.SIGSTOP)
        await asyncio.sleep(step.lasts)
        self._service.signal(pid, signal.SIGCONT)
        self._frozen.discard(pid)
        self._hit(step.fault, {pid, *before, *self._service.up()}, self._lease, since=since)

    async def _lock(self, step: Step) -> None:
        # Who cannot beat for a lease may lose its tasks to whoever gets the lock first.
        before, since = self._service.up(), time.monotonic_ns()
        await self._database.lock(step.lasts)
        self.locks.append(Lock(since, time.monotonic_ns()))
        self._hit(step.fault, {*before, *self._service.up()}, self._lease, since=since)

    def _hit(self, fault: Fault, pids: Collection[int], lasts: float, *, since: int | None = None) -> None:
        now = time.monotonic_ns()
        self.hits.append(Hit(fault.value, frozenset(pids), since or now, now + int(lasts * SECOND)))
