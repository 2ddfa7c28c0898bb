"""What load balancers and Kubernetes probes are told."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from fastapi_taskflow.errors import StoreError
from fastapi_taskflow.web import health
from tests.unit.web.conftest import client_of, locked

if TYPE_CHECKING:
    import httpx

    from tests.unit.web import fakes


async def test_all_is_well(client: httpx.AsyncClient) -> None:
    """200, no reasons, and what this process has in hand."""
    answer = await client.get("/tasks/health")
    body = answer.json()
    assert answer.status_code == 200
    assert (body["status"], body["reasons"], body["store"], body["writes"]) == ("ok", [], "ok", "ok")
    assert (body["backlog"], body["pending"], body["running"]) == (0, 2, 2)


async def test_a_failed_write_is_a_reason(client: httpx.AsyncClient, shop: fakes.Fakes) -> None:
    """In the store's words."""
    shop.journal.failure = "the task store 'tasks.db' is not available: the disk is full"
    answer = await client.get("/tasks/health")
    assert (answer.status_code, answer.json()["writes"], answer.json()["store"]) == (503, "failing", "ok")
    assert answer.json()["reasons"] == [
        "the store does not take changes: the task store 'tasks.db' is not available: the disk is full"
    ]


async def test_a_commit_that_takes_long_is_a_reason(client: httpx.AsyncClient, shop: fakes.Fakes) -> None:
    """It has not failed yet, but requests wait for it; a short one is nothing."""
    shop.journal.writing_for = 1.9
    assert (await client.get("/tasks/health")).status_code == 200
    shop.journal.writing_for = 2.04
    answer = await client.get("/tasks/health")
    assert answer.status_code == 503
    assert answer.json()["reasons"] == ["the store does not take changes: a commit has been under way for 2.0 s"]


async def test_a_full_backlog_is_a_reason(client: httpx.AsyncClient, shop: fakes.Fakes) -> None:
    """New tasks are refused, though the store may be well again."""
    shop.journal.full, shop.journal.backlog = True, 100_000
    answer = await client.get("/tasks/health")
    assert (answer.status_code, answer.json()["writes"]) == (503, "ok")
    assert answer.json()["reasons"] == ["100000 changes wait for the store: no new task is taken in"]


@pytest.mark.parametrize(
    ("error", "said"), [(StoreError("damaged"), "damaged"), (RuntimeError("odd"), "RuntimeError('odd')")]
)
async def test_a_store_that_does_not_answer_is_a_reason_logged_once(
    client: httpx.AsyncClient, shop: fakes.Fakes, caplog: pytest.LogCaptureFixture, error: Exception, said: str
) -> None:
    """Probes come every few seconds, and the log stays readable."""
    shop.store.error = error
    for _ in range(3):
        answer = await client.get("/tasks/health")
        assert (answer.status_code, answer.json()["store"]) == (503, "failing")
        assert answer.json()["reasons"] == [f"the store does not answer: {said}"]
    shop.store.error = None
    for _ in range(2):
        assert (await client.get("/tasks/health")).status_code == 200
    told = [record.getMessage() for record in caplog.records]
    assert told == [f"the store does not answer: {said}", "the store answers again"]
    assert (caplog.records[0].exc_info is not None) is isinstance(error, RuntimeError)


async def test_a_store_that_hangs_does_not_hang_the_probe(
    client: httpx.AsyncClient, shop: fakes.Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has less than the second that Kubernetes waits, and is not asked again until it has answered."""
    assert health.ANSWER_WITHIN < 1
    monkeypatch.setattr(health, "ANSWER_WITHIN", 0.01)
    asked: list[str] = []
    gate = asyncio.Event()

    async def get_meta(_store: object, key: str) -> str | None:
        asked.append(key)
        try:
            await gate.wait()
        finally:
            await gate.wait()  # a driver that takes its time for a cancellation too
        return None

    monkeypatch.setattr(type(shop.store), "get_meta", get_meta)
    for _ in range(3):
        async with asyncio.timeout(5):
            answer = await client.get("/tasks/health")
        assert answer.status_code == 503
        assert answer.json()["reasons"] == ["the store does not answer within 0.01 s"]
    assert len(asked) == 1
    gate.set()
    monkeypatch.setattr(health, "ANSWER_WITHIN", 5.0)
    assert (await client.get("/tasks/health")).status_code == 200


async def test_a_liveness_probe_does_not_ask_the_store(client: httpx.AsyncClient, shop: fakes.Fakes) -> None:
    """A restart would not mend the store, and would end what runs."""
    shop.store.error = RuntimeError("gone")
    shop.journal.failure = "locked"
    answer = await client.get("/tasks/health?probe=live")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok", "reasons": []})
    assert (await client.get("/tasks/health?probe=ready")).status_code == 503
    assert (await client.get("/tasks/health?probe=other")).status_code == 422


async def test_head_tells_the_same_without_a_body(client: httpx.AsyncClient, shop: fakes.Fakes) -> None:
    """Some load balancers ask that way."""
    assert (await client.head("/tasks/health")).status_code == 200
    shop.journal.failure = "locked"
    answer = await client.head("/tasks/health")
    assert answer.status_code == 503
    assert (await client.head("/tasks/health?probe=live")).status_code == 200


async def test_a_probe_comes_in_with_the_metrics_token_and_no_store() -> None:
    """Behind a login it needs the token, and gets its answer when no session could be looked up."""
    shop = locked(metrics_token="t0ken")
    shop.store.error = StoreError("gone")
    async with client_of(shop) as client:
        for probe in ("ready", "live"):
            assert (await client.get(f"/tasks/health?probe={probe}")).status_code == 401
        bearer = {"Authorization": "Bearer t0ken"}
        answer = await client.get("/tasks/health", headers=bearer)
        assert (answer.status_code, answer.json()["reasons"]) == (503, ["the store does not answer: gone"])
        assert (await client.head("/tasks/health?probe=live", headers=bearer)).status_code == 200
