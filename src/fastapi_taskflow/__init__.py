"""Background tasks for FastAPI that survive a crash and show up in your traces."""

from __future__ import annotations
