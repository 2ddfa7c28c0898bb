"""Sessions: a signed cookie, valid for a time, that a logout ends in every worker."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from itsdangerous import BadData, URLSafeTimedSerializer

from fastapi_taskflow import clock

if TYPE_CHECKING:
    from fastapi_taskflow.store import Store
    from fastapi_taskflow.web.auth.backend import TaskAuthBackend

COOKIE: Final = "taskflow_session"
_REVOKED_KEPT: Final = 10_000


@dataclass(frozen=True, slots=True)
class Session:
    """A user who logged in.

    Attributes:
        user: The name.
        session_id: Random, new for each login.
    """

    user: str
    session_id: str


class Sessions:
    """Makes, reads and ends sessions.

    Without a ``secret_key`` the signing keys are random, kept in the store for all workers, and replaced by
    themselves: each serves for one lifetime of a session and is good for reading for one more.

    Args:
        store: Holds keys and revoked sessions.
        secret_key: Signs instead of a random key.
        lifetime: Seconds that a session lasts.
        backend: Its users' passwords are part of the key: who changes one ends that list's sessions.
    """

    def __init__(
        self, store: Store, *, secret_key: str | None, lifetime: float, backend: TaskAuthBackend | None
    ) -> None:
        self._store = store
        self._secret = secret_key
        self._lifetime = lifetime
        self._backend = backend
        self._signers: dict[int, URLSafeTimedSerializer] = {}
        self._revoked: OrderedDict[str, None] = OrderedDict()

    async def issue(self, user: str) -> str:
        """Return the cookie's value for a new session of ``user``."""
        epoch = self._epoch()
        signer = self._signers.get(epoch)
        if signer is None:
            secret = self._secret
            if secret is None:
                ends = (epoch + 2) * self._lifetime
                secret = await self._store.put_meta(_key_name(epoch), secrets.token_urlsafe(48), expires_at=ends)
            signer = self._keep_signer(epoch, secret)
        return str(signer.dumps([user, secrets.token_urlsafe(18)]))

    async def read(self, value: str | None) -> Session | None:
        """Return the session, or None if the value is forged, too old or revoked."""
        session = await self._signed(value)
        if session is None or session.session_id in self._revoked:
            return None
        if await self._store.get_meta(_revoked_key(session.session_id)) is not None:
            self._remember(session.session_id)
            return None
        return session

    async def revoke(self, value: str | None) -> None:
        """End the session, here at once and in the other workers through the store."""
        session = await self._signed(value)
        if session is None:
            return
        self._remember(session.session_id)
        await self._store.put_meta(_revoked_key(session.session_id), "1", expires_at=clock.now() + self._lifetime + 60)

    async def _signed(self, value: str | None) -> Session | None:
        if not value:
            return None
        epoch = self._epoch()
        for candidate in (epoch, epoch - 1):
            signer = self._signers.get(candidate) or await self._known_signer(candidate)
            if signer is None:
                continue
            try:
                user, session_id = signer.loads(value, max_age=int(self._lifetime))
            except (BadData, ValueError, TypeError):
                if self._secret is not None:
                    return None
                continue
            return Session(str(user), str(session_id))
        return None

    def _epoch(self) -> int:
        return 0 if self._secret is not None else int(clock.now() // self._lifetime)

    async def _known_signer(self, epoch: int) -> URLSafeTimedSerializer | None:
        secret = self._secret if self._secret is not None else await self._store.get_meta(_key_name(epoch))
        return None if secret is None else self._keep_signer(epoch, secret)

    def _keep_signer(self, epoch: int, secret: str) -> URLSafeTimedSerializer:
        fingerprint = getattr(self._backend, "fingerprint", None)
        users = fingerprint(secret.encode()) if fingerprint is not None else ""
        signer = URLSafeTimedSerializer(secret, salt=f"fastapi_taskflow.session.{users}")
        self._signers = {other: kept for other, kept in self._signers.items() if abs(other - epoch) <= 1}
        self._signers[epoch] = signer
        return signer

    def _remember(self, session_id: str) -> None:
        self._revoked[session_id] = None
        if len(self._revoked) > _REVOKED_KEPT:
            self._revoked.popitem(last=False)


def _key_name(epoch: int) -> str:
    return f"web.session_key.{epoch}"


def _revoked_key(session_id: str) -> str:
    return f"web.revoked.{session_id}"
