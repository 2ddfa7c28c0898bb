"""The one thread that writes to a SQLite file, with the one writing connection of this process."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

import sqlalchemy as sa

from fastapi_taskflow.errors import StoreError, StoreUnavailableError, TaskflowError
from fastapi_taskflow.stores.place import Place, claim_file, is_intact, is_replaced, is_writable, log_id, remove_old_log
from fastapi_taskflow.stores.sqlite import keeps_connection, store_error

if TYPE_CHECKING:
    from collections.abc import Callable

_T = TypeVar("_T")

logger = logging.getLogger("fastapi_taskflow.stores")


class Writer:
    """Runs functions on its thread, one after another, and wakes the loop once for each.

    After an error that may have harmed the connection the next call opens a new one, so that the store works again
    as soon as the cause is gone. After each call it is looked whether the file is still in its place: what was written
    into one that was moved away counts as not written.

    Args:
        engine: Makes the connection.
        file: The database file.
        prepare: Called with each new connection before it is used, on the thread.

    Attributes:
        generation: Goes up when the file at the path has become another one.
    """

    def __init__(self, engine: sa.Engine, file: str, prepare: Callable[[sa.Connection], None]) -> None:
        self._engine = engine
        self._file = file
        self._prepare = prepare
        self._jobs: SimpleQueue[tuple[Callable[[], Any], asyncio.Future[Any]] | None] = SimpleQueue()
        self._connection: sa.Connection | None = None
        self._raw: sqlite3.Connection | None = None
        self._place: Place | None = None
        self.generation = 0
        self._loop = asyncio.get_running_loop()
        # A daemon, so that a program that never closes its store still ends. What it acknowledged is committed.
        self._thread = threading.Thread(target=self._work, name="taskflow-writer", daemon=True)
        self._thread.start()

    async def run(self, job: Callable[[sqlite3.Connection], _T]) -> _T:
        """Call ``job`` with the driver's connection, which is in no transaction.

        Raises:
            StoreUnavailableError: If the file has become another one since the call: ``job`` was made for what was in
                the old one.
        """
        expected = self.generation

        def call() -> _T:
            db = self._driver()
            if self.generation != expected:
                msg = f"the task store {self._file!r} was replaced; what is live is written into the new file"
                raise StoreUnavailableError(msg)
            result = job(db)
            self._check_place()
            return result

        return await self._call(call)

    async def transaction(self, job: Callable[[sa.Connection], _T]) -> _T:
        """Call ``job`` within a write transaction."""

        def call() -> _T:
            connection = self._connected()
            with connection.begin():
                result = job(connection)
            self._check_place()
            return result

        return await self._call(call)

    async def connect(self) -> None:
        """Open and prepare the connection."""
        await self._call(self._connected)

    @property
    def place(self) -> Place | None:
        """What was last opened."""
        return self._place

    def is_at_home(self) -> bool:
        """Tell whether what is at the path is what is written to. Cheap, and may be called on any thread."""
        place = self._place
        return place is None or is_intact(place, self._file)

    async def follow(self) -> None:
        """Open the file that is at the path now, if it is another one."""

        def call() -> None:
            with contextlib.suppress(StoreUnavailableError):
                self._check_place()
            self._connected()

        await self._call(call)

    async def close(self) -> None:
        """Finish what was asked for, close the connection and end the thread."""
        try:
            await self._call(self._disconnect)
        finally:
            self._jobs.put(None)
            await asyncio.to_thread(self._thread.join)

    def _call(self, job: Callable[[], _T]) -> asyncio.Future[_T]:
        future: asyncio.Future[_T] = self._loop.create_future()
        self._jobs.put((job, future))
        return future

    # -- on the thread -----------------------------------------------------------------------------------------------

    def _work(self) -> None:
        while (item := self._jobs.get()) is not None:
            job, future = item
            try:
                result = job()
            except BaseException as error:  # noqa: BLE001 - it goes to the caller, and the thread lives on
                self._answer(_fail, future, self._meaning(error))
            else:
                self._answer(_succeed, future, result)
            del item, job, future

    def _answer(
        self, settle: Callable[[asyncio.Future[Any], Any], None], future: asyncio.Future[Any], what: Any
    ) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(settle, future, what)

    def _meaning(self, error: BaseException) -> BaseException:
        cause = error.orig if isinstance(error, sa.exc.DBAPIError) and error.orig is not None else error
        if not isinstance(cause, sqlite3.Error):
            return (
                error
                if isinstance(error, TaskflowError)
                else StoreError(f"writing to {self._file!r} failed: {error!r}")
            )
        if not keeps_connection(cause):
            with contextlib.suppress(Exception):
                self._disconnect()
        meaning = store_error(cause, self._file)
        meaning.__cause__ = cause
        return meaning

    def _connected(self) -> sa.Connection:
        connection = self._connection
        if connection is None:
            before = self._place
            replaced = before is not None and is_replaced(before, self._file)
            if before is not None and replaced:
                remove_old_log(before)
            path, database = claim_file(self._file)
            if not is_writable(path):
                # SQLite would open it to be read only, and leave a log and an index that nobody may write to either.
                msg = f"the task store {self._file!r} is not available: it cannot be written (no permission)"
                raise StoreUnavailableError(msg)
            connection = self._engine.connect()
            try:
                self._prepare(connection)
                self._raw = connection.connection.driver_connection
            except BaseException:
                connection.close()
                raise
            self._connection = connection
            self._place = Place(path, database, log_id(path))
            if replaced:
                self.generation += 1
                logger.warning("the task store %r was replaced by another file, which is used from now on", self._file)
        return connection

    def _check_place(self) -> None:
        """See whether what was just committed can be found at the path; if not, leave the file behind.

        Raises:
            StoreUnavailableError: If it cannot.
        """
        place, db = self._place, self._raw
        if place is None or db is None or is_intact(place, self._file):
            return
        # The log goes into the file that it belongs to, wherever that is now.
        emptied = _log_emptied(db)
        if is_replaced(place, self._file):
            with contextlib.suppress(Exception):
                self._disconnect()
            msg = f"the task store {self._file!r} was moved, replaced or deleted; it is opened anew"
            raise StoreUnavailableError(msg)
        if emptied:
            # Only the log was deleted, and nothing is lost: the next connection begins a new one.
            self._disconnect()

    def _driver(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connected()
        if self._raw is None:
            msg = f"{self._file!r} is not connected"
            raise StoreError(msg)
        return self._raw

    def _disconnect(self) -> None:
        connection, self._connection, self._raw = self._connection, None, None
        if connection is not None:
            connection.close()


def _log_emptied(db: sqlite3.Connection) -> bool:
    """Move all of the write-ahead log into the database; return whether that was possible."""
    try:
        (busy, _, _) = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    except sqlite3.Error:
        return False
    return not busy


def _succeed(future: asyncio.Future[Any], result: Any) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[Any], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
