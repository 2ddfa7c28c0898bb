"""One run: service, load and faults together, then the check."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import TYPE_CHECKING, Final

from tests.chaos import database as databases
from tests.chaos.checker import check, repeated_at_most_once, taken_over_alive
from tests.chaos.driver import Driver
from tests.chaos.environment import DATABASE, EVIDENCE, LEASE
from tests.chaos.evidence import Evidence
from tests.chaos.faults import plan
from tests.chaos.load import Load
from tests.chaos.recovery import recoveries
from tests.chaos.report import Result
from tests.chaos.runs import runs_of
from tests.chaos.server import Service

if TYPE_CHECKING:
    from collections.abc import Iterable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from tests.chaos.config import Config
    from tests.chaos.database import Database

FIRST_START: Final = 60.0
SETTLED_WITHIN: Final = 60.0
LOOK_AGAIN: Final = 0.2


async def run(config: Config) -> Result:
    """Do one run; return what came of it.

    Raises:
        TimeoutError: If the service does not start, or does not come up again.
    """
    async with _database(config) as database:
        evidence = Evidence(config.folder / "evidence.txt")
        environment = {EVIDENCE: str(config.folder / "evidence.txt"), DATABASE: database.url}
        service = Service(config.folder, environment, workers=config.workers, evidence=evidence)
        load = Load(service.port, rate=config.rate, seed=config.seed)
        driver = Driver(service, database, lease=LEASE)
        async with service.running():
            if not await service.all_up(within=FIRST_START):
                msg = f"the service did not start; see {config.folder / 'server.log'}"
                raise TimeoutError(msg)
            loaded = await _under_load(config, load, driver)
            await _settle(database)
            # While it runs: whether an owner lives can be told only now.
            rows = await database.rows()
            exit_code = await service.stop()
    hits = [*driver.hits, *service.hits]
    _keep(config.folder, [*load.told.accepted, *hits, *driver.kills, *driver.locks])
    lines = evidence.lines()
    runs = runs_of(lines)
    return Result(
        config=config,
        seconds=loaded,
        faults=driver.done,
        told=load.told,
        stored=len(rows),
        statuses=Counter(row.status for row in rows.values()),
        restarts=service.restarts,
        exit_code=exit_code,
        repeated_at_most_once=repeated_at_most_once(runs),
        taken_over_alive=taken_over_alive(runs, hits),
        recoveries=recoveries(driver.kills, driver.locks, lines, runs, rows),
        violations=check(load.told.accepted, rows, runs, hits),
    )


async def _under_load(config: Config, load: Load, driver: Driver) -> float:
    """Do the faults beside the load; return how many seconds it lasted."""
    began = time.monotonic()
    deadline = began + config.seconds
    async with asyncio.TaskGroup() as group:
        group.create_task(load.run())
        await driver.run(plan(config.kills, seed=config.seed, lease=LEASE), deadline=deadline)
        while load.told.tasks < config.tasks and time.monotonic() < deadline:  # noqa: ASYNC110 - a count
            await asyncio.sleep(LOOK_AGAIN)
        load.stop()
    return time.monotonic() - began


def _keep(folder: Path, facts: Iterable[object]) -> None:
    """Leave what the client and the faults know beside the evidence, for whoever looks into a finding."""
    (folder / "facts.txt").write_text("\n".join(map(repr, facts)))


async def _settle(database: Database) -> None:
    """Wait until no task is pending or running; what still is after that is the checker's to find."""
    deadline = time.monotonic() + SETTLED_WITHIN
    while await database.open_tasks() and time.monotonic() < deadline:  # noqa: ASYNC110 - seen in the store only
        await asyncio.sleep(LOOK_AGAIN)


def _database(config: Config) -> AbstractAsyncContextManager[Database]:
    return databases.sqlite(config.folder) if config.db == "sqlite" else databases.postgresql()
