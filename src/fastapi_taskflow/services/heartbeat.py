"""Tells the other instances that this one lives, and this one what it lost while it seemed dead."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fastapi_taskflow import clock
from fastapi_taskflow.services.liveness import pid_start_time
from fastapi_taskflow.services.loop import Loop
from fastapi_taskflow.store import Instance

if TYPE_CHECKING:
    from fastapi_taskflow.journal import Journal
    from fastapi_taskflow.lease import Lease
    from fastapi_taskflow.services.liveness import Liveness
    from fastapi_taskflow.store import Store

logger = logging.getLogger("fastapi_taskflow.services")

BEATS_PER_LEASE: Final = 3
PULSES_PER_LEASE: Final = 12


def this_instance() -> Instance:
    """Describe this process, under a new id."""
    now = clock.now()
    pid = os.getpid()
    return Instance(str(uuid.uuid4()), _host(), pid, pid_start_time(pid) or 0, now, now)


def _host() -> str:
    """Return this host's name, with its process namespace: containers may share a name, but not their pids."""
    try:
        return f"{socket.gethostname()} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return socket.gethostname()


class Heartbeat:
    """Writes this instance's row three times a lease, on the loop: one that hangs looks dead, as it is.

    Args:
        store: Where the row is.
        journal: Holds what this instance runs.
        instance: The row.
        lease: Renewed by each beat.
        liveness: Begins anew after an outage.
        seconds: The lease's length.
    """

    def __init__(
        self,
        store: Store,
        journal: Journal,
        instance: Instance,
        *,
        lease: Lease,
        liveness: Liveness,
        seconds: float,
    ) -> None:
        self._store = store
        self._journal = journal
        self._instance = instance
        self._lease = lease
        self._liveness = liveness
        interval = seconds / BEATS_PER_LEASE
        self._loop = Loop("heartbeat", self.beat, interval=interval, first=interval)
        self._pulse_every = seconds / PULSES_PER_LEASE
        self._pulse: asyncio.TimerHandle | None = None

    async def start(self) -> None:
        """Write the row, and go on beating."""
        self._lease.pulse()
        since = time.monotonic()
        await self._store.beat(self._instance)
        self._lease.renew(since)
        self._go_on()
        self._loop.start()

    async def stop(self) -> None:
        """Stop beating. The row stays until ``forget``."""
        await self._loop.stop()
        if self._pulse is not None:
            self._pulse.cancel()

    def _go_on(self) -> None:
        frozen = self._lease.frozen
        self._lease.pulse()
        if self._lease.frozen and not frozen:
            logger.warning("the event loop stood still until the lease was over: it is looked up what was taken over")
        self._pulse = asyncio.get_running_loop().call_later(self._pulse_every, self._go_on)

    async def beat(self) -> None:
        """Write the row once. If the lease was over, give up what others have taken meanwhile."""
        self._lease.pulse()
        since = time.monotonic()
        await self._store.beat(self._instance)
        self._journal.follow_store()
        if not self._lease.held:
            self._liveness.reset()
            await self._journal.give_up_lost(self._instance.instance_id)
        self._lease.renew(since)
