"""Values as trees of JSON types. What JSON cannot say is an object with the key ``$``.

A value comes back equal and of the very same type, or is refused: subclasses of ``str``, ``int``, ``dict`` and the like
would lose what they add. Two places that hold one object come back as two equal objects.
"""

from __future__ import annotations

import datetime as dt
import zoneinfo
from typing import TYPE_CHECKING, Any, Final

import pydantic_core

from fastapi_taskflow.task.codec import containers, scalars
from fastapi_taskflow.task.codec.objects import pack_object
from fastapi_taskflow.task.codec.walk import Refusal, Walk, index_step, serialized

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fastapi_taskflow.task.serializer import Serializer

_PACKERS: Final[dict[type, Callable[[Any, Walk], Any]]] = {
    str: scalars.pack_str,
    int: scalars.pack_int,
    bool: scalars.pack_itself,
    type(None): scalars.pack_itself,
    float: scalars.pack_float,
    list: containers.pack_list,
    dict: containers.pack_dict,
    tuple: containers.pack_tuple,
    set: containers.pack_set,
    frozenset: containers.pack_set,
    bytes: scalars.pack_bytes,
    bytearray: scalars.pack_bytes,
    dt.datetime: scalars.pack_moment,
    dt.time: scalars.pack_moment,
    dt.timedelta: scalars.pack_timedelta,
    dt.timezone: scalars.pack_timezone,
    zoneinfo.ZoneInfo: scalars.pack_zoneinfo,
    pydantic_core.TzInfo: scalars.pack_pydantic_zone,
    **{cls: scalars.pack_as_text(tag) for tag, cls in scalars.TEXT_TYPES.items()},
    **dict.fromkeys(scalars.PATH_TYPES.values(), scalars.pack_path),
}


def pack(value: Any, walk: Walk) -> Any:
    """Return ``value`` as a tree of JSON types.

    Raises:
        Refusal: If it cannot be stored.
    """
    packer = _PACKERS.get(type(value))
    try:
        return pack_object(value, walk) if packer is None else packer(value, walk)
    except Refusal as refusal:
        if walk.serializer is None or refusal.steps or refusal.shape:
            raise
        return serialized(value, walk.serializer)


def pack_call(args: tuple[Any, ...], kwargs: Mapping[str, Any], serializer: Serializer | None) -> dict[str, Any]:
    """Return the arguments of a call as a tree of JSON types.

    Raises:
        Refusal: If one cannot be stored.
    """
    walk = Walk(pack if serializer is None else _pack_argument, serializer)
    step = "args"
    try:
        packed = containers.pack_list(args, walk)
        step = "kwargs"
        return {"args": packed, "kwargs": containers.pack_items(kwargs, walk, index_step)}
    except Refusal as refusal:
        refusal.steps.append(step)
        raise


def pack_value(value: Any, serializer: Serializer | None) -> Any:
    """Return one value as a tree of JSON types.

    Raises:
        Refusal: If it cannot be stored.
    """
    walk = Walk(pack if serializer is None else _pack_argument, serializer)
    return walk.pack(value, walk)


def _pack_argument(value: Any, walk: Walk) -> Any:
    """Pack a whole argument; one that contains itself goes to the serializer in one piece."""
    try:
        return pack(value, Walk(pack, walk.serializer))
    except Refusal as refusal:
        if walk.serializer is None or not refusal.shape:
            raise
        return serialized(value, walk.serializer)
