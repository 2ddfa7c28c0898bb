"""Counters and histograms as plain numbers, from which a scrape makes metric families.

prometheus_client's own metrics take a lock for each increment, so that several threads may write. Here the event loop
alone writes, and a whole task costs a third.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from math import floor
from typing import TYPE_CHECKING, Final, NamedTuple

from fastapi_taskflow.task.record import FINISHED, TaskStatus
from fastapi_taskflow.telemetry import names

if TYPE_CHECKING:
    from collections.abc import Sequence


GRAIN: Final = 2.0**-20
"""Seconds. Sums of multiples of it are exact, in whatever order, up to 272 years."""


class ExemplarFact(NamedTuple):
    """A trace that shows what one bucket counted.

    Attributes:
        trace_id: 32 hex digits.
        span_id: 16 hex digits.
        value: The observed value.
        at: Seconds since the Unix epoch.
    """

    trace_id: str
    span_id: str
    value: float
    at: float


class Tally:
    """A histogram: how many values fell into each bucket, their sum, and the newest exemplar of each bucket.

    Args:
        bounds: Upper bounds of the buckets, ascending; one more bucket takes the rest.
    """

    __slots__ = ("bounds", "buckets", "exemplars", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.buckets = [0] * (len(bounds) + 1)
        self.total = 0.0
        self.exemplars: dict[int, ExemplarFact] = {}

    def observe(self, value: float) -> None:
        """Count ``value``."""
        self.buckets[bisect_left(self.bounds, value)] += 1
        self.total += value

    def observe_with(self, trace_id: str, span_id: str, value: float, at: float) -> None:
        """Count ``value`` and keep the trace that shows it."""
        index = bisect_left(self.bounds, value)
        self.buckets[index] += 1
        self.total += value
        self.exemplars[index] = ExemplarFact(trace_id, span_id, value, at)

    def add(self, other: Tally) -> None:
        """Add another histogram with the same bounds. Of two exemplars the newer one stays."""
        self.buckets = [mine + its for mine, its in zip(self.buckets, other.buckets, strict=True)]
        self.total += other.total
        for index, exemplar in dict(other.exemplars).items():
            mine = self.exemplars.get(index)
            if mine is None or mine.at < exemplar.at:
                self.exemplars[index] = exemplar

    def settle(self) -> None:
        """Round the sum down to a multiple of `GRAIN`.

        Floats come out different by the order in which they are added, and a counter that goes back by the last
        digit counts for a scraper as one that began anew.
        """
        self.total = floor(self.total / GRAIN) * GRAIN


_ORDER: Final = tuple(sorted(FINISHED))


class TaskSeries:
    """Everything that is counted of one task and queue."""

    __slots__ = ("duration", "enqueued", "finished", "last_success", "queue_wait", "recovered", "retries")

    def __init__(self) -> None:
        self.enqueued = 0
        self.retries = 0
        self.recovered = 0
        self.finished: dict[TaskStatus, int] = dict.fromkeys(_ORDER, 0)
        self.duration = Tally(names.TASK_BUCKETS)
        self.queue_wait = Tally(names.TASK_BUCKETS)
        self.last_success: float | None = None
        """Seconds since the Unix epoch; None if the task never ended well."""

    def add(self, other: TaskSeries) -> None:
        """Add what another manager or worker counted."""
        self.enqueued += other.enqueued
        self.retries += other.retries
        self.recovered += other.recovered
        for status in _ORDER:
            self.finished[status] += other.finished[status]
        self.duration.add(other.duration)
        self.queue_wait.add(other.queue_wait)
        times = [at for at in (self.last_success, other.last_success) if at is not None]
        self.last_success = max(times, default=None)


@dataclass(slots=True)
class Gauges:
    """What is read when somebody scrapes.

    Attributes:
        running: Tasks per queue.
        pending: Tasks per queue.
        oldest: Seconds that the oldest pending task has been ready, per queue.
        limits: Tasks that may run at once, per queue.
        backlog: Changes that wait for the store.
    """

    running: dict[str, float] = field(default_factory=dict)
    pending: dict[str, float] = field(default_factory=dict)
    oldest: dict[str, float] = field(default_factory=dict)
    limits: dict[str, float] = field(default_factory=dict)
    backlog: float = 0.0

    def add(self, other: Gauges) -> None:
        """Add what another manager or worker shows."""
        for mine, its in ((self.running, other.running), (self.pending, other.pending), (self.limits, other.limits)):
            for queue, value in its.items():
                mine[queue] = mine.get(queue, 0.0) + value
        for queue, age in other.oldest.items():
            self.oldest[queue] = max(self.oldest.get(queue, 0.0), age)
        self.backlog += other.backlog


class Reading:
    """All numbers of one or more managers or workers at one moment."""

    __slots__ = ("flush", "gauges", "series")

    def __init__(self) -> None:
        self.series: dict[tuple[str, str], TaskSeries] = {}
        self.flush = Tally(names.FLUSH_BUCKETS)
        self.gauges = Gauges()

    def add_series(self, key: tuple[str, str], series: TaskSeries) -> None:
        """Add the series of one task and queue."""
        mine = self.series.get(key)
        if mine is None:
            mine = self.series[key] = TaskSeries()
        mine.add(series)

    def add_counts(self, other: Reading) -> None:
        """Add all counters and histograms of another reading, and none of its gauges."""
        for key, series in other.series.items():
            self.add_series(key, series)
        self.flush.add(other.flush)

    def settle(self) -> None:
        """Round the sums of all histograms down; see `Tally.settle`."""
        self.flush.settle()
        for series in self.series.values():
            series.duration.settle()
            series.queue_wait.settle()
