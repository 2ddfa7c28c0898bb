"""Schedules as a user has them: declared on functions, seen and steered over HTTP, with a clock that a test moves."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import pytest
from fastapi import Depends, FastAPI
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from fastapi_taskflow import StoreError, TaskAdmin, TaskManager
from fastapi_taskflow.store import TaskQuery
from fastapi_taskflow.testing import FakeClock
from tests.integration.conftest import eventually, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    import httpx

START = datetime(2026, 3, 28, 12, 0, 30, tzinfo=UTC)


def greeting() -> str:
    """A dependency."""
    return "hello"


class Shop:
    """An application whose tasks note when they run."""

    def __init__(self, database: Path | None, fake: FakeClock, **options: Any) -> None:
        self.manager = TaskManager(snapshot_db=database, **options)
        self.app = FastAPI()
        self.fake = fake
        self.ran: list[str] = []
        TaskAdmin(self.app, self.manager)
        fake.watch(self.manager)

    def schedule(self, name: str = "tick", **options: Any) -> None:
        """Declare a function that notes the time."""

        async def note() -> None:
            self.ran.append(f"{self.fake.time:%d %H:%M:%S}")

        note.__qualname__ = note.__name__ = name
        self.manager.schedule(**options)(note)

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[httpx.AsyncClient]:
        """Start it."""
        async with serving(self.app) as client:
            yield client

    async def rows(self, **filters: Any) -> list[dict[str, Any]]:
        """What the store has, oldest first, as status and key."""
        page = await self.manager.journal.list(TaskQuery(oldest_first=True, limit=500, **filters))
        return [{"status": r.status.value, "key": r.idempotency_key, "id": r.task_id} for r in page.records]


@pytest.fixture
def fake() -> Iterator[FakeClock]:
    """A clock that stands at noon, half a minute past."""
    with FakeClock(start=START) as made:
        yield made


@pytest.fixture(params=["memory", "sqlite"])
def make_shop(request: pytest.FixtureRequest, fake: FakeClock, path: Path) -> Callable[..., Shop]:
    """Makes an application; several are several starts on one database."""
    return lambda **options: Shop(path if request.param == "sqlite" else None, fake, **options)


async def test_each_slot_is_one_task(make_shop: Callable[..., Shop], fake: FakeClock) -> None:
    """Every minute and at three in Berlin, where that night has no hour from two to three."""
    shop = make_shop()
    shop.schedule("tick", every=timedelta(hours=6))
    shop.schedule("nightly", cron="30 2 * * *", timezone="Europe/Berlin", tags=["night"])
    async with shop.open() as client:
        await fake.advance(24 * 3600)
        assert shop.ran == ["28 18:00:00", "29 00:00:00", "29 01:00:00", "29 06:00:00", "29 12:00:00"]
        (night,) = (await client.get("/tasks?func_name=nightly")).json()
    assert night["idempotency_key"] == "nightly@2026-03-29T01:00:00.000000Z"
    facts = [night[name] for name in ("source", "schedule", "tags", "status", "run_at")]
    assert facts == ["scheduled", "nightly", ["night"], "success", None]


async def test_the_api_shows_and_steers(make_shop: Callable[..., Shop], fake: FakeClock) -> None:
    """List, run now, pause, resume; a name that is none is 404."""
    shop = make_shop()
    shop.schedule("tick", every=60, jitter=5, misfire="skip")
    shop.schedule("nightly", cron="@daily", timezone="America/New_York", overlap="allow")
    async with shop.open() as client:
        tick, nightly = (await client.get("/tasks/schedules")).json()
        assert (tick["name"], tick["every"], tick["cron"], tick["timezone"]) == ("tick", 60.0, None, None)
        assert (tick["jitter"], tick["overlap"], tick["misfire"], tick["paused"]) == (5.0, "skip", "skip", False)
        assert (tick["last_slot"], tick["last_task_id"], tick["last_task_status"]) == (None, None, None)
        assert tick["next_runs"] == [f"2026-03-28T12:0{minute}:00.000000Z" for minute in (1, 2, 3)]
        assert (nightly["cron"], nightly["timezone"], nightly["every"]) == ("@daily", "America/New_York", None)
        assert nightly["next_runs"][0] == "2026-03-29T04:00:00.000000Z"

        paused = await client.post("/tasks/schedules/tick/pause")
        assert (paused.status_code, paused.json()["paused"]) == (200, True)
        await fake.advance(300)
        assert shop.ran == []
        run = (await client.post("/tasks/schedules/tick/run")).json()
        assert (run["task"]["source"], run["task"]["schedule"]) == ("manual", "tick")
        await fake.advance(0)
        assert len(shop.ran) == 1
        resumed = (await client.post("/tasks/schedules/tick/resume")).json()
        assert (resumed["paused"], resumed["last_task_status"]) == (False, "success")
        assert resumed["last_slot"] == "2026-03-28T12:05:00.000000Z"
        await fake.advance(65)
        assert len(shop.ran) == 2
        for action in ("run", "pause", "resume"):
            answer = await client.post(f"/tasks/schedules/nope/{action}")
            assert (answer.status_code, answer.json()) == (404, {"detail": "no schedule has the name 'nope'"})


@pytest.mark.parametrize(("overlap", "ends"), [("skip", "rejected"), ("allow", "running"), ("queue", "pending")])
async def test_a_slot_whose_predecessor_has_not_ended(
    make_shop: Callable[..., Shop], fake: FakeClock, overlap: Any, ends: str
) -> None:
    """It is skipped with a row that says so, waits for its turn, or runs beside it."""
    shop = make_shop(shutdown_timeout=0)
    go_on = asyncio.Event()
    began: list[str] = []

    @shop.manager.schedule(every=60, overlap=overlap)
    async def slow() -> None:
        began.append(f"{fake.time:%M:%S}")
        await go_on.wait()

    fake._managers.clear()  # the clock does not wait for what runs
    async with shop.open() as client:
        await fake.advance(30)
        await eventually(lambda: client.get("/tasks?status=running"), lambda answer: len(answer.json()) == 1)
        await fake.advance(60)
        records = await eventually(shop.rows, lambda rows: [row["status"] for row in rows] == ["running", ends])
        if overlap == "skip":
            record = (await client.get(f"/tasks/{records[1]['id']}")).json()
            assert record["error"] == f"skipped: task {records[0]['id']} of this schedule had not ended"
            assert began == ["01:00"]
        go_on.set()
        rows = await eventually(shop.rows, lambda rows: all(row["status"] != "running" for row in rows))
        if overlap == "queue":
            rows = await eventually(shop.rows, lambda rows: all(row["status"] == "success" for row in rows))
        assert [row["status"] for row in rows] == ["success", "rejected" if overlap == "skip" else "success"]


@pytest.mark.parametrize(
    ("misfire", "made_up"),
    [("run_once", ["13:00"]), ("skip", []), ("run_all", ["10:00", "11:00", "12:00", "13:00"])],
)
async def test_what_becomes_of_a_downtime(path: Path, fake: FakeClock, misfire: Any, made_up: list[str]) -> None:
    """Seen at eight, gone from nine on, back at half past one: what was missed is made up for as the policy says."""
    hourly = {"cron": "0 * * * *", "misfire": misfire, "overlap": "allow"}
    fake._now = datetime(2026, 5, 1, 8, 30, tzinfo=UTC).timestamp()
    first = Shop(path, fake)
    first.schedule(**hourly)
    async with first.open():
        await fake.advance(3600)
    assert first.ran == ["01 09:00:00"]
    fake._now = datetime(2026, 5, 1, 13, 30, tzinfo=UTC).timestamp()
    second = Shop(path, fake)
    second.schedule(**hourly)
    async with second.open():
        await fake.advance(3600)
        rows = await second.rows()
    assert sorted(row["key"][16:21] for row in rows) == ["09:00", *made_up, "14:00"]
    assert {row["status"] for row in rows} == {"success"}


async def test_a_schedule_with_other_times_begins_anew(path: Path, fake: FakeClock) -> None:
    """What the old times had left open, and what the new ones would have had before, is not made up for."""
    for options in ({"every": 86_400}, {"every": 60, "misfire": "run_all"}):
        shop = Shop(path, fake)
        shop.schedule(**options)
        async with shop.open():
            await fake.advance(45)
        fake._now += 3600
    assert shop.ran == ["28 13:02:00"]


async def test_a_slot_that_was_added_and_not_noted_is_one_task(path: Path, fake: FakeClock) -> None:
    """As after a kill between the two: the next start adds it again, and the store has it already."""
    first = Shop(path, fake)
    first.schedule(every=60)
    async with first.open():
        before = await first.manager.store.metas("schedule:place:")
        await fake.advance(30)
        for key, value in before.items():
            await first.manager.store.set_meta(key, value)
    second = Shop(path, fake)
    second.schedule(every=60, misfire="run_all")
    async with second.open():
        await fake.advance(60)
        rows = await second.rows()
    assert [row["key"] for row in rows] == [f"tick@2026-03-28T12:0{minute}:00.000000Z" for minute in (1, 2)]
    assert second.ran == ["28 12:02:00"]


async def test_run_on_startup_is_once_for_all_that_start_together(path: Path, fake: FakeClock) -> None:
    """Two instances of one start have one run; the next start has another one. A paused one has none."""
    shops = [Shop(path, fake) for _ in range(3)]
    for shop in shops:
        shop.schedule(every=3600, run_on_startup=True)
    async with shops[0].open() as client, shops[1].open():
        await fake.advance(0)
        assert [len(shop.ran) for shop in shops] == [1, 0, 0]
    async with shops[2].open() as client:
        await fake.advance(0)
        assert len(shops[2].ran) == 1
        await client.post("/tasks/schedules/tick/pause")
    again = Shop(path, fake)
    again.schedule(every=3600, run_on_startup=True)
    async with again.open():
        await fake.advance(0)
    assert again.ran == []


async def test_a_schedule_may_have_dependencies_and_options_of_tasks(
    make_shop: Callable[..., Shop], fake: FakeClock
) -> None:
    """What `Depends` fills need not be given, and retries come as declared."""
    shop = make_shop()
    attempts: list[str] = []

    @shop.manager.schedule(every=3600, retries=1, delay=60)
    def greet(text: Annotated[str, Depends(greeting)]) -> None:
        attempts.append(f"{text} {fake.time:%H:%M}")
        if len(attempts) == 1:
            raise ValueError(text)

    async with shop.open():
        await fake.advance(3700)
    assert attempts == ["hello 13:00", "hello 13:01"]


async def test_two_schedules_of_one_function(make_shop: Callable[..., Shop], fake: FakeClock) -> None:
    """Each has its own name, slots and options."""
    shop = make_shop()
    ran: list[str] = []

    @shop.manager.schedule(cron="0 13 * * *", name="at-one", tags=["one"])
    @shop.manager.schedule(cron="0 14 * * *", name="at-two")
    async def greet() -> None:
        ran.append(f"{fake.time:%H}")

    async with shop.open() as client:
        await fake.advance(3 * 3600)
        tasks = (await client.get("/tasks")).json()
    assert ran == ["13", "14"]
    assert [(task["func_name"], task["tags"]) for task in tasks] == [("at-two", []), ("at-one", ["one"])]


async def test_each_run_begins_a_trace_of_its_own(fake: FakeClock) -> None:
    """Not below the span that is current where the application starts."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    shop = Shop(None, fake, tracer_provider=provider)
    shop.schedule(every=60)
    with provider.get_tracer("test").start_as_current_span("start") as around:
        async with shop.open():
            await fake.advance(90)
    spans = [span for span in exporter.get_finished_spans() if span.name != "start"]
    assert sorted(span.name for span in spans) == ["process tick", "process tick", "send tick", "send tick"]
    traces = {span.context.trace_id for span in spans if span.context is not None}
    assert len(traces) == 2
    assert around.get_span_context().trace_id not in traces
    assert all(not span.links for span in spans)
    assert trace.get_current_span() is trace.INVALID_SPAN


async def test_an_outage_of_the_store_is_ridden_out(path: Path, fake: FakeClock) -> None:
    """A slot that comes meanwhile is dealt with when the store works again."""
    shop = Shop(path, fake)
    shop.schedule(every=60)
    async with shop.open():
        reading, failing = shop.manager.store.metas, [OSError("disk"), OSError("disk")]

        async def metas(prefix: str) -> Any:
            if failing:
                raise StoreError(str(failing.pop()))
            return await reading(prefix)

        shop.manager.store.metas = metas  # type: ignore[method-assign]
        await fake.advance(40)
        await eventually(shop.rows, lambda rows: [row["status"] for row in rows] == ["success"])
    assert (failing, len(shop.ran)) == ([], 1)


async def test_what_waits_for_its_turn_waits_through_a_restart(path: Path, fake: FakeClock) -> None:
    """In its place: the one that was cut off runs again first, and then those behind it, one after another."""
    order: list[str] = []
    at_work = 0

    def make(*, hangs: bool) -> Shop:
        shop = Shop(path, fake, shutdown_timeout=0)
        fake._managers.clear()

        async def slow() -> None:
            nonlocal at_work
            at_work += 1
            assert at_work == 1
            order.append(f"{fake.time:%H:%M}")
            try:
                await (asyncio.Event().wait() if hangs else asyncio.sleep(0.01))
            finally:
                at_work -= 1

        shop.manager.schedule(every=60, overlap="queue", requeue_on_interrupt=True)(slow)
        return shop

    first = make(hangs=True)
    async with first.open() as client:
        await fake.advance(30)
        await eventually(lambda: client.get("/tasks?status=running"), lambda answer: len(answer.json()) == 1)
        await fake.advance(120)
        await eventually(first.rows, lambda rows: len(rows) == 3)
    assert order == ["12:01"]
    second = make(hangs=False)
    async with second.open():
        rows = await eventually(second.rows, lambda rows: {row["status"] for row in rows} == {"success"})
    assert [row["key"][16:21] for row in rows] == ["12:01", "12:02", "12:03"]
    assert order == ["12:01", "12:03", "12:03", "12:03"]


async def test_what_two_instances_added_runs_in_turn(url: str) -> None:
    """Each waits for what runs in the other one, and goes on within a second of its end."""
    order: list[str] = []
    go_on = asyncio.Event()
    managers = []
    for name in ("one", "other"):
        manager = TaskManager(snapshot_backend=url, shutdown_timeout=1)

        async def slow(name: str = name) -> None:
            order.append(f"{name} begins")
            await go_on.wait()
            order.append(f"{name} ends")

        manager.schedule(cron="@yearly", overlap="queue", name="slow")(slow)
        managers.append(manager)
        await manager.startup()
    try:
        for number, manager in enumerate([*managers, managers[0]]):
            (schedule,) = manager._schedules
            await manager.scheduler._add(schedule, f"slow@{number}", run_at=0.0)
        await eventually(lambda: asyncio.sleep(0, order), lambda found: found == ["one begins"])
        go_on.set()
        await eventually(lambda: asyncio.sleep(0, order), lambda found: len(found) == 6)
    finally:
        for manager in managers:
            await manager.shutdown()
    assert order == [f"{name} {what}" for name in ("one", "other", "one") for what in ("begins", "ends")]
