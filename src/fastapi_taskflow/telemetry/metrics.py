"""OpenTelemetry metrics: one sink of the events, apart from the Prometheus one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentelemetry import metrics

from fastapi_taskflow.__about__ import __version__
from fastapi_taskflow.task.event import EventKind
from fastapi_taskflow.task.record import TaskStatus
from fastapi_taskflow.telemetry import names

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.util.types import AttributeValue

    from fastapi_taskflow.task.event import TaskEvent
    from fastapi_taskflow.task.record import TaskRecord


class OtelMetrics:
    """Counts and times tasks with the OpenTelemetry API. Fills the seam `Observer`.

    Without an SDK each instrument is a no-op; when one is set up later, they begin to record.

    Args:
        meter_provider: The provider to use; by default the global one.
    """

    def __init__(self, *, meter_provider: MeterProvider | None = None) -> None:
        meter = metrics.get_meter(names.SCOPE, __version__, meter_provider, names.SCHEMA_URL)
        self._sent = meter.create_counter(names.SENT_MESSAGES, "{message}", "Tasks that were added.")
        self._consumed = meter.create_counter(names.CONSUMED_MESSAGES, "{message}", "Attempts that began.")
        self._duration = meter.create_histogram(
            names.PROCESS_DURATION,
            "s",
            "Duration of an attempt.",
            explicit_bucket_boundaries_advisory=names.SEMCONV_BUCKETS,
        )
        self._wait = meter.create_histogram(
            names.QUEUE_WAIT_METRIC,
            "s",
            "Time that a task was ready to run and did not.",
            explicit_bucket_boundaries_advisory=names.TASK_BUCKETS,
        )
        self._send_attributes: dict[str, dict[str, AttributeValue]] = {}
        self._process_attributes: dict[str, dict[str, AttributeValue]] = {}

    def observe(self, event: TaskEvent) -> None:
        """Take note of ``event``."""
        kind, record = event.kind, event.record
        if kind is EventKind.ENQUEUED:
            self._sent.add(1, self._attributes(self._send_attributes, names.SEND, record))
        elif kind is EventKind.STARTED:
            attributes = self._attributes(self._process_attributes, names.PROCESS, record)
            self._consumed.add(1, attributes)
            self._wait.record(queue_wait(record), attributes)
        elif kind in (EventKind.FINISHED, EventKind.RETRIED):
            duration = attempt_duration(event)
            if duration is not None:
                attributes = self._attributes(self._process_attributes, names.PROCESS, record)
                failed = kind is EventKind.RETRIED or record.status is TaskStatus.FAILED
                if failed and record.error_type is not None:
                    attributes = {**attributes, names.ERROR_TYPE: record.error_type}
                self._duration.record(duration, attributes)

    def _attributes(
        self, known: dict[str, dict[str, AttributeValue]], operation: str, record: TaskRecord
    ) -> dict[str, AttributeValue]:
        found = known.get(record.func_name)
        if found is not None:
            return found
        if len(known) >= names.MAX_LABELLED_TASKS:
            return known.setdefault(names.OTHER_TASK, _attributes(operation, names.OTHER_TASK))
        return known.setdefault(record.func_name, _attributes(operation, record.func_name))


def _attributes(operation: str, task: str) -> dict[str, AttributeValue]:
    return {
        names.MESSAGING_SYSTEM: names.SYSTEM,
        names.MESSAGING_OPERATION_NAME: operation,
        names.MESSAGING_DESTINATION_NAME: task,
    }


def queue_wait(record: TaskRecord) -> float:
    """Return the seconds that a started task was ready to run and did not."""
    return max(0.0, (record.start_time or record.ready_at) - record.ready_at)


def attempt_duration(event: TaskEvent) -> float | None:
    """Return the seconds that the attempt took which ``event`` tells the end of.

    None if nothing ran, or if the attempt was cut off: its true end is not known then.
    """
    record = event.record
    if event.kind is EventKind.RETRIED:
        last = record.attempts[-1] if record.attempts else None
        if last is None or last.error_type is None:
            return None
        return max(0.0, last.end_time - last.start_time)
    return None if record.status is TaskStatus.INTERRUPTED else record.duration
