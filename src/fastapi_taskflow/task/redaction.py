"""What is not shown to people: values with certain names, wherever they are in arguments, results and fields."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any, Final

from fastapi_taskflow.errors import ConfigurationError
from fastapi_taskflow.task.codec.walk import TAG

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    Redact = Callable[[str, Any], Any]

logger = logging.getLogger("fastapi_taskflow.redaction")

REDACTED: Final = "[redacted]"


class Redaction:
    """Replaces what people must not see.

    Args:
        rule: Names, compared without regard to capitals, whose values are not shown; or a function that is given each
            name with its value, as JSON has it, and returns what is to be shown.

    Raises:
        ConfigurationError: If it is neither.
    """

    def __init__(self, rule: Iterable[str] | Redact = ()) -> None:
        self._redact: Redact
        self._told = False
        if callable(rule):
            self._redact = rule
            self.active = True
            return
        names: list[Any] = [rule] if isinstance(rule, str) else list(rule)
        if not all(isinstance(name, str) and name for name in names):
            msg = f"redact must be a list of names, or a function of a name and a value, not {rule!r}"
            raise ConfigurationError(msg)
        wanted = frozenset(name.lower() for name in names)
        self._redact = lambda name, value: REDACTED if _last(name).lower() in wanted else value
        self.active = bool(names)

    def fields(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Return named values as they may be shown."""
        return {name: self.named(name, value) for name, value in fields.items()}

    def named(self, name: str, value: Any) -> Any:
        """Return a value that has a name as it may be shown."""
        try:
            shown = self._redact(name, value)
        except Exception:
            if not self._told:
                self._told = True
                logger.exception("redact failed on %r; such values are not shown", name)
            return REDACTED
        return self.tree(shown) if shown is value else shown

    def tree(self, value: Any) -> Any:
        """Return a value with all named ones in it as they may be shown."""
        if isinstance(value, list | tuple):
            return [self.tree(item) for item in value]
        if not isinstance(value, dict):
            return value
        if TAG not in value:
            return self.fields(value)
        if value[TAG] == "dict":
            return {**value, "v": [[key, self._keyed(key, item)] for key, item in value["v"]]}
        return {
            name: self.fields(item) if name in {"fields", "extra"} and isinstance(item, dict) else self.tree(item)
            for name, item in value.items()
        }

    def _keyed(self, key: Any, item: Any) -> Any:
        return self.named(key, item) if isinstance(key, str) else self.tree(item)

    def call(self, text: str, parameters: Sequence[str]) -> str:
        """Return the stored text of a call as it may be shown.

        Args:
            text: As `payload.encode` made it.
            parameters: The names of the positional parameters.
        """
        found = json.loads(text)
        args = [
            self.named(parameters[place], value) if place < len(parameters) else self.tree(value)
            for place, value in enumerate(found["args"])
        ]
        return json.dumps({"args": args, "kwargs": self.fields(found["kwargs"])})

    def value(self, text: str) -> str:
        """Return the stored text of a value as it may be shown."""
        return json.dumps(self.tree(json.loads(text)))


def _last(name: str) -> str:
    """Return the last part of a name such as ``http.request.header.authorization``."""
    return name.rpartition(".")[2]


NOTHING: Final = Redaction()
