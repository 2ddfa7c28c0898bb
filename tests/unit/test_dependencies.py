"""What ``Depends`` in a task's signature means: which needs are found, how they are filled, and what is refused."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Annotated, Any

import pytest
from fastapi import BackgroundTasks, Depends, Header, Query, Request, Response, Security
from fastapi.security import OAuth2PasswordBearer

from fastapi_taskflow.dependencies import Dependencies, needs_of
from fastapi_taskflow.errors import ConfigurationError
from fastapi_taskflow.task.definition import TaskDefinition
from fastapi_taskflow.task.registry import Registry

if TYPE_CHECKING:
    from decimal import Decimal as OnlyForTypeCheckers

events: list[str] = []


class Session:
    """A class as a dependency; its parameter has a default, so no request is asked."""

    def __init__(self, url: str = "memory") -> None:
        self.url = url


def get_number() -> int:
    """Give a number."""
    return 7


async def get_async() -> str:
    """Give a text."""
    return "async"


def get_generator() -> Iterator[str]:
    """Open, and close."""
    events.append(f"open in {'the loop' if threading.current_thread() is threading.main_thread() else 'a thread'}")
    try:
        yield "generator"
    except ValueError as error:
        events.append(f"saw {error}")
        raise
    finally:
        events.append("closed")


async def get_async_generator() -> AsyncIterator[str]:
    """Open, and commit."""
    events.append("open")
    yield "async generator"
    events.append("committed")


class Reader:
    async def __call__(self) -> str:
        return "object"


def decorated(call: Callable[[], Iterator[str]]) -> Callable[[], Iterator[str]]:
    """Wrap ``call`` as decorators do."""

    @functools.wraps(call)
    def wrapper() -> Iterator[str]:
        return call()

    return wrapper


@pytest.fixture(autouse=True)
def _nothing_happened() -> None:
    events.clear()


async def fill(func: Callable[..., Any], **overrides: Any) -> dict[str, Any]:
    """Fill the needs of ``func``, and clean up."""
    async with AsyncExitStack() as stack:
        return await Dependencies(lambda: overrides.get("overrides", {})).fill(needs_of(func), stack, {})


async def test_every_kind_of_dependency_gives_its_value() -> None:
    """Functions, coroutines, generators of both kinds, classes, objects, partials and decorated ones."""
    elsewhere = functools.partial(Session, "elsewhere")

    def task(
        address: str,
        number: Annotated[int, Depends(get_number)],
        coroutine: str = Depends(get_async),
        generator: str = Depends(get_generator),
        async_generator: str = Depends(get_async_generator),
        session: Session = Depends(),
        by_object: str = Depends(Reader()),
        by_partial: Session = Depends(elsewhere),
        by_decorator: str = Depends(decorated(get_generator)),
    ) -> None:
        """Do nothing."""

    values = await fill(task)
    assert values.pop("session").url == "memory"
    assert values.pop("by_partial").url == "elsewhere"
    assert values == {
        "number": 7,
        "coroutine": "async",
        "generator": "generator",
        "async_generator": "async generator",
        "by_object": "object",
        "by_decorator": "generator",
    }
    assert events == ["open in a thread", "open", "open in a thread", "closed", "committed", "closed"]


def get_nested(number: Annotated[int, Depends(get_number)], again: int = Depends(get_number)) -> tuple[int, int]:
    """Need another one twice."""
    return number, again


async def test_a_value_is_shared_within_an_attempt_unless_it_says_otherwise() -> None:
    """As in a request: one value for each dependency, also of those that are nested."""
    made: list[object] = []

    def get_session() -> object:
        made.append(object())
        return made[-1]

    def get_users(session: object = Depends(get_session)) -> object:
        return session

    def task(
        users: object = Depends(get_users),
        session: object = Depends(get_session),
        own: object = Depends(get_session, use_cache=False),
        nested: object = Depends(get_nested),
    ) -> None:
        """Do nothing."""

    values = await fill(task)
    assert values["users"] is values["session"] is made[0]
    assert values["own"] is made[1]
    assert values["nested"] == (7, 7)
    assert len(made) == 2


async def test_an_override_is_asked_instead_with_needs_of_its_own() -> None:
    """Its value is shared under the name of what it stands for."""

    def other(text: str = Depends(get_async)) -> str:
        return f"other {text}"

    def task(number: Any = Depends(get_number), nested: Any = Depends(get_nested)) -> None:
        """Do nothing."""

    assert await fill(task, overrides={get_number: other}) == {"number": "other async", "nested": ("other async",) * 2}


async def test_no_more_values_at_a_time_than_the_declaration_allows() -> None:
    """``max_concurrency`` holds until the value is cleaned up, for all tasks that share the declaration."""
    inside: list[int] = []

    async def get_place() -> AsyncIterator[int]:
        inside.append(1)
        yield len(inside)
        inside.pop()

    place = Depends(get_place, max_concurrency=2)

    def one(taken: int = place) -> None:
        """Do nothing."""

    def two(taken: int = place) -> None:
        """Do nothing."""

    dependencies = Dependencies(dict)

    async def attempt(func: Callable[..., Any]) -> int:
        async with AsyncExitStack() as stack:
            values = await dependencies.fill(needs_of(func), stack, {})
            await asyncio.sleep(0)
            return int(values["taken"])

    assert max(await asyncio.gather(*(attempt(func) for func in (one, two) * 4))) == 2


def test_an_annotation_that_only_a_type_checker_knows_is_no_obstacle() -> None:
    """As in most code that uses ``from __future__ import annotations``."""

    def task(price: OnlyForTypeCheckers, number: Annotated[int, Depends(get_number)]) -> None:
        """Do nothing."""

    assert [need.parameter for need in needs_of(task)] == ["number"]


def test_an_annotation_with_a_depends_that_cannot_be_evaluated_is_refused() -> None:
    """It is text in this module, and its name is this function's: nobody could fill it."""

    def get_local() -> int:
        return 1

    def task(number: Annotated[int, Depends(get_local)]) -> None:
        """Do nothing."""

    with pytest.raises(ConfigurationError, match=r"annotation of 'number'.*'get_local' is not defined"):
        needs_of(task)


def test_a_plain_function_needs_nothing() -> None:
    """Nor does what has no signature."""
    assert needs_of(get_number) == needs_of(print) == needs_of(dict) == ()


def by_request(request: Request) -> None:
    """Need a request."""


def by_response(response: Response) -> None:
    """Need a response."""


def by_background(tasks: BackgroundTasks) -> None:
    """Need background tasks."""


def by_header(token: Annotated[str, Header()] = "") -> None:
    """Need a header."""


def by_query(page: int = Query(1)) -> None:
    """Need a query parameter."""


def by_value(user_id: int) -> None:
    """Need what FastAPI takes from the query."""


def by_nested(value: None = Depends(by_value)) -> None:
    """Need it at second hand."""


@pytest.mark.parametrize(
    ("dependency", "told"),
    [
        (by_request, r"its dependency by_request takes 'request' \(Request\) from the request"),
        (by_response, r"takes 'response' \(Response\)"),
        (by_background, r"takes 'tasks' \(BackgroundTasks\)"),
        (by_header, r"takes 'token' \(Header\)"),
        (by_query, r"takes 'page' \(Query\)"),
        (by_value, r"takes 'user_id' \(int\)"),
        (by_nested, r"its dependency by_nested → by_value takes 'user_id'"),
        (OAuth2PasswordBearer("/token"), r"its dependency OAuth2PasswordBearer takes 'request'"),
    ],
)
def test_what_needs_a_request_is_refused_by_name(dependency: Callable[..., Any], told: str) -> None:
    """Where the function is declared, and also where an undecorated one is added."""

    def send(address: str, value: Any = Depends(dependency)) -> None:
        """Do nothing."""

    with pytest.raises(ConfigurationError, match=f"send cannot be a task: .*{told}"):
        needs_of(send)
    with pytest.raises(ConfigurationError, match=told):
        Registry(needs_of=needs_of).resolve(send)


def test_other_things_that_no_task_can_have() -> None:
    """Security, a dependency without a callable, one that takes a place, and one for another process."""

    def secured(user: str = Security(get_number)) -> None:
        """Do nothing."""

    def empty(user=Depends()) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
        """Do nothing."""

    def placed(number: int = Depends(get_number), /) -> None:
        """Do nothing."""

    def remote(number: int = Depends(get_number)) -> None:
        """Do nothing."""

    for func, told in ((secured, "'user' is Security"), (empty, "without a dependency"), (placed, "by its place")):
        with pytest.raises(ConfigurationError, match=told):
            needs_of(func)
    definition = TaskDefinition(name="remote", func=remote, is_async=False, code_name="remote", executor="process")
    with pytest.raises(ConfigurationError, match=r"a process of its own.* number"):
        Registry(needs_of=needs_of).add(definition)


async def test_an_override_that_needs_a_request_fails_where_it_is_used() -> None:
    """A test put it there; the error says what is wrong."""

    def task(number: int = Depends(get_number)) -> None:
        """Do nothing."""

    with pytest.raises(ConfigurationError, match="its dependency by_request takes 'request'"):
        await fill(task, overrides={get_number: by_request})


def test_each_function_of_one_piece_of_code_has_its_own_needs() -> None:
    """Closures share their name, not what they were made with."""

    def make(dependency: Callable[[], Any]) -> Callable[..., Awaitable[None]]:
        async def task(value: Any = Depends(dependency)) -> None:
            """Do nothing."""

        return task

    registry = Registry(needs_of=needs_of)
    assert [registry.resolve(make(each)).needs[0].call for each in (get_number, get_async)] == [get_number, get_async]
