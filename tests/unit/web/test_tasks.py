from __future__ import annotations

import time
from datetime import datetime
from typing import TYPE_CHECKING

import pytest

from fastapi_taskflow.task.record import TaskStatus
from tests.unit.web import fakes, samples
from tests.unit.web.conftest import client_of

if TYPE_CHECKING:
    import httpx

CONTRACT = {
    "task_id", "func_name", "status", "created_at", "start_time", "end_time", "duration", "retries_used", "attempt",
    "max_attempts", "error", "error_type", "stacktrace", "logs", "tags", "source", "priority", "executor", "queue",
    "progress", "result", "trace_id", "instance_id",
}  # fmt: skip


async def test_list_is_an_array_of_whole_records(client: httpx.AsyncClient) -> None:
    """The list has every field of the contract, newest first, with aware UTC times."""
    answer = await client.get("/tasks/")
    records = answer.json()
    assert answer.status_code == 200
    assert len(records) == 50
    assert set(records[0]) >= CONTRACT
    created = [datetime.fromisoformat(record["created_at"]) for record in records]
    assert created == sorted(created, reverse=True)
    assert created[0].utcoffset() is not None


async def test_pages_follow_the_link_to_the_end(client: httpx.AsyncClient, shop: fakes.Fakes) -> None:
    """Following rel=next gives each task once, and keeps the other parameters."""
    seen: list[str] = []
    url = "/tasks/?limit=40&order=asc"
    while url:
        answer = await client.get(url)
        assert answer.headers["x-total-count"] == str(len(shop.journal.records))
        seen += [record["task_id"] for record in answer.json()]
        url = str(answer.links["next"]["url"]) if "next" in answer.links else ""
        assert not url or "order=asc" in url
    assert sorted(seen) == sorted(shop.journal.records)


@pytest.mark.parametrize("query", ["status=failed&status=running", "status=failed,running", "status=Failed, running"])
async def test_status_may_be_given_several_times(client: httpx.AsyncClient, query: str) -> None:
    """Both ways of giving several statuses mean the same."""
    records = (await client.get(f"/tasks/?{query}")).json()
    assert {record["status"] for record in records} == {"failed", "running"}


async def test_filters_reach_the_store(client: httpx.AsyncClient, shop: fakes.Fakes) -> None:
    """Every filter becomes its field of the query."""
    now = time.time()
    await client.get(
        "/tasks/?func_name=a*&queue=mail&tag=t:1&q= x%00y &trace_id=ABC&since=2h&order=asc"
        "&until=2030-01-01T00:00:00%2B02:00"
    )
    query = shop.journal.queries[-1]
    assert (query.func_name, query.queue, query.tag, query.text, query.trace_id) == ("a*", "mail", "t:1", "xy", "abc")
    assert query.since == pytest.approx(now - 7200, abs=5)
    assert query.until == datetime.fromisoformat("2030-01-01T00:00:00+02:00").timestamp()
    assert query.oldest_first


@pytest.mark.parametrize(
    "query",
    [
        "status=done", "limit=0", "limit=501", "limit=x", "since=yesterday", "since=99999999999d5", "until=9",
        "order=up", "cursor=forged", "until=2026-13-01", "q=" + "x" * 600,
    ],
)  # fmt: skip
async def test_wrong_parameters_are_4xx_with_a_reason(client: httpx.AsyncClient, query: str) -> None:
    """No wrong parameter is a 500, and the answer says what is wrong."""
    answer = await client.get(f"/tasks/?{query}")
    assert answer.status_code == 422
    assert answer.json()["detail"]


@pytest.mark.parametrize("value", ["15m", "1.5h", "7d", "30s", "2w", "2026-11-24", "2026-11-24T10:00:00 01:00"])
async def test_spans_and_dates_are_understood(client: httpx.AsyncClient, value: str) -> None:
    """Spans before now and ISO dates work, an unescaped plus included."""
    assert (await client.get(f"/tasks/?since={value}")).status_code == 200


async def test_detail_shows_arguments_only_when_allowed() -> None:
    """Arguments are in the record with display_func_args, and nowhere without."""
    task = samples.failed_webhook()
    for allowed in (True, False):
        async with client_of(fakes.build([task], display_func_args=allowed)) as client:
            one = (await client.get(f"/tasks/{task.task_id}")).json()
            many = (await client.get("/tasks/")).json()[0]
            page = (await client.get(f"/tasks/dashboard/{task.task_id}")).text
        assert ("args" in one) is allowed
        assert ("args" in many) is allowed
        assert ("Arguments" in page) is allowed
    assert one["attempts"][1]["error_type"] == "httpx.ReadTimeout"
    assert one["retries_used"] == 2


async def test_broken_arguments_break_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A payload that cannot be read, whatever happens, leaves the rest of the list as it is."""

    def fails(text: str) -> dict[str, object]:
        raise RecursionError(text)

    monkeypatch.setattr("fastapi_taskflow.task.payload.display", fails)
    tasks = [samples.record(payload="{not json"), samples.record(payload=None)]
    async with client_of(fakes.build(tasks, display_func_args=True)) as client:
        answer = await client.get("/tasks/")
    assert answer.status_code == 200
    assert ["args" in task for task in answer.json()] == [False, False]


@pytest.mark.parametrize("task_id", ["nope", "x" * 300, "a%00b", "%ED%A0%80", "..%2f..", "é"])
@pytest.mark.parametrize(("method", "below"), [("GET", ""), ("GET", "/trace"), ("POST", "/cancel"), ("POST", "/retry")])
async def test_unknown_ids_are_404(client: httpx.AsyncClient, task_id: str, method: str, below: str) -> None:
    """Whatever is not a task's id is 404 with a reason, on each route."""
    answer = await client.request(method, f"/tasks/{task_id}{below}")
    assert answer.status_code == 404
    assert answer.json()["detail"]


async def test_cancel_and_retry(client: httpx.AsyncClient, shop: fakes.Fakes) -> None:
    """A pending task is cancelled, then retried as a new one; what is not allowed is 409."""
    pending = next(task for task in shop.journal.records.values() if task.status is TaskStatus.PENDING)
    cancelled = await client.post(f"/tasks/{pending.task_id}/cancel")
    assert cancelled.json()["task"]["status"] == "cancelled"
    again = await client.post(f"/tasks/{pending.task_id}/cancel")
    assert again.status_code == 409
    assert "cancelled" in again.json()["detail"]
    retried = (await client.post(f"/tasks/{pending.task_id}/retry")).json()
    assert retried["task_id"] != pending.task_id
    assert retried["task"]["retry_of"] == pending.task_id
    assert (await client.post(f"/tasks/{retried['task_id']}/retry")).status_code == 409


async def test_bulk_retry_tells_what_was_skipped_and_why(client: httpx.AsyncClient, shop: fakes.Fakes) -> None:
    """Retryable tasks run again once each, the others are counted and named."""
    failed = [task.task_id for task in shop.journal.records.values() if task.status is TaskStatus.FAILED][:2]
    body = {"task_ids": [*failed, failed[0], "nope"]}
    answer = (await client.post("/tasks/bulk-retry", json=body)).json()
    assert (answer["dispatched"], answer["skipped"]) == (2, 1)
    assert [result["original_task_id"] for result in answer["results"]] == failed
    assert "nope" in answer["reasons"][0]["reason"]


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"task_ids": 1}', b'{"task_ids": [NaN]}', b'{"task_ids": ["\\ud800"]}', b"\xff"]
)
async def test_wrong_bodies_are_4xx(client: httpx.AsyncClient, body: bytes) -> None:
    """No body of a bulk retry is a 500."""
    answer = await client.post("/tasks/bulk-retry", content=body, headers={"content-type": "application/json"})
    assert answer.status_code in (200, 400, 422)
    assert answer.status_code != 200 or answer.json()["dispatched"] == 0


async def test_retry_failed_takes_only_what_matches(client: httpx.AsyncClient, shop: fakes.Fakes) -> None:
    """Only failed tasks of that function and time run again."""
    answer = (await client.post("/tasks/retry-failed?func_name=call_webhook&since=1h")).json()
    assert answer["dispatched"] == 1
    assert answer["more"] is False
    assert (await client.post("/tasks/retry-failed?since=soon")).status_code == 422
    retried = [task for task in shop.journal.records.values() if task.retry_of]
    assert [task.func_name for task in retried] == ["call_webhook"]
