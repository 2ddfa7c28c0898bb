"""How facts read on a page."""

from __future__ import annotations

import json
from typing import Any, Final
from urllib.parse import quote

from fastapi_taskflow import clock
from fastapi_taskflow.web.schemas import iso

MINUTE: Final = 60.0
HOUR: Final = 3_600.0
DAY: Final = 86_400.0
MAX_SHOWN: Final = 20_000
LONG: Final = 1_000
NOTHING: Final = "\u2013"


def duration(seconds: float | None) -> str:
    """Return ``840 µs``, ``12 ms``, ``3.42 s``, ``2 m 05 s``, ``1 h 12 m`` or ``3 d 4 h``."""
    if seconds is None:
        return NOTHING
    if seconds < MINUTE:
        return _below_a_minute(seconds)
    if seconds < HOUR:
        return f"{int(seconds // MINUTE)} m {int(seconds % MINUTE):02} s"
    if seconds < DAY:
        return f"{int(seconds // HOUR)} h {int(seconds % HOUR // MINUTE):02} m"
    return f"{int(seconds // DAY)} d {int(seconds % DAY // HOUR)} h"


def _below_a_minute(seconds: float) -> str:
    # Limits lie where rounding would give the next unit: never "1000 ms" or "10.00 s".
    if seconds < 0.0005:  # noqa: PLR2004
        return f"{seconds * 1e6:.0f} µs" if seconds > 0 else "0 s"
    if seconds < 0.9995:  # noqa: PLR2004
        return f"{seconds * 1e3:.{0 if seconds >= 0.00995 else 1}f} ms"  # noqa: PLR2004
    return f"{seconds:.{1 if seconds >= 9.995 else 2}f} s"  # noqa: PLR2004


def ago(seconds: float | None) -> str:
    """Return how long ago a time was, such as ``12 s ago``."""
    if seconds is None:
        return NOTHING
    age = clock.now() - seconds
    if age < 0:
        return f"in {_coarse(-age)}"
    return "just now" if age < 1 else f"{_coarse(age)} ago"


def _coarse(seconds: float) -> str:
    for unit, size, limit in (("s", 1.0, MINUTE), ("min", MINUTE, HOUR), ("h", HOUR, 2 * DAY)):
        if seconds < limit:
            return f"{int(seconds // size)} {unit}"
    return f"{int(seconds // DAY)} d"


def stamp(seconds: float | None) -> str:
    """Return ``2026-11-24 22:05:01.123`` in UTC."""
    text = iso(seconds)
    return NOTHING if text is None else text[:23].replace("T", " ")


def count(number: int) -> str:
    """Return a number with separators."""
    return f"{number:,}"


def percent(share: float | None) -> str:
    """Return a share of 1 as ``99.2 %``. Only all is 100 %."""
    if share is None:
        return NOTHING
    text = f"{share * 100:.1f}"
    return "99.9 %" if text == "100.0" and share < 1 else f"{text.removesuffix('.0')} %"


def short_id(task_id: str) -> str:
    """Return the end of an id: its beginning is the time, which neighbours share."""
    return task_id[-12:]


def clip(text: object, limit: int = MAX_SHOWN) -> str:
    """Return ``text`` cut to about ``limit``: a short one at its end, a long one in its middle."""
    text = str(text)
    if len(text) <= limit:
        return text
    if limit < LONG:
        return f"{text[: limit - 1]}…"
    half = limit // 2
    return f"{text[:half]}\n… {len(text) - limit:,} characters left out, see the JSON …\n{text[-half:]}"


def url_part(text: str) -> str:
    """Return ``text`` for a path or a query. What UTF-8 lacks becomes ``?``: such a link finds nothing, but is one."""
    return quote(text, safe="", errors="replace")


def pretty(value: Any) -> str:
    """Return indented JSON for people."""
    try:
        return clip(json.dumps(value, indent=2, ensure_ascii=False, default=str))
    except (ValueError, RecursionError):
        return clip(repr(value))
