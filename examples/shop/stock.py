"""The shop's stock, in a SQLite file of its own."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Annotated, Final

from fastapi import Depends

from examples.shop.settings import settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from uuid import UUID

FEW: Final = 100
GOODS: Final = {"tea": 1_000_000, "cup": 1_000_000, "pot": 500_000, "tray": 2_000, "unicorn": 0}


class OutOfStockError(Exception):
    """There is less of it than was ordered."""


def get_stock() -> Iterator[sqlite3.Connection]:
    """Give a connection for one request, or one attempt of a task."""
    # It is opened, used and closed in threads of a pool, one after another.
    connection = sqlite3.connect(settings.data / "stock.db", timeout=10, check_same_thread=False)
    with closing(connection):
        _fill(connection)
        yield connection


StockDep = Annotated[sqlite3.Connection, Depends(get_stock)]


def _fill(connection: sqlite3.Connection) -> None:
    with connection:
        connection.execute("CREATE TABLE IF NOT EXISTS goods (sku TEXT PRIMARY KEY, quantity INTEGER NOT NULL)")
        connection.execute("CREATE TABLE IF NOT EXISTS taken (order_id TEXT, sku TEXT, PRIMARY KEY (order_id, sku))")
        connection.executemany("INSERT OR IGNORE INTO goods VALUES (?, ?)", GOODS.items())


def take(connection: sqlite3.Connection, order_id: UUID, sku: str, quantity: int) -> int:
    """Take goods for an order, once, however often it is called; return how many are left.

    Raises:
        OutOfStockError: If there are too few, or none were ever sold here.
    """
    with connection:
        seen = connection.execute("INSERT OR IGNORE INTO taken VALUES (?, ?)", (str(order_id), sku)).rowcount == 0
        if not seen:
            enough = connection.execute(
                "UPDATE goods SET quantity = quantity - ? WHERE sku = ? AND quantity >= ?", (quantity, sku, quantity)
            ).rowcount
            if not enough:
                msg = f"fewer than {quantity} of {sku!r} are left"
                raise OutOfStockError(msg)
        left: int = connection.execute("SELECT quantity FROM goods WHERE sku = ?", (sku,)).fetchone()[0]
        return left
