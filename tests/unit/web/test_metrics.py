from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fastapi_taskflow.store import DURATION_BOUNDS, FunctionStats
from fastapi_taskflow.task.record import TaskStatus
from fastapi_taskflow.web.metrics import metrics_json, quantile
from tests.unit.web import fakes
from tests.unit.web.conftest import client_of

if TYPE_CHECKING:
    import httpx

PROMETHEUS_2 = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


async def test_nothing_finished_has_no_rate() -> None:
    """Without finished tasks the rate and the durations are null, not 0."""
    async with client_of(fakes.build([])) as client:
        body = (await client.get("/tasks/metrics")).json()
    assert body["total"] == 0
    assert body["success_rate"] is None
    assert body["avg_duration_seconds"] is None
    assert body["p99_duration_seconds"] is None
    assert body["functions"] == {}


async def test_json_sums_up_per_function_and_in_all(client: httpx.AsyncClient, shop: fakes.Fakes) -> None:
    """Counts per status add up, for all and for each function."""
    body = (await client.get("/tasks/metrics")).json()
    assert body["total"] == len(shop.journal.records) == sum(body[status] for status in TaskStatus)
    assert body["total"] == sum(part["total"] for part in body["functions"].values())
    assert 0 < body["success_rate"] < 1
    assert body["p50_duration_seconds"] <= body["p95_duration_seconds"] <= body["p99_duration_seconds"]


@pytest.mark.parametrize(
    ("accept", "query", "kind"),
    [
        ("*/*", "", "application/json"),
        (BROWSER, "", "application/json"),
        ("application/json", "", "application/json"),
        (PROMETHEUS_2, "", "text/plain"),
        ("text/plain", "", "text/plain"),
        ("application/json", "?format=prometheus", "text/plain"),
        ("*/*", "?format=openmetrics", "text/plain"),
        (PROMETHEUS_2, "?format=json", "application/json"),
    ],
)
async def test_form_follows_accept_unless_asked_outright(
    client: httpx.AsyncClient, accept: str, query: str, kind: str
) -> None:
    """People and programs get JSON, scrapers their text; caches are told that it depends."""
    answer = await client.get(f"/tasks/metrics{query}", headers={"accept": accept})
    assert answer.headers["content-type"].startswith(kind)
    assert "Accept" in answer.headers["vary"]


async def test_unknown_format_is_422(client: httpx.AsyncClient) -> None:
    """A format that does not exist is refused."""
    assert (await client.get("/tasks/metrics?format=xml")).status_code == 422


def test_quantile_is_linear_within_its_bucket() -> None:
    """Half of what lies in one bucket is its middle; beyond the last bound it is that bound."""
    buckets = [0] * (len(DURATION_BOUNDS) + 1)
    buckets[9] = 10
    assert quantile(buckets, 0.5) == pytest.approx((DURATION_BOUNDS[8] + DURATION_BOUNDS[9]) / 2)
    assert quantile([0] * len(DURATION_BOUNDS) + [3], 0.5) == DURATION_BOUNDS[-1]
    assert quantile([0] * 20, 0.5) is None


def test_average_weighs_by_count() -> None:
    """The average over functions is that of all tasks."""
    stats = {
        "a": FunctionStats({TaskStatus.SUCCESS: 3}, 3, 3.0),
        "b": FunctionStats({TaskStatus.FAILED: 1}, 1, 5.0),
    }
    body = metrics_json(stats)
    assert body["avg_duration_seconds"] == 2.0
    assert body["success_rate"] == 0.75


async def test_functions_have_options_and_counts(client: httpx.AsyncClient) -> None:
    """Registered functions and stored ones are both listed."""
    rows = {row["name"]: row for row in (await client.get("/tasks/functions")).json()}
    assert rows["send_email"]["retries"] == 3
    assert rows["send_email"]["metrics"]["total"] == 0
    assert rows["call_webhook"]["registered"] is False
    assert rows["call_webhook"]["metrics"]["failed"] == 1
