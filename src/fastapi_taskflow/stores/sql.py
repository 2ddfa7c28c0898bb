"""The store in a SQLite file."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import sqlalchemy as sa

from fastapi_taskflow import clock
from fastapi_taskflow.errors import ConfigurationError, StoreError
from fastapi_taskflow.stores import upkeep
from fastapi_taskflow.stores.batch import ALL_WRITTEN, write_batch
from fastapi_taskflow.stores.migrate import ensure_schema
from fastapi_taskflow.stores.mounts import refuse_network
from fastapi_taskflow.stores.sqlite import (
    Synchronous,
    company_warning,
    file_of,
    reader_engine,
    sqlite_url,
    store_error,
    writer_engine,
)
from fastapi_taskflow.stores.tables import TableStore
from fastapi_taskflow.stores.writer import Writer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from fastapi_taskflow.store import Change, WriteResult
    from fastapi_taskflow.stores.place import Place

_T = TypeVar("_T")

__all__ = ["SqlStore", "sqlite_url"]


class SqlStore(TableStore):
    """Keeps tasks in a SQLite file.

    One thread of its own writes, in transactions that take the write lock first; readers have connections of their
    own and are never in its way.

    Args:
        url: ``sqlite+aiosqlite:///tasks.db``, or the path of the file.
        synchronous: ``NORMAL`` keeps every acknowledged task through the death of the process; ``FULL`` through
            power loss too, at a disk flush for each commit.
        migrate: Whether `open` brings the schema up to date. If not, a missing or old schema is an error.

    Raises:
        ConfigurationError: If the URL is not one of a SQLite file.
    """

    def __init__(self, url: str | Path, *, synchronous: Synchronous = "NORMAL", migrate: bool = True) -> None:
        if synchronous not in {"NORMAL", "FULL"}:
            msg = f"synchronous must be NORMAL or FULL, not {synchronous!r}"
            raise ConfigurationError(msg)
        try:
            given = sa.make_url(sqlite_url(url) if isinstance(url, Path) else url)
        except sa.exc.ArgumentError:
            msg = f"{url!r} is no database URL; a file is written as sqlite+aiosqlite:///tasks.db"
            raise ConfigurationError(msg) from None
        # Absolute, so that it stays the same file when the process changes its working directory.
        self._file = os.path.abspath(file_of(given))  # noqa: PTH100 - Path.absolute keeps the dots
        super().__init__(given.set(database=self._file))
        self._synchronous: Synchronous = synchronous
        self._migrate = migrate
        self._open_writer: Writer | None = None
        self._open_reader: AsyncEngine | None = None
        self._read_place: Place | None = None
        self._read_epoch = 0

    @property
    def generation(self) -> int:
        """How often the file was replaced; see `Store.generation`."""
        return 0 if self._open_writer is None else self._open_writer.generation

    @property
    def company_warning(self) -> str | None:
        """What speaks against several instances on one file with this version of SQLite."""
        return company_warning(sqlite3.sqlite_version_info)

    async def open(self) -> None:
        """Connect and bring the schema up to date; see `Store.open`.

        Raises:
            StoreError: If the file is on a network file system, or no database.
            SchemaVersionError: If the schema is newer than this code.
        """
        if self._open_writer is not None:
            return
        refuse_network(file_of(self._url))
        writer = Writer(writer_engine(self._file, self._synchronous), self._file, self._prepare)
        try:
            await writer.connect()
        except BaseException:
            await writer.close()
            raise
        self._open_writer = writer
        self._open_reader = reader_engine(self._file, lambda: self._read_epoch)
        self._read_place = writer.place

    def _prepare(self, connection: sa.Connection) -> None:
        ensure_schema(connection, self._file, migrate=self._migrate)
        if self._instance is not None:
            # In a file that was replaced there is no such row, and without it this instance would look dead to others.
            with connection.begin():
                upkeep.beat(connection, self._instance, clock.now())

    async def close(self) -> None:
        """Disconnect. Harmless when not open."""
        writer, self._open_writer = self._open_writer, None
        reader, self._open_reader = self._open_reader, None
        self._instance = None
        if reader is not None:
            await reader.dispose()
        if writer is not None:
            await writer.close()

    # -- writing -----------------------------------------------------------------------------------------------------

    async def write(self, changes: Sequence[Change]) -> WriteResult:
        """Commit all changes in one transaction; see `Store.write`."""
        if not changes:
            return ALL_WRITTEN
        return await self._writer.run(lambda db: write_batch(db, changes))

    async def signalled(self, within: float) -> bool:
        """Wait: SQLite has no signals, so other instances look again and again."""
        await asyncio.sleep(within)
        return False

    async def _transaction(self, job: Callable[[sa.Connection], _T]) -> _T:
        return await self._writer.transaction(job)

    def _now(self) -> sa.ColumnElement[float]:
        return sa.literal(clock.now(), sa.Double)

    # -- connections -------------------------------------------------------------------------------------------------

    @property
    def _writer(self) -> Writer:
        if self._open_writer is None:
            msg = f"the task store {self._file!r} is not open"
            raise StoreError(msg)
        return self._open_writer

    @asynccontextmanager
    async def _reading(self) -> AsyncIterator[AsyncConnection]:
        reader = self._open_reader
        if reader is None:
            msg = f"the task store {self._file!r} is not open"
            raise StoreError(msg)
        writer = self._writer
        if not writer.is_at_home():
            # The writer goes first: it keeps the old file's log from being read into the new one.
            await writer.follow()
        if writer.place != self._read_place:
            self._read_place = writer.place
            self._read_epoch += 1
        try:
            async with reader.connect() as connection:
                yield connection
        except sa.exc.SQLAlchemyError as error:
            self._read_epoch += 1  # new connections are the way out of whatever befell this one
            raise store_error(error, self._file) from error
