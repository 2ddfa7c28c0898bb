"""Metrics: JSON for people and programs, Prometheus or OpenMetrics text for a scraper."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from fastapi import APIRouter, Request
from starlette.responses import Response

from fastapi_taskflow.store import DURATION_BOUNDS
from fastapi_taskflow.task.record import FINISHED, TaskStatus
from fastapi_taskflow.telemetry.negotiation import MetricsFormat, negotiate
from fastapi_taskflow.web.answers import TEXT, Answers, json_answer, problems
from fastapi_taskflow.web.parts import Parts
from fastapi_taskflow.web.schemas import SafeJSONResponse
from fastapi_taskflow.web.shapes import Metrics

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from fastapi_taskflow.store import FunctionStats

router = APIRouter()

MEASURED: Answers = {
    200: {
        **json_answer(Metrics, "The metrics")[200],
        "content": {"text/plain": TEXT, "application/openmetrics-text": TEXT},
    }
}


@router.get("/metrics", response_class=Response, responses={**MEASURED, **problems(422, 503)})
async def metrics(
    request: Request,
    parts: Parts,
    format: Literal["json", "prometheus", "openmetrics"] | None = None,  # noqa: A002 - named as in the URL
) -> Response:
    """Return the metrics in the form that was asked for."""
    accept = request.headers.get("accept")
    if negotiate(accept, format) is MetricsFormat.JSON:
        body = metrics_json(await parts.journal.stats())
        return SafeJSONResponse(body, headers={"Vary": "Accept"})
    content_type, text = await parts.prometheus.scrape(accept, format)
    return Response(text, headers={"Content-Type": content_type, "Vary": "Accept"})


def metrics_json(stats: Mapping[str, FunctionStats]) -> dict[str, Any]:
    """Return totals and, under ``functions``, the same per function."""
    return {
        **_summary(stats.values()),
        "functions": {name: _summary([stats[name]]) for name in sorted(stats)},
    }


def _summary(stats: Iterable[FunctionStats]) -> dict[str, Any]:
    stats = list(stats)
    counts = {status: sum(item.counts.get(status, 0) for item in stats) for status in TaskStatus}
    finished = sum(counts[status] for status in FINISHED)
    measured = sum(item.duration_count for item in stats)
    seconds = sum(item.duration_sum for item in stats)
    buckets = [sum(column) for column in zip(*(item.buckets for item in stats), strict=True)]
    return {
        "total": sum(counts.values()),
        **{status.value: count for status, count in counts.items()},
        "success_rate": counts[TaskStatus.SUCCESS] / finished if finished else None,
        "avg_duration_seconds": seconds / measured if measured else None,
        "p50_duration_seconds": quantile(buckets, 0.5),
        "p95_duration_seconds": quantile(buckets, 0.95),
        "p99_duration_seconds": quantile(buckets, 0.99),
    }


def quantile(buckets: Sequence[int], share: float) -> float | None:
    """Return an estimate of a quantile in seconds, linear within its bucket; None if nothing was counted.

    Args:
        buckets: Counts per bound of `DURATION_BOUNDS` and one for the rest, not cumulative.
        share: From 0 to 1.
    """
    total = sum(buckets)
    if not total:
        return None
    rank, below = share * total, 0
    for index, count in enumerate(buckets):
        if count and below + count >= rank:
            lower = DURATION_BOUNDS[index - 1] if index else 0.0
            upper = DURATION_BOUNDS[index] if index < len(DURATION_BOUNDS) else lower
            return round(lower + (upper - lower) * (rank - below) / count, 6)
        below += count
    return DURATION_BOUNDS[-1]
