"""Every route that the API describes, with thousands of requests that nobody wrote: no server error, and no surprise.

Schemathesis makes the requests from `TaskAdmin.openapi`, valid and invalid ones, always the same. They reach an
application in this process with tasks of every status in a SQLite file. Signed in, each answer must be one that the
description tells of, its body included; what is invalid must be refused. Signed out, nothing may come out at all.

The stream has no end to wait for, so no request is made up for it; `test_wrong_input` has its cases by hand.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import re
import time
from typing import TYPE_CHECKING, Any, Final

import pytest
import requests
import schemathesis
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import strategies as st
from schemathesis import Case
from schemathesis.config import SchemathesisConfig

from fastapi_taskflow import QueueConfig, TaskAdmin, TaskAuthBackend, TaskManager
from fastapi_taskflow.store import Change
from fastapi_taskflow.task.record import TaskRecord, TaskStatus, new_task_id
from tests.integration.conftest import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from schemathesis import BaseSchema
    from schemathesis.hooks import HookContext
    from starlette.types import ASGIApp, Receive, Scope, Send

URL: Final = "http://testserver"
AnyCase = Case[Any]
PER_OPERATION: Final = 30
TASKS: Final = 19
FILES: Final = ("taskflow.css", "icon.svg", "list.js", "nothing.js")
QUEUES: Final = ("default", "email", "reports")
KNOWN: Final = re.compile(r"known-(\d+)")
KNOWN_BYTES: Final = re.compile(rb"known-(\d+)")
BEYOND_A_SCHEMA: Final = ("cursor is not one that this list gave", "status: the history has finished tasks only")
"""What may be wrong with a request that the description allows."""
NEED_AN_ENGINE: Final = ("ignored_auth", "use_after_free", "ensure_resource_availability", "object_level_authorization")
"""Checks that send requests of their own, past the client with the session, or compare with earlier ones."""


class CheapLogin(TaskAuthBackend):
    """Knows one user, without the time that a real hash takes."""

    async def authenticate_user(self, username: str, password: str) -> bool:
        return (username, password) == ("admin", "secret")


class Shop:
    """An application with a login and a task for each way that a task can end."""

    def __init__(self, path: Path | None = None) -> None:
        self.app = FastAPI()
        self.manager = TaskManager(
            snapshot_db=None if path is None else path / "tasks.db",
            shutdown_timeout=0,
            queues={"email": QueueConfig(concurrency=3, rate_limit="10/s")},
        )
        self.admin = TaskAdmin(
            self.app,
            self.manager,
            auth=CheapLogin(),
            metrics_token="scraper",
            display_func_args=True,
            trace_url="http://traces.test/{trace_id}",
        )
        self.broken = True

        @self.manager.task(name="send <b>\ud800</b>")
        async def work(order: int, *, note: str = "é") -> None:
            """Succeed."""

        @self.manager.task(retries=1, delay=0.0)
        def fail(order: int) -> None:
            # A run again succeeds, or each of the many retries would make twice as many for the next.
            if self.broken:
                raise ValueError("\ud800\0<script>" + "x" * 1_000)

        @self.manager.task()
        async def hang() -> None:
            await asyncio.Event().wait()

        @self.manager.task(retries=1, delay=3_600)
        async def wait() -> None:
            raise ConnectionError

        @self.manager.schedule(cron="@yearly", jitter=5, tags=["\ud800"])
        async def yearly() -> None:
            """Come once a year."""

        self.work, self.fail, self.hang, self.wait = work, fail, hang, wait


def left_behind(status: TaskStatus) -> TaskRecord:
    """Return a record as an earlier process left it."""
    then = time.time() - 60
    return TaskRecord(
        new_task_id(), "of an earlier process", status, then, ready_at=then, attempt=1, start_time=then + 1,
        end_time=then + 9, error="cut off", error_type="builtins.OSError", tags=("\ud800",),
    )  # fmt: skip


async def leave_behind(shop: Shop) -> list[str]:
    """Write records into the shop's file before it starts; return their ids."""
    records = [left_behind(status) for status in (TaskStatus.INTERRUPTED, TaskStatus.REJECTED) for _ in range(2)]
    store = shop.manager.store
    await store.open()
    await store.write([Change(record) for record in records])
    await store.close()
    return [record.task_id for record in records]


async def fill(shop: Shop) -> list[str]:
    """Add tasks that succeed, fail, run and wait; return their ids once each is where it belongs."""
    add = shop.manager.enqueue
    ids = [
        await add(shop.work, 1, note="\ud800", tags=["<i>", "a,b"]),
        await add(shop.fail, 2),
        await add(shop.fail, 3),
    ]
    ids += [await add(func) for func in (shop.hang, shop.wait) for _ in range(6)]
    ends = [TaskStatus.SUCCESS, *[TaskStatus.FAILED] * 2, *[TaskStatus.RUNNING] * 6, *[TaskStatus.PENDING] * 6]
    for task_id, end in zip(ids, ends, strict=True):
        await eventually(functools.partial(shop.manager.journal.get, task_id), functools.partial(has_come_to, end))
    await shop.manager.dispatcher.cancel(ids[-1])
    shop.broken = False
    return ids


def has_come_to(end: TaskStatus, record: TaskRecord) -> bool:
    """Tell whether the task was tried and has this status now."""
    return record.attempt > 0 and record.status is end


class Fuzzed:
    """The running application, and how to ask it."""

    def __init__(self, client: TestClient, ids: list[str]) -> None:
        self.ids = ids
        self._client = client
        self.session = self.new_session()

    def new_session(self) -> str:
        """Sign in and return the cookie."""
        answer = self._client.post("/tasks/auth/login", data={"username": "admin", "password": "secret"})
        assert answer.status_code == 200
        self._client.cookies.clear()
        cookie: str = answer.headers["set-cookie"].partition(";")[0]
        return cookie

    def statuses(self) -> set[str]:
        """Return the statuses that tasks have."""
        answer = self._client.get("/tasks", params={"limit": 500}, headers={"cookie": self.session})
        return {task["status"] for task in answer.json()}

    def ask(self, case: AnyCase, *, session: str | None = None, accept: str | None = None) -> Any:
        """Send a made-up request and return the answer. A placeholder becomes the id of a task that is there."""
        sent = requests.Request(**case.as_transport_kwargs(base_url=f"{URL}/tasks")).prepare()
        if accept is not None:
            sent.headers["accept"] = accept
        if session is not None:
            sent.headers["cookie"] = session
        body = sent.body.encode() if isinstance(sent.body, str) else sent.body or b""
        assert isinstance(body, bytes)
        return self._client.request(
            str(sent.method),
            KNOWN.sub(lambda found: self.ids[int(found[1])], str(sent.url)),
            headers=[(name, as_sent(value)) for name, value in sent.headers.items()],
            content=KNOWN_BYTES.sub(lambda found: self.ids[int(found[1])].encode(), body),
            follow_redirects=False,
        )


def as_sent(value: str | bytes) -> str:
    """Return a header's value as text of the bytes on the wire."""
    return value.decode("latin-1") if isinstance(value, bytes) else value


def from_many_addresses(app: FastAPI) -> ASGIApp:
    """Return the application as many clients see it: one alone is slowed down after some wrong logins."""
    addresses = itertools.count()

    async def asked(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "client": (f"client-{next(addresses)}", 1)}, receive, send)

    return asked


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fuzzed]:
    """The running application with tasks of every status."""
    shop = Shop(tmp_path_factory.mktemp("fuzz"))
    ids = asyncio.run(leave_behind(shop))
    with TestClient(from_many_addresses(shop.app)) as client:
        assert client.portal is not None
        ids += client.portal.call(fill, shop)
        fuzzed = Fuzzed(client, ids)
        assert len(ids) == TASKS
        assert fuzzed.statuses() == set(TaskStatus)
        yield fuzzed


def described(*, with_credentials: bool) -> BaseSchema:
    """Return what requests are made from.

    Args:
        with_credentials: Whether made-up sessions, tokens and passwords are among them.
    """
    config = {
        "seed": 4,
        # How fast requests are made up is the machine's business.
        "suppress-health-check": ["too_slow"],
        # Always the same requests: a failure in CI is one here.
        "generation": {
            "deterministic": True,
            "max-examples": PER_OPERATION,
            "database": "none",
            "with-security-parameters": with_credentials,
        },
        # Signed out, it is all one what exactly is wrong with a request.
        "phases": {
            "coverage": {"enabled": not with_credentials, "unexpected-methods": ["PATCH", "DELETE", "PUT", "TRACE"]}
        },
        "checks": {
            # 422 is here for `BEYOND_A_SCHEMA`; the test looks at each one itself.
            "positive_data_acceptance": {"expected-statuses": ["2xx", "3xx", "401", "404", "409", "422", "429"]},
            **{name: {"enabled": False} for name in NEED_AN_ENGINE},
        },
    }
    schema = schemathesis.openapi.from_dict(Shop().admin.openapi(), config=SchemathesisConfig.from_dict(config))
    schema.hook(before_generate_case)
    return schema.exclude(path="/dashboard/stream")


def before_generate_case(_context: HookContext, strategy: st.SearchStrategy[AnyCase]) -> st.SearchStrategy[AnyCase]:
    """Let most of the valid requests name tasks that are there: of made-up ids none is."""
    known = st.lists(st.integers(0, TASKS - 1), max_size=3)
    return st.builds(with_sense, strategy, known, st.sampled_from(("*/*", "text/html", "text/plain")))


def with_sense(case: AnyCase, known: list[int], accept: str) -> AnyCase:
    """Return the case, if it is a valid one, with an ``Accept`` header and with placeholders for ids of tasks."""
    if case.meta is None or not case.meta.generation.mode.is_positive:
        return case
    case.headers["accept"] = accept
    if known and "task_id" in case.path_parameters:
        case.path_parameters["task_id"] = f"known-{known[0]}"
    if known and "name" in case.path_parameters:
        names = FILES if "/static/" in case.path else ("yearly",) if "/schedules/" in case.path else QUEUES
        case.path_parameters["name"] = names[known[0] % len(names)]
    ids = case.body.get("task_ids") if isinstance(case.body, dict) else None
    if isinstance(ids, list):
        ids.extend(f"known-{number}" for number in known)
    return case


SIGNED_IN: Final = described(with_credentials=False)
SIGNED_OUT: Final = described(with_credentials=True)


@SIGNED_IN.parametrize()
def test_signed_in_each_answer_is_as_described(case: AnyCase, fuzzed: Fuzzed) -> None:
    """No server error; status, type, headers and body are in the description; what is invalid is refused."""
    path = case.operation.path
    answer = fuzzed.ask(case, session=fuzzed.new_session() if path == "/auth/logout" else fuzzed.session)
    assert answer.status_code < 500, answer.text
    assert answer.status_code != 401 or path == "/auth/login"
    case.validate_response(answer)
    if case.meta is not None and case.meta.generation.mode.is_positive and answer.status_code == 422:
        assert any(reason in answer.text for reason in BEYOND_A_SCHEMA)
    if "json" in answer.headers.get("content-type", ""):
        assert answer.content.isascii()


@SIGNED_OUT.parametrize()
def test_signed_out_nothing_comes_out(case: AnyCase, fuzzed: Fuzzed) -> None:
    """Each answer is 401, or the login page; forged sessions, tokens and passwords are among what is sent."""
    answer = fuzzed.ask(case, accept="*/*")
    assert answer.status_code < 500, answer.text
    if case.operation.path == "/auth/login":
        assert "set-cookie" not in answer.headers
        return
    if case.operation.path.startswith("/dashboard/static/") and answer.status_code == 200:
        assert str(answer.url).partition("?")[0].endswith(("/taskflow.css", "/icon.svg"))
        return
    assert (answer.status_code, answer.json()) == (401, {"detail": "not authenticated"})
    page = fuzzed.ask(case, accept="text/html")
    if case.method == "GET":
        assert page.status_code == 303
        assert page.headers["location"].startswith("/tasks/auth/login?next=")
    else:
        assert page.status_code == 401
