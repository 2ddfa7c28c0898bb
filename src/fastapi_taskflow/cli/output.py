"""What a command prints: tables for people, JSON for programs, and nothing that a terminal would obey."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fastapi_taskflow import clock
from fastapi_taskflow.web.schemas import dump

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
STYLES = {
    "success": "green", "failed": "red", "running": "blue", "pending": "yellow", "interrupted": "magenta",
    "cancelled": "dim", "rejected": "dim",
}  # fmt: skip

err = Console(stderr=True, highlight=False)


def out() -> Console:
    """Return where tables go: as wide as they are, if nobody sees them."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else 500)


def cell(value: object, style: str = "") -> Text:
    """Return a value as text without markup, and with control characters spelled out."""
    text = "" if value is None else str(value)
    return Text(_CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text), style=style)


def status_cell(status: str) -> Text:
    """Return a status in its colour."""
    return cell(status, STYLES.get(status, ""))


def moment(seconds: float | None) -> str:
    """Return a time as people read it, in UTC."""
    return "" if seconds is None else clock.to_iso(seconds)[:19].replace("T", " ")


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(value if isinstance(value, Text) else cell(value) for value in row))
    out().print(table)


def print_json(value: Any) -> None:
    """Print one line of JSON."""
    sys.stdout.write(dump(value) + "\n")
