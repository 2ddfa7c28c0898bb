"""The arguments of a task as stored text: pure ASCII JSON that comes back equal.

Stored are: None, bool, int, float, str, bytes, bytearray, list, tuple, dict, set, frozenset, datetime, date, time,
timedelta, time zones, Decimal, UUID, paths, IP addresses, pydantic's URLs, Enum members, pydantic models and
dataclasses, in any mixture. Anything else needs a `Serializer`.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from fastapi_taskflow.errors import TaskArgumentError
from fastapi_taskflow.task.codec.pack import pack_call, pack_value
from fastapi_taskflow.task.codec.rendering import display, display_value
from fastapi_taskflow.task.codec.unpack import Unpacker
from fastapi_taskflow.task.codec.walk import TAG, Refusal
from fastapi_taskflow.task.definition import short_name
from fastapi_taskflow.task.serializer import CloudpickleSerializer, PickleSerializer, Serializer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = [
    "CloudpickleSerializer",
    "PickleSerializer",
    "Serializer",
    "decode",
    "decode_value",
    "display",
    "display_value",
    "encode",
    "encode_value",
]

EMPTY: Final = '{"args":[],"kwargs":{}}'
"""What a call without arguments is stored as."""

HELP: Final = (
    "Allowed are JSON types, bytes, tuple, set, datetime types, Decimal, UUID, Path, IP addresses, URLs, and Enums, "
    "pydantic models and dataclasses of importable classes, but no subclasses of built-in types. Pass one of these, "
    "such as an id, or choose a serializer: TaskManager(serializer=PickleSerializer())"
)

_to_json: Final = json.JSONEncoder(separators=(",", ":"), allow_nan=False, check_circular=False).encode


def encode(
    func: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    *,
    serializer: Serializer | None = None,
) -> str:
    """Return the arguments as text. Later changes to them do not change it.

    Args:
        func: The function that they are for; its name appears in error messages.
        args: Positional arguments.
        kwargs: Keyword arguments.
        serializer: Takes what is of no known type.

    Raises:
        TaskArgumentError: If an argument cannot be stored, would come back changed, contains itself, or is nested too
            deeply. Its ``argument`` tells where.
    """
    if not args and not kwargs:
        return EMPTY
    try:
        return _to_json(pack_call(args, kwargs, serializer))
    except Refusal as refusal:
        raise _refused(func, refusal) from refusal.__cause__
    except RecursionError:
        msg = f"the arguments of {short_name(func)}() are nested too deeply to be stored from here"
        raise TaskArgumentError(msg, argument="args") from None


def decode(text: str, *, serializer: Serializer | None = None) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments that `encode` stored, equal and of the same types.

    Only the modules of Enums, pydantic models and dataclasses named in the text are imported; nothing else is run,
    unless a ``serializer`` is given and was used.

    Args:
        text: As `encode` returned it.
        serializer: The one that `encode` had.

    Raises:
        TaskArgumentError: If the text cannot be read, or a class in it is gone or does not fit any more.
    """
    if text == EMPTY:
        return (), {}
    try:
        hook = Unpacker(serializer) if _MARK in text else None
        tree = json.loads(text, object_hook=hook)
        args, kwargs = tree["args"], tree["kwargs"]
    except TaskArgumentError:
        raise
    except Exception as error:
        msg = f"the stored arguments cannot be read: {type(error).__name__}: {error}"
        raise TaskArgumentError(msg, argument="payload") from error
    if not isinstance(args, list) or not isinstance(kwargs, dict):
        msg = "the stored arguments cannot be read: they are not a list and a dict"
        raise TaskArgumentError(msg, argument="payload")
    return tuple(args), kwargs


_MARK: Final = f'"{TAG}"'


def encode_value(value: Any, *, serializer: Serializer | None = None) -> str:
    """Return one value, such as what a task returned, as text.

    Raises:
        TaskArgumentError: If it cannot be stored.
    """
    try:
        return _to_json(pack_value(value, serializer))
    except Refusal as refusal:
        where = refusal.path()
        msg = f"{where or 'it'} {refusal.reason}"
        raise TaskArgumentError(msg, argument=where) from refusal.__cause__
    except RecursionError:
        msg = "it is nested too deeply"
        raise TaskArgumentError(msg, argument="") from None


def decode_value(text: str, *, serializer: Serializer | None = None) -> Any:
    """Return the value that `encode_value` stored, equal and of the same type.

    Raises:
        TaskArgumentError: If the text cannot be read, or a class in it is gone or does not fit any more.
    """
    try:
        return json.loads(text, object_hook=Unpacker(serializer) if _MARK in text else None)
    except TaskArgumentError:
        raise
    except Exception as error:
        msg = f"the stored value cannot be read: {type(error).__name__}: {error}"
        raise TaskArgumentError(msg, argument="") from error


def _refused(func: Callable[..., Any], refusal: Refusal) -> TaskArgumentError:
    where = refusal.path()
    message = f"{short_name(func)}() cannot be stored as a task: {where} {refusal.reason}"
    return TaskArgumentError(message if refusal.shape else f"{message}. {HELP}", argument=where)
