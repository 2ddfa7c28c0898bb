"""What is particular to SQLite: its URL, its connections, its errors, and the statements of the hot path."""

from __future__ import annotations

import os
import sqlite3
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import dialect as sqlite_dialect
from sqlalchemy.dialects.sqlite import insert

from fastapi_taskflow.errors import ConfigurationError, StoreError, StoreUnavailableError
from fastapi_taskflow.stores.fence import HELD
from fastapi_taskflow.stores.rows import COLUMNS, STATE
from fastapi_taskflow.stores.schema import counters, durations, tasks

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.ext.asyncio import AsyncEngine

Synchronous = Literal["NORMAL", "FULL"]
BUSY_SECONDS: Final = 4.0
"""How long a statement waits for another process's lock: less than the default ``commit_timeout``."""

MULTI_ROWS: Final = 64
"""Rows an INSERT statement carries at most; SQLite allows 32,766 parameters."""


def sqlite_url(path: str | os.PathLike[str]) -> str:
    """Return the database URL of a SQLite file, relative paths included."""
    url = sa.URL.create("sqlite+aiosqlite", database=os.fspath(path))
    return url.render_as_string(hide_password=False)


def file_of(url: sa.URL) -> str:
    """Return the file that ``url`` names.

    Raises:
        ConfigurationError: If it is no SQLite URL, names no file, or the file's folder does not exist.
    """
    if url.get_backend_name() != "sqlite":
        msg = f"this version stores tasks in SQLite only (sqlite+aiosqlite:///tasks.db), not in {url.drivername}"
        raise ConfigurationError(msg)
    name = url.database
    if not name or name == ":memory:" or name.startswith("file:"):
        msg = "a SQLite store needs a file, since each connection has a memory database of its own; "
        raise ConfigurationError(msg + "to keep tasks in memory give no snapshot_db at all")
    folder = Path(name).resolve().parent
    if not folder.is_dir():
        msg = f"the folder of {name!r} does not exist: {folder}"
        raise ConfigurationError(msg)
    if Path(name).is_dir():
        msg = f"{name!r} is a folder, not a database file"
        raise ConfigurationError(msg)
    return name


# -- connections -----------------------------------------------------------------------------------------------------


def writer_engine(file: str, synchronous: Synchronous) -> sa.Engine:
    """Return the engine of the one writing connection; its transactions are BEGIN IMMEDIATE."""
    engine = sa.create_engine(
        sa.URL.create("sqlite", database=file),
        poolclass=sa.NullPool,
        connect_args={"isolation_level": None, "timeout": BUSY_SECONDS, "cached_statements": 256},
    )

    def prepare(connection: sqlite3.Connection, _: object) -> None:
        _switch_to_wal(connection)
        connection.execute(f"PRAGMA synchronous={synchronous}")

    def begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    sa.event.listen(engine, "connect", prepare)
    sa.event.listen(engine, "begin", begin)
    return engine


def reader_engine(file: str, epoch: Callable[[], int]) -> AsyncEngine:
    """Return the engine of the reading connections.

    Args:
        file: The database.
        epoch: A number; connections that were opened when it was another one are not used any more.
    """
    from sqlalchemy.ext.asyncio import create_async_engine

    engine = create_async_engine(
        sa.URL.create("sqlite+aiosqlite", database=file),
        pool_size=2,
        max_overflow=2,
        connect_args={"timeout": BUSY_SECONDS, "isolation_level": None},
    )

    def label(_dialect: object, record: Any, _args: object, _keywords: object) -> None:
        record.info["epoch"] = epoch()

    def prepare(connection: Any, _: object) -> None:
        cursor = connection.cursor()
        cursor.execute("PRAGMA query_only=ON")
        cursor.close()

    def check(_connection: object, record: Any, _proxy: object) -> None:
        if record.info["epoch"] != epoch():
            raise sa.exc.DisconnectionError  # it is closed, and a new one takes its place

    sa.event.listen(engine.sync_engine, "do_connect", label)
    sa.event.listen(engine.sync_engine, "connect", prepare)
    sa.event.listen(engine.sync_engine, "checkout", check)
    return engine


def _switch_to_wal(connection: sqlite3.Connection) -> None:
    # SQLite does not wait here when another process switches the same new file.
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return


# -- versions --------------------------------------------------------------------------------------------------------

WAL_RESET_FIXED: Final = (3, 51, 3)


def company_warning(version: tuple[int, ...]) -> str | None:
    """Return what speaks against several processes on one file, for a version of SQLite; None from 3.51.3 on.

    Versions 3.7.0 to 3.51.2 may damage a file in WAL mode when two connections write or checkpoint in the same moment,
    which is very rare: https://sqlite.org/wal.html.
    """
    if version >= WAL_RESET_FIXED:
        return None
    name = ".".join(map(str, version))
    return (
        f"several processes write to one file with SQLite {name}: before 3.51.3 this may, very rarely, damage it. "
        "Upgrade SQLite, or keep the tasks in PostgreSQL"
    )


# -- errors ----------------------------------------------------------------------------------------------------------

_MAY_PASS: Final = {
    sqlite3.SQLITE_BUSY: "locked by another connection",
    sqlite3.SQLITE_LOCKED: "locked by another connection",
    sqlite3.SQLITE_PROTOCOL: "locked by another connection",
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_IOERR: "the disk failed",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened",
    sqlite3.SQLITE_READONLY: "it cannot be written",
    sqlite3.SQLITE_NOMEM: "out of memory",
}


def store_error(error: BaseException, file: str) -> StoreError:
    """Return what a failed statement means to the caller; a cause that may pass is `StoreUnavailableError`."""
    cause = error.orig if isinstance(error, sa.exc.DBAPIError) else error
    code = getattr(cause, "sqlite_errorcode", None)
    reason = _MAY_PASS.get(code & 0xFF) if isinstance(code, int) else None
    if reason is not None:
        return StoreUnavailableError(f"the task store {file!r} is not available: {reason} ({cause})")
    return StoreError(f"the task store {file!r} failed: {cause}")


def keeps_connection(error: BaseException) -> bool:
    """Whether the connection is as good as before after ``error``, so that a new one would change nothing."""
    code = getattr(error, "sqlite_errorcode", None)
    return isinstance(code, int) and code & 0xFF in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL}


# -- the hot path's statements, compiled once --------------------------------------------------------------------------

_dialect = sqlite_dialect(paramstyle="qmark")


def _text(statement: sa.sql.ClauseElement) -> str:
    return str(statement.compile(dialect=_dialect))


_HEAD: Final = f"INSERT INTO {tasks.name} ({', '.join(COLUMNS)}) VALUES "  # noqa: S608 - our own names
_ROW: Final = f"({', '.join('?' * len(COLUMNS))})"
INSERT_TASKS: Final = [f"{_HEAD}{', '.join([_ROW] * rows)} ON CONFLICT DO NOTHING" for rows in range(MULTI_ROWS + 1)]
"""By number of rows. One statement for all of them: fewer hand-overs of the GIL than a statement each."""

UPDATE_TASK: Final = (
    f"UPDATE {tasks.name} SET {', '.join(f'{name} = ?' for name in STATE)}"  # noqa: S608 - our own names
    " WHERE task_id = ? AND version = ? AND owner = ?"
)
HELD_OF: Final = f"SELECT {', '.join(HELD)} FROM {tasks.name} WHERE task_id = ?"  # noqa: S608 - our own names

_count = insert(counters).values(func_name=sa.bindparam("f"), status=sa.bindparam("s"), count=sa.bindparam("n"))
ADD_COUNT: Final = _text(
    _count.on_conflict_do_update(
        index_elements=["func_name", "status"], set_={"count": counters.c.count + _count.excluded.count}
    )
)
_duration = insert(durations).values(
    func_name=sa.bindparam("f"), bucket=sa.bindparam("b"), count=sa.bindparam("n"), seconds=sa.bindparam("s")
)
ADD_DURATION: Final = _text(
    _duration.on_conflict_do_update(
        index_elements=["func_name", "bucket"],
        set_={
            "count": durations.c.count + _duration.excluded.count,
            "seconds": durations.c.seconds + _duration.excluded.seconds,
        },
    )
)
