from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from fastapi_taskflow.task.record import Attempt, SpanFact, TaskStatus
from fastapi_taskflow.web.dashboard.moments import moments
from fastapi_taskflow.web.dashboard.waterfall import waterfall
from fastapi_taskflow.web.trace import timeline
from tests.unit.web import samples

if TYPE_CHECKING:
    import httpx

    from fastapi_taskflow.task.record import TaskRecord
    from fastapi_taskflow.web.trace import TimelineSpan


def names(record: TaskRecord) -> list[tuple[int, str]]:
    """Return depth and name of each span."""
    return [(span.depth, span.name) for span in timeline(record)]


def test_a_failed_task_with_retries_is_told_whole() -> None:
    """Enqueue, waits, three attempts and the user's spans come in tree order."""
    assert names(samples.failed_webhook()) == [
        (0, "send call_webhook"),
        (1, "wait in queue"),
        (1, "process call_webhook"),
        (1, "delay and wait"),
        (1, "process call_webhook"),
        (1, "delay before retry"),
        (1, "wait in queue"),
        (1, "process call_webhook"),
        (2, "load order"),
        (3, "SELECT orders"),
        (2, "POST"),
    ]


def test_real_ids_are_kept_and_made_ones_marked() -> None:
    """Spans that an SDK recorded have their ids, the rest says that it is made up."""
    by_name = {span.name: span for span in timeline(samples.failed_webhook())}
    assert by_name["send call_webhook"].span_id == "00f067aa0ba902b7"
    assert by_name["process call_webhook"].span_id == "a3ce929d0e0e4736"
    assert by_name["wait in queue"].synthetic
    assert not by_name["POST"].synthetic
    assert by_name["process call_webhook"].status == "error"
    assert by_name["process call_webhook"].attributes["error.type"] == "httpx.HTTPStatusError"


def test_it_needs_no_sdk() -> None:
    """A record without any trace context has a timeline all the same."""
    spans = timeline(samples.record())
    assert [span.name for span in spans] == ["send send_email", "wait in queue", "process send_email"]
    assert all(span.synthetic for span in spans)
    assert {span.parent_id for span in spans[1:]} == {spans[0].span_id}


@pytest.mark.parametrize("status", list(TaskStatus))
def test_every_status_has_a_timeline(status: TaskStatus) -> None:
    """Each status, started or not, gives spans that end after they begin, and a chart within its frame."""
    for started in (True, False):
        facts = {} if started else {"start_time": None, "attempt": 0}
        record = samples.record(status, **facts)
        spans = timeline(record)
        assert all(span.end is None or span.end >= span.start for span in spans)
        chart = waterfall(spans)
        assert all(float(bar.left[:-1]) + float(bar.width[:-1]) <= 100.001 for bar in chart.bars)
        assert moments(record)[0].label == "Added"


def test_a_running_attempt_has_no_end() -> None:
    """While it runs, its span is open."""
    last = timeline(samples.record(TaskStatus.RUNNING))[-1]
    assert (last.name, last.end, last.status) == ("process send_email", None, "unset")


def test_a_task_that_waits_for_its_retry_shows_the_delay() -> None:
    """Until its time it is a delay, not a wait."""
    now = time.time()
    record = samples.record(
        TaskStatus.PENDING,
        attempt=1,
        created_at=now - 10,
        run_at=now + 60,
        ready_at=now + 60,
        attempts=(Attempt(1, now - 9, now - 8, "ValueError", "no"),),
    )
    assert names(record)[-1] == (1, "delay before retry")
    assert moments(record)[-1].ahead


def test_an_attempt_cut_off_is_not_called_failed() -> None:
    """After a crash the first attempt counts as interrupted."""
    now = time.time()
    record = samples.record(attempt=2, attempts=(Attempt(1, now - 9, now - 8, None, "the process stopped"),))
    attempts = [span for span in timeline(record) if span.kind == "consumer"]
    assert [span.attributes["taskflow.status"] for span in attempts] == ["interrupted", "success"]
    assert "Attempt 1 was cut off" in [moment.label for moment in moments(record)]


def test_lost_parents_and_circles_do_no_harm() -> None:
    """A span whose parent is unknown goes below the attempt it ran in; a circle of parents hangs nothing up."""
    record = samples.record()
    assert record.start_time is not None
    at = record.start_time + 0.01
    circle = (
        SpanFact("e" * 16, "f" * 16, "x", "internal", at, at),
        SpanFact("f" * 16, "e" * 16, "y", "internal", at, at),
    )
    lost = SpanFact("d" * 16, "0" * 16, "lost", "internal", at, at + 0.1)
    record = record.evolve(spans=(lost, *circle))
    found: list[TimelineSpan] = [span for span in timeline(record) if span.name == "lost"]
    assert [span.depth for span in found] == [2]


async def test_route_gives_the_spans(client: httpx.AsyncClient) -> None:
    """The API's form has ids, parents, times and durations."""
    task = (await client.get("/tasks/?func_name=call_webhook&status=failed")).json()[0]
    body = (await client.get(f"/tasks/{task['task_id']}/trace")).json()
    assert body["trace_id"] == samples.TRACE
    assert len(body["spans"]) == 11
    ids = {span["span_id"] for span in body["spans"]}
    assert all(span["parent_id"] in ids for span in body["spans"][1:])
    assert body["spans"][-1]["duration"] == pytest.approx(0.6, abs=0.001)
