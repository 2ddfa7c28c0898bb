"""Prometheus metrics: what is counted, and that its readers can read it."""

from __future__ import annotations

import logging
import subprocess
import threading
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from fastapi_taskflow import clock
from fastapi_taskflow.errors import ConfigurationError
from fastapi_taskflow.task import lifecycle
from fastapi_taskflow.task.record import FINISHED, TaskStatus
from fastapi_taskflow.telemetry import names
from fastapi_taskflow.telemetry.prometheus import PrometheusMetrics
from tests.unit.telemetry.samples import DEFINITION, TRACE_ID, TRACEPARENT, failure, line, pending, started, told

if TYPE_CHECKING:
    from collections.abc import Mapping

TASK = {"task": "send_email", "queue": "default"}


def value(metrics: PrometheusMetrics, name: str, **labels: str) -> float | None:
    """Return one sample."""
    return metrics.registry.get_sample_value(name, labels)


def good_task(metrics: PrometheusMetrics, **changes: Any) -> None:
    """Tell of a task that waits 2 s, runs 0.3 s and ends well."""
    running = started(**changes)
    sampled = running.traceparent is not None
    metrics.observe(told("enqueued", pending(**changes)))
    metrics.observe(told("started", running, sampled=sampled))
    metrics.observe(told("finished", lifecycle.succeed(running, at=102.3), sampled=sampled))


def test_known_tasks_start_at_zero() -> None:
    """A declared task has all of its counters, so the first failure is an increase and not a new series."""
    metrics = PrometheusMetrics(live_counts=dict)
    metrics.declare(DEFINITION)
    for name in (names.ENQUEUED_TOTAL, names.RETRIES_TOTAL, names.RECOVERED_TOTAL):
        assert value(metrics, name, **TASK) == 0
    for status in FINISHED:
        assert value(metrics, names.FINISHED_TOTAL, **TASK, status=status.value) == 0
    assert value(metrics, f"{names.DURATION_SECONDS}_count", **TASK) == 0
    assert value(metrics, names.RUNNING, queue="default") == 0
    assert value(metrics, names.LAST_SUCCESS, task="send_email") is None


def test_one_good_task() -> None:
    """A task that ends well is counted at each step and timed once."""
    metrics = PrometheusMetrics()
    good_task(metrics)
    metrics.observe(line())
    assert value(metrics, names.ENQUEUED_TOTAL, **TASK) == 1
    assert value(metrics, names.FINISHED_TOTAL, **TASK, status="success") == 1
    assert value(metrics, f"{names.DURATION_SECONDS}_sum", **TASK) == pytest.approx(0.3)
    assert value(metrics, f"{names.DURATION_SECONDS}_bucket", **TASK, le="0.25") == 0
    assert value(metrics, f"{names.DURATION_SECONDS}_bucket", **TASK, le="0.5") == 1
    assert value(metrics, f"{names.DURATION_SECONDS}_bucket", **TASK, le="+Inf") == 1
    assert value(metrics, f"{names.QUEUE_WAIT_SECONDS}_sum", **TASK) == 2.0
    assert value(metrics, names.LAST_SUCCESS, task="send_email") == 110.0


def test_a_bucket_holds_its_own_bound() -> None:
    """``le`` means less or equal."""
    metrics = PrometheusMetrics()
    metrics.observe(told("started", started(ready_at=92.0)))
    assert value(metrics, f"{names.QUEUE_WAIT_SECONDS}_bucket", **TASK, le="5.0") == 0
    assert value(metrics, f"{names.QUEUE_WAIT_SECONDS}_bucket", **TASK, le="10.0") == 1


def test_retries_and_recoveries() -> None:
    """A failed attempt before another one counts as a retry with its duration; a cut-off one as neither."""
    metrics = PrometheusMetrics()
    metrics.observe(told("retried", lifecycle.retry(started(), failure(), at=103.0, run_at=104.0)))
    metrics.observe(told("retried", lifecycle.requeue(started(), at=103.0, owner="")))
    metrics.observe(told("recovered", lifecycle.requeue(started(), at=103.0, owner="me")))
    assert value(metrics, names.RETRIES_TOTAL, **TASK) == 1
    assert value(metrics, names.RECOVERED_TOTAL, **TASK) == 1
    assert value(metrics, f"{names.DURATION_SECONDS}_count", **TASK) == 1
    assert value(metrics, f"{names.DURATION_SECONDS}_sum", **TASK) == 1.0


def test_what_did_not_run_to_its_end_is_not_timed() -> None:
    """A pending task that is cancelled and an interrupted run are counted without a duration."""
    metrics = PrometheusMetrics()
    metrics.observe(told("finished", lifecycle.cancel(pending(), at=101.0)))
    metrics.observe(told("finished", lifecycle.interrupt(started(), at=900.0, owner="me", reason="died")))
    assert value(metrics, names.FINISHED_TOTAL, **TASK, status="cancelled") == 1
    assert value(metrics, names.FINISHED_TOTAL, **TASK, status="interrupted") == 1
    assert value(metrics, f"{names.DURATION_SECONDS}_count", **TASK) == 0


def test_gauges_are_read_when_somebody_scrapes() -> None:
    """Running, pending, age, limit and backlog come from the functions given."""
    counts: Mapping[tuple[str, TaskStatus], int] = {("mail", TaskStatus.RUNNING): 2, ("mail", TaskStatus.PENDING): 5}
    metrics = PrometheusMetrics(
        live_counts=lambda: counts,
        oldest_pending=lambda queue: clock.now() - 60 if queue == "mail" else None,
        backlog=lambda: 7,
        limits=lambda: {"mail": 4, "default": None},
    )
    metrics.declare(DEFINITION)
    metrics.observe_flush(0.004)
    assert value(metrics, names.RUNNING, queue="mail") == 2
    assert value(metrics, names.PENDING, queue="mail") == 5
    assert value(metrics, names.RUNNING, queue="default") == 0
    assert value(metrics, names.OLDEST_PENDING_AGE, queue="mail") == pytest.approx(60, abs=5)
    assert value(metrics, names.OLDEST_PENDING_AGE, queue="default") == 0
    assert value(metrics, names.CONCURRENCY_LIMIT, queue="mail") == 4
    assert value(metrics, names.CONCURRENCY_LIMIT, queue="default") is None
    assert value(metrics, names.STORE_BACKLOG) == 7
    assert value(metrics, f"{names.STORE_FLUSH_SECONDS}_bucket", le="0.005") == 1


def test_a_task_that_is_due_later_has_no_age() -> None:
    """A deliberate delay is no backlog."""
    counts = {("default", TaskStatus.PENDING): 1}
    metrics = PrometheusMetrics(live_counts=lambda: counts, oldest_pending=lambda _: clock.now() + 3600)
    assert value(metrics, names.OLDEST_PENDING_AGE, queue="default") == 0


def test_a_broken_gauge_breaks_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    """A gauge that cannot be read is left out, and said once."""

    def broken() -> float:
        raise RuntimeError("no journal")

    metrics = PrometheusMetrics(live_counts=dict, backlog=broken)
    metrics.declare(DEFINITION)
    with caplog.at_level(logging.ERROR, "fastapi_taskflow.metrics"):
        assert value(metrics, names.RUNNING, queue="default") == 0
        assert value(metrics, names.ENQUEUED_TOTAL, **TASK) == 0
    assert [record.message for record in caplog.records] == ["a gauge of the metrics could not be read; it is left out"]


def test_two_managers_in_one_process_stay_apart() -> None:
    """Each has a registry of its own."""
    first, second = PrometheusMetrics(), PrometheusMetrics()
    good_task(first)
    assert value(first, names.ENQUEUED_TOTAL, **TASK) == 1
    assert value(second, names.ENQUEUED_TOTAL, **TASK) is None


def test_managers_that_share_a_registry_add_up() -> None:
    """One registry given to two managers shows both, until one leaves."""
    registry = CollectorRegistry()
    counts = {("default", TaskStatus.RUNNING): 1}
    one, two = (PrometheusMetrics(registry=registry, live_counts=lambda: counts, backlog=lambda: 2) for _ in range(2))
    good_task(one, traceparent=TRACEPARENT)
    good_task(two)
    two.observe_flush(1.0)
    assert value(one, names.ENQUEUED_TOTAL, **TASK) == 2
    assert value(one, f"{names.DURATION_SECONDS}_count", **TASK) == 2
    assert value(one, f"{names.STORE_FLUSH_SECONDS}_count") == 1
    assert value(one, names.RUNNING, queue="default") == 2
    assert value(one, names.STORE_BACKLOG) == 4
    assert TRACE_ID.encode() in one.render(None, "openmetrics")[1]
    two.close()
    assert value(one, names.ENQUEUED_TOTAL, **TASK) == 1
    assert value(one, names.RUNNING, queue="default") == 1


def test_a_registry_with_our_names_taken_is_refused() -> None:
    """The error says so when the app is built, not at the first scrape."""
    registry = CollectorRegistry()
    Counter("taskflow_tasks_enqueued", "Somebody else's.", registry=registry)
    with pytest.raises(ConfigurationError, match="taskflow_tasks_enqueued"):
        PrometheusMetrics(registry=registry)


def test_the_users_own_metrics_come_along() -> None:
    """A registry that the user gives is rendered whole."""
    registry = CollectorRegistry()
    Counter("orders", "Orders.", registry=registry).inc()
    _, body = PrometheusMetrics(registry=registry).render("text/plain")
    assert b"orders_total 1.0" in body
    assert b"taskflow_store_backlog 0.0" in body


def test_both_texts_can_be_parsed_and_hold_the_same() -> None:
    """The client library's two parsers read what is written; there are no ``_created`` series."""
    metrics = PrometheusMetrics(live_counts=dict, limits=lambda: {"default": 3})
    good_task(metrics, traceparent=TRACEPARENT)
    good_task(metrics, func_name='odd "name"\n\\ ü', queue="späte")
    content_type, body = metrics.render("text/plain")
    assert content_type == "text/plain; version=0.0.4; charset=utf-8"
    text = {(s.name, *sorted(s.labels.items())): s.value for f in parse_text(body.decode()) for s in f.samples}
    content_type, body = metrics.render("application/openmetrics-text")
    assert content_type == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    assert body.endswith(b"# EOF\n")
    families = list(parse_openmetrics(body.decode()))  # type: ignore[no-untyped-call]
    modern = {(s.name, *sorted(s.labels.items())): s.value for f in families for s in f.samples}
    assert text == modern
    assert not [key for key in text if str(key[0]).endswith("_created")]


def test_exemplars_point_at_sampled_attempts() -> None:
    """A bucket carries trace and span of the newest sampled attempt, in OpenMetrics only."""
    metrics = PrometheusMetrics()
    good_task(metrics)
    assert b"trace_id" not in metrics.render(None, "openmetrics")[1]
    good_task(metrics, traceparent=TRACEPARENT)
    families = parse_openmetrics(metrics.render(None, "openmetrics")[1].decode())  # type: ignore[no-untyped-call]
    found = {s.name: s.exemplar for f in families for s in f.samples if s.exemplar}
    assert set(found) == {f"{names.DURATION_SECONDS}_bucket", f"{names.QUEUE_WAIT_SECONDS}_bucket"}
    exemplar = found[f"{names.DURATION_SECONDS}_bucket"]
    assert exemplar is not None
    assert exemplar.labels == {"trace_id": TRACE_ID, "span_id": "00f067aa0ba902b7"}
    assert (exemplar.value, float(exemplar.timestamp or 0)) == (pytest.approx(0.3), 110.0)
    assert b"trace_id" not in metrics.render(None, "prometheus")[1]


@pytest.mark.prometheus
def test_promtool_has_nothing_to_say(promtool: str) -> None:
    """Debian's ``promtool check metrics`` accepts the text without a complaint about names or help."""
    metrics = PrometheusMetrics(live_counts=dict, limits=lambda: {"default": 3})
    good_task(metrics, traceparent=TRACEPARENT)
    metrics.observe_flush(0.1)
    body = metrics.render(None, "prometheus")[1]
    done = subprocess.run([promtool, "check", "metrics"], input=body, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_json_is_not_rendered_here() -> None:
    """The route answers JSON itself; an unknown format is refused."""
    metrics = PrometheusMetrics()
    for wrong in ("json", "xml"):
        with pytest.raises(ValueError, match="format must be"):
            metrics.render(None, wrong)


async def test_a_scrape_reads_on_the_loop_and_renders_elsewhere() -> None:
    """The functions given are called on the loop's thread, so they need no locks."""
    where: list[int] = []

    def backlog() -> float:
        where.append(threading.get_ident())
        return 3

    metrics = PrometheusMetrics(backlog=backlog)
    content_type, body = await metrics.scrape("text/plain")
    assert content_type.startswith("text/plain")
    assert b"taskflow_store_backlog 3.0" in body
    assert where == [threading.get_ident()]


def test_the_number_of_series_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the limit tasks are counted together, so names made at run time cannot fill the memory."""
    monkeypatch.setattr(names, "MAX_LABELLED_TASKS", 2)
    metrics = PrometheusMetrics()
    for name in ("a", "b", "c", "d", "a"):
        metrics.observe(told("enqueued", pending(func_name=name)))
    assert value(metrics, names.ENQUEUED_TOTAL, task="a", queue="default") == 2
    assert value(metrics, names.ENQUEUED_TOTAL, task="c", queue="default") is None
    assert value(metrics, names.ENQUEUED_TOTAL, task="_other", queue="default") == 2


def test_the_number_of_queues_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A queue for each customer fills neither the memory nor the scrape, and no task is missing in the sums."""
    monkeypatch.setattr(names, "MAX_LABELLED_QUEUES", 2)
    counts = {(queue, TaskStatus.PENDING): 1 for queue in ("a", "b", "c", "d")}
    metrics = PrometheusMetrics(live_counts=lambda: counts, oldest_pending=lambda _: clock.now() - 60)
    for queue in ("a", "b", "c", "d", "c", "a"):
        metrics.observe(told("enqueued", pending(queue=queue)))
    found = {queue: value(metrics, names.ENQUEUED_TOTAL, task="send_email", queue=queue) for queue in "abcd"}
    assert found == {"a": 2, "b": 1, "c": None, "d": None}
    assert value(metrics, names.ENQUEUED_TOTAL, task="send_email", queue="_other") == 3
    assert [value(metrics, names.PENDING, queue=queue) for queue in ("a", "b", "c", "_other")] == [1, 1, None, 2]
    assert value(metrics, names.OLDEST_PENDING_AGE, queue="a") == pytest.approx(60, abs=5)
    assert value(metrics, names.OLDEST_PENDING_AGE, queue="_other") is None


def test_a_name_that_is_no_text_for_the_wire_is_spelled_out() -> None:
    """A lone surrogate in one task's name does not break the scrape of all."""
    metrics = PrometheusMetrics()
    metrics.observe(told("enqueued", pending(func_name="bad\ud800")))
    assert b'task="bad\\\\ud800"' in metrics.render(None, "openmetrics")[1]
