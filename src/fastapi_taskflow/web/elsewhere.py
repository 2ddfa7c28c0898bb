"""Tells the open pages of what happens to tasks of other instances."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from fastapi_taskflow import clock
from fastapi_taskflow.errors import StoreError
from fastapi_taskflow.task.record import TaskRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from fastapi_taskflow.store import Store
    from fastapi_taskflow.web.stream import ChangeFeed

logger = logging.getLogger("fastapi_taskflow.web")

EVERY: Final = 1.0
"""Seconds between two looks."""

OVERLAP: Final = 10.0
"""Seconds for which a look goes back behind the one before: clocks of hosts differ, and commits come late."""

FIRST: Final = 3.0
"""Seconds for which the first look goes back: since then the page was loaded."""

LIMIT: Final = 200
"""Tasks of each kind in one look. A page for which so much happens loads itself anew."""

LOOKUPS: Final = 50
"""Tasks that are looked up one by one after a look."""


class Elsewhere:
    """Looks into the store about once a second, while a page is open and other instances work on the same store.

    Args:
        store: Where the other instances' changes come to be seen.
        feed: Whom to tell.
        me: Returns the id of this instance, whose own changes the feed knows already.
    """

    def __init__(self, store: Store, feed: ChangeFeed, *, me: Callable[[], str]) -> None:
        self._store = store
        self._feed = feed
        self._me = me
        self._since: float | None = None
        self._told: dict[str, int] = {}
        self._living: frozenset[str] = frozenset()
        self._away = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin, on the running loop."""
        self.stop()
        self._forget()
        self._task = asyncio.get_running_loop().create_task(self._go_on(), name="taskflow-elsewhere")

    def stop(self) -> None:
        """End, in the middle of a look if need be."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()

    async def _go_on(self) -> None:
        while True:
            await asyncio.sleep(EVERY)
            try:
                await self.look()
            except Exception as error:  # noqa: BLE001 - the stream of this instance's own changes must go on
                self._pause(error)

    def _pause(self, error: Exception) -> None:
        if self._away:
            return
        self._away = True
        reason = None if isinstance(error, StoreError) else error
        logger.warning(
            "changes of other instances are not streamed until the store answers: %s", error, exc_info=reason
        )

    async def look(self) -> None:
        """Tell of what has changed since the last look.

        Raises:
            StoreError: If the store does not answer. What has changed meanwhile is told of later.
        """
        if not self._feed.clients:
            self._forget()
            return
        me = self._me()
        alone = all(each.instance_id == me for each in await self._store.instances())
        if alone and not self._living:
            self._forget()
            return
        now = clock.now()
        since = now - FIRST if self._since is None else self._since
        found = [each for each in await self._store.changes(since, limit=LIMIT) if self._is_elsewhere(each)]
        ended = await self._ended_otherwise({each.task_id for each in found})
        news = sorted((each for each in (*found, *ended) if self._is_news(each, since)), key=_touched)
        if self._away:
            self._away = False
            self._feed.resync()
        else:
            for record in news:
                self._feed.tell(record)
        self._told = {each.task_id: each.version for each in (*found, *ended)}
        self._living = frozenset(each.task_id for each in found if not each.finished)
        self._since = now - OVERLAP

    async def _ended_otherwise(self, found: Collection[str]) -> Sequence[TaskRecord]:
        """Return what lived at the last look and is in no list now, such as what was interrupted."""
        lost = sorted(self._living - set(found))
        if len(lost) > LOOKUPS:
            self._feed.resync()
        records = [await self._store.get(task_id) for task_id in lost[:LOOKUPS]]
        return [record for record in records if record is not None and self._is_elsewhere(record)]

    def _is_elsewhere(self, record: TaskRecord) -> bool:
        # Without an owner it is part of a transaction that its instance is about to take up, and to tell of.
        return record.owner not in {"", self._me()}

    def _is_news(self, record: TaskRecord, since: float) -> bool:
        if self._since is None:
            # What lives for longer is on the page as it was loaded.
            return _touched(record) >= since
        return record.version > self._told.get(record.task_id, 0)

    def _forget(self) -> None:
        self._since = None
        self._told = {}
        self._living = frozenset()


def _touched(record: TaskRecord) -> float:
    return max(record.created_at, record.start_time or 0.0, record.end_time or 0.0)
