"""The commands."""

from __future__ import annotations

import asyncio
import signal
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.progress import Progress

from fastapi_taskflow import clock
from fastapi_taskflow.cli import acts
from fastapi_taskflow.cli.output import cell, err, moment, out, print_json, print_table, status_cell
from fastapi_taskflow.cli.target import chosen_store, clear_of, manager_from, opened
from fastapi_taskflow.encryption import FernetCipher
from fastapi_taskflow.engines.queues import Queues
from fastapi_taskflow.errors import ConfigurationError, InvalidTransitionError, TaskflowError
from fastapi_taskflow.services.queue_settings import QueueSettings
from fastapi_taskflow.services.reencryption import Reencrypted, reencrypt
from fastapi_taskflow.services.schedule_notes import PREFIX as SCHEDULES
from fastapi_taskflow.store import TaskQuery
from fastapi_taskflow.task.record import FINISHED, TaskRecord, TaskStatus
from fastapi_taskflow.web.history import COLUMNS, csv_lines, csv_row
from fastapi_taskflow.web.queries import parse_instant
from fastapi_taskflow.web.schemas import record_json
from fastapi_taskflow.web.trace import trace_json

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine

    from fastapi_taskflow.store import Store

app = typer.Typer(
    name="fastapi-taskflow",
    help="Look at tasks, and act on them, on a store URL or that of an application.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

StoreOption = Annotated[
    str | None,
    typer.Option("--store", envvar="FASTAPI_TASKFLOW_STORE", help="A database URL, or the path of a SQLite file."),
]
AppOption = Annotated[
    str | None,
    typer.Option("--app", envvar="FASTAPI_TASKFLOW_APP", help="Where the TaskManager is: module:attribute."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, a line each.")]
Statuses = Annotated[list[TaskStatus] | None, typer.Option("--status", help="Any of these.")]
Func = Annotated[str | None, typer.Option("--func", help="The task's name; with * at its end a prefix.")]
Since = Annotated[str | None, typer.Option("--since", help="15m, 2h, 7d ago, or an ISO 8601 date.")]


def run() -> None:
    """Run the command; an error that is foreseen is one line and exit code 1."""
    try:
        app()
    except TaskflowError as error:
        err.print(cell(f"fastapi-taskflow: {error}", "red"))
        sys.exit(2 if isinstance(error, ConfigurationError) else 1)


def _go(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(work)


def _instant(name: str, text: str | None) -> float | None:
    try:
        return parse_instant(name, text, now=clock.now())
    except Exception as error:
        raise ConfigurationError(getattr(error, "detail", str(error))) from error


async def _pages(store: Store, query: TaskQuery, most: int | None) -> AsyncIterator[TaskRecord]:
    left = most
    while True:
        page = await store.list(query if left is None else replace(query, limit=max(1, min(query.limit, left))))
        for record in page.records:
            yield record
        left = None if left is None else left - len(page.records)
        if page.next_cursor is None or left == 0:
            return
        query = replace(query, cursor=page.next_cursor)


@app.command("list")
def list_tasks(
    store: StoreOption = None,
    app_name: AppOption = None,
    status: Statuses = None,
    func: Func = None,
    queue: Annotated[str | None, typer.Option("--queue")] = None,
    tag: Annotated[str | None, typer.Option("--tag")] = None,
    since: Since = None,
    dead: Annotated[bool, typer.Option("--dead", help="Failed or interrupted, and not decided about.")] = False,
    limit: Annotated[int, typer.Option("--limit", min=1)] = 50,
    as_json: JsonOption = False,
) -> None:
    """List tasks, newest first."""
    query = TaskQuery(
        statuses=frozenset(status or ()), func_name=func, queue=queue, tag=tag, since=_instant("--since", since),
        dead=dead, limit=min(limit, 500),
    )  # fmt: skip

    async def go() -> None:
        async with opened(chosen_store(store, app_name)) as held:
            clear = clear_of(app_name)
            records = [clear(record) async for record in _pages(held, query, limit)]
        if as_json:
            for record in records:
                print_json(record_json(record))
            return
        columns = ("id", "task", "status", "queue", "added (UTC)", "attempt", "took", "error")
        print_table(
            columns,
            (
                (
                    each.task_id, each.func_name, status_cell(each.status.value), each.queue, moment(each.created_at),
                    f"{each.attempt}/{each.max_attempts}",
                    "" if each.duration is None else f"{each.duration:.3f} s", (each.error or "")[:80],
                )
                for each in records
            ),
        )  # fmt: skip

    _go(go())


@app.command()
def show(task_id: str, store: StoreOption = None, app_name: AppOption = None, as_json: JsonOption = False) -> None:
    """Show one task: its facts, attempts, lines and timeline. Arguments are not shown."""

    async def go() -> None:
        async with opened(chosen_store(store, app_name)) as held:
            record = clear_of(app_name)(await acts.found(held, task_id))
        facts = record_json(record)
        if as_json:
            print_json({**facts, "timeline": trace_json(record)["spans"]})
            return
        hidden = {"logs", "attempts", "stacktrace"}
        print_table(
            ("", ""),
            [(name, value) for name, value in facts.items() if name not in hidden and value not in (None, [])],
        )
        for title, columns, rows in (
            (
                "attempts",
                ("no.", "began (UTC)", "ended (UTC)", "error"),
                [(each.number, moment(each.start_time), moment(each.end_time), each.error) for each in record.attempts],
            ),
            (
                "lines",
                ("at (UTC)", "level", "message"),
                [(moment(line.at), line.level, line.message) for line in record.logs],
            ),
        ):
            if rows:
                out().print(f"\n{title}")
                print_table(columns, rows)
        if record.stacktrace:
            out().print("")
            out().print(cell(record.stacktrace))

    _go(go())


@app.command()
def retry(
    task_ids: Annotated[list[str] | None, typer.Argument()] = None,
    store: StoreOption = None,
    app_name: AppOption = None,
    failed: Annotated[bool, typer.Option("--failed", help="All dead letters that failed.")] = False,
    func: Func = None,
    since: Since = None,
) -> None:
    """Run unsuccessful tasks again. A running service on the store takes them up within some seconds."""
    if bool(task_ids) == failed:
        msg = "give ids, or --failed with --func or --since as you like"
        raise ConfigurationError(msg)
    query = TaskQuery(
        dead=True, statuses=frozenset({TaskStatus.FAILED}), func_name=func, since=_instant("--since", since), limit=500
    )

    async def go() -> int:
        skipped = 0
        async with opened(chosen_store(store, app_name)) as held:
            ids = list(task_ids or ())
            if failed:
                ids = [record.task_id async for record in _pages(held, query, None)]
            with Progress(console=err, disable=len(ids) < 2) as progress:  # noqa: PLR2004 - one needs no bar
                for task_id in progress.track(ids, description="retry"):
                    try:
                        new = await acts.retry(held, task_id)
                    except InvalidTransitionError as error:
                        skipped += 1
                        err.print(cell(str(error), "yellow"))
                        continue
                    await acts.write_down(held, "task.retry", task_id, new=new.task_id)
                    sys.stdout.write(f"{new.task_id}\n")
        return skipped

    raise typer.Exit(1 if _go(go()) else 0)


@app.command()
def cancel(
    task_ids: list[str],
    store: StoreOption = None,
    app_name: AppOption = None,
    wait: Annotated[float, typer.Option("--wait", min=0, help="Seconds to wait for the service.")] = 5.0,
) -> None:
    """Cancel tasks that wait or run: the instance that holds one is asked."""

    async def go() -> int:
        left = 0
        async with opened(chosen_store(store, app_name)) as held:
            for task_id in task_ids:
                record = await acts.cancel(held, task_id, within=wait)
                await acts.write_down(held, "task.cancel", task_id, status=record.status.value)
                left += 0 if record.finished else 1
                print_table(("id", "status"), [(task_id, status_cell(record.status.value))])
        return left

    raise typer.Exit(1 if _go(go()) else 0)


@app.command()
def queues(
    act: Annotated[Literal["list", "pause", "resume", "set", "reset"], typer.Argument()] = "list",
    name: Annotated[str | None, typer.Argument()] = None,
    store: StoreOption = None,
    app_name: AppOption = None,
    concurrency: Annotated[int | None, typer.Option("--concurrency")] = None,
    max_size: Annotated[int | None, typer.Option("--max-size")] = None,
    rate_limit: Annotated[str | None, typer.Option("--rate-limit", help="Such as 10/s.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Show what was changed of the queues, or change it: every running instance applies it within about a second."""
    values = {"concurrency": concurrency, "max_size": max_size, "rate_limit": rate_limit}
    given: dict[str, int | str | None] = {key: value for key, value in values.items() if value is not None}
    if act != "list" and name is None:
        msg = f"queues {act} needs the queue's name"
        raise ConfigurationError(msg)
    if (act == "set") != bool(given):
        msg = "--concurrency, --max-size and --rate-limit go with: queues set NAME"
        raise ConfigurationError(msg)

    async def go() -> None:
        async with opened(chosen_store(store, app_name)) as held:
            settings = QueueSettings(held, Queues(None, {}))
            await settings.look()
            if name is not None and act != "list":
                if act == "set":
                    await settings.change(name, given)
                else:
                    await {"pause": settings.pause, "resume": settings.resume, "reset": settings.reset}[act](name)
                await acts.write_down(held, f"queue.{'change' if act == 'set' else act}", name, **given)
            facts = settings.facts()
        rows = [
            (key, each.config.concurrency, each.config.max_size, each.config.rate_limit, each.paused)
            for key, each in facts.items()
        ]
        columns = ("queue", "concurrency", "max_size", "rate_limit", "paused")
        if as_json:
            for row in rows:
                print_json(dict(zip(columns, row, strict=True)))
        else:
            print_table(columns, rows)

    _go(go())


@app.command()
def schedules(store: StoreOption = None, app_name: AppOption = None, as_json: JsonOption = False) -> None:
    """Show what the store knows of schedules, and the tasks that wait for a time of their own."""

    async def go() -> None:
        async with opened(chosen_store(store, app_name)) as held:
            notes = await held.metas(SCHEDULES)
            query = TaskQuery(statuses=frozenset({TaskStatus.PENDING}), limit=500)
            waiting = [each async for each in _pages(held, query, None) if each.run_at is not None]
        if as_json:
            for key, value in notes.items():
                print_json({"schedule": key.removeprefix(SCHEDULES), "note": value})
            for each in waiting:
                print_json(
                    {"task_id": each.task_id, "func_name": each.func_name, "run_at": clock.to_iso(each.run_at or 0)}
                )
            return
        print_table(("note", "value"), [(key.removeprefix(SCHEDULES), value) for key, value in notes.items()])
        print_table(
            ("id", "task", "runs at (UTC)"), [(each.task_id, each.func_name, moment(each.run_at)) for each in waiting]
        )

    _go(go())


@app.command()
def prune(
    older_than: Annotated[str, typer.Option("--older-than", help="Such as 30d or 12h.")],
    store: StoreOption = None,
    app_name: AppOption = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete finished tasks that ended longer ago. Interrupted ones stay."""
    before = _instant("--older-than", older_than)
    if before is None:
        msg = "--older-than must not be empty"
        raise ConfigurationError(msg)
    if not yes:
        typer.confirm(f"Delete finished tasks that ended before {moment(before)} UTC?", abort=True, err=True)

    async def go() -> None:
        deleted = 0
        async with opened(chosen_store(store, app_name)) as held:
            while count := await held.prune(before=before, limit=500):
                deleted += count
            await acts.write_down(held, "history.delete", "", deleted=deleted, before=clock.to_iso(before))
        sys.stdout.write(f"{deleted}\n")

    _go(go())


@app.command()
def migrate(store: StoreOption = None, app_name: AppOption = None) -> None:
    """Bring the schema of the store up to date. Opening a store does it too."""

    async def go() -> None:
        async with opened(chosen_store(store, app_name)):
            pass
        err.print("the schema is up to date")

    _go(go())


@app.command("reencrypt")
def reencrypt_command(
    store: StoreOption = None,
    app_name: AppOption = None,
    keys: Annotated[
        str | None,
        typer.Option(envvar="FASTAPI_TASKFLOW_KEYS", help="Not on the command line: others see that.", hidden=True),
    ] = None,
    key_file: Annotated[Path | None, typer.Option("--key-file", help="Keys, a line each, the newest first.")] = None,
) -> None:
    """Encrypt all that is stored with the newest key. Keys come from FASTAPI_TASKFLOW_KEYS (commas) or a file."""
    text = key_file.read_text(encoding="utf-8") if key_file is not None else (keys or "").replace(",", "\n")
    cipher = FernetCipher([line.strip() for line in text.splitlines() if line.strip()])

    async def go() -> Reencrypted:
        async with opened(chosen_store(store, app_name)) as held:
            with err.status("encrypting") as shown:
                done = await reencrypt(
                    held, cipher, on_progress=lambda now: shown.update(f"{now.seen} seen, {now.changed} changed")
                )
            await acts.write_down(held, "store.reencrypt", "", changed=done.changed, unreadable=done.unreadable)
        return done

    done: Reencrypted = _go(go())
    print_json({"seen": done.seen, "changed": done.changed, "unreadable": done.unreadable, "busy": done.busy})
    raise typer.Exit(1 if done.unreadable or done.busy else 0)


@app.command()
def export(
    store: StoreOption = None,
    app_name: AppOption = None,
    format: Annotated[Literal["ndjson", "csv"], typer.Option("--format")] = "ndjson",  # noqa: A002 - as the option
    status: Statuses = None,
    func: Func = None,
    since: Since = None,
) -> None:
    """Write finished tasks to standard output, all that match. No spreadsheet takes a cell for a formula."""
    query = TaskQuery(
        statuses=frozenset(status or FINISHED), func_name=func, since=_instant("--since", since), limit=500
    )

    async def go() -> None:
        async with opened(chosen_store(store, app_name)) as held:
            if format == "csv":
                sys.stdout.buffer.write(csv_lines([COLUMNS]))
            clear = clear_of(app_name)
            async for each in _pages(held, query, None):
                record = clear(each)
                if format == "csv":
                    sys.stdout.buffer.write(csv_lines([csv_row(record)]))
                else:
                    print_json(record_json(record))
            sys.stdout.flush()

    _go(go())


@app.command()
def worker(app_name: Annotated[str, typer.Argument(help="Where the TaskManager is: module:attribute.")]) -> None:
    """Run a manager without serving requests: its schedules, and what stopped instances left. Ends on SIGTERM."""
    manager = manager_from(app_name)

    async def go() -> None:
        end = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, end.set)
        await manager.startup()
        err.print(cell(f"{datetime.now(UTC):%H:%M:%S} {app_name} works; SIGTERM or Ctrl-C ends it"))
        await end.wait()
        err.print(cell(f"{datetime.now(UTC):%H:%M:%S} ending: running tasks may finish"))
        await manager.shutdown()

    _go(go())
