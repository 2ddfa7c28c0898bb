"""OpenTelemetry metrics, seen by an in-memory reader."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, Metric

from fastapi_taskflow.task import lifecycle
from fastapi_taskflow.telemetry import names
from fastapi_taskflow.telemetry.metrics import OtelMetrics
from tests.unit.telemetry.samples import failure, line, pending, started, told

BASE = {"messaging.system": "fastapi_taskflow", "messaging.destination.name": "send_email"}
SEND = {**BASE, "messaging.operation.name": "send"}
PROCESS = {**BASE, "messaging.operation.name": "process"}


@pytest.fixture
def reader() -> InMemoryMetricReader:
    """Keeps what is recorded."""
    return InMemoryMetricReader()


@pytest.fixture
def otel(reader: InMemoryMetricReader) -> OtelMetrics:
    """The sink with a recording provider."""
    return OtelMetrics(meter_provider=MeterProvider([reader], shutdown_on_exit=False))


def read(reader: InMemoryMetricReader) -> dict[str, Metric]:
    """Return the metrics by name, and check their scope."""
    data = reader.get_metrics_data()
    if data is None:
        return {}
    (scope,) = data.resource_metrics[0].scope_metrics
    assert (scope.scope.name, scope.scope.schema_url) == (names.SCOPE, names.SCHEMA_URL)
    return {metric.name: metric for metric in scope.metrics}


def points(metric: Metric) -> list[Any]:
    """Return the data points."""
    return list(metric.data.data_points)


def test_one_good_task(otel: OtelMetrics, reader: InMemoryMetricReader) -> None:
    """A task that ends well is sent and consumed once, and timed without an error.type."""
    running = started()
    for event in (
        told("enqueued", pending()),
        told("started", running),
        line(),
        told("finished", lifecycle.succeed(running, at=102.5)),
    ):
        otel.observe(event)
    found = read(reader)
    assert [(point.value, dict(point.attributes)) for point in points(found[names.SENT_MESSAGES])] == [(1, SEND)]
    assert [(point.value, dict(point.attributes)) for point in points(found[names.CONSUMED_MESSAGES])] == [(1, PROCESS)]
    (duration,) = points(found[names.PROCESS_DURATION])
    assert (duration.count, duration.sum, dict(duration.attributes)) == (1, 0.5, PROCESS)
    assert tuple(duration.explicit_bounds) == names.SEMCONV_BUCKETS
    (wait,) = points(found[names.QUEUE_WAIT_METRIC])
    assert (wait.count, wait.sum) == (1, 2.0)
    assert found[names.PROCESS_DURATION].unit == "s"


def test_failed_attempts_carry_their_error_type(otel: OtelMetrics, reader: InMemoryMetricReader) -> None:
    """An attempt that is retried and one that ends the task both say which exception it was."""
    running = started()
    otel.observe(told("retried", lifecycle.retry(running, failure(), at=103.0, run_at=104.0)))
    otel.observe(told("finished", lifecycle.fail(running, failure(), at=104.0)))
    (duration,) = points(read(reader)[names.PROCESS_DURATION])
    assert (duration.count, duration.sum) == (2, 3.0)
    assert dict(duration.attributes) == {**PROCESS, "error.type": "ConnectionError"}


def test_what_did_not_run_to_its_end_is_not_timed(otel: OtelMetrics, reader: InMemoryMetricReader) -> None:
    """A pending task that is cancelled, an interrupted run and a cut-off attempt have no true duration."""
    otel.observe(told("finished", lifecycle.cancel(pending(), at=101.0)))
    otel.observe(told("finished", lifecycle.interrupt(started(), at=500.0, owner="me", reason="died")))
    otel.observe(told("retried", lifecycle.requeue(started(), at=500.0, owner="")))
    otel.observe(told("recovered", lifecycle.requeue(started(), at=500.0, owner="me")))
    assert names.PROCESS_DURATION not in read(reader)


def test_a_cancelled_run_is_timed_without_an_error(otel: OtelMetrics, reader: InMemoryMetricReader) -> None:
    """Cancelling is not a failure."""
    otel.observe(told("finished", lifecycle.cancel(started(), at=103.0, reason="asked")))
    (duration,) = points(read(reader)[names.PROCESS_DURATION])
    assert dict(duration.attributes) == PROCESS


def test_an_sdk_that_is_set_up_later_is_found(
    no_sdk: None, reader: InMemoryMetricReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a provider nothing happens; from the moment there is one, it counts."""
    otel = OtelMetrics()
    otel.observe(told("enqueued", pending()))
    monkeypatch.setattr(metrics._internal, "_METER_PROVIDER", MeterProvider([reader], shutdown_on_exit=False))
    otel.observe(told("enqueued", pending()))
    assert [point.value for point in points(read(reader)[names.SENT_MESSAGES])] == [1]


def test_the_api_still_keeps_its_provider_where_it_is_read() -> None:
    """The quick way to tell that no SDK is set up still exists in the installed API."""
    assert hasattr(metrics._internal, "_METER_PROVIDER")


def test_the_number_of_destinations_is_bounded(
    otel: OtelMetrics, reader: InMemoryMetricReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond the limit, names are counted together."""
    monkeypatch.setattr(names, "MAX_LABELLED_TASKS", 2)
    for name in ("a", "b", "c", "d", "a"):
        otel.observe(told("enqueued", pending(func_name=name)))
    counted = {
        point.attributes["messaging.destination.name"]: point.value
        for point in points(read(reader)[names.SENT_MESSAGES])
    }
    assert counted == {"a": 2, "b": 1, "_other": 2}
