"""Keeps this worker's metrics where the other workers of its host find them, and shows theirs with its own."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from typing import TYPE_CHECKING, Final

from fastapi_taskflow import clock
from fastapi_taskflow.errors import SchemaVersionError, StoreError
from fastapi_taskflow.services.liveness import process_exists
from fastapi_taskflow.services.loop import Loop
from fastapi_taskflow.telemetry.numbers import Numbers, from_text, merged, to_text
from fastapi_taskflow.telemetry.series import Reading
from fastapi_taskflow.telemetry.sharing import Shown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastapi_taskflow.store import Instance, Store
    from fastapi_taskflow.telemetry.prometheus import PrometheusMetrics
    from fastapi_taskflow.telemetry.series import Gauges

logger = logging.getLogger("fastapi_taskflow.services")

EVERY: Final = 2.0
"""Seconds between two looks without a scrape: what a SIGKILL may take from the counters."""

PATIENCE: Final = 1.0
"""Seconds that a scrape waits for the store. After that it answers with what was known before."""

LAST_WAIT: Final = 5.0
"""Seconds that the shutdown waits for the store."""

KEPT: Final = 7 * 86_400.0
"""Seconds for which the numbers of a host are kept where nothing runs any more: a container is a new host each time."""

GONE: Final = "gone"
"""The key of those whose processes are gone, all together."""


class HostNumbers:
    """Shares the metrics of the workers of one host through the store, so that each answers for all.

    What a scrape shows of this worker is in the store before. So whoever answers the next scrape has no less, even if
    this process is killed in between. Numbers of a process that is gone go into one sum; for as long as it exists its
    own are left alone, however dead it looks, since it may come back and go on counting.

    Args:
        store: Where the numbers are kept.
        metrics: This worker's own; shows the sum.
        me: This instance.
    """

    def __init__(self, store: Store, metrics: PrometheusMetrics, me: Instance) -> None:
        self._store = store
        self._metrics = metrics
        self._me = me
        # Not the instance's id: counters live as long as the manager, which may be started several times.
        self._key = f"{metrics.identity}/{me.pid}/{me.pid_started}"
        self._own = Reading()
        self._kept: tuple[int, Gauges] | None = None
        self._texts: Mapping[str, str] = {}
        self._known: dict[str, Numbers] = {}
        self._unreadable: set[str] = set()
        self._newer: set[str] = set()
        self._living: frozenset[str] = frozenset()
        self._missing: frozenset[str] = frozenset()
        self._read_at = 0.0
        self._failing = False
        self._lock = asyncio.Lock()
        self._next: asyncio.Task[None] | None = None
        self._home = asyncio.get_running_loop()
        self._loop = Loop("metrics", self.look, interval=EVERY, first=EVERY)

    async def start(self) -> None:
        """Share what there is, and go on."""
        await self.look()
        await self._tidy()
        self._metrics.refresh_shown = self.refresh
        self._loop.start()

    async def stop(self) -> None:
        """Share the last numbers, and end. What was shown last is still shown."""
        self._metrics.refresh_shown = None
        await self._loop.stop()
        try:
            async with asyncio.timeout(LAST_WAIT):
                if self._next is not None:
                    await asyncio.wait({self._next})
                await self.look()
        except TimeoutError:
            logger.warning("metrics: the store did not take the last counters before the end")

    async def _tidy(self) -> None:
        try:
            await self._store.forget_numbers(KEPT)
        except StoreError as error:
            logger.warning("metrics of hosts that are gone stay until the next start: %s", error)

    async def refresh(self) -> None:
        """Share and read once more, for a scrape; give up waiting after `PATIENCE` seconds."""
        if asyncio.get_running_loop() is not self._home:
            return
        # One that is under way has read the counters already: whoever comes now shares the one after it.
        if self._next is None:
            self._next = self._home.create_task(self._look_next(), name="taskflow-metrics-scrape")
        await asyncio.wait({self._next}, timeout=PATIENCE)

    async def _look_next(self) -> None:
        async with self._lock:
            self._next = None
            await self._look()

    async def look(self) -> None:
        """Keep this worker's numbers if they have changed, read the others', and put together those that are gone."""
        async with self._lock:
            await self._look()

    async def _look(self) -> None:
        try:
            await self._keep()
            await self._read()
            self._failing = False
        except StoreError as error:
            if not self._failing:
                logger.warning("metrics: %s; counters stand still until the store answers", error)
            self._failing = True
        except Exception:
            logger.exception("metrics of the workers could not be shared")
        self._show()

    async def _keep(self) -> None:
        version, own = self._metrics.snapshot()
        if (version, own.gauges) == self._kept:
            return
        # Hundreds of tasks make a long text: in a thread, as that of the scrape itself.
        text = await asyncio.to_thread(to_text, Numbers(own, self._me.instance_id, clock.now()))
        await self._store.save_numbers(self._key, self._me.host, text)
        self._own, self._kept = own, (version, own.gauges)

    async def _read(self) -> None:
        texts = await self._store.numbers(self._me.host)
        read_at = time.monotonic()
        living = frozenset(each.instance_id for each in await self._store.instances())
        if self._key not in texts:
            # The database is another one than before.
            self._kept = None
        others = {key: text for key, text in texts.items() if key != self._key}
        self._known = await asyncio.to_thread(self._read_all, others)
        self._texts, self._living, self._read_at = texts, living, read_at
        await self._put_together(texts)

    def _read_all(self, texts: Mapping[str, str]) -> dict[str, Numbers]:
        found: dict[str, Numbers] = {}
        unreadable = set()
        for key, text in texts.items():
            known = self._known.get(key)
            if self._texts.get(key) != text:
                try:
                    known = from_text(text)
                    self._newer.discard(key)
                except SchemaVersionError as error:
                    self._newer.add(key)
                    self._say(key, error)
                    unreadable.add(key)
                except ValueError as error:
                    self._say(key, error)
                    unreadable.add(key)
            elif key in self._unreadable:
                unreadable.add(key)
            if known is not None:
                found[key] = known
        self._unreadable = unreadable
        self._newer &= unreadable
        return found

    def _say(self, key: str, error: Exception) -> None:
        if key not in self._unreadable:
            logger.warning("metrics of another worker (%s) are left out: %s", key, error)

    async def _put_together(self, texts: Mapping[str, str]) -> None:
        missing = frozenset(key for key in texts if key not in self._newer and not self._exists(key))
        # At the second sight: a database server may still be at what the process sent with its last breath.
        gone = sorted(missing & self._missing)
        self._missing = missing
        if gone and GONE not in self._newer:
            await self._store.merge_numbers(self._me.host, gone, GONE, merged)

    def _exists(self, key: str) -> bool:
        parts = key.split("/")
        if len(parts) != 3 or not (parts[1] + parts[2]).isdecimal():  # noqa: PLR2004 - as the key is made
            return True
        return process_exists(dataclasses.replace(self._me, pid=int(parts[1]), pid_started=int(parts[2])))

    def _show(self) -> None:
        now = clock.now()
        others: dict[str, Reading] = {}
        for key, numbers in self._known.items():
            others[key] = shown = Reading()
            shown.series, shown.flush = numbers.reading.series, numbers.reading.flush
            if numbers.instance_id in self._living and self._exists(key):
                shown.gauges = numbers.gauges_at(now)
        self._metrics.shown = Shown(self._key, self._own, others, self._read_at)
