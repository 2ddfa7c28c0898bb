"""What cannot be stored is refused by name."""

from __future__ import annotations

import sys
import threading
from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any

import pytest
from pydantic import SecretStr

from fastapi_taskflow.errors import TaskArgumentError
from fastapi_taskflow.task.payload import encode
from tests.unit.task.payload_values import (
    Line,
    OddDict,
    Open,
    Order,
    OwnZone,
    Pair,
    Point,
    Text,
    Whole,
    refusal,
    ship,
)


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (object(), "object"),
        (threading.Lock(), "_thread.lock"),
        (lambda: None, "function"),
        (Order, "ModelMetaclass"),
        (1j, "complex"),
        (range(3), "range"),
        (Text("x"), "Text"),
        (Whole(1), "Whole"),
        (Pair(1, 2), "Pair"),
        (OrderedDict(a=1), "OrderedDict"),
        (OddDict(1), "OddDict"),
        (ValueError("x"), "ValueError"),
        (SecretStr("x"), "SecretStr"),
        (datetime(2026, 1, 1, tzinfo=OwnZone()), "OwnZone"),
        (Line.model_construct(sku="x"), "without its field 'price'"),
    ],
    ids=str,
)
def test_anything_else_is_refused(value: object, name: str) -> None:
    """Nothing is changed silently; the message names the type, the function and the ways out."""
    error = refusal(value)
    message = str(error)
    assert message.startswith("ship() cannot be stored as a task: args[0]")
    assert name in message
    assert "PickleSerializer" in message
    assert isinstance(error, TypeError)


def test_the_place_of_the_refused_value_is_named() -> None:
    """The path reads like Python."""
    line = Line.model_construct(sku="x", price=object())
    assert refusal({"lines": [1, 2, line]}).argument == "args[0]['lines'][2].price"
    assert refusal(1, order=object()).argument == "kwargs['order']"
    assert refusal((Point(object()),)).argument == "args[0][0].x"  # type: ignore[arg-type]
    assert refusal({1: {object()}}).argument == "args[0][1]{…}"
    assert refusal({object(): 1}).argument == "args[0].keys()"
    assert refusal({(1, 2): object()}).argument == "args[0][<tuple>]"
    assert refusal({"k" * 100: object()}).argument == f"args[0]['{'k' * 59}…]"
    assert refusal(datetime(2026, 1, 1, tzinfo=OwnZone())).argument == "args[0].tzinfo"
    private = Open(known=1)
    private._secret = object()
    assert refusal(private).argument == "args[0]._secret"


def test_classes_that_no_other_process_finds_are_refused() -> None:
    """Local classes, generic parametrisations and shadowed names would be lost after a restart."""

    @dataclass
    class Local:
        x: int

    local_enum = Enum("local_enum", "A")
    assert "defined inside of a function" in str(refusal(Local(1)))
    assert "is not this class" in str(refusal(local_enum.A))


def test_objects_of_a_session_are_refused_with_advice() -> None:
    """A row object rebuilt without its session would be a trap."""

    @dataclass
    class Mapped:
        __mapper__ = object()
        x: int = 1

    assert "pass its key and load it in the task" in str(refusal(Mapped()))
    upload = type("UploadFile", (), {})()
    assert "read it in the route" in str(refusal(upload))


def test_cycles_and_deep_nesting_are_refused() -> None:
    """Neither hangs nor overflows the stack, not even near its end."""
    cycle: list[Any] = [1]
    cycle.append({"back": cycle})
    error = refusal(cycle)
    assert error.argument == "args[0][1]['back']"
    assert "contains itself" in str(error)
    deep: Any = 1
    for _ in range(100_000):
        deep = [deep]
    assert "nested deeper" in str(refusal(deep))
    assert len(refusal(deep).argument) < 200
    point = Point(1)
    point.x = point  # type: ignore[assignment]
    assert "contains itself" in str(refusal(point))
    ninety: Any = 1
    for _ in range(90):
        ninety = ({"$": ninety},) if _ % 2 else [ninety]

    def at_the_end_of_the_stack(frames: int) -> str:
        return encode(ship, (ninety,), {}) if frames == 0 else at_the_end_of_the_stack(frames - 1)

    with pytest.raises(TaskArgumentError, match="nested"):
        refused_at_all_depths(at_the_end_of_the_stack)
    while deep != 1:  # taken apart by hand: the interpreter's own way down could overflow
        deep = deep[0]


def refused_at_all_depths(call: Any) -> None:
    """Call it with ever less stack left, to the end."""
    for frames in range(sys.getrecursionlimit() - 350, sys.getrecursionlimit()):
        try:
            call(frames)
        except RecursionError:
            return
