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
    from tests.chaos.facts import Kill, Row
    from tests.chaos.runs import Run


@dataclass(frozen=True, slots=True)
class Recovery:
    """One kill that left tasks behind.

    Attributes:
        orphans: How many.
        after_restart: Seconds from the first answer of a process that came up after the kill to the last orphan's new
            start or end; 0 if that was before, as when another worker took it over.
        after_kill: The same, from the kill.
    """

    orphans: int
    after_restart: float
    after_kill: float


def recoveries(
    kills: Iterable[Kill], lines: Sequence[Line], runs: Mapping[str, Sequence[Run]], rows: Mapping[str, Row]
) -> list[Recovery]:
    """Return one for each kill that left tasks behind. Tasks that were never settled are the checker's business."""
    serving = first_answers(lines)
    found = []
    for kill in kills:
        position = bisect_right(serving, (kill.at,), key=lambda up_and_answer: up_and_answer[:1])
        answered = min((answer for _, answer in serving[position:]), default=kill.at)
        settled = [
            (at, orphan.due)
            for orphan in kill.orphans
            if (at := _settled(orphan.task_id, kill.at, runs, rows)) is not None
        ]
        if settled:
            after_restart = max(at - max(answered, due) for at, due in settled)
            after_kill = max(at - max(kill.at, due) for at, due in settled)
            found.append(Recovery(len(settled), max(0, after_restart) / SECOND, max(0, after_kill) / SECOND))
    return found


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
