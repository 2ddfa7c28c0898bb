"""Names of classes in stored arguments: ``module:qualname``, and the way back."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import sys
from enum import Enum
from typing import Any, Final, cast

from pydantic import BaseModel

from fastapi_taskflow.errors import TaskArgumentError

MAIN: Final = "__main__"
SPAWNED_MAIN: Final = "__mp_main__"
"""What a child of ``multiprocessing`` calls the program that its parent calls ``__main__``."""


class ClassRefError(Exception):
    """The class has no name by which another process could find it."""


@functools.lru_cache(maxsize=4096)
def reference(cls: type) -> str:
    """Return the name by which `resolve` finds ``cls`` again.

    Raises:
        ClassRefError: If there is none.
    """
    module, qualname = cls.__module__, cls.__qualname__
    if "<locals>" in qualname:
        msg = "whose class is defined inside of a function, where no other process can find it; move it to a module"
        raise ClassRefError(msg)
    found: Any = sys.modules.get(module)
    for part in qualname.split("."):
        found = getattr(found, part, None)
    if found is not cls:
        msg = f"whose class cannot be imported again: {module}.{qualname} is not this class"
        raise ClassRefError(msg)
    return f"{MAIN if module == SPAWNED_MAIN else module}:{qualname}"


def resolve(name: object, kind: str) -> type:
    """Return the class called ``name``, which must be of ``kind``. Nothing but its module is run.

    Args:
        name: ``module:qualname``.
        kind: ``enum``, ``model`` or ``dataclass``.

    Raises:
        TaskArgumentError: If the class is gone or is not of that kind.
    """
    if not isinstance(name, str) or not _well_formed(name):
        raise _gone(name, "this is not the name of a class")
    module, _, qualname = name.partition(":")
    try:
        found: Any = importlib.import_module(module)
    except Exception as error:
        raise _gone(name, f"importing {module} failed with {type(error).__name__}: {error}") from error
    for part in qualname.split("."):
        found = vars(found).get(part) if found is not None else None
        if not isinstance(found, type):
            hint = "; was the program started in another way?" if module == MAIN else ""
            raise _gone(name, f"{module} has no class {qualname} any more{hint}")
    if not _IS_KIND[kind](found):
        raise _gone(name, f"it is not {_KIND_NAMES[kind]} any more")
    return cast("type", found)


_IS_KIND: Final = {
    "enum": lambda cls: issubclass(cls, Enum),
    "model": lambda cls: issubclass(cls, BaseModel),
    "dataclass": dataclasses.is_dataclass,
}
_KIND_NAMES: Final = {"enum": "an Enum", "model": "a pydantic model", "dataclass": "a dataclass"}


def _well_formed(name: str) -> bool:
    module, colon, qualname = name.partition(":")
    return bool(colon) and all(part.isidentifier() for part in (*module.split("."), *qualname.split(".")))


def _gone(name: object, why: str) -> TaskArgumentError:
    return TaskArgumentError(
        f"a stored argument is of the class {name}, which cannot be used: {why}", argument=str(name)
    )
