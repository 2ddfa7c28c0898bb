"""What a PostgreSQL URL comes to, and what its errors mean."""

from __future__ import annotations

import importlib.util

import pytest
import sqlalchemy as sa

from fastapi_taskflow import TaskManager
from fastapi_taskflow.errors import ConfigurationError, StoreUnavailableError
from fastapi_taskflow.stores import pg
from fastapi_taskflow.stores.postgresql import PostgresqlStore
from fastapi_taskflow.stores.text import without_nul

LONG_URL = (
    "postgres://ada:sword%40fish@db.example:5433/shop?sslmode=require&timeout=2.5&statement_cache_size=10"
    "&search_path=tasks&application_name=shop&target_session_attrs=read-write"
)


@pytest.mark.parametrize("scheme", ["postgresql+asyncpg", "postgresql", "postgres"])
def test_every_spelling_is_the_same_store(scheme: str) -> None:
    """Users have all three of them in their settings."""
    manager = TaskManager(snapshot_backend=f"{scheme}://ada@db.example/shop")
    assert isinstance(manager.store, PostgresqlStore)
    assert manager.store.persistent
    assert pg.server_of(f"{scheme}://ada@db.example/shop").url.drivername == "postgresql+asyncpg"


def test_options_go_where_they_belong() -> None:
    """To asyncpg, or to the server, as what they are."""
    server = pg.server_of(LONG_URL)
    assert server.options == {
        "ssl": "require", "timeout": 2.5, "statement_cache_size": 10, "target_session_attrs": "read-write",
    }  # fmt: skip
    assert server.settings == {"search_path": "tasks", "application_name": "shop"}
    assert server.url.query == {}
    assert not server.pooled
    assert server.name == "postgresql+asyncpg://ada:***@db.example:5433/shop"


def test_hosts_in_the_query_stay_there() -> None:
    """A socket's folder, or several servers, are for SQLAlchemy to sort out."""
    server = pg.server_of("postgresql:///shop?host=/run/postgresql")
    assert server.url.query == {"host": "/run/postgresql"}
    assert server.options == {}


@pytest.mark.parametrize("name", ["statement_cache_size", "prepared_statement_cache_size"])
def test_no_prepared_statements_mean_a_pooler(name: str) -> None:
    """Then nothing is kept from one transaction to the next, by neither of the two caches."""
    server = pg.server_of(f"postgresql://ada@db.example/shop?{name}=0")
    assert server.pooled
    assert server.options == {"statement_cache_size": 0, "prepared_statement_cache_size": 0}


@pytest.mark.parametrize(
    ("url", "match"),
    [
        ("postgresql+psycopg://ada:swordfish@db.example/shop", "through asyncpg.*postgresql\\+psycopg"),
        ("postgresql://ada:swordfish@db.example/shop?nonsense=1", "'nonsense' that is not known"),
        ("postgresql://ada:swordfish@db.example/shop?timeout=soon", "timeout in the database URL must be a number"),
        ("postgresql://ada:swordfish@db.example:port/shop", "no database URL|number"),
    ],
)
def test_wrong_url_is_refused_without_its_password(url: str, match: str) -> None:
    """Where the store is made, in words."""
    with pytest.raises(ConfigurationError, match=match) as caught:
        PostgresqlStore(url)
    assert "swordfish" not in str(caught.value)


def test_without_asyncpg_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says what to install."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match=r"fastapi-taskflow-otel\[postgres\]"):
        TaskManager(snapshot_backend="postgresql://ada@db.example/shop")


class ServerError(Exception):
    """What asyncpg raises for an answer of the server's."""

    def __init__(self, sqlstate: str) -> None:
        super().__init__(f"state {sqlstate}")
        self.sqlstate = sqlstate


@pytest.mark.parametrize("state", ["08006", "57P01", "53300", "55P03", "40001", "25006", "57014"])
def test_what_may_pass_is_unavailable(state: str) -> None:
    """Restart, failover, locks, a full server: the caller may try again."""
    wrapped = sa.exc.DBAPIError("SELECT", {}, ServerError(state))
    for error in (ServerError(state), wrapped):
        assert isinstance(pg.server_error(error, "there"), StoreUnavailableError)


@pytest.mark.parametrize("state", ["42P01", "28P01", "3D000"])
def test_what_does_not_pass_is_no_outage(state: str) -> None:
    """A table, a password or a database that is not there."""
    assert not isinstance(pg.server_error(ServerError(state), "there"), StoreUnavailableError)


def test_only_a_broken_connection_leaves_the_outcome_open() -> None:
    """What the server said is certain."""
    assert all(map(pg.is_lost, (ConnectionResetError(), TimeoutError(), ServerError("08006"), ServerError("57P01"))))
    assert not any(map(pg.is_lost, (ServerError("57014"), ServerError("22021"), KeyError("a bug"))))
    assert not pg.is_foreseen(KeyError("a bug"))


def test_text_without_nul_is_the_same_json() -> None:
    """What PostgreSQL does not take is spelled out."""
    assert without_nul("a\0b") == "a\\u0000b"
    assert without_nul("a\ud800b") == "a\\ud800b"
    assert without_nul("größe 🎉") == "größe 🎉"
