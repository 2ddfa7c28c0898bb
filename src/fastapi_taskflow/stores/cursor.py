"""The opaque place where a page ended: the last record's key in the order of the listing."""

from __future__ import annotations

import base64
import json
import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastapi_taskflow.store import TaskQuery


def encode_cursor(created_at: float, task_id: str, query: TaskQuery) -> str:
    """Return the cursor behind the record with this key."""
    text = json.dumps([created_at, task_id, int(query.oldest_first)], separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode("ascii")).decode("ascii").rstrip("=")


def decode_cursor(query: TaskQuery) -> tuple[float, str] | None:
    """Return the key that ``query.cursor`` names, or None if there is no cursor.

    Raises:
        ValueError: If it is none that `encode_cursor` made, or was made for the other order.
    """
    if query.cursor is None:
        return None
    try:
        padded = query.cursor + "=" * (-len(query.cursor) % 4)
        created_at, task_id, oldest_first = json.loads(base64.b64decode(padded.encode("ascii"), b"-_", validate=True))
        after = float(created_at)
        # Ids are plain ASCII. Some databases fail on a NUL, a lone surrogate or a number that is none.
        plain = isinstance(task_id, str) and task_id.isascii() and task_id.isprintable()
        valid = plain and math.isfinite(after) and isinstance(created_at, float | int)
    except (ValueError, TypeError, OverflowError):
        valid = False
    if not valid:
        msg = f"the cursor {query.cursor[:80]!r} is not one that a page gave"
        raise ValueError(msg)
    if bool(oldest_first) is not query.oldest_first:
        msg = "the cursor belongs to a listing in the other order"
        raise ValueError(msg)
    return after, task_id
