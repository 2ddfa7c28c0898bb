"""Where a SQLite database lies, so that it is noticed when its file is replaced, moved or deleted.

SQLite itself does not notice: it goes on in the open file without an error, and what it commits there is lost to
everybody who opens the path. A new file beside the old one's write-ahead log is worse still: SQLite would put the log's
pages into it.
"""

from __future__ import annotations

import contextlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

FileId = tuple[int, int]
"""Device and inode. It stays taken while somebody has the file open."""


@dataclass(frozen=True, slots=True)
class Place:
    """A database that is open.

    Attributes:
        path: The file, symbolic links resolved.
        database: Which file that was.
        log: Which file its write-ahead log was.
    """

    path: str
    database: FileId | None
    log: FileId | None


def file_id(path: str) -> FileId | None:
    """Return which file lies at ``path``, or None if there is none, or it cannot be told."""
    try:
        found = os.stat(path)  # noqa: PTH116 - twice a transaction, and pathlib takes three times as long
    except OSError:
        return None
    return found.st_dev, found.st_ino


def claim_file(file: str) -> tuple[str, FileId | None]:
    """Return the resolved path of ``file`` and which file it is, after making an empty one where there was none.

    To be called before the file is opened: if another one is put there in between, it is noticed later.
    """
    path = os.path.realpath(file)
    found = file_id(path)
    if found is None:
        # With O_EXCL only a file that is new is closed here: closing a database that is open elsewhere in this process
        # would give up its locks.
        with contextlib.suppress(OSError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o644))
        found = file_id(path)
    return path, found


def is_writable(path: str) -> bool:
    """Tell whether this process may write the file at ``path``; True where there is none."""
    if not os.path.exists(path):  # noqa: PTH110 - as `file_id`
        return True
    return os.access(path, os.W_OK, effective_ids=os.access in os.supports_effective_ids)


def log_id(path: str) -> FileId | None:
    """Return which file is the write-ahead log of the database at ``path``."""
    return file_id(path + "-wal")


def is_replaced(place: Place, file: str) -> bool:
    """Tell whether ``file`` leads to another database than ``place`` now, or to none."""
    return file_id(file) != place.database


def is_intact(place: Place, file: str) -> bool:
    """Tell whether both the database and its log are still those of ``place``."""
    return file_id(file) == place.database and log_id(place.path) == place.log


def remove_old_log(place: Place) -> None:
    """Delete the log of a database that is no longer at ``place``, so that it is not taken for the new one's.

    A log that somebody has begun for the new database stays.
    """
    if place.log is None:
        return
    path = Path(place.path)
    with _folder_locked(path.parent):
        if log_id(place.path) == place.log:
            for suffix in ("-wal", "-shm"):
                path.with_name(path.name + suffix).unlink(missing_ok=True)


@contextlib.contextmanager
def _folder_locked(folder: Path) -> Iterator[None]:
    """Keep other processes of this package from looking and deleting at the same time."""
    if sys.platform == "win32":  # pragma: no cover - there a file that is open can neither be replaced nor deleted
        yield
        return
    import fcntl

    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
