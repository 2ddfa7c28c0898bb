"""The way back from JSON to values."""

from __future__ import annotations

import base64
import dataclasses
import datetime as dt
import inspect
import zoneinfo
from typing import TYPE_CHECKING, Any, Final

import pydantic_core
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from fastapi_taskflow.errors import TaskArgumentError
from fastapi_taskflow.task.codec.classref import resolve
from fastapi_taskflow.task.codec.scalars import PATH_TYPES, TEXT_TYPES, URL_TYPES
from fastapi_taskflow.task.codec.walk import TAG

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastapi_taskflow.task.serializer import Serializer


class Unpacker:
    """Is called with each JSON object, inner ones first.

    Args:
        serializer: The one that the tasks were stored with, if any.
    """

    __slots__ = ("_serializer",)

    def __init__(self, serializer: Serializer | None) -> None:
        self._serializer = serializer

    def __call__(self, found: dict[str, Any]) -> Any:
        """Return the value that ``found`` stands for.

        Raises:
            TaskArgumentError: If it names a class or a serializer that is not there.
            Exception: If it was not written by this codec.
        """
        tag = found.get(TAG)
        if tag is None:
            return found
        if tag == "serialized":
            return self._serialized(found)
        if tag in TEXT_TYPES:
            return dt.date.fromisoformat(found["v"]) if tag == "date" else TEXT_TYPES[tag](found["v"])
        return _UNPACKERS[tag](found)

    def _serialized(self, found: dict[str, Any]) -> Any:
        name = found["by"]
        if self._serializer is None or self._serializer.name != name:
            msg = f"a stored argument was written by the serializer {name!r}; give the TaskManager the same serializer="
            raise TaskArgumentError(msg, argument="serializer")
        return self._serializer.loads(_bytes(found))


def _bytes(found: dict[str, Any]) -> bytes:
    return base64.b64decode(found["v"], validate=True)


def _delta(found: dict[str, Any]) -> dt.timedelta:
    return dt.timedelta(microseconds=found["us"])


def _timezone(found: dict[str, Any]) -> dt.timezone:
    return dt.timezone(_delta(found), found["name"]) if "name" in found else dt.timezone(_delta(found))


def _pydantic_zone(found: dict[str, Any]) -> pydantic_core.TzInfo:
    return pydantic_core.TzInfo(_delta(found).total_seconds())


def _moment(cls: Any) -> Callable[[dict[str, Any]], Any]:
    def unpack(found: dict[str, Any]) -> Any:
        bare = cls.fromisoformat(found["v"])
        return bare.replace(tzinfo=found.get("tzinfo", bare.tzinfo), fold=found.get("fold", 0))

    return unpack


def _enum(found: dict[str, Any]) -> Any:
    cls: Any = resolve(found["cls"], "enum")
    try:
        return cls(found["flag"]) if "flag" in found else cls[found["v"]]
    except (KeyError, ValueError) as error:
        msg = f"a stored argument is the member {found.get('v', found.get('flag'))!r} of {found['cls']}, which is gone"
        raise TaskArgumentError(msg, argument=str(found["cls"])) from error


def _model(found: dict[str, Any]) -> Any:
    """Restore the state as it was; only if the class has other fields by now, validate it into what it has become."""
    cls: Any = resolve(found["cls"], "model")
    fields: dict[str, Any] = found["fields"]
    if fields.keys() != cls.__pydantic_fields__.keys():
        try:
            return cls.model_validate(fields | found.get("extra", {}), by_name=True)
        except ValueError as error:
            msg = f"a stored argument does not fit into {found['cls']} as it is now: {error}"
            raise TaskArgumentError(msg, argument=str(found["cls"])) from error
    extra = found.get("extra")
    if extra is None and cls.model_config.get("extra") == "allow":
        extra = {}
    value = cls.__new__(cls)
    BaseModel.__setstate__(
        value,
        {
            "__dict__": fields,
            "__pydantic_fields_set__": fields.keys() - set(found.get("unset", ())) | set(extra or ()),
            "__pydantic_extra__": extra,
            "__pydantic_private__": _private(cls, found),
        },
    )
    return value


def _private(cls: Any, found: dict[str, Any]) -> dict[str, Any] | None:
    if not cls.__private_attributes__:
        return None
    stored = found.get("private", {})
    defaults = {name: attribute for name, attribute in cls.__private_attributes__.items() if name not in stored}
    fresh = {name: attribute.get_default() for name, attribute in defaults.items()}
    return {**stored, **{name: value for name, value in fresh.items() if value is not PydanticUndefined}}


def _dataclass(found: dict[str, Any]) -> Any:
    """Restore the state as it was, without ``__init__``; fields that are new since then get their defaults."""
    cls: Any = resolve(found["cls"], "dataclass")
    value = object.__new__(cls)
    state = dict(found["fields"])
    for field in dataclasses.fields(cls):
        if field.name in state:
            continue
        if field.default_factory is not dataclasses.MISSING:
            state[field.name] = field.default_factory()
        elif field.default is not dataclasses.MISSING:
            state[field.name] = field.default
        elif field.init:
            msg = f"a stored argument does not fit into {found['cls']} as it is now: the field {field.name!r} is new"
            raise TaskArgumentError(msg, argument=str(found["cls"]))
    attributes = getattr(value, "__dict__", None)
    for name, item in state.items():
        if inspect.ismemberdescriptor(inspect.getattr_static(cls, name, None)) or attributes is None:
            object.__setattr__(value, name, item)
        else:
            attributes[name] = item
    return value


_UNPACKERS: Final[dict[str, Callable[[dict[str, Any]], Any]]] = {
    "str": lambda found: _bytes(found).decode("utf-8", "surrogatepass"),
    "int": lambda found: int(found["v"], 16),
    "float": lambda found: float(found["v"]),
    "dict": lambda found: dict(found["v"]),
    "tuple": lambda found: tuple(found["v"]),
    "set": lambda found: set(found["v"]),
    "frozenset": lambda found: frozenset(found["v"]),
    "bytes": _bytes,
    "bytearray": lambda found: bytearray(_bytes(found)),
    "datetime": _moment(dt.datetime),
    "time": _moment(dt.time),
    "timedelta": _delta,
    "timezone": _timezone,
    "zoneinfo": lambda found: zoneinfo.ZoneInfo(found["v"]),
    "pydantic_tz": _pydantic_zone,
    "path": lambda found: PATH_TYPES[found["cls"]](found["v"]),
    "url": lambda found: URL_TYPES[found["cls"]](found["v"]),
    "enum": _enum,
    "model": _model,
    "dataclass": _dataclass,
}
