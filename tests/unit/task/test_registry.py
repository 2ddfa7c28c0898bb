"""Finding the definition of a function: decorated or not, bound, partial, by name, by import."""

from __future__ import annotations

import functools
from typing import Any

import pytest

from fastapi_taskflow.errors import ConfigurationError
from fastapi_taskflow.task.definition import TaskDefinition, calls_async, code_name, short_name
from fastapi_taskflow.task.registry import Registry, import_target, split_call, target_of
from fastapi_taskflow.task.retry import RetryPolicy


def plain(a: int, b: int = 0) -> int:
    """Add."""
    return a + b


async def coro() -> None:
    """Do nothing."""


class Mailer:
    """Has methods and can be called."""

    def send(self) -> None:
        """Do nothing."""

    async def asend(self) -> None:
        """Do nothing."""

    async def __call__(self) -> None:
        """Do nothing."""


def define(func: Any, **changes: Any) -> TaskDefinition:
    """Return a definition of ``func``."""
    values = {"name": short_name(func), "func": func, "is_async": calls_async(func), "code_name": code_name(func)}
    return TaskDefinition(**{**values, **changes})


@pytest.mark.parametrize(
    ("func", "expected"),
    [
        (plain, False),
        (coro, True),
        (functools.partial(coro), True),
        (functools.partial(functools.partial(plain, 1), 2), False),
        (Mailer().send, False),
        (Mailer().asend, True),
        (Mailer(), True),
        (print, False),
    ],
)
def test_calls_async(func: Any, *, expected: bool) -> None:
    """Partials, methods and callable objects count as what they call."""
    assert calls_async(func) is expected


def test_a_decorated_function_is_found_by_itself_and_by_name() -> None:
    """The definition is the same object."""
    registry = Registry()
    definition = define(plain, name="add")
    registry.add(definition)
    assert registry.resolve(plain) is definition
    assert registry.get("add") is definition
    assert list(registry) == [definition]


def test_an_undecorated_function_is_adopted_once() -> None:
    """It has no retries and its own name, and is told to whoever declares metrics."""
    told: list[str] = []
    registry = Registry(on_add=lambda definition: told.append(definition.name))
    first = registry.resolve(plain)
    assert registry.resolve(plain) is first
    assert (first.name, first.retry.retries, first.declared) == ("plain", 0, False)
    assert told == ["plain"]


def test_methods_of_all_objects_share_one_definition() -> None:
    """An object a request must not grow the registry."""
    registry = Registry()
    assert registry.resolve(Mailer().send) is registry.resolve(Mailer().send)
    assert len(registry) == 1


def test_closures_of_one_place_share_one_definition() -> None:
    """So do lambdas that are made in a loop."""
    registry = Registry()
    definitions = {id(registry.resolve(lambda i=i: i)) for i in range(50)}
    assert len(definitions) == 1


def test_two_functions_of_one_name_are_told_apart() -> None:
    """The second one gets its full name; two decorated ones are an error."""
    registry = Registry()
    registry.add(define(coro, name="plain", declared=True))
    assert registry.resolve(plain).name == f"{__name__}.plain"
    with pytest.raises(ConfigurationError, match="two functions are registered as task 'plain'"):
        registry.add(define(plain, name="plain"))


def test_declaring_a_function_again_replaces_it() -> None:
    """A reloaded module brings the same code under the same name."""
    registry = Registry()
    registry.add(define(plain, retry=RetryPolicy(1)))
    registry.add(define(plain, retry=RetryPolicy(2)))
    assert registry.resolve(plain).retry.retries == 2


def test_find_imports_a_function_that_was_not_registered() -> None:
    """A new process finds the function of a stored task by its target."""
    registry = Registry()
    found = registry.find("plain", f"{__name__}:plain")
    assert found is not None
    assert found.func is plain
    assert registry.find("plain", None) is found
    assert registry.find("nothing", None) is None
    assert registry.find("nothing", "no.such.module:f") is None


@pytest.mark.parametrize("target", ["json:nothing", "no_such_module:f", ":", "json:__doc__", "json"])
def test_import_target_gives_none_for_what_is_not_there(target: str) -> None:
    """Nothing else is raised."""
    assert import_target(target) is None


def test_target_of_round_trips_or_is_none() -> None:
    """Closures and lambdas have none."""
    assert import_target(target_of(plain) or "") is plain
    assert import_target(target_of(Mailer.send) or "") is Mailer.send
    assert target_of(lambda: None) is None
    assert target_of(functools.partial(plain)) is None


def test_split_call_unfolds_partials() -> None:
    """Given arguments come after, and over, those of the partial."""
    inner = functools.partial(plain, 1)
    func, args, kwargs = split_call(functools.partial(inner, b=2), (), {"b": 3})
    assert (func, args, kwargs) == (plain, (1,), {"b": 3})
