"""The call that a task is: how it is stored, and how another process makes it again."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Final

from fastapi_taskflow.errors import TaskArgumentError
from fastapi_taskflow.task import payload
from fastapi_taskflow.task.cipher import NO_CIPHER
from fastapi_taskflow.task.registry import import_target, target_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fastapi_taskflow.task.cipher import Cipher
    from fastapi_taskflow.task.definition import TaskDefinition
    from fastapi_taskflow.task.record import TaskRecord
    from fastapi_taskflow.task.registry import Registry
    from fastapi_taskflow.task.serializer import Serializer

MAX_PAYLOAD_CHARS: Final = 256 * 1024 * 1024


class Calls:
    """Stores calls and restores them.

    Args:
        registry: The known functions.
        serializer: For arguments of other types, by the user's choice.
        cipher: Encrypts the text.
    """

    def __init__(self, registry: Registry, serializer: Serializer | None = None, cipher: Cipher = NO_CIPHER) -> None:
        self._cipher = cipher
        self._registry = registry
        self._serializer = serializer

    def store(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[str | None, str | None]:
        """Return where the function is found again, and the call as text.

        A bound method's object is its first argument. If that cannot be stored, the task runs here all the same, but
        no other process can run it: there is no text then, though the other arguments are checked as always.
        """
        bound = getattr(func, "__self__", None)
        if bound is None or isinstance(bound, type):
            return target_of(func), self._cipher.seal(self._encode(func, args, kwargs))
        plain = getattr(func, "__func__", None)
        if plain is not None:
            with contextlib.suppress(TaskArgumentError):
                return target_of(plain), self._cipher.seal(self._encode(func, (bound, *args), kwargs))
        self._encode(func, args, kwargs)
        return None, None

    def restore(
        self, record: TaskRecord
    ) -> tuple[TaskDefinition, Callable[..., Any], tuple[Any, ...], Mapping[str, Any]]:
        """Return the call of a stored record, ready to be made again.

        Raises:
            TaskArgumentError: If the function or a value's class is not there any more, or the text cannot be read.
        """
        definition = self._registry.find(record.func_name, record.target)
        found = definition is not None and (record.target is not None or definition.declared)
        if not found or definition is None or record.payload is None:
            where = f" ({record.target})" if record.target else ""
            msg = (
                f"the function of task {record.func_name!r}{where} cannot be found again; only decorated and "
                "module-level functions, and methods of objects that can be stored, run after a restart"
            )
            raise TaskArgumentError(msg, argument="func")
        args, kwargs = payload.decode(self._cipher.open(record.payload), serializer=self._serializer)
        func = definition.func
        if record.target is not None and record.target != target_of(func):
            # A decorator above @task, or a method found through a subclass: the stored name is what the caller used.
            func = import_target(record.target) or func
        return definition, func, args, kwargs

    def digest(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
        """Return the same short text for the same arguments.

        Raises:
            TaskArgumentError: If an argument cannot be stored.
        """
        return self._cipher.digest(self._encode(func, args, kwargs))

    def _encode(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
        text = payload.encode(func, args, kwargs, serializer=self._serializer)
        if len(text) > MAX_PAYLOAD_CHARS:
            msg = f"the arguments take {len(text)} characters as text; at most {MAX_PAYLOAD_CHARS} can be stored"
            raise TaskArgumentError(msg, argument="args")
        return text
