"""Arguments come back equal."""

from __future__ import annotations

import copy
import json
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest

from fastapi_taskflow.task.payload import decode, display, encode
from tests.unit.task.payload_values import (
    DERIVED,
    FROZEN,
    ORDER,
    VALUES,
    VIENNA,
    Derived,
    Money,
    Open,
    Point,
    ship,
    there_and_back,
)


@pytest.mark.parametrize("value", VALUES, ids=lambda value: f"{type(value).__name__}")
def test_a_value_comes_back_equal_and_of_the_same_type(value: Any) -> None:
    """Equality alone would take True for 1 and a plain string for a StrEnum."""
    back = there_and_back(value)
    assert back == value
    assert type(back) is type(value)
    if not isinstance(value, set | frozenset) and not (type(value) is int and value.bit_length() > 4000):
        assert repr(back) == repr(value)


def test_no_arguments_are_a_constant() -> None:
    """The commonest call costs nothing."""
    assert encode(ship, (), {}) is encode(ship, (), {})
    assert decode(encode(ship, (), {})) == ((), {})
    first, second = decode(encode(ship, (), {}))[1], decode(encode(ship, (), {}))[1]
    assert first is not second


def test_nan_stays_nan() -> None:
    """NaN equals nothing, so it has a test of its own."""
    back = there_and_back([float("nan"), Decimal("NaN123"), Decimal("sNaN")])
    assert [str(item) for item in back] == ["nan", "NaN123", "sNaN"]


def test_a_zone_is_the_very_zone() -> None:
    """Equal datetimes may have zones that behave differently next summer."""
    assert there_and_back(datetime(2026, 1, 1, tzinfo=VIENNA)).tzinfo is VIENNA
    assert there_and_back(datetime(2026, 1, 1, tzinfo=UTC)).tzinfo is UTC
    assert there_and_back(datetime(2026, 10, 25, 2, 30, tzinfo=VIENNA, fold=1)).fold == 1
    assert there_and_back(timezone(timedelta(hours=1), "CET")).tzname(None) == "CET"
    assert type(there_and_back(ORDER.at).tzinfo) is type(ORDER.at.tzinfo)


def test_a_model_keeps_what_was_set_and_what_is_private() -> None:
    """``exclude_unset`` and private attributes see no difference."""
    value = Open.model_validate({"known": 1, "more": 2})
    value._secret = (1, {2})
    back = there_and_back(value)
    assert back == value
    assert (back._secret, back.model_extra, back.model_fields_set) == ((1, {2}), {"more": 2}, {"known", "more"})
    assert there_and_back(ORDER).model_dump(exclude_unset=True) == ORDER.model_dump(exclude_unset=True)
    assert "quantity" not in there_and_back(ORDER).lines[0].model_fields_set
    assert hash(there_and_back(FROZEN)) == hash(FROZEN)


def test_a_dataclass_comes_back_without_running_its_init() -> None:
    """What init=False fields and plain attributes held is kept; a field never set stays unset; caches are dropped."""
    back = there_and_back(DERIVED)
    assert type(back) is Derived
    assert {**vars(back)} == {"x": 2, "y": 1.5, "z": 4, "beside": {"not": "a field"}}
    assert there_and_back(Money(Decimal(1))).shown == "1 EUR"


def test_later_changes_do_not_reach_the_task() -> None:
    """The text is made at once."""
    value = {"lines": [Point(1)]}
    before = copy.deepcopy(value)
    text = encode(ship, (value,), {})
    value["lines"][0].x = 2
    value["lines"].append(Point(3))
    assert decode(text)[0][0] == before


def test_the_same_object_in_two_places_is_no_cycle() -> None:
    """Only an object within itself is refused."""
    shared = [1]
    assert there_and_back([shared, shared, {"a": shared}]) == [[1], [1], {"a": [1]}]


@pytest.mark.parametrize(
    "text", ["x" * 10_000_000, "☃" * 3_000_000, b"\xff" * 10_000_000], ids=["ascii", "snow", "bytes"]
)
def test_ten_megabytes_work(text: Any) -> None:
    """Large arguments are slow at worst."""
    stored = encode(ship, (text,), {})
    assert decode(stored)[0] == (text,)
    assert len(json.dumps(display(stored))) < 100_000


def test_keyword_names_may_be_any_text() -> None:
    """``**{"$": 1}`` is a legal call."""
    kwargs = {"$": 1, "\ud83d\ude00": (2,), "plain": 3}
    assert decode(encode(ship, (), kwargs)) == ((), kwargs)
