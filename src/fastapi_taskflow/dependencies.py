"""FastAPI's ``Depends`` in the signature of a task: what is declared, and how it is filled without a request."""

from __future__ import annotations

import asyncio
import functools
import inspect
import sys
import typing
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Annotated, Any, Final

from fastapi import BackgroundTasks, Response, params
from fastapi.concurrency import contextmanager_in_threadpool, run_in_threadpool
from fastapi.security import SecurityScopes
from pydantic.fields import FieldInfo
from starlette.background import BackgroundTasks as StarletteBackgroundTasks
from starlette.requests import HTTPConnection
from starlette.responses import Response as StarletteResponse

from fastapi_taskflow.errors import ConfigurationError
from fastapi_taskflow.task.definition import short_name
from fastapi_taskflow.task.need import Need

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

OF_A_REQUEST: Final = (
    HTTPConnection, Response, StarletteResponse, BackgroundTasks, StarletteBackgroundTasks, SecurityScopes,
)  # fmt: skip
"""What FastAPI fills by its type, and no task has."""

UNFILLED: Final = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def needs_of(func: Callable[..., Any]) -> tuple[Need, ...]:
    """Return the parameters of a task's function that are declared with ``Depends``.

    Raises:
        ConfigurationError: If one of them cannot be filled outside of a request.
    """
    found = []
    for parameter, kind in _parameters(func):
        declared = _declared(parameter, kind)
        if declared is None:
            continue
        if parameter.kind is inspect.Parameter.POSITIONAL_ONLY:
            msg = f"{short_name(func)} takes {parameter.name!r}, a Depends, by its place alone: move it behind the '/'"
            raise ConfigurationError(msg)
        found.append(_need(parameter.name, declared, (short_name(func),)))
    return tuple(found)


def _need(name: str, declared: params.Depends, path: tuple[str, ...]) -> Need:
    call = declared.dependency
    if isinstance(declared, params.Security) or call is None:
        what = "Security" if isinstance(declared, params.Security) else "a Depends without a dependency"
        msg = f"{path[0]} cannot be a task: its parameter {name!r} is {what}, which only a request can fill"
        raise ConfigurationError(msg)
    path = (*path, short_name(call))
    return Need(
        parameter=name,
        call=call,
        use_cache=declared.use_cache,
        declaration=declared,
        max_concurrency=getattr(declared, "max_concurrency", None),
        needs=_needs_of_dependency(call, path),
    )


def _needs_of_dependency(call: Callable[..., Any], path: tuple[str, ...]) -> tuple[Need, ...]:
    found = []
    for parameter, kind in _parameters(call):
        declared = _declared(parameter, kind)
        if declared is not None:
            found.append(_need(parameter.name, declared, path))
            continue
        bare, marks = _taken_apart(kind)
        asked = [mark for mark in (*marks, parameter.default) if isinstance(mark, FieldInfo)]
        of_a_request = inspect.isclass(bare) and issubclass(bare, OF_A_REQUEST)
        if asked or of_a_request or (parameter.default is parameter.empty and parameter.kind not in UNFILLED):
            what = type(asked[0]).__name__ if asked else getattr(bare, "__name__", None) or "a value"
            through = " → ".join(path[1:])
            msg = (
                f"{path[0]} cannot be a task: its dependency {through} takes {parameter.name!r} ({what}) from the "
                "request, and no request is there when a task runs. Pass what it needs as an argument of the task"
            )
            raise ConfigurationError(msg)
    return tuple(found)


def _parameters(call: Callable[..., Any]) -> Iterator[tuple[inspect.Parameter, Any]]:
    """Yield each parameter with its annotation, evaluated if it is text that can be."""
    try:
        signature = inspect.signature(call)
    except (TypeError, ValueError):
        return
    names = _globals_of(call)
    for parameter in signature.parameters.values():
        annotation = parameter.annotation
        if isinstance(annotation, str):
            holder = SimpleNamespace(__annotations__={parameter.name: annotation})
            try:
                annotation = typing.get_type_hints(holder, names, {}, include_extras=True)[parameter.name]
            except Exception as error:  # noqa: BLE001 - it runs the user's code; most often a name is missing
                if "Depends" in annotation:
                    msg = (
                        f"{short_name(call)} cannot be a task: the annotation of {parameter.name!r} has a Depends, but "
                        f"cannot be evaluated in its module: {error}. Names in annotations must be the module's own"
                    )
                    raise ConfigurationError(msg) from None
                annotation = parameter.empty
        yield parameter, annotation


def _globals_of(call: Any) -> dict[str, Any]:
    while isinstance(call, functools.partial):
        call = call.func
    call = inspect.unwrap(call)
    if inspect.isclass(call):
        return vars(sys.modules[call.__module__])
    if not inspect.isroutine(call):
        call = type(call).__call__
    found: dict[str, Any] = getattr(call, "__globals__", {})
    return found


def _taken_apart(annotation: Any) -> tuple[Any, tuple[Any, ...]]:
    """Return the bare type of an annotation, and what ``Annotated`` adds to it."""
    if type(annotation).__name__ == "TypeAliasType":
        annotation = annotation.__value__
    if typing.get_origin(annotation) is Annotated:
        bare, *marks = typing.get_args(annotation)
        return bare, tuple(marks)
    return annotation, ()


def _declared(parameter: inspect.Parameter, annotation: Any) -> params.Depends | None:
    bare, marks = _taken_apart(annotation)
    declared = next((each for each in (parameter.default, *reversed(marks)) if isinstance(each, params.Depends)), None)
    if declared is not None and declared.dependency is None and callable(bare) and bare is not parameter.empty:
        return replace(declared, dependency=bare)
    return declared


class Dependencies:
    """Fills the needs of attempts.

    Args:
        overrides: Returns what stands in for dependencies, as an app's ``dependency_overrides`` says.
    """

    def __init__(self, overrides: Callable[[], Mapping[Callable[..., Any], Callable[..., Any]]]) -> None:
        self._overrides = overrides
        self._needs_of_overrides: dict[Callable[..., Any], tuple[Need, ...]] = {}
        self._limits: dict[int, tuple[object, _Limit]] = {}

    async def fill(
        self, needs: tuple[Need, ...], stack: AsyncExitStack, known: dict[Callable[..., Any], Any]
    ) -> dict[str, Any]:
        """Return a value for each need.

        Args:
            needs: What is needed.
            stack: Gets what is to be cleaned up.
            known: The values of this attempt so far, by dependency.

        Raises:
            ConfigurationError: If an override needs a request.
            BaseException: Whatever a dependency raises.
        """
        values = {}
        for need in needs:
            if need.use_cache and need.call in known:
                values[need.parameter] = known[need.call]
                continue
            call = self._overrides().get(need.call, need.call)
            inner = need.needs if call is need.call else self._needs_of_override(call)
            arguments = await self.fill(inner, stack, known)
            value = await self._value(call, arguments, stack, self._limit(need))
            values[need.parameter] = value
            known.setdefault(need.call, value)
        return values

    def _needs_of_override(self, call: Callable[..., Any]) -> tuple[Need, ...]:
        found = self._needs_of_overrides.get(call)
        if found is None:
            path = ("it", short_name(call))
            found = self._needs_of_overrides[call] = _needs_of_dependency(call, path)
        return found

    def _limit(self, need: Need) -> _Limit | None:
        if need.max_concurrency is None:
            return None
        known = self._limits.get(id(need.declaration))
        if known is None:
            known = self._limits[id(need.declaration)] = (need.declaration, _Limit(need.max_concurrency))
        return known[1]

    @staticmethod
    async def _value(
        call: Callable[..., Any], arguments: dict[str, Any], stack: AsyncExitStack, limit: _Limit | None
    ) -> Any:
        async with AsyncExitStack() as while_called:
            if _is(inspect.isasyncgenfunction, call):
                await _entered(limit, stack)
                return await stack.enter_async_context(asynccontextmanager(call)(**arguments))
            if _is(inspect.isgeneratorfunction, call):
                await _entered(limit, stack)
                inside = contextmanager_in_threadpool(contextmanager(call)(**arguments))
                return await stack.enter_async_context(inside)
            await _entered(limit, while_called)
            if _is(inspect.iscoroutinefunction, call):
                return await call(**arguments)
            return await run_in_threadpool(call, **arguments)


async def _entered(limit: _Limit | None, stack: AsyncExitStack) -> None:
    if limit is not None:
        await stack.enter_async_context(limit.places())


class _Limit:
    """How many values of one declaration are in use, on the loop of the day."""

    def __init__(self, places: int) -> None:
        self._number = places
        self._loop: asyncio.AbstractEventLoop | None = None
        self._places = asyncio.Semaphore(places)

    def places(self) -> asyncio.Semaphore:
        """Return the semaphore of this loop."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop, self._places = loop, asyncio.Semaphore(self._number)
        return self._places


def _is(test: Callable[[Any], bool], call: Any) -> bool:
    """Tell what kind of function is called, through partials, decorators and callable objects."""
    while isinstance(call, functools.partial):
        call = call.func
    if test(call) or test(inspect.unwrap(call)):
        return True
    return not inspect.isclass(call) and not inspect.isroutine(call) and test(type(call).__call__)
