"""Prometheus metrics: one sink of the events, and the text that a scraper gets."""

from __future__ import annotations

import asyncio
import uuid
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

from fastapi_taskflow.task.event import EventKind
from fastapi_taskflow.task.outcome import storable_text
from fastapi_taskflow.task.record import TaskStatus
from fastapi_taskflow.telemetry import names
from fastapi_taskflow.telemetry.families import families_of, reading_in_use
from fastapi_taskflow.telemetry.gauges import GaugeReader
from fastapi_taskflow.telemetry.metrics import attempt_duration, queue_wait
from fastapi_taskflow.telemetry.negotiation import MetricsFormat, negotiate, wants_json
from fastapi_taskflow.telemetry.series import Reading, Tally, TaskSeries

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from fastapi_taskflow.task.definition import TaskDefinition
    from fastapi_taskflow.task.event import TaskEvent
    from fastapi_taskflow.telemetry.sharing import Shown

TEXT_CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS_CONTENT_TYPE: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"
MAX_LABEL_CHARS: Final = 200
UNCOUNTED: Final = frozenset({EventKind.LOGGED, EventKind.PROGRESSED})


class PrometheusMetrics:
    """Counts and times tasks for Prometheus. Fills the seam `Observer`; is told of events on one thread.

    Args:
        registry: Where the metrics are registered; by default a registry of its own, so that nothing can clash.
            Managers that are given the same registry add up.
        live_counts: Tasks per queue and status in this process, read at each scrape.
        oldest_pending: When the oldest pending task of a queue became ready, seconds since the Unix epoch, or None.
        backlog: Changes that wait for the store.
        limits: Tasks that may run at once per queue; None or no entry is without limit.
        catch_up: Has it told of what has happened so far.

    Attributes:
        identity: Tells these counters from those of other managers.
        shown: What is shown of all workers of this host, instead of the own counters alone, or None.
        refresh_shown: Brings ``shown`` up to date, or None.

    Raises:
        ConfigurationError: If something else in ``registry`` has one of the names.
    """

    def __init__(
        self,
        *,
        registry: CollectorRegistry | None = None,
        live_counts: Callable[[], Mapping[tuple[str, TaskStatus], int]] | None = None,
        oldest_pending: Callable[[str], float | None] | None = None,
        backlog: Callable[[], float] | None = None,
        limits: Callable[[], Mapping[str, int | None]] | None = None,
        catch_up: Callable[[], None] | None = None,
    ) -> None:
        self._catch_up = catch_up
        self.registry = registry if registry is not None else CollectorRegistry()
        self._gauges = GaugeReader(
            live_counts=live_counts, oldest_pending=oldest_pending, backlog=backlog, limits=limits
        )
        self._series: dict[tuple[str, str], TaskSeries] = {}
        self._queues: set[str] = set()
        self._flush = Tally(names.FLUSH_BUCKETS)
        self._version = 0
        self.identity = uuid.uuid4().hex
        self.shown: Shown | None = None
        self.refresh_shown: Callable[[], Awaitable[None]] | None = None
        self._families = families_of(self.registry)
        self._families.add_source(self)

    def close(self) -> None:
        """Take this manager's numbers out of the registry."""
        self._families.remove_source(self)

    def declare(self, definition: TaskDefinition) -> None:
        """Let the counters of a known task start at 0, so that a rate sees the first event."""
        self._version += 1
        self._bind(definition.name, definition.queue)

    def observe(self, event: TaskEvent) -> None:
        """Take note of ``event``."""
        kind = event.kind
        if kind in UNCOUNTED:
            return
        self._version += 1
        record = event.record
        series = self._series.get((record.func_name, record.queue)) or self._bind(record.func_name, record.queue)
        if kind is EventKind.ENQUEUED:
            series.enqueued += 1
        elif kind is EventKind.STARTED:
            _time(series.queue_wait, queue_wait(record), event)
        elif kind is EventKind.FINISHED:
            series.finished[record.status] += 1
            duration = attempt_duration(event)
            if duration is not None:
                _time(series.duration, duration, event)
            if record.status is TaskStatus.SUCCESS:
                series.last_success = event.at
        elif kind is EventKind.RETRIED:
            duration = attempt_duration(event)
            if duration is not None:
                series.retries += 1
                _time(series.duration, duration, event)
        else:
            series.recovered += 1

    def observe_flush(self, seconds: float) -> None:
        """Take note of how long a commit took."""
        self._version += 1
        self._flush.observe(seconds)

    async def refresh(self) -> None:
        """Bring ``shown`` up to date, if workers share their numbers."""
        if self.refresh_shown is not None:
            await self.refresh_shown()

    def add_to(self, reading: Reading) -> None:
        """Add this manager's numbers to a scrape: its counters as they were last kept, where workers share them."""
        shown = self.shown
        if shown is None:
            self._add_counts(reading)
        else:
            reading.add_counts(shown.own)
        reading.gauges.add(self._gauges.read({queue for _, queue in reading.series}))

    def snapshot(self) -> tuple[int, Reading]:
        """Return this manager's own numbers as they are now, and a number that changes with the counters."""
        reading = Reading()
        self._add_counts(reading)
        reading.settle()
        reading.gauges.add(self._gauges.read({queue for _, queue in reading.series}))
        return self._version, reading

    def _add_counts(self, reading: Reading) -> None:
        if self._catch_up is not None:
            self._catch_up()
        for (task, queue), series in list(self._series.items()):
            reading.add_series((storable_text(task, MAX_LABEL_CHARS), storable_text(queue, MAX_LABEL_CHARS)), series)
        reading.flush.add(self._flush)

    def render(self, accept: str | None, format: str | None = None) -> tuple[str, bytes]:  # noqa: A002 - the query parameter's name
        """Return content type and body, as text 0.0.4 or OpenMetrics 1.0.0 with exemplars.

        Args:
            accept: The ``Accept`` header. What does not ask for OpenMetrics gets the text.
            format: ``prometheus`` or ``openmetrics`` decides outright; None leaves it to ``accept``.

        Raises:
            ValueError: If ``format`` is neither.
        """
        form = negotiate(accept, format)
        if form is MetricsFormat.OPENMETRICS:
            return OPENMETRICS_CONTENT_TYPE, generate_openmetrics(self.registry)  # type: ignore[no-untyped-call]
        if format is not None and form is MetricsFormat.JSON:
            msg = f"format must be prometheus or openmetrics, not {format!r}"
            raise ValueError(msg)
        return TEXT_CONTENT_TYPE, generate_latest(self.registry)

    async def scrape(self, accept: str | None, format: str | None = None) -> tuple[str, bytes]:  # noqa: A002 - as in render
        """Do what ``render`` does, for all workers of this host, without holding up the loop.

        Numbers are read here, the text is made in a thread.

        Raises:
            ValueError: If ``format`` is neither ``prometheus`` nor ``openmetrics``.
        """
        await self._families.refresh()
        token = reading_in_use.set(self._families.read())
        try:
            return await asyncio.to_thread(self.render, accept, format)
        finally:
            reading_in_use.reset(token)

    def _bind(self, task: str, queue: str) -> TaskSeries:
        if queue not in self._queues:
            if len(self._queues) < names.MAX_LABELLED_QUEUES:
                self._queues.add(queue)
            else:
                queue = names.OTHER_QUEUE
        found = self._series.get((task, queue))
        if found is None:
            if len(self._series) >= names.MAX_LABELLED_TASKS and task != names.OTHER_TASK:
                return self._bind(names.OTHER_TASK, queue)
            found = self._series[task, queue] = TaskSeries()
        return found


def _time(tally: Tally, seconds: float, event: TaskEvent) -> None:
    record = event.record
    if event.sampled and record.traceparent is not None and record.span_id is not None:
        tally.observe_with(record.traceparent[3:35], record.span_id, seconds, event.at)
    else:
        tally.observe(seconds)


__all__ = ["OPENMETRICS_CONTENT_TYPE", "TEXT_CONTENT_TYPE", "MetricsFormat", "PrometheusMetrics", "wants_json"]
