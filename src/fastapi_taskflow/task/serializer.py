"""The seam for argument types that the built-in codec does not know, and two fillings to choose by name."""

from __future__ import annotations

import importlib
import pickle
from typing import Any, Protocol

from fastapi_taskflow.errors import ConfigurationError


class Serializer(Protocol):
    """Turns one object into bytes and back. It is asked only for what the built-in codec refuses.

    Attributes:
        name: Stored with the bytes, so that another serializer never reads them.
    """

    name: str

    def dumps(self, value: Any) -> bytes:
        """Return ``value`` as bytes; raise any exception if it cannot be done."""

    def loads(self, data: bytes) -> Any:
        """Return an object equal to the one given to ``dumps``."""


class PickleSerializer:
    """Stores with `pickle`.

    Reading a pickle can run any code that is written in it: choose this only if nobody else can write to the database.
    """

    name = "pickle"

    def dumps(self, value: Any) -> bytes:
        """Return ``value`` pickled."""
        return pickle.dumps(value)

    def loads(self, data: bytes) -> Any:
        """Return the pickled object."""
        return pickle.loads(data)  # noqa: S301 - chosen by the user, who was warned above


class CloudpickleSerializer:
    """Stores with ``cloudpickle``, which also takes lambdas, closures and local classes.

    The warning of `PickleSerializer` holds here too. What was stored is read only by the same Python version.

    Raises:
        ConfigurationError: If ``cloudpickle`` is not installed.
    """

    name = "cloudpickle"

    def __init__(self) -> None:
        try:
            self._module = importlib.import_module("cloudpickle")
        except ImportError as error:
            msg = "CloudpickleSerializer needs the package cloudpickle: pip install 'fastapi-taskflow-otel[pickle]'"
            raise ConfigurationError(msg) from error

    def dumps(self, value: Any) -> bytes:
        """Return ``value`` pickled."""
        data: bytes = self._module.dumps(value)
        return data

    def loads(self, data: bytes) -> Any:
        """Return the pickled object."""
        return self._module.loads(data)
