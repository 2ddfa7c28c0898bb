"""What people must not see is not shown, wherever it is."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pydantic
import pytest

from fastapi_taskflow.errors import ConfigurationError
from fastapi_taskflow.task import payload
from fastapi_taskflow.task.redaction import NOTHING, REDACTED, Redaction


class Card(pydantic.BaseModel):
    """A model with a field that is not shown."""

    number: str
    owner: str


@dataclasses.dataclass
class Login:
    """A dataclass with one, nested."""

    user: str
    Password: str
    card: Card


def pay(password: str, order: Any = None, *, token: str = "") -> None:
    """A function with names that are not shown."""


SECRET = "s3cret"
RULE = Redaction(["password", "NUMBER", "token"])


def test_names_are_found_at_every_depth() -> None:
    """Arguments by place and by name, keys, fields of models and dataclasses; in any case."""
    login = Login("ann", SECRET, Card(number=SECRET, owner="ann"))
    order = {"id": 7, "Token": SECRET, 5: {"password": SECRET}, "more": [login, (login, {"number": [SECRET]})]}
    text = payload.encode(pay, (SECRET, order), {"token": SECRET})
    shown = RULE.call(text, ("password", "order", "token"))
    assert SECRET not in shown
    seen = payload.display(shown)
    assert seen["args"][0] == REDACTED
    assert seen["kwargs"] == {"token": REDACTED}
    assert seen["args"][1]["id"] == 7
    assert "ann" in json.dumps(seen)
    assert SECRET not in RULE.value(payload.encode_value(order))


def test_fields_of_dotted_names_go_by_their_last_part() -> None:
    """As attributes of spans have them."""
    assert RULE.fields({"db.password": SECRET, "db.passwords": "kept"}) == {
        "db.password": REDACTED,
        "db.passwords": "kept",
    }


def test_a_function_may_decide(caplog: pytest.LogCaptureFixture) -> None:
    """By name and value; where it fails nothing is shown, and that is told once."""

    def rule(name: str, value: Any) -> Any:
        if name == "card":
            return f"…{value[-4:]}"
        return value

    redaction = Redaction(rule)
    assert redaction.fields({"card": "4000123412341234", "n": 1}) == {"card": "…1234", "n": 1}
    assert redaction.fields({"card": None, "inner": {"card": 5}}) == {"card": REDACTED, "inner": {"card": REDACTED}}
    assert len([each for each in caplog.records if each.name == "fastapi_taskflow.redaction"]) == 1


def test_without_a_rule_nothing_is_done() -> None:
    """It is not even asked."""
    assert not NOTHING.active
    assert NOTHING.tree({"password": [1]}) == {"password": [1]}


@pytest.mark.parametrize("wrong", [[1], [""], [None]])
def test_a_wrong_rule_is_refused(wrong: Any) -> None:
    """With what is allowed."""
    with pytest.raises(ConfigurationError, match="redact must be a list of names"):
        Redaction(wrong)
