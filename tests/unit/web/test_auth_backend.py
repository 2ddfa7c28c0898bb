from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from fastapi_taskflow.errors import ConfigurationError
from fastapi_taskflow.web.auth.backend import PasswordBackend, TaskAuthBackend, auth_backend_from, authenticate
from fastapi_taskflow.web.auth.passwords import hash_password, is_hash, verify_password
from fastapi_taskflow.web.auth.throttle import MAX_KEYS, PER_ADDRESS, PER_USER_AND_ADDRESS, LoginThrottle


def test_a_hash_fits_its_password_only() -> None:
    """The right password verifies, others do not, and no two hashes are alike."""
    first, second = hash_password("pä$$\ud800"), hash_password("pä$$\ud800")
    assert first != second
    assert verify_password("pä$$\ud800", first)
    assert not verify_password("pä$$", first)


@pytest.mark.parametrize(
    "text", ["", "scrypt$", "scrypt$1$8$1$YQ==$YQ==", "scrypt$x$8$1$YQ==$YQ==", "scrypt$16384$8$1$%$%", "plain"]
)
def test_what_is_no_hash_verifies_nothing(text: str) -> None:
    """Broken hashes are refused, not raised over."""
    assert not is_hash(text)
    assert not verify_password("", text)


def test_a_hash_cannot_ask_for_all_memory() -> None:
    """Costs beyond any sense are no hash."""
    body = hash_password("x").split("$", 2)[2].split("$", 2)[2]
    assert not is_hash(f"scrypt${2**30}$8$1${body}")


async def test_users_by_plain_text_or_hash() -> None:
    """Both forms of a password let the user in, and nobody else."""
    backend = auth_backend_from([("ann", "a-word"), ("bob", hash_password("b-word"))])
    assert backend is not None
    assert await authenticate(backend, "ann", "a-word")
    assert await authenticate(backend, "bob", "b-word")
    for user, word in (("ann", "b-word"), ("eve", "a-word"), ("", ""), ("ann", ""), ("eve", "")):
        assert not await authenticate(backend, user, word)
    assert "a-word" not in repr(vars(backend)["_hashes"])


def test_fingerprint_changes_with_a_password_only() -> None:
    """The same users give the same fingerprint in every worker."""
    one, same = PasswordBackend([("a", "x"), ("b", "y")]), PasswordBackend([("b", "y"), ("a", "x")])
    other = PasswordBackend([("a", "x"), ("b", "z")])
    assert one.fingerprint(b"k") == same.fingerprint(b"k") != other.fingerprint(b"k")


class InThread(TaskAuthBackend):
    """Notes the thread it is asked in."""

    def authenticate_user(self, username: str, password: str) -> bool:
        self.thread = threading.current_thread()
        return username == "ann"


class OnLoop(TaskAuthBackend):
    """Answers later."""

    async def authenticate_user(self, username: str, password: str) -> bool:
        await asyncio.sleep(0)
        return username == "ann"


class Truthy(TaskAuthBackend):
    """Answers with something that is not True."""

    def authenticate_user(self, username: str, password: str) -> Any:
        return {"user": None}


class GivesCoroutine(TaskAuthBackend):
    """An ordinary method that returns an awaitable."""

    def authenticate_user(self, username: str, password: str) -> Any:
        return OnLoop().authenticate_user(username, password)


async def test_own_backends_may_be_sync_or_async() -> None:
    """A sync one runs off the loop's thread, an async one on it; only True counts."""
    threaded = InThread()
    assert await authenticate(threaded, "ann", "")
    assert threaded.thread is not threading.current_thread()
    assert await authenticate(OnLoop(), "ann", "")
    assert await authenticate(GivesCoroutine(), "ann", "")
    assert not await authenticate(OnLoop(), "eve", "")
    assert not await authenticate(Truthy(), "ann", "")
    assert auth_backend_from(threaded) is threaded
    assert auth_backend_from(None) is None


@pytest.mark.parametrize(
    "value",
    ["admin", ("admin",), ("a", "b", "c"), [], [("a",)], [("a", 1)], {"a": "b"}, 5, [("a", "")], [("", "b")], ["ab"],
     TaskAuthBackend, ("a", "scrypt$broken"), [("a", "b"), "cd"], (("a", 1), ("b", 2))],
)  # fmt: skip
def test_wrong_shapes_say_what_is_allowed(value: object) -> None:
    """What cannot be users is refused at once, and no password is in the message."""
    with pytest.raises(ConfigurationError, match="auth") as caught:
        auth_backend_from(value)
    assert "scrypt$broken" not in str(caught.value)


def test_throttle_lets_five_through_in_a_minute() -> None:
    """The sixth attempt of a user from an address waits; others do not."""
    clock = [100.0]
    throttle = LoginThrottle(lambda: clock[0])
    assert [throttle.wait("ann", "1.1.1.1") for _ in range(PER_USER_AND_ADDRESS)] == [0] * PER_USER_AND_ADDRESS
    assert throttle.wait("ann", "1.1.1.1") == 60
    assert throttle.wait("bob", "1.1.1.1") == 0
    assert throttle.wait("ann", "2.2.2.2") == 0
    clock[0] += 60
    assert throttle.wait("ann", "1.1.1.1") == 0


def test_throttle_counts_an_address_over_all_users() -> None:
    """Trying one password for many names is slowed too; a right login is not counted."""
    throttle = LoginThrottle(lambda: 100.0)
    for _ in range(100):
        assert throttle.wait("ann", "1.1.1.1") == 0
        throttle.succeeded("ann", "1.1.1.1")
    for number in range(PER_ADDRESS):
        assert throttle.wait(f"user{number}", "1.1.1.1") == 0
    assert throttle.wait("another", "1.1.1.1") > 0


def test_throttle_has_bounded_memory() -> None:
    """A million names do not fill it."""
    throttle = LoginThrottle(lambda: 100.0)
    for number in range(MAX_KEYS + 500):
        throttle.wait("u" * 5_000, f"10.0.{number}")
    assert len(throttle._attempts) <= MAX_KEYS
    assert max(len(part) for key in throttle._attempts for part in key) <= 256
