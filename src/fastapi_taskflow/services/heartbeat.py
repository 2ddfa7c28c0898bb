"""Tells the other instances that this one lives, and this one which of them do not."""

from __future__ import annotations

import dataclasses
import os
import socket
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fastapi_taskflow import clock
from fastapi_taskflow.services.loop import Loop
from fastapi_taskflow.store import Instance

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastapi_taskflow.store import Store

BEATS_PER_LEASE: Final = 3
FORGET_AFTER_LEASES: Final = 240
"""Leases after which the row of a dead instance is deleted."""


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
    """Writes this instance's row three times a lease, on the loop: one that hangs looks dead, as it is."""

    def __init__(self, store: Store, instance: Instance, *, lease: float) -> None:
        self._store = store
        self._instance = instance
        self._loop = Loop("heartbeat", self.beat, interval=lease / BEATS_PER_LEASE, first=lease / BEATS_PER_LEASE)

    async def start(self) -> None:
        """Write the row, and go on beating."""
        await self.beat()
        self._loop.start()

    async def stop(self) -> None:
        """Stop beating. The row stays until ``forget``."""
        await self._loop.stop()

    async def beat(self) -> None:
        """Write the row once."""
        self._instance = dataclasses.replace(self._instance, heartbeat_at=clock.now())
        await self._store.beat(self._instance)


def live_instances(instances: Sequence[Instance], *, me: Instance, lease: float, now: float) -> frozenset[str]:
    """Return the ids of those that live: their beat is within the lease, and on this host their process exists."""
    return frozenset(
        each.instance_id
        for each in instances
        if each.instance_id == me.instance_id
        or (now - each.heartbeat_at <= lease and (each.host != me.host or process_exists(each)))
    )


def process_exists(instance: Instance) -> bool:
    """Tell whether the instance's process runs on this host. A pid that was given to another process is no match."""
    started = pid_start_time(instance.pid)
    if started is None:
        return _pid_exists(instance.pid)
    return instance.pid_started in (0, started)


def pid_start_time(pid: int) -> int | None:
    """Return when the process started, in clock ticks since boot; None if it is gone or the system does not tell."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in ("Z", "X") else int(fields[19])


def _pid_exists(pid: int) -> bool:
    if Path("/proc/self/stat").exists():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
