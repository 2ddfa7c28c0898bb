"""The journal: batches, coalescing, waiting for a commit, failures of the store, and events."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from fastapi_taskflow.commit import Commit
from fastapi_taskflow.errors import StoreError, StoreUnavailableError
from fastapi_taskflow.journal import Journal
from fastapi_taskflow.store import WriteResult
from fastapi_taskflow.task import lifecycle
from fastapi_taskflow.task.context import TaskContext
from fastapi_taskflow.task.event import EventKind, TaskEvent
from fastapi_taskflow.task.record import TaskStatus
from tests.unit.fakes import RecordingObserver, RecordingStore, make_entry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
def store() -> RecordingStore:
    """Return a store that keeps what it is given."""
    return RecordingStore()


@pytest.fixture
async def journal(store: RecordingStore) -> AsyncIterator[Journal]:
    """Return a started journal."""
    journal = Journal(store, [], max_backlog=100)  # type: ignore[arg-type]
    journal.start()
    yield journal
    store.gate.set()
    await journal.stop(within=1.0)


async def test_what_another_instance_took_leaves_the_line_of_its_queue() -> None:
    """Whoever follows it need not wait for its turn."""
    store = RecordingStore()
    journal = Journal(store, [], max_backlog=100)  # type: ignore[arg-type]
    journal.start()
    entry, left = make_entry(), asyncio.Event()
    journal.admit([entry])
    await journal.flushed()
    entry.leave_line = left.set
    store.result = WriteResult(stale=frozenset({"id-1"}))
    journal.append(entry, entry.record.evolve())
    await journal.flushed()
    assert (entry.lost, left.is_set()) == (True, True)
    await journal.stop(within=1)


async def test_new_entries_of_one_request_are_one_batch(journal: Journal, store: RecordingStore) -> None:
    """They are committed when the future is done, and live until they end."""
    entries = [make_entry("a"), make_entry("b")]
    journal.admit(entries)
    await journal.next_commit().wait()
    assert store.statuses() == [["pending", "pending"]]
    assert [entry.committed for entry in entries] == [entry.record for entry in entries]
    assert set(journal.live) == {"a", "b"}


async def test_the_next_batch_forms_while_one_commits_and_states_become_one_row(
    journal: Journal, store: RecordingStore
) -> None:
    """Running and success of one task are one change; the change names what the store holds."""
    entry = make_entry("a")
    journal.admit([entry])
    store.gate.clear()
    first = asyncio.create_task(journal.next_commit().wait())
    await store.writing.wait()
    pending = entry.record
    running = lifecycle.start(pending, at=2.0, owner="me")
    journal.append(entry, running)
    journal.append(entry, lifecycle.succeed(running, at=3.0))
    second = journal.next_commit()
    assert not first.done()
    store.gate.set()
    assert await second.wait()
    assert await first
    assert store.statuses() == [["pending"], ["success"]]
    assert store.batches[1][0].committed is pending
    assert not journal.live


async def test_a_change_that_nobody_waits_for_is_written_all_the_same(store: RecordingStore) -> None:
    """It lingers for a moment, for company."""
    journal = Journal(store, [], max_backlog=100, linger=0.001)  # type: ignore[arg-type]
    journal.start()
    journal.admit([make_entry("a")])
    store.writing.clear()
    async with asyncio.timeout(5):
        await store.writing.wait()
        await journal.flushed()
    assert store.statuses() == [["pending"]]
    assert await journal.stop(within=1.0)


async def test_a_failing_store_loses_nothing_and_is_told_once(
    journal: Journal, store: RecordingStore, caplog: pytest.LogCaptureFixture
) -> None:
    """The batch is tried again until it is taken; whoever waits goes on waiting; an unforeseen error counts as well."""
    store.errors = [StoreError("locked"), RuntimeError("odd"), StoreError("locked")]
    journal.admit([make_entry("a")])
    async with asyncio.timeout(5):
        await journal.next_commit().wait()
    assert store.statuses() == [["pending"]]
    assert journal.failure is None
    told = [record for record in caplog.records if "does not take changes" in record.message]
    assert len(told) == 1
    assert "works again" in caplog.text


async def test_what_was_appended_during_a_failure_is_written_in_its_newest_form(
    journal: Journal, store: RecordingStore
) -> None:
    """An older version never comes after a newer one."""
    entry = make_entry("a")
    store.gate.clear()
    store.errors = [StoreError("locked")]
    journal.admit([entry])
    commit = journal.next_commit()
    await store.writing.wait()
    cancelled = lifecycle.cancel(entry.record, at=2.0)
    journal.append(entry, cancelled)
    store.gate.set()
    async with asyncio.timeout(5):
        await commit.wait()
        await journal.flushed()
    assert [change.record for batch in store.batches for change in batch] == [cancelled]
    assert store.batches[0][0].committed is None


async def test_a_withdrawn_entry_is_not_written_again(journal: Journal, store: RecordingStore) -> None:
    """Neither one that still waits, nor one whose write failed."""
    store.gate.clear()
    store.errors = [StoreError("locked")]
    first, second = make_entry("a"), make_entry("b")
    journal.admit([first])
    commit = journal.next_commit()
    await store.writing.wait()
    journal.admit([second])
    journal.withdraw(first)
    journal.withdraw(second)
    store.gate.set()
    async with asyncio.timeout(5):
        await commit.wait()
    assert store.batches == []
    assert not journal.live


async def test_a_full_backlog_takes_nothing_in(journal: Journal, store: RecordingStore) -> None:
    """The bound is told."""
    store.gate.clear()
    journal.admit([make_entry(str(number)) for number in range(100)])
    with pytest.raises(StoreUnavailableError, match="100 changes wait"):
        journal.admit([make_entry("one more")])
    assert "one more" not in journal.live


async def test_a_refused_change_ends_the_entry_here(
    journal: Journal, store: RecordingStore, caplog: pytest.LogCaptureFixture
) -> None:
    """Another instance owns the task now: nothing more of it is written, and the operator is told."""
    entry = make_entry("a")
    entry.admitted = True
    journal.admit([entry])
    await journal.next_commit().wait()
    store.result = WriteResult(stale=frozenset({"a"}))
    journal.append(entry, lifecycle.start(entry.record, at=2.0, owner="me"))
    await journal.next_commit().wait()
    assert entry.lost
    assert not journal.live
    journal.append(entry, lifecycle.succeed(entry.record, at=3.0))
    assert journal.backlog == 0
    assert "taken over by another instance" in caplog.text


async def test_a_duplicate_ends_silently(
    journal: Journal, store: RecordingStore, caplog: pytest.LogCaptureFixture
) -> None:
    """The first task with the key stands for it."""
    store.result = WriteResult(duplicates=frozenset({"a"}))
    entry = make_entry("a")
    journal.admit([entry])
    await journal.next_commit().wait()
    assert (entry.lost, journal.live, caplog.text) == (True, {}, "")


async def test_stop_writes_what_is_left_and_tells_when_it_could_not(store: RecordingStore) -> None:
    """A store that hangs does not hold the shutdown for ever."""
    journal = Journal(store, [], max_backlog=100, linger=60.0)  # type: ignore[arg-type]
    journal.start()
    journal.admit([make_entry("a")])
    assert await journal.stop(within=1.0)
    assert store.statuses() == [["pending"]]
    journal.start()
    store.gate.clear()
    journal.admit([make_entry("b")])
    assert not await journal.stop(within=0.01)


async def test_every_observer_is_told_though_one_fails(store: RecordingStore, caplog: pytest.LogCaptureFixture) -> None:
    """A broken part stays broken alone."""

    class Broken:
        def observe(self, _event: TaskEvent) -> None:
            msg = "no"
            raise RuntimeError(msg)

    told = RecordingObserver()
    journal = Journal(store, [Broken(), told], max_backlog=1)  # type: ignore[arg-type]
    journal.publish(TaskEvent(EventKind.ENQUEUED, make_entry().record, 1.0))
    journal.tell()
    assert told.kinds() == ["enqueued"]
    assert "Broken failed on enqueued" in caplog.text


async def test_lines_of_a_running_task_are_seen_and_stored_before_it_ends(store: RecordingStore) -> None:
    """Other workers see them, and a crash leaves them."""
    told = RecordingObserver()
    journal = Journal(store, [told], max_backlog=10, linger=0.001)  # type: ignore[arg-type]
    journal.start()
    entry = make_entry("a")
    entry.admitted = True
    journal.admit([entry])
    journal.append(entry, lifecycle.start(entry.record, at=2.0, owner="me"))
    await journal.flushed()
    entry.context = TaskContext(entry.record, on_log=lambda line: journal.logged(entry, line))
    store.writing.clear()
    await asyncio.to_thread(entry.context.log, "from a thread")
    seen = await journal.get("a")
    assert seen is not None
    assert [line.message for line in seen.logs] == ["from a thread"]
    async with asyncio.timeout(5):
        await store.writing.wait()
        await journal.flushed()
    last = store.batches[-1][0]
    assert [line.message for line in last.record.logs] == ["from a thread"]
    assert last.record.status is TaskStatus.RUNNING
    journal.tell()
    assert told.kinds() == ["logged"]
    await journal.stop(within=1.0)


async def test_counts_and_age_of_what_is_live(journal: Journal) -> None:
    """By queue and status; a retry that is not due yet does not count as old."""
    now = make_entry("a")
    later = make_entry("b")
    later.record = later.record.evolve(ready_at=9e12)
    journal.admit([now, later])
    assert journal.live_counts() == {("default", TaskStatus.PENDING): 2}
    assert journal.oldest_pending("default") == 1.0
    assert journal.oldest_pending("other") is None


async def test_a_waiter_that_gives_up_disturbs_no_other(journal: Journal, store: RecordingStore) -> None:
    """Each waits as long as it likes; a cancelled one is gone."""
    store.gate.clear()
    journal.admit([make_entry("a")])
    commit = journal.next_commit()
    patient = asyncio.create_task(commit.wait())
    cancelled = asyncio.create_task(commit.wait(60))
    await store.writing.wait()
    assert await commit.wait(0.001) is False
    cancelled.cancel()
    store.gate.set()
    assert await patient
    assert cancelled.cancelled()


async def test_what_others_have_taken_is_given_up(journal: Journal, store: RecordingStore) -> None:
    """But for what is not stored yet, what has ended here, and what was nobody's."""
    kept, lost, ended, nobodys, new = (make_entry(name) for name in ("kept", "lost", "ended", "nobodys", "new"))
    nobodys.record = nobodys.record._replace(owner="")
    journal.admit([kept, lost, ended, nobodys])
    await journal.next_commit().wait()
    journal.append(ended, lifecycle.cancel(ended.record, at=2.0))
    journal.admit([new])
    store.owned_ids = {"kept"}
    await journal.give_up_lost("me")
    assert [entry.lost for entry in (kept, lost, ended, nobodys, new)] == [False, True, False, False, False]
    assert "lost" not in journal.live


async def test_what_is_committed_while_the_store_answers_is_not_given_up(
    journal: Journal, store: RecordingStore
) -> None:
    """The answer is from before: after an outage everything that waited is committed at once, beside the question."""
    lost, new = make_entry("lost"), make_entry("new")
    journal.admit([lost])
    await journal.next_commit().wait()
    store.answer.clear()
    asking = asyncio.create_task(journal.give_up_lost("me"))
    await store.asked.wait()
    journal.admit([new])
    await journal.next_commit().wait()
    store.answer.set()
    await asking
    assert (lost.lost, new.lost) == (True, False)
    assert list(journal.live) == ["new"]


async def test_waiters_that_gave_up_in_an_outage_are_not_kept(journal: Journal, store: RecordingStore) -> None:
    """However long it lasts and however many requests come and go, nothing of them stays."""
    store.errors = [StoreError("locked")] * 3
    store.gate.clear()
    journal.admit([make_entry("a")])
    commits = [journal.next_commit()]
    patient = asyncio.create_task(commits[0].wait())
    for failures_left in (2, 1, 0):
        store.writing.clear()
        commits.append(journal.next_commit())
        assert not any(await asyncio.gather(*(commit.wait(0.001) for commit in commits * 10)))
        assert sum(commit.waiting for commit in dict.fromkeys(commits)) <= len(commits)
        store.gate.set()
        async with asyncio.timeout(10):
            await store.writing.wait()
        store.gate.clear()
        assert len(store.errors) <= failures_left + 1
    store.gate.set()
    async with asyncio.timeout(10):
        assert await patient
        assert all(await asyncio.gather(*(commit.wait(5) for commit in commits)))


async def test_a_commit_that_is_done_keeps_nobody_waiting() -> None:
    """Whoever comes late goes on at once, also where another commit took the waiters over."""
    first, second, third = (Commit(asyncio.get_running_loop()) for _ in range(3))
    second.take_over(first)
    third.take_over(second)
    waiting = asyncio.create_task(first.wait(5))
    await asyncio.sleep(0)
    assert (first.waiting, third.waiting) == (1, 1)
    third.done()
    async with asyncio.timeout(5):
        assert await waiting
        assert await first.wait()
        assert await second.wait()
        assert await third.wait(0.0)


async def test_the_end_of_a_batch_is_told_written_or_not(journal: Journal, store: RecordingStore) -> None:
    """Who asks for the outcome need not wait for the end of the outage."""
    store.errors = [StoreError("locked")]
    store.gate.clear()
    entry = make_entry("a")
    assert journal.outcome_of("a") is None
    journal.admit([entry])
    commit = journal.next_commit()
    await store.writing.wait()
    outcome = journal.outcome_of("a")
    assert outcome is not None
    waiting = asyncio.create_task(outcome.wait())
    await asyncio.sleep(0)
    assert journal.writing_for > 0
    store.gate.set()
    async with asyncio.timeout(5):
        assert await waiting
        assert (entry.committed, journal.failure) == (None, "locked")
        assert await commit.wait()
    assert (entry.committed, journal.failure, journal.writing_for) == (entry.record, None, 0.0)


async def test_a_store_that_nobody_writes_to_is_tried_until_it_works(
    journal: Journal, store: RecordingStore, caplog: pytest.LogCaptureFixture
) -> None:
    """While it seems broken requests may be kept away, so their tasks cannot be what finds out."""
    store.errors = [StoreError("locked"), StoreError("still locked"), OSError("odd")]
    entry = make_entry("a")
    store.gate.clear()
    journal.admit([entry])
    journal.next_commit()
    await store.writing.wait()
    journal.withdraw(entry)
    store.gate.set()
    async with asyncio.timeout(10):
        await store.probed.wait()
    assert journal.failure is None
    assert (store.probes, store.batches, journal.live) == (3, [], {})
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]
    assert "works again" in caplog.text


async def test_what_is_live_is_written_into_a_store_that_was_replaced(journal: Journal, store: RecordingStore) -> None:
    """What it lacks is new to it; what it has of us goes on from there; what is another's is refused."""
    lacking, behind, same, taken, ended = (make_entry(task_id) for task_id in "abcde")
    journal.admit([lacking, behind, same, taken, ended])
    assert await journal.next_commit().wait()
    for entry in (lacking, behind, taken):
        journal.append(entry, lifecycle.start(entry.record, at=2.0, owner="me"))
    assert await journal.next_commit().wait()
    ended.record = lifecycle.cancel(ended.record, at=3.0)
    store.held = {
        "b": behind.record._replace(version=0, status=TaskStatus.PENDING),
        "c": same.record,
        "d": taken.record._replace(owner="other", version=9),
        "e": ended.record,
    }
    store.generation = 1
    store.batches.clear()
    journal.append(same, same.record)
    assert await journal.next_commit().wait()
    changes = {change.record.task_id: change for change in store.batches[0]}
    assert set(changes) == {"a", "b", "c"}
    assert changes["a"].committed is None
    assert changes["b"].committed == store.held["b"]
    assert taken.committed is not None
    assert taken.committed.owner == "me"
    assert set(journal.live) == {"a", "b", "c", "d"}


async def test_a_replaced_store_that_does_not_answer_is_asked_again(
    journal: Journal, store: RecordingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is written before it is known what the store has."""
    entry = make_entry("a")
    journal.admit([entry])
    assert await journal.next_commit().wait()
    store.batches.clear()
    errors: list[Exception] = [StoreError("no such table")]

    async def get(_task_id: str) -> None:
        if errors:
            raise errors.pop()

    monkeypatch.setattr(store, "get", get)
    store.generation = 1
    journal.append(entry, lifecycle.start(entry.record, at=2.0, owner="me"))
    async with asyncio.timeout(5):
        assert await journal.next_commit().wait()
    assert [change.committed for change in store.batches[0]] == [None]
    assert journal.failure is None
