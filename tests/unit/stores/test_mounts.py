"""File systems on which SQLite's write-ahead log does not work."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fastapi_taskflow.errors import StoreError
from fastapi_taskflow.stores import mounts
from fastapi_taskflow.stores.sql import SqlStore

if TYPE_CHECKING:
    from pathlib import Path

MOUNTS = r"""
22 1 0:21 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
23 22 0:22 / /proc rw - proc proc rw
30 22 0:40 / /srv/shared rw shared:2 master:3 - nfs4 files:/export rw,vers=4.2
31 30 0:41 / /srv/shared/local rw - xfs /dev/vdb rw
32 22 0:42 / /mnt/with\040blank rw - cifs //files/share rw
33 22 0:43 / /mnt/far rw - fuse.sshfs host:/ rw
34 22 0:44 / /mnt/near rw - fuse.mergerfs a:b rw
35 22 0:45 / /mnt/covered rw - nfs files:/old rw
36 22 0:46 / /mnt/covered rw - tmpfs tmpfs rw
37 22 0:47 / /mnt/host rw - 9p share rw
a line that is none
"""


@pytest.mark.parametrize(
    ("path", "kind", "network"),
    [
        ("/tasks.db", "ext4", False),
        ("/srv/shared/tasks.db", "nfs4", True),
        ("/srv/shared-not/tasks.db", "ext4", False),
        ("/srv/shared/local/tasks.db", "xfs", False),
        ("/mnt/with blank/tasks.db", "cifs", True),
        ("/mnt/far/a/b/tasks.db", "fuse.sshfs", True),
        ("/mnt/near/tasks.db", "fuse.mergerfs", False),
        ("/mnt/covered/tasks.db", "tmpfs", False),
        ("/mnt/host/tasks.db", "9p", True),
    ],
)
def test_the_mount_that_a_path_is_on_decides(path: str, kind: str, network: bool) -> None:  # noqa: FBT001
    """The deepest mount counts, of several on one point the last; names are whole and may have blanks."""
    assert mounts.file_system(path, MOUNTS) == kind
    assert mounts.is_network(kind) is network


def test_nothing_is_said_where_no_mount_fits() -> None:
    """Without a line that fits nothing can be told."""
    assert mounts.file_system("/tasks.db", "") is None


async def test_a_store_on_a_network_file_system_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the file and the file system, and says what to use; no file is made."""
    table = tmp_path / "mountinfo"
    table.write_text(f"40 22 0:50 / {tmp_path} rw - nfs4 files:/export rw\n")
    monkeypatch.setattr(mounts, "MOUNTS", table)
    path = tmp_path / "tasks.db"
    with pytest.raises(StoreError, match=r"tasks\.db.*network file system \(nfs4\).*local disk, or use PostgreSQL"):
        await SqlStore(path).open()
    assert not path.exists()


async def test_a_system_that_does_not_tell_is_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no table of mounts the store opens."""
    monkeypatch.setattr(mounts, "MOUNTS", tmp_path / "none")
    store = SqlStore(tmp_path / "tasks.db")
    await store.open()
    await store.close()
    assert (tmp_path / "tasks.db").exists()
