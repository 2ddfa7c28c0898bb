"""What the app under test is told, and what the harness knows of it."""

from __future__ import annotations

from typing import Final

EVIDENCE: Final = "CHAOS_EVIDENCE"
"""Variable with the path of the evidence."""

DATABASE: Final = "CHAOS_DATABASE"
"""Variable with the URL of the database."""

LEASE: Final = 3.0
"""Seconds. Short, so that a run sees leases end."""

SHUTDOWN_TIMEOUT: Final = 5.0
"""Seconds: longer than any task runs."""
