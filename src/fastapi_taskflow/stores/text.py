"""Text as each database can hold it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

if TYPE_CHECKING:
    from sqlalchemy.engine import Dialect
    from sqlalchemy.types import TypeEngine

    _Base = sa.types.TypeDecorator[str]
else:
    _Base = sa.types.TypeDecorator


def without_nul(text: str) -> str:
    r"""Return ``text`` as PostgreSQL takes it: a NUL is spelled ``\u0000``, a lone surrogate ``\udxxx``.

    Within JSON text both are the same text as before.
    """
    if "\0" in text:
        text = text.replace("\0", "\\u0000")
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


class StoredText(_Base):
    """Text that sorts and compares by its bytes, whatever the language of the database.

    So it is in SQLite; and an index of PostgreSQL that followed a language would break with an update of the system's
    rules for it.
    """

    impl = sa.Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[str]:
        """Return the type in this database."""
        return dialect.type_descriptor(sa.Text(collation="C") if dialect.name == "postgresql" else sa.Text())

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Return the value as this database takes it."""
        return without_nul(value) if value is not None and dialect.name == "postgresql" else value
