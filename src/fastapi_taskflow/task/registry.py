"""The functions that a manager knows, by name and by object."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import inspect
import logging
import threading
from typing import TYPE_CHECKING, Any

from fastapi_taskflow.errors import ConfigurationError
from fastapi_taskflow.task.definition import INNER, TaskDefinition, calls_async, code_name, short_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fastapi_taskflow.task.need import Need

logger = logging.getLogger("fastapi_taskflow.registry")


class Registry:
    """Definitions of one manager. Functions without a decorator are added when they are first used.

    Args:
        on_add: Told of each definition.
        needs_of: Tells which parameters of a function are filled for each attempt.
    """

    def __init__(
        self,
        *,
        on_add: Callable[[TaskDefinition], None] | None = None,
        needs_of: Callable[[Callable[..., Any]], tuple[Need, ...]] = lambda _: (),
    ) -> None:
        self._by_name: dict[str, TaskDefinition] = {}
        self._by_func: dict[Any, TaskDefinition] = {}
        self._lock = threading.Lock()
        self._on_add = on_add
        self._needs_of = needs_of

    def __iter__(self) -> Iterator[TaskDefinition]:
        """Iterate over all definitions but this package's own."""
        return iter(tuple(each for each in self._by_name.values() if not each.name.startswith(INNER)))

    def __len__(self) -> int:
        """Return how many definitions there are, this package's own aside."""
        return sum(1 for _ in self)

    def get(self, name: str) -> TaskDefinition | None:
        """Return the definition with this name, or None."""
        return self._by_name.get(name)

    def add(self, definition: TaskDefinition) -> None:
        """Add a definition.

        Raises:
            ConfigurationError: If another function has the name, or its parameters cannot be filled.
        """
        definition = self._with_needs(definition)
        with self._lock:
            known = self._by_name.get(definition.name)
            if known is not None and known.code_name != definition.code_name:
                msg = (
                    f"two functions are registered as task {definition.name!r}: {known.code_name} and "
                    f"{definition.code_name}; give one of them another name with task(name=…)"
                )
                raise ConfigurationError(msg)
            if known is not None:
                self._by_func.pop(known.func, None)
            self._by_name[definition.name] = definition
            self._by_func[definition.func] = definition
        if self._on_add is not None and not definition.name.startswith(INNER):
            self._on_add(definition)

    def _with_needs(self, definition: TaskDefinition) -> TaskDefinition:
        needs = self._needs_of(definition.func)
        if not needs:
            return definition
        if definition.executor == "process":
            names = ", ".join(need.parameter for need in needs)
            msg = (
                f"{definition.name} runs in a process of its own, where no dependency of this one's can be: open what "
                f"{names} stands for within the function, or use another executor"
            )
            raise ConfigurationError(msg)
        return dataclasses.replace(definition, needs=needs)

    def known(self, func: Any) -> TaskDefinition | None:
        """Return the definition of a plain function that was seen before, or None."""
        try:
            return self._by_func.get(func)
        except TypeError:
            return None

    def resolve(self, func: Callable[..., Any]) -> TaskDefinition:
        """Return the definition of ``func``; make one for a function that was never decorated."""
        try:
            return self._by_func[func]
        except (KeyError, TypeError):
            return self._adopt(getattr(func, "__func__", func))

    def _adopt(self, func: Callable[..., Any]) -> TaskDefinition:
        known = self._by_func.get(func) if _hashable(func) else None
        if known is not None:
            return known
        code = code_name(func)
        name = short_name(func)
        with self._lock:
            for candidate in (name, code):
                other = self._by_name.get(candidate)
                if other is not None and other.code_name == code:
                    # Two functions made by one piece of code may have been given different dependencies.
                    return self._with_needs(dataclasses.replace(other, func=func)) if other.needs else other
        if name in self._by_name:
            name = code
        definition = TaskDefinition(name=name, func=func, is_async=calls_async(func), code_name=code)
        if inspect.isfunction(func) and "<locals>" not in code:
            self.add(definition)
            return self._by_func[func]
        definition = self._with_needs(definition)
        with self._lock:
            self._by_name.setdefault(name, definition)
        if self._on_add is not None:
            self._on_add(definition)
        return definition

    def find(self, name: str, target: str | None) -> TaskDefinition | None:
        """Return the definition for a stored task: by its name, else by importing ``target``; None if neither works."""
        known = self._by_name.get(name)
        if known is not None or target is None:
            return known
        func = import_target(target)
        if func is None:
            return None
        return self._by_name.get(name) or self.resolve(func)


def split_call(
    func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]:
    """Return the function inside of partials, with their arguments put before and under the given ones."""
    while isinstance(func, functools.partial):
        args = (*func.args, *args)
        kwargs = {**func.keywords, **kwargs}
        func = func.func
    return func, args, kwargs


def target_of(func: Callable[..., Any]) -> str | None:
    """Return ``module:qualname`` if importing it gives ``func`` again (through any decorator), else None."""
    module, qualname = getattr(func, "__module__", None), getattr(func, "__qualname__", None)
    if not module or not qualname or "<" in qualname:
        return None
    return f"{module}:{qualname}"


def import_target(target: str) -> Callable[..., Any] | None:
    """Return what ``module:qualname`` names, or None if it is not there any more or is not callable."""
    module, _, qualname = target.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in qualname.split("."):
            found = getattr(found, part)
    except Exception as error:  # noqa: BLE001 - importing runs the module's code, which may raise anything
        logger.warning("%s cannot be imported: %r", target, error)
        return None
    return found if callable(found) else None


def _hashable(func: object) -> bool:
    try:
        hash(func)
    except TypeError:
        return False
    return True
