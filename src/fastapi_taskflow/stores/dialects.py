"""Where SQLAlchemy has one construct for each database, the one for this connection's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

if TYPE_CHECKING:
    from sqlalchemy.dialects.postgresql import Insert as PostgresqlInsert
    from sqlalchemy.dialects.sqlite import Insert as SqliteInsert


def insert(connection: sa.Connection, table: sa.Table) -> SqliteInsert | PostgresqlInsert:
    """Return an INSERT that knows ``on_conflict_do_nothing`` and ``on_conflict_do_update``."""
    # Imported where needed: each of the two is a thousand objects more for the garbage collector.
    if connection.dialect.name == "postgresql":
        from sqlalchemy.dialects.postgresql import insert as postgresql_insert

        return postgresql_insert(table)
    from sqlalchemy.dialects.sqlite import insert as sqlite_insert

    return sqlite_insert(table)


class place_of(FunctionElement[int]):  # noqa: N801 - it reads as a function, as those of ``sa.func`` do
    """Where a piece of text begins in a column, from 1; 0 if it is not there. No wildcards, and letters as they are."""

    type = sa.Integer()
    inherit_cache = True


@compiles(place_of)
def _instr(element: place_of, compiler: Any, **options: Any) -> str:
    return f"instr({compiler.process(element.clauses, **options)})"


@compiles(place_of, "postgresql")
def _strpos(element: place_of, compiler: Any, **options: Any) -> str:
    return f"strpos({compiler.process(element.clauses, **options)})"
