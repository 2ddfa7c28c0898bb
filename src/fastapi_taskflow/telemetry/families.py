"""The Prometheus metric families of one registry, and the gauges that are read when somebody scrapes."""

from __future__ import annotations

import logging
import threading
from collections import defaultdict
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from weakref import WeakKeyDictionary

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from fastapi_taskflow import clock
from fastapi_taskflow.errors import ConfigurationError
from fastapi_taskflow.task.record import TaskStatus
from fastapi_taskflow.telemetry import names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from prometheus_client import CollectorRegistry

logger = logging.getLogger("fastapi_taskflow.metrics")

TASK_LABELS: Final = (names.LABEL_TASK, names.LABEL_QUEUE)


@dataclass(slots=True)
class GaugeReading:
    """What the gauges showed at one moment, added up over the managers that share a registry.

    Attributes:
        running: Tasks per queue.
        pending: Tasks per queue.
        oldest: Seconds that the oldest pending task has been ready, per queue.
        limits: Tasks that may run at once, per queue.
        backlog: Changes that wait for the store.
    """

    running: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    pending: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    oldest: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    limits: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    backlog: float = 0.0


class GaugeSource:
    """Where one manager's gauges are read.

    Args:
        live_counts: Tasks per queue and status in this process.
        oldest_pending: When the oldest pending task of a queue became ready, seconds since the Unix epoch, or None.
        backlog: Changes that wait for the store.
        limits: Tasks that may run at once per queue; None or no entry is without limit.
    """

    def __init__(
        self,
        *,
        live_counts: Callable[[], Mapping[tuple[str, TaskStatus], int]] | None,
        oldest_pending: Callable[[str], float | None] | None,
        backlog: Callable[[], float] | None,
        limits: Callable[[], Mapping[str, int | None]] | None,
    ) -> None:
        self.queues: set[str] = set()
        self._live_counts = live_counts
        self._oldest_pending = oldest_pending
        self._backlog = backlog
        self._limits = limits
        self._failed = False

    def add_to(self, reading: GaugeReading) -> None:
        """Read every gauge. One that fails is left out, and logged the first time."""
        for read in (self._read_counts, self._read_backlog, self._read_limits):
            try:
                read(reading)
            except Exception:
                if not self._failed:
                    logger.exception("a gauge of /metrics could not be read; it is left out")
                self._failed = True

    def _read_counts(self, reading: GaugeReading) -> None:
        if self._live_counts is None:
            return
        counts = self._live_counts()
        for queue in sorted(self.queues | {queue for queue, _ in counts}):
            reading.running[queue] += counts.get((queue, TaskStatus.RUNNING), 0)
            reading.pending[queue] += counts.get((queue, TaskStatus.PENDING), 0)
            if self._oldest_pending is not None:
                ready_at = self._oldest_pending(queue)
                age = 0.0 if ready_at is None else max(0.0, clock.now() - ready_at)
                reading.oldest[queue] = max(reading.oldest[queue], age)

    def _read_backlog(self, reading: GaugeReading) -> None:
        if self._backlog is not None:
            reading.backlog += self._backlog()

    def _read_limits(self, reading: GaugeReading) -> None:
        if self._limits is not None:
            for queue, limit in self._limits().items():
                if limit is not None:
                    reading.limits[queue] += limit


class Families(Collector):
    """All families of this package in one registry.

    They are collected through this object, not registered one by one: so the ``_created`` series can be left out
    without the switch of prometheus_client that is global to the process.
    """

    def __init__(self) -> None:
        self.enqueued = Counter(names.ENQUEUED_TOTAL, "Tasks that were added.", TASK_LABELS, registry=None)
        self.finished = Counter(
            names.FINISHED_TOTAL, "Tasks that ended, by how.", (*TASK_LABELS, names.LABEL_STATUS), registry=None
        )
        self.retries = Counter(
            names.RETRIES_TOTAL, "Attempts that failed and were followed by another one.", TASK_LABELS, registry=None
        )
        self.recovered = Counter(
            names.RECOVERED_TOTAL, "Tasks taken over from an instance that went away.", TASK_LABELS, registry=None
        )
        self.duration = Histogram(
            names.DURATION_SECONDS,
            "Duration of each attempt.",
            TASK_LABELS,
            buckets=names.TASK_BUCKETS,
            registry=None,
        )
        self.queue_wait = Histogram(
            names.QUEUE_WAIT_SECONDS,
            "Time that a task was ready to run and did not, without deliberate delay.",
            TASK_LABELS,
            buckets=names.TASK_BUCKETS,
            registry=None,
        )
        self.last_success = Gauge(
            names.LAST_SUCCESS, "When the task last ended well.", (names.LABEL_TASK,), registry=None
        )
        self.flush = Histogram(
            names.STORE_FLUSH_SECONDS,
            "Duration of each commit of the store.",
            buckets=names.FLUSH_BUCKETS,
            registry=None,
        )
        self._sources: tuple[GaugeSource, ...] = ()

    def add_source(self, source: GaugeSource) -> None:
        """Let the gauges show a manager too."""
        self._sources = (*self._sources, source)

    def remove_source(self, source: GaugeSource) -> None:
        """Let the gauges not show a manager any more."""
        self._sources = tuple(other for other in self._sources if other is not source)

    def read(self) -> GaugeReading:
        """Read the gauges of every manager, on the calling thread."""
        reading = GaugeReading()
        for source in self._sources:
            source.add_to(reading)
        return reading

    def describe(self) -> Iterable[Metric]:
        """Yield the families without samples: the registry looks for clashes of names."""
        for part in self._written():
            yield from part.describe()
        yield from _gauges(GaugeReading())

    def collect(self) -> Iterable[Metric]:
        """Yield the families with their samples."""
        for part in self._written():
            for metric in part.collect():
                yield _without_created(metric)
        yield from _gauges(reading_in_use.get() or self.read())

    def _written(self) -> tuple[Counter | Gauge | Histogram, ...]:
        return (
            self.enqueued, self.finished, self.retries, self.recovered, self.duration, self.queue_wait,
            self.last_success, self.flush,
        )  # fmt: skip


reading_in_use: Final[ContextVar[GaugeReading | None]] = ContextVar("taskflow_gauge_reading", default=None)
"""Gauges read on the event loop's thread, for a rendering in another thread."""


def _gauges(reading: GaugeReading) -> Iterator[Metric]:
    for name, text, values in (
        (names.RUNNING, "Tasks that run in this process.", reading.running),
        (names.PENDING, "Tasks that wait in this process.", reading.pending),
        (names.OLDEST_PENDING_AGE, "How long the oldest waiting task has been ready to run.", reading.oldest),
        (names.CONCURRENCY_LIMIT, "Tasks that may run at once.", reading.limits),
    ):
        family = GaugeMetricFamily(name, text, labels=(names.LABEL_QUEUE,))
        for queue, value in values.items():
            family.add_metric((queue,), value)
        yield family
    yield GaugeMetricFamily(names.STORE_BACKLOG, "Changes that wait for the store.", value=reading.backlog)


def _without_created(metric: Metric) -> Metric:
    kept = Metric(metric.name, metric.documentation, metric.type, metric.unit)
    kept.samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
    return kept


_families: Final[WeakKeyDictionary[CollectorRegistry, Families]] = WeakKeyDictionary()
_lock: Final = threading.Lock()


def families_of(registry: CollectorRegistry) -> Families:
    """Return the families in ``registry``, made once: managers that share a registry add up.

    Raises:
        ConfigurationError: If something else in the registry has one of their names.
    """
    with _lock:
        found = _families.get(registry)
        if found is None:
            found = Families()
            try:
                registry.register(found)
            except ValueError as error:
                msg = f"the CollectorRegistry has other metrics under the names of this package: {error}"
                raise ConfigurationError(msg) from error
            _families[registry] = found
        return found
