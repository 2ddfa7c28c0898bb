"""The store in a PostgreSQL database, for several hosts."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, TypeVar

import sqlalchemy as sa

from fastapi_taskflow import clock
from fastapi_taskflow.errors import StoreError
from fastapi_taskflow.stores import pg, sharing
from fastapi_taskflow.stores.migrate import ensure_schema
from fastapi_taskflow.stores.pg_batch import ALL_WRITTEN, write_batch
from fastapi_taskflow.stores.pg_listener import NOTIFY_OWNER, Listener
from fastapi_taskflow.stores.tables import TableStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from fastapi_taskflow.store import Change, WriteResult

_T = TypeVar("_T")
CLOSE_SECONDS: Final = 5.0
_SERVER_TIME: Final = sa.cast(sa.extract("epoch", sa.func.clock_timestamp()), sa.Double)


class PostgresqlStore(TableStore):
    """Keeps tasks in a PostgreSQL database, which any number of instances on any number of hosts may share.

    One connection writes the batches, one listens, and small pools do the rest: at most eight for an instance. One that
    broke is replaced when it is needed next. Signs of life have the server's time.

    Args:
        url: ``postgresql+asyncpg://user:password@host/database``, or ``postgresql://…``. Of its query are understood:
            asyncpg's ``ssl`` (or ``sslmode``), ``target_session_attrs``, ``passfile``, ``service``, ``timeout``,
            ``command_timeout`` and ``statement_cache_size`` (0 behind a pooler such as PgBouncer); and the server's
            ``search_path`` and ``application_name``.
        migrate: Whether `open` brings the schema up to date. If not, a missing or old schema is an error.

    Raises:
        ConfigurationError: If the URL is not one of PostgreSQL, or asyncpg is not installed.
    """

    _merges = False

    def __init__(self, url: str | sa.URL, *, migrate: bool = True) -> None:
        self._server = pg.server_of(url)
        super().__init__(self._server.url)
        self._migrate = migrate
        self._open: _Connections | None = None

    @property
    def generation(self) -> int:
        """Zero: a database is not replaced as a file is."""
        return 0

    async def open(self) -> None:
        """Connect and bring the schema up to date; see `Store.open`.

        Raises:
            StoreUnavailableError: If the server does not answer.
            StoreError: If it refuses the user, or there is no such database.
            SchemaVersionError: If the schema is newer than this code.
        """
        if self._open is not None:
            return
        migrating = pg.migrating_engine(self._server)
        try:
            async with migrating.connect() as connection:
                await connection.run_sync(ensure_schema, self._server.name, migrate=self._migrate)
        except Exception as error:
            if pg.is_foreseen(error):
                raise pg.server_error(error, self._server.name) from error
            raise
        finally:
            await migrating.dispose()
        self._open = _Connections(self._server, self._is_mine)

    def _is_mine(self, payload: str) -> bool:
        return self._instance is not None and payload == self._instance.instance_id

    async def close(self) -> None:
        """Disconnect. Harmless when not open."""
        connections, self._open = self._open, None
        self._instance = None
        if connections is not None:
            await connections.close()

    # -- writing -----------------------------------------------------------------------------------------------------

    async def write(self, changes: Sequence[Change]) -> WriteResult:
        """Commit all changes in one transaction; see `Store.write`."""
        if not changes:
            return ALL_WRITTEN
        batches = self._connections.batches

        async def once() -> WriteResult:
            driver = await batches.driver()
            try:
                return await write_batch(driver, changes, pooled=self._server.pooled)
            except BaseException as error:
                if pg.sqlstate(error) is None or pg.is_lost(error):
                    # Nobody knows what the connection is doing now.
                    await batches.drop()
                if pg.is_lost(error):
                    # Nor whether the server has done what it was told.
                    raise pg.server_error(error, self._server.name, uncertain=True) from error
                raise

        return await self._twice_if_in_the_way(once)

    async def _transaction(self, job: Callable[[sa.Connection], _T]) -> _T:
        writing = self._connections.writing

        async def once() -> _T:
            async with _lent(writing) as connection:
                if self._server.pooled:
                    await connection.exec_driver_sql(pg.LIMITS)
                result = await connection.run_sync(job)
                await connection.commit()
                return result

        return await self._twice_if_in_the_way(once)

    async def _twice_if_in_the_way(self, once: Callable[[], Coroutine[None, None, _T]]) -> _T:
        try:
            try:
                return await once()
            except Exception as error:
                if pg.sqlstate(error) not in pg.AGAIN:
                    raise
                return await once()
        except Exception as error:
            if pg.is_foreseen(error):
                raise pg.server_error(error, self._server.name) from error
            raise

    async def ask_to_cancel(self, task_id: str) -> None:
        """Leave a request for the task's owner, and wake it; see `Store.ask_to_cancel`."""
        now = clock.now()

        def ask(connection: sa.Connection) -> None:
            sharing.ask_to_cancel(connection, task_id, now)
            connection.execute(NOTIFY_OWNER, {"id_of_task": task_id})

        await self._transaction(ask)

    async def signalled(self, within: float) -> bool:
        """Wait until this instance is notified; see `Store.signalled`."""
        return await self._connections.listener.wait(within)

    def _now(self) -> sa.ColumnElement[float]:
        return _SERVER_TIME

    # -- connections -------------------------------------------------------------------------------------------------

    @property
    def _connections(self) -> _Connections:
        if self._open is None:
            msg = f"the task store {self._server.name} is not open"
            raise StoreError(msg)
        return self._open

    @asynccontextmanager
    async def _reading(self) -> AsyncIterator[AsyncConnection]:
        reading = self._connections.reading
        try:
            async with _lent(reading) as connection:
                yield connection
        except Exception as error:
            if pg.is_foreseen(error):
                raise pg.server_error(error, self._server.name) from error
            raise


class _Connections:
    """All connections of an open store."""

    def __init__(self, server: pg.Server, is_mine: Callable[[str], bool]) -> None:
        self._standing = pg.standing_engine(server)
        self.writing = pg.writing_engine(server)
        self.reading = pg.reading_engine(server)
        self.batches = pg.Standing(self._standing)
        self.listener = Listener(pg.Standing(self._standing), is_mine)

    async def close(self) -> None:
        """End them all at once; those that do not answer are left to the system."""
        closings = (self.listener.close, self.batches.drop, *(each.dispose for each in self._engines))
        await asyncio.gather(*(_within(closing, CLOSE_SECONDS) for closing in closings))

    @property
    def _engines(self) -> Sequence[AsyncEngine]:
        return (self.writing, self.reading, self._standing)


async def _within(closing: Callable[[], Coroutine[None, None, None]], seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(closing(), seconds)


@asynccontextmanager
async def _lent(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """Lend a connection. After an error that is not the server's word it is not used again."""
    async with engine.connect() as connection:
        try:
            yield connection
        except (OSError, TimeoutError, sa.exc.InterfaceError):
            await connection.invalidate()
            raise
