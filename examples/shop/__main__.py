"""``python -m examples.shop``: the shop under uvicorn."""

from __future__ import annotations

import argparse
import logging
import os

import uvicorn


def main() -> None:
    """Read the command line, print the addresses, and serve."""
    parser = argparse.ArgumentParser(prog="python -m examples.shop", description="The example shop.")
    parser.add_argument("--host", default=os.environ.get("HOST", "127.0.0.1"))
    parser.add_argument("--port", type=int, default=int(os.environ.get("PORT", "8000")))
    parser.add_argument("--data", default="shop-data", help="folder for everything that the shop writes")
    parser.add_argument("--db", help="SQLite file of the tasks (default: shop.db in the data folder)")
    parser.add_argument("--auth", metavar="USER:PASSWORD", help="ask for a login at /tasks")
    parser.add_argument("--nightly", type=float, default=60, metavar="SECONDS", help="length of a night")
    parser.add_argument("--log-level", default="warning", choices=("debug", "info", "warning", "error"))
    options = parser.parse_args()
    if options.auth is not None and not all(options.auth.partition(":")):
        parser.error("--auth must be USER:PASSWORD")
    if options.nightly <= 0:
        parser.error("--nightly must be above zero")
    url = f"http://{options.host}:{options.port}"
    os.environ |= {
        "SHOP_DATA": options.data,
        "SHOP_DB": options.db or "",
        "SHOP_AUTH": options.auth or "",
        "SHOP_URL": url,
        "SHOP_NIGHTLY_EVERY": str(options.nightly),
    }
    print(f"Shop       {url}/")
    print(f"Dashboard  {url}/tasks/dashboard")
    print(f"Metrics    {url}/tasks/metrics?format=prometheus")
    print(f"API docs   {url}/docs")
    print(f"Traffic    python -m examples.shop.traffic --url {url} --seconds 30 --rps 5", flush=True)
    logging.basicConfig(level=options.log_level.upper(), format="%(levelname)s %(name)s: %(message)s")
    uvicorn.run(
        "examples.shop.app:create_app", factory=True, host=options.host, port=options.port, log_level=options.log_level
    )


if __name__ == "__main__":
    main()
