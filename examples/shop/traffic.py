"""``python -m examples.shop.traffic``: sends realistic requests for as long as asked, and sums up what came of them."""

from __future__ import annotations

import argparse
import asyncio
import io
import random
import statistics
import sys
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import httpx
from PIL import Image, ImageDraw

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

GOODS: Final = (("tea", "4.90"), ("cup", "9.50"), ("pot", "39.00"), ("tray", "19.90"))
MAX_OPEN: Final = 200
LIVE: Final = ("pending", "running")


@dataclass
class Tally:
    """What the shop answered.

    Attributes:
        statuses: How often each kind of request got each status, or the name of the error.
        seconds: How long each request took, by kind.
        late: Requests that were not sent, because too many had no answer yet.
    """

    statuses: Counter[tuple[str, str]] = field(default_factory=Counter)
    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    late: int = 0


async def order(client: httpx.AsyncClient) -> httpx.Response:
    """Order one to four things. One in thirty is sold out, one in twenty mails fails for good."""
    chosen = [("unicorn", "999.00")] if random.random() < 1 / 30 else random.choices(GOODS, k=random.randint(1, 4))
    lines = [{"sku": sku, "quantity": random.randint(1, 3), "price": price} for sku, price in dict(chosen).items()]
    domain = "nowhere.invalid" if random.random() < 1 / 20 else "example.org"
    return await client.post("/orders", json={"email": f"customer{random.randint(1, 500)}@{domain}", "lines": lines})


async def image(client: httpx.AsyncClient) -> httpx.Response:
    """Upload a picture. One in ten is broken."""
    data = b"not an image" if random.random() < 1 / 10 else random.choice(_pictures())
    return await client.post("/images", files={"file": ("picture.png", data, "image/png")})


async def report(client: httpx.AsyncClient) -> httpx.Response:
    """Ask for a report. One in five is a large one, which takes seconds."""
    rows = 2_000_000 if random.random() < 1 / 5 else random.randint(10_000, 200_000)
    return await client.post("/reports", json={"rows": rows})


async def webhook(client: httpx.AsyncClient) -> httpx.Response:
    """Have the partner told of something."""
    name = random.choice(("order.paid", "order.shipped", "customer.created"))
    return await client.post("/webhooks", json={"name": name, "data": {"number": random.randint(1, 10_000)}})


KINDS: Final[dict[str, tuple[int, Callable[[httpx.AsyncClient], Awaitable[httpx.Response]]]]] = {
    "order": (60, order),
    "webhook": (22, webhook),
    "image": (13, image),
    "report": (5, report),
}
"""By name: how often out of a hundred, and what to send."""


async def send_traffic(client: httpx.AsyncClient, *, seconds: float, rps: float) -> Tally:
    """Send requests at random moments, ``rps`` a second on average, whether or not the shop keeps up."""
    tally = Tally()
    names, weights = [*KINDS], [weight for weight, _ in KINDS.values()]
    sent: set[asyncio.Task[None]] = set()
    began = due = time.monotonic()
    while (due := due + random.expovariate(rps)) < began + seconds:
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        if len(sent) >= MAX_OPEN:
            tally.late += 1
            continue
        task = asyncio.create_task(_send(client, random.choices(names, weights)[0], tally))
        sent.add(task)
        task.add_done_callback(sent.discard)
    await asyncio.gather(*sent)
    return tally


async def _send(client: httpx.AsyncClient, name: str, tally: Tally) -> None:
    began = time.monotonic()
    try:
        status = str((await KINDS[name][1](client)).status_code)
    except httpx.HTTPError as error:
        status = type(error).__name__
    tally.statuses[name, status] += 1
    tally.seconds[name].append(time.monotonic() - began)


async def settled_metrics(client: httpx.AsyncClient, *, within: float) -> dict[str, Any] | None:
    """Wait until no task is live, ``within`` seconds at most; return the metrics, or None if they need a login."""
    deadline = time.monotonic() + within
    while True:
        answer = await client.get("/tasks/metrics", params={"format": "json"}, follow_redirects=False)
        if answer.status_code != httpx.codes.OK:
            return None
        metrics: dict[str, Any] = answer.json()
        if not any(metrics[status] for status in LIVE) or time.monotonic() > deadline:
            return metrics
        await asyncio.sleep(0.25)


def summary(tally: Tally, metrics: dict[str, Any] | None) -> str:
    """Return the tables that are printed at the end."""
    lines = [f"{'request':<12}{'sent':>7}{'p50 ms':>9}{'p95 ms':>9}  answers"]
    for name, seconds in sorted(tally.seconds.items()):
        cuts = statistics.quantiles(seconds, n=20) if len(seconds) > 1 else [*seconds] * 19
        answers = ", ".join(f"{status} ×{n}" for (kind, status), n in sorted(tally.statuses.items()) if kind == name)
        lines.append(f"{name:<12}{len(seconds):>7}{cuts[9] * 1000:>9.1f}{cuts[18] * 1000:>9.1f}  {answers}")
    if tally.late:
        lines.append(f"{tally.late} request(s) were not sent: the shop had {MAX_OPEN} without an answer")
    if metrics is None:
        return "\n".join([*lines, "", "The tasks are behind a login: give --auth USER:PASSWORD to see them here."])
    lines += ["", f"{'task, since the first start':<29}{'total':>7}{'success':>9}{'failed':>8}{'other':>7}{'p95 s':>9}"]
    for name, counts in [*metrics["functions"].items(), ("all", metrics)]:
        other = counts["total"] - counts["success"] - counts["failed"]
        p95 = counts["p95_duration_seconds"]
        shown = f"{name:<29}{counts['total']:>7}{counts['success']:>9}{counts['failed']:>8}{other:>7}"
        lines.append(shown + ("" if p95 is None else f"{p95:>9.3f}"))
    return "\n".join(lines)


async def log_in(client: httpx.AsyncClient, auth: str) -> None:
    """Open a session at ``/tasks``, so that the summary can show what became of the tasks."""
    user, _, password = auth.partition(":")
    await client.post("/tasks/auth/login", data={"username": user, "password": password})


async def run(*, url: str, seconds: float, rps: float, auth: str | None) -> bool:
    """Send the traffic and print the summary; return whether every request was accepted."""
    limits = httpx.Limits(max_connections=MAX_OPEN)
    async with httpx.AsyncClient(base_url=url, timeout=30, limits=limits, trust_env=False) as client:
        try:
            await client.get("/")
        except httpx.TransportError as error:
            print(f"The shop does not answer at {url} ({error}). Start it with: make demo", file=sys.stderr)
            return False
        print(f"Sending about {rps:g} requests a second to {url} for {seconds:g} s …", flush=True)
        tally = await send_traffic(client, seconds=seconds, rps=rps)
        print("Waiting for the tasks to end …\n", flush=True)
        if auth is not None:
            await log_in(client, auth)
        print(summary(tally, await settled_metrics(client, within=30)))
    return all(status == "202" for _, status in tally.statuses)


def _pictures() -> list[bytes]:
    if not _drawn:
        for width, height in ((640, 480), (1600, 1200), (3000, 2000)):
            picture = Image.new("RGB", (width, height), random.choice(("teal", "orange", "navy")))
            draw = ImageDraw.Draw(picture)
            for _ in range(40):
                x, y, size = random.randrange(width), random.randrange(height), random.randrange(20, 300)
                draw.ellipse((x, y, x + size, y + size), fill=(random.randrange(256), random.randrange(256), 90))
            data = io.BytesIO()
            picture.save(data, "PNG")
            _drawn.append(data.getvalue())
    return _drawn


_drawn: list[bytes] = []


def main() -> None:
    """Read the command line and send the traffic."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.shop.traffic", description="Traffic for the example shop."
    )
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--rps", type=float, default=5, help="requests a second, on average")
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--auth", metavar="USER:PASSWORD", help="as given to the shop")
    options = parser.parse_args()
    if options.seconds <= 0 or options.rps <= 0:
        parser.error("--seconds and --rps must be above zero")
    accepted = asyncio.run(run(url=options.url, seconds=options.seconds, rps=options.rps, auth=options.auth))
    raise SystemExit(0 if accepted else 1)


if __name__ == "__main__":
    main()
