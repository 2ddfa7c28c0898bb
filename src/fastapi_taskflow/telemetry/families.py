"""The Prometheus metric families of one registry, made when somebody scrapes."""

from __future__ import annotations

import threading
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final, Protocol
from weakref import WeakKeyDictionary

from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar
from prometheus_client.utils import floatToGoString

from fastapi_taskflow.errors import ConfigurationError
from fastapi_taskflow.telemetry import names
from fastapi_taskflow.telemetry.series import Reading, Tally
from fastapi_taskflow.telemetry.sharing import others_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from prometheus_client import CollectorRegistry

    from fastapi_taskflow.telemetry.sharing import Shown

TASK_LABELS: Final = (names.LABEL_TASK, names.LABEL_QUEUE)

reading_in_use: Final[ContextVar[Reading | None]] = ContextVar("taskflow_metrics_reading", default=None)
"""Numbers read on the event loop's thread, for a rendering in another thread."""


class Source(Protocol):
    """One manager's numbers."""

    @property
    def shown(self) -> Shown | None:
        """What it shows of all workers of this host; None where it speaks for itself alone."""

    async def refresh(self) -> None:
        """Bring ``shown`` up to date, as far as that is possible soon. It does not raise."""

    def add_to(self, reading: Reading) -> None:
        """Add its own. It does not raise."""


class Families(Collector):
    """All families of this package in one registry; managers that share the registry add up."""

    def __init__(self) -> None:
        self._sources: tuple[Source, ...] = ()

    def add_source(self, source: Source) -> None:
        """Show a manager too."""
        self._sources = (*self._sources, source)

    def remove_source(self, source: Source) -> None:
        """Show a manager no more."""
        self._sources = tuple(other for other in self._sources if other is not source)

    async def refresh(self) -> None:
        """Bring up to date what every manager shows of the other workers."""
        for source in self._sources:
            await source.refresh()

    def read(self) -> Reading:
        """Read the numbers of every manager, and of the workers in other processes."""
        reading = Reading()
        for source in self._sources:
            source.add_to(reading)
        for other in others_of(source.shown for source in self._sources if source.shown is not None):
            reading.add_counts(other)
            reading.gauges.add(other.gauges)
        return reading

    def describe(self) -> Iterable[Metric]:
        """Return the families without samples: the registry looks for clashes of names."""
        return _families_from(Reading())

    def collect(self) -> Iterable[Metric]:
        """Return the families with their samples."""
        return _families_from(reading_in_use.get() or self.read())


def _families_from(reading: Reading) -> Iterator[Metric]:
    yield from _counters(reading)
    yield from _histograms(reading)
    yield from _gauges(reading)


def _counters(reading: Reading) -> Iterator[Metric]:
    enqueued = CounterMetricFamily(names.ENQUEUED_TOTAL, "Tasks that were added.", labels=TASK_LABELS)
    retries = CounterMetricFamily(
        names.RETRIES_TOTAL, "Attempts that failed and were followed by another one.", labels=TASK_LABELS
    )
    recovered = CounterMetricFamily(
        names.RECOVERED_TOTAL, "Tasks taken over from an instance that went away.", labels=TASK_LABELS
    )
    finished = CounterMetricFamily(
        names.FINISHED_TOTAL, "Tasks that ended, by how.", labels=(*TASK_LABELS, names.LABEL_STATUS)
    )
    for key, series in reading.series.items():
        enqueued.add_metric(key, series.enqueued)
        retries.add_metric(key, series.retries)
        recovered.add_metric(key, series.recovered)
        for status, count in series.finished.items():
            finished.add_metric((*key, status.value), count)
    yield from (enqueued, finished, retries, recovered)


def _histograms(reading: Reading) -> Iterator[Metric]:
    duration = HistogramMetricFamily(names.DURATION_SECONDS, "Duration of each attempt.", labels=TASK_LABELS)
    wait = HistogramMetricFamily(
        names.QUEUE_WAIT_SECONDS,
        "Time that a task was ready to run and did not, without deliberate delay.",
        labels=TASK_LABELS,
    )
    flush = HistogramMetricFamily(names.STORE_FLUSH_SECONDS, "Duration of each commit of the store.", labels=())
    for key, series in reading.series.items():
        _add_tally(duration, key, series.duration)
        _add_tally(wait, key, series.queue_wait)
    _add_tally(flush, (), reading.flush)
    yield from (duration, wait, flush)


def _add_tally(family: HistogramMetricFamily, labels: Sequence[str], tally: Tally) -> None:
    buckets: list[tuple[str, float, Exemplar | None]] = []
    so_far = 0
    for index, count in enumerate(tally.buckets):
        so_far += count
        bound = tally.bounds[index] if index < len(tally.bounds) else float("inf")
        fact = tally.exemplars.get(index)
        exemplar = None
        if fact is not None:
            pointer = {names.EXEMPLAR_TRACE_ID: fact.trace_id, names.EXEMPLAR_SPAN_ID: fact.span_id}
            exemplar = Exemplar(pointer, fact.value, fact.at)
        buckets.append((floatToGoString(bound), so_far, exemplar))  # type: ignore[no-untyped-call]
    family.add_metric(labels, buckets, tally.total)  # type: ignore[arg-type]


def _gauges(reading: Reading) -> Iterator[Metric]:
    gauges = reading.gauges
    for name, text, values in (
        (names.RUNNING, "Tasks that run.", gauges.running),
        (names.PENDING, "Tasks that wait.", gauges.pending),
        (names.OLDEST_PENDING_AGE, "How long the oldest waiting task has been ready to run.", gauges.oldest),
        (names.CONCURRENCY_LIMIT, "Tasks that may run at once.", gauges.limits),
    ):
        family = GaugeMetricFamily(name, text, labels=(names.LABEL_QUEUE,))
        for queue, value in values.items():
            family.add_metric((queue,), value)
        yield family
    yield GaugeMetricFamily(names.STORE_BACKLOG, "Changes that wait for the store.", value=gauges.backlog)
    success = GaugeMetricFamily(names.LAST_SUCCESS, "When the task last ended well.", labels=(names.LABEL_TASK,))
    newest: dict[str, float] = {}
    for (task, _), series in reading.series.items():
        # A task that never ended well is left out: 0 would say 1970.
        if series.last_success is not None:
            newest[task] = max(newest.get(task, 0.0), series.last_success)
    for task, at in newest.items():
        success.add_metric((task,), at)
    yield success


_families: Final[WeakKeyDictionary[CollectorRegistry, Families]] = WeakKeyDictionary()
_lock: Final = threading.Lock()


def families_of(registry: CollectorRegistry) -> Families:
    """Return the families in ``registry``, made once.

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
