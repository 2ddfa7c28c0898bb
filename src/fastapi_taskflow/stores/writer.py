"""The one thread that writes to a SQLite file, with the one writing connection of this process."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

import sqlalchemy as sa

from fastapi_taskflow.errors import StoreError, TaskflowError
from fastapi_taskflow.stores.sqlite import keeps_connection, store_error

if TYPE_CHECKING:
    from collections.abc import Callable

_T = TypeVar("_T")


class Writer:
    """Runs functions on its thread, one after another, and wakes the loop once for each.

    After an error that may have harmed the connection the next call opens a new one, so that the store works again
    as soon as the cause is gone.

    Args:
        engine: Makes the connection.
        file: The database file, for messages.
        prepare: Called with each new connection before it is used, on the thread.
    """

    def __init__(self, engine: sa.Engine, file: str, prepare: Callable[[sa.Connection], None]) -> None:
        self._engine = engine
        self._file = file
        self._prepare = prepare
        self._jobs: SimpleQueue[tuple[Callable[[], Any], asyncio.Future[Any]] | None] = SimpleQueue()
        self._connection: sa.Connection | None = None
        self._raw: sqlite3.Connection | None = None
        self._loop = asyncio.get_running_loop()
        # A daemon, so that a program that never closes its store still ends. What it acknowledged is committed.
        self._thread = threading.Thread(target=self._work, name="taskflow-writer", daemon=True)
        self._thread.start()

    async def run(self, job: Callable[[sqlite3.Connection], _T]) -> _T:
        """Call ``job`` with the driver's connection, which is in no transaction."""
        return await self._call(lambda: job(self._driver()))

    async def transaction(self, job: Callable[[sa.Connection], _T]) -> _T:
        """Call ``job`` within a write transaction."""

        def call() -> _T:
            connection = self._connected()
            with connection.begin():
                return job(connection)

        return await self._call(call)

    async def connect(self) -> None:
        """Open and prepare the connection."""
        await self._call(self._connected)

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
            connection = self._engine.connect()
            try:
                self._prepare(connection)
                self._raw = connection.connection.driver_connection
            except BaseException:
                connection.close()
                raise
            self._connection = connection
        return connection

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


def _succeed(future: asyncio.Future[Any], result: Any) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[Any], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
