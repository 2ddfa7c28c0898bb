"""A serializer takes what the codec refuses."""

from __future__ import annotations

import sys
import threading
from typing import Any

import pytest

from fastapi_taskflow.errors import TaskArgumentError
from fastapi_taskflow.task.payload import CloudpickleSerializer, PickleSerializer, decode, encode
from tests.unit.task.payload_values import (
    Pair,
    Text,
    ship,
)


def test_a_serializer_takes_what_is_refused_and_nothing_else() -> None:
    """The rest stays readable."""
    serializer = PickleSerializer()
    args = ({"pair": Pair(1, 2), "plain": [1]}, 1j, Text("x"))
    text = encode(ship, args, {}, serializer=serializer)
    back, _ = decode(text, serializer=serializer)
    assert (back, [type(item) for item in back]) == (args, [dict, complex, Text])
    assert '"plain":[1]' in text
    assert encode(ship, ([1, (2,)],), {}, serializer=serializer) == encode(ship, ([1, (2,)],), {})
    with pytest.raises(TaskArgumentError, match="serializer 'pickle'"):
        decode(text)
    other = PickleSerializer()
    other.name = "other"
    with pytest.raises(TaskArgumentError, match="serializer 'pickle'"):
        decode(text, serializer=other)


def test_a_serializer_takes_an_argument_that_contains_itself() -> None:
    """In one piece, so that the circle is closed again."""
    cycle: list[Any] = [1]
    cycle.append([cycle])
    (back, plain), _ = decode(
        encode(ship, (cycle, 5), {}, serializer=PickleSerializer()), serializer=PickleSerializer()
    )
    assert back[1][0] is back
    assert plain == 5


def test_a_serializer_that_fails_is_named() -> None:
    """Its own error is in the message and is the cause."""
    with pytest.raises(
        TaskArgumentError, match=r"args\[0\]\[0\] is a _thread.lock, which the serializer 'pickle'"
    ) as caught:
        encode(ship, ([threading.Lock()],), {}, serializer=PickleSerializer())
    assert caught.value.argument == "args[0][0]"
    assert isinstance(caught.value.__cause__, TypeError)


def test_cloudpickle_takes_functions() -> None:
    """The extra is imported only here."""
    pytest.importorskip("cloudpickle")
    serializer = CloudpickleSerializer()
    number = 4
    (back,), _ = decode(encode(ship, (lambda: number,), {}, serializer=serializer), serializer=serializer)
    assert back() == 4


def test_a_missing_cloudpickle_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """It names the extra."""
    monkeypatch.setitem(sys.modules, "cloudpickle", None)
    with pytest.raises(ValueError, match=r"fastapi-taskflow-otel\[pickle\]"):
        CloudpickleSerializer()
