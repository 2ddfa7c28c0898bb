"""The nightly job: deletes what nobody will fetch any more."""

from __future__ import annotations

import time
from typing import Final

from examples.shop.manager import task_manager
from examples.shop.settings import settings
from fastapi_taskflow import task_log

DAY: Final = 86_400.0
FOLDERS: Final = ("uploads", "thumbnails", "reports", "outbox")


@task_manager.schedule(every=settings.nightly_every, tags=["nightly"], requeue_on_interrupt=True)
def nightly_cleanup(max_age: float = DAY) -> None:
    """Delete the shop's working files that are older than ``max_age`` seconds."""
    oldest = time.time() - max_age
    for name in FOLDERS:
        old = [path for path in settings.folder(name).iterdir() if path.stat().st_mtime < oldest]
        for path in old:
            path.unlink(missing_ok=True)
        task_log(f"{name}: {len(old)} file(s) deleted")
