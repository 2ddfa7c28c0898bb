from __future__ import annotations

from fastapi_taskflow.errors import StoreUnavailableError
from fastapi_taskflow.store import Instance
from tests.unit.web import fakes
from tests.unit.web.conftest import client_of, locked


async def test_each_instance_is_shown_and_which_one_answers() -> None:
    """Oldest first; times are ISO 8601, the age is seconds and never below zero."""
    parts = fakes.build([])
    parts.store.rows = [
        Instance("other", "here", 12, 0, 1_700_000_060.0, 1_700_000_100.0, 3.45678),
        Instance("me", "here", 11, 0, 1_700_000_000.0, 1_700_000_104.5, -0.5),
    ]
    async with client_of(parts) as client:
        answer = await client.get("/tasks/instances")
    assert answer.status_code == 200
    assert answer.json() == [
        {
            "instance_id": "me", "host": "here", "pid": 11, "started_at": "2023-11-14T22:13:20.000000Z",
            "heartbeat_at": "2023-11-14T22:15:04.500000Z", "age": 0.0, "me": True,
        },
        {
            "instance_id": "other", "host": "here", "pid": 12, "started_at": "2023-11-14T22:14:20.000000Z",
            "heartbeat_at": "2023-11-14T22:15:00.000000Z", "age": 3.457, "me": False,
        },
    ]  # fmt: skip


async def test_they_are_behind_the_login() -> None:
    """Names of hosts are nobody else's business."""
    async with client_of(locked(metrics_token="scraper")) as client:
        assert (await client.get("/tasks/instances")).status_code == 401
        bearer = {"Authorization": "Bearer scraper"}
        assert (await client.get("/tasks/instances", headers=bearer)).status_code == 401


async def test_a_store_that_is_away_is_no_server_error() -> None:
    """It is a 503, as everywhere."""
    parts = fakes.build([])
    parts.store.error = StoreUnavailableError("away")
    async with client_of(parts) as client:
        assert (await client.get("/tasks/instances")).status_code == 503
