"""Who may log in: a list of users, or whatever the application knows."""

from __future__ import annotations

import hashlib
import hmac
import inspect
from typing import TYPE_CHECKING, Final

from starlette.concurrency import run_in_threadpool

from fastapi_taskflow.errors import ConfigurationError
from fastapi_taskflow.web.auth.passwords import PREFIX, hash_password, is_hash, verify_password

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

_ALLOWED: Final = (
    'auth must be a pair ("user", "password"), a list of such pairs, an instance of a TaskAuthBackend subclass, or None'
)


class TaskAuthBackend:
    """Subclass this to check users against anything: a database, LDAP, another service."""

    def authenticate_user(self, username: str, password: str) -> bool | Awaitable[bool]:
        """Tell whether the two belong together.

        May be an ordinary method, which runs in a thread, or an async one. What it raises counts as no.
        """
        raise NotImplementedError


class PasswordBackend(TaskAuthBackend):
    """A fixed list of users. Passwords are kept as scrypt hashes only.

    Args:
        users: Pairs of name and password, or name and hash from `hash_password`.
    """

    def __init__(self, users: Sequence[tuple[str, str]]) -> None:
        self._hashes = {name: word if is_hash(word) else hash_password(word) for name, word in users}
        # Checked for unknown users, so that they cost as much time as known ones.
        self._nobody = hash_password("")
        self._given = "\0".join(f"{name}\0{word}" for name, word in sorted(users))

    def authenticate_user(self, username: str, password: str) -> bool:
        """Tell whether ``password`` is the user's."""
        hashed = self._hashes.get(username)
        matches = verify_password(password, hashed or self._nobody)
        return matches and hashed is not None

    def fingerprint(self, key: bytes) -> str:
        """Return text that changes when a user or password does, and is the same in every worker."""
        return hmac.new(key, self._given.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()


def auth_backend_from(value: object) -> TaskAuthBackend | None:
    """Return the backend for what was given as ``auth``.

    Raises:
        ConfigurationError: If it has none of the allowed shapes.
    """
    if value is None:
        return None
    if isinstance(value, TaskAuthBackend):
        return value
    if isinstance(value, type) and issubclass(value, TaskAuthBackend):
        message = f"{_ALLOWED}; {value.__name__} is the class: give an instance, {value.__name__}()"
        raise ConfigurationError(message)
    if isinstance(value, tuple) and len(value) == 2 and all(isinstance(part, str) for part in value):  # noqa: PLR2004
        value = [value]
    if not isinstance(value, list | tuple) or not value:
        message = f"{_ALLOWED}; not {_shape(value)}"
        raise ConfigurationError(message)
    return PasswordBackend([_user(pair) for pair in value])


async def authenticate(backend: TaskAuthBackend, username: str, password: str) -> bool:
    """Ask ``backend``, never on the loop unless it is async. Only a true ``True`` counts."""
    check = backend.authenticate_user
    if inspect.iscoroutinefunction(check):
        return (await check(username, password)) is True
    answer = await run_in_threadpool(check, username, password)
    if inspect.isawaitable(answer):
        answer = await answer
    return answer is True


def _user(pair: object) -> tuple[str, str]:
    if not isinstance(pair, list | tuple) or len(pair) != 2 or not all(isinstance(part, str) for part in pair):  # noqa: PLR2004
        message = f"{_ALLOWED}; one of the users is {_shape(pair)}"
        raise ConfigurationError(message)
    name, word = pair
    if not name or not word:
        message = "auth: the name and the password of a user must not be empty"
        raise ConfigurationError(message)
    if word.startswith(PREFIX) and not is_hash(word):
        message = f"auth: the password of {name!r} begins like a hash but is none; make one with hash_password()"
        raise ConfigurationError(message)
    return name, word


def _shape(value: object) -> str:
    # The value itself may hold a password.
    size = f" of {len(value)}" if isinstance(value, list | tuple | dict | set) else ""
    return f"a {type(value).__name__}{size}"
