"""What is particular to a PostgreSQL server: its URL, its connections and its errors.

asyncpg is an extra and never imported here: SQLAlchemy does that, and errors tell what they are by their SQLSTATE.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

import sqlalchemy as sa

from fastapi_taskflow.errors import ConfigurationError, StoreError, StoreUnavailableError
from fastapi_taskflow.stores.address import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

EXTRA: Final = 'PostgreSQL needs asyncpg: pip install "fastapi-taskflow-otel[postgres]"'
DRIVERS: Final = frozenset({"postgresql+asyncpg", "postgresql", "postgres"})

CONNECT_SECONDS: Final = 4.0
WRITE_SECONDS: Final = 4.0
READ_SECONDS: Final = 10.0
"""How long a server that does not answer is waited for. A write takes less than the default ``commit_timeout``."""

STALLED_SECONDS: Final = 5.0
"""How long a transaction may stand still before the server ends it: its locks would hold up every other instance."""

LOCK_SECONDS: Final = 3.0

_NUMBERS: Final[Mapping[str, Callable[[str], float]]] = {
    "statement_cache_size": int,
    "prepared_statement_cache_size": int,
    "max_cached_statement_lifetime": int,
    "timeout": float,
    "command_timeout": float,
}
_TEXTS: Final = frozenset(
    {"host", "port", "ssl", "sslmode", "target_session_attrs", "passfile", "service", "servicefile", "krbsrvname"}
)
_SETTINGS: Final = frozenset({"application_name", "search_path"})


class Driver(Protocol):
    """What is used of asyncpg's own connection."""

    async def execute(self, query: str, *args: object) -> str:
        """Run a statement."""

    async def fetch(self, query: str, *args: object) -> Sequence[Any]:
        """Run a statement and return its rows."""

    def transaction(self) -> AbstractAsyncContextManager[object]:
        """Begin a transaction, or a savepoint within one."""

    async def add_listener(self, channel: str, callback: Callable[..., None]) -> None:
        """LISTEN."""

    def add_termination_listener(self, callback: Callable[..., None]) -> None:
        """Have ``callback`` called when the connection ends."""

    def is_closed(self) -> bool:
        """Whether it is known to have ended."""

    async def close(self, *, timeout: float | None = None) -> None:  # noqa: ASYNC109 - as it is there
        """Say goodbye."""

    def terminate(self) -> None:
        """End without a word."""


@dataclass(frozen=True, slots=True)
class Server:
    """A database on a server, and how to connect to it.

    Attributes:
        url: Without options.
        options: For asyncpg.
        settings: For the server, at each connection's start.
        pooled: Whether a pooler such as PgBouncer is between, which gives each transaction another connection: nothing
            may be kept in one from one transaction to the next.
    """

    url: sa.URL
    options: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    pooled: bool = False

    @property
    def name(self) -> str:
        """For messages, without what is secret."""
        return shown(self.url)


def server_of(url: str | sa.URL) -> Server:
    """Return the server that ``url`` names.

    Raises:
        ConfigurationError: If it is none of PostgreSQL, has an unknown option, or asyncpg is not installed.
    """
    try:
        given = sa.make_url(url)
    except (sa.exc.ArgumentError, ValueError):  # the latter for a port that is no number
        msg = (
            "this is no database URL; one of PostgreSQL is written as postgresql+asyncpg://user:password@host/database"
        )
        raise ConfigurationError(msg) from None
    if given.drivername not in DRIVERS:
        msg = f"tasks are kept in PostgreSQL through asyncpg (postgresql+asyncpg://…), not through {given.drivername}"
        raise ConfigurationError(msg)
    if importlib.util.find_spec("asyncpg") is None:
        raise ConfigurationError(EXTRA)
    options: dict[str, Any] = {}
    settings: dict[str, str] = {}
    for name, value in given.query.items():
        _sort_in(name, value, options, settings)
    if "sslmode" in options:
        options["ssl"] = options.pop("sslmode")
    pooled = 0 in (options.get("statement_cache_size"), options.get("prepared_statement_cache_size"))
    if pooled:
        options |= {"statement_cache_size": 0, "prepared_statement_cache_size": 0}
    hosts = {name: value for name, value in given.query.items() if name in {"host", "port"}}
    options = {name: value for name, value in options.items() if name not in hosts}
    clean = given.set(drivername="postgresql+asyncpg", query=hosts)
    return Server(clean, options, settings, pooled)


def _sort_in(name: str, value: str | tuple[str, ...], options: dict[str, Any], settings: dict[str, str]) -> None:
    if name in _NUMBERS and isinstance(value, str):
        try:
            options[name] = _NUMBERS[name](value)
        except ValueError:
            msg = f"{name} in the database URL must be a number, not {value!r}"
            raise ConfigurationError(msg) from None
    elif name in _SETTINGS and isinstance(value, str):
        settings[name] = value
    elif name in _TEXTS:
        options[name] = value
    else:
        known = ", ".join(sorted({*_NUMBERS, *_SETTINGS, *_TEXTS}))
        msg = f"the database URL has an option {name!r} that is not known; there are {known}"
        raise ConfigurationError(msg)


# -- connections -----------------------------------------------------------------------------------------------------


def standing_engine(server: Server) -> AsyncEngine:
    """Return the engine of connections that are kept by whoever opens one: for batches, and to listen."""
    # A plan made while the tables were small must not be kept for when they are large: rows are found by index, always.
    plans = {"plan_cache_mode": "force_generic_plan", "enable_seqscan": "off", "enable_hashjoin": "off"}
    settings = {**_limits(WRITE_SECONDS), **plans, "enable_mergejoin": "off"}
    return _engine(server, WRITE_SECONDS, settings, poolclass=sa.NullPool)


def writing_engine(server: Server) -> AsyncEngine:
    """Return the engine of rare writes."""
    return _engine(
        server, WRITE_SECONDS, _limits(WRITE_SECONDS),
        pool_size=1, max_overflow=1, pool_timeout=WRITE_SECONDS, pool_pre_ping=True,
    )  # fmt: skip


def reading_engine(server: Server) -> AsyncEngine:
    """Return the engine of the reading connections."""
    settings = {**_limits(READ_SECONDS), "default_transaction_read_only": "on"}
    single = {} if server.pooled else {"isolation_level": "AUTOCOMMIT"}  # saves BEGIN and ROLLBACK
    return _engine(
        server, READ_SECONDS, settings,
        pool_size=2, max_overflow=2, pool_timeout=WRITE_SECONDS, pool_pre_ping=True, **single,
    )  # fmt: skip


def migrating_engine(server: Server) -> AsyncEngine:
    """Return the engine for the schema: a change of a large table takes as long as it takes."""
    return _engine(server, None, {}, poolclass=sa.NullPool)


def _limits(seconds: float) -> dict[str, str]:
    # The server gives up a little earlier than this side, so that the connection stays good.
    return {
        "statement_timeout": _milliseconds(seconds - 0.5),
        "lock_timeout": _milliseconds(LOCK_SECONDS),
        "idle_in_transaction_session_timeout": _milliseconds(STALLED_SECONDS),
    }


def _milliseconds(seconds: float) -> str:
    return str(round(seconds * 1000))


def _engine(server: Server, seconds: float | None, settings: Mapping[str, str], **options: Any) -> AsyncEngine:
    from sqlalchemy.ext.asyncio import create_async_engine

    arguments: dict[str, Any] = {"timeout": CONNECT_SECONDS, "command_timeout": seconds, **server.options}
    if seconds is None:
        arguments["command_timeout"] = None  # whatever the URL says
    # A pooler refuses what it does not know at a connection's start, or gives it to the next one who comes.
    own = {} if server.pooled else {"application_name": "fastapi_taskflow", "jit": "off", **settings}
    return create_async_engine(
        server.url, connect_args={**arguments, "server_settings": {**own, **server.settings}}, **options
    )


LIMITS: Final = "SELECT " + ", ".join(
    f"set_config('{name}', '{value}', true)" for name, value in _limits(WRITE_SECONDS).items()
)
"""The limits of one transaction, where a pooler is between."""


class Standing:
    """One connection that is kept, and made anew when it is broken.

    Args:
        engine: Makes it.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._held: tuple[AsyncConnection, Driver] | None = None

    async def driver(self) -> Driver:
        """Return the driver's connection, which is in no transaction."""
        held = self._held
        if held is not None and not held[1].is_closed():
            return held[1]
        await self.drop()
        connection = await self._engine.connect()
        driver: Any = (await connection.get_raw_connection()).driver_connection
        self._held = connection, driver
        return driver  # type: ignore[no-any-return] # the driver has no types

    async def drop(self) -> None:
        """End the connection, which may be in whatever state. Harmless without one."""
        held, self._held = self._held, None
        if held is None:
            return
        connection, driver = held
        try:
            # With a word, if it is answered at once: what runs on the server is cancelled.
            await driver.close(timeout=1.0)
        except Exception:  # noqa: BLE001 - it is given up anyway
            driver.terminate()
        finally:
            await connection.invalidate()
            await connection.close()


# -- errors ----------------------------------------------------------------------------------------------------------

AGAIN: Final = frozenset({"40001", "40P01"})
"""Two transactions were in each other's way: the one that was ended may simply try again."""

_VALUES: Final = frozenset({"22", "23", "54"})
"""Classes of errors that one row's values are to blame for."""

_MAY_PASS: Final = {
    "08": "the connection failed",
    "25": "the connection failed",
    "40": "another transaction was in the way",
    "53": "the server is out of resources",
    "55": "it is locked by another connection",
    "57": "the server stopped, or took too long",
    "58": "the server's disk failed",
}


def sqlstate(error: BaseException) -> str | None:
    """Return the five letters by which the server says what went wrong; None if it was not the server."""
    state = getattr(_root(error), "sqlstate", None)
    return state if isinstance(state, str) else None


def is_refusal(error: BaseException) -> bool:
    """Whether a row's values, not the database, are to blame. asyncpg refuses some itself: a ValueError of its own."""
    state, root = sqlstate(error), _root(error)
    return state[:2] in _VALUES if state is not None else isinstance(root, ValueError) and _is_drivers(root)


def is_lost(error: BaseException) -> bool:
    """Whether the connection failed, so that the answer to what was sent is not known."""
    state, root = sqlstate(error), _root(error)
    if state is not None:
        return state.startswith(("08", "57P"))
    return isinstance(root, OSError | TimeoutError) or (_is_drivers(root) and not is_refusal(root))


def is_foreseen(error: BaseException) -> bool:
    """Whether it is a failure of the database or of the way there, not of this code."""
    root = _root(error)
    ways = OSError | TimeoutError | sa.exc.TimeoutError | sa.exc.DBAPIError
    return sqlstate(root) is not None or isinstance(root, ways) or _is_drivers(root)


def _root(error: BaseException) -> BaseException:
    """Return what the driver raised, where SQLAlchemy has wrapped it, twice."""
    if not isinstance(error, sa.exc.DBAPIError) or error.orig is None:
        return error
    return error.orig.__cause__ or error.orig


def _is_drivers(error: BaseException) -> bool:
    return type(error).__module__.partition(".")[0] == "asyncpg"


def server_error(error: BaseException, name: str, *, uncertain: bool = False) -> StoreError:
    """Return what a failure means to the caller; a cause that may pass is `StoreUnavailableError`."""
    root, state = _root(error), sqlstate(error)
    text = str(root) or type(root).__name__
    reason = None if state is None else _MAY_PASS.get(state[:2])
    if reason is not None:
        text = f"{reason} ({text})"
    if reason is not None or (state is None and not is_refusal(root)):
        return StoreUnavailableError(f"the task store {name} is not available: {text}", uncertain=uncertain)
    return StoreError(f"the task store {name} failed: {text}")
