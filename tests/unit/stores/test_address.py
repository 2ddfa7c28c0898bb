"""Whether two URLs lead to the same database."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

from fastapi_taskflow.stores.address import same_database, shown


def test_a_file_is_the_same_by_any_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative, absolute, through a link or as a SQLite URI; the driver does not matter."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "app.db").touch()
    (tmp_path / "link.db").symlink_to("app.db")
    own = sa.make_url(f"sqlite+aiosqlite:///{tmp_path / 'app.db'}")
    for text in (
        "sqlite:///app.db",
        "sqlite:///./app.db",
        "sqlite:///link.db",
        "sqlite:///file:app.db?mode=rw&uri=true",
    ):
        assert same_database(sa.make_url(text), own), text
    for text in ("sqlite:///other.db", "sqlite://", "sqlite:///:memory:", "postgresql://localhost/app.db"):
        assert not same_database(sa.make_url(text), own), text


@pytest.mark.parametrize(
    ("one", "same"),
    [
        ("postgresql://db.example/shop", True),
        ("postgresql+psycopg://ada:other@DB.example:5432/shop", True),
        ("postgresql:///shop", True),  # whose host comes from the environment: it cannot be told
        ("postgresql:///shop?host=db.example", True),
        ("postgresql://db.example:5433/shop", False),
        ("postgresql://db.example/stock", False),
        ("postgresql://elsewhere.example/shop", False),
        ("postgresql:///shop?host=/run/postgresql", False),
        ("mysql://db.example:5432/shop", False),
    ],
)
def test_a_server_is_compared_as_far_as_the_url_tells(one: str, same: bool) -> None:  # noqa: FBT001 - a parameter
    """By host, port and name; not by user, password or driver."""
    assert same_database(sa.make_url(one), sa.make_url("postgresql+asyncpg://bob:pw@db.example/shop")) is same


def test_this_host_has_many_names() -> None:
    """A socket's folder is one of them."""
    own = sa.make_url("postgresql+asyncpg://postgres@127.0.0.1/test")
    for host in ("localhost", "127.0.0.1", "[::1]"):
        assert same_database(sa.make_url(f"postgresql://{host}/test"), own)
    assert same_database(sa.make_url("postgresql:///test?host=/run/postgresql"), own)
    assert same_database(sa.make_url("postgresql://test@localhost"), own)


def test_nothing_secret_is_shown() -> None:
    """Neither the password nor what the query may hold."""
    text = shown(sa.make_url("postgresql://ada:secret@db.example/shop?password=hidden"))
    assert text == "postgresql://ada:***@db.example/shop"
