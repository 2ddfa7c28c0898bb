"""Tasks that are taken down: what is asserted of them, how a failed assertion reads, and how they run after all."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated
from unittest.mock import ANY

import pytest
import sqlalchemy as sa
from fastapi import Depends, FastAPI, HTTPException
from fastapi.testclient import TestClient
from sqlalchemy.orm import Session

from fastapi_taskflow import ConfigurationError, ManagedBackgroundTasks, TaskAdmin, TaskManager, get_task_context
from fastapi_taskflow.testing import FakeClock, capture_tasks

ran: list[str] = []


async def send_email(address: str, subject: str = "hello", *, copy: bool = False) -> None:
    """Send."""
    ran.append(address)


def get_nothing() -> None:
    """Give nothing."""


def send_text(number: str) -> None:
    """Send, at the second attempt."""
    context = get_task_context()
    assert context is not None
    if context.attempt == 1:
        raise ConnectionError
    ran.append(number)


@pytest.fixture(params=["memory", "sqlite"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> TaskManager:
    """A manager with each kind of store."""
    made = TaskManager(snapshot_db=tmp_path / "tasks.db" if request.param == "sqlite" else None)
    made.task(retries=1, delay=600)(send_text)
    ran.clear()
    return made


@pytest.fixture
def client(manager: TaskManager) -> Iterator[TestClient]:
    """A client of an application that sends things."""
    app = FastAPI()
    TaskAdmin(app, manager, auto_install=True)

    @app.post("/signup")
    def signup(background_tasks: ManagedBackgroundTasks, address: str, fail: str = "") -> str:
        task_id = background_tasks.add_task(send_email, address, tags=["vip", "new"], queue="email")
        background_tasks.add_task(send_text, number="555", delay=3600)
        if fail:
            raise HTTPException(400)
        return task_id

    @app.post("/follow")
    async def follow() -> None:
        async def then(nothing: Annotated[None, Depends(get_nothing)]) -> None:
            await manager.enqueue(send_email, "next")

        await manager.enqueue(then)

    with TestClient(app) as made:
        yield made


def test_what_a_request_adds_is_there_and_does_not_run(manager: TaskManager, client: TestClient) -> None:
    """By function or name, with as much of the call as is asked for; they are pending, and cancelled at the end."""
    with capture_tasks(manager) as captured:
        task_id = client.post("/signup?address=a@b.c").json()
        assert [task.func_name for task in captured.tasks] == ["send_email", "send_text"]
        found = captured.assert_enqueued(send_email, "a@b.c", tags=["vip"], queue="email")
        assert (found.task_id, found.args, found.record.tags) == (task_id, ("a@b.c",), ("vip", "new"))
        captured.assert_enqueued("send_email", address=ANY, subject="hello", copy=False, times=1)
        captured.assert_enqueued(send_text, "555", priority=0)
        assert captured.calls(send_text)[0].record.run_at is not None
        captured.assert_not_enqueued(send_email, "b@b.c")
        captured.assert_not_enqueued(print)
        assert client.get(f"/tasks/{task_id}").json()["status"] == "pending"
    assert ran == []
    ended = client.get(f"/tasks/{task_id}").json()
    assert (ended["status"], ended["error"]) == ("cancelled", "captured by a test, and not run")
    client.post("/signup?address=real")
    assert ran == ["real"]
    assert len(captured.tasks) == 2


def test_a_request_that_fails_has_added_nothing(manager: TaskManager, client: TestClient) -> None:
    """As without the test."""
    with capture_tasks(manager) as captured:
        assert client.post("/signup?address=a&fail=true").status_code == 400
        captured.assert_not_enqueued()


def test_a_failed_assertion_lists_what_there_was(manager: TaskManager, client: TestClient) -> None:
    """With arguments and options, as they are written."""
    with capture_tasks(client.app) as captured:  # type: ignore[arg-type]
        with pytest.raises(AssertionError) as failure:
            captured.assert_enqueued(send_email, "x", tags=["vip"])
        assert str(failure.value) == "send_email('x') [tags=['vip']] was not enqueued. Nothing was enqueued."
        client.post("/signup?address=a@b.c")
        for wrong in (
            lambda: captured.assert_enqueued(send_email, "x"),
            lambda: captured.assert_enqueued(send_email, tags=["old"]),
            lambda: captured.assert_enqueued(send_email, queue="other"),
            lambda: captured.assert_enqueued(send_email, priority=5),
            lambda: captured.assert_enqueued(send_email, idempotency_key="key"),
            lambda: captured.assert_enqueued(send_email, times=2),
            lambda: captured.assert_not_enqueued(send_email, "a@b.c"),
            captured.assert_not_enqueued,
        ):
            with pytest.raises(AssertionError) as failure:
                wrong()
            assert str(failure.value).splitlines()[1:] == [
                "  send_email('a@b.c') [tags=['vip', 'new'], queue='email']",
                "  send_text(number='555')",
            ]
        with pytest.raises(AssertionError, match="was enqueued 1 times, not 2"):
            captured.assert_enqueued(send_email, times=2)
        with pytest.raises(AssertionError, match=r"send_email cannot be called so: .*colour"):
            captured.assert_enqueued(send_email, colour="red")
        with pytest.raises(ConfigurationError, match="times must be 1 or more"):
            captured.assert_enqueued(send_email, times=0)


def test_what_was_captured_can_be_run(manager: TaskManager, client: TestClient) -> None:
    """In order, with delays and retries but without waiting, and with what these tasks add."""
    assert client.portal is not None
    with capture_tasks(manager) as captured:
        client.post("/signup?address=a@b.c")
        client.post("/follow")
        assert ran == []
        records = client.portal.call(captured.run_all)
        assert [(record.func_name, record.status.value, record.attempt) for record in records] == [
            ("send_email", "success", 1),
            ("send_text", "success", 2),
            ("then", "success", 1),
            ("send_email", "success", 1),
        ]
        assert ran == ["a@b.c", "555", "next"]
        assert client.portal.call(captured.run_all) == ()
        assert client.get(f"/tasks/{records[1].task_id}").json()["status"] == "success"


def test_with_a_clock_of_the_tests_that_one_goes_on(manager: TaskManager) -> None:
    """Its time is where the last task ended."""
    app = FastAPI()
    manager.init_app(app)
    with FakeClock() as clock, TestClient(app) as client, capture_tasks(app) as captured:
        began = clock.time
        assert client.portal is not None
        client.portal.call(lambda: manager.enqueue(send_text, "1", delay=100))
        client.portal.call(captured.run_all)
        assert (clock.time - began).total_seconds() == pytest.approx(700)


def test_an_application_has_one_manager() -> None:
    """Otherwise it cannot be told which one is meant."""
    app = FastAPI()
    with pytest.raises(ConfigurationError, match="has 0 TaskManagers"), capture_tasks(app):
        pass
    TaskManager().init_app(app)
    TaskManager().init_app(app)
    with pytest.raises(ConfigurationError, match="has 2 TaskManagers"), capture_tasks(app):
        pass


async def test_it_works_without_an_application(manager: TaskManager) -> None:
    """With tasks of code that enqueues, also where the manager stops meanwhile."""
    await manager.startup()
    with capture_tasks(manager) as captured:
        first = await manager.enqueue(send_email, "a", idempotency_key="once")
        assert await manager.enqueue(send_email, "a", idempotency_key="once") == first
        captured.assert_enqueued(send_email, times=1, idempotency_key="once")
        await manager.shutdown()
    assert ran == []


async def test_a_task_of_the_users_transaction_is_captured_at_its_commit(tmp_path: Path) -> None:
    """It comes to the engine by another way; a rollback leaves nothing to capture."""
    ran.clear()
    manager = TaskManager(snapshot_db=tmp_path / "tasks.db")
    await manager.startup()
    database = sa.create_engine(f"sqlite:///{tmp_path / 'tasks.db'}")
    with capture_tasks(manager) as captured:
        for commit in (True, False):
            with Session(database) as session:
                await manager.enqueue(send_email, "committed" if commit else "undone", session=session)
                if commit:
                    session.commit()
        async with asyncio.timeout(10):
            while not captured.tasks:  # noqa: ASYNC110 - it is claimed some time after the commit
                await asyncio.sleep(0.001)
        captured.assert_enqueued(send_email, "committed", times=1)
        assert (await captured.run_all())[0].status == "success"
    await manager.shutdown()
    database.dispose()
    assert ran == ["committed"]
