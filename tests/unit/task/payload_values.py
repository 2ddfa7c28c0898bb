"""Values of every kind that can be stored, and a way there and back."""

from __future__ import annotations

import functools
import json
import threading
import zoneinfo
from dataclasses import InitVar, dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from enum import Enum, Flag, IntEnum, IntFlag, StrEnum
from ipaddress import IPv4Address, IPv6Network
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, NamedTuple
from uuid import UUID

import pytest
from pydantic import AnyUrl, BaseModel, ConfigDict, Field, HttpUrl, PrivateAttr, RootModel, TypeAdapter
from pydantic.dataclasses import dataclass as pydantic_dataclass

from fastapi_taskflow.errors import TaskArgumentError
from fastapi_taskflow.task.payload import decode, encode

VIENNA = zoneinfo.ZoneInfo("Europe/Vienna")


class Colour(Enum):
    RED = 1
    CRIMSON = 1  # noqa: PIE796 - an alias
    BLUE = ("any", "value")


class Size(StrEnum):
    SMALL = "small"


class Level(IntEnum):
    HIGH = 3


class Right(Flag):
    READ = 1
    WRITE = 2


class Mode(IntFlag):
    A = 1
    B = 4


class Line(BaseModel):
    sku: str
    price: Decimal
    quantity: int = 1


class Order(BaseModel):
    order_id: UUID
    lines: list[Line]
    at: datetime
    note: str | None = Field(default=None, alias="Note")


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    known: int
    _secret: Any = PrivateAttr(default=7)


class Names(RootModel[list[str]]):
    pass


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)
    url: HttpUrl
    other: AnyUrl


@dataclass
class Point:
    x: int
    y: float = 0.0


@dataclass(frozen=True, slots=True)
class Money:
    amount: Decimal
    currency: str = "EUR"
    shown: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "shown", f"{self.amount} {self.currency}")


@dataclass
class Derived(Point):
    factor: InitVar[int] = 2
    unset: int = field(init=False)
    z: float = field(init=False)

    def __post_init__(self, factor: int) -> None:
        self.z = self.x * factor
        self.beside = {"not": "a field"}

    @functools.cached_property
    def lock(self) -> Any:
        return threading.Lock()


@pydantic_dataclass
class Checked:
    number: int


@dataclass
class OddDict(dict[str, int]):
    extra: int


class Pair(NamedTuple):
    left: int
    right: int


class Text(str):
    __slots__ = ()


class Whole(int):
    pass


class OwnZone(tzinfo):
    def dst(self, _moment: datetime | None) -> None:
        return None

    def tzname(self, _moment: datetime | None) -> str:
        return "own"

    def utcoffset(self, _moment: datetime | None) -> timedelta:
        return timedelta(hours=1)


def ship(*args: object, **kwargs: object) -> None:
    """Stand for any task."""


def there_and_back(value: Any) -> Any:
    """Return ``value`` after a round trip, by position and by name."""
    text = encode(ship, (value,), {"named": value})
    assert text.isascii()
    json.loads(text, parse_constant=pytest.fail)
    args, kwargs = decode(text)
    assert type(kwargs["named"]) is type(args[0])
    return args[0]


def refusal(*args: Any, **kwargs: Any) -> TaskArgumentError:
    """Return the error of a call that cannot be stored."""
    with pytest.raises(TaskArgumentError) as caught:
        encode(ship, args, kwargs)
    return caught.value


DERIVED = Derived(2, 1.5)
DERIVED.lock  # noqa: B018 - computes it
FROZEN = Frozen(url=HttpUrl("https://example.org"), other=AnyUrl("redis://h/1"))
ORDER = Order(
    order_id=UUID(int=5),
    lines=[Line(sku="a", price=Decimal("1.10"))],
    at=TypeAdapter(datetime).validate_json('"2026-11-24T22:00:00+01:00"'),
    Note="hi",
)

VALUES: list[Any] = [
    None, True, 0, -1, 2**64, 10**5000, -(16**4000), 0.1, -0.0, float("inf"), float("-inf"), 5e-324,
    "", "text", "naïve ☃ 𝄞", "a\0b", "\ud800", "\udc00x", "\ud83d\ude00", b"", b"\x00\xff", bytearray(b"ab"),
    [], {}, (), set(), frozenset(), [1, [2, (3, {4})]], {"a": {"b": [1]}}, {"$": "tuple", "v": [1]}, {"$": None},
    {1: "a", "1": "b", None: "c", (1, 2): "d", 1.5: 1}, {"\ud83d\ude00": 1}, {frozenset({1}): {"$": {"$": 1}}},
    datetime(2026, 11, 24, 22, 5, 1, 7), datetime(2026, 11, 24, tzinfo=UTC), datetime.max, datetime.min,
    datetime(2026, 10, 25, 2, 30, tzinfo=VIENNA), datetime(2026, 10, 25, 2, 30, tzinfo=VIENNA, fold=1),
    datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=5, minutes=30, seconds=1, microseconds=2))),
    datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=1), "CET")), date(2026, 2, 28), time(1, 2, 3, 4),
    time(1, 2, tzinfo=UTC), time(1, 2, tzinfo=VIENNA, fold=1), timedelta(days=-1, microseconds=1), timedelta.max,
    timedelta.min, UTC, VIENNA, timezone(timedelta(hours=-3)), Decimal("1.10"), Decimal("-0E+7"), Decimal("Infinity"),
    UUID(int=7), Path("a/b"), PurePosixPath("//x/../y"), PureWindowsPath("C:\\x y"), Path("/x/\udcff"),
    IPv4Address("127.0.0.1"), IPv6Network("fe80::/10"), HttpUrl("https://example.org/a?b=ü"),
    Colour.RED, Colour.CRIMSON, Colour.BLUE, Size.SMALL, Level.HIGH, Right.READ | Right.WRITE, Right(0),
    Mode.A | Mode(64),
    {Size.SMALL: Level.HIGH}, ORDER, [ORDER, ORDER], Open.model_validate({"known": 1, "more": {"$": 1}}),
    Open(known=2), Names(["a"]),
    FROZEN, Point(1), Money(Decimal("1.5")), {Money(Decimal(2))},
    Checked(3),
]  # fmt: skip


def stored(**tagged: Any) -> str:
    """Return the text of a call with one encoded value."""
    return json.dumps({"args": [{"$": tagged.pop("tag"), **tagged}], "kwargs": {}})
