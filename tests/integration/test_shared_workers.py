"""Three uvicorn workers on one database show one picture, whichever of them answers."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import httpx
import pytest

from tests import postgresql
from tests.integration.conftest import servers_in, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.integration.conftest import Server

SQLITE = "sqlite+aiosqlite:///tasks.db"
WORKERS = 3
AT_ONCE = 8
SOURCE = """
import asyncio, os
from fastapi import BackgroundTasks, FastAPI
from fastapi_taskflow import TaskAdmin, TaskManager, task_log

app = FastAPI()
task_manager = TaskManager(snapshot_backend=os.environ["DATABASE_URL"], requeue_pending=True)
TaskAdmin(app, task_manager, auto_install=True, auth=("admin", "secret"), metrics_token="scraper", poll_interval=1.0)


@task_manager.task()
async def quick() -> None: ...


@task_manager.task()
async def slow() -> None:
    task_log(f"begun by {os.getpid()}")
    await asyncio.Event().wait()


@task_manager.task()
async def until_told() -> None:
    while not os.path.exists("go"):
        await asyncio.sleep(0.02)


@task_manager.task(retries=1, delay=3600)
async def later() -> None:
    raise ValueError("not today")


@task_manager.task()
async def fails() -> None:
    raise ValueError("no luck")


@app.get("/ready")
async def ready() -> None: ...


@app.post("/add/{name}")
async def add(name: str, background_tasks: BackgroundTasks, times: int = 1) -> dict:
    func = {"quick": quick, "slow": slow, "until_told": until_told, "later": later, "fails": fails}[name]
    return {"pid": os.getpid(), "ids": [background_tasks.add_task(func) for _ in range(times)]}
"""
ARGUMENTS = ("--workers", str(WORKERS), "--timeout-keep-alive", "120")


class Worker:
    """One worker, over a connection that stays with it."""

    def __init__(self, client: httpx.Client, pid: int) -> None:
        self.client = client
        self.pid = pid

    def add(self, name: str, times: int = 1) -> list[str]:
        """Add tasks; return their ids."""
        answer = self.client.post(f"/add/{name}", params={"times": times}).raise_for_status().json()
        assert answer["pid"] == self.pid
        ids: list[str] = answer["ids"]
        return ids

    def get(self, path: str) -> Any:
        """Return the JSON at a path below the mount."""
        return self.client.get(f"/tasks{path}").raise_for_status().json()

    def post(self, path: str) -> dict[str, Any]:
        """Act; return the task of the answer."""
        task: dict[str, Any] = self.client.post(f"/tasks{path}").raise_for_status().json()["task"]
        return task

    def counters(self) -> dict[str, float]:
        """Scrape; return every counter, sums and buckets of histograms included."""
        return counters_of(self.client)


def samples_of(client: httpx.Client) -> dict[str, float]:
    """Scrape whoever answers."""
    text = client.get("/tasks/metrics?format=prometheus", headers={"Authorization": "Bearer scraper"})
    lines = [line for line in text.raise_for_status().text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def counters_of(client: httpx.Client) -> dict[str, float]:
    """Scrape whoever answers; return the counters only."""
    kinds = ("_total", "_bucket", "_count", "_sum")
    return {name: value for name, value in samples_of(client).items() if name.partition("{")[0].endswith(kinds)}


class Workers:
    """All workers of a server, each by a connection of its own. The kernel deals them out, so it takes several."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.cookies = httpx.Cookies()
        self._by_pid: dict[int, Worker] = {}
        with self._client() as client:
            form = {"username": "admin", "password": "secret"}
            answer = wait_for(lambda: client.post("/tasks/auth/login", data=form), lambda answer: answer.is_success)
            self.cookies = answer.cookies

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._by_pid.values():
            worker.client.close()

    def all(self) -> list[Worker]:
        """Return all workers that live, once there are as many as there should be."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            wait_for(lambda: self._connect(pool), bool, within=60.0)
        return [self._by_pid[pid] for pid in sorted(self._by_pid)]

    def _connect(self, pool: ThreadPoolExecutor) -> bool:
        """Open some connections at once: one after the other would all come to the worker that is the quickest."""
        living: set[int] = set()
        for client, rows in pool.map(self._ask, range(AT_ONCE)):
            me = next((row["pid"] for row in rows if row["me"]), None)
            living |= {row["pid"] for row in rows}
            if me is None or me in self._by_pid:
                client.close()
            else:
                self._by_pid[me] = Worker(client, me)
        for pid in self._by_pid.keys() - living:
            self._by_pid.pop(pid).client.close()
        return len(living) == len(self._by_pid) == WORKERS

    def _ask(self, _: int) -> tuple[httpx.Client, list[dict[str, Any]]]:
        client = self._client()
        try:
            return client, client.get("/tasks/instances").raise_for_status().json()
        except httpx.TransportError:
            return client, []

    def _client(self) -> httpx.Client:
        limits = httpx.Limits(max_connections=1, keepalive_expiry=None)
        return httpx.Client(base_url=self.server.url, cookies=self.cookies, limits=limits, timeout=30.0)


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def database_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """An empty database."""
    if request.param == "sqlite":
        yield SQLITE
    else:
        with postgresql.database() as url:
            yield url


@pytest.fixture(scope="module")
def shared_server(database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for the tests that do not end it."""
    with servers_in(tmp_path_factory.mktemp("workers")) as start:
        yield start(SOURCE, *ARGUMENTS, DATABASE_URL=database_url)


@pytest.fixture
def fresh_database_url(database_url: str) -> Iterator[str]:
    """A database of the same kind where nothing was counted yet; that of SQLite is in the server's own folder."""
    if database_url == SQLITE:
        yield SQLITE
    else:
        with postgresql.database() as url:
            yield url


@pytest.fixture(scope="module")
def workers(shared_server: Server) -> Iterator[list[Worker]]:
    """All of its workers."""
    with Workers(shared_server) as found:
        yield found.all()


def ended(worker: Worker, task_id: str) -> Any:
    """Return the task once it has ended, as this worker shows it."""
    return wait_for(lambda: worker.get(f"/{task_id}"), lambda task: task["end_time"] is not None)


def test_each_worker_knows_all_workers(workers: list[Worker]) -> None:
    """The list is the same from each, but for who answers."""
    lists = [worker.get("/instances") for worker in workers]
    assert {tuple(row["instance_id"] for row in rows) for rows in lists} == {
        tuple(row["instance_id"] for row in lists[0])
    }
    assert [[row["pid"] for row in rows if row["me"]] for rows in lists] == [[worker.pid] for worker in workers]
    assert len({row["host"] for row in lists[0]}) == 1


def test_each_worker_lists_and_shows_what_runs_in_another(workers: list[Worker]) -> None:
    """In lists, as a record, with the lines that it writes, and in the dashboard; the owner is named."""
    (task_id,) = workers[0].add("slow")
    for worker in workers:
        shown = wait_for(partial(worker.get, f"/{task_id}"), lambda task: task["logs"])
        assert shown["status"] == "running"
        assert [line["message"] for line in shown["logs"]] == [f"begun by {workers[0].pid}"]
        assert task_id in {task["task_id"] for task in worker.get("?status=running")}
        page = worker.client.get(f"/tasks/dashboard/{task_id}", headers={"Accept": "text/html"}).raise_for_status()
        assert f"begun by {workers[0].pid}" in page.text
    owner = workers[1].get(f"/{task_id}")["instance_id"]
    assert [row["pid"] for row in workers[1].get("/instances") if row["instance_id"] == owner] == [workers[0].pid]
    workers[0].post(f"/{task_id}/cancel")


def test_any_worker_cancels_what_runs_or_waits_in_another(workers: list[Worker]) -> None:
    """The answer comes when it has happened."""
    (running,) = workers[0].add("slow")
    (waiting,) = workers[1].add("later")
    wait_for(lambda: workers[2].get(f"/{running}")["status"], lambda status: status == "running")
    wait_for(lambda: workers[2].get(f"/{waiting}"), lambda task: task["attempts"] and task["status"] == "pending")
    for task_id in (running, waiting):
        workers[2].post(f"/{task_id}/cancel")
        assert ended(workers[2], task_id)["status"] == "cancelled"
        assert {worker.get(f"/{task_id}")["status"] for worker in workers} == {"cancelled"}
        again = workers[0].client.post(f"/tasks/{task_id}/cancel")
        assert again.status_code == 409


def test_any_worker_retries_what_failed_in_another(workers: list[Worker]) -> None:
    """The new task runs where it was asked for."""
    (task_id,) = workers[0].add("fails")
    assert ended(workers[1], task_id)["status"] == "failed"
    again = workers[1].post(f"/{task_id}/retry")
    shown = ended(workers[2], again["task_id"])
    assert (shown["retry_of"], shown["status"]) == (task_id, "failed")
    (me,) = (row["instance_id"] for row in workers[1].get("/instances") if row["me"])
    assert shown["instance_id"] == me


def test_one_login_is_good_on_all_and_one_logout_ends_it_on_all(shared_server: Server) -> None:
    """Without a secret_key of one's own."""
    with Workers(shared_server) as found:
        workers = found.all()
        assert [worker.client.get("/tasks").status_code for worker in workers] == [200] * WORKERS
        cookie = {name: str(value) for name, value in found.cookies.items()}
        assert workers[0].client.post("/tasks/auth/logout").status_code == 204
        for worker in workers:
            worker.client.cookies.update(cookie)
            assert worker.client.get("/tasks").status_code == 401


class Page:
    """An open page: reads one worker's stream in a thread."""

    def __init__(self, worker: Worker, last_event_id: str | None = None) -> None:
        self.changes: dict[str, list[str]] = {}
        self.events: list[str] = []
        self.last_id: str | None = None
        self.opened = threading.Event()
        self._worker = worker
        self._headers = {"Last-Event-ID": last_event_id} if last_event_id else {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self.opened.wait(20)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        # A sign of life comes each second, with which the thread sees that it is to end.
        self._thread.join(20)
        assert not self._thread.is_alive()

    def _read(self) -> None:
        event = ""
        with self._worker.client.stream("GET", "/tasks/dashboard/stream", headers=self._headers) as answer:
            for line in answer.iter_lines():
                if self._stop.is_set():
                    return
                field, _, value = line.partition(": ")
                if field == "event":
                    event = value
                    self.events.append(event)
                elif field == "id":
                    self.last_id = value
                elif field == "data" and event == "hello":
                    self.opened.set()
                elif field == "data" and event == "task":
                    change = json.loads(value)
                    self.changes.setdefault(change["task_id"], []).append(change["status"])


def test_a_page_at_one_worker_shows_what_another_does(shared_server: Server) -> None:
    """Each change comes once, own ones too; a page that comes back to another worker is told to load anew."""
    with Workers(shared_server) as found:
        workers = found.all()
        with Page(workers[0]) as page:
            (task_id,) = workers[1].add("slow")
            wait_for(lambda: page.changes.get(task_id, []), lambda told: told[-1:] == ["running"])
            workers[2].post(f"/{task_id}/cancel")
            told = wait_for(lambda: page.changes.get(task_id, []), lambda told: told[-1:] == ["cancelled"])
            assert told.count("cancelled") == 1
            (other,) = workers[2].add("fails")
            told = wait_for(lambda: page.changes.get(other, []), lambda told: told[-1:] == ["failed"])
            assert told.count("failed") == 1
            last_id = page.last_id
    with Workers(shared_server) as found, Page(found.all()[1], last_id) as page:
        wait_for(lambda: page.events, lambda events: "resync" in events)


def test_the_json_metrics_are_the_same_from_each(workers: list[Worker]) -> None:
    """They are the store's."""
    for worker in workers:
        worker.add("quick", 5)
    wait_for(lambda: workers[0].get("?status=pending,running&func_name=quick"), lambda page: not page)
    figures = [worker.get("/metrics") for worker in workers]
    assert figures[0]["functions"]["quick"]["success"] >= 15
    assert figures[0] == figures[1] == figures[2]


class Scraper:
    """Scrapes whoever answers, and holds every counter against what it was."""

    def __init__(self) -> None:
        self.highest: dict[str, float] = {}
        self.scrapes = 0

    def take(self, counters: dict[str, float]) -> dict[str, float]:
        """Compare, and remember."""
        back = {
            name: (value, counters.get(name))
            for name, value in self.highest.items()
            if counters.get(name, -1.0) < value
        }
        assert not back, f"scrape {self.scrapes} took back (was, is): {back}"
        self.highest = counters
        self.scrapes += 1
        return counters

    def scrape(self, server: Server) -> dict[str, float]:
        """Scrape over a new connection, once somebody answers."""
        deadline = time.monotonic() + 30
        while True:
            try:
                with httpx.Client(base_url=server.url, timeout=30.0) as client:
                    return self.take(counters_of(client))
            except httpx.TransportError:
                assert time.monotonic() < deadline, "nobody answers"
                time.sleep(0.02)


ENQUEUED = 'taskflow_tasks_enqueued_total{queue="default",task="quick"}'
SUCCEEDED = 'taskflow_tasks_finished_total{queue="default",status="success",task="quick"}'
TIMED = 'taskflow_task_duration_seconds_count{queue="default",task="quick"}'


def until(scraper: Scraper, worker: Worker, total: int) -> None:
    """Scrape one worker until it says that so many were added, have succeeded and were timed."""
    wait_for(
        lambda: scraper.take(worker.counters()),
        lambda told: (told[ENQUEUED], told[SUCCEEDED], told[TIMED]) == (total, total, total),
    )


def test_no_counter_ever_goes_back(start_server: Callable[..., Server], fresh_database_url: str) -> None:
    """Not from worker to worker, not when one is killed, not when the whole service starts anew; and they add up."""
    server = start_server(SOURCE, *ARGUMENTS, DATABASE_URL=fresh_database_url)
    scraper = Scraper()
    with Workers(server) as found:
        for round_ in range(1, 4):
            for worker in found.all():
                worker.add("quick", 4)
                scraper.take(worker.counters())
            for worker in found.all():
                until(scraper, worker, round_ * 12)
        victim = found.all()[0]
        victim.add("quick", 7)
        until(scraper, victim, 43)
        os.kill(victim.pid, signal.SIGKILL)
        for _ in range(20):
            assert scraper.scrape(server)[SUCCEEDED] == 43
        after = found.all()
        assert victim.pid not in {worker.pid for worker in after}
        for worker in after:
            worker.add("quick", 1)
        for worker in after:
            until(scraper, worker, 46)
    server.terminate()
    server = start_server(SOURCE, *ARGUMENTS, DATABASE_URL=fresh_database_url)
    for _ in range(10):
        assert scraper.scrape(server)[SUCCEEDED] == 46
    with Workers(server) as found:
        found.all()[0].add("quick", 4)
        wait_for(lambda: scraper.scrape(server), lambda told: told[SUCCEEDED] == 50)
        # By now those that are gone were put together.
        for _ in range(10):
            assert scraper.scrape(server)[SUCCEEDED] == 50


def test_a_locked_database_stops_no_scrape(start_server: Callable[..., Server], tmp_path: Path) -> None:
    """What is counted meanwhile is shown once it is kept; the backlog is shown at once."""
    server = start_server(SOURCE, DATABASE_URL=SQLITE)
    ended = SUCCEEDED.replace("quick", "until_told")
    with httpx.Client(base_url=server.url, timeout=30.0) as client:
        client.post("/add/quick?times=3").raise_for_status()
        client.post("/add/until_told").raise_for_status()
        scraper = Scraper()
        wait_for(lambda: scraper.take(counters_of(client)), lambda told: told[SUCCEEDED] == 3)
        lock = sqlite3.connect(tmp_path / "tasks.db", isolation_level=None)
        with contextlib.closing(lock):
            lock.execute("BEGIN IMMEDIATE")
            (tmp_path / "go").touch()
            wait_for(lambda: health(client), lambda well: well["running"] == 0 and well["backlog"] > 0)
            for _ in range(2):
                assert scraper.take(counters_of(client))[ended] == 0
            assert samples_of(client)["taskflow_store_backlog"] > 0
        wait_for(lambda: scraper.take(counters_of(client)), lambda told: told[ended] == 1)
        wait_for(lambda: samples_of(client)["taskflow_store_backlog"], lambda backlog: backlog == 0)


def health(client: httpx.Client) -> dict[str, Any]:
    """Return how the worker is, well or not."""
    found: dict[str, Any] = client.get("/tasks/health", headers={"Authorization": "Bearer scraper"}).json()
    return found
