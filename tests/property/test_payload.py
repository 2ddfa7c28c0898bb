"""Any value of the stored types, nested in any way, comes back equal; nothing else passes."""

from __future__ import annotations

import contextlib
import json
import math
import pathlib
import zoneinfo
from dataclasses import dataclass
from datetime import datetime, time, timedelta, timezone
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from fastapi_taskflow.errors import TaskArgumentError
from fastapi_taskflow.task.payload import decode, display, encode
from tests.unit.task.payload_values import Colour, Level, Mode, Money, Point, Right, Size


class Box(BaseModel):
    content: Any
    more: dict[Any, Any] = {}


@dataclass(frozen=True)
class Holder:
    content: Any


ANY_TEXT = st.text(st.characters())
ZONES = st.one_of(
    st.none(),
    st.sampled_from(["Europe/Vienna", "Asia/Kathmandu", "America/St_Johns", "UTC"]).map(zoneinfo.ZoneInfo),
    st.timedeltas(timedelta(hours=-23), timedelta(hours=23)).map(timezone),
    st.builds(timezone, st.timedeltas(timedelta(hours=-23), timedelta(hours=23)), ANY_TEXT),
)
PATH_TEXT = st.text(st.characters(exclude_characters="\0"))
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=-(1 << 6000), max_value=1 << 6000),
    st.floats(allow_nan=False),
    ANY_TEXT,
    st.binary(),
    st.datetimes(timezones=ZONES, allow_imaginary=True),
    st.times(),
    st.times(timezones=ZONES),
    st.dates(),
    st.timedeltas(),
    st.decimals(allow_nan=False),
    st.uuids(),
    st.ip_addresses(),
    PATH_TEXT.map(pathlib.PurePosixPath),
    PATH_TEXT.map(pathlib.PureWindowsPath),
    st.sampled_from([*Colour, *Size, *Level]),
    st.integers(0, 3).map(Right),
    st.integers(0, 255).map(Mode),
)
HASHABLES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.frozensets(inner, max_size=4), st.lists(inner, max_size=4).map(tuple), inner.map(Holder)
    ),
    max_leaves=6,
)
VALUES = st.recursive(
    st.one_of(SCALARS, st.binary().map(bytearray)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=5),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(ANY_TEXT | st.just("$"), inner, max_size=4),
        st.dictionaries(HASHABLES, inner, max_size=3),
        st.sets(HASHABLES, max_size=4),
        st.builds(Box.model_construct, content=inner, more=st.dictionaries(HASHABLES, inner, max_size=2)),
        st.builds(Point, inner, inner),
        st.builds(Money, inner),
    ),
    max_leaves=20,
)


def ship(*args: object, **kwargs: object) -> None:
    """Stand for any task."""


def same(left: Any, right: Any) -> bool:
    """Tell whether two values are equal in every type within, where ``==`` would take 1.0 for 1 and -0.0 for 0.0."""
    if type(left) is not type(right):
        return False
    if isinstance(left, float):
        return left == right and math.copysign(1, left) == math.copysign(1, right)
    if isinstance(left, dict):
        left, right = [*left.items()], [*right.items()]
    elif isinstance(left, Point | Holder | Box):
        left, right = [*vars(left).items()], [*vars(right).items()]
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, datetime | time):  # the same hour of a clock's change is unequal to itself by definition
        return (str(left), left.fold, left.tzname()) == (str(right), right.fold, right.tzname())
    return bool(left == right)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(VALUES, max_size=3).map(tuple), st.dictionaries(ANY_TEXT, VALUES, max_size=3))
@example(("\ud83d", "\ud83d\ude00"), {"\ud83d\ude00": 1, "$": {"$": "tuple", "v": []}})
def test_any_call_comes_back_equal(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Also as ASCII, as strict JSON, and fit to be shown."""
    text = encode(ship, args, kwargs)
    assert text.isascii()
    assert json.loads(text, parse_constant=lambda name: 1 / 0)
    back, named = decode(text)
    assert same(back, args)
    assert same(named, kwargs)
    assert encode(ship, back, named) == text or "set" in text
    json.dumps(display(text), allow_nan=False, ensure_ascii=False).encode()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(ANY_TEXT | st.sampled_from(["v", "cls", "us"]), inner),
    max_leaves=10,
)
TAGS = [
    "str", "int", "float", "dict", "tuple", "set", "bytes", "datetime", "time", "timedelta", "timezone", "zoneinfo",
    "pydantic_tz", "path", "url", "enum", "model", "dataclass", "decimal", "uuid", "date", "ip4", "serialized", "other",
]  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(TAGS), st.dictionaries(st.sampled_from(["v", "cls", "us", "fields", "fold", "by", "flag"]), JSON)
)
def test_broken_text_is_refused_in_one_way(tag: str, fields: dict[str, Any]) -> None:
    """Whatever stands in a row, reading it gives a value or a TaskArgumentError, and it can be shown."""
    text = json.dumps({"args": [{"$": tag, **fields}], "kwargs": {}})
    with contextlib.suppress(TaskArgumentError):
        decode(text)
    json.dumps(display(text), allow_nan=False, ensure_ascii=False).encode()


@settings(max_examples=100, deadline=None)
@given(st.binary().map(lambda data: data.decode("latin-1")) | ANY_TEXT)
def test_any_text_can_be_shown(text: str) -> None:
    """Even what never was a payload."""
    assert set(display(text)) == {"args", "kwargs"}
    json.dumps(display(text), allow_nan=False, ensure_ascii=False).encode()
