"""New tasks in a transaction of the user's own: his session or connection is followed by SQLAlchemy's events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from weakref import WeakKeyDictionary

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlalchemy.orm import Session

from fastapi_taskflow.errors import ConfigurationError
from fastapi_taskflow.stores.address import same_database, shown
from fastapi_taskflow.stores.carrying import Book
from fastapi_taskflow.stores.schema import tasks

if TYPE_CHECKING:
    from sqlalchemy.orm import SessionTransaction

    from fastapi_taskflow.store import Carrier, OnCommit, Ride

ALLOWED: Final = "an AsyncSession, AsyncConnection or Session of SQLAlchemy"


def carrier_of(session: object, own: sa.URL, on_commit: OnCommit) -> Carrier:
    """Return what puts tasks into the transaction of ``session``; see `CarryingStore.carrier`.

    Args:
        session: What the user gave.
        own: The store's database.
        on_commit: Told of tasks that are committed.

    Raises:
        ConfigurationError: If ``session`` is of another type, or is bound to another database.
    """
    if isinstance(session, AsyncConnection):
        connection = session.sync_connection
        if connection is None:
            msg = "the connection given as session= is not open"
            raise ConfigurationError(msg)
        _require_same(connection, own)
        return _ConnectionCarrier(session, _book_of_connection(connection, on_commit))
    if not isinstance(session, AsyncSession | Session):
        msg = f"session= takes {ALLOWED}, not {type(session).__name__}"
        raise ConfigurationError(msg)
    sync_session = session.sync_session if isinstance(session, AsyncSession) else session
    try:
        bind = sync_session.get_bind(clause=tasks)
    except sa.exc.UnboundExecutionError as error:
        msg = f"the session given as session= has no database for the table {tasks.name}: {error}"
        raise ConfigurationError(msg) from error
    _require_same(bind, own)
    if sync_session.twophase:
        msg = "session= takes no session with twophase=True: between its phases nobody can tell what is committed"
        raise ConfigurationError(msg)
    return _SessionCarrier(session, sync_session, _book_of_session(sync_session, on_commit))


def _require_same(bind: sa.Engine | sa.Connection, own: sa.URL) -> None:
    url = bind.engine.url
    if not same_database(url, own):
        msg = (
            f"the session is bound to {shown(url)}, but the tasks are kept in {shown(own)}: one transaction cannot "
            "hold both. Keep the tasks in the session's database, or leave session= out"
        )
        raise ConfigurationError(msg)


# -- sessions --------------------------------------------------------------------------------------------------------


class _SessionBook(Book):
    """Follows one session. Its events may come on any thread, one at a time."""

    def __init__(self, on_commit: OnCommit) -> None:
        super().__init__(on_commit)
        self._connection: sa.Connection | None = None

    def listen(self, session: Session) -> None:
        sa.event.listen(session, "before_commit", self._before_commit)
        sa.event.listen(session, "after_flush", self._after_flush)
        sa.event.listen(session, "after_commit", self._after_commit)
        sa.event.listen(session, "after_transaction_end", self._after_end)

    def _before_commit(self, session: Session) -> None:
        if not self.incomplete:
            return
        connection = self._connection = connection_of(session)
        if session.in_nested_transaction():
            # A savepoint is released, or the transaction ends with one still open: the event is the same for both.
            self._complete_at_commit(connection)
        else:
            self.complete(connection)

    def _after_flush(self, session: Session, _: object) -> None:
        if self.incomplete:
            # The flush may be that of the commit, with a task added in the midst of it and no other event to come.
            self._connection = connection_of(session)
            self._complete_at_commit(self._connection)

    def _complete_at_commit(self, connection: sa.Connection) -> None:
        if not sa.event.contains(connection, "commit", self._at_commit):
            sa.event.listen(connection, "commit", self._at_commit)

    def _at_commit(self, connection: sa.Connection) -> None:
        if self.incomplete:
            self.complete(connection)

    def _after_commit(self, session: Session) -> None:
        savepoint = session.get_nested_transaction()
        if savepoint is not None:
            self.promote(savepoint, _around(savepoint))
            return
        connection = self._connection
        if connection is not None and connection.in_transaction():
            # The session was a guest in a transaction of the connection, which goes on.
            _book_of_connection(connection, self.on_commit).seats += self.seats
            self.clear()
        else:
            self.hand_over(_it_is_done)

    def _after_end(self, _: Session, transaction: SessionTransaction) -> None:
        if transaction.nested:
            self.drop(transaction)
        elif transaction.parent is None:
            self.clear()

    def clear(self) -> None:
        """Forget everything."""
        super().clear()
        self._connection = None


def _it_is_done() -> bool:
    return False


def _around(savepoint: SessionTransaction) -> SessionTransaction | None:
    """Return the savepoint around this one; None if that is the transaction itself."""
    outer = savepoint.parent
    while outer is not None and not outer.nested:
        outer = outer.parent
    return outer


def connection_of(session: Session) -> sa.Connection:
    """Return the connection by which the session reaches the tasks."""
    return session.connection(bind_arguments={"clause": tasks})


def _book_of_session(session: Session, on_commit: OnCommit) -> _SessionBook:
    key = "fastapi_taskflow", on_commit
    book = session.info.get(key)
    if not isinstance(book, _SessionBook):
        book = session.info[key] = _SessionBook(on_commit)
        book.listen(session)
    return book


class _SessionCarrier:
    """Fills the seam `Carrier` for a session."""

    def __init__(self, given: AsyncSession | Session, session: Session, book: _SessionBook) -> None:
        self._given = given
        self._session = session
        self._book = book

    async def insert(self, ride: Ride) -> bool:
        """Insert the row now; see `Carrier.insert`."""
        if isinstance(self._given, AsyncSession):
            return await self._given.run_sync(self._insert, ride)
        return self._insert(self._given, ride)

    def _insert(self, session: Session, ride: Ride) -> bool:
        return self._book.insert(connection_of(session), ride, session.get_nested_transaction())

    def insert_at_commit(self, ride: Ride) -> None:
        """Insert the row just before the commit; see `Carrier.insert_at_commit`."""
        if not self._session.in_transaction():
            self._session.begin()  # as ``session.add`` does: what is not begun cannot be rolled back
        self._book.take(ride, self._session.get_nested_transaction())


# -- connections -----------------------------------------------------------------------------------------------------


class _ConnectionBook(Book):
    """Follows one connection. SQLAlchemy's events do not name savepoints: what they undid is seen at the commit."""

    def listen(self, connection: sa.Connection) -> None:
        sa.event.listen(connection, "commit", self._before_commit)
        sa.event.listen(connection, "rollback", self._rolled_back)

    def _before_commit(self, connection: sa.Connection) -> None:
        if self.incomplete:
            self.complete(connection)
        transaction = connection.get_transaction()
        # There is no event after the commit, but the transaction is no longer active then.
        self.hand_over(_it_is_done if transaction is None else lambda: transaction.is_active)

    def _rolled_back(self, _: sa.Connection) -> None:
        self.clear()


_books: Final[WeakKeyDictionary[sa.Connection, dict[OnCommit, _ConnectionBook]]] = WeakKeyDictionary()


def _book_of_connection(connection: sa.Connection, on_commit: OnCommit) -> _ConnectionBook:
    books = _books.setdefault(connection, {})
    book = books.get(on_commit)
    if book is None:
        book = books[on_commit] = _ConnectionBook(on_commit)
        book.listen(connection)
    return book


class _ConnectionCarrier:
    """Fills the seam `Carrier` for a connection."""

    def __init__(self, given: AsyncConnection, book: _ConnectionBook) -> None:
        self._given = given
        self._book = book

    async def insert(self, ride: Ride) -> bool:
        """Insert the row now; see `Carrier.insert`."""
        return await self._given.run_sync(self._book.insert, ride)

    def insert_at_commit(self, ride: Ride) -> None:
        """Refuse: whether a savepoint undoes it until then could not be told."""
        name = ride.record.func_name
        msg = f"add_task takes no connection: use `await task_manager.enqueue({name}, …, session=connection)`"
        raise ConfigurationError(msg)
