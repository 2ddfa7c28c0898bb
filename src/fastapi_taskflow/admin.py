"""``TaskAdmin``: mounts the API, the metrics and the dashboard of a manager's tasks on an application."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from starlette.routing import Match, Mount

from fastapi_taskflow.clear import ClearDispatcher, ClearJournal
from fastapi_taskflow.errors import ConfigurationError
from fastapi_taskflow.settings import require_positive
from fastapi_taskflow.web.app import build_admin_app
from fastapi_taskflow.web.auth.backend import auth_backend_from
from fastapi_taskflow.web.description import describe
from fastapi_taskflow.web.elsewhere import Elsewhere
from fastapi_taskflow.web.parts import AdminParts, AdminSettings
from fastapi_taskflow.web.stream import ChangeFeed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastapi import FastAPI
    from starlette.types import Scope

    from fastapi_taskflow.manager import TaskManager
    from fastapi_taskflow.web.auth.backend import TaskAuthBackend
    from fastapi_taskflow.web.parts import Dispatcher, Journal


class AdminRoute(Mount):
    """One route for everything under the path: it costs a user's request one comparison."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Match the path itself and everything below it, with or without a proxy's prefix in the path."""
        if scope["type"] != "http":
            return Match.NONE, {}
        root: str = scope.get("root_path", "")
        path: str = scope["path"]
        if root and path.startswith(root + "/"):
            path = path[len(root) :]
        below = path[len(self.path) :]
        if not path.startswith(self.path) or (below and not below.startswith("/")):
            return Match.NONE, {}
        # The path always has the whole root in it for the routes below, also when a proxy cut its prefix off; and
        # "/tasks" is the list, as "/tasks/" is, without a redirect that would lose headers.
        return Match.FULL, {
            "app_root_path": scope.get("app_root_path", root),
            "root_path": root + self.path,
            "path": root + self.path + (below or "/"),
            "path_params": {},
            "endpoint": self.app,
        }


class TaskAdmin:
    """Mounts list, detail, cancel, retry, history, metrics and the dashboard, and starts the manager with the app.

    No reference needs to be kept, unless for `openapi`.

    Args:
        app: The application, before or after its own routes were added.
        task_manager: Whose tasks are shown.
        path: Where everything is mounted.
        display_func_args: Show the arguments of tasks.
        auto_install: Let each plain ``BackgroundTasks`` parameter of the app's routes be a managed one.
        auth: ``("user", "password")``, a list of such pairs, a `TaskAuthBackend`, or None for no login.
        token_expiry: Seconds that a login lasts.
        secret_key: Signs the sessions. Without one a random key is kept with the tasks, for all workers; with tasks in
            memory, logins end with the process.
        poll_interval: Seconds between two signs of life on the live stream.
        title: The dashboard's title.
        retention_days: Overrides the manager's.
        metrics_token: A bearer token that may read ``{path}/metrics`` and ``{path}/health``, and nothing else.
        trace_url: Link to a trace elsewhere, such as ``http://localhost:16686/trace/{trace_id}``.

    Raises:
        ConfigurationError: If an option is wrong.
        LifecycleConflictError: If the manager was started by hand already.
    """

    def __init__(
        self,
        app: FastAPI,
        task_manager: TaskManager,
        path: str = "/tasks",
        *,
        display_func_args: bool = False,
        auto_install: bool = False,
        auth: tuple[str, str] | Sequence[tuple[str, str]] | TaskAuthBackend | None = None,
        token_expiry: float = 86_400,
        secret_key: str | None = None,
        poll_interval: float = 30.0,
        title: str = "fastapi-taskflow",
        retention_days: float | None = None,
        metrics_token: str | None = None,
        trace_url: str | None = None,
    ) -> None:
        path = checked_path(path)
        require_positive("token_expiry", token_expiry)
        require_positive("poll_interval", poll_interval)
        if retention_days is not None:
            require_positive("retention_days", retention_days)
        settings = AdminSettings(
            path=path,
            title=title,
            display_func_args=display_func_args,
            poll_interval=poll_interval,
            auth=auth_backend_from(auth),
            token_expiry=token_expiry,
            secret_key=secret_key,
            metrics_token=metrics_token,
            trace_url=trace_url,
        )
        task_manager.register(app, auto_install=auto_install, by=f"TaskAdmin(app, task_manager, path={path!r})")
        if retention_days is not None:
            task_manager.keep_for(retention_days)
        feed = ChangeFeed()
        task_manager.add_observer(feed)
        task_manager.on_startup(feed.open)
        task_manager.on_shutdown(feed.close)
        if task_manager.store.persistent:
            elsewhere = Elsewhere(task_manager.store, feed, me=lambda: task_manager.dispatcher.owner)
            task_manager.on_startup(elsewhere.start)
            task_manager.on_shutdown(elsewhere.stop)
        parts = AdminParts(
            settings=settings,
            journal=cast("Journal", ClearJournal(task_manager.journal, task_manager.clear)),
            dispatcher=cast("Dispatcher", ClearDispatcher(task_manager.dispatcher, task_manager.clear)),
            bulk=task_manager.bulk,
            queues=task_manager.queues,
            registry=task_manager.registry,
            scheduler=task_manager.scheduler,
            one_offs=task_manager.one_offs,
            store=task_manager.store,
            prometheus=task_manager.prometheus,
            feed=feed,
        )
        self._settings = settings
        self._admin_app = build_admin_app(parts)
        app.router.routes.append(AdminRoute(path, app=self._admin_app, name="taskflow"))

    def openapi(self) -> dict[str, Any]:
        """Return the OpenAPI description of everything below the path, such as for making a client from it.

        It is not served, and not part of the application's own description.
        """
        return describe(self._admin_app, self._settings)


def checked_path(path: Any) -> str:
    """Return the mount path without a slash at its end.

    Raises:
        ConfigurationError: If it does not start with a slash, or is the root.
    """
    if not isinstance(path, str) or not path.startswith("/") or not path.strip("/") or "{" in path:
        msg = f"path must start with '/', name something below the root and have no parameters, not {path!r}"
        raise ConfigurationError(msg)
    return path.rstrip("/")
