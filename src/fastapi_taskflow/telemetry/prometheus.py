"""Prometheus metrics: one sink of the events, and the text that a scraper gets."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

from fastapi_taskflow.task.event import EventKind
from fastapi_taskflow.task.outcome import storable_text
from fastapi_taskflow.task.record import FINISHED, TaskStatus
from fastapi_taskflow.telemetry import names
from fastapi_taskflow.telemetry.families import Families, GaugeSource, families_of, reading_in_use
from fastapi_taskflow.telemetry.metrics import attempt_duration, queue_wait
from fastapi_taskflow.telemetry.negotiation import MetricsFormat, negotiate, wants_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fastapi_taskflow.task.definition import TaskDefinition
    from fastapi_taskflow.task.event import TaskEvent
    from fastapi_taskflow.task.record import TaskRecord

TEXT_CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS_CONTENT_TYPE: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"
MAX_LABEL_CHARS: Final = 200


class _Series:
    """The series of one task and queue, bound once: an event then costs a look-up and the increments."""

    __slots__ = ("duration", "enqueued", "finished", "last_success", "queue_wait", "recovered", "retries")

    def __init__(self, families: Families, task: str, queue: str) -> None:
        self.enqueued = families.enqueued.labels(task, queue).inc
        self.finished = {status: families.finished.labels(task, queue, status.value).inc for status in FINISHED}
        self.retries = families.retries.labels(task, queue).inc
        self.recovered = families.recovered.labels(task, queue).inc
        self.duration = families.duration.labels(task, queue).observe
        self.queue_wait = families.queue_wait.labels(task, queue).observe
        # Not bound here: a task that never ended well has no such time, and 0 would say 1970.
        self.last_success: Callable[[float], None] | None = None


class PrometheusMetrics:
    """Counts and times tasks for Prometheus. Fills the seam `Observer`.

    Args:
        registry: Where the metrics are registered; by default a registry of its own, so that nothing can clash.
            Managers that are given the same registry add up.
        live_counts: Tasks per queue and status in this process, read at each scrape.
        oldest_pending: When the oldest pending task of a queue became ready, seconds since the Unix epoch, or None.
        backlog: Changes that wait for the store.
        limits: Tasks that may run at once per queue; None or no entry is without limit.

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
    ) -> None:
        self.registry = registry if registry is not None else CollectorRegistry()
        self._families = families_of(self.registry)
        self._source = GaugeSource(
            live_counts=live_counts, oldest_pending=oldest_pending, backlog=backlog, limits=limits
        )
        self._families.add_source(self._source)
        self._series: dict[tuple[str, str], _Series] = {}
        self.observe_flush = self._families.flush.observe
        """Take note of the seconds that a commit took."""

    def close(self) -> None:
        """Take this manager's gauges out of the registry. Its counters stay."""
        self._families.remove_source(self._source)

    def declare(self, definition: TaskDefinition) -> None:
        """Let the counters of a known task start at 0, so that a rate sees the first event."""
        self._bind(definition.name, definition.queue)

    def observe(self, event: TaskEvent) -> None:
        """Take note of ``event``."""
        kind = event.kind
        if kind is EventKind.LOGGED:
            return
        record = event.record
        series = self._series.get((record.func_name, record.queue)) or self._bind(record.func_name, record.queue)
        if kind is EventKind.ENQUEUED:
            series.enqueued()
        elif kind is EventKind.STARTED:
            series.queue_wait(queue_wait(record), _exemplar(event))
        elif kind is EventKind.FINISHED:
            self._finished(event, series)
        elif kind is EventKind.RETRIED:
            duration = attempt_duration(event)
            if duration is not None:
                series.retries()
                series.duration(duration, _exemplar(event))
        else:
            series.recovered()

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
        """Do what ``render`` does without holding up the loop: gauges are read here, the text is made in a thread.

        Raises:
            ValueError: If ``format`` is neither ``prometheus`` nor ``openmetrics``.
        """
        token = reading_in_use.set(self._families.read())
        try:
            return await asyncio.to_thread(self.render, accept, format)
        finally:
            reading_in_use.reset(token)

    def _finished(self, event: TaskEvent, series: _Series) -> None:
        record = event.record
        series.finished[record.status]()
        duration = attempt_duration(event)
        if duration is not None:
            series.duration(duration, _exemplar(event))
        if record.status is TaskStatus.SUCCESS:
            if series.last_success is None:
                series.last_success = self._families.last_success.labels(self._label(record)).set
            series.last_success(event.at)

    def _bind(self, task: str, queue: str) -> _Series:
        key = (task, queue)
        found = self._series.get(key)
        if found is not None:
            return found
        if len(self._series) >= names.MAX_LABELLED_TASKS and task != names.OTHER_TASK:
            return self._bind(names.OTHER_TASK, queue)
        label = storable_text(queue, MAX_LABEL_CHARS)
        self._source.queues.add(label)
        return self._series.setdefault(key, _Series(self._families, storable_text(task, MAX_LABEL_CHARS), label))

    def _label(self, record: TaskRecord) -> str:
        known = (record.func_name, record.queue) in self._series
        return storable_text(record.func_name, MAX_LABEL_CHARS) if known else names.OTHER_TASK


def _exemplar(event: TaskEvent) -> dict[str, str] | None:
    record = event.record
    trace_id, span_id = record.trace_id, record.span_id
    if not event.sampled or trace_id is None or span_id is None:
        return None
    return {names.EXEMPLAR_TRACE_ID: trace_id, names.EXEMPLAR_SPAN_ID: span_id}


__all__ = ["OPENMETRICS_CONTENT_TYPE", "TEXT_CONTENT_TYPE", "MetricsFormat", "PrometheusMetrics", "wants_json"]
