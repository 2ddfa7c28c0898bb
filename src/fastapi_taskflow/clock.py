"""The one place that asks for the time.

Records carry times as float seconds since the Unix epoch in UTC: they sort, subtract and store as they are, and
cost a tenth of a ``datetime``. They become aware ``datetime`` objects where people or JSON see them.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime

now = time.time
"""Seconds since the Unix epoch, UTC."""


def to_datetime(seconds: float) -> datetime:
    """Return the aware UTC ``datetime`` for ``seconds`` since the Unix epoch."""
    return datetime.fromtimestamp(seconds, UTC)


def to_iso(seconds: float) -> str:
    """Return ISO 8601 text in UTC with microseconds, such as ``2026-11-24T22:05:00.000000Z``."""
    return to_datetime(seconds).isoformat(timespec="microseconds").replace("+00:00", "Z")
