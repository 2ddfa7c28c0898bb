"""Enum members, pydantic models and dataclasses: the name of the class, and the state as it is."""

from __future__ import annotations

import dataclasses
import functools
from enum import Enum, Flag
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from fastapi_taskflow.task.codec.classref import ClassRefError, reference
from fastapi_taskflow.task.codec.containers import pack_items
from fastapi_taskflow.task.codec.scalars import URL_TYPES, pack_url
from fastapi_taskflow.task.codec.walk import TAG, Refusal, Walk, described, field_step

if TYPE_CHECKING:
    from collections.abc import Mapping


def pack_object(value: Any, walk: Walk) -> dict[str, Any]:
    """Pack an object of a user's class.

    Raises:
        Refusal: If it is of another kind, or its class cannot be found again.
    """
    cls = type(value)
    if issubclass(cls, Enum):
        return _pack_enum(value)
    if hasattr(cls, "__mapper__"):
        raise Refusal(
            f"is {described(value)}, which belongs to a database session; pass its key and load it in the task"
        )
    if issubclass(cls, BaseModel):
        return _pack_model(value, walk)
    if dataclasses.is_dataclass(cls):
        return _pack_dataclass(value, walk)
    if URL_TYPES.get(cls.__name__) is cls:
        return pack_url(value, walk)
    raise Refusal(f"is {described(value)}")


def _pack_enum(value: Enum) -> dict[str, Any]:
    cls = type(value)
    packed = {TAG: "enum", "cls": _reference(value)}
    if isinstance(value, Flag):
        return packed | {"flag": value.value}
    if cls.__members__.get(value.name) is not value:
        raise Refusal(f"is {described(value)}, but no member of it that has a name")
    return packed | {"v": value.name}


def _pack_model(value: BaseModel, walk: Walk) -> dict[str, Any]:
    names = type(value).__pydantic_fields__.keys()
    packed: dict[str, Any] = {TAG: "model", "cls": _reference(value)}
    missing = names - value.__dict__.keys()
    if missing:
        raise Refusal(f"is {described(value)} without its field {min(missing)!r}")
    walk.enter(value)
    packed["fields"] = _pack_fields({name: value.__dict__[name] for name in names}, walk)
    unset = names - value.__pydantic_fields_set__
    if unset:
        packed["unset"] = sorted(unset)
    if value.__pydantic_extra__:
        packed["extra"] = _pack_fields(value.__pydantic_extra__, walk)
    if value.__pydantic_private__:
        packed["private"] = _pack_fields(value.__pydantic_private__, walk)
    walk.leave(value)
    return packed


def _pack_dataclass(value: Any, walk: Walk) -> dict[str, Any]:
    packed: dict[str, Any] = {TAG: "dataclass", "cls": _reference(value)}
    cls: Any = type(value)
    if not _is_pure(cls):
        raise Refusal(f"is {described(value)}, a dataclass that is another kind of value as well")
    walk.enter(value)
    packed["fields"] = _pack_fields(_state(value), walk)
    walk.leave(value)
    return packed


def _pack_fields(fields: Mapping[str, Any], walk: Walk) -> dict[str, Any]:
    return pack_items(fields, walk, field_step)


def _state(value: Any) -> dict[str, Any]:
    """Return all attributes of the object, in slots or not, less what ``cached_property`` computes again."""
    state = object.__getstate__(value)
    parts = state if isinstance(state, tuple) else (state,)
    merged = {name: item for part in parts if part for name, item in part.items()}
    cls = type(value)
    return {n: item for n, item in merged.items() if not isinstance(getattr(cls, n, None), functools.cached_property)}


@functools.lru_cache(maxsize=4096)
def _is_pure(cls: type) -> bool:
    """Tell whether attributes are all that its objects hold. Python refuses this call for a subclass of dict, say."""
    try:
        object.__new__(cls)
    except TypeError:
        return False
    return True


def _reference(value: object) -> str:
    cls: Any = type(value)
    try:
        return reference(cls)
    except ClassRefError as error:
        raise Refusal(f"is {described(value)}, {error}") from None
