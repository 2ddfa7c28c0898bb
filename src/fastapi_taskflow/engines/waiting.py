"""The order of those who wait in one queue."""

from __future__ import annotations

import itertools
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Final, Protocol

from fastapi_taskflow.task.record import TaskStatus

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastapi_taskflow.entry import Entry

AGING: Final = 60.0
"""Seconds of waiting that one step of priority is worth.

So a task is overtaken only by those that come within ``AGING`` seconds for each step that they are above it, and
however many of them keep coming, it gets its turn.
"""

SWEEP: Final = 64
"""Places left in the middle of a line beyond which it is put together anew, once they are most of it."""


class Turn(Protocol):
    """What is done for one who waits."""

    def come(self) -> None:
        """Begin: the slot is taken."""

    def let_go(self) -> None:
        """Let whoever follows it go on: it leaves the line, or it may take long."""


class Waiter:
    """One entry in a line.

    Attributes:
        entry: Who waits.
        turn: What is done when its turn comes.
        left: Whether it is in the line no more.
    """

    __slots__ = ("entry", "left", "turn")

    def __init__(self, entry: Entry, turn: Turn) -> None:
        self.entry = entry
        self.turn = turn
        self.left = False


class Line:
    """Those who wait in one queue: by priority and age together, and otherwise first come, first served.

    Its order never changes while they wait, so it costs a heap and no sweeps.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Waiter]] = []
        self._numbers = itertools.count()
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[Waiter]:
        """Iterate over all, in no order. May be called in any thread."""
        return (waiter for _, _, waiter in tuple(self._heap) if not waiter.left)

    def add(self, entry: Entry, turn: Turn, *, now: float) -> Waiter:
        """Let ``entry`` wait, from ``now`` on by a clock that is never set back."""
        waiter = Waiter(entry, turn)
        rank = now - entry.record.priority * AGING
        heappush(self._heap, (rank, next(self._numbers), waiter))
        self._size += 1
        return waiter

    def pop(self) -> Waiter:
        """Take out whose turn it is.

        Raises:
            IndexError: If nobody waits.
        """
        while True:
            waiter = heappop(self._heap)[2]
            if not waiter.left:
                waiter.left = True
                self._size -= 1
                return waiter

    def remove(self, waiter: Waiter) -> None:
        """Take out one who waits."""
        waiter.left = True
        self._size -= 1
        if len(self._heap) > max(SWEEP, 2 * self._size):
            self._heap = [item for item in self._heap if not item[2].left]
            heapify(self._heap)


def is_gone(entry: Entry) -> bool:
    """Tell whether an entry will not run here: it was cancelled, withdrawn or lost."""
    return entry.record.status is not TaskStatus.PENDING or entry.lost or entry.withdrawn
