"""The command ``fastapi-taskflow``: what operators do without a browser."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command; without its extra, say how to get it."""
    try:
        from fastapi_taskflow.cli.commands import run
    except ModuleNotFoundError as error:
        if error.name not in {"typer", "rich", "click"}:
            raise
        sys.stderr.write("fastapi-taskflow needs its extra: pip install 'fastapi-taskflow-otel[cli]'\n")
        sys.exit(2)
    run()
