"""The API of the manual, on both stores, as users write it."""

import asyncio
import contextlib
import functools
import threading
from collections.abc import AsyncIterator, Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated, Any

import httpx
import pytest
from fastapi import BackgroundTasks, Depends, FastAPI, HTTPException
from fastapi.responses import JSONResponse, StreamingResponse
from fastapi.testclient import TestClient
from starlette.background import BackgroundTask
from starlette.middleware.base import BaseHTTPMiddleware

from fastapi_taskflow import (
    ConfigurationError,
    LifecycleConflictError,
    ManagedBackgroundTasks,
    NotStartedError,
    TaskAdmin,
    TaskArgumentError,
    TaskManager,
    get_task_context,
    task_log,
)
from tests.integration.conftest import eventually, serving


@pytest.fixture(params=["memory", "sqlite"])
def make_manager(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., TaskManager]:
    """Return a maker of managers on each kind of store."""

    def make(**options: Any) -> TaskManager:
        if request.param == "sqlite":
            options.setdefault("snapshot_db", tmp_path / "tasks.db")
        return TaskManager(**options)

    return make


async def detail(client: httpx.AsyncClient, task_id: str) -> dict[str, Any]:
    """Return the task's record over HTTP."""
    answer = await client.get(f"/tasks/{task_id}")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def ended(client: httpx.AsyncClient, task_id: str) -> dict[str, Any]:
    """Return the task's record once it has ended."""
    found: dict[str, Any] = await eventually(
        lambda: detail(client, task_id), lambda r: r["status"] not in ("pending", "running")
    )
    return found


async def test_add_task_runs_after_the_response_and_is_seen(make_manager: Callable[..., TaskManager]) -> None:
    """The whole job on one page: id, record, list, metrics."""
    manager = make_manager()
    app = FastAPI()
    ran: list[str] = []

    @manager.task()
    async def send_email(address: str) -> None:
        task_log(f"sending to {address}", provider="smtp")
        ran.append(address)

    @app.post("/signup")
    async def signup(background_tasks: BackgroundTasks) -> dict[str, Any]:
        assert isinstance(background_tasks, ManagedBackgroundTasks)
        return {"task_id": background_tasks.add_task(send_email, "a@example.org", tags=["user:1"])}

    TaskAdmin(app, manager, auto_install=True)
    async with serving(app) as client:
        task_id = (await client.post("/signup")).json()["task_id"]
        assert ran == ["a@example.org"]
        record = await detail(client, task_id)
        assert (record["status"], record["func_name"], record["tags"]) == ("success", "send_email", ["user:1"])
        assert record["logs"][0]["message"] == "sending to a@example.org"
        assert record["logs"][0]["extra"] == {"provider": "smtp"}
        assert [each["task_id"] for each in (await client.get("/tasks")).json()] == [task_id]
        metrics = (await client.get("/tasks/metrics")).json()
        assert (metrics["total"], metrics["success"], metrics["success_rate"]) == (1, 1, 1.0)
        text = (await client.get("/tasks/metrics?format=prometheus")).text
        assert 'taskflow_tasks_finished_total{queue="default",status="success",task="send_email"} 1.0' in text


@pytest.mark.parametrize("mount_first", [True, False])
async def test_every_way_to_get_the_tasks(make_manager: Callable[..., TaskManager], *, mount_first: bool) -> None:
    """Annotation, plain class and dependency; nested dependencies share one instance; a custom path."""
    manager = make_manager()
    app = FastAPI()
    if mount_first:
        TaskAdmin(app, manager, path="/admin/tasks", auto_install=True)
    seen: list[int] = []

    def note(number: int) -> None:
        seen.append(number)

    async def nested(tasks: Annotated[ManagedBackgroundTasks, Depends(manager.get_tasks)]) -> ManagedBackgroundTasks:
        tasks.add_task(note, 1)
        return tasks

    @app.post("/all")
    async def every(
        first: Annotated[ManagedBackgroundTasks, Depends(nested)],
        second: Annotated[ManagedBackgroundTasks, Depends(manager.get_tasks)],
        third: ManagedBackgroundTasks,
    ) -> dict[str, Any]:
        assert first is second is third
        return {"ids": [second.add_task(note, 2), third.add_task(note, 3)]}

    @app.post("/sync")
    def sync(background_tasks: BackgroundTasks) -> str:
        return background_tasks.add_task(note, 4)  # type: ignore[func-returns-value, return-value]

    if not mount_first:
        TaskAdmin(app, manager, path="/admin/tasks", auto_install=True)
    async with serving(app) as client:
        assert len((await client.post("/all")).json()["ids"]) == 2
        assert len((await client.post("/sync")).json()) == 36
        assert seen == [1, 2, 3, 4]
        assert len((await client.get("/admin/tasks")).json()) == 4
        assert (await client.get("/tasks")).status_code == 404


async def test_without_auto_install_only_who_asks_gets_managed_tasks(make_manager: Callable[..., TaskManager]) -> None:
    """A plain parameter stays FastAPI's; the annotation and the dependency work."""
    manager = make_manager()
    app = FastAPI()
    TaskAdmin(app, manager)
    seen: list[str] = []

    def note(what: str) -> None:
        seen.append(what)

    @app.post("/plain")
    async def plain(background_tasks: BackgroundTasks) -> bool:
        background_tasks.add_task(note, "plain")
        return isinstance(background_tasks, ManagedBackgroundTasks)

    @app.post("/annotated")
    async def annotated(background_tasks: ManagedBackgroundTasks) -> str:
        return background_tasks.add_task(note, "annotated")

    @app.post("/depends")
    async def depends(
        plain: BackgroundTasks, tasks: Annotated[ManagedBackgroundTasks, Depends(manager.get_tasks)]
    ) -> str:
        plain.add_task(note, "before")
        return tasks.add_task(note, "depends")

    async with serving(app) as client:
        assert (await client.post("/plain")).json() is False
        for path in ("/annotated", "/depends"):
            assert (await detail(client, (await client.post(path)).json()))["status"] == "success"
        assert sorted(seen) == ["annotated", "before", "depends", "plain"]
        assert len((await client.get("/tasks")).json()) == 2


async def test_two_apps_with_two_managers_stay_apart() -> None:
    """An app without a manager, mounted or not, has FastAPI's own class."""
    apps: list[FastAPI] = []
    kinds: list[type] = []

    async def nothing() -> None:
        """Do nothing."""

    for _ in range(3):
        app = FastAPI()

        @app.post("/go")
        async def go(background_tasks: BackgroundTasks) -> None:
            kinds.append(type(background_tasks))
            background_tasks.add_task(nothing)

        apps.append(app)
    TaskAdmin(apps[0], TaskManager(), auto_install=True)
    TaskAdmin(apps[1], TaskManager(), auto_install=True)
    apps[0].mount("/sub", apps[2])
    async with serving(apps[0]) as one, serving(apps[1]) as two, serving(apps[2]) as bare:
        await one.post("/go")
        await two.post("/go")
        await two.post("/go")
        await bare.post("/go")
        await one.post("/sub/go")
        assert len((await one.get("/tasks")).json()) == 1
        assert len((await two.get("/tasks")).json()) == 2
    assert kinds == [ManagedBackgroundTasks] * 3 + [BackgroundTasks] * 2


async def test_other_middleware_lifespan_and_root_path(make_manager: Callable[..., TaskManager]) -> None:
    """BaseHTTPMiddleware inside and outside, a lifespan that enqueues, a proxy's prefix."""
    manager = make_manager()
    seen: list[str] = []

    async def note(what: str) -> None:
        seen.append(what)

    async def lifespan(_app: FastAPI) -> AsyncIterator[dict[str, str]]:
        seen.append("up " + await manager.enqueue(note, "from startup"))
        yield {"state": "kept"}
        seen.append("down")

    class Header(BaseHTTPMiddleware):
        async def dispatch(self, request: Any, call_next: Any) -> Any:
            answer = await call_next(request)
            answer.headers["x-seen"] = request.state.state
            return answer

    app = FastAPI(lifespan=contextlib.asynccontextmanager(lifespan))
    app.add_middleware(Header)
    TaskAdmin(app, manager, auto_install=True)
    app.add_middleware(Header)

    @app.post("/go")
    async def go(background_tasks: BackgroundTasks) -> str:
        return background_tasks.add_task(note, "from a request")  # type: ignore[func-returns-value, return-value]

    with TestClient(app, root_path="/proxy") as client:
        answer = client.post("/go")
        assert answer.headers["x-seen"] == "kept"
        record = client.get(f"/tasks/{answer.json()}").json()
        assert record["status"] == "success"
        assert client.get("/tasks").status_code == 200
        assert client.get("/tasks/").status_code == 200
    assert {"from startup", "from a request", "down"} <= set(seen)


def test_a_client_without_lifespan_works_and_tells(caplog: pytest.LogCaptureFixture) -> None:
    """``TestClient(app)`` without ``with`` is what many test suites have."""
    app = FastAPI()
    seen: list[int] = []
    TaskAdmin(app, TaskManager(), auto_install=True)

    @app.post("/go")
    async def go(background_tasks: BackgroundTasks) -> str:
        return background_tasks.add_task(seen.append, 1)  # type: ignore[func-returns-value, return-value]

    client = TestClient(app)
    task_id = client.post("/go").json()
    assert seen == [1]
    assert client.get(f"/tasks/{task_id}").json()["status"] == "success"
    assert "lifespan did not run" in caplog.text


async def test_retries_with_backoff_keep_each_attempt(make_manager: Callable[..., TaskManager]) -> None:
    """A failed attempt waits as pending; the task is one record with its tries."""
    manager = make_manager()
    app = FastAPI()
    TaskAdmin(app, manager, auto_install=True)
    calls: list[int] = []

    @manager.task(retries=3, delay=0.01, backoff=2.0)
    async def flaky() -> None:
        context = get_task_context()
        assert context is not None
        calls.append(context.attempt)
        if len(calls) < 3:
            msg = f"try {len(calls)}"
            raise ConnectionError(msg)

    @manager.task(retries=1, name="hopeless one")
    def hopeless() -> None:
        msg = "never\0\ud800"
        raise ValueError(msg)

    @app.post("/go")
    async def go(background_tasks: ManagedBackgroundTasks) -> list[str]:
        return [background_tasks.add_task(flaky), background_tasks.add_task(hopeless)]

    async with serving(app) as client:
        first, second = (await client.post("/go")).json()
        record = await ended(client, first)
        assert (record["status"], record["retries_used"], record["error"]) == ("success", 2, None)
        assert calls == [1, 2, 3]
        record = await ended(client, second)
        assert (record["status"], record["func_name"], record["attempt"]) == ("failed", "hopeless one", 2)
        assert (record["error_type"], record["error"]) == ("ValueError", "never\\x00\\ud800")
        frames = [line for line in record["stacktrace"].splitlines() if line.startswith("  File")]
        assert [frame.rpartition(" ")[2] for frame in frames] == ["hopeless"]
        again = await client.post(f"/tasks/{second}/retry")
        assert again.status_code in (200, 201, 202), again.text


async def test_functions_of_every_kind(make_manager: Callable[..., TaskManager]) -> None:
    """Methods, partials, callables, closures; the context is carried into threads; one failure stops nothing."""
    manager = make_manager()
    app = FastAPI()
    TaskAdmin(app, manager, auto_install=True)
    user: ContextVar[str] = ContextVar("user", default="nobody")
    seen: list[tuple[str, str, bool]] = []
    main = threading.get_ident()

    class Mailer:
        def send(self, what: str) -> None:
            seen.append((what, user.get(), threading.get_ident() == main))

        async def asend(self, what: str) -> None:
            self.send(what)

        def __call__(self, what: str) -> None:
            self.send(what)

    mailer = Mailer()

    def broken() -> None:
        raise SystemExit(3)

    @app.post("/go")
    async def go(background_tasks: ManagedBackgroundTasks) -> None:
        user.set("alice")
        background_tasks.add_task(mailer.send, "method")
        background_tasks.add_task(broken)
        background_tasks.add_task(mailer.asend, what="async method")
        background_tasks.add_task(functools.partial(mailer.send, "partial"))
        background_tasks.add_task(mailer, "callable")
        background_tasks.add_task(lambda: mailer.asend("lambda"))

    async with serving(app) as client:
        assert (await client.post("/go")).status_code == 200
        assert seen == [
            ("method", "alice", False),
            ("async method", "alice", True),
            ("partial", "alice", False),
            ("callable", "alice", False),
            ("lambda", "alice", True),
        ]
        records = (await client.get("/tasks?order=asc")).json()
        assert [each["status"] for each in records] == ["success", "failed", "success", "success", "success", "success"]
        assert records[1]["error_type"] == "SystemExit"


async def test_one_key_runs_once_for_twenty_requests(make_manager: Callable[..., TaskManager]) -> None:
    """All get the same id, also long after the task has ended; another function is another task."""
    manager = make_manager()
    app = FastAPI()
    TaskAdmin(app, manager, auto_install=True)
    runs: list[str] = []

    async def charge(order: str) -> None:
        await asyncio.sleep(0)
        runs.append(order)

    async def ship(order: str) -> None:
        runs.append("ship " + order)

    @app.post("/pay/{order}")
    async def pay(order: str, background_tasks: ManagedBackgroundTasks) -> str:
        return background_tasks.add_task(charge, order, idempotency_key=order)

    @app.post("/ship/{order}")
    async def ship_it(order: str, background_tasks: ManagedBackgroundTasks) -> str:
        return background_tasks.add_task(ship, order, idempotency_key=order)

    @app.post("/twice")
    async def twice(background_tasks: ManagedBackgroundTasks) -> list[str]:
        return [background_tasks.add_task(charge, "twice", idempotency_key="twice") for _ in range(2)]

    async with serving(app) as client:
        answers = await asyncio.gather(*(client.post("/pay/7") for _ in range(20)))
        assert {answer.status_code for answer in answers} == {200}
        assert len({answer.json() for answer in answers}) == 1
        await client.get("/tasks")
        assert (await client.post("/pay/7")).json() == answers[0].json()
        assert runs == ["7"]
        await client.post("/ship/7")
        assert runs == ["7", "ship 7"]
        assert len((await client.get("/tasks")).json()) == 2
        first, second = (await client.post("/twice")).json()
        assert first == second
        assert runs == ["7", "ship 7", "twice"]


async def test_cancel_means_it(make_manager: Callable[..., TaskManager]) -> None:
    """A pending task never starts, an async one is cancelled, a sync one is asked and told honestly."""
    manager = make_manager()
    app = FastAPI()
    TaskAdmin(app, manager, auto_install=True)
    started, release, looked = asyncio.Event(), threading.Event(), threading.Event()
    ran: list[str] = []

    async def forever() -> None:
        started.set()
        await asyncio.Event().wait()

    async def after() -> None:
        ran.append("after")

    def listens() -> None:
        context = get_task_context()
        assert context is not None
        looked.set()
        while not context.cancelled:
            release.wait(0.005)

    def deaf() -> None:
        looked.set()
        release.wait(10)

    async with serving(app) as client:
        tasks = [await manager.enqueue(forever)]
        await started.wait()
        answer = await client.post(f"/tasks/{tasks[0]}/cancel")
        assert answer.status_code == 200, answer.text
        assert (await detail(client, tasks[0]))["status"] == "cancelled"

        listening = await manager.enqueue(listens)
        await asyncio.to_thread(looked.wait, 10)
        await client.post(f"/tasks/{listening}/cancel")
        record = await ended(client, listening)
        assert (record["status"], record["error"]) == ("cancelled", "cancelled while it ran")

        looked.clear()
        not_listening = await manager.enqueue(deaf)
        await asyncio.to_thread(looked.wait, 10)
        answer = await client.post(f"/tasks/{not_listening}/cancel")
        assert (await detail(client, not_listening))["status"] == "running"
        release.set()
        record = await ended(client, not_listening)
        assert record["status"] == "success"
        assert "ran to its end" in record["logs"][-1]["message"]
        assert (await client.post(f"/tasks/{not_listening}/cancel")).status_code == 409
        assert (await client.post("/tasks/none/cancel")).status_code == 404


async def test_a_cancelled_pending_task_never_starts(make_manager: Callable[..., TaskManager]) -> None:
    """With one place, the second task waits; after its cancellation the third one runs."""
    manager = make_manager(max_concurrent_tasks=1)
    app = FastAPI()
    TaskAdmin(app, manager)
    gate = asyncio.Event()
    ran: list[str] = []

    async def blocks() -> None:
        await gate.wait()

    async def note(what: str) -> None:
        ran.append(what)

    async with serving(app) as client:
        await manager.enqueue(blocks)
        second = await manager.enqueue(note, "second")
        third = await manager.enqueue(note, "third")
        record = (await client.post(f"/tasks/{second}/cancel")).json()
        assert (await detail(client, second))["status"] == "cancelled", record
        gate.set()
        assert (await ended(client, third))["status"] == "success"
        assert (await detail(client, second))["status"] == "cancelled"
        again = (await client.post(f"/tasks/{second}/retry")).json()
        await ended(client, again["task_id"])
    assert ran == ["third", "second"]


async def test_cancelling_one_task_leaves_the_next_one_of_its_request(make_manager: Callable[..., TaskManager]) -> None:
    """They share an asyncio task, but not their fate."""
    manager = make_manager()
    app = FastAPI()
    TaskAdmin(app, manager, auto_install=True)
    started = asyncio.Event()
    ids: list[str] = []

    async def forever() -> None:
        started.set()
        await asyncio.Event().wait()

    async def after() -> None:
        await asyncio.sleep(0)

    @app.post("/go")
    async def go(background_tasks: ManagedBackgroundTasks) -> None:
        ids.extend([background_tasks.add_task(forever), background_tasks.add_task(after)])

    async with serving(app) as client:
        request = asyncio.create_task(client.post("/go"))
        await started.wait()
        await client.post(f"/tasks/{ids[0]}/cancel")
        await request
        assert (await detail(client, ids[0]))["status"] == "cancelled"
        assert (await detail(client, ids[1]))["status"] == "success"


async def test_a_cancelled_request_does_not_cancel_its_tasks(make_manager: Callable[..., TaskManager]) -> None:
    """They are shielded."""
    manager = make_manager()
    app = FastAPI()
    TaskAdmin(app, manager, auto_install=True)
    started, gate = asyncio.Event(), asyncio.Event()
    ids: list[str] = []

    async def waits() -> None:
        started.set()
        await gate.wait()

    @app.post("/go")
    async def go(background_tasks: ManagedBackgroundTasks) -> None:
        ids.append(background_tasks.add_task(waits))

    async with serving(app) as client:
        request = asyncio.create_task(client.post("/go"))
        await started.wait()
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
        gate.set()
        assert (await ended(client, ids[0]))["status"] == "success"


async def test_what_fails_after_add_task_drops_its_tasks_and_tells(
    make_manager: Callable[..., TaskManager], caplog: pytest.LogCaptureFixture
) -> None:
    """As in FastAPI; also when a dependency fails after the endpoint, as a commit may."""
    manager = make_manager()
    app = FastAPI()
    TaskAdmin(app, manager, auto_install=True)
    ran: list[str] = []

    async def commits() -> AsyncIterator[None]:
        yield
        raise HTTPException(409, "conflict")

    @app.post("/http")
    async def http(background_tasks: ManagedBackgroundTasks) -> None:
        background_tasks.add_task(ran.append, "http")
        raise HTTPException(418, "teapot")

    @app.post("/crash")
    def crash(background_tasks: ManagedBackgroundTasks) -> None:
        background_tasks.add_task(ran.append, "crash")
        msg = "boom"
        raise RuntimeError(msg)

    @app.post("/commit", dependencies=[Depends(commits, scope="function")])
    async def commit(background_tasks: ManagedBackgroundTasks) -> None:
        background_tasks.add_task(ran.append, "commit")

    @app.post("/returned")
    async def returned(background_tasks: ManagedBackgroundTasks) -> JSONResponse:
        background_tasks.add_task(ran.append, "returned")
        return JSONResponse({"detail": "no"}, status_code=400)

    async with serving(app) as client:
        assert (await client.post("/http")).status_code == 418
        with pytest.raises(RuntimeError, match="boom"):
            await client.post("/crash")
        assert (await client.post("/commit")).status_code == 409
        assert caplog.text.count("dropped, because the endpoint raised") == 3
        assert (await client.get("/tasks")).json() == []
        assert (await client.post("/returned")).status_code == 400
        assert ran == ["returned"]


async def test_accepted_tasks_run_whatever_becomes_of_the_response(make_manager: Callable[..., TaskManager]) -> None:
    """A background of the response's own, tasks added after a yield, streams: Starlette loses some of these."""
    manager = make_manager()
    app = FastAPI()
    TaskAdmin(app, manager, auto_install=True)
    ran: list[str] = []

    async def late(background_tasks: ManagedBackgroundTasks) -> AsyncIterator[None]:
        yield
        background_tasks.add_task(ran.append, "after yield")

    @app.post("/own")
    async def own(background_tasks: ManagedBackgroundTasks) -> JSONResponse:
        background_tasks.add_task(ran.append, "injected")
        return JSONResponse({}, background=BackgroundTask(ran.append, "own"))

    @app.post("/late", dependencies=[Depends(late)])
    async def with_late(background_tasks: ManagedBackgroundTasks) -> None:
        background_tasks.add_task(ran.append, "before yield")

    @app.post("/stream")
    async def stream(background_tasks: ManagedBackgroundTasks) -> StreamingResponse:
        async def body() -> AsyncIterator[str]:
            yield "one"
            background_tasks.add_task(ran.append, "in stream")
            yield "two"

        background_tasks.add_task(ran.append, "before stream")
        return StreamingResponse(body())

    async with serving(app) as client:
        await client.post("/own")
        assert sorted(ran) == ["injected", "own"]
        await client.post("/late")
        assert ran[2:] == ["before yield", "after yield"]
        assert (await client.post("/stream")).text == "onetwo"
        assert ran[4:] == ["before stream", "in stream"]
        assert {each["status"] for each in (await client.get("/tasks")).json()} == {"success"}


async def test_adding_to_a_request_that_is_over_is_an_error(make_manager: Callable[..., TaskManager]) -> None:
    """Starlette would never run it, silently."""
    manager = make_manager()
    app = FastAPI()
    TaskAdmin(app, manager, auto_install=True)
    kept: list[ManagedBackgroundTasks] = []

    @app.post("/go")
    async def go(background_tasks: ManagedBackgroundTasks) -> None:
        kept.append(background_tasks)

    async with serving(app) as client:
        await client.post("/go")
        with pytest.raises(ConfigurationError, match=r"use `await task_manager.enqueue"):
            kept[0].add_task(print)


async def test_a_task_may_add_a_task(make_manager: Callable[..., TaskManager]) -> None:
    """Through the same object, and through the manager."""
    manager = make_manager()
    app = FastAPI()
    TaskAdmin(app, manager, auto_install=True)
    ran: list[str] = []

    async def first(tasks: Callable[[], ManagedBackgroundTasks]) -> None:
        tasks().add_task(ran.append, "nested")
        await manager.enqueue(ran.append, "enqueued")

    holder: list[ManagedBackgroundTasks] = []

    class Start:
        async def go(self) -> None:
            await first(lambda: holder[0])

    @app.post("/go")
    async def go(background_tasks: ManagedBackgroundTasks) -> None:
        holder.append(background_tasks)
        background_tasks.add_task(Start().go)

    async with serving(app) as client:
        await client.post("/go")
        await eventually(lambda: asyncio.sleep(0, ran), lambda seen: len(seen) == 2)
        assert sorted(ran) == ["enqueued", "nested"]


async def test_manual_lifespan_holds_the_response_too(tmp_path: Path) -> None:
    """startup() and shutdown() by hand, tasks by dependency, no middleware."""
    manager = TaskManager(snapshot_db=tmp_path / "tasks.db")
    ran: list[str] = []

    @contextlib.asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        await manager.startup()
        yield
        await manager.shutdown()

    app = FastAPI(lifespan=lifespan)

    @app.post("/go")
    def go(tasks: Annotated[ManagedBackgroundTasks, Depends(manager.get_tasks)]) -> str:
        return tasks.add_task(ran.append, "ran")

    async def late(tasks: Annotated[ManagedBackgroundTasks, Depends(manager.get_tasks)]) -> AsyncIterator[None]:
        yield
        tasks.add_task(ran.append, "late")

    @app.post("/own", dependencies=[Depends(late)])
    async def own(tasks: Annotated[ManagedBackgroundTasks, Depends(manager.get_tasks)]) -> JSONResponse:
        tasks.add_task(ran.append, "injected")
        return JSONResponse({}, background=BackgroundTask(ran.append, "own"))

    @app.post("/fail")
    def fail(tasks: Annotated[ManagedBackgroundTasks, Depends(manager.get_tasks)]) -> None:
        tasks.add_task(ran.append, "never")
        raise HTTPException(400)

    async with serving(app) as client:
        task_id = (await client.post("/go")).json()
        assert ran == ["ran"]
        record = await manager.journal.get(task_id)
        assert record is not None
        assert record.status == "success"
        assert (await client.post("/fail")).status_code == 400
        assert ran == ["ran"]
        assert (await client.post("/own")).status_code == 200
        assert ran == ["ran", "own", "injected", "late"]


async def test_lifecycles_that_clash_are_told_apart() -> None:
    """The error names both ways; doing the same thing twice is harmless."""
    manager = TaskManager()
    app = FastAPI()
    manager.init_app(app)
    manager.init_app(app)
    TaskAdmin(app, manager)
    async with serving(app):
        with pytest.raises(LifecycleConflictError, match=r"startup\(\) found .* by task_manager.init_app\(app\)"):
            await manager.startup()
        with pytest.raises(LifecycleConflictError, match=r"TaskAdmin\(app, task_manager.* comes after"):
            TaskAdmin(FastAPI(), manager)
    await manager.startup()
    with pytest.raises(LifecycleConflictError, match=r"TaskAdmin\(app, .* comes after await task_manager.startup"):
        TaskAdmin(FastAPI(), manager)
    await manager.shutdown()
    await manager.shutdown()
    with pytest.raises(NotStartedError, match="TestClient"):
        await manager.enqueue(print)


async def test_bad_input_is_told_and_harms_nothing(make_manager: Callable[..., TaskManager]) -> None:
    """The error says what was wrong; the other tasks of the request go on."""
    manager = make_manager()
    app = FastAPI()
    TaskAdmin(app, manager, auto_install=True)
    ran: list[Any] = []
    errors: list[Exception] = []

    @app.post("/go")
    async def go(background_tasks: ManagedBackgroundTasks) -> None:
        background_tasks.add_task(ran.append, 1)
        wrong: tuple[Callable[[], str], ...] = (
            lambda: background_tasks.add_task("no function"),  # type: ignore[arg-type]
            lambda: background_tasks.add_task(ran.append, 2, tags="one"),
            lambda: background_tasks.add_task(ran.append, 2, tags=[1]),  # type: ignore[list-item]
            lambda: background_tasks.add_task(ran.append, 2, idempotency_key=""),
        )
        for call in wrong:
            try:
                call()
            except ConfigurationError as error:
                errors.append(error)

    async with serving(app) as client:
        await client.post("/go")
    assert ran == [1]
    assert [str(error).split(",")[0] for error in errors] == [
        "the first argument must be a function",
        "tags must be a list of strings",
        "every tag must be a string",
        "idempotency_key must be a string of 1 to 512 characters",
    ]


async def test_an_argument_that_cannot_be_stored_is_named(tmp_path: Path) -> None:
    """Only where arguments are stored; the request decides what to do."""
    manager = TaskManager(snapshot_db=tmp_path / "tasks.db")
    app = FastAPI()
    TaskAdmin(app, manager, auto_install=True)
    ran: list[Any] = []

    @app.post("/go")
    async def go(background_tasks: ManagedBackgroundTasks) -> str:
        background_tasks.add_task(ran.append, 1)
        with pytest.raises(TaskArgumentError, match=r"args\[0\]\['lock'\]") as caught:
            background_tasks.add_task(ran.append, {"lock": threading.Lock()})
        return caught.value.argument

    async with serving(app) as client:
        assert (await client.post("/go")).json() == "args[0]['lock']"
    assert ran == [1]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"retries": -1}, "retries must be a whole number"),
        ({"retries": True}, "retries must be a whole number"),
        ({"delay": -1}, "delay must be 0 or more seconds"),
        ({"delay": "1"}, "delay must be a number"),
        ({"backoff": 0}, "backoff must be above zero"),
        ({"name": " "}, "name must be a string that is not empty"),
    ],
)
def test_wrong_task_options_are_refused(options: dict[str, Any], text: str) -> None:
    """At once, where they are written."""
    with pytest.raises(ConfigurationError, match=text):
        TaskManager().task(**options)


def test_task_without_parentheses_is_told() -> None:
    """A common slip."""
    with pytest.raises(TypeError):
        TaskManager().task(print)  # type: ignore[call-arg, arg-type]
    with pytest.raises(ConfigurationError, match="decorates functions"):
        TaskManager().task()(3)  # type: ignore[arg-type]


async def test_tasks_have_what_the_lifespan_makes_from_first_to_last(make_manager: Callable[..., TaskManager]) -> None:
    """A task added by startup code waits for the whole of it; one that runs at shutdown still has the pool."""
    manager = make_manager()
    pool: list[str] = []
    seen: list[list[str]] = []
    started = asyncio.Event()

    async def look() -> None:
        seen.append(list(pool))

    async def look_late() -> None:
        started.set()
        await asyncio.sleep(0.05)
        seen.append(list(pool))

    @contextlib.asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        await manager.enqueue(look)
        await asyncio.sleep(0.02)
        pool.append("open")
        yield
        pool.clear()

    app = FastAPI(lifespan=lifespan)
    manager.init_app(app)
    async with serving(app):
        await manager.enqueue(look_late)
        await started.wait()
    assert seen == [["open"], ["open"]]
    async with serving(app):
        pass
    assert seen == [["open"]] * 3
