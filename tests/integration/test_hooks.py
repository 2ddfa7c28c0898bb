"""Middleware and dependencies of an application, over HTTP, on a store in memory and in a file."""

from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import httpx
import pytest
import sqlalchemy as sa
from fastapi import Depends, FastAPI
from sqlalchemy.orm import Session

from fastapi_taskflow import ManagedBackgroundTasks, TaskAdmin, TaskContext, TaskManager, task_log
from tests.integration.conftest import Server, eventually, serving, wait_for

CallNext = Callable[[], Awaitable[Any]]


@pytest.fixture(params=["memory", "sqlite"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> TaskManager:
    """A manager with each kind of store."""
    return TaskManager(snapshot_db=tmp_path / "tasks.db" if request.param == "sqlite" else None)


async def test_a_request_its_task_and_a_database_session(manager: TaskManager, tmp_path: Path) -> None:
    """The same dependency serves the route and the task; each attempt commits or rolls back on its own."""
    database = sa.create_engine(f"sqlite:///{tmp_path / 'app.db'}")
    with database.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE sent (address TEXT, attempt INTEGER)")

    def get_session() -> Iterator[Session]:
        with Session(database) as session, session.begin():
            yield session

    session_dependency = Annotated[Session, Depends(get_session)]
    app = FastAPI()
    TaskAdmin(app, manager, display_func_args=True)

    @manager.middleware
    async def say(context: TaskContext, call_next: CallNext) -> Any:
        task_log(f"attempt {context.attempt} of {context.func_name}")
        return await call_next()

    @manager.task(retries=1)
    def send(address: str, session: session_dependency) -> None:
        attempt = session.scalar(sa.text("SELECT COUNT(*) FROM sent"))
        session.execute(sa.text("INSERT INTO sent VALUES (:a, 1)"), {"a": address})
        tries.append(attempt)
        if len(tries) == 1:
            raise ConnectionError("the mail server is busy")

    tries: list[int] = []

    @app.post("/signup")
    async def signup(tasks: Annotated[ManagedBackgroundTasks, Depends(manager.get_tasks)]) -> str:
        return tasks.add_task(send, "a@b.c")

    async with serving(app) as client:
        task_id = (await client.post("/signup")).json()

        async def record() -> Any:
            return (await client.get(f"/tasks/{task_id}")).json()

        ended = await eventually(record, lambda each: each["status"] in ("success", "failed"))
    assert ended["status"] == "success", ended["stacktrace"]
    assert [line["message"] for line in ended["logs"]] == ["attempt 1 of send", "attempt 2 of send"]
    assert tries == [0, 0]
    with database.connect() as connection:
        assert connection.exec_driver_sql("SELECT address FROM sent").scalars().all() == ["a@b.c"]
    if manager.store.persistent:
        assert (ended["args"], ended["kwargs"]) == (["a@b.c"], {})
    database.dispose()


SERVICE = """
import asyncio
from typing import Annotated
from fastapi import Depends, FastAPI
from fastapi_taskflow import ManagedBackgroundTasks, TaskAdmin, TaskManager

manager = TaskManager(snapshot_db="tasks.db", requeue_pending=True)
app = FastAPI()
TaskAdmin(app, manager)

async def get_session():
    yield "a session of this process"

SessionDep = Annotated[str, Depends(get_session)]

@manager.middleware
async def tag(context, call_next):
    return f"tagged {await call_next()}"

@manager.task(requeue_on_interrupt=True)
async def work(name: str, session: SessionDep):
    with open("ran.txt", "a") as file:
        file.write(f"{name}: {session}\\n")
    await asyncio.sleep(60 if name == "slow" and len(open("ran.txt").readlines()) == 1 else 0)

@app.post("/work/{name}")
async def add(name: str, tasks: Annotated[ManagedBackgroundTasks, Depends(manager.get_tasks)]):
    return tasks.add_task(work, name)

@app.get("/ready")
async def ready():
    return "ok"
"""


def test_a_task_that_is_taken_over_gets_new_dependencies(start_server: Callable[..., Server], tmp_path: Path) -> None:
    """They are not stored with the arguments: after a kill the next process makes its own."""
    first = start_server(SERVICE)
    ran = tmp_path / "ran.txt"
    task_id = httpx.post(f"{first.url}/work/slow").json()
    wait_for(ran.exists, bool)
    first.kill()
    second = start_server(SERVICE)
    lines = wait_for(lambda: ran.read_text().splitlines(), lambda each: len(each) == 2)
    assert lines == ["slow: a session of this process"] * 2
    record = wait_for(lambda: httpx.get(f"{second.url}/tasks/{task_id}").json(), lambda each: each["end_time"])
    assert record["status"] == "success"
