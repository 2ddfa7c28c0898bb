"""Which form of the metrics a client gets: a rule on the ``Accept`` header."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class MetricsFormat(StrEnum):
    """The forms. The values are those of ``?format=``."""

    JSON = "json"
    PROMETHEUS = "prometheus"
    OPENMETRICS = "openmetrics"


@dataclass(frozen=True, slots=True)
class MediaRange:
    """One part of an ``Accept`` header.

    Attributes:
        kind: Type and subtype, such as ``text/plain`` or ``*/*``, in lower case.
        version: The ``version`` parameter, or None.
        quality: From 0 (not acceptable) to 1.
    """

    kind: str
    version: str | None
    quality: float


ANYTHING: Final = "*/*"
OFFERS: Final = (
    # The first of equals is taken: who does not care is a browser or an API client, not a scraper.
    (MetricsFormat.JSON, ("application/json", "text/html", "application/*"), frozenset({None})),
    (MetricsFormat.OPENMETRICS, ("application/openmetrics-text",), frozenset({None, "1.0.0"})),
    (MetricsFormat.PROMETHEUS, ("text/plain", "text/*"), frozenset({None, "0.0.4"})),
)
"""What can be had: the form, the media ranges that name it, and the versions of it that are written."""


def negotiate(accept: str | None, chosen: str | None = None) -> MetricsFormat:
    """Return the form to answer with.

    Args:
        accept: The ``Accept`` header, or None.
        chosen: The ``format`` query parameter, which decides outright, or None.

    Raises:
        ValueError: If ``chosen`` is none of the forms.
    """
    if chosen is not None:
        try:
            return MetricsFormat(chosen)
        except ValueError:
            msg = f"format must be one of {', '.join(MetricsFormat)}, not {chosen!r}"
            raise ValueError(msg) from None
    ranges = parse_accept(accept or ANYTHING)
    best, form = 0.0, MetricsFormat.JSON
    for offer, kinds, versions in OFFERS:
        quality = _quality(ranges, kinds, versions)
        if quality > best:
            best, form = quality, offer
    return form


def wants_json(accept: str | None) -> bool:
    """Tell whether the client is a browser or an API client, and not a scraper."""
    return negotiate(accept) is MetricsFormat.JSON


def parse_accept(header: str) -> tuple[MediaRange, ...]:
    """Return the parts of an ``Accept`` header. What cannot be read is left out."""
    ranges = []
    for part in header.split(","):
        kind, *parameters = (piece.strip().lower() for piece in part.split(";"))
        if "/" not in kind:
            continue
        version, quality = None, 1.0
        for parameter in parameters:
            name, _, value = parameter.partition("=")
            if name == "version":
                version = value.strip('"')
            elif name == "q":
                quality = _quality_value(value)
        ranges.append(MediaRange(kind, version, quality))
    return tuple(ranges)


def _quality_value(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        return 0.0
    return value if 0.0 <= value <= 1.0 else 0.0


def _quality(ranges: tuple[MediaRange, ...], kinds: tuple[str, ...], versions: frozenset[str | None]) -> float:
    """Return how welcome an offer is: what names it exactly goes before a wildcard, as RFC 9110 has it."""
    exact = [r.quality for r in ranges if r.version in versions and r.kind in kinds and not r.kind.endswith("/*")]
    if exact:
        return max(exact)
    partly = [r.quality for r in ranges if r.kind in kinds and r.kind.endswith("/*")]
    if partly:
        return max(partly)
    return max((r.quality for r in ranges if r.kind == ANYTHING), default=0.0)
