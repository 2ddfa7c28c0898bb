"""The live index of this process, and the way of every change into the store.

Changes are written behind, in batches: while one batch commits, the next one forms, and states of a task that follow
each other within it become one row. The events go out to the observers in the same rhythm.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import threading
import time
from collections import Counter, deque
from typing import TYPE_CHECKING, Final

from fastapi_taskflow import clock
from fastapi_taskflow.commit import Commit
from fastapi_taskflow.entry import ended_entry, live_record
from fastapi_taskflow.errors import StoreError, StoreUnavailableError
from fastapi_taskflow.store import Change
from fastapi_taskflow.task.event import EventKind, TaskEvent
from fastapi_taskflow.task.record import TaskStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from fastapi_taskflow.entry import Entry
    from fastapi_taskflow.observer import Observer
    from fastapi_taskflow.store import FunctionStats, Page, Store, TaskQuery, WriteResult
    from fastapi_taskflow.task.record import LogEntry, TaskRecord

logger = logging.getLogger("fastapi_taskflow.journal")

RETRY_FIRST: Final = 0.05
RETRY_MOST: Final = 2.0
PROBE: Final = "journal.probe"
READ_AFTER: Final = 0.25
CHECKPOINT_AFTER: Final = 0.5
"""Seconds after which what a running task told is stored: other workers see it, and a crash leaves it."""


class Journal:
    """Write-behind with group commit in front of one store.

    Args:
        store: Where changes go.
        observers: Who is told of events, in this order.
        max_backlog: Changes that may wait for the store; beyond that nothing new is taken in.
        linger: Seconds that a change which nobody waits for may wait for company.
        on_flush: Told the seconds that each commit took.
    """

    def __init__(
        self,
        store: Store,
        observers: Sequence[Observer],
        *,
        max_backlog: int,
        linger: float = 0.0,
        on_flush: Callable[[float], None] | None = None,
    ) -> None:
        self.store = store
        self.live: dict[str, Entry] = {}
        self._observers = tuple(observers)
        self._untold: deque[TaskEvent] = deque()
        self._thread = threading.get_ident()
        self._max_backlog = max_backlog
        self._linger = linger
        self._on_flush = on_flush
        self._dirty: dict[str, Entry] = {}
        self._in_flight: set[str] = set()
        self._next: Commit | None = None
        self._current: Commit | None = None
        self._wake: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._flusher: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._failure: str | None = None
        self._outcome: Commit | None = None
        self._writing_since: float | None = None
        self._generation = 0

    # -- life --------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to write. Call it on the loop that everything else runs on."""
        self._loop = asyncio.get_running_loop()
        self._next = self._current = self._wake = self._timer = None
        self._in_flight = set()
        self._dirty = {}
        self._thread = threading.get_ident()
        self._failure = None
        self._outcome = None
        self._writing_since = None
        self._generation = self.store.generation
        self._flusher = self._loop.create_task(self._flush_for_ever(), name="taskflow-journal")

    async def stop(self, *, within: float) -> bool:
        """Write what is left, for at most ``within`` seconds, and end. Return whether all of it was written."""
        done = True
        if self._dirty or self._in_flight:
            try:
                await asyncio.wait_for(self.flushed(), within)
            except TimeoutError:
                done = False
                logger.error("the store did not take %d changes before the end", self.backlog)  # noqa: TRY400
        if self._flusher is not None:
            self._flusher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._flusher
            self._flusher = None
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._wake = None
        self.tell()
        self.live.clear()
        self._dirty.clear()
        return done

    @property
    def running(self) -> bool:
        """Whether it writes: between ``start`` and the end of ``stop``."""
        return self._flusher is not None

    def call_soon(self, callback: Callable[..., object], *args: object) -> None:
        """Have ``callback`` called on the loop; may be called from any thread.

        Raises:
            RuntimeError: If the loop is closed, or there never was one.
        """
        self._running_loop().call_soon_threadsafe(callback, *args)

    # -- writing -----------------------------------------------------------------------------------------------------

    @property
    def backlog(self) -> int:
        """How many changes are not committed yet."""
        return len(self._dirty) + len(self._in_flight)

    @property
    def full(self) -> bool:
        """Whether so many changes wait that nothing new is taken in."""
        return self.backlog >= self._max_backlog

    @property
    def failure(self) -> str | None:
        """Why the last write failed, or None if it did not."""
        return self._failure

    @property
    def writing_for(self) -> float:
        """Seconds for which the batch under way has been waiting for the store; 0 if there is none."""
        return 0.0 if self._writing_since is None else time.perf_counter() - self._writing_since

    def admit(self, entries: Iterable[Entry]) -> None:
        """Take new entries in, as one batch.

        Raises:
            StoreUnavailableError: If too many changes wait already.
        """
        self.require_room()
        self.take(entries)

    def take(self, entries: Iterable[Entry]) -> None:
        """Take new entries in whatever waits: what follows a task must not be refused when that one ends."""
        for entry in entries:
            task_id = entry.record.task_id
            self.live[task_id] = entry
            self._dirty[task_id] = entry
        self._linger_on()

    def require_room(self) -> None:
        """Refuse what is new while too many changes wait.

        Raises:
            StoreUnavailableError: If they do.
        """
        if self.full:
            msg = f"{self.backlog} changes wait for the store already; no new task is taken in until it catches up"
            raise StoreUnavailableError(msg)

    def amend(self, record: TaskRecord, **changes: object) -> Entry:
        """Have a task that has ended written with ``changes``; its entry is lost if somebody else was faster."""
        entry = self.live.get(record.task_id)
        if entry is None:
            entry = self.live[record.task_id] = ended_entry(record)
        self.append(entry, record.evolve(**changes))
        return entry

    def append(self, entry: Entry, record: TaskRecord) -> None:
        """Make ``record`` the newest of ``entry`` and have it written soon."""
        entry.record = record
        if entry.ended is not None and record.finished:
            entry.ended.set()
        if entry.lost:
            return
        self._dirty[record.task_id] = entry
        self._linger_on()

    def _linger_on(self) -> None:
        if self._wake is not None and self._timer is None:
            self._timer = self._running_loop().call_later(self._linger, self._poke)

    def next_commit(self) -> Commit:
        """Return the commit that will hold all that was appended so far."""
        commit = self._next
        if commit is None:
            commit = self._next = Commit(self._running_loop())
        self._poke()
        return commit

    def _poke(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        wake, self._wake = self._wake, None
        if wake is not None and not wake.done():
            wake.set_result(None)

    async def flushed(self) -> None:
        """Wait until nothing waits for the store."""
        while self._dirty or self._in_flight:
            await self.next_commit().wait()

    def commit_of(self, task_id: str) -> Commit | None:
        """Return the commit that a live task waits for, or None if it is committed."""
        if task_id in self._dirty:
            return self.next_commit()
        return (self._current or self.next_commit()) if task_id in self._in_flight else None

    def outcome_of(self, task_id: str) -> Commit | None:
        """Return what is done once the batch that a task is in was written *or failed*; None if it is in none."""
        if task_id not in self._in_flight:
            return None
        if self._outcome is None:
            self._outcome = Commit(self._running_loop())
        return self._outcome

    def withdraw(self, entry: Entry) -> None:
        """Forget a new entry whose request failed. One that the store may hold by now is rejected there."""
        entry.withdrawn = True
        task_id = entry.record.task_id
        if self.live.get(task_id) is not entry:
            return
        if task_id not in self._in_flight and entry.committed is None and not entry.uncertain:
            self._dirty.pop(task_id, None)
            del self.live[task_id]

    async def _flush_for_ever(self) -> None:
        pause = RETRY_FIRST
        while True:
            if self._next is None and self._failure is None:
                await self._woken()
            if self._untold:
                self.tell()
            if await self._go_on():
                pause = RETRY_FIRST
            else:
                await asyncio.sleep(pause)
                pause = min(pause * 2, RETRY_MOST)

    async def _go_on(self) -> bool:
        """Do what is due; return whether the store took it."""
        if self.store.generation != self._generation and not await self._look_again():
            return False
        if self._dirty:
            return await self._flush_once()
        done, self._next = self._next, None
        if done is not None:
            done.done()
        return self._failure is None or await self._try_store()

    async def _woken(self) -> None:
        """Wait until somebody waits for a commit, or what lingers has lingered."""
        self._wake = wake = self._running_loop().create_future()
        if self._dirty:
            self._linger_on()
        await wake

    async def _flush_once(self) -> bool:
        batch, self._dirty = self._dirty, {}
        self._current, self._next = self._next, None
        changes = [Change(entry.record, entry.committed) for entry in batch.values()]
        self._in_flight = set(batch)
        self._writing_since = began = time.perf_counter()
        try:
            result = await self.store.write(changes)
        except Exception as error:  # noqa: BLE001 - whatever it is, the changes are kept
            self._take_back(batch, error)
            return False
        finally:
            self._writing_since = None
        if self._on_flush is not None:
            self._on_flush(time.perf_counter() - began)
        if self._failure is not None:
            self._failure = None
            logger.warning("the store works again; %d changes were written", len(changes))
        self._settle(batch, changes, result)
        done, self._current = self._current, None
        if done is not None:
            done.done()
        self._tell_outcome()
        return True

    def _tell_outcome(self) -> None:
        outcome, self._outcome = self._outcome, None
        if outcome is not None:
            outcome.done()

    async def _try_store(self) -> bool:
        """See whether a store that failed works again, though nothing waits: requests may stay away until it does."""
        try:
            await self.store.put_meta(PROBE, "", expires_at=clock.now())
        except Exception as error:  # noqa: BLE001 - it is tried again
            self._note_failure(error)
            return False
        self._failure = None
        logger.warning("the store works again; nothing was waiting for it")
        return True

    async def _look_again(self) -> bool:
        """Find out what a store that holds something else now has of the live tasks; return whether it told.

        What it lacks is written anew, so that nothing accepted is lost with a file that was replaced.
        """
        generation = self.store.generation
        written_anew = 0
        for task_id, entry in list(self.live.items()):
            try:
                found = await self.store.get(task_id)
            except Exception as error:  # noqa: BLE001 - it is tried again
                self._note_failure(error)
                return False
            record, before = entry.record, entry.committed
            owners = {record.owner, before.owner if before is not None else record.owner}
            if self.live.get(task_id) is not entry or (found is not None and found.owner not in owners):
                continue  # it has gone meanwhile, or somebody else has it: writing it will tell
            entry.committed = found
            if found is None or found.version != entry.record.version:
                self._dirty[task_id] = entry
                written_anew += 1
            elif entry.record.finished:
                self._dirty.pop(task_id, None)
                del self.live[task_id]
        self._generation = generation
        logger.warning("the store was replaced; %d live tasks are written into it", written_anew)
        return True

    def _settle(self, batch: Mapping[str, Entry], changes: Sequence[Change], result: WriteResult) -> None:
        refused = result.duplicates | result.stale
        self._in_flight = set()
        for change in changes:
            record = change.record
            entry = batch[record.task_id]
            if refused and record.task_id in refused:
                self._drop(entry, record, stale=record.task_id in result.stale)
                continue
            entry.committed = record
            if entry.record is record and record.finished:
                self.live.pop(record.task_id, None)

    def _drop(self, entry: Entry, record: TaskRecord, *, stale: bool) -> None:
        entry.lost = True
        if entry.ended is not None:
            entry.ended.set()
        self._dirty.pop(record.task_id, None)
        if self.live.get(record.task_id) is entry:
            del self.live[record.task_id]
        entry.leave()
        if entry.context is not None:
            # Another instance runs it now: this attempt is stopped, as far as it can be.
            entry.cancel_requested = True
            entry.context.request_cancel()
            if entry.runner is not None:
                entry.runner.cancel()
        if stale and entry.admitted:
            logger.warning(
                "task %s (%s) was taken over by another instance; this one's %s is not kept",
                record.task_id, record.func_name, record.status.value,
            )  # fmt: skip

    def give_up(self, entry: Entry) -> None:
        """Forget a live task that another instance has taken."""
        self._drop(entry, entry.record, stale=False)

    def follow_store(self) -> bool:
        """Have what is live written into a store that holds something else now; return whether it does."""
        replaced = self.store.generation != self._generation
        if replaced:
            self._poke()
        return replaced

    async def give_up_lost(self, owner: str) -> None:
        """Give up what the store held for ``owner``, this instance, and holds no more.

        Raises:
            StoreError: If the store does not answer.
        """
        # Whatever is committed while the answer is on its way may be missing in it, and is lost to nobody.
        held = [entry for entry in self.live.values() if entry.committed is not None and entry.committed.owner == owner]
        owned = await self.store.owned(owner)
        if self.follow_store():
            return  # what is missing in a file that was replaced was taken by nobody
        for entry in held:
            task_id = entry.record.task_id
            if task_id not in owned and self.live.get(task_id) is entry and not entry.record.finished:
                self._drop(entry, entry.record, stale=True)

    def _take_back(self, batch: dict[str, Entry], error: Exception) -> None:
        self._note_failure(error)
        self._in_flight = set()
        uncertain = isinstance(error, StoreUnavailableError) and error.uncertain
        for task_id, entry in batch.items():
            entry.uncertain = entry.uncertain or uncertain
            if entry.withdrawn and entry.committed is None and not entry.uncertain:
                if self.live.get(task_id) is entry:
                    del self.live[task_id]
            elif task_id not in self._dirty:
                self._dirty[task_id] = entry
        waiting, self._current = self._current, None
        if waiting is not None and self._next is not None:
            self._next.take_over(waiting)
        elif waiting is not None:
            self._next = waiting
        self._tell_outcome()

    def _note_failure(self, error: Exception) -> None:
        """Say once for each outage what is wrong, with a traceback where nobody foresaw it."""
        first, self._failure = self._failure is None, str(error) or repr(error)
        if first:
            unforeseen = None if isinstance(error, StoreError) else error
            logger.error(
                "the store does not take changes: %s; they are kept and tried again", error, exc_info=unforeseen
            )

    # -- events ------------------------------------------------------------------------------------------------------

    def add_observer(self, observer: Observer) -> None:
        """Tell ``observer`` too, after the others."""
        self._observers = (*self._observers, observer)

    def publish(self, event: TaskEvent) -> None:
        """Have every observer told of ``event`` soon: many at a time cost a third of one by one.

        May be called from any thread.
        """
        self._untold.append(event)
        if self._wake is not None and self._timer is None and event.kind is not EventKind.LOGGED:
            self._linger_on()

    def tell(self) -> None:
        """Tell the observers now what they were not told yet. One that fails is logged and stops nothing.

        On another thread than the loop's it does nothing: the loop will tell them.
        """
        if threading.get_ident() != self._thread:
            return
        untold = self._untold
        while untold:
            event = untold.popleft()
            for observer in self._observers:
                try:
                    observer.observe(event)
                except Exception:
                    logger.exception("%s failed on %s", type(observer).__name__, event.kind.value)

    def logged(self, entry: Entry, line: LogEntry) -> None:
        """Take note of a line that the running task wrote; may be called from any thread."""
        self.publish(TaskEvent(EventKind.LOGGED, entry.record, line.at, log=line))
        self.progressed(entry)

    def progressed(self, entry: Entry) -> None:
        """Have what the running task told stored soon; may be called from any thread."""
        if not entry.checkpoint_due:
            entry.checkpoint_due = True
            self.call_soon(self._plan_checkpoint, entry)

    def _plan_checkpoint(self, entry: Entry) -> None:
        self._linger_on()
        self._running_loop().call_later(CHECKPOINT_AFTER, self._checkpoint, entry)

    def _checkpoint(self, entry: Entry) -> None:
        entry.checkpoint_due = False
        record = live_record(entry)
        if record is entry.record or self.live.get(record.task_id) is not entry:
            return
        moved = (record.progress, record.progress_text) != (entry.record.progress, entry.record.progress_text)
        record = record.evolve()
        self.append(entry, record)
        if moved:
            self.publish(TaskEvent(EventKind.PROGRESSED, record, clock.now()))

    # -- reading -----------------------------------------------------------------------------------------------------

    async def get(self, task_id: str) -> TaskRecord | None:
        """Return the newest record: of the live task here, else of the store."""
        entry = self.live.get(task_id)
        if entry is not None and (entry.admitted or entry.committed is not None):
            return live_record(entry)
        return await self.store.get(task_id)

    async def list(self, query: TaskQuery) -> Page:
        """Return one page of the store, after what was appended before, with the lines of what runs here."""
        await self._caught_up()
        page = await self.store.list(query)
        live = self.live
        records = tuple(
            live_record(live[r.task_id]) if r.task_id in live and r.status is live[r.task_id].record.status else r
            for r in page.records
        )
        return dataclasses.replace(page, records=records)

    async def stats(self) -> Mapping[str, FunctionStats]:
        """Return the store's counters per function, after what was appended before."""
        await self._caught_up()
        return await self.store.stats()

    async def _caught_up(self) -> None:
        """Let a reader see what was just done here; a store that is in trouble makes nobody wait for long."""
        if self._dirty or self._in_flight:
            await self.next_commit().wait(READ_AFTER)

    def live_counts(self) -> Mapping[tuple[str, TaskStatus], int]:
        """Return how many tasks wait and run in this process, by queue and status."""
        return Counter((entry.record.queue, entry.record.status) for entry in tuple(self.live.values()))

    def oldest_pending(self, queue: str) -> float | None:
        """Return since when the longest waiting task of ``queue`` here could have run; None if none waits."""
        now = clock.now()
        ready = [
            entry.record.ready_at
            for entry in tuple(self.live.values())
            if entry.record.status is TaskStatus.PENDING and entry.record.queue == queue
        ]
        return min((at for at in ready if at <= now), default=None)

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            msg = "the journal was not started"
            raise RuntimeError(msg)
        return self._loop
