"""What is stored encrypted, and what is shown to nobody."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.fernet import Fernet
from fastapi import FastAPI
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from fastapi_taskflow import ConfigurationError, InMemoryLogger, TaskAdmin, TaskManager, task_log
from tests.integration.conftest import eventually, serving

SECRET = "4000-1234-1234-1234"
OLD, NEW = Fernet.generate_key().decode(), Fernet.generate_key()

seen: list[Any] = []


async def charge(card: str, *, order: int) -> dict[str, Any]:
    """A task that gets, writes and returns a secret."""
    seen.append((card, order))
    task_log(f"charging {card}", card=card, order=order)
    if len(seen) == 1:
        raise ConnectionError
    return {"card": card, "order": order}


def made(url: str, **options: Any) -> tuple[FastAPI, TaskManager]:
    """An app on that database."""
    manager = TaskManager(snapshot_backend=url, **options)
    app = FastAPI()
    TaskAdmin(app, manager, display_func_args=True)
    return app, manager


async def until(client: httpx.AsyncClient, task_id: str, status: str) -> dict[str, Any]:
    """Wait for a status; return the task."""

    async def look() -> dict[str, Any]:
        found: dict[str, Any] = (await client.get(f"/tasks/{task_id}")).json()
        return found

    found: dict[str, Any] = await eventually(look, lambda task: bool(task["status"] == status))
    return found


async def stored(manager: TaskManager, task_id: str) -> str:
    """All that the store has of the task."""
    record = await manager.store.get(task_id)
    assert record is not None
    return repr(record)


async def test_an_encrypted_task_is_retried_with_its_arguments(url: str) -> None:
    """After a restart, with a new key beside the old one; nothing is stored in plain text, and all of it is shown."""
    seen.clear()
    everything = {"encrypt_results": True, "encrypt_logs": True}
    app, manager = made(url, encrypt_args_key=OLD, **everything)
    async with serving(app) as client:
        first = await manager.enqueue(charge, SECRET, order=7)
        failed = await until(client, first, "failed")
        assert (failed["args"], failed["kwargs"]) == ([SECRET], {"order": 7})
        assert SECRET not in await stored(manager, first)
    app, manager = made(url, encrypt_args_key=[NEW, OLD], **everything)
    async with serving(app) as client:
        again = (await client.post(f"/tasks/{first}/retry")).json()["task_id"]
        done = await until(client, again, "success")
        assert seen == [(SECRET, 7)] * 2
        assert done["result"] == {"card": SECRET, "order": 7}
        assert [(line["message"], line["extra"]) for line in done["logs"]] == [
            (f"charging {SECRET}", {"card": SECRET, "order": 7})
        ]
        assert SECRET not in await stored(manager, again)
        assert await manager.result(again) == {"card": SECRET, "order": 7}


async def test_what_waited_runs_after_a_restart(url: str) -> None:
    """Encrypted rows and plain ones side by side."""
    seen[:] = [None]
    app, manager = made(url)
    async with serving(app):
        plain = await manager.enqueue(charge, "plain", order=1, delay=0.2)
    app, manager = made(url, encrypt_args_key=OLD)
    async with serving(app) as client:
        await until(client, plain, "success")
        sealed = await manager.enqueue(charge, SECRET, order=2, delay=0.2)
    app, manager = made(url, encrypt_args_key=[NEW, OLD])
    async with serving(app) as client:
        await until(client, sealed, "success")
    assert seen[1:] == [("plain", 1), (SECRET, 2)]


@pytest.mark.parametrize("key", [None, NEW])
async def test_without_the_key_a_task_waits_for_an_operator(url: str, key: Any) -> None:
    """It says why, nothing else is harmed, and a retry is refused until the key is there."""
    seen[:] = [None]
    app, manager = made(url, encrypt_args_key=OLD)
    async with serving(app):
        sealed = await manager.enqueue(charge, SECRET, order=2, delay=0.2)
    app, manager = made(url, encrypt_args_key=key)
    async with serving(app) as client:
        parked = await until(client, sealed, "interrupted")
        assert "encrypted" in parked["error"]
        assert SECRET not in str(parked)
        refused = await client.post(f"/tasks/{sealed}/retry")
        assert (refused.status_code, "encrypted" in refused.json()["detail"]) == (409, True)
        await until(client, await manager.enqueue(charge, "other", order=3), "success")
    app, manager = made(url, encrypt_args_key=OLD)
    async with serving(app) as client:
        again = (await client.post(f"/tasks/{sealed}/retry")).json()["task_id"]
        await until(client, again, "success")
    assert seen[1:] == [("other", 3), (SECRET, 2)]


async def test_one_window_is_one_task_with_encryption_too(url: str) -> None:
    """The ciphertext differs each time, the task does not."""
    app, manager = made(url, encrypt_args_key=OLD)
    seen[:] = [None]
    async with serving(app) as client:
        ids = {await manager.enqueue(charge, SECRET, order=1, unique_for=10**9) for _ in range(3)}
        assert len(ids) == 1
        await until(client, ids.pop(), "success")


def test_the_file_holds_no_plain_text(tmp_path: Path) -> None:
    """Not in its journal either, and not in what was deleted."""

    async def go() -> None:
        seen.clear()
        url = f"sqlite+aiosqlite:///{tmp_path / 'tasks.db'}"
        app, manager = made(url, encrypt_args_key=OLD, encrypt_results=True, encrypt_logs=True)
        async with serving(app) as client:
            first = await manager.enqueue(charge, SECRET, order=7)
            await until(client, first, "failed")
            again = (await client.post(f"/tasks/{first}/retry")).json()["task_id"]
            await until(client, again, "success")
            for file in tmp_path.iterdir():  # noqa: ASYNC240 - while the app is up
                assert SECRET.encode() not in file.read_bytes(), file

    asyncio.run(go())


@pytest.mark.parametrize(
    "options",
    [{"encrypt_args_key": "short"}, {"encrypt_args_key": []}, {"encrypt_args_key": 5}, {"encrypt_results": True}],
)
def test_wrong_keys_are_refused_without_being_told(options: Any) -> None:
    """A key in an error message would end in a log."""
    with pytest.raises(ConfigurationError) as refused:
        TaskManager(**options)
    assert "short" not in str(refused.value)


async def test_what_is_redacted_is_nowhere(url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """In no answer of any route, no page, no download, no log, no span; the task itself gets it."""
    caplog.set_level(logging.DEBUG)
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    told = InMemoryLogger()

    async def pays(card: str, *, order: int) -> dict[str, Any]:
        seen.append(card)
        with provider.get_tracer("shop").start_as_current_span("pay", attributes={"bank.card": card}):
            task_log("paying", card=card, order=order)
        return {"card": card, "nested": [{"Card": card}], "order": order}

    seen.clear()
    app, manager = made(url, redact=["card"], log_file=tmp_path / "tasks.log", loggers=[told], tracer_provider=provider)
    async with serving(app) as client:
        task_id = await manager.enqueue(pays, SECRET, order=7)
        done = await until(client, task_id, "success")
        assert (done["args"], done["kwargs"]) == (["[redacted]"], {"order": 7})
        assert done["result"] == {"card": "[redacted]", "nested": [{"Card": "[redacted]"}], "order": 7}
        assert done["logs"][0]["extra"] == {"card": "[redacted]", "order": 7}
        for path in (
            "", f"/{task_id}", f"/{task_id}/trace", "/history", "/history?format=csv", "/history?format=ndjson",
            "/dashboard", f"/dashboard/{task_id}", "/functions", "/metrics", "/dead-letters", "/audit",
        ):  # fmt: skip
            answer = await client.get(f"/tasks{path}")
            assert answer.status_code == 200, path
            assert SECRET not in answer.text, path
    assert seen == [SECRET]
    assert "paying" in (tmp_path / "tasks.log").read_text()
    assert SECRET not in (tmp_path / "tasks.log").read_text()
    assert told.logs
    assert SECRET not in repr(told.events)
    assert SECRET not in caplog.text
    ours = [span for span in exporter.get_finished_spans() if span.name != "pay"]
    assert ours
    assert all(SECRET not in str(dict(span.attributes or {})) for span in ours)


async def test_an_old_key_can_be_dropped(url: str) -> None:
    """Once all is encrypted with the new one, while the service runs; what nobody can read is told and left."""
    seen[:] = [None]
    everything = {"encrypt_results": True, "encrypt_logs": True}
    app, manager = made(url)
    async with serving(app) as client:
        ids = [await manager.enqueue(charge, "plain", order=0)]
        await until(client, ids[0], "success")
    app, manager = made(url, encrypt_args_key=OLD, **everything)
    async with serving(app) as client:
        ids += [await manager.enqueue(charge, SECRET, order=number) for number in range(3)]
        for task_id in ids:
            await until(client, task_id, "success")
    app, manager = made(url, encrypt_args_key=Fernet.generate_key(), **everything)
    async with serving(app) as client:
        lost = await manager.enqueue(charge, SECRET, order=9)
        await until(client, lost, "success")
    app, manager = made(url, encrypt_args_key=[NEW, OLD], **everything)
    async with serving(app):
        done = await manager.reencrypt()
        assert (done.seen, done.changed, done.unreadable, done.busy) == (5, 4, 1, 0)
        again = await manager.reencrypt()
        assert (again.seen, again.changed, again.unreadable) == (5, 0, 1)
        for task_id in ids:
            assert "fernet:" in await stored(manager, task_id)
    app, manager = made(url, encrypt_args_key=NEW, **everything)
    async with serving(app) as client:
        shown = [(await client.get(f"/tasks/{task_id}")).json() for task_id in ids]
        assert [each["args"] for each in shown] == [["plain"], [SECRET], [SECRET], [SECRET]]
        assert shown[1]["result"] == {"card": SECRET, "order": 0}
        assert shown[1]["logs"][0]["message"] == f"charging {SECRET}"


async def test_without_a_key_there_is_nothing_to_encrypt_with() -> None:
    """It is told."""
    app, manager = FastAPI(), TaskManager()
    manager.init_app(app)
    async with serving(app):
        with pytest.raises(ConfigurationError, match="nothing to encrypt with"):
            await manager.reencrypt()
