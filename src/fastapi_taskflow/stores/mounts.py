"""Tells a file system that is shared over a network, where SQLite's write-ahead log does not work."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

from fastapi_taskflow.errors import StoreError

MOUNTS: Final = Path("/proc/self/mountinfo")
NETWORK: Final = frozenset({
    "9p", "afs", "beegfs", "ceph", "cifs", "coda", "glusterfs", "lustre", "ncpfs", "nfs", "nfs4", "smb3", "smbfs",
    "vboxsf",
})  # fmt: skip
NETWORK_FUSE: Final = frozenset({
    "ceph", "cephfs", "curlftpfs", "davfs", "davfs2", "gcsfuse", "glusterfs", "juicefs", "mount.davfs", "rclone",
    "s3fs", "sshfs",
})  # fmt: skip
"""Second halves of ``fuse.…``."""

_OCTAL: Final = re.compile(r"\\([0-7]{3})")


def refuse_network(file: str) -> None:
    """Raise if ``file`` is on a network file system, as far as the system tells.

    Raises:
        StoreError: Names the file system, and what to use instead.
    """
    try:
        mounts = MOUNTS.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return
    kind = file_system(os.path.realpath(file), mounts)
    if kind is not None and is_network(kind):
        msg = (
            f"the task store {file!r} is on a network file system ({kind}). SQLite's write-ahead log needs memory that "
            "all its processes share, and locks that hold, which such a file system does not have: tasks would be lost "
            "or the file damaged. Put the file on a local disk, or use PostgreSQL"
        )
        raise StoreError(msg)


def file_system(path: str, mounts: str) -> str | None:
    """Return the type of the file system that ``path`` is on, such as ``ext4`` or ``fuse.sshfs``.

    Args:
        path: Absolute, symbolic links resolved.
        mounts: As in ``/proc/self/mountinfo``: later mounts cover earlier ones.
    """
    longest, kind = -1, None
    for line in mounts.splitlines():
        mount, separator, rest = line.partition(" - ")
        fields = mount.split(" ")
        if not separator or len(fields) < 5:  # noqa: PLR2004 - the mount point is the fifth field
            continue
        point = _OCTAL.sub(lambda match: chr(int(match[1], 8)), fields[4]).rstrip("/")
        if (path == point or path.startswith(point + "/")) and len(point) >= longest:
            longest, kind = len(point), rest.split(" ")[0]
    return kind


def is_network(kind: str) -> bool:
    """Tell whether a file system of this type is shared over a network."""
    family, _, name = kind.partition(".")
    return kind in NETWORK or (family == "fuse" and name in NETWORK_FUSE)
