"""How a manager lives in an application: started and stopped with it, by hand, or around single requests."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import ChainMap
from typing import TYPE_CHECKING, Any, Final

from fastapi import BackgroundTasks, FastAPI, Request  # noqa: TC002 - FastAPI reads the annotations of get_tasks
from starlette.middleware import Middleware

from fastapi_taskflow import injection
from fastapi_taskflow.background import SCOPE_KEY, ManagedBackgroundTasks
from fastapi_taskflow.errors import ConfigurationError, LifecycleConflictError, NotStartedError
from fastapi_taskflow.injection import Installation, RequestTasks
from fastapi_taskflow.middleware import TaskMiddleware
from fastapi_taskflow.refusal import install_refusal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from fastapi_taskflow.dispatcher import Dispatcher
    from fastapi_taskflow.journal import Journal
    from fastapi_taskflow.observer import Observer
    from fastapi_taskflow.runtime import Runtime
    from fastapi_taskflow.telemetry.tracing import OtelTracing

logger = logging.getLogger("fastapi_taskflow")

ONE_REQUEST: Final = "a request that came without a lifespan"


class Hosted:
    """What the applications of one manager see of its life.

    Attributes:
        dispatcher: Takes tasks.
        journal: Knows the live ones.
    """

    dispatcher: Dispatcher
    journal: Journal
    _runtime: Runtime
    _tracing: OtelTracing

    def __init__(self) -> None:
        self._started_by: str | None = None
        self._ready = False
        self._one_request: tuple[asyncio.AbstractEventLoop, asyncio.Lock] | None = None
        self._one_request_users = 0
        self._apps: dict[int, tuple[FastAPI, Installation]] = {}
        self._stack: contextlib.AsyncExitStack | None = None

    async def get_tasks(self, request: Request, background_tasks: BackgroundTasks) -> ManagedBackgroundTasks:
        """Return the request's background tasks; for ``Depends(task_manager.get_tasks)``.

        All dependencies of a request get the same instance.

        Raises:
            NotStartedError: If the manager is not started.
        """
        held = request.scope.get(SCOPE_KEY)
        if isinstance(held, RequestTasks) and held.belongs_to(self._dispatcher_or_none):
            managed = held.tasks()
        else:
            managed = self._unheld(request)
        managed.run_among(background_tasks)
        return managed

    def _unheld(self, request: Request) -> ManagedBackgroundTasks:
        key = f"{SCOPE_KEY}.{id(self)}"
        managed = request.scope.get(key)
        if not isinstance(managed, ManagedBackgroundTasks):
            dispatcher = self._dispatcher_or_none()
            if dispatcher is None:
                raise NotStartedError(injection.NOT_STARTED)
            managed = request.scope[key] = ManagedBackgroundTasks(dispatcher, request.scope, held=False)
            managed.hold_by_stacks()
        return managed

    # -- life --------------------------------------------------------------------------------------------------------

    def init_app(self, app: FastAPI, *, auto_install: bool = False) -> None:
        """Start and stop the manager with ``app``, and hold its responses until their tasks are stored. No routes.

        Args:
            app: The application. Doing it twice is harmless.
            auto_install: Let each plain ``BackgroundTasks`` parameter of its routes be a managed one.

        Raises:
            LifecycleConflictError: If the manager was started by hand already.
            ConfigurationError: If the app serves already, or this FastAPI release cannot be installed into.
        """
        self.register(app, auto_install=auto_install, by="task_manager.init_app(app)")

    def register(self, app: FastAPI, *, auto_install: bool, by: str) -> None:
        """Do what ``init_app`` does, under the name ``by`` for error texts."""
        if self._started_by is not None and id(app) not in self._apps:
            msg = f"{by} comes after {self._started_by}, which started this manager already; use one of them"
            raise LifecycleConflictError(msg)
        injection.install()
        install_refusal(app)
        known = self._apps.get(id(app))
        if known is not None:
            known[1].everywhere = known[1].everywhere or auto_install
            return
        if app.middleware_stack is not None:
            msg = f"{by} comes too late: the application has started; call it where the app is made"
            raise ConfigurationError(msg)
        installation = Installation(everywhere=auto_install)
        self._apps[id(app)] = (app, installation)
        # At the end of the list it is the innermost one: it runs in the endpoint's own context.
        app.user_middleware.append(
            Middleware(TaskMiddleware, self._dispatcher_or_none, self._is_up, installation, self._for_one_request)
        )
        self._wrap_lifespan(app, by)

    def _wrap_lifespan(self, app: FastAPI, by: str) -> None:
        inner = app.router.lifespan_context

        @contextlib.asynccontextmanager
        async def lifespan(of: Any) -> AsyncIterator[Mapping[str, Any] | None]:
            async with self._started(by), inner(of) as state:
                try:
                    await self._runtime.work()
                    yield state
                finally:
                    await self._runtime.rest()

        app.router.lifespan_context = lifespan  # type: ignore[assignment]

    @contextlib.asynccontextmanager
    async def _started(self, by: str) -> AsyncIterator[None]:
        self._claim(by)
        try:
            await self._runtime.open()
            self._ready = True
            try:
                yield
            finally:
                self._ready = False
                try:
                    await self._runtime.close()
                finally:
                    self._tracing.close()
        finally:
            self._started_by = None

    def _claim(self, by: str) -> None:
        if self._started_by is not None:
            msg = f"{by} found this manager started already by {self._started_by}; use one of them"
            raise LifecycleConflictError(msg)
        self._started_by = by

    async def startup(self) -> None:
        """Open the store, take over what dead processes left, and begin to run tasks.

        Raises:
            LifecycleConflictError: If it is started already.
            StoreError: If the store cannot be opened.
        """
        await self._by_hand("await task_manager.startup()")

    async def _by_hand(self, by: str) -> None:
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(self._started(by))
            stack.push_async_callback(self._runtime.rest)
            await self._runtime.work(scheduled=by != ONE_REQUEST)
            self._stack = stack.pop_all()

    async def shutdown(self) -> None:
        """Let running tasks finish within ``shutdown_timeout``, cancel the rest, store everything, and close.

        What had not started stays in the store for the next start, if ``requeue_pending`` is on; otherwise it still
        gets its turn within ``shutdown_timeout``. Harmless when the manager is not started by ``startup()``.
        """
        stack, self._stack = self._stack, None
        if stack is not None:
            await stack.aclose()

    def keep_for(self, days: float) -> None:
        """Delete finished records after so many days, whatever was said before."""
        self._runtime.retention_days = days

    def add_observer(self, observer: Observer) -> None:
        """Have ``observer`` told of each event, soon and on the loop: it must be quick."""
        self.journal.add_observer(observer)

    def on_startup(self, begin: Callable[[], None]) -> None:
        """Have ``begin`` called at each start, once the store is open."""
        self._runtime.openers.append(begin)

    def on_shutdown(self, close: Callable[[], None]) -> None:
        """Have ``close`` called at the beginning of each shutdown, before running tasks are waited for."""
        self._runtime.closers.append(close)

    @contextlib.asynccontextmanager
    async def _for_one_request(self) -> AsyncIterator[None]:
        """Start the manager around a request without a lifespan, as from ``TestClient(app)`` without ``with``."""
        loop = asyncio.get_running_loop()
        if self._one_request is None or self._one_request[0] is not loop:
            self._one_request = (loop, asyncio.Lock())
        lock = self._one_request[1]
        async with lock:
            if self._started_by is None:
                logger.warning("the app's lifespan did not run; the TaskManager is started for this request alone")
                await self._by_hand(ONE_REQUEST)
            self._one_request_users += 1
        try:
            yield
        finally:
            async with lock:
                self._one_request_users -= 1
                if self._one_request_users == 0 and self._started_by == ONE_REQUEST:
                    await self.shutdown()

    @property
    def is_started(self) -> bool:
        """Whether it takes tasks."""
        return self._ready

    def _overrides(self) -> Mapping[Callable[..., Any], Callable[..., Any]]:
        """Return what stands in for dependencies: an app's ``dependency_overrides``, the first app's before others."""
        overrides = [app.dependency_overrides for app, _ in self._apps.values()]
        return overrides[0] if len(overrides) == 1 else ChainMap(*overrides)

    def _dispatcher_or_none(self) -> Dispatcher | None:
        return self.dispatcher if self._ready else None

    def _is_up(self) -> bool:
        """Whether it is started for good, not for single requests."""
        return self._ready and self._started_by != ONE_REQUEST
