"""How FastAPI comes to inject our ``ManagedBackgroundTasks`` instead of its own class.

This file alone touches the private name ``fastapi.dependencies.utils.BackgroundTasks``, which FastAPI calls to make the
object that it injects.
"""

from __future__ import annotations

import inspect
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

import fastapi
import fastapi.dependencies.utils as fastapi_dependencies
from fastapi import BackgroundTasks

from fastapi_taskflow.background import ManagedBackgroundTasks
from fastapi_taskflow.errors import ConfigurationError, NotStartedError

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping

    from fastapi_taskflow.dispatcher import Dispatcher


class RequestTasks:
    """What the middleware knows of the tasks of one request.

    Attributes:
        managed: The request's background tasks, once somebody asked for them.
        refused: Whether the client got 503 instead of the response.
    """

    __slots__ = ("_app", "_get_dispatcher", "_install", "_scope", "managed", "refused")

    def __init__(
        self,
        get_dispatcher: Callable[[], Dispatcher | None],
        scope: MutableMapping[str, Any],
        install: Installation,
    ) -> None:
        self._get_dispatcher = get_dispatcher
        self.managed: ManagedBackgroundTasks | None = None
        self.refused = False
        self._scope = scope
        self._app = scope.get("app")
        self._install = install

    def belongs_to(self, get_dispatcher: Callable[[], Dispatcher | None]) -> bool:
        """Tell whether this request is served by the manager with that dispatcher."""
        return self._get_dispatcher == get_dispatcher

    def tasks(self) -> ManagedBackgroundTasks:
        """Return the one instance of this request.

        Raises:
            NotStartedError: If the manager is not started.
        """
        if self.managed is None:
            dispatcher = self._get_dispatcher()
            if dispatcher is None:
                raise NotStartedError(NOT_STARTED)
            self.managed = ManagedBackgroundTasks(dispatcher, self._scope, held=True)
        return self.managed

    def injected(self) -> BackgroundTasks:
        """Return what FastAPI is to inject: ours, or its own class in an app or a mounted app without a manager."""
        if self._scope.get("app") is self._app and self._install.covers(self._scope):
            return self.tasks()
        return BackgroundTasks()


NOT_STARTED: Final = (
    "the TaskManager is not started: give the app to TaskAdmin(app, task_manager) or task_manager.init_app(app), and "
    "let its lifespan run (in tests: `with TestClient(app) as client:`), or await task_manager.startup() yourself"
)


class Installation:
    """Which routes of one app get the managed class injected.

    Args:
        everywhere: Each ``BackgroundTasks`` parameter (``auto_install=True``); otherwise only routes whose endpoint or
            dependencies name ``ManagedBackgroundTasks``.
    """

    def __init__(self, *, everywhere: bool) -> None:
        self.everywhere = everywhere
        self._asks: dict[int, tuple[object, bool]] = {}

    def covers(self, scope: MutableMapping[str, Any]) -> bool:
        """Tell whether the request's route gets the managed class."""
        if self.everywhere:
            return True
        route = scope.get("route")
        known = self._asks.get(id(route))
        if known is None or known[0] is not route:
            known = self._asks[id(route)] = (route, _asks_for_managed(getattr(route, "dependant", None)))
        return known[1]


def _asks_for_managed(dependant: Any) -> bool:
    if dependant is None:
        return False
    if dependant.background_tasks_param_name and dependant.call is not None:
        parameter = fastapi_dependencies.get_typed_signature(dependant.call).parameters.get(
            dependant.background_tasks_param_name
        )
        annotation = parameter.annotation if parameter is not None else None
        if inspect.isclass(annotation) and issubclass(annotation, ManagedBackgroundTasks):
            return True
    return any(_asks_for_managed(each) for each in dependant.dependencies)


current_request: ContextVar[RequestTasks | None] = ContextVar("taskflow_request", default=None)

_PRIVATE_NAME: Final = "BackgroundTasks"


def _injected() -> BackgroundTasks:
    request = current_request.get()
    return BackgroundTasks() if request is None else request.injected()


def install() -> None:
    """Let FastAPI ask us for the object that it injects for ``BackgroundTasks``. Harmless when done already.

    Raises:
        ConfigurationError: If this FastAPI release makes that object in another way.
    """
    current = getattr(fastapi_dependencies, _PRIVATE_NAME, None)
    if current is _injected:
        return
    if current is not BackgroundTasks:
        msg = (
            f"auto_install does not work with FastAPI {fastapi.__version__}: its dependencies make {_PRIVATE_NAME} as "
            f"{current!r}. Use `tasks: ManagedBackgroundTasks = Depends(task_manager.get_tasks)` instead"
        )
        raise ConfigurationError(msg)
    setattr(fastapi_dependencies, _PRIVATE_NAME, _injected)
