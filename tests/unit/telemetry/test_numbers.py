"""One worker's numbers as text: what goes in comes out, and damage is told apart."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastapi_taskflow.errors import SchemaVersionError
from fastapi_taskflow.task.record import TaskStatus
from fastapi_taskflow.telemetry import names
from fastapi_taskflow.telemetry.numbers import Numbers, from_text, merged, to_text
from fastapi_taskflow.telemetry.series import GRAIN, Reading, Tally, TaskSeries

KEY = ("send_email", "default")


def reading(times: int = 1, seconds: float = 0.3, key: tuple[str, str] = KEY) -> Reading:
    """Return the numbers of some tasks."""
    found = Reading()
    series = TaskSeries()
    series.enqueued, series.retries, series.recovered = times, 2, 1
    series.finished[TaskStatus.SUCCESS] = times
    series.last_success = 100.5
    for _ in range(times):
        series.duration.observe_with("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", seconds, 110.0)
        series.queue_wait.observe(2.0)
    found.add_series(key, series)
    found.flush.observe(0.004)
    found.gauges.running = {"default": 3}
    found.gauges.oldest = {"default": 5.0, "mail": 0.0}
    found.gauges.limits = {"default": 8.0}
    found.gauges.backlog = 2
    found.settle()
    return found


def facts(of: Reading) -> dict[str, Any]:
    """Return everything that a reading holds."""
    return json.loads(to_text(Numbers(of)))  # type: ignore[no-any-return]


def test_what_goes_in_comes_out() -> None:
    """Counters, histograms, exemplars and gauges are the same after the way through the text."""
    numbers = Numbers(reading(3), "me", 50.0)
    again = from_text(to_text(numbers))
    assert (again.instance_id, again.at) == ("me", 50.0)
    assert facts(again.reading) == facts(numbers.reading)
    series = again.reading.series[KEY]
    assert (series.enqueued, series.retries, series.recovered, series.last_success) == (3, 2, 1, 100.5)
    assert series.finished[TaskStatus.SUCCESS] == 3
    assert series.duration.buckets == numbers.reading.series[KEY].duration.buckets
    assert series.duration.exemplars == numbers.reading.series[KEY].duration.exemplars
    assert again.reading.gauges == numbers.reading.gauges


def test_what_waits_grows_older_and_nothing_else_does() -> None:
    """The age of the oldest goes on from when it was written; a queue where nothing waits stays at 0."""
    later = from_text(to_text(Numbers(reading(), "me", 50.0))).gauges_at(60.0)
    assert later.oldest == {"default": 15.0, "mail": 0.0}
    assert (later.running, later.limits, later.backlog) == ({"default": 3}, {"default": 8.0}, 2)


@pytest.mark.parametrize("change", [
    lambda content: content.pop("series"),
    lambda content: content.pop("version"),
    lambda content: content["series"][0].pop(),
    lambda content: content["series"][0].__setitem__(2, -1),
    lambda content: content["series"][0].__setitem__(2, True),  # noqa: FBT003 - a boolean is the point
    lambda content: content["series"][0].__setitem__(2, 1.5),
    lambda content: content["series"][0].__setitem__(0, None),
    lambda content: content["series"][0].__setitem__(5, {"unheard": 1}),
    lambda content: content["series"][0].__setitem__(5, []),
    lambda content: content["series"][0][7][0].pop(),
    lambda content: content["series"][0][7].__setitem__(1, float("nan")),
    lambda content: content["series"][0][7].__setitem__(1, 10**400),
    lambda content: content["series"][0][7][2].append([0]),
    lambda content: content.__setitem__("flush", 7),
    lambda content: content.__setitem__("gauges", []),
    lambda content: content["gauges"].__setitem__(0, {"default": "many"}),
])  # fmt: skip
def test_what_is_damaged_is_refused(change: Any) -> None:
    """Each piece is looked at: a wrong number would be shown for ever."""
    content = facts(reading())
    change(content)
    with pytest.raises(ValueError, match="no metrics of a worker"):
        from_text(json.dumps(content))


@pytest.mark.parametrize("text", ["", "null", "[]", "7", "{", '"x"', "\0", "[" * 100_000])
def test_what_is_no_object_is_refused(text: str) -> None:
    """Nothing but an object is taken."""
    with pytest.raises(ValueError, match="no metrics of a worker"):
        from_text(text)


@settings(deadline=None)
@given(st.text() | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(json.dumps))
def test_no_text_breaks_the_reader(text: str) -> None:
    """Whatever it is, it is refused in the one way."""
    with pytest.raises(ValueError, match="no metrics of a worker"):
        from_text(text)


def test_newer_text_is_told_apart() -> None:
    """Older code must not take it for damaged, and drop it."""
    text = json.dumps({"version": 2, "anything": "else"})
    with pytest.raises(SchemaVersionError, match="version 2"):
        from_text(text)
    with pytest.raises(SchemaVersionError):
        merged([to_text(Numbers(reading())), text])


def test_the_sum_of_several_has_their_counters_and_no_gauges() -> None:
    """Damaged text is left out; of what is running nothing is left when a process is gone."""
    total = from_text(merged([to_text(Numbers(reading(2), "a", 5.0)), "damaged", to_text(Numbers(reading(3)))]))
    assert (total.reading.series[KEY].enqueued, total.instance_id) == (5, "")
    assert sum(total.reading.series[KEY].duration.buckets) == 5
    assert sum(total.reading.flush.buckets) == 2
    assert total.reading.gauges == Reading().gauges


def test_the_sum_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names of tasks that change with each start do not pile up for ever, and none of their counts is lost."""
    monkeypatch.setattr(names, "MAX_LABELLED_TASKS", 3)
    text = merged([])
    for start in range(5):
        text = merged([text, *(to_text(Numbers(reading(1, key=(f"task-{start}-{n}", "q")))) for n in range(2))])
    series = from_text(text).reading.series
    assert set(series) == {("task-0-0", "q"), ("task-0-1", "q"), ("task-1-0", "q"), (names.OTHER_TASK, "q")}
    assert sum(each.enqueued for each in series.values()) == 10
    monkeypatch.setattr(names, "MAX_LABELLED_QUEUES", 2)
    for start in range(5):
        text = merged([text, to_text(Numbers(reading(1, key=("task", f"q-{start}"))))])
    series = from_text(text).reading.series
    assert {queue for task, queue in series if task == names.OTHER_TASK} == {"q", "q-0", "_other"}
    assert sum(each.enqueued for each in series.values()) == 15


@settings(deadline=None)
@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=20), st.randoms())
def test_sums_are_the_same_in_any_order(seconds: list[float], random: Any) -> None:
    """A scrape adds workers up in another order than a merge did, and must not go back by the last digit."""
    tallies = []
    for value in seconds:
        tally = Tally((1.0,))
        tally.observe(value)
        tally.settle()
        assert 0 <= value - tally.total < GRAIN
        tallies.append(tally)
    one_by_one, in_groups, group = Tally((1.0,)), Tally((1.0,)), Tally((1.0,))
    for tally in tallies:
        one_by_one.add(tally)
    random.shuffle(tallies)
    for position, tally in enumerate(tallies):
        (group if position % 2 else in_groups).add(tally)
    in_groups.add(group)
    assert in_groups.total == one_by_one.total
