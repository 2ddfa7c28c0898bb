"""Chains and follow-ups: what follows a task is stored in the transaction that stores how that one ended."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.fernet import Fernet
from fastapi import FastAPI
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from fastapi_taskflow import (
    ConfigurationError,
    InvalidTransitionError,
    ManagedBackgroundTasks,
    QueueConfig,
    Step,
    TaskAdmin,
    TaskArgumentError,
    TaskManager,
    chain,
    previous_result,
    step,
)
from fastapi_taskflow.store import TaskQuery
from tests import postgresql
from tests.integration.conftest import eventually, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence
    from pathlib import Path

    from fastapi_taskflow.store import Change, WriteResult
    from fastapi_taskflow.task.record import TaskRecord

ran: list[Any] = []
broken: set[Any] = set()
gate: list[asyncio.Event] = []


async def double(number: int) -> int:
    """Return twice the number, unless that is broken."""
    ran.append(number)
    if number in broken:
        raise ValueError(number)
    return 2 * number


def note(what: Any, *, more: Any = None) -> None:
    """Note it, in a thread."""
    ran.append((what, more) if more is not None else what)


async def unstorable() -> object:
    """Return what no store can hold."""
    return object()


async def hold() -> int:
    """Wait for the gate."""
    ran.append("held")
    await gate[0].wait()
    return 1


@pytest.fixture(autouse=True)
def nothing_ran() -> None:
    """Each test begins without a run."""
    ran.clear()
    broken.clear()
    gate[:] = [asyncio.Event()]


@pytest.fixture(params=["memory", "sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def options(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dict[str, Any]]:
    """Each kind of store in turn."""
    if request.param == "memory":
        yield {}
    elif request.param == "sqlite":
        yield {"snapshot_db": tmp_path / "tasks.db"}
    else:
        with postgresql.database() as made:
            yield {"snapshot_backend": made}


@contextlib.asynccontextmanager
async def started(**options: Any) -> AsyncIterator[TaskManager]:
    """A manager that is up."""
    manager = TaskManager(**options)
    await manager.startup()
    try:
        yield manager
    finally:
        await manager.shutdown()


async def family(manager: TaskManager, task_id: str) -> list[TaskRecord]:
    """Return the tasks that follow a task, each after the one before."""
    found: list[TaskRecord] = []
    parents = [task_id]
    for parent in parents:
        page = await manager.journal.list(TaskQuery(parent_id=parent, oldest_first=True))
        found += page.records
        parents += [record.task_id for record in page.records]
    return found


async def ended(manager: TaskManager, task_id: str, count: int) -> Sequence[TaskRecord]:
    """Wait until so many tasks that follow a task have ended."""
    return await eventually(  # type: ignore[no-any-return]
        lambda: family(manager, task_id), lambda all_: len(all_) == count and all(each.finished for each in all_)
    )


async def test_a_chain_hands_its_results_on(options: dict[str, Any]) -> None:
    """Each step runs after the one before, once, with its result and its own options; parents are linked."""
    async with started(**options) as manager:
        whole = chain(
            step(double, 1, tags=["first"]),
            step(double, previous_result, queue="mail", priority=3),
            step(note, "end", more=previous_result, tags=["last"]),
        )
        first = await manager.enqueue(whole)
        second, third = await ended(manager, first, 2)
        assert ran == [1, 2, ("end", 4)]
        assert [second.parent_id, third.parent_id] == [first, second.task_id]
        assert (second.queue, second.priority, second.source, third.tags) == ("mail", 3, "follow", ("last",))
        top = await manager.wait(first)
        assert (top.tags, top.parent_id, top.source) == (("first",), None, "manual")


async def test_a_failure_ends_the_chain_and_is_told_once(options: dict[str, Any]) -> None:
    """The step is retried first; then its on_failure runs and the rest never. A retry by hand goes on with the rest."""
    async with started(**options) as manager:
        manager.task(retries=1, delay=0.01)(double)
        broken.add(2)
        first = await manager.enqueue(
            chain(step(double, 1), step(double, previous_result), step(note, "end"), on_failure=step(note, "alarm"))
        )
        failed, alarm = await ended(manager, first, 2)
        assert (failed.status, failed.attempt, alarm.func_name, alarm.status) == ("failed", 2, "note", "success")
        assert ran == [1, 2, 2, "alarm"]
        assert alarm.parent_id == failed.task_id
        broken.clear()
        again = await manager.dispatcher.retry(failed.task_id)
        assert again.parent_id == first
        (end,) = await ended(manager, again.task_id, 1)
        assert (ran[4:], end.status) == ([2, "end"], "success")


async def test_a_cancelled_task_has_no_followers(options: dict[str, Any]) -> None:
    """Neither branch runs after a cancel, waiting or running; a retry by hand carries both on."""
    async with started(**options) as manager:
        follow: dict[str, Any] = {"on_success": [step(note, "yes")], "on_failure": step(note, "no")}
        waiting = await manager.enqueue(note, "never", delay=3600, **follow)
        running = await manager.enqueue(hold, **follow)
        await eventually(lambda: asyncio.sleep(0, ran), lambda seen: "held" in seen)
        for task_id in (waiting, running):
            assert (await manager.dispatcher.cancel(task_id)).status == "cancelled"
        gate[0].set()
        again = await manager.dispatcher.retry(running)
        (child,) = await ended(manager, again.task_id, 1)
        assert (ran, child.parent_id) == (["held", "held", "yes"], again.task_id)
        assert await family(manager, waiting) == await family(manager, running) == []


async def test_several_follow_and_follow_on(options: dict[str, Any]) -> None:
    """Lists add all of their steps, which may be chains themselves; add_task in a request does the same."""
    app = FastAPI()
    manager = TaskManager(**options)
    TaskAdmin(app, manager, auto_install=True)

    @app.post("/go")
    async def go(tasks: ManagedBackgroundTasks) -> str:
        return tasks.add_task(double, 1, on_success=[step(note, "a"), chain(step(note, "b"), step(note, "c"))])

    async with serving(app) as client:
        task_id = (await client.post("/go")).json()
        await ended(manager, task_id, 3)
        assert sorted(ran[1:]) == ["a", "b", "c"]
        listed = (await client.get("/tasks", params={"parent_id": task_id})).json()
        assert {each["func_name"] for each in listed} == {"note"}
        assert [each["parent_id"] for each in listed] == [task_id, task_id]
        page = (await client.get(f"/tasks/dashboard/{task_id}", headers={"accept": "text/html"})).text
        assert "Followed by" in page
        assert all(each["task_id"] in page for each in listed)
        child = (await client.get(f"/tasks/dashboard/{listed[0]['task_id']}", headers={"accept": "text/html"})).text
        assert "Follows" in child
        assert task_id in child


async def test_a_result_that_cannot_be_stored_fails_the_step_that_needs_it(tmp_path: Path) -> None:
    """It is seen as failed with the reason, its alarm runs, and it cannot be retried without a value."""
    async with started(snapshot_db=tmp_path / "tasks.db") as manager:
        first = await manager.enqueue(
            chain(step(unstorable), step(note, previous_result), on_failure=step(note, "alarm"))
        )
        step_two, alarm = await ended(manager, first, 2)
        assert (step_two.status, step_two.error_type) == ("failed", "fastapi_taskflow.TaskArgumentError")
        assert "cannot be started: note() cannot be stored as a task: args[0]" in str(step_two.error)
        assert (alarm.status, ran) == ("success", ["alarm"])
        with pytest.raises(InvalidTransitionError, match="retry what it follows"):
            await manager.dispatcher.retry(step_two.task_id)


async def test_a_chain_is_one_trace(tmp_path: Path) -> None:
    """Each send span is below the attempt that it follows, so that the chain reads as one tree."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    async with started(snapshot_db=tmp_path / "tasks.db", tracer_provider=provider) as manager:
        first = await manager.enqueue(chain(step(double, 1), step(double, 5), step(note, "end")))
        await ended(manager, first, 2)
    spans = {span.context.span_id: span for span in exporter.get_finished_spans() if span.context is not None}
    (last,) = [span for span in spans.values() if span.name == "process note"]
    names = []
    walk: Any = last
    while walk is not None:
        names.append(walk.name)
        walk = spans[walk.parent.span_id] if walk.parent is not None else None
    assert names == ["process note", "send note", *(["process double", "send double"] * 2)]
    assert len({span.context.trace_id for span in spans.values() if span.context}) == 1


async def test_a_step_that_waits_runs_after_a_restart(tmp_path: Path) -> None:
    """One that had not started as the service stopped runs at the next start, also without ``requeue_pending``."""
    path = tmp_path / "tasks.db"
    queues = {"one": QueueConfig(concurrency=1)}
    async with started(snapshot_db=path, queues=queues, shutdown_timeout=0.1) as manager:
        await manager.enqueue(hold, queue="one")
        await eventually(lambda: asyncio.sleep(0, ran), lambda seen: "held" in seen)
        waiting = await manager.enqueue(note, "not at all", queue="one")
        first = await manager.enqueue(double, 1, on_success=step(note, "later", more=previous_result, queue="one"))
        await manager.wait(first)
    async with started(snapshot_db=path) as manager:
        await ended(manager, first, 1)
        assert (await manager.wait(waiting)).status == "interrupted"
    assert ran == ["held", 1, ("later", 2)]


@pytest.mark.parametrize("broken_too", [False, True])
async def test_what_follows_is_in_the_batch_of_the_end(options: dict[str, Any], *, broken_too: bool) -> None:
    """The store gets the end of a task and what follows it in one transaction, whichever branch it is."""
    async with started(**options) as manager:
        batches: list[dict[str, str]] = []
        write = manager.store.write

        async def watched(changes: Sequence[Change]) -> WriteResult:
            batches.append({change.record.task_id: change.record.status.value for change in changes})
            return await write(changes)

        manager.store.write = watched  # type: ignore[method-assign]
        broken.update({1} if broken_too else ())
        first = await manager.enqueue(double, 1, on_success=step(note, "yes"), on_failure=step(note, "no"))
        (child,) = await ended(manager, first, 1)
        (end,) = [batch for batch in batches if batch.get(first) == ("failed" if broken_too else "success")]
        assert end[child.task_id] == "pending"
        assert not any(child.task_id in batch for batch in batches[: batches.index(end)])


def local_task() -> Any:
    """Return a function that no other process finds."""
    return lambda: None


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: step("text"), "must be a function"),  # type: ignore[arg-type]
        (lambda: step(note, 1, queue="no such name!"), "a queue's name"),
        (lambda: step(note, 1, on_failure=step(note, previous_result)), "what has failed returned nothing"),
        (lambda: chain(note), "takes steps"),  # type: ignore[arg-type]
        (lambda: chain(step(note, 1, on_success=step(note, 2)), step(note, 3)), "is the next step"),
        (lambda: chain(*[step(note, 1)] * 101), "101 steps follow each other, but at most 100"),
    ],
)
def test_a_wrong_step_is_refused(make: Any, why: str) -> None:
    """The error says what is wrong, where the step is made."""
    with pytest.raises(ConfigurationError, match=why):
        make()


async def test_a_wrong_composition_is_refused_and_nothing_is_added(options: dict[str, Any]) -> None:
    """Whatever is wrong with any step is told by add_task, on every store."""
    async with started(**options) as manager:
        for wrong, error, why in (
            ((step(note, previous_result),), ConfigurationError, "nothing goes before it"),
            ((step(note, 1), 2), ConfigurationError, "has its arguments already"),
            ((chain(step(note, 1), step(local_task())),), TaskArgumentError, "cannot be a step"),
            ((chain(step(note, 1), step(note, object())),), TaskArgumentError, r"args\[0\]"),
        ):
            with pytest.raises(error, match=why):
                await manager.enqueue(*wrong)
        with pytest.raises(ConfigurationError, match="on_success takes steps"):
            await manager.enqueue(note, 1, on_success=note)  # type: ignore[arg-type]
        assert (await manager.journal.list(TaskQuery())).records == ()
        long = chain(*[step(note, number) for number in range(100)])
        assert isinstance(long, Step)
        await ended(manager, await manager.enqueue(long), 99)
        assert ran == list(range(100))


async def test_the_arguments_of_later_steps_are_encrypted_too(tmp_path: Path) -> None:
    """With a key nothing in the file tells what a step will be called with."""
    path = tmp_path / "tasks.db"
    async with started(snapshot_db=path, encrypt_args_key=Fernet.generate_key(), encrypt_results=True) as manager:
        first = await manager.enqueue(chain(step(double, 1), step(note, "topsecret", more=previous_result)))
        await ended(manager, first, 1)
    assert ran == [1, ("topsecret", 2)]
    held = b"".join(each.read_bytes() for each in tmp_path.iterdir())  # noqa: ASYNC240 - while the app is up
    assert b"double" in held
    assert b"topsecret" not in held


async def test_later_steps_are_encrypted_anew_with_a_new_key(tmp_path: Path) -> None:
    """A chain that waits while the key is changed goes on, when the old one is gone."""
    path = tmp_path / "tasks.db"
    old, new = Fernet.generate_key(), Fernet.generate_key()
    async with started(snapshot_db=path, encrypt_args_key=old) as manager:
        first = await manager.enqueue(
            chain(step(double, 1, delay=0.5), step(note, "a", more=previous_result), step(note, "b"))
        )
    async with started(snapshot_db=path, encrypt_args_key=[new, old]) as manager:
        assert (await manager.reencrypt()).changed == 1
        assert (await manager.reencrypt()).changed == 0
    async with started(snapshot_db=path, encrypt_args_key=new) as manager:
        await ended(manager, first, 2)
    assert ran == [1, ("a", 2), "b"]


async def test_what_follows_an_attempt_that_was_taken_over_does_not_run(url: str) -> None:
    """The instance that has the task now adds what follows its own attempt; this one's is rejected."""
    async with started(snapshot_backend=url) as manager, started(snapshot_backend=url) as other:
        first = await manager.enqueue(hold, on_success=step(note, "never"))
        await eventually(lambda: asyncio.sleep(0, ran), lambda seen: "held" in seen)
        await manager.journal.flushed()
        beats = {each.instance_id: each.heartbeat_at for each in await other.store.instances()}
        mine = manager.dispatcher.owner
        (taken,) = await other.store.claim("somebody", {mine: beats[mine]}, limit=1)
        assert taken.task_id == first
        gate[0].set()
        (child,) = await ended(manager, first, 1)
        assert (child.status, ran) == ("rejected", ["held"])
        assert "was taken over" in str(child.error)


async def test_what_follows_is_part_of_the_users_transaction(url: str) -> None:
    """With the commit of a session the task runs, and then what follows it; a rollback undoes both."""
    engine = create_async_engine(url)
    try:
        async with started(snapshot_backend=url) as manager:
            async with AsyncSession(engine) as session:
                undone = await manager.enqueue(double, 5, on_success=step(note, "undone"), session=session)
                await session.rollback()
            async with AsyncSession(engine) as session:
                whole = chain(step(double, 1), step(note, "end", more=previous_result))
                first = await manager.enqueue(whole, session=session)
                assert ran == []
                await session.commit()
            (end,) = await ended(manager, first, 1)
            assert (end.status, ran) == ("success", [1, ("end", 2)])
            assert await manager.journal.get(undone) is None
    finally:
        await engine.dispose()
