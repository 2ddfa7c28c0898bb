"""Encrypts what is stored with the newest key: after a key was added, before the old one is dropped."""

from __future__ import annotations

import asyncio
import dataclasses
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from fastapi_taskflow.errors import TaskArgumentError
from fastapi_taskflow.store import TaskQuery
from fastapi_taskflow.task.follow import with_payloads

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastapi_taskflow.encryption import FernetCipher
    from fastapi_taskflow.store import Store
    from fastapi_taskflow.task.record import TaskRecord

PAGE: Final = 200
TRIES: Final = 3


@dataclass(frozen=True, slots=True)
class Reencrypted:
    """What came of it.

    Attributes:
        seen: Tasks that were looked at.
        changed: Those that were written anew.
        unreadable: Those whose key is not among those given; they are as they were.
        busy: Those that changed all the time meanwhile. A second run takes them.
    """

    seen: int = 0
    changed: int = 0
    unreadable: int = 0
    busy: int = 0


async def reencrypt(
    store: Store, cipher: FernetCipher, *, on_progress: Callable[[Reencrypted], None] | None = None
) -> Reencrypted:
    """Encrypt every stored task's arguments, and what else is encrypted of it, with the newest key.

    The service may run meanwhile. What was done stays done if it is stopped, and is not done again.

    Args:
        store: What to go through.
        cipher: Has the newest key, and those that are to be dropped.
        on_progress: Told after each page.

    Raises:
        StoreError: If the store fails.
    """
    counts: Counter[str] = Counter()
    query = TaskQuery(oldest_first=True, limit=PAGE)
    while True:
        page = await store.list(query)
        for record in page.records:
            counts["seen"] += 1
            counts[await _reencrypted(store, cipher, record.task_id)] += 1
        total = Reencrypted(**{name: counts[name] for name in ("seen", "changed", "unreadable", "busy")})
        if on_progress is not None:
            on_progress(total)
        if page.next_cursor is None:
            return total
        query = dataclasses.replace(query, cursor=page.next_cursor)
        await asyncio.sleep(0)


async def _reencrypted(store: Store, cipher: FernetCipher, task_id: str) -> str:
    """Encrypt one task; return the name of what it counts as."""
    for _ in range(TRIES):
        record = await store.get(task_id)
        if record is None:
            return "gone"
        try:
            fresh = _fresh(record, cipher)
        except TaskArgumentError:
            return "unreadable"
        if fresh == record:
            return "fresh"
        if await store.rewrite(fresh):
            return "changed"
    return "busy"


def _fresh(record: TaskRecord, cipher: FernetCipher) -> TaskRecord:
    def anew(text: str) -> str:
        return cipher.fresh(cipher.sealed(text))

    return record._replace(
        payload=None if record.payload is None else anew(record.payload),
        result=None if record.result is None else cipher.fresh(record.result),
        follow=None if record.follow is None else with_payloads(record.follow, anew),
        logs=tuple(dataclasses.replace(line, message=cipher.fresh(line.message)) for line in record.logs),
    )
