"""Attempts as the evidence shows them."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.chaos.evidence import EFFECTS, NOBODY, Event

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from tests.chaos.evidence import Line


@dataclass(slots=True)
class Run:
    """One call of a task's function.

    Attributes:
        task_id: The task.
        kind: The name of its kind.
        attempt: The attempt it was told to be, from 1.
        pid: Where.
        effects: When it wrote: its start, its steps, its end. Monotonic nanoseconds.
        ended: ``end`` or ``fail``, or None if it was cut off.
    """

    task_id: str
    kind: str
    attempt: int
    pid: int
    effects: list[int] = field(default_factory=list)
    ended: Event | None = None

    @property
    def start(self) -> int:
        """When it began."""
        return self.effects[0]

    @property
    def last(self) -> int:
        """When it last did something."""
        return self.effects[-1]


def runs_of(lines: Iterable[Line]) -> Mapping[str, Sequence[Run]]:
    """Return the runs of each task, in the order in which they began.

    Raises:
        ValueError: If a task wrote that had not started.
    """
    runs: dict[str, list[Run]] = defaultdict(list)
    open_runs: dict[tuple[str, int, int], Run] = {}
    for line in sorted(lines, key=lambda line: line.at):
        if line.task_id == NOBODY:
            continue
        here = (line.task_id, line.pid, line.attempt)
        if line.event is Event.START:
            open_runs[here] = Run(line.task_id, line.kind, line.attempt, line.pid)
            runs[line.task_id].append(open_runs[here])
        elif here not in open_runs:
            msg = f"{line} has no start before it"
            raise ValueError(msg)
        if line.event in EFFECTS:
            open_runs[here].effects.append(line.at)
        if line.event in {Event.END, Event.FAIL}:
            open_runs[here].ended = line.event
    return runs
