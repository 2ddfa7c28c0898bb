"""Queues in front of a user: limits, pause, changes while all is busy, refusals, eager tasks."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from fastapi import Depends, FastAPI, Request
from fastapi.responses import JSONResponse
from fastapi.testclient import TestClient

from fastapi_taskflow import ManagedBackgroundTasks, QueueConfig, QueueFullError, TaskAdmin, TaskManager
from tests.integration.conftest import eventually, serving, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fastapi_taskflow.task.queue import QueueFacts
    from tests.integration.conftest import Server


class Post:
    """An application whose tasks end when they are told to.

    Attributes:
        started: The tasks that began, in order.
        most: How many ran at once, at most.
    """

    def __init__(self, snapshot_db: Path | None = None, **options: Any) -> None:
        self.app = FastAPI()
        options.setdefault("queues", {"email": QueueConfig(concurrency=2, max_size=5)})
        self.manager = TaskManager(snapshot_db=snapshot_db, shutdown_timeout=2, **options)
        TaskAdmin(self.app, self.manager)
        self.started: list[str] = []
        self.running = self.most = 0
        self.gates: dict[str, asyncio.Event] = {}
        self.open = False

        @self.manager.task(queue="email")
        async def mail(to: str) -> None:
            await self.work(to)

        @self.manager.task()
        async def plain(to: str) -> None:
            await self.work(to)

        self.mail, self.plain = mail, plain

        @self.app.post("/mail/{to}")
        async def send(
            to: str, tasks: ManagedBackgroundTasks, priority: int | None = None, count: int = 1
        ) -> list[str]:
            return [tasks.add_task(mail, f"{to}{number or ''}", priority=priority) for number in range(count)]

        @self.app.post("/plain/{to}")
        async def send_plain(to: str, tasks: ManagedBackgroundTasks, queue: str | None = None) -> str:
            return tasks.add_task(plain, to, queue=queue)

    async def work(self, to: str) -> None:
        """Run until the gate is open."""
        self.started.append(to)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            if not self.open:
                await self.gates.setdefault(to, asyncio.Event()).wait()
        finally:
            self.running -= 1

    def release(self) -> None:
        """Let all end that run, and those that come."""
        self.open = True
        for gate in self.gates.values():
            gate.set()

    async def starts(self, *names: str) -> None:
        """Wait until exactly these have started."""
        async with asyncio.timeout(5):
            while len(self.started) < len(names):  # noqa: ASYNC110 - what is waited for has no event
                await asyncio.sleep(0)
        assert tuple(self.started) == names


@pytest.fixture(params=["memory", "sqlite"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    """Where tasks are kept, of each kind in turn."""
    return None if request.param == "memory" else tmp_path / "tasks.db"


async def queue_of(client: httpx.AsyncClient, name: str = "email") -> dict[str, Any]:
    """Return one row of the list of queues."""
    answer = await client.get("/tasks/queues")
    assert answer.status_code == 200
    found: dict[str, Any] = next(row for row in answer.json() if row["name"] == name)
    return found


async def test_a_queue_keeps_to_its_limits_and_says_when_it_is_full(place: Path | None) -> None:
    """Two run, five wait, the eighth gets 429 with Retry-After; nothing of the refused request is kept."""
    post = Post(place)
    async with serving(post.app) as client:
        for number in range(7):
            assert (await client.post(f"/mail/{number}")).status_code == 200
        await post.starts("0", "1")
        refused = await client.post("/mail/late")
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        full = "the queue 'email' is full: 5 task(s) wait in it, and no more may; try again later"
        assert refused.json() == {"detail": full}
        with pytest.raises(QueueFullError):
            await post.manager.enqueue(post.mail, "late")
        assert await queue_of(client) == {
            "name": "email", "concurrency": 2, "max_size": 5, "rate_limit": None, "paused": False, "pending": 5,
            "waiting": 5, "running": 2, "declared": True, "stored": {},
        }  # fmt: skip
        assert len((await client.get("/tasks")).json()) == 7
        # One for later takes no place until then.
        await post.manager.enqueue(post.mail, "tomorrow", delay=86_400)
        assert (await queue_of(client))["pending"] == 6
        post.release()
        await eventually(lambda: client.get("/tasks?status=success"), lambda answer: len(answer.json()) == 7)
        assert (post.most, post.started) == (2, [str(number) for number in range(7)])
        assert (await client.post("/mail/late")).status_code == 200


async def test_tasks_of_one_request_count_each_other_and_are_refused_together(place: Path | None) -> None:
    """The queue is empty and takes five; the request adds six."""
    post = Post(place)
    async with serving(post.app) as client:
        assert (await client.post("/mail/many?count=6")).status_code == 429
        assert (await client.get("/tasks")).json() == []
        assert (await queue_of(client))["waiting"] == 0
        assert (await client.post("/mail/many?count=5")).status_code == 200
        post.release()


async def test_cancelling_one_that_waits_frees_its_place_at_once(place: Path | None) -> None:
    """It never runs, and the next one takes its place."""
    post = Post(place)
    async with serving(post.app) as client:
        ids = [(await client.post(f"/mail/{number}")).json()[0] for number in range(7)]
        assert (await client.post("/mail/late")).status_code == 429
        cancelled = await client.post(f"/tasks/{ids[4]}/cancel")
        assert cancelled.json()["task"]["status"] == "cancelled"
        assert (await client.post("/mail/late")).status_code == 200
        post.release()
        await eventually(lambda: client.get("/tasks?status=success"), lambda answer: len(answer.json()) == 7)
        assert "4" not in post.started


async def test_a_handler_of_the_users_own_is_left_alone() -> None:
    """Whether it is set before or after."""
    for early in (True, False):
        app = FastAPI()

        async def mine(request: Request, error: Exception) -> JSONResponse:
            assert request.url.path == "/mail"
            assert isinstance(error, QueueFullError)
            return JSONResponse("mine", 418)

        if early:
            app.add_exception_handler(QueueFullError, mine)
        manager = TaskManager(queues={"email": QueueConfig(max_size=1, concurrency=1)})
        manager.init_app(app)
        if not early:
            app.add_exception_handler(QueueFullError, mine)

        @app.get("/mail")
        def mail(tasks: ManagedBackgroundTasks) -> None:
            for _ in range(3):
                tasks.add_task(print, queue="email")

        async with serving(app) as client:
            assert (await client.get("/mail")).status_code == 418


async def test_priorities_over_http(place: Path | None) -> None:
    """Higher first, and first come, first served within."""
    post = Post(place, queues={"email": QueueConfig(concurrency=1)})
    async with serving(post.app) as client:
        for name, priority in (("runs", 0), ("low", -1), ("b1", 5), ("b2", 5), ("top", 9)):
            await client.post(f"/mail/{name}?priority={priority}")
        await post.starts("runs")
        post.release()
        await post.starts("runs", "top", "b1", "b2", "low")


async def test_patch_to_the_same_or_a_lower_limit_does_not_stall(place: Path | None) -> None:
    """In the other package nothing ran any more."""
    post = Post(place, queues={"email": QueueConfig(concurrency=4)})
    async with serving(post.app) as client:
        await client.post("/mail/x?count=20")
        await post.starts("x", "x1", "x2", "x3")
        for concurrency in (4, 2):
            changed = await client.patch("/tasks/queues/email", json={"concurrency": concurrency})
            assert (changed.status_code, changed.json()["concurrency"]) == (200, concurrency)
        assert (await queue_of(client))["running"] == 4
        for ended in ("x", "x1", "x2"):
            post.gates[ended].set()
        await eventually(lambda: queue_of(client), lambda row: row["running"] == 2)
        assert (len(post.started), (await queue_of(client))["stored"]) == (5, {"concurrency": 2})
        await client.post("/mail/late")
        post.release()
        await eventually(lambda: client.get("/tasks?status=success&limit=50"), lambda answer: len(answer.json()) == 21)
        assert post.most == 4


async def test_patch_to_a_higher_limit_does_not_overrun(place: Path | None) -> None:
    """In the other package 13 ran under a limit of 8."""
    post = Post(place, queues={"email": QueueConfig(concurrency=5)})
    async with serving(post.app) as client:
        await client.post("/mail/x?count=40")
        await eventually(lambda: queue_of(client), lambda row: row["running"] == 5)
        await client.patch("/tasks/queues/email", json={"concurrency": 8})
        await eventually(lambda: queue_of(client), lambda row: row["running"] == 8)
        text = (await client.get("/tasks/metrics?format=prometheus")).text
        assert 'taskflow_queue_concurrency_limit{queue="email"} 8.0' in text
        assert 'taskflow_tasks_running{queue="email"} 8.0' in text
        assert 'taskflow_tasks_pending{queue="email"} 32.0' in text
        post.release()
        await eventually(lambda: client.get("/tasks?status=success&limit=50"), lambda answer: len(answer.json()) == 40)
        assert post.most == 8


async def test_a_paused_queue_waits_across_a_restart(tmp_path: Path) -> None:
    """What runs ends, what waits stays pending without ``requeue_pending``, and runs after the resume."""
    path = tmp_path / "tasks.db"
    post = Post(path)
    async with serving(post.app) as client:
        await client.post("/mail/first")
        await post.starts("first")
        paused = await client.post("/tasks/queues/email/pause")
        assert (paused.json()["paused"], paused.json()["stored"]) == (True, {"paused": True})
        await client.post("/mail/second")
        post.release()
        await eventually(lambda: client.get("/tasks?status=success"), lambda answer: len(answer.json()) == 1)
    post = Post(path)
    post.release()
    async with serving(post.app) as client:
        (waits,) = (await client.get("/tasks?status=pending")).json()
        assert (await queue_of(client))["paused"]
        await client.post("/mail/third")
        await asyncio.sleep(0.05)
        assert post.started == []
        assert (await client.get(f"/tasks/{waits['task_id']}")).json()["recoveries"] == 0
        resumed = await client.post("/tasks/queues/email/resume")
        assert (resumed.json()["paused"], resumed.json()["stored"]) == (False, {})
        await post.starts("second", "third")


async def test_a_request_does_not_wait_for_a_paused_queue() -> None:
    """Otherwise a server would never stop: it waits for its requests first."""
    post = Post(queues={"default": QueueConfig(concurrency=1)})
    async with serving(post.app) as client:
        first = asyncio.create_task(client.post("/plain/first"))
        await post.starts("first")
        behind = asyncio.create_task(client.post("/plain/behind"))
        await eventually(lambda: queue_of(client, "default"), lambda row: row["waiting"] == 1)
        await client.post("/tasks/queues/default/pause")
        async with asyncio.timeout(5):
            await behind
            await client.post("/plain/late")
        post.release()
        await first
        assert post.started == ["first"]
        await client.post("/tasks/queues/default/resume")
        await post.starts("first", "behind", "late")


@pytest.mark.parametrize("way", ["cancelled", "its time is over"])
async def test_a_request_goes_on_when_its_task_will_not_have_its_turn(way: str) -> None:
    """The task waits in line behind another request's, and leaves it."""
    post = Post(queues={"default": QueueConfig(concurrency=1)})

    @post.app.post("/behind")
    async def behind(tasks: ManagedBackgroundTasks) -> str:
        return tasks.add_task(post.plain, "behind", expires=0.1 if way != "cancelled" else None)

    async with serving(post.app) as client:
        first = asyncio.create_task(client.post("/plain/first"))
        await post.starts("first")
        request = asyncio.create_task(client.post("/behind"))
        await eventually(lambda: queue_of(client, "default"), lambda row: row["waiting"] == 1)
        (waits,) = (await client.get("/tasks?status=pending")).json()
        if way == "cancelled":
            await client.post(f"/tasks/{waits['task_id']}/cancel")
        async with asyncio.timeout(5):
            await request
        assert not first.done()
        post.release()
        await first
        assert (await client.get(f"/tasks/{waits['task_id']}")).json()["status"] == "cancelled"
        assert post.started == ["first"]


async def test_a_request_does_not_wait_for_a_rate() -> None:
    """Its second task may start in an hour."""
    post = Post(queues={"default": QueueConfig(rate_limit="1/h")})
    post.open = True
    async with serving(post.app) as client, asyncio.timeout(5):
        for name in ("first", "second"):
            await client.post(f"/plain/{name}")
        assert (await queue_of(client, "default"))["waiting"] == 1
        await client.patch("/tasks/queues/default", json={"rate_limit": None})
        await post.starts("first", "second")


async def test_one_that_leaves_the_order_may_come_late() -> None:
    """In the exit code of a dependency, when the response has gone out."""
    post = Post()
    post.open = True

    async def late(tasks: ManagedBackgroundTasks) -> AsyncIterator[None]:
        yield
        tasks.add_task(post.mail, "mail")
        tasks.add_task(post.plain, "eager", eager=True)

    @post.app.post("/late", dependencies=[Depends(late)])
    async def route() -> None: ...

    async with serving(post.app) as client:
        await client.post("/late")
        await eventually(lambda: client.get("/tasks?status=success"), lambda answer: len(answer.json()) == 2)
    assert set(post.started) == {"mail", "eager"}


async def test_reset_goes_back_to_the_code(place: Path | None) -> None:
    """What was changed is forgotten, null is without limit."""
    post = Post(place)
    async with serving(post.app) as client:
        changed = await client.patch("/tasks/queues/email", json={"concurrency": None, "rate_limit": "7/m"})
        assert changed.json()["stored"] == {"concurrency": None, "rate_limit": "7/m"}
        assert (changed.json()["concurrency"], changed.json()["max_size"]) == (None, 5)
        await client.post("/tasks/queues/email/pause")
        reset = (await client.delete("/tasks/queues/email")).json()
        assert (reset["concurrency"], reset["rate_limit"], reset["paused"], reset["stored"]) == (2, None, False, {})


async def test_a_queue_that_nobody_declared_has_no_limits_until_it_gets_some(place: Path | None) -> None:
    """It is there while somebody is in it, and with a limit of its own."""
    post = Post(place)
    async with serving(post.app) as client:
        assert (await client.patch("/tasks/queues/made-up", json={"concurrency": 1})).status_code == 404
        for number in range(3):
            await client.post(f"/plain/{number}?queue=made-up")
        await post.starts("0", "1", "2")
        limited = await client.patch("/tasks/queues/made-up", json={"concurrency": 1})
        assert (limited.json()["running"], limited.json()["declared"]) == (3, False)
        await client.post("/plain/3?queue=made-up")
        assert (await queue_of(client, "made-up"))["waiting"] == 1
        post.release()
        await post.starts("0", "1", "2", "3")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, "give at least one of concurrency, max_size and rate_limit"),
        ({"concurrency": 0}, "concurrency: Input should be greater than or equal to 1"),
        ({"concurrency": True}, "concurrency: Input should be a valid integer"),
        ({"concurrency": "3"}, "concurrency: Input should be a valid integer"),
        ({"max_size": 10**30}, "max_size: Input should be less than or equal to 1000000"),
        ({"max_size": 1.5}, "max_size: Input should be a valid integer"),
        ({"rate_limit": "10"}, "rate_limit: Value error, rate_limit must be such as '10/s'"),
        ({"rate_limit": "0/s"}, "rate_limit must be such as"),
        ({"rate_limit": "1/s/s"}, "rate_limit must be such as"),
        ({"rate_limit": 10}, "rate_limit: Input should be a valid string"),
        ({"speed": 3}, "speed: Extra inputs are not permitted"),
        ([], "Input should be"),
    ],
)
async def test_a_wrong_limit_is_named_and_changes_nothing(body: Any, said: str) -> None:
    """422, and the queue is as before."""
    async with serving(Post().app) as client:
        answer = await client.patch("/tasks/queues/email", json=body)
        assert answer.status_code == 422
        told = "; ".join(f"{item['loc'][-1]}: {item['msg']}" for item in answer.json()["detail"])
        assert said in told
        assert (await queue_of(client))["stored"] == {}


async def test_retry_by_hand_into_a_full_queue_is_429() -> None:
    """It is a new task; with many at once the others are told why."""
    post = Post(queues={"email": QueueConfig(concurrency=1, max_size=1)})
    async with serving(post.app) as client:
        (failed,) = (await client.post("/mail/x")).json()
        await post.starts("x")
        assert (await client.post(f"/tasks/{failed}/cancel")).status_code == 200
        await client.post("/mail/runs")
        await client.post("/mail/waits")
        refused = await client.post(f"/tasks/{failed}/retry")
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        many = (await client.post("/tasks/bulk-retry", json={"task_ids": [failed]})).json()
        assert (many["dispatched"], "is full" in many["reasons"][0]["reason"]) == (0, True)
        post.release()


# -- eager -----------------------------------------------------------------------------------------------------------


async def test_an_eager_task_starts_before_the_response(place: Path | None) -> None:
    """Of an async route: it began when the first byte is sent, and its row is there."""
    app = FastAPI()
    manager = TaskManager(snapshot_db=place)
    manager.init_app(app)
    steps: list[str] = []

    async def work() -> None:
        steps.append("task")
        await asyncio.sleep(0)

    @app.get("/")
    async def route(tasks: ManagedBackgroundTasks) -> str:
        task_id = tasks.add_task(work, eager=True)
        tasks.add_task(work)
        steps.append("endpoint")
        return task_id

    class Told:
        """Takes down when the response starts."""

        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            async def told(message: Any) -> None:
                steps.append(message["type"])
                await send(message)

            await self.app(scope, receive, told if scope["type"] == "http" else send)

    app.add_middleware(Told)
    async with serving(app) as client:
        task_id = (await client.get("/")).json()
        assert (await manager.store.get(task_id)) is not None or place is None
    assert steps == ["endpoint", "task", "http.response.start", "http.response.body", "task"]


def test_an_eager_task_starts_while_a_sync_route_works(place: Path | None) -> None:
    """It runs to its end before the route returns."""
    app = FastAPI()
    manager = TaskManager(snapshot_db=place)
    manager.init_app(app)
    done = threading.Event()

    async def work() -> None:
        await asyncio.sleep(0)
        done.set()

    @app.get("/")
    def route(tasks: ManagedBackgroundTasks) -> bool:
        tasks.add_task(work, eager=True)
        return done.wait(5)

    with TestClient(app) as client:
        assert client.get("/").json() is True


async def test_an_eager_task_of_a_manager_that_is_started_by_hand(place: Path | None) -> None:
    """There FastAPI's own stacks hold the response."""
    manager = TaskManager(snapshot_db=place)
    started = asyncio.Event()

    @contextlib.asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        await manager.startup()
        yield
        await manager.shutdown()

    app = FastAPI(lifespan=lifespan)

    async def work() -> None:
        started.set()

    @app.get("/")
    async def route(tasks: ManagedBackgroundTasks = Depends(manager.get_tasks)) -> str:  # noqa: FAST002
        return tasks.add_task(work, eager=True)

    async with serving(app) as client:
        assert (await client.get("/")).status_code == 200
        assert started.is_set()


async def test_an_eager_task_that_cannot_be_stored_is_503(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the plain one beside it is not kept either."""
    app = FastAPI()
    manager = TaskManager(snapshot_db=tmp_path / "tasks.db", commit_timeout=0.05)
    TaskAdmin(app, manager)
    ran: list[str] = []

    async def work(name: str) -> None:
        ran.append(name)

    @app.get("/")
    async def route(tasks: ManagedBackgroundTasks) -> None:
        tasks.add_task(work, "plain")
        tasks.add_task(work, "eager", eager=True)

    async with serving(app) as client:
        write, gate = manager.store.write, asyncio.Event()

        async def slow(changes: Any) -> Any:
            await gate.wait()
            return await write(changes)

        monkeypatch.setattr(manager.store, "write", slow)
        answer = await client.get("/")
        assert answer.status_code == 503
        gate.set()
        await eventually(
            lambda: client.get("/tasks"), lambda found: [t["status"] for t in found.json()] == ["rejected"]
        )
    assert ran == []


async def test_an_eager_task_outlives_an_endpoint_that_raises() -> None:
    """It may have begun, so it is not dropped; the plain one is."""
    app = FastAPI()
    manager = TaskManager()
    manager.init_app(app)
    ran: list[str] = []

    async def work(name: str) -> None:
        ran.append(name)

    @app.get("/")
    async def route(tasks: ManagedBackgroundTasks) -> None:
        tasks.add_task(work, "plain")
        tasks.add_task(work, "eager", eager=True)
        msg = "no"
        raise ValueError(msg)

    @app.exception_handler(ValueError)
    async def handle(_request: Request, _error: Exception) -> JSONResponse:
        return JSONResponse("handled", 400)

    async with serving(app) as client:
        assert (await client.get("/")).status_code == 400
    assert ran == ["eager"]


async def test_eager_tasks_keep_to_their_queue() -> None:
    """Before the response it waits in line, and the response does not wait for it."""
    post = Post(queues={"email": QueueConfig(concurrency=1)})

    @post.app.post("/eager/{to}")
    async def eager(to: str, tasks: ManagedBackgroundTasks) -> None:
        tasks.add_task(post.mail, to, eager=True)

    async with serving(post.app) as client:
        for name in ("a", "b", "c"):
            assert (await client.post(f"/eager/{name}")).status_code == 200
        assert post.started == ["a"]
        post.release()
        await post.starts("a", "b", "c")


async def test_what_leaves_the_order_of_its_request(place: Path | None) -> None:
    """Another queue or a priority; plain ones still run one after another."""
    post = Post(place)

    @post.app.post("/both")
    async def both(tasks: ManagedBackgroundTasks) -> None:
        tasks.add_task(post.plain, "plain 1")
        tasks.add_task(post.plain, "plain 2")
        tasks.add_task(post.plain, "urgent", priority=1)
        tasks.add_task(post.mail, "mail")

    async with serving(post.app) as client:
        request = asyncio.create_task(client.post("/both"))
        async with asyncio.timeout(5):
            while len(post.started) < 3:  # noqa: ASYNC110
                await asyncio.sleep(0)
        assert set(post.started) == {"plain 1", "urgent", "mail"}
        post.release()
        await request
        assert post.started[3:] == ["plain 2"]


# -- the end, recovery, several workers ------------------------------------------------------------------------------


async def test_a_queue_held_up_by_its_rate_does_not_hold_up_the_shutdown_for_ever(tmp_path: Path) -> None:
    """What did not get its turn in time waits in the store."""
    path = tmp_path / "tasks.db"
    options: Any = {"queues": {"email": QueueConfig(rate_limit="1/h")}, "requeue_pending": True}
    post = Post(path, **options)
    post.open = True
    began = time.monotonic()
    async with serving(post.app) as client:
        await client.post("/mail/x?count=3")
        await post.starts("x")
    assert time.monotonic() - began < 1.5
    post = Post(path, **(options | {"queues": {}}))
    post.open = True
    async with serving(post.app):
        await post.starts("x1", "x2")


async def test_many_recovered_tasks_keep_to_their_queue_and_leave_the_others_alone(tmp_path: Path) -> None:
    """500 for a queue of two at a time; one of another queue, behind them all, starts at once."""
    path = tmp_path / "tasks.db"
    before = Post(path, queues={"email": QueueConfig(concurrency=1)}, requeue_pending=True)
    async with serving(before.app) as client:
        await client.post("/mail/runs")
        await before.starts("runs")
        await client.post("/tasks/queues/email/pause")
        for number in range(500):
            await before.manager.enqueue(before.mail, str(number), priority=int(number == 400))
        before.release()
    post = Post(path, queues={"email": QueueConfig(concurrency=2)}, requeue_pending=True)
    async with serving(post.app) as client:
        await eventually(lambda: queue_of(client), lambda row: row["waiting"] == 500)
        await post.manager.enqueue(post.plain, "other")
        await client.post("/tasks/queues/email/resume")
        await post.starts("other", "400", "0")
        assert (await queue_of(client))["running"] == 2
        post.release()
        await eventually(lambda: queue_of(client), lambda row: row["pending"] == row["running"] == 0)
    assert post.most == 3
    assert sorted(post.started) == sorted(["other", *(str(number) for number in range(500))])


async def test_every_instance_applies_a_change_on_any_database(url: str) -> None:
    """Two on one database: what is set and reset through one holds in the other."""
    one, other = (TaskManager(snapshot_backend=url, queues={"email": QueueConfig(concurrency=1)}) for _ in range(2))
    await one.startup()
    await other.startup()
    try:
        await one.queues.change("email", {"concurrency": 3, "max_size": 4})
        await one.queues.pause("email")
        found = await eventually(lambda: facts_of(other), lambda facts: facts.paused, within=5)
        assert (found.config, found.stored) == (
            QueueConfig(concurrency=3, max_size=4),
            {"concurrency": 3, "max_size": 4, "paused": True},
        )
        await one.queues.reset("email")
        found = await eventually(lambda: facts_of(other), lambda facts: not facts.stored, within=5)
        assert (found.config, found.paused) == (QueueConfig(concurrency=1), False)
    finally:
        await other.shutdown()
        await one.shutdown()


async def facts_of(manager: TaskManager) -> QueueFacts:
    """Return what a manager knows of its queue."""
    return manager.queues.facts()["email"]


async def test_a_setting_that_is_not_understood_is_told_and_left_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A newer version wrote it, or somebody by hand."""
    manager = TaskManager(snapshot_db=tmp_path / "tasks.db", queues={"email": QueueConfig(concurrency=1)})
    wrong = {"concurrency:email": "0", "rate_limit:email": "{", "paused:email": "3", "speed:email": "3", "paused": "x"}
    await manager.store.open()
    for key, text in wrong.items():
        await manager.store.set_meta(f"queue:{key}", text)
    await manager.store.close()
    await manager.startup()
    try:
        await manager.queues.look()
        found = await facts_of(manager)
        assert (found.config, found.paused, found.stored) == (QueueConfig(concurrency=1), False, {})
    finally:
        await manager.shutdown()
    told = [record.getMessage() for record in caplog.records if "not understood" in record.getMessage()]
    assert len(told) == len(wrong)


SOURCE = """
import asyncio, os
from fastapi import FastAPI
from fastapi_taskflow import ManagedBackgroundTasks, QueueConfig, TaskAdmin, TaskManager

app = FastAPI()
task_manager = TaskManager(snapshot_db="tasks.db", queues={"email": QueueConfig(concurrency=1)}, shutdown_timeout=1)
TaskAdmin(app, task_manager)


@task_manager.task(queue="email")
async def mail() -> None:
    await asyncio.sleep(0)


@app.get("/ready")
async def ready() -> int:
    return os.getpid()


@app.post("/mail")
async def send(tasks: ManagedBackgroundTasks) -> str:
    return tasks.add_task(mail)
"""


def test_every_worker_applies_a_change_and_keeps_it_across_a_restart(start_server: Callable[..., Server]) -> None:
    """Limits and a pause set through one worker hold in the other one, and in those that come after a kill."""
    server = start_server(SOURCE, "--workers", "2")

    def rows(at: Server) -> dict[int, tuple[Any, ...]]:
        found = {}
        for _ in range(12):
            with httpx.Client(base_url=at.url, timeout=10) as client:
                pid = client.get("/ready").json()
                row = next(each for each in client.get("/tasks/queues").json() if each["name"] == "email")
                found[pid] = (row["concurrency"], row["rate_limit"], row["paused"])
        return found

    def everywhere(values: tuple[Any, ...]) -> Callable[[dict[int, tuple[Any, ...]]], bool]:
        return lambda found: len(found) == 2 and set(found.values()) == {values}

    # One connection, so one worker: the other one has to look by itself.
    url = f"{server.url}/tasks/queues/email"
    with httpx.Client(timeout=10) as one:
        assert one.patch(url, json={"concurrency": 7, "rate_limit": "9/m"}).status_code == 200
        assert one.post(f"{url}/pause").status_code == 200
    wait_for(lambda: rows(server), everywhere((7, "9/m", True)), within=10)
    ids = [httpx.post(f"{server.url}/mail", timeout=10).json() for _ in range(6)]
    server.kill()
    server = start_server(SOURCE, "--workers", "2")
    wait_for(lambda: rows(server), everywhere((7, "9/m", True)), within=10)

    def statuses() -> set[str]:
        return {httpx.get(f"{server.url}/tasks/{each}", timeout=10).json()["status"] for each in ids}

    assert statuses() == {"pending"}
    assert httpx.post(f"{server.url}/tasks/queues/email/resume", timeout=10).status_code == 200
    wait_for(statuses, lambda found: found == {"success"}, within=10)


QUEUES = 'queues={"email": QueueConfig(concurrency=1)}, '
PLAIN = SOURCE.replace(QUEUES, "").replace('(queue="email")', "()")


def test_a_server_stops_though_its_default_queue_is_paused(start_server: Callable[..., Server]) -> None:
    """Uvicorn waits for its requests before it lets the manager stop, and none of them waits for the queue."""
    server = start_server(PLAIN)
    assert httpx.post(f"{server.url}/tasks/queues/default/pause", timeout=10).status_code == 200
    task_id = httpx.post(f"{server.url}/mail", timeout=10).json()
    began = time.monotonic()
    assert server.terminate() in (0, -15)
    assert time.monotonic() - began < 5
    server = start_server(PLAIN)
    url = f"{server.url}/tasks"
    assert httpx.get(f"{url}/{task_id}", timeout=10).json()["status"] == "pending"
    assert httpx.post(f"{url}/queues/default/resume", timeout=10).status_code == 200
    wait_for(lambda: httpx.get(f"{url}/{task_id}", timeout=10).json()["status"], lambda status: status == "success")
