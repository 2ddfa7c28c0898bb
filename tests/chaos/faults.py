"""What is done to the processes: a plan by seed."""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Fault(StrEnum):
    """One way to be hit."""

    KILL_WORKER = "SIGKILL of a worker"
    KILL_ALL = "SIGKILL of all processes"
    END_WORKER = "SIGTERM of a worker"
    RESTART_ALL = "restart of all workers"
    FREEZE = "SIGSTOP shorter than the lease"
    FREEZE_PAST_LEASE = "SIGSTOP longer than the lease"
    LOCK = "locked store"


KILLS: Final = frozenset({Fault.KILL_WORKER, Fault.KILL_ALL})
OTHERS: Final = (Fault.END_WORKER, Fault.RESTART_ALL, Fault.FREEZE, Fault.FREEZE_PAST_LEASE, Fault.LOCK, Fault.LOCK)
KILLS_PER_OTHER: Final = 10
KILLS_OF_ALL: Final = 0.3
HASTY: Final = 0.15
SHORTEST_PAUSE: Final = 0.3
LONGEST_PAUSE: Final = 2.0
LONGEST_LOCK: Final = 5.0
"""Seconds: longer than a statement waits for a lock, so that writes fail too."""


@dataclass(frozen=True, slots=True)
class Step:
    """One fault of a plan.

    Attributes:
        fault: Which.
        which: Picks the worker, from 0 to 1.
        lasts: Seconds that a SIGSTOP or a lock lasts.
        hasty: Whether the next fault does not wait until all workers are up again.
        pause: Seconds before the next fault.
    """

    fault: Fault
    which: float
    lasts: float
    hasty: bool
    pause: float


def plan(kills: int, *, seed: int, lease: float) -> list[Step]:
    """Return so many kills and other faults among them, each kind of them at least once, in random order.

    Args:
        kills: How many, at least 2.
        seed: The same seed gives the same plan.
        lease: The lease of the app under test, seconds.
    """
    dice = random.Random(seed)
    of_all = max(1, round(kills * KILLS_OF_ALL))
    faults = [Fault.KILL_ALL] * of_all + [Fault.KILL_WORKER] * (kills - of_all)
    faults += OTHERS * max(1, round(kills / KILLS_PER_OTHER))
    dice.shuffle(faults)
    return [
        Step(
            fault,
            dice.random(),
            _lasts(fault, lease, dice),
            dice.random() < HASTY,
            dice.uniform(SHORTEST_PAUSE, LONGEST_PAUSE),
        )
        for fault in faults
    ]


def _lasts(fault: Fault, lease: float, dice: random.Random) -> float:
    match fault:
        case Fault.FREEZE:
            return dice.uniform(0.1, 0.9) * lease
        case Fault.FREEZE_PAST_LEASE:
            # Others look for dead instances once a lease.
            return 2.2 * lease
        case Fault.LOCK:
            return dice.uniform(0.2, LONGEST_LOCK)
        case _:
            return 0.0
