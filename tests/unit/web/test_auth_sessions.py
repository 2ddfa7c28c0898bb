from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, cast

import pytest

from fastapi_taskflow import clock
from fastapi_taskflow.web.auth.backend import PasswordBackend
from fastapi_taskflow.web.auth.sessions import Sessions
from tests.unit.web.fakes import FakeStore

if TYPE_CHECKING:
    from fastapi_taskflow.store import Store


def sessions(store: FakeStore, **options: Any) -> Sessions:
    """Return sessions over ``store``."""
    options = {"secret_key": None, "lifetime": 3600.0, "backend": None, **options}
    return Sessions(cast("Store", store), **options)


async def test_a_session_is_read_by_every_worker_of_the_store() -> None:
    """Workers share the random key through the store; another store has another key."""
    store = FakeStore()
    value = await sessions(store).issue("ann")
    found = await sessions(store).read(value)
    assert found is not None
    assert found.user == "ann"
    assert await sessions(FakeStore()).read(value) is None


async def test_a_secret_key_needs_no_store() -> None:
    """With a given key nothing secret is stored, and any worker with it reads the session."""
    store = FakeStore()
    value = await sessions(store, secret_key="k1").issue("ann")
    assert store.meta == {}
    assert await sessions(FakeStore(), secret_key="k1").read(value) is not None
    assert await sessions(FakeStore(), secret_key="k2").read(value) is None


async def test_logout_ends_it_in_every_worker() -> None:
    """A revoked session is refused here and elsewhere; others stay."""
    store = FakeStore()
    here, there = sessions(store), sessions(store)
    value, other = await here.issue("ann"), await here.issue("ann")
    await here.revoke(value)
    assert await here.read(value) is None
    assert await there.read(value) is None
    assert await there.read(value) is None
    assert await there.read(other) is not None
    await here.revoke("forged")


@pytest.mark.parametrize("value", [None, "", "x", "a.b.c", "\ud800", "é.é.é", "x" * 5000])
async def test_forged_values_are_nobody(value: str | None) -> None:
    """Whatever was not signed is no session."""
    assert await sessions(FakeStore()).read(value) is None


async def test_a_changed_password_ends_the_sessions() -> None:
    """The users are part of the key."""
    store = FakeStore()
    value = await sessions(store, backend=PasswordBackend([("ann", "old")])).issue("ann")
    assert await sessions(store, backend=PasswordBackend([("ann", "old")])).read(value) is not None
    assert await sessions(store, backend=PasswordBackend([("ann", "new")])).read(value) is None


async def test_a_session_ends_after_its_lifetime(monkeypatch: pytest.MonkeyPatch) -> None:
    """It lives across the change of the key, and not a lifetime longer."""
    store, start = FakeStore(), (time.time() // 3600 + 1) * 3600 - 10
    moment = [start]
    monkeypatch.setattr(clock, "now", lambda: moment[0])
    monkeypatch.setattr("time.time", lambda: moment[0])
    mine = sessions(store)
    value = await mine.issue("ann")
    moment[0] = start + 60
    assert await mine.read(value) is not None
    assert await sessions(store).read(value) is not None
    moment[0] = start + 3700
    assert await mine.read(value) is None
    assert len(store.meta) == 1, "reading makes no keys"
