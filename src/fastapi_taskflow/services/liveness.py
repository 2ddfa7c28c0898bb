"""Which instances live."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from fastapi_taskflow.store import Instance


@dataclass(slots=True)
class _Sight:
    beat: float
    at: float


class Liveness:
    """Judges instances by their heartbeats as this process sees them.

    One is dead at once when its process is gone from this host. Otherwise it is dead when its beat has not changed for
    a whole lease by this process's monotonic clock, so that no clock that is set, and no time for which this process
    was stopped itself, makes a live one look dead. The first look at one of another host trusts the store's clock.

    Args:
        me: This instance: never dead.
        lease: Seconds.
    """

    def __init__(self, me: Instance, lease: float) -> None:
        self._me = me
        self._lease = lease
        self._seen: dict[str, _Sight] = {}

    def reset(self) -> None:
        """Begin to watch anew: while the store took no heartbeats of this instance, it may have taken nobody's."""
        self._seen.clear()

    def dead(self, instances: Iterable[Instance], asked_at: float) -> Mapping[str, float]:
        """Return those that are dead, with the beat by which each was judged.

        Args:
            instances: All that have a row, as just read.
            asked_at: ``time.monotonic()`` from before they were read.
        """
        known, self._seen = self._seen, {}
        found: dict[str, float] = {}
        for each in instances:
            if each.instance_id == self._me.instance_id:
                continue
            here = each.host == self._me.host
            sight = known.get(each.instance_id)
            first_sight = sight is None
            if sight is None or sight.beat != each.heartbeat_at:
                sight = _Sight(each.heartbeat_at, time.monotonic())
            self._seen[each.instance_id] = sight
            silent = asked_at - sight.at > self._lease
            if silent or (here and not process_exists(each)) or (first_sight and not here and each.age > self._lease):
                found[each.instance_id] = each.heartbeat_at
        return found


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
