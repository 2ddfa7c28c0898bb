"""Passwords as scrypt hashes. A hash made by `hash_password` may be given wherever a password is."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
from typing import Final

PREFIX: Final = "scrypt$"
_COST: Final = 2**14
_BLOCK: Final = 8
_PARALLEL: Final = 1
_SALT_BYTES: Final = 16
_KEY_BYTES: Final = 32
_MAX_MEMORY: Final = 256 * 1024 * 1024
_FIELDS: Final = 5
_MAX_COST: Final = 2**17
_MAX_BLOCK: Final = 16
_MAX_PARALLEL: Final = 16


def hash_password(password: str) -> str:
    """Return ``scrypt$n$r$p$salt$key`` for ``password``, with a new salt each time. Takes some 50 ms on purpose."""
    salt = os.urandom(_SALT_BYTES)
    key = _derive(password, salt, _COST, _BLOCK, _PARALLEL)
    return f"{PREFIX}{_COST}${_BLOCK}${_PARALLEL}${_encode(salt)}${_encode(key)}"


def is_hash(text: str) -> bool:
    """Tell whether ``text`` is a hash that `verify_password` can read."""
    return _parts(text) is not None


def verify_password(password: str, hashed: str) -> bool:
    """Tell whether ``password`` is the one that ``hashed`` was made from, in a time that does not depend on it."""
    parts = _parts(hashed)
    if parts is None:
        return False
    cost, block, parallel, salt, key = parts
    return hmac.compare_digest(_derive(password, salt, cost, block, parallel), key)


def _derive(password: str, salt: bytes, cost: int, block: int, parallel: int) -> bytes:
    secret = password.encode("utf-8", "surrogatepass")
    return hashlib.scrypt(secret, salt=salt, n=cost, r=block, p=parallel, maxmem=_MAX_MEMORY, dklen=_KEY_BYTES)


def _parts(text: str) -> tuple[int, int, int, bytes, bytes] | None:
    if not text.startswith(PREFIX):
        return None
    fields = text[len(PREFIX) :].split("$")
    if len(fields) != _FIELDS:
        return None
    try:
        cost, block, parallel = (int(field) for field in fields[:3])
        salt, key = (base64.b64decode(field, validate=True) for field in fields[3:])
    except (ValueError, binascii.Error):
        return None
    sensible = (
        1 < cost <= _MAX_COST and cost & (cost - 1) == 0 and 0 < block <= _MAX_BLOCK and 0 < parallel <= _MAX_PARALLEL
    )
    return (cost, block, parallel, salt, key) if sensible and len(key) == _KEY_BYTES else None


def _encode(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii")
