"""Tasks that are added within a transaction of the user's own: its commit starts them, its rollback undoes them."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from fastapi_taskflow import clock
from fastapi_taskflow.errors import ConfigurationError, StoreError
from fastapi_taskflow.store import CarryingStore
from fastapi_taskflow.task import lifecycle
from fastapi_taskflow.task.event import EventKind, TaskEvent

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fastapi_taskflow.engine import Engine
    from fastapi_taskflow.entry import Entry
    from fastapi_taskflow.expiry import Expiry
    from fastapi_taskflow.journal import Journal
    from fastapi_taskflow.store import Carrier, Ride
    from fastapi_taskflow.task.record import TaskRecord

logger = logging.getLogger("fastapi_taskflow.transaction")

LOOK_FIRST: Final = 0.001
LOOK_MOST: Final = 0.05
"""Seconds between two looks at a commit that is under way."""


class CarriedTask:
    """One task in a transaction of the user's.

    Attributes:
        entry: The task.
        in_order: Whether the tasks of its transaction run one after another, as those of a request do.
        committed: Whether the transaction was. May be set on any thread.
        ended: Set when its first attempt has ended, or when it turned out that there will be none here.
    """

    __slots__ = ("committed", "ended", "entry", "in_order")

    def __init__(self, entry: Entry, *, in_order: bool) -> None:
        self.entry = entry
        self.in_order = in_order
        self.committed = False
        self.ended = asyncio.Event()

    @property
    def record(self) -> TaskRecord:
        """The record as it is in the transaction."""
        return self.entry.record

    @record.setter
    def record(self, record: TaskRecord) -> None:
        self.entry.record = record

    async def __call__(self) -> None:
        """Wait for the first attempt, if the transaction was committed."""
        if self.committed:
            await self.ended.wait()


class Transactions:
    """Puts new tasks into the user's transactions, without an owner, and takes them from there at the commit.

    Whoever is first makes a committed task his own: this instance at once, or any other one's recovery, if this one
    dies in between.

    Args:
        journal: The way into the store.
        engine: Where claimed tasks go.
        expiry: Ends what may not start any more.
        owner: Returns the id of this instance.
    """

    def __init__(self, journal: Journal, engine: Engine, expiry: Expiry, owner: Callable[[], str]) -> None:
        self.engine = engine
        self._journal = journal
        self._expiry = expiry
        self._owner = owner

    def carrier(self, session: object) -> Carrier:
        """Return what puts tasks into the transaction of ``session``.

        Raises:
            ConfigurationError: If the store is not in a database, or not in the session's, or ``session`` is none.
        """
        store = self._journal.store
        if not isinstance(store, CarryingStore):
            msg = (
                f"session= needs the tasks in the session's database, but {type(store).__name__} keeps them elsewhere: "
                "give TaskManager that database as snapshot_db or snapshot_backend"
            )
            raise ConfigurationError(msg)
        return store.carrier(session, self._committed)

    async def enqueue(self, entry: Entry, carrier: Carrier) -> str:
        """Insert a new task in the transaction now; return its id, or that of the first one if its key is taken."""
        _disown(entry)
        await carrier.insert(CarriedTask(entry, in_order=False))
        return entry.record.task_id

    def add(self, entry: Entry, carrier: Carrier, *, in_order: bool) -> CarriedTask:
        """Have a new task of a request inserted at the commit. May be called in any thread.

        Args:
            entry: The task.
            carrier: The transaction.
            in_order: Whether it waits for those that were added before it to end.
        """
        _disown(entry)
        carried = CarriedTask(entry, in_order=in_order)
        carrier.insert_at_commit(carried)
        return carried

    # -- after the commit --------------------------------------------------------------------------------------------

    def _committed(self, rides: Sequence[Ride], under_way: Callable[[], bool]) -> None:
        """Be told of a commit, on whatever thread; the user's commit must not fail for what goes wrong here."""
        carried = [ride for ride in rides if isinstance(ride, CarriedTask)]
        for each in carried:
            each.committed = True
        try:
            self._journal.call_soon(self._begin, carried, under_way)
        except RuntimeError:
            logger.warning("%d task(s) committed after the manager's end; another instance takes them", len(carried))

    def _begin(self, carried: Sequence[CarriedTask], under_way: Callable[[], bool]) -> None:
        if self._journal.running:
            self.engine.spawn(self._take(carried, under_way))
            return
        logger.warning("%d task(s) committed after the manager's end; another instance takes them", len(carried))
        for each in carried:
            each.ended.set()

    async def _take(self, carried: Sequence[CarriedTask], under_way: Callable[[], bool]) -> None:
        try:
            pause = LOOK_FIRST
            while under_way():
                await asyncio.sleep(pause)
                pause = min(2 * pause, LOOK_MOST)
            ours = await self._claim(carried)
            for each in ours:
                if not each.in_order:
                    self.engine.submit(each.entry)
            for each in ours:
                if each.in_order:
                    await self.engine.run(each.entry)
                    each.ended.set()
        finally:
            for each in carried:
                each.ended.set()

    async def _claim(self, carried: Sequence[CarriedTask]) -> Sequence[CarriedTask]:
        """Make the tasks this instance's own; return those that are."""
        me = self._owner()
        asked = []
        for each in carried:
            entry = each.entry
            if entry.record.idempotency_key is not None and not await self._is_there(entry.record):
                continue
            entry.committed = entry.record
            self._journal.live[entry.record.task_id] = entry
            self._journal.append(entry, lifecycle.requeue(entry.record, at=clock.now(), owner=me))
            asked.append(each)
        if asked:
            await self._journal.next_commit().wait()
        # What the store holds, not what was asked for: somebody may have been faster, or the commit failed after all.
        ours = [each for each in asked if not each.entry.lost and _owner_of(each.entry) == me]
        for each in ours:
            each.entry.admitted = True
            self._expiry.mind(each.entry)
            self._journal.publish(TaskEvent(EventKind.ENQUEUED, each.entry.record, clock.now()))
        return ours

    async def _is_there(self, record: TaskRecord) -> bool:
        """Tell whether the store's task with this key is the one of the transaction, not one that came later."""
        try:
            held = await self._journal.store.get(record.task_id)
        except StoreError as error:
            logger.warning("task %s is left to the recovery: %s", record.task_id, error)
            return False
        if held is None or (held.owner, held.created_at) != (record.owner, record.created_at):
            return False
        # One with the same key may just be on its way into the store, where it will be refused.
        while (commit := self._journal.commit_of(record.task_id)) is not None:
            await commit.wait()
        return record.task_id not in self._journal.live


def _disown(entry: Entry) -> None:
    entry.record = entry.record._replace(owner="")


def _owner_of(entry: Entry) -> str | None:
    return entry.committed.owner if entry.committed is not None else None
