"""How long it took until the tasks of a killed process were in order again."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.chaos.evidence import Event
from tests.chaos.facts import SECOND

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from tests.chaos.evidence import Line
    from tests.chaos.facts import Kill, Lock, Row
    from tests.chaos.runs import Run


@dataclass(frozen=True, slots=True)
class Recovery:
    """One kill that left tasks behind.

    Attributes:
        orphans: How many.
        after_restart: Seconds until the last of them had started again or ended, from the first answer of a process
            that came up after the kill; 0 if it was before, as when another worker took it over.
        after_kill: The same, from the kill.
    """

    orphans: int
    after_restart: float
    after_kill: float


def recoveries(
    kills: Sequence[Kill],
    locks: Sequence[Lock],
    lines: Sequence[Line],
    runs: Mapping[str, Sequence[Run]],
    rows: Mapping[str, Row],
) -> list[Recovery]:
    """Return one for each kill that left tasks behind. Tasks that were never settled are the checker's business.

    Where the next kill came before a task was settled, its time counts from that one. What waits on purpose, or for a
    locked store, counts from the end of that.
    """
    serving = first_answers(lines)
    found = []
    for kill in kills:
        settled = []
        for orphan in kill.orphans:
            at = _settled(orphan.task_id, kill.at, runs, rows)
            if at is not None:
                killed = max(each.at for each in kills if each.at <= at)
                free = max((lock.until for lock in locks if lock.since <= at and lock.until > killed), default=0)
                begins = max(killed, orphan.due, min(free, at))
                settled.append((at - max(begins, _answered(serving, killed)), at - begins))
        if settled:
            after_restart, after_kill = (max(0, *times) / SECOND for times in zip(*settled, strict=True))
            found.append(Recovery(len(settled), after_restart, after_kill))
    return found


def _answered(serving: Sequence[tuple[int, int]], killed: int) -> int:
    """Return when a process that came up after the kill first answered."""
    position = bisect_right(serving, killed, key=lambda up_and_answer: up_and_answer[0])
    return min((answer for _, answer in serving[position:]), default=killed)


def first_answers(lines: Iterable[Line]) -> list[tuple[int, int]]:
    """Return for each process that answered when it came up and when it first answered, in order."""
    up: dict[int, int] = {}
    answers = []
    for line in sorted(lines, key=lambda line: line.at):
        if line.event is Event.UP:
            up[line.pid] = line.at
        elif line.event is Event.SERVING and line.pid in up:
            answers.append((up[line.pid], line.at))
    return sorted(answers)


def _settled(task_id: str, after: int, runs: Mapping[str, Sequence[Run]], rows: Mapping[str, Row]) -> int | None:
    """Return when a task was started again or ended after the kill."""
    starts = [run.start for run in runs.get(task_id, ()) if run.start > after]
    row = rows.get(task_id)
    ends = [row.ended] if row is not None and row.ended is not None and row.ended > after else []
    return min(starts + ends, default=None)


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest of ``values`` that ``percent`` of them do not exceed; 0 if there are none."""
    ordered = sorted(values)
    if not ordered:
        return 0.0
    rank = -(-len(ordered) * percent // 100)
    return ordered[max(0, int(rank) - 1)]
