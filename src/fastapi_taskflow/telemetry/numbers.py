"""One worker's numbers as text, and back, so that the other workers of its host can show them too."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from fastapi_taskflow.errors import SchemaVersionError
from fastapi_taskflow.task.record import TaskStatus
from fastapi_taskflow.telemetry import names
from fastapi_taskflow.telemetry.series import ExemplarFact, Gauges, Reading, Tally, TaskSeries

if TYPE_CHECKING:
    from collections.abc import Iterable

VERSION: Final = 1
"""Of the text. Older code leaves newer text alone."""


@dataclass(frozen=True, slots=True)
class Numbers:
    """What one worker says.

    Attributes:
        reading: Its counters, histograms and gauges.
        instance_id: Who it is; empty for those that are gone.
        at: When that was so, seconds since the Unix epoch.
    """

    reading: Reading
    instance_id: str = ""
    at: float = 0.0

    def gauges_at(self, now: float) -> Gauges:
        """Return the gauges as they are later, if nothing else has happened: what waits has aged."""
        gauges = self.reading.gauges
        later = max(0.0, now - self.at)
        return replace(gauges, oldest={queue: age + later if age else age for queue, age in gauges.oldest.items()})


def to_text(numbers: Numbers) -> str:
    """Return ``numbers`` as JSON."""
    reading, gauges = numbers.reading, numbers.reading.gauges
    content = {
        "version": VERSION,
        "instance": numbers.instance_id,
        "at": numbers.at,
        "series": [_series_facts(task, queue, series) for (task, queue), series in reading.series.items()],
        "flush": _tally_facts(reading.flush),
        "gauges": [gauges.running, gauges.pending, gauges.oldest, gauges.limits, gauges.backlog],
    }
    return json.dumps(content, separators=(",", ":"))


def from_text(text: str) -> Numbers:
    """Return what `to_text` wrote.

    Raises:
        SchemaVersionError: If newer code wrote it.
        ValueError: If it is damaged.
    """
    try:
        content = json.loads(text)
        version = content["version"]
        if version == VERSION:
            return _numbers(content)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        msg = f"these are no metrics of a worker: {type(error).__name__}: {error}"
        raise ValueError(msg) from error
    msg = f"the metrics of a worker have version {version!r}, and this code knows {VERSION}"
    raise SchemaVersionError(msg)


def merged(texts: Iterable[str]) -> str:
    """Return the sum of the counters of workers that are gone. Damaged text is left out.

    Raises:
        SchemaVersionError: If newer code wrote one of them: nothing of it must be lost.
    """
    total = Reading()
    for text in texts:
        try:
            reading = from_text(text).reading
        except ValueError:
            continue
        for (task, queue), series in reading.series.items():
            known = (task, queue) in total.series or len(total.series) < names.MAX_LABELLED_TASKS
            total.add_series((task, queue) if known else _other(total, queue), series)
        total.flush.add(reading.flush)
    return to_text(Numbers(total))


def _other(total: Reading, queue: str) -> tuple[str, str]:
    others = sum(task == names.OTHER_TASK for task, _ in total.series)
    known = (names.OTHER_TASK, queue) in total.series or others < names.MAX_LABELLED_QUEUES
    return names.OTHER_TASK, queue if known else names.OTHER_QUEUE


def _series_facts(task: str, queue: str, series: TaskSeries) -> list[Any]:
    finished = {status.value: count for status, count in series.finished.items() if count}
    counts = [series.enqueued, series.retries, series.recovered, finished, series.last_success]
    return [task, queue, *counts, _tally_facts(series.duration), _tally_facts(series.queue_wait)]


def _tally_facts(tally: Tally) -> list[Any]:
    exemplars = [[index, *fact] for index, fact in tally.exemplars.items()]
    return [tally.buckets, tally.total, exemplars] if any(tally.buckets) else []


def _numbers(content: dict[str, Any]) -> Numbers:
    reading = Reading()
    for task, queue, enqueued, retries, recovered, finished, last_success, duration, queue_wait in content["series"]:
        series = TaskSeries()
        series.enqueued, series.retries, series.recovered = _count(enqueued), _count(retries), _count(recovered)
        for status, count in finished.items():
            series.finished[TaskStatus(status)] = _count(count)
        series.last_success = None if last_success is None else _figure(last_success)
        _fill(series.duration, duration)
        _fill(series.queue_wait, queue_wait)
        reading.series[_label(task), _label(queue)] = series
    _fill(reading.flush, content["flush"])
    running, pending, oldest, limits, backlog = content["gauges"]
    reading.gauges = Gauges(
        _per_queue(running), _per_queue(pending), _per_queue(oldest), _per_queue(limits), _figure(backlog)
    )
    return Numbers(reading, _label(content["instance"]), _figure(content["at"]))


def _fill(tally: Tally, facts: list[Any]) -> None:
    if not facts:
        return
    buckets, total, exemplars = facts
    if len(buckets) != len(tally.buckets):
        msg = f"a histogram has {len(buckets)} buckets, not {len(tally.buckets)}"
        raise ValueError(msg)
    if set(map(type, buckets)) != {int} or min(buckets) < 0:
        msg = f"{buckets!r} are no counts"
        raise ValueError(msg)
    tally.buckets = buckets
    tally.total = _figure(total)
    for index, trace_id, span_id, value, at in exemplars:
        if _count(index) < len(buckets):
            tally.exemplars[index] = ExemplarFact(_label(trace_id), _label(span_id), _figure(value), _figure(at))


def _per_queue(values: dict[str, Any]) -> dict[str, float]:
    return {queue: _figure(value) for queue, value in values.items()}


def _count(value: object) -> int:
    if type(value) is not int or value < 0:
        msg = f"{value!r} is no count"
        raise ValueError(msg)
    return value


def _figure(value: object) -> float:
    if type(value) not in (int, float) or not math.isfinite(value):  # type: ignore[arg-type]
        msg = f"{value!r} is no number"
        raise ValueError(msg)
    return value  # type: ignore[return-value]


def _label(value: object) -> str:
    if not isinstance(value, str):
        msg = f"{value!r} is no text"
        raise TypeError(msg)
    return value
