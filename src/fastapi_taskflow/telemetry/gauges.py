"""One manager's gauges, read at a scrape through functions given to it."""

from __future__ import annotations

import logging
from collections import Counter
from typing import TYPE_CHECKING

from fastapi_taskflow import clock
from fastapi_taskflow.task.record import TaskStatus
from fastapi_taskflow.telemetry import names
from fastapi_taskflow.telemetry.series import Gauges

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

logger = logging.getLogger("fastapi_taskflow.metrics")


class GaugeReader:
    """Reads the gauges. One that fails is left out, and logged the first time.

    Args:
        live_counts: Tasks per queue and status in this process.
        oldest_pending: When the oldest pending task of a queue became ready, seconds since the Unix epoch, or None.
        backlog: Changes that wait for the store.
        limits: Tasks that may run at once per queue; None or no entry is without limit.
    """

    def __init__(
        self,
        *,
        live_counts: Callable[[], Mapping[tuple[str, TaskStatus], int]] | None,
        oldest_pending: Callable[[str], float | None] | None,
        backlog: Callable[[], float] | None,
        limits: Callable[[], Mapping[str, int | None]] | None,
    ) -> None:
        self._live_counts = live_counts
        self._oldest_pending = oldest_pending
        self._backlog = backlog
        self._limits = limits
        self._failed = False

    def read(self, queues: Iterable[str]) -> Gauges:
        """Return the gauges; ``queues`` are shown also when they are empty."""
        gauges = Gauges()
        for fill in (self._fill_counts, self._fill_backlog, self._fill_limits):
            try:
                fill(gauges, queues)
            except Exception:
                if not self._failed:
                    logger.exception("a gauge of the metrics could not be read; it is left out")
                self._failed = True
        return gauges

    def _fill_counts(self, gauges: Gauges, queues: Iterable[str]) -> None:
        if self._live_counts is None:
            return
        counts = self._live_counts()
        labels = dict.fromkeys(sorted(set(queues) - {names.OTHER_QUEUE}))
        others: Counter[TaskStatus] = Counter()
        for (queue, status), count in counts.items():
            if queue in labels or len(labels) < names.MAX_LABELLED_QUEUES:
                labels[queue] = None
            else:
                others[status] += count
        for queue in labels:
            gauges.running[queue] = counts.get((queue, TaskStatus.RUNNING), 0)
            gauges.pending[queue] = counts.get((queue, TaskStatus.PENDING), 0)
            if self._oldest_pending is not None:
                ready_at = self._oldest_pending(queue)
                gauges.oldest[queue] = 0.0 if ready_at is None else max(0.0, clock.now() - ready_at)
        if others:
            # Their oldest one is not looked for: that would cost a pass over all tasks for each of their queues.
            gauges.running[names.OTHER_QUEUE] = others[TaskStatus.RUNNING]
            gauges.pending[names.OTHER_QUEUE] = others[TaskStatus.PENDING]

    def _fill_backlog(self, gauges: Gauges, queues: Iterable[str]) -> None:  # noqa: ARG002 - one shape for all
        if self._backlog is not None:
            gauges.backlog = self._backlog()

    def _fill_limits(self, gauges: Gauges, queues: Iterable[str]) -> None:  # noqa: ARG002 - one shape for all
        if self._limits is not None:
            limits = self._limits().items()
            gauges.limits = {queue: float(limit) for queue, limit in limits if limit is not None}
