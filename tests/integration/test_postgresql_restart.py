"""A PostgreSQL server that is restarted under load: a server of this test's own, so that no other is disturbed."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.integration.conftest import wait_for
from tests.programs import missing, require_program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.integration.conftest import Server

pytestmark = pytest.mark.postgres

CLIENTS = 4
APP = """
import os
from fastapi import FastAPI
from fastapi_taskflow import ManagedBackgroundTasks, TaskAdmin, TaskManager, get_task_context

task_manager = TaskManager(snapshot_backend=os.environ["DATABASE"], commit_timeout=1.0)
app = FastAPI()
TaskAdmin(app, task_manager, auto_install=True)

async def note() -> None:
    with open("ran.txt", "a") as file:
        file.write(get_task_context().task_id + "\\n")

@app.get("/ready")
async def ready() -> str:
    return "yes"

@app.post("/add")
async def add(tasks: ManagedBackgroundTasks) -> str:
    return tasks.add_task(note)
"""


class Cluster:
    """A server of our own, as the user ``postgres`` where we are root: the server refuses to be."""

    def __init__(self, programs: Path, home: Path, port: int) -> None:
        self.url = f"postgresql+asyncpg://postgres@127.0.0.1:{port}/postgres"
        self._programs = programs
        self._data = home / "data"
        self._options = f"-p {port} -k {home} -c listen_addresses=127.0.0.1 -c fsync=off"
        self._log = home / "log"

    def run(self, program: str, *arguments: str) -> None:
        """Run one of PostgreSQL's programs on the data."""
        prefix = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        command = [*prefix, str(self._programs / program), "-D", str(self._data), *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT, cwd="/", timeout=60)

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self.run("pg_ctl", "-w", "-l", str(self._log), "-o", self._options, "start")

    def stop(self, mode: str) -> None:
        """Stop it: ``immediate`` is a crash, ``fast`` ends the sessions."""
        self.run("pg_ctl", "-w", "-m", mode, "stop")


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A server that runs."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    programs = found[-1].parent if found else Path(require_program("initdb")).parent
    home = Path(tempfile.mkdtemp(prefix="taskflow-pg-"))
    if os.geteuid() == 0:
        try:
            owner = pwd.getpwnam("postgres")
        except KeyError:
            missing("there is no user postgres that a server could run as")
        os.chown(home, owner.pw_uid, owner.pw_gid)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        made = Cluster(programs, home, probe.getsockname()[1])
    try:
        made.run("initdb", "-U", "postgres", "-A", "trust", "-E", "UTF8")
        made.start()
        yield made
    finally:
        with contextlib.suppress(subprocess.CalledProcessError):
            made.stop("immediate")
        shutil.rmtree(home)


class Load:
    """Clients that add tasks until they are told to stop, and keep what was accepted."""

    def __init__(self, url: str) -> None:
        self.accepted: list[str] = []
        self.refused = 0
        self.others: list[int] = []
        self._url = url
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._add) for _ in range(CLIENTS)]

    def _add(self) -> None:
        with httpx.Client(base_url=self._url, timeout=30) as client:
            while not self._over.wait(0.01):
                answer = client.post("/add")
                if answer.status_code == 200:
                    self.accepted.append(answer.json())
                elif answer.status_code == 503:
                    self.refused += 1
                else:
                    self.others.append(answer.status_code)

    def __enter__(self) -> Load:  # noqa: PYI034
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()


@pytest.mark.parametrize("mode", ["immediate", "fast"])
def test_nothing_accepted_is_lost_when_the_server_is_restarted(
    cluster: Cluster, start_server: Callable[..., Server], tmp_path: Path, mode: str
) -> None:
    """Requests get 503 meanwhile, everything accepted runs once, and it works again by itself."""
    server = start_server(APP, DATABASE=cluster.url)
    with Load(server.url) as load:
        wait_for(lambda: len(load.accepted), lambda number: number > 50)
        cluster.stop(mode)
        wait_for(lambda: load.refused, lambda number: number > 2 * CLIENTS, within=30)
        assert httpx.get(f"{server.url}/tasks/health", timeout=10).status_code == 503
        before = len(load.accepted)
        cluster.start()
        wait_for(lambda: len(load.accepted), lambda number: number > before + 50, within=30)
    assert load.others == []
    ran = tmp_path / "ran.txt"
    wait_for(lambda: set(load.accepted) - set(ran.read_text().split()), lambda missed: not missed)
    lines = ran.read_text().split()
    assert len(lines) == len(set(lines))
    assert set(lines) == set(load.accepted)
    counts = wait_for(
        lambda: httpx.get(f"{server.url}/tasks/metrics?format=json", timeout=10).json(),
        lambda metrics: metrics["success"] >= len(lines),
    )
    assert counts["success"] == len(lines)
    assert counts["running"] == counts["pending"] == 0
    assert httpx.get(f"{server.url}/tasks/health", timeout=10).status_code == 200
