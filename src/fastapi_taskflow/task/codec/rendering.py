"""Stored arguments for people: JSON types only, bounded, and nothing is imported or run."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from fastapi_taskflow.task.codec.walk import TAG
from fastapi_taskflow.task.outcome import storable_text

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_SHOWN_CHARS: Final = 8_192
MAX_SHOWN_ITEMS: Final = 200
MAX_SHOWN_INT: Final = 1 << 256


def display(text: str) -> dict[str, Any]:
    """Return the arguments as people may read them: ``{"args": [...], "kwargs": {...}}``.

    Long text and long lists are cut. Text that cannot be read is shown as it is, cut.

    Args:
        text: As `encode` returned it.
    """
    try:
        tree = json.loads(text, parse_constant=str)
        args, kwargs = _shown(tree["args"]), _shown(tree["kwargs"])
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        args, kwargs = None, None
    if not isinstance(args, list) or not isinstance(kwargs, dict):
        return {"args": [f"<unreadable: {storable_text(str(text), 200)}>"], "kwargs": {}}
    return {"args": args, "kwargs": kwargs}


def display_value(text: str) -> Any:
    """Return one stored value as people may read it; text that is not JSON is shown as it is, cut."""
    try:
        return _shown(json.loads(text, parse_constant=str))
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return storable_text(text, MAX_SHOWN_CHARS)


def _shown(found: Any) -> Any:
    if isinstance(found, str):
        return storable_text(found, MAX_SHOWN_CHARS)
    if isinstance(found, list):
        return _items(found)
    if isinstance(found, dict):
        return _tagged(found) if TAG in found else _mapping(found)
    if isinstance(found, int) and not -MAX_SHOWN_INT < found < MAX_SHOWN_INT:
        return hex(found)
    return found


def _items(found: list[Any]) -> list[Any]:
    shown = [_shown(item) for item in found[:MAX_SHOWN_ITEMS]]
    if len(found) > MAX_SHOWN_ITEMS:
        shown.append(f"… {len(found) - MAX_SHOWN_ITEMS} more")
    return shown


def _mapping(found: dict[str, Any]) -> dict[str, Any]:
    return _pairs([[key, found[key]] for key in found])


def _pairs(pairs: list[Any]) -> dict[str, Any]:
    shown = {_key(key): _shown(item) for key, item in pairs[:MAX_SHOWN_ITEMS]}
    if len(pairs) > MAX_SHOWN_ITEMS:
        shown["…"] = f"{len(pairs) - MAX_SHOWN_ITEMS} more"
    return shown


def _key(key: Any) -> str:
    shown = _shown(key)
    return shown if isinstance(shown, str) else json.dumps(shown)


def _tagged(found: dict[str, Any]) -> Any:
    render = _RENDERERS.get(str(found[TAG]))
    return _shown(found.get("v")) if render is None else render(found)


def _fields(found: dict[str, Any]) -> dict[str, Any]:
    return {"<class>": _class_name(found), **_shown(found["fields"]), **_shown(found.get("extra", {}))}


def _member(found: dict[str, Any]) -> str:
    return f"{_class_name(found)}.{found['v']}" if "v" in found else f"{_class_name(found)}({found.get('flag')})"


def _moment(found: dict[str, Any]) -> str:
    return f"{_shown(found['v'])} {_shown(found['tzinfo'])}" if "tzinfo" in found else str(_shown(found["v"]))


def _seconds(found: dict[str, Any]) -> str:
    return f"{found['us'] / 1e6:g} s"


def _base64(what: str) -> Callable[[dict[str, Any]], str]:
    return lambda found: f"<{what} in base64: {_shown(found['v'])}>"


_RENDERERS: Final[dict[str, Callable[[dict[str, Any]], Any]]] = {
    "dict": lambda found: _pairs(found["v"]),
    "model": _fields,
    "dataclass": _fields,
    "enum": _member,
    "datetime": _moment,
    "time": _moment,
    "timedelta": _seconds,
    "timezone": _seconds,
    "pydantic_tz": _seconds,
    "bytes": _base64("bytes"),
    "bytearray": _base64("bytearray"),
    "str": _base64("text with surrogates"),
    "serialized": lambda found: f"<stored by {_shown(found['by'])}, {len(found['v']) * 3 // 4} bytes>",
}


def _class_name(found: dict[str, Any]) -> str:
    return storable_text(str(found.get("cls")).rpartition(":")[2], 200)
