"""Which of the numbers that several managers have read count, when they are shown together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry

from fastapi_taskflow.telemetry import names
from fastapi_taskflow.telemetry.prometheus import PrometheusMetrics
from fastapi_taskflow.telemetry.series import Reading, TaskSeries
from fastapi_taskflow.telemetry.sharing import Shown, others_of
from tests.unit.telemetry.samples import pending, told

if TYPE_CHECKING:
    from collections.abc import Iterable

KEY = ("send_email", "default")


def counted(enqueued: int) -> Reading:
    """Return the numbers of a worker that took so many tasks."""
    reading, series = Reading(), TaskSeries()
    series.enqueued = enqueued
    reading.add_series(KEY, series)
    return reading


def total(shown: Iterable[Shown]) -> int:
    """Return how many tasks the others took."""
    return sum(reading.series[KEY].enqueued for reading in others_of(shown) if reading.series)


def test_one_manager_shows_all_others() -> None:
    """Its own row is not among them."""
    others = {"b": counted(2), "gone": counted(3)}
    assert total([Shown("a", Reading(), others, 1.0)]) == 5


def test_managers_on_one_store_count_the_others_once() -> None:
    """The later reading counts: a row may have been put together with others since the earlier one."""
    early = Shown("a", Reading(), {"b": counted(1), "c": counted(2), "gone": counted(3)}, 1.0)
    late = Shown("b", Reading(), {"a": counted(1), "gone": counted(5)}, 2.0)
    assert total([early, late]) == total([late, early]) == 5


def test_managers_on_two_stores_both_count() -> None:
    """The rows of those that are gone have the same key in each."""
    one = Shown("a", Reading(), {"gone": counted(3)}, 1.0)
    other = Shown("b", Reading(), {"gone": counted(4)}, 2.0)
    assert total([one, other]) == 7


def test_a_manager_shows_what_was_kept_and_not_what_was_counted_since() -> None:
    """So that a kill takes nothing back that was shown; gauges are as they are now."""
    registry = CollectorRegistry()
    metrics = PrometheusMetrics(registry=registry, backlog=lambda: 4)
    metrics.observe(told("enqueued", pending()))
    _, kept = metrics.snapshot()
    other = counted(5)
    other.gauges.backlog = 2
    metrics.observe(told("enqueued", pending()))
    labels = dict(zip(("task", "queue"), KEY, strict=True))
    assert registry.get_sample_value(names.ENQUEUED_TOTAL, labels) == 2
    metrics.shown = Shown("a", kept, {"b": other}, 1.0)
    assert registry.get_sample_value(names.ENQUEUED_TOTAL, labels) == 6
    assert registry.get_sample_value(names.STORE_BACKLOG) == 6


def test_a_snapshot_says_whether_anything_was_counted() -> None:
    """The number changes with each event, each commit and each known task, and not by itself."""
    metrics = PrometheusMetrics()
    first, _ = metrics.snapshot()
    assert metrics.snapshot()[0] == first
    metrics.observe_flush(0.1)
    metrics.observe(told("enqueued", pending()))
    assert metrics.snapshot()[0] == first + 2
