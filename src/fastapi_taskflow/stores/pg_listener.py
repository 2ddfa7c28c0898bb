"""Hears the notifications that other instances send through PostgreSQL."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Final

import sqlalchemy as sa

from fastapi_taskflow.stores.schema import tasks

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastapi_taskflow.stores.pg import Driver, Standing

logger = logging.getLogger("fastapi_taskflow.stores")

_CHANNEL: Final = "'taskflow_' || md5(current_schema())"
"""One for each schema, so that two services in one database do not wake each other."""

WHICH_CHANNEL: Final = f"SELECT {_CHANNEL}"

NOTIFY_OWNER: Final = sa.select(sa.func.pg_notify(sa.literal_column(_CHANNEL), tasks.c.owner)).where(
    tasks.c.task_id == sa.bindparam("id_of_task")
)
"""Part of a transaction: it is heard when that is committed."""

AGAIN_AFTER: Final = 1.0
"""Seconds until a connection that ended is made anew. Meanwhile there is looking by the clock, as without signals."""

LOOK_AFTER: Final = 15.0
"""Seconds after which a silent connection is asked whether it is still one."""


class Listener:
    """Keeps one connection that listens, and lets one waiter wait for what it hears.

    Args:
        line: The connection.
        is_mine: Whether a notification with this text is meant for this instance.
    """

    def __init__(self, line: Standing, is_mine: Callable[[str], bool]) -> None:
        self._line = line
        self._is_mine = is_mine
        self._heard = asyncio.Event()
        self._task = asyncio.get_running_loop().create_task(self._listen_for_ever(), name="taskflow-listener")

    async def wait(self, within: float) -> bool:
        """Return True as soon as something was heard, False after ``within`` seconds."""
        try:
            await asyncio.wait_for(self._heard.wait(), within)
        except TimeoutError:
            return False
        self._heard.clear()
        return True

    async def close(self) -> None:
        """Stop listening."""
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        await self._line.drop()

    async def _listen_for_ever(self) -> None:
        failing = False
        while True:
            try:
                driver = await self._line.driver()
                ended = await self._listen(driver)
                if failing:
                    logger.info("notifications of other instances are heard again")
                failing = False
                await _until_it_ends(driver, ended)
            except Exception as error:  # noqa: BLE001 - without signals everything still works, only later
                if not failing:
                    logger.warning("notifications of other instances are not heard for now: %s", error)
                failing = True
                await self._line.drop()
            await asyncio.sleep(AGAIN_AFTER)

    async def _listen(self, driver: Driver) -> asyncio.Event:
        ended = asyncio.Event()
        driver.add_termination_listener(lambda *_: ended.set())
        (row,) = await driver.fetch(WHICH_CHANNEL)
        await driver.add_listener(row[0], self._hear)
        return ended

    def _hear(self, *notification: object) -> None:
        if self._is_mine(str(notification[-1])):
            self._heard.set()


async def _until_it_ends(driver: Driver, ended: asyncio.Event) -> None:
    while not ended.is_set():
        try:
            await asyncio.wait_for(ended.wait(), LOOK_AFTER)
        except TimeoutError:
            await driver.execute("SELECT 1")
