"""Values that hold no other values."""

from __future__ import annotations

import base64
import datetime as dt
import ipaddress
import math
import pathlib
import uuid
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

import pydantic.networks

from fastapi_taskflow.task.codec.walk import TAG, Refusal, Walk

if TYPE_CHECKING:
    import zoneinfo

    import pydantic_core

BIG: Final = 1 << 2000
"""Integers beyond are stored in hex: Python may be told to refuse decimal text of more than 640 digits."""

TEXT_TYPES: Final[dict[str, type]] = {
    "decimal": Decimal,
    "uuid": uuid.UUID,
    "date": dt.date,
    "ip4": ipaddress.IPv4Address,
    "ip6": ipaddress.IPv6Address,
    "ip4net": ipaddress.IPv4Network,
    "ip6net": ipaddress.IPv6Network,
    "ip4if": ipaddress.IPv4Interface,
    "ip6if": ipaddress.IPv6Interface,
}
"""By tag, the types that ``str`` describes wholly."""

PATH_TYPES: Final[dict[str, type[pathlib.PurePath]]] = {
    "PurePosixPath": pathlib.PurePosixPath,
    "PureWindowsPath": pathlib.PureWindowsPath,
    "PosixPath": pathlib.PosixPath,
    "WindowsPath": pathlib.WindowsPath,
}

URL_TYPES: Final[dict[str, type[pydantic.AnyUrl]]] = {
    name: cls
    for name, cls in vars(pydantic.networks).items()
    if isinstance(cls, type) and issubclass(cls, pydantic.AnyUrl) and cls.__name__ == name
}


def pack_itself(value: Any, _walk: Walk) -> Any:
    """Pack None, True and False."""
    return value


def pack_str(value: str, _walk: Walk) -> Any:
    """Pack text of any characters."""
    if is_text(value):
        return value
    return {TAG: "str", "v": base64.b64encode(value.encode("utf-8", "surrogatepass")).decode("ascii")}


def is_text(value: str) -> bool:
    """Tell whether JSON brings the text back: of two surrogates in a row it would make one character."""
    if value.isascii():
        return True
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def pack_int(value: int, _walk: Walk) -> Any:
    """Pack an integer of any size."""
    return value if -BIG < value < BIG else {TAG: "int", "v": hex(value)}


def pack_float(value: float, _walk: Walk) -> Any:
    """Pack a float; JSON has no NaN and no infinity."""
    return value if math.isfinite(value) else {TAG: "float", "v": repr(value)}


def pack_bytes(value: bytes | bytearray, _walk: Walk) -> dict[str, Any]:
    """Pack bytes in base64."""
    return {TAG: type(value).__name__, "v": base64.b64encode(value).decode("ascii")}


def pack_as_text(tag: str) -> Any:
    """Return the packer of one of `TEXT_TYPES`."""
    return lambda value, _walk: {TAG: tag, "v": str(value)}


def pack_path(value: pathlib.PurePath, walk: Walk) -> dict[str, Any]:
    """Pack a path; its name may hold surrogates, as the file system's names may."""
    return {TAG: "path", "cls": type(value).__name__, "v": pack_str(str(value), walk)}


def pack_url(value: pydantic.AnyUrl, _walk: Walk) -> dict[str, Any]:
    """Pack one of pydantic's URL types."""
    return {TAG: "url", "cls": type(value).__name__, "v": str(value)}


def pack_moment(value: dt.datetime | dt.time, walk: Walk) -> dict[str, Any]:
    """Pack a datetime or a time, naive or with a time zone."""
    zone = value.tzinfo
    bare = value if zone is dt.UTC else value.replace(tzinfo=None)
    packed: dict[str, Any] = {TAG: type(value).__name__, "v": bare.isoformat()}
    if value.fold:
        packed["fold"] = 1
    if zone is not None and zone is not dt.UTC:
        try:
            packed["tzinfo"] = walk.pack(zone, walk)
        except Refusal as refusal:
            refusal.steps.append(".tzinfo")
            raise
    return packed


def pack_timedelta(value: dt.timedelta, _walk: Walk) -> dict[str, Any]:
    """Pack a timedelta as microseconds."""
    return {TAG: "timedelta", "us": _microseconds(value)}


def pack_timezone(value: dt.timezone, walk: Walk) -> dict[str, Any]:
    """Pack a fixed offset, and its name if it was given one."""
    offset = value.utcoffset(None)
    packed: dict[str, Any] = {TAG: "timezone", "us": _microseconds(offset)}
    name = value.tzname(None)
    if name != dt.timezone(offset).tzname(None):
        packed["name"] = pack_str(name, walk)
    return packed


def pack_pydantic_zone(value: pydantic_core.TzInfo, _walk: Walk) -> dict[str, Any]:
    """Pack the fixed offset that pydantic gives to datetimes it has read."""
    return {TAG: "pydantic_tz", "us": _microseconds(value.utcoffset(None) or dt.timedelta())}


def pack_zoneinfo(value: zoneinfo.ZoneInfo, _walk: Walk) -> dict[str, Any]:
    """Pack a time zone by its key."""
    if not value.key:
        msg = "is a ZoneInfo without a key; use ZoneInfo('Area/City')"
        raise Refusal(msg)
    return {TAG: "zoneinfo", "v": value.key}


def _microseconds(value: dt.timedelta) -> int:
    return value // dt.timedelta(microseconds=1)
