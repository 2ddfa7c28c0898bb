"""What tasks write of themselves, in one file that the store knows nothing of.

A line is one ``os.write`` to a file opened with ``O_APPEND``, so lines of several processes do not mix. It is
`WIDTH` bytes long, a divisor of the page size: a kill may cut a write short at the border of a page, and no line has
one inside. The monotonic clock is the same for all processes of a host.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

WIDTH: Final = 128
NOBODY: Final = "-"


class Event(StrEnum):
    """What a line tells. The first two are of a process, the others of a task."""

    UP = "up"
    SERVING = "serving"
    START = "start"
    STEP = "step"
    END = "end"
    FAIL = "fail"
    STOPPED = "stopped"


EFFECTS: Final = frozenset({Event.START, Event.STEP, Event.END, Event.FAIL})
"""What a task does. ``stopped`` only says that it does nothing more."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line.

    Attributes:
        event: What happened.
        task_id: To which task, or `NOBODY`.
        kind: The task's kind, or `NOBODY`.
        attempt: The task's attempt, from 1; 0 for a process.
        pid: In which process.
        at: When, nanoseconds of the monotonic clock.
        wall: When, nanoseconds since the Unix epoch.
    """

    event: Event
    task_id: str
    kind: str
    attempt: int
    pid: int
    at: int
    wall: int


class Witness:
    """Writes lines of this process.

    Args:
        path: The file, new or not.
    """

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def write(self, event: Event, task_id: str = NOBODY, kind: str = NOBODY, attempt: int = 0) -> None:
        """Write one line; on return it outlives this process."""
        facts = f"{event} {task_id} {kind} {attempt} {os.getpid()} {time.monotonic_ns()} {time.time_ns()}"
        os.write(self._file, facts.ljust(WIDTH - 1).encode() + b"\n")


class Evidence:
    """Reads the lines of all processes.

    Args:
        path: The file; it need not be there yet.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = 0
        self._lines: list[Line] = []

    def lines(self) -> list[Line]:
        """Return all lines that there are by now, in the order in which they were written."""
        if self._path.exists():
            with self._path.open("rb") as file:
                file.seek(self._read)
                new = file.read()
            whole = len(new) - len(new) % WIDTH
            self._read += whole
            self._lines += (parsed(new[start : start + WIDTH]) for start in range(0, whole, WIDTH))
        return self._lines


def parsed(line: bytes) -> Line:
    """Return what ``line`` tells.

    Raises:
        ValueError: If it is not a line of a `Witness`.
    """
    event, task_id, kind, attempt, pid, at, wall = line.decode().split()
    return Line(Event(event), task_id, kind, int(attempt), int(pid), int(at), int(wall))
