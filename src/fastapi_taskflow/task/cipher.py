"""The seam to the encryption of what is stored."""

from __future__ import annotations

import hashlib
from typing import Final, Protocol

from fastapi_taskflow.errors import TaskArgumentError

SEALED: Final = "fernet:"
"""How encrypted text begins. No JSON does."""


class Cipher(Protocol):
    """Encrypts text, and finds its way among rows with and without encryption."""

    def seal(self, text: str) -> str:
        """Return ``text`` as it is to be stored."""

    def open(self, text: str) -> str:
        """Return what stored text says, encrypted or not.

        Raises:
            TaskArgumentError: If it is encrypted, and not with a key that is known.
        """

    def digest(self, text: str) -> str:
        """Return the same short text for the same text, from which nobody without the key can guess it."""


class NoCipher:
    """Stores text as it is."""

    def seal(self, text: str) -> str:
        """Return ``text``."""
        return text

    def open(self, text: str) -> str:
        """Return ``text``, if it is not encrypted; see `Cipher.open`."""
        if text.startswith(SEALED):
            msg = "it is encrypted, and no key was given: TaskManager(encrypt_args_key=…)"
            raise TaskArgumentError(msg, argument="payload")
        return text

    def digest(self, text: str) -> str:
        """Return a hash; see `Cipher.digest`. There is no key here, and the text is stored anyway."""
        return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


NO_CIPHER: Final = NoCipher()
