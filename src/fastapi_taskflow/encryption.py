"""Encryption of what is stored, by Fernet (https://cryptography.io/en/latest/fernet/)."""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING

from fastapi_taskflow.errors import ConfigurationError, TaskArgumentError
from fastapi_taskflow.task.cipher import SEALED

if TYPE_CHECKING:
    from collections.abc import Sequence


class FernetCipher:
    """Encrypts with the first of its keys, and decrypts with any.

    Args:
        keys: One key, or several with the newest first, as ``Fernet.generate_key()`` makes them.

    Raises:
        ConfigurationError: If a key is none, or the extra is not installed.
    """

    def __init__(self, keys: str | bytes | Sequence[str | bytes]) -> None:
        try:
            from cryptography.fernet import Fernet, InvalidToken, MultiFernet
        except ImportError as error:
            msg = "encrypt_args_key needs the extra: pip install 'fastapi-taskflow-otel[encryption]'"
            raise ConfigurationError(msg) from error
        try:
            given = [keys] if isinstance(keys, str | bytes) else list(keys)
            made = [Fernet(key) for key in given]
        except (ValueError, TypeError) as error:
            # Without the key in it, which would end in a log.
            msg = (
                "encrypt_args_key must be a key of 32 bytes in URL-safe base64, as Fernet.generate_key() makes it, or "
                "a list of such keys"
            )
            raise ConfigurationError(msg) from error
        if not given:
            msg = "encrypt_args_key must hold at least one key"
            raise ConfigurationError(msg)
        first = given[0]
        self._secret = first.encode() if isinstance(first, str) else first
        self._newest = made[0]
        self._all = MultiFernet(made)
        self._invalid = InvalidToken

    def seal(self, text: str) -> str:
        """Return ``text`` encrypted."""
        return SEALED + self._newest.encrypt(text.encode("utf-8", "surrogatepass")).decode("ascii")

    def open(self, text: str) -> str:
        """Return what stored text says; see `Cipher.open`."""
        if not text.startswith(SEALED):
            return text
        try:
            return self._all.decrypt(text[len(SEALED) :].encode()).decode("utf-8", "surrogatepass")
        except self._invalid:
            msg = "it is encrypted with a key that is not among those given, or it was damaged"
            raise TaskArgumentError(msg, argument="payload") from None

    def digest(self, text: str) -> str:
        """Return a keyed hash; see `Cipher.digest`."""
        return hmac.new(self._secret, text.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()

    def sealed(self, text: str) -> str:
        """Return stored text encrypted, whether it is already or not."""
        return text if text.startswith(SEALED) else self.seal(text)

    def fresh(self, text: str) -> str:
        """Return encrypted text encrypted with the first key; other text as it is.

        Raises:
            TaskArgumentError: If it is encrypted with a key that is not among those given.
        """
        if not text.startswith(SEALED):
            return text
        try:
            self._newest.decrypt(text[len(SEALED) :].encode())
        except self._invalid:
            return self.seal(self.open(text))
        return text
