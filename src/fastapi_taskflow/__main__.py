"""``python -m fastapi_taskflow``."""

from __future__ import annotations

from fastapi_taskflow.cli import main

if __name__ == "__main__":
    main()
