"""The timeline as lines of a chart: where each bar begins and how wide it is, in percent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from fastapi_taskflow import clock

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastapi_taskflow.web.trace import TimelineSpan

NARROWEST: Final = 0.4
"""Percent; below that a bar cannot be seen."""
DEEPEST: Final = 8
TICKS: Final = 4


@dataclass(frozen=True, slots=True)
class Bar:
    """One line of the chart.

    Attributes:
        span: What it shows.
        left: Where the bar begins, such as ``12.5%``.
        width: How wide it is, such as ``3.1%``.
        depth: Levels of indentation.
        seconds: How long it lasted, or has lasted so far.
        offset: Seconds after the chart's beginning.
        look: Class of the style sheet.
    """

    span: TimelineSpan
    left: str
    width: str
    depth: int
    seconds: float
    offset: float
    look: str


@dataclass(frozen=True, slots=True)
class Waterfall:
    """The chart.

    Attributes:
        bars: Its lines.
        ticks: Seconds at equal distances, from 0 to the whole.
    """

    bars: tuple[Bar, ...]
    ticks: tuple[float, ...]


def waterfall(spans: Sequence[TimelineSpan]) -> Waterfall:
    """Return the chart of ``spans``."""
    now = clock.now()
    begin = min(span.start for span in spans)
    end = max(max(span.start, now if span.end is None else span.end) for span in spans)
    whole = max(end - begin, 1e-6)
    bars = tuple(_bar(span, begin, whole, now) for span in spans)
    return Waterfall(bars, tuple(whole * tick / TICKS for tick in range(TICKS + 1)))


def _bar(span: TimelineSpan, begin: float, whole: float, now: float) -> Bar:
    end = now if span.end is None else span.end
    seconds = max(0.0, end - span.start)
    width = min(100.0, max(NARROWEST, seconds / whole * 100))
    left = min((span.start - begin) / whole * 100, 100 - width)
    return Bar(
        span=span,
        left=f"{max(0.0, left):.3f}%",
        width=f"{width:.3f}%",
        depth=min(span.depth, DEEPEST),
        seconds=seconds,
        offset=span.start - begin,
        look=_look(span),
    )


def _look(span: TimelineSpan) -> str:
    if span.status == "error":
        return "error"
    if span.synthetic and span.kind == "internal":
        return "wait"
    if span.end is None:
        return "running"
    return span.kind if span.kind in ("producer", "consumer", "client", "server") else "internal"
