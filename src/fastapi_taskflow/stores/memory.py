"""A store in memory: nothing outlives the process, and the history is bounded."""

from __future__ import annotations

import asyncio
import dataclasses
from bisect import bisect_left, insort
from collections import deque
from operator import attrgetter
from typing import TYPE_CHECKING, Final

from fastapi_taskflow import clock
from fastapi_taskflow.store import DURATION_BOUNDS, OWNERLESS_GRACE, FunctionStats, Page, WriteResult
from fastapi_taskflow.stores.compact import PLACE, compact, expand
from fastapi_taskflow.stores.cursor import decode_cursor, encode_cursor
from fastapi_taskflow.stores.durations import timed
from fastapi_taskflow.stores.fence import HELD, Held, takes
from fastapi_taskflow.stores.matching import matcher, name_matches
from fastapi_taskflow.task.record import TaskRecord, TaskStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from fastapi_taskflow.store import Act, Change, Instance, TaskQuery
    from fastapi_taskflow.stores.rows import Row

_FUNC, _STATUS, _CREATED = PLACE["func_name"], PLACE["status"], PLACE["created_at"]
_START, _END = PLACE["start_time"], PLACE["end_time"]
MAX_ACTS: Final = 1_000
"""Acts that the audit log in memory remembers."""

_PENDING, _RUNNING = TaskStatus.PENDING, TaskStatus.RUNNING
_KEPT: Final = TaskStatus.INTERRUPTED.value


class _Tally:
    """What is counted of one function."""

    __slots__ = ("buckets", "counts", "seconds")

    def __init__(self) -> None:
        self.counts: dict[str, int] = dict.fromkeys(TaskStatus, 0)
        self.buckets = [0] * (len(DURATION_BOUNDS) + 1)
        self.seconds = 0.0

    def add(self, sign: int, status: str, start: float | None, end: float | None) -> None:
        self.counts[status] += sign
        entry = timed(status, start, end)
        if entry is not None:
            self.buckets[entry[0]] += sign
            self.seconds += sign * entry[1]


class MemoryStore:
    """Keeps what is live, and the newest finished records in a compact form.

    A change costs 2 to 3 µs. Finished records are tuples of atoms, which the garbage collector does not track, so
    its passes do not grow with the history.

    Args:
        max_finished: Finished records kept; the one that finished first goes first. At least 0.
    """

    def __init__(self, *, max_finished: int = 10_000) -> None:
        self._max_finished = max_finished
        self._clear()

    def _clear(self) -> None:
        self._live: dict[str, TaskRecord] = {}
        self._done: dict[str, Row] = {}
        self._done_order: deque[str] = deque()
        # Keys in the order of listings. Those of dropped records stay until they are half of it.
        self._order: list[tuple[float, str]] = []
        self._tallies: dict[str, _Tally] = {}
        self._instances: dict[str, Instance] = {}
        self._meta: dict[str, tuple[str, float | None]] = {}
        self._cancels: set[str] = set()
        self._acts: deque[Act] = deque(maxlen=MAX_ACTS)
        self._numbers: dict[str, dict[str, str]] = {}
        self._numbers_at: dict[str, float] = {}

    @property
    def persistent(self) -> bool:
        """False: nothing outlives the process."""
        return False

    @property
    def company_warning(self) -> str | None:
        """None: no other process sees it."""
        return None

    @property
    def generation(self) -> int:
        """Zero: nobody can replace what it holds."""
        return 0

    async def open(self) -> None:
        """Do nothing; there is nothing to connect to."""

    async def close(self) -> None:
        """Do nothing; what is kept stays readable."""

    # -- writing -----------------------------------------------------------------------------------------------------

    async def write(self, changes: Sequence[Change]) -> WriteResult:
        """Take all changes; see `Store.write`."""
        duplicates: list[str] | None = None
        stale: list[str] | None = None
        live = self._live
        for change in changes:
            record = change.record
            task_id = record.task_id
            before = self._held(task_id)
            if before is None and change.committed is None:
                self._place((record.created_at, task_id))
            elif before is None or not takes(change, before):
                if change.committed is None:
                    duplicates = [*(duplicates or ()), task_id]
                else:
                    stale = [*(stale or ()), task_id]
                continue
            self._count(record, before)
            status = record.status
            if status is _PENDING or status is _RUNNING:
                live[task_id] = record
            else:
                self._finish(record)
        if duplicates is stale is None:
            return _ALL_WRITTEN
        return WriteResult(frozenset(duplicates or ()), frozenset(stale or ()))

    def _held(self, task_id: str) -> TaskRecord | Held | None:
        held = self._live.get(task_id)
        if held is not None:
            return held
        row = self._done.get(task_id)
        if row is None:
            return None
        return Held(*(row[PLACE[name]] for name in HELD))._replace(status=TaskStatus(row[_STATUS]))

    def _count(self, record: TaskRecord, before: TaskRecord | Held | None) -> None:
        tally = self._tallies.get(record.func_name)
        if tally is None:
            tally = self._tallies[record.func_name] = _Tally()
        if before is not None:
            tally.add(-1, before.status, before.start_time, before.end_time)
        tally.add(1, record.status, record.start_time, record.end_time)

    def _finish(self, record: TaskRecord) -> None:
        task_id = record.task_id
        self._live.pop(task_id, None)
        row = compact(record)
        if task_id not in self._done:
            self._done_order.append(task_id)
        self._done[task_id] = row
        while len(self._done) > self._max_finished:
            self._drop(self._done_order[0])

    def _place(self, key: tuple[float, str]) -> None:
        order = self._order
        if not order or key > order[-1]:
            order.append(key)
        elif (at := bisect_left(order, key)) == len(order) or order[at] != key:
            insort(order, key)

    def _drop(self, task_id: str) -> None:
        row = self._done.pop(task_id)
        if self._done_order[0] == task_id:
            self._done_order.popleft()
        else:
            self._done_order.remove(task_id)
        self._tallies[row[_FUNC]].add(-1, row[_STATUS], row[_START], row[_END])
        kept = len(self._live) + len(self._done)
        if len(self._order) > 2 * kept + 1_000:
            self._order = [key for key in self._order if self._created_at(key[1]) == key[0]]

    def _created_at(self, task_id: str) -> float | None:
        held = self._live.get(task_id)
        if held is not None:
            return held.created_at
        row = self._done.get(task_id)
        return None if row is None else row[_CREATED]

    async def prune(self, *, before: float, limit: int) -> int:
        """Delete old finished records; see `Store.prune`."""
        ended = sorted(
            (row[_END], task_id)
            for task_id, row in self._done.items()
            if row[_END] is not None and row[_END] < before and row[_STATUS] != _KEPT
        )
        for _, task_id in ended[:limit]:
            self._drop(task_id)
        return len(ended[:limit])

    # -- reading -----------------------------------------------------------------------------------------------------

    async def get(self, task_id: str) -> TaskRecord | None:
        """Return the whole record, or None."""
        held = self._live.get(task_id)
        if held is not None:
            return _without_payload(held)
        row = self._done.get(task_id)
        return None if row is None else expand(row)

    async def list(self, query: TaskQuery) -> Page:
        """Return one page; see `Store.list`."""
        after = decode_cursor(query)
        matches = matcher(query)
        records: list[TaskRecord] = []
        for row in self._rows(after, oldest_first=query.oldest_first):
            if not matches(row):
                continue
            if len(records) == query.limit:
                last = records[-1]
                return Page(tuple(records), encode_cursor(last.created_at, last.task_id, query), self._total(query))
            records.append(expand(row)._replace(spans=(), result=None, follow=None))
        return Page(tuple(records), None, self._total(query))

    def _rows(self, after: tuple[float, str] | None, *, oldest_first: bool) -> Iterator[Row]:
        order = self._order
        if oldest_first:
            first = 0 if after is None else bisect_left(order, (after[0], after[1] + "\0"))
            places = range(first, len(order))
        else:
            last = len(order) if after is None else bisect_left(order, after)
            places = range(last - 1, -1, -1)
        for place in places:
            created_at, task_id = order[place]
            held = self._live.get(task_id)
            row = compact(held) if held is not None else self._done.get(task_id)
            if row is not None and row[_CREATED] == created_at:
                yield row

    def _total(self, query: TaskQuery) -> int | None:
        if not query.only_counted:
            return None
        return sum(
            count
            for name, tally in self._tallies.items()
            if query.func_name is None or name_matches(query.func_name, name)
            for status, count in tally.counts.items()
            if not query.statuses or status in query.statuses
        )

    async def stats(self) -> Mapping[str, FunctionStats]:
        """Return the counters per function name."""
        return {
            name: FunctionStats(
                {TaskStatus(status): count for status, count in tally.counts.items() if count},
                sum(tally.buckets),
                tally.seconds,
                tuple(tally.buckets),
            )
            for name, tally in self._tallies.items()
            if any(tally.counts.values())
        }

    async def claim(self, owner: str, dead: Mapping[str, float], *, limit: int) -> Sequence[TaskRecord]:
        """Take over tasks of nobody who lives; see `Store.claim`."""
        settled = clock.now() - OWNERLESS_GRACE
        beats = self._instances.items()
        live = {owner, *(key for key, each in beats if each.heartbeat_at != dead.get(key))}
        found = [
            record
            for record in self._live.values()
            if record.owner not in live and (record.owner or record.created_at < settled)
        ]
        found.sort(key=lambda record: (record.created_at, record.task_id))
        claimed = [record.evolve(owner=owner) for record in found[:limit]]
        self._live.update((record.task_id, record) for record in claimed)
        return [_without_payload(record) for record in claimed]

    async def take(self, task_id: str, *, of: str, owner: str) -> TaskRecord | None:
        """Take one pending task from its owner; see `Store.take`."""
        record = self._live.get(task_id)
        if record is None or record.status is not _PENDING or record.owner != of:
            return None
        taken = self._live[task_id] = record.evolve(owner=owner)
        return _without_payload(taken)

    async def owned(self, owner: str) -> frozenset[str]:
        """Return the ids of an instance's live tasks."""
        return frozenset(task_id for task_id, record in self._live.items() if record.owner == owner)

    async def changes(self, since: float, *, limit: int) -> Sequence[TaskRecord]:
        """Return what is live, was added or ended since; see `Store.changes`."""
        ended = [
            expand(row)
            for row in self._done.values()
            if row[_CREATED] >= since or (row[_END] is not None and row[_END] >= since)
        ]
        return [*list(self._live.values())[:limit], *ended[-limit:]]

    async def ask_to_cancel(self, task_id: str) -> None:
        """Leave a request; see `Store.ask_to_cancel`."""
        self._cancels.add(task_id)

    async def asked_to_cancel(self, owner: str) -> Sequence[str]:
        """Take the requests for an instance's tasks; see `Store.asked_to_cancel`."""
        self._cancels &= self._live.keys()
        mine = [task_id for task_id in self._cancels if self._live[task_id].owner == owner]
        self._cancels.difference_update(mine)
        return mine

    async def signalled(self, within: float) -> bool:
        """Wait; there is nobody who could send a signal."""
        await asyncio.sleep(within)
        return False

    async def save_numbers(self, instance_id: str, host: str, numbers: str) -> None:
        """Keep an instance's metrics."""
        self._numbers.setdefault(host, {})[instance_id] = numbers
        self._numbers_at[host] = clock.now()

    async def numbers(self, host: str) -> Mapping[str, str]:
        """Return the kept metrics of a host."""
        return dict(self._numbers.get(host, {}))

    async def merge_numbers(
        self, host: str, gone: Sequence[str], into: str, merge: Callable[[Sequence[str]], str]
    ) -> None:
        """Put metrics together; see `Store.merge_numbers`."""
        kept = self._numbers.setdefault(host, {})
        texts = [kept.pop(key) for key in dict.fromkeys((*gone, into)) if key in kept]
        if texts:
            kept[into] = merge(texts)

    async def forget_numbers(self, age: float) -> None:
        """Delete the metrics of hosts that are gone; see `Store.forget_numbers`."""
        kept = {each.host for each in self._instances.values()}
        for host in [host for host, at in self._numbers_at.items() if host not in kept and at < clock.now() - age]:
            del self._numbers[host], self._numbers_at[host]

    # -- instances and settings --------------------------------------------------------------------------------------

    async def beat(self, instance: Instance) -> None:
        """Write the instance's row, new or not."""
        self._instances[instance.instance_id] = dataclasses.replace(instance, heartbeat_at=clock.now(), age=0.0)

    async def instances(self) -> Sequence[Instance]:
        """Return all instances that have a row."""
        now = clock.now()
        return [dataclasses.replace(each, age=now - each.heartbeat_at) for each in self._instances.values()]

    async def forget(self, instance_id: str, *, beat: float | None = None) -> None:
        """Delete the instance's row, if it has not beaten since; see `Store.forget`."""
        row = self._instances.get(instance_id)
        if row is not None and beat in (None, row.heartbeat_at):
            del self._instances[instance_id]

    async def get_meta(self, key: str) -> str | None:
        """Return a small setting, or None."""
        value, expires_at = self._meta.get(key, (None, None))
        return None if expires_at is not None and expires_at <= clock.now() else value

    async def put_meta(self, key: str, value: str, *, expires_at: float | None = None) -> str:
        """Keep a small setting if the key is free or expired; return the value held now."""
        held = await self.get_meta(key)
        if held is not None:
            return held
        now = clock.now()
        self._meta = {k: kept for k, kept in self._meta.items() if kept[1] is None or kept[1] > now}
        self._meta[key] = (value, expires_at)
        return value

    async def rewrite(self, record: TaskRecord) -> bool:  # noqa: ARG002 - see below
        """Say no: nothing outlives the process, nor the key that it has."""
        return False

    async def set_meta(self, key: str, value: str) -> None:
        """Keep a small setting in place of an earlier one."""
        self._meta[key] = (value, None)

    async def drop_meta(self, key: str) -> bool:
        """Delete a small setting; return whether there was one."""
        there = await self.get_meta(key) is not None
        self._meta.pop(key, None)
        return there

    async def metas(self, prefix: str) -> Mapping[str, str]:
        """Return the small settings whose key begins with ``prefix``."""
        found = {key: await self.get_meta(key) for key in sorted(self._meta) if key.startswith(prefix)}
        return {key: value for key, value in found.items() if value is not None}

    # -- the audit log -----------------------------------------------------------------------------------------------

    async def add_act(self, act: Act) -> None:
        """Add to the audit log; the newest `MAX_ACTS` are kept."""
        if all(act.act_id != known.act_id for known in self._acts):
            self._acts.append(act)

    async def acts(self, *, target: str | None = None, before: str | None = None, limit: int = 50) -> Sequence[Act]:
        """Return the audit log, newest first; see `Store.acts`."""
        matching = [
            act
            for act in sorted(self._acts, key=attrgetter("act_id"), reverse=True)
            if target in (None, act.target) and (before is None or act.act_id < before)
        ]
        return matching[:limit]

    async def prune_acts(self, *, before: float, limit: int) -> int:
        """Delete old acts; see `Store.prune_acts`."""
        old = [act for act in self._acts if act.at < before][:limit]
        for act in old:
            self._acts.remove(act)
        return len(old)


_ALL_WRITTEN: Final = WriteResult()


def _without_payload(record: TaskRecord) -> TaskRecord:
    return record if record.payload is None else record._replace(payload=None)
