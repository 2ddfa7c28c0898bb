"""What operators changed of the queues: kept in the store, and applied by every instance."""

from __future__ import annotations

import asyncio
import json
import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Protocol

from fastapi_taskflow.errors import ConfigurationError
from fastapi_taskflow.services.loop import Loop
from fastapi_taskflow.task.queue import NO_LIMITS, QueueConfig, QueueFacts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastapi_taskflow.store import Store

logger = logging.getLogger("fastapi_taskflow.queues")

PREFIX: Final = "queue:"
PAUSED: Final = "paused"
LIMITS: Final = ("concurrency", "max_size", "rate_limit")
EVERY: Final = 1.0
"""Seconds between two looks at what other instances changed."""


class Lane(Protocol):
    """A queue in this process."""

    config: QueueConfig
    paused: bool

    def waiting(self) -> int:
        """Count those who wait."""


class Queues(Protocol):
    """The queues of this process."""

    declared: dict[str, QueueConfig]

    @property
    def lanes(self) -> Mapping[str, Lane]:
        """The queues that are known, or have somebody in them."""

    def change(self, name: str, config: QueueConfig, *, paused: bool) -> None:
        """Set a queue's limits."""


class QueueSettings:
    """Changes limits, pauses and resumes, for all instances on the store.

    Each limit of a queue has a key of its own in the store, so that two operators at once cannot undo each other's.

    Args:
        store: Where changes are kept.
        queues: What they are applied to.
    """

    def __init__(self, store: Store, queues: Queues) -> None:
        self._store = store
        self._queues = queues
        self._stored: dict[str, dict[str, Any]] = {}
        self._misread: set[str] = set()
        self._lock: asyncio.Lock | None = None
        self._loop = Loop("queues", self.look, interval=EVERY, first=EVERY)

    async def start(self) -> None:
        """Apply what is stored, and go on looking where there may be other instances.

        Raises:
            StoreError: If the store fails.
        """
        self._lock = asyncio.Lock()
        self._stored = {}
        await self.look()
        if self._store.persistent:
            self._loop.start()

    async def stop(self) -> None:
        """End."""
        await self._loop.stop()

    async def look(self) -> None:
        """Apply what is stored now."""
        async with self._locked():
            await self._apply()

    async def change(self, name: str, values: Mapping[str, int | str | None]) -> None:
        """Set some limits of a queue, by their names; None is without limit.

        Raises:
            ConfigurationError: If a value is wrong.
            StoreError: If the store fails. Some of them may be set.
        """
        QueueConfig(**values)  # type: ignore[arg-type]
        async with self._locked():
            for field, value in values.items():
                await self._store.set_meta(_key(field, name), json.dumps(value))
            await self._apply()

    async def pause(self, name: str) -> None:
        """Let nothing more of a queue start. What runs goes on.

        Raises:
            StoreError: If the store fails.
        """
        async with self._locked():
            await self._store.set_meta(_key(PAUSED, name), json.dumps(True))  # noqa: FBT003 - JSON has no name for it
            await self._apply()

    async def resume(self, name: str) -> None:
        """Let a paused queue go on.

        Raises:
            StoreError: If the store fails.
        """
        async with self._locked():
            await self._store.drop_meta(_key(PAUSED, name))
            await self._apply()

    async def reset(self, name: str) -> None:
        """Forget what was changed of a queue: the code's limits hold again.

        Raises:
            StoreError: If the store fails.
        """
        async with self._locked():
            for field in (*LIMITS, PAUSED):
                await self._store.drop_meta(_key(field, name))
            await self._apply()

    def facts(self) -> Mapping[str, QueueFacts]:
        """Return what is known of each queue here, in the order of their names."""
        return {
            name: QueueFacts(
                name,
                lane.config,
                paused=lane.paused,
                waiting=lane.waiting(),
                declared=name in self._queues.declared,
                stored=dict(self._stored.get(name, {})),
            )
            for name, lane in sorted(self._queues.lanes.items())
        }

    def _locked(self) -> asyncio.Lock:
        # An answer of the store from before a change must not be applied after it.
        if self._lock is None:
            self._lock = asyncio.Lock()
        return self._lock

    async def _apply(self) -> None:
        stored: dict[str, dict[str, Any]] = {}
        for key, text in (await self._store.metas(PREFIX)).items():
            field, _, name = key.removeprefix(PREFIX).partition(":")
            if (value := self._value(key, field, text)) is not _WRONG:
                stored.setdefault(name, {})[field] = value
        before, self._stored = self._stored, stored
        for name in before.keys() | stored.keys():
            if before.get(name) != stored.get(name):
                self._set(name, stored.get(name, {}))

    def _set(self, name: str, stored: dict[str, Any]) -> None:
        declared = self._queues.declared.get(name, NO_LIMITS)
        config = replace(declared, **{field: stored[field] for field in LIMITS if field in stored})
        paused = bool(stored.get(PAUSED))
        self._queues.change(name, config, paused=paused)
        logger.info("the queue %r has %s%s", name, config, " and is paused" if paused else "")

    def _value(self, key: str, field: str, text: str) -> Any:
        """Return a stored value; what another version wrote and this one does not know is left out."""
        try:
            value = json.loads(text)
            if field in LIMITS:
                QueueConfig(**{field: value})
            elif field != PAUSED or not isinstance(value, bool):
                return self._misreads(key, text)
        except (ValueError, ConfigurationError):
            return self._misreads(key, text)
        return value

    def _misreads(self, key: str, text: str) -> Any:
        if key not in self._misread:
            self._misread.add(key)
            logger.warning("the store has a setting that is not understood: %s is %.100s", key, text)
        return _WRONG


_WRONG: Final = object()


def _key(field: str, name: str) -> str:
    return f"{PREFIX}{field}:{name}"
