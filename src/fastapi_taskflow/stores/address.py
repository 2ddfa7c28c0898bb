"""Whether two database URLs lead to the same database, as far as they tell."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import sqlalchemy as sa

POSTGRESQL_PORT: Final = 5432
_HERE: Final = frozenset({"localhost", "127.0.0.1", "::1"})


def same_database(one: sa.URL, other: sa.URL) -> bool:
    """Tell whether both name the same database: a SQLite file by its resolved path, a server by host, port and name.

    A host that only one of them names is not compared. A SQLite database in memory is never the same.
    """
    if one.get_backend_name() != other.get_backend_name():
        return False
    if one.get_backend_name() == "sqlite":
        file = _file(one)
        return file is not None and file == _file(other)
    hosts = {_host(one), _host(other)} - {None}
    ports = {_port(one), _port(other)}
    names = {one.database or one.username, other.database or other.username}
    return len(hosts) <= 1 and len(ports) == 1 and len(names) == 1


def shown(url: sa.URL) -> str:
    """Return the URL for a message, without what is secret."""
    return url.set(query={}).render_as_string(hide_password=True)


def _file(url: sa.URL) -> Path | None:
    name = (url.database or "").removeprefix("file:").partition("?")[0]
    return Path(name).resolve() if name and name != ":memory:" else None


def _host(url: sa.URL) -> str | None:
    asked = url.query.get("host", "")
    host = url.host or (asked if isinstance(asked, str) else ",".join(asked))
    if host in _HERE or host.startswith("/"):  # a folder: that of a socket
        return "localhost"
    return host.lower() or None


def _port(url: sa.URL) -> object:
    return url.port or url.query.get("port") or POSTGRESQL_PORT
