"""What a batch adds to the counters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi_taskflow.stores.durations import TIMED, timed

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fastapi_taskflow.stores.fence import Held
    from fastapi_taskflow.task.record import TaskRecord

    Counts = dict[tuple[str, str], int]
    Times = dict[tuple[str, int], list[float]]


def tally(steps: Iterable[tuple[TaskRecord, TaskRecord | Held | None]]) -> tuple[Counts, Times]:
    """Return what changes in the counters, by function and status, and in the durations, by function and bucket.

    Args:
        steps: Each record with what it replaces.

    Returns:
        Tasks more or less, 0 included; and tasks more or less with their seconds.
    """
    counts: Counts = {}
    times: Times = {}
    for record, before in steps:
        func_name, status = record.func_name, record.status._value_
        if before is not None:
            was = before.status._value_
            if was != status:
                counts[func_name, was] = counts.get((func_name, was), 0) - 1
                counts[func_name, status] = counts.get((func_name, status), 0) + 1
            if was in TIMED:
                _add_time(times, func_name, -1, timed(was, before.start_time, before.end_time))
        else:
            counts[func_name, status] = counts.get((func_name, status), 0) + 1
        if status in TIMED:
            _add_time(times, func_name, 1, timed(status, record.start_time, record.end_time))
    return counts, times


def _add_time(times: Times, func_name: str, sign: int, entry: tuple[int, float] | None) -> None:
    if entry is not None:
        total = times.setdefault((func_name, entry[0]), [0, 0.0])
        total[0] += sign
        total[1] += sign * entry[1]
