"""Store outages with the real thing: locks, full disks, files that are replaced, read-only or damaged.

In each of them: what was accepted runs and is stored, what got 503 leaves nothing half-done, what runs goes on, health
tells the reason, and the service recovers by itself, without a request that would show it.
"""

# ruff: noqa: ASYNC240 - the loop has nothing else to do while a test looks at its files

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
from fastapi import FastAPI

from fastapi_taskflow import (
    ManagedBackgroundTasks,
    StoreError,
    StoreUnavailableError,
    TaskAdmin,
    TaskManager,
    task_log,
)
from fastapi_taskflow.stores import sqlite
from fastapi_taskflow.stores.sql import SqlStore
from tests.integration.conftest import eventually, serving, wait_for
from tests.programs import missing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from tests.integration.conftest import Server

BULKY_LINES = 20
HEALTH_WITHIN = 2.0
"""Seconds within which a probe must have its answer, in an outage too."""

NOBODY = 65_534


@dataclass
class Shop:
    """An application, what its clients were told, and what really ran.

    Attributes:
        path: The database file.
        manager: Its tasks.
        ran: The mark of each task that ran, in order.
        accepted: The task ids that clients were given, by mark.
        refused: The marks of requests that got 503.
        gate: What the task of ``/hold`` waits for.
    """

    path: Path
    manager: TaskManager
    ran: list[str] = field(default_factory=list)
    accepted: dict[str, str] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    client: httpx.AsyncClient = field(init=False)

    def app(self) -> FastAPI:
        """Return the application."""
        app = FastAPI()
        TaskAdmin(app, self.manager)

        def note(mark: str, _ballast: str) -> None:
            self.ran.append(mark)

        async def hold(mark: str) -> None:
            await self.gate.wait()
            for _ in range(BULKY_LINES):
                task_log("x" * 8_000)  # its end must not fit into what is left on a full disk
            self.ran.append(mark)

        @app.post("/add/{mark}")
        async def add(tasks: ManagedBackgroundTasks, mark: str, size: int = 0, key: str | None = None) -> str:
            return tasks.add_task(note, mark, "x" * size, idempotency_key=key)

        @app.get("/plain")
        async def plain() -> str:
            return "plain"

        self.hold = hold
        return app

    async def add(self, mark: str, *, size: int = 0, key: str | None = None) -> bool:
        """Add a task as a client does; return whether it was accepted."""
        answer = await self.client.post(f"/add/{mark}", params={"size": size} | ({"key": key} if key else {}))
        assert answer.status_code in {200, 503}, answer.text
        if answer.status_code == 200:
            self.accepted[mark] = answer.json()
            return True
        assert answer.headers["retry-after"] == "1"
        self.refused.add(mark)
        return False

    async def accepts(self, mark: str, *, key: str | None = None) -> None:
        """Add a task, again where a busy machine took longer for it than the short patience of these tests."""

        async def added() -> bool:
            return await self.add(mark, key=key)

        assert await eventually(added, bool, within=30)

    async def holds(self, mark: str) -> None:
        """Run a task that goes on until the gate opens."""
        while mark not in self.accepted:
            with contextlib.suppress(StoreUnavailableError):
                self.accepted[mark] = await self.manager.enqueue(self.hold, mark)

    async def refuses(self, *, size: int = 0) -> None:
        """Add tasks until one is refused."""
        for number in range(1_000):
            if not await self.add(f"{len(self.refused)}-{number}", size=size):
                return
        pytest.fail("a thousand tasks were accepted in an outage")

    async def health(self) -> httpx.Response:
        """Return the answer of the health route, which must come soon."""
        began = time.monotonic()
        answer = await self.client.get("/tasks/health")
        assert time.monotonic() - began < HEALTH_WITHIN
        return answer

    async def failing(self, *words: str) -> None:
        """Wait until health is 503 for a reason with all of these words."""

        def told(answer: httpx.Response) -> bool:
            return answer.status_code == 503 and any(
                all(word in reason for word in words) for reason in answer.json()["reasons"]
            )

        answer = await eventually(self.health, told, within=30)
        assert answer.json()["status"] == "failing"

    async def well(self) -> None:
        """Wait until health is 200, though no request adds a task."""
        answer = await eventually(self.health, lambda found: found.status_code == 200, within=30)
        assert (answer.json()["status"], answer.json()["reasons"]) == ("ok", [])

    async def backlog(self) -> int:
        """Return what the metric says."""
        text = (await self.client.get("/tasks/metrics?format=prometheus")).text
        (line,) = [line for line in text.splitlines() if line.startswith("taskflow_store_backlog ")]
        return int(float(line.split()[1]))

    async def settled(self) -> None:
        """Check what came of everything, in the file itself: all that was accepted ran once, nothing else did."""

        async def unsettled() -> list[str]:
            statuses = await asyncio.to_thread(self.stored)
            return [mark for mark, task_id in self.accepted.items() if statuses.get(task_id) != "success"]

        assert await eventually(unsettled, lambda marks: not marks) == []
        assert sorted(self.ran) == sorted(self.accepted)
        stored = await asyncio.to_thread(self.stored)
        others = {status for task_id, status in stored.items() if task_id not in self.accepted.values()}
        assert others <= {"rejected"}

    def stored(self) -> dict[str, str]:
        """Return the status of each task in the file."""
        with contextlib.closing(sqlite3.connect(self.path)) as db:
            return dict(db.execute("SELECT task_id, status FROM taskflow_tasks").fetchall())


@contextlib.asynccontextmanager
async def open_shop(path: Path, *, commit_timeout: float = 0.3, lease: float = 15.0) -> AsyncIterator[Shop]:
    """Serve a shop that has accepted a task, and runs another one until its gate opens."""
    shop = Shop(path, TaskManager(snapshot_db=path, commit_timeout=commit_timeout, lease=lease))
    async with serving(shop.app()) as shop.client:
        await shop.accepts("before")
        await shop.holds("held")
        await eventually(lambda: asyncio.to_thread(shop.stored), lambda stored: "running" in stored.values())
        yield shop
        shop.gate.set()


async def rides_out(shop: Shop, *words: str, size: int = 0) -> None:
    """Check what must hold while an outage lasts, for a reason that has these words in it."""
    await shop.refuses(size=size)
    assert not await shop.add("keyed", size=size, key="k")
    await shop.failing(*words)
    assert (await shop.client.get("/plain")).status_code == 200
    assert (await shop.client.get("/tasks/health?probe=live")).status_code == 200
    shop.gate.set()
    await eventually(shop.backlog, lambda backlog: backlog >= 1)
    assert "held" in shop.ran


async def recovers(shop: Shop) -> None:
    """Check what must hold once the cause is gone: nobody does anything, and all is well again."""
    await shop.well()
    await eventually(shop.backlog, lambda backlog: backlog == 0)
    await shop.accepts("after")
    await shop.accepts("keyed", key="k")
    await shop.settled()


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the write lock from another connection."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield
        other.execute("ROLLBACK")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let SQLite wait for a lock for a moment only."""
    monkeypatch.setattr(sqlite, "BUSY_SECONDS", 0.05)


@pytest.mark.usefixtures("impatient")
async def test_a_lock_is_ridden_out(tmp_path: Path) -> None:
    """Another program holds the write lock."""
    async with open_shop(tmp_path / "tasks.db") as shop:
        with locked(shop.path):
            await rides_out(shop, "does not take changes", "locked by another connection")
        await recovers(shop)


@pytest.mark.slow
async def test_a_lock_that_outlasts_every_default_is_ridden_out(tmp_path: Path) -> None:
    """Longer than SQLite's own patience and than ``commit_timeout`` as they are for users."""
    async with open_shop(tmp_path / "tasks.db", commit_timeout=5.0) as shop:
        with locked(shop.path):
            refused = asyncio.create_task(shop.refuses())
            await shop.failing("under way for")
            await refused
            await shop.failing("locked by another connection")
            shop.gate.set()
        await recovers(shop)


@pytest.mark.usefixtures("impatient")
async def test_the_backlog_has_a_bound_and_is_a_metric(tmp_path: Path) -> None:
    """Beyond it requests are refused at once, not after ``commit_timeout``; what waits is stored afterwards."""
    async with open_shop(tmp_path / "tasks.db", commit_timeout=60.0) as shop:
        shop.manager.journal._max_backlog = 20
        with locked(shop.path):
            waiting = [asyncio.create_task(shop.add(f"w{number}")) for number in range(20)]
            await eventually(shop.backlog, lambda backlog: backlog >= 20)
            async with asyncio.timeout(20):
                assert not any(await asyncio.gather(*(shop.add(f"r{number}") for number in range(200))))
            await shop.failing("changes wait", "no new task")
            assert await shop.backlog() == 20
            assert not any(task.done() for task in waiting)
        assert all(await asyncio.gather(*waiting))
        shop.gate.set()
        await recovers(shop)


@pytest.mark.usefixtures("impatient")
async def test_an_outage_longer_than_the_lease_is_ridden_out(tmp_path: Path) -> None:
    """Others might have taken this instance's tasks; as nobody has, all goes on, what waited for the store included."""
    async with open_shop(tmp_path / "tasks.db", commit_timeout=60.0, lease=0.5) as shop:

        async def lease_is_held() -> bool:
            return shop.manager._runtime._lease.held

        with locked(shop.path):
            waiting = [asyncio.create_task(shop.add(f"w{number}")) for number in range(50)]
            await eventually(lease_is_held, lambda held: not held)
        assert all(await asyncio.gather(*waiting))
        shop.gate.set()
        await recovers(shop)


@pytest.mark.usefixtures("impatient")
async def test_a_long_outage_gathers_nothing(tmp_path: Path) -> None:
    """Requests that were turned away leave no task, no waiter and no coroutine behind, while it still lasts."""
    async with open_shop(tmp_path / "tasks.db", commit_timeout=0.1) as shop:
        with locked(shop.path):
            await shop.refuses()
            await shop.failing("locked")
            before = len(asyncio.all_tasks())
            for turn in range(5):
                assert not any(await asyncio.gather(*(shop.add(f"{turn}-{number}") for number in range(40))))

            async def leftovers() -> tuple[int, int]:
                return len(asyncio.all_tasks()) - before, len(shop.manager.journal.live)

            await eventually(leftovers, lambda found: found[0] <= 2 and found[1] <= 1)
        shop.gate.set()
        await recovers(shop)


# -- full and failing disks ------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    as_root = [] if os.geteuid() == 0 else ["sudo", "-n"]
    options = f"size=4m,mode=0777,uid={os.getuid()}"
    command = [*as_root, "mount", "-t", "tmpfs", "-o", options, "taskflow-test", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        missing(f"a small file system needs {error.filename}")
    if mounted.returncode:
        missing(f"a small file system cannot be mounted: {mounted.stderr.strip()}")
    yield folder
    subprocess.run([*as_root, "umount", "--lazy", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Fill the disk to its last byte; return the file that does."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        for block in (b"x" * 65_536, b"x" * 512, b"x"):
            with contextlib.suppress(OSError):
                while True:
                    file.write(block)
    return filler


async def test_a_full_disk_is_ridden_out(small_disk: Path) -> None:
    """There is no room for one page more, and then there is."""
    async with open_shop(small_disk / "tasks.db") as shop:
        filler = fill(small_disk)
        await rides_out(shop, "does not take changes", "the disk is full", size=100_000)
        filler.unlink()
        await recovers(shop)


async def test_a_database_at_its_size_limit_is_ridden_out(tmp_path: Path) -> None:
    """The same by SQLite's own limit, which needs no file system of its own."""
    async with open_shop(tmp_path / "tasks.db") as shop:
        store = shop.manager.store
        assert isinstance(store, SqlStore)
        (pages,) = await store._writer.run(lambda db: db.execute("PRAGMA page_count").fetchone())
        await store._writer.run(lambda db: db.execute(f"PRAGMA max_page_count={pages}").fetchone())
        await rides_out(shop, "does not take changes", "the disk is full", size=100_000)
        await store._writer.run(lambda db: db.execute("PRAGMA max_page_count=1000000").fetchone())
        await recovers(shop)


SERVER = """
from fastapi import FastAPI
from fastapi_taskflow import ManagedBackgroundTasks, TaskAdmin, TaskManager

app = FastAPI()
task_manager = TaskManager(snapshot_db="tasks.db", commit_timeout=0.3)
TaskAdmin(app, task_manager)

def note(mark: str, ballast: str) -> None:
    with open("ran", "a") as file:
        file.write(mark + chr(10))

@app.get("/ready")
async def ready() -> str:
    return "ready"

@app.post("/add/{mark}")
async def add(tasks: ManagedBackgroundTasks, mark: str, size: int = 0) -> str:
    return tasks.add_task(note, mark, "x" * size)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can change another process's limits")
def test_a_disk_that_fails_is_ridden_out(tmp_path: Path, start_server: Callable[..., Server]) -> None:
    """Writes of the server fail in the kernel (``EFBIG``), and then they do not."""
    import resource

    server = start_server(SERVER)
    accepted: dict[str, str] = {}

    def add(mark: str) -> int:
        answer = httpx.post(f"{server.url}/add/{mark}", params={"size": 50_000}, timeout=10)
        if answer.status_code == 200:
            accepted[mark] = answer.json()
        return answer.status_code

    def health() -> httpx.Response:
        return httpx.get(f"{server.url}/tasks/health", timeout=HEALTH_WITHIN)

    assert add("before") == 200
    no_limit = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    size = (tmp_path / "tasks.db-wal").stat().st_size
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    refused = next(mark for mark in map(str, range(1_000)) if add(mark) == 503)
    answer = wait_for(health, lambda found: found.status_code == 503)
    assert any("the disk failed" in reason for reason in answer.json()["reasons"]), answer.json()
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, no_limit)
    wait_for(health, lambda found: found.status_code == 200)
    assert add("after") == 200

    def statuses() -> dict[str, str]:
        found = httpx.get(f"{server.url}/tasks", params={"limit": 500}).json()
        return {record["task_id"]: record["status"] for record in found}

    wait_for(statuses, lambda found: all(found.get(task_id) == "success" for task_id in accepted.values()))
    ran = (tmp_path / "ran").read_text().split()
    assert sorted(ran) == sorted(accepted)
    assert refused not in ran


# -- files that are replaced, read-only or damaged -------------------------------------------------------------------


async def ended(shop: Shop, number: int) -> None:
    """Wait until so many tasks are stored as successful, and nothing waits for the store."""
    await eventually(
        lambda: asyncio.to_thread(shop.stored), lambda stored: list(stored.values()).count("success") == number
    )
    await eventually(shop.backlog, lambda backlog: backlog == 0)


async def new_database(path: Path) -> Path:
    """Make an empty database of ours."""
    store = SqlStore(path)
    await store.open()
    await store.close()
    return path


@pytest.mark.parametrize("how", ["replaced", "deleted", "moved"])
async def test_a_file_that_is_not_there_any_more_loses_nothing_accepted(tmp_path: Path, how: str) -> None:
    """What comes and what runs is stored in the file that is there now; what had ended went with the old one."""
    async with open_shop(tmp_path / "tasks.db") as shop:
        await ended(shop, 1)
        new = await new_database(tmp_path / "new.db")
        if how == "replaced":
            new.rename(shop.path)
        elif how == "deleted":
            shop.path.unlink()
        else:
            shop.path.rename(tmp_path / "moved.db")
        gone = shop.accepted.pop("before")
        shop.ran.remove("before")
        for number in range(50):
            await shop.add(f"m{number}")
        shop.gate.set()
        await shop.well()
        await shop.accepts("after")
        await shop.settled()
    with contextlib.closing(sqlite3.connect(shop.path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    if how == "moved":
        with contextlib.closing(sqlite3.connect(tmp_path / "moved.db")) as db:
            assert db.execute("SELECT status FROM taskflow_tasks WHERE task_id = ?", (gone,)).fetchone() == ("success",)


async def test_a_replaced_file_is_noticed_without_a_task(tmp_path: Path) -> None:
    """What runs is written into the new file soon, not only when it ends: a crash must not make it vanish."""
    async with open_shop(tmp_path / "tasks.db", lease=0.6) as shop:
        await ended(shop, 1)
        new = await new_database(tmp_path / "new.db")
        new.rename(shop.path)

        async def generation() -> int:
            return shop.manager.store.generation

        # Looking into the file before that would read the old one's log into it.
        await eventually(generation, lambda found: found == 1)
        await eventually(
            lambda: asyncio.to_thread(shop.stored), lambda stored: stored.get(shop.accepted["held"]) == "running"
        )
        shop.gate.set()
        shop.accepted.pop("before")
        shop.ran.remove("before")
        await shop.settled()


@pytest.fixture
def powerless() -> Iterator[Path]:
    """A folder, and a process that rights to files hold for: one that runs as root gives its power up meanwhile."""
    folder = Path(tempfile.mkdtemp(prefix="taskflow-"))
    if os.geteuid() == 0:
        os.chown(folder, NOBODY, NOBODY)
        os.seteuid(NOBODY)
    yield folder
    if os.getuid() == 0:
        os.seteuid(0)
    shutil.rmtree(folder)


@pytest.fixture
async def warm(tmp_path: Path) -> None:
    """Import everything first, which somebody without power may not be able to read."""
    async with open_shop(tmp_path / "warm.db") as shop:
        shop.gate.set()


@pytest.mark.skipif(sys.platform == "win32", reason="rights are another thing there")
@pytest.mark.usefixtures("warm")
async def test_a_read_only_file_is_ridden_out(powerless: Path) -> None:
    """A file that is open stays writable; one that is put in its place read-only is a reason, until it is not."""
    async with open_shop(powerless / "tasks.db") as shop:
        for file in powerless.iterdir():
            file.chmod(0o444)
        powerless.chmod(0o555)
        await shop.accepts("open")
        await shop.well()
        powerless.chmod(0o755)
        new = await new_database(powerless / "new.db")
        await ended(shop, 2)
        for mark in ("before", "open"):
            shop.accepted.pop(mark)
            shop.ran.remove(mark)
        new.chmod(0o444)
        new.rename(shop.path)
        await rides_out(shop, "it cannot be written")
        shop.path.chmod(0o644)
        await recovers(shop)


@pytest.mark.skipif(sys.platform == "win32", reason="rights are another thing there")
@pytest.mark.usefixtures("warm")
async def test_a_start_with_a_read_only_file_says_so(powerless: Path) -> None:
    """The service does not come up to refuse every request."""
    path = await new_database(powerless / "tasks.db")
    path.chmod(0o444)
    with pytest.raises(StoreUnavailableError, match=r"tasks\.db.*cannot be written"):
        await TaskManager(snapshot_db=path).startup()


def damage(path: Path, *, first: int = 0) -> None:
    """Overwrite the pages of a database from a number on, in place."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        # A commit of somebody else's, so that nobody goes on with the pages that they remember.
        other.execute("UPDATE taskflow_instances SET host = host")
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (page,) = other.execute("PRAGMA page_size").fetchone()
    with path.open("r+b", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(first * page)
        file.write(b"\xa5" * (size - first * page))


@pytest.mark.parametrize("first", [0, 1])
async def test_a_damaged_file_is_told_and_replacing_it_is_enough(
    tmp_path: Path, first: int, caplog: pytest.LogCaptureFixture
) -> None:
    """No crash and no flood in the log; with a sound file in its place all goes on."""
    async with open_shop(tmp_path / "tasks.db") as shop:
        await ended(shop, 1)
        backup = tmp_path / "backup.db"
        with contextlib.closing(sqlite3.connect(shop.path)) as db, contextlib.closing(sqlite3.connect(backup)) as copy:
            db.backup(copy)
        damage(shop.path, first=first)
        caplog.clear()
        await rides_out(shop, "does not take changes", "tasks.db")
        for _ in range(20):
            assert (await shop.health()).status_code == 503
        ours = [r for r in caplog.records if r.name.startswith("fastapi_taskflow") and "/add/" not in r.getMessage()]
        assert len(ours) <= 6, [record.getMessage() for record in ours]
        backup.rename(shop.path)
        await recovers(shop)


@pytest.mark.parametrize("first", [0, 1])
async def test_a_start_with_a_damaged_file_names_it(tmp_path: Path, first: int) -> None:
    """The error says which file, and the file is left as it is."""
    path = await new_database(tmp_path / "tasks.db")
    damage(path, first=first)
    before = path.read_bytes()
    with pytest.raises(StoreError, match=r"tasks\.db"):
        await TaskManager(snapshot_db=path).startup()
    assert path.read_bytes() == before
