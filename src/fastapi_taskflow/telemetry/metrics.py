"""OpenTelemetry metrics: one sink of the events, apart from the Prometheus one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

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

    Without an SDK it does nothing; when one is set up later, it begins.

    Args:
        meter_provider: The provider to use; by default the global one.
    """

    def __init__(self, *, meter_provider: MeterProvider | None = None) -> None:
        self._fixed_provider = meter_provider
        self._provider: MeterProvider | None = None
        self._instruments: _Instruments | None = None
        self._send_attributes: dict[str, dict[str, AttributeValue]] = {}
        self._process_attributes: dict[str, dict[str, AttributeValue]] = {}
        # Lets the API load a provider that OTEL_PYTHON_METER_PROVIDER names, as any get_meter() does.
        metrics.get_meter_provider()

    def observe(self, event: TaskEvent) -> None:
        """Take note of ``event``."""
        instruments = self._current_instruments()
        if instruments is None:
            return
        kind, record = event.kind, event.record
        if kind is EventKind.ENQUEUED:
            instruments.sent.add(1, self._attributes(self._send_attributes, names.SEND, record))
        elif kind is EventKind.STARTED:
            attributes = self._attributes(self._process_attributes, names.PROCESS, record)
            instruments.consumed.add(1, attributes)
            instruments.wait.record(queue_wait(record), attributes)
        elif kind in (EventKind.FINISHED, EventKind.RETRIED):
            duration = attempt_duration(event)
            if duration is not None:
                attributes = self._attributes(self._process_attributes, names.PROCESS, record)
                failed = kind is EventKind.RETRIED or record.status is TaskStatus.FAILED
                if failed and record.error_type is not None:
                    attributes = {**attributes, names.ERROR_TYPE: record.error_type}
                instruments.duration.record(duration, attributes)

    def _current_instruments(self) -> _Instruments | None:
        """Return the instruments, or None without an SDK. It is looked up each time: the SDK may be set up later."""
        provider = self._fixed_provider or _global_provider()
        if provider is not self._provider:
            self._provider = provider
            self._instruments = None if provider is None else _Instruments(provider)
        return self._instruments

    def _attributes(
        self, known: dict[str, dict[str, AttributeValue]], operation: str, record: TaskRecord
    ) -> dict[str, AttributeValue]:
        found = known.get(record.func_name)
        if found is not None:
            return found
        if len(known) >= names.MAX_LABELLED_TASKS:
            return known.setdefault(names.OTHER_TASK, _attributes(operation, names.OTHER_TASK))
        return known.setdefault(record.func_name, _attributes(operation, record.func_name))


class _Instruments:
    """The instruments of one provider."""

    __slots__ = ("consumed", "duration", "sent", "wait")

    def __init__(self, provider: MeterProvider) -> None:
        meter = provider.get_meter(names.SCOPE, __version__, names.SCHEMA_URL)
        self.sent = meter.create_counter(names.SENT_MESSAGES, "{message}", "Tasks that were added.")
        self.consumed = meter.create_counter(names.CONSUMED_MESSAGES, "{message}", "Attempts that began.")
        self.duration = meter.create_histogram(
            names.PROCESS_DURATION,
            "s",
            "Duration of an attempt.",
            explicit_bucket_boundaries_advisory=names.SEMCONV_BUCKETS,
        )
        self.wait = meter.create_histogram(
            names.QUEUE_WAIT_METRIC,
            "s",
            "Time that a task was ready to run and did not.",
            explicit_bucket_boundaries_advisory=names.TASK_BUCKETS,
        )


_MISSING: Final = object()
_INTERNAL: Final = getattr(metrics, "_internal", None)


def _global_provider() -> MeterProvider | None:
    """Return the global provider, or None while none is set.

    The public getter reads the environment on each call while no SDK is set up. So the variable behind it is read
    where it still exists.
    """
    found = getattr(_INTERNAL, "_METER_PROVIDER", _MISSING)
    return metrics.get_meter_provider() if found is _MISSING else found  # type: ignore[return-value]


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
