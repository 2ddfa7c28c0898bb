"""What the shop is told by its environment. ``python -m examples.shop`` sets it from the command line."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ShopSettings:
    """The shop's options.

    Attributes:
        data: The folder for everything that the shop writes.
        db: The SQLite file that keeps the tasks.
        url: Where the shop itself answers; its webhooks go there.
        login: User and password for ``/tasks``, or None for no login.
        nightly_every: Seconds between two runs of the nightly job. A night of the demo is short.
    """

    data: Path
    db: Path
    url: str
    login: tuple[str, str] | None
    nightly_every: float

    @classmethod
    def from_env(cls) -> ShopSettings:
        """Read the variables that begin with ``SHOP_``."""
        data = Path(os.environ.get("SHOP_DATA", "shop-data"))
        user, _, password = os.environ.get("SHOP_AUTH", "").partition(":")
        return cls(
            data=data,
            db=Path(os.environ.get("SHOP_DB") or data / "shop.db"),
            url=os.environ.get("SHOP_URL", "http://127.0.0.1:8000"),
            login=(user, password) if user else None,
            nightly_every=float(os.environ.get("SHOP_NIGHTLY_EVERY", "60")),
        )

    def folder(self, name: str) -> Path:
        """Return a folder below ``data``, which is made if it is not there."""
        folder = self.data / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder


settings = ShopSettings.from_env()
settings.data.mkdir(parents=True, exist_ok=True)
