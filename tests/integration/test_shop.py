"""The example shop as people run it: over HTTP, killed and started again."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytest.importorskip("PIL")

from PIL import Image

ORDER = {"email": "ada@example.org", "lines": [{"sku": "tea", "quantity": 2, "price": "4.90"}]}


class Shop:
    """A running shop of our own."""

    def __init__(self, process: subprocess.Popen[bytes], url: str, data: Path) -> None:
        self.process = process
        self.data = data
        self.client = httpx.Client(base_url=url, timeout=10, trust_env=False)

    def post(self, path: str, **request: Any) -> dict[str, str]:
        """Send what the shop must accept."""
        answer = self.client.post(path, **request)
        assert answer.status_code == 202, answer.text
        accepted: dict[str, str] = answer.json()
        return accepted

    def ended(self, task_id: str, *, within: float = 30) -> dict[str, Any]:
        """Wait for the task's end and return its record."""
        deadline = time.monotonic() + within
        while time.monotonic() < deadline:
            record: dict[str, Any] = self.client.get(f"/tasks/{task_id}").json()
            if record["status"] not in ("pending", "running"):
                return record
            time.sleep(0.05)  # another process: there is no event to wait for
        pytest.fail(f"task {task_id} did not end within {within} s: {record}")

    def kill(self) -> None:
        """End it as a power cut does."""
        self.process.kill()
        self.process.wait(10)
        self.client.close()


@pytest.fixture
def start_shop(tmp_path: Path, project_root: Path, free_port: int) -> Iterator[Callable[..., Shop]]:
    """Return a function that starts the shop on the same port and data each time, and waits until it answers."""
    shops: list[Shop] = []

    def start(*arguments: str) -> Shop:
        data = tmp_path / "data"
        command = [sys.executable, "-m", "examples.shop", "--port", str(free_port), "--data", str(data), *arguments]
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("SHOP_", "OTEL_"))}
        process = subprocess.Popen(command, cwd=project_root, env=environment, stdout=subprocess.PIPE)
        shop = Shop(process, f"http://127.0.0.1:{free_port}", data)
        shops.append(shop)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            assert process.poll() is None, f"the shop ended with {process.returncode}"
            with contextlib.suppress(httpx.TransportError):
                shop.client.get("/")
                return shop
            time.sleep(0.05)  # another process, as above
        pytest.fail("the shop did not answer within 30 s")

    yield start
    for shop in shops:
        shop.client.close()
        if shop.process.poll() is None:
            shop.process.kill()
            shop.process.wait(10)
        if shop.process.stdout is not None:
            shop.process.stdout.close()


def picture() -> bytes:
    """Return a PNG."""
    data = io.BytesIO()
    Image.new("RGB", (800, 600), "teal").save(data, "PNG")
    return data.getvalue()


def test_every_part_of_the_shop_does_its_work(start_shop: Callable[..., Shop]) -> None:
    """Mail, stock, thumbnail, report and webhook: real files, real rows, logs and the shop's own spans."""
    shop = start_shop()
    order = shop.post("/orders", json=ORDER)
    image = shop.post("/images", files={"file": ("../../etc/passwd", picture(), "image/png")})
    sizes = shop.post(f"/images/{image['image_id']}/sizes")
    report = shop.post("/reports", json={"rows": 5_000})
    for _ in range(8):
        assert shop.post("/webhooks", json={"name": "order.paid"}) == {"accepted": "order.paid"}

    assert shop.ended(sizes["task"])["status"] == "success"
    assert shop.client.get(sizes["url"]).json()["sizes"][0] == {"width": 200, "height": 150}
    confirmation = shop.ended(order["confirmation_task"])
    assert (confirmation["status"], confirmation["tags"]) == ("success", [f"order:{order['order_id']}"])
    assert [line["message"] for line in confirmation["logs"]] == ["confirmed 9.80 EUR"]
    assert "9.80 EUR" in (shop.data / "outbox" / f"{order['order_id']}.eml").read_text()
    assert shop.ended(order["stock_task"])["status"] == "success"

    assert shop.ended(image["task"])["status"] == "success"
    assert Image.open(io.BytesIO(shop.client.get(image["url"]).content)).size == (256, 192)
    spans = shop.client.get(f"/tasks/{image['task']}/trace").text
    assert "render thumbnail" in spans
    assert "save thumbnail" in spans

    assert len(shop.ended(report["task"])["logs"]) == 10
    assert shop.client.get(report["url"]).text.startswith("country,sales\r\n")

    webhooks = shop.client.get("/tasks", params={"func_name": "deliver_webhook"}).json()
    delivered = [shop.ended(webhook["task_id"]) for webhook in webhooks]
    assert len(delivered) == 8
    assert [record["error"] for record in delivered if record["error"] and "503" not in record["error"]] == []
    assert "success" in {record["status"] for record in delivered}  # all fail once in 10 ** 15 runs


def test_wrong_input_makes_a_failed_task_and_not_a_failed_shop(start_shop: Callable[..., Shop]) -> None:
    """A broken picture, a sold out thing and a mail that nobody takes are seen as failed tasks."""
    shop = start_shop()
    image = shop.post("/images", files={"file": ("x.png", b"not an image", "image/png")})
    sold_out = shop.post("/orders", json={**ORDER, "lines": [{"sku": "unicorn", "price": "1"}]})
    refused = shop.post("/orders", json={**ORDER, "email": "x@nowhere.invalid"})
    assert shop.ended(image["task"])["error_type"] == "PIL.UnidentifiedImageError"
    assert shop.ended(sold_out["stock_task"])["error_type"] == "examples.shop.stock.OutOfStockError"
    mail = shop.ended(refused["confirmation_task"])
    assert (mail["status"], mail["attempt"], mail["error"]) == ("failed", 3, "no mail server for x@nowhere.invalid")
    assert shop.client.get("/images/../../shop.db").status_code == 404
    assert shop.client.get(image["url"]).status_code == 404


def test_the_pages_are_there(start_shop: Callable[..., Shop]) -> None:
    """The front page with its own styles, the dashboard, the metrics and the API's docs."""
    shop = start_shop("--nightly", "0.2")
    front = shop.client.get("/")
    assert (front.status_code, front.headers["content-type"]) == (200, "text/html; charset=utf-8")
    for path in ("/static/shop.css", "/static/shop.js", "/tasks/dashboard", "/docs"):
        assert shop.client.get(path).status_code == 200, path
    metrics = shop.client.get("/tasks/metrics", params={"format": "prometheus"}).text
    assert 'taskflow_tasks_enqueued_total{queue="reports",task="make_report"} 0.0' in metrics
    deadline = time.monotonic() + 20
    while not (nights := shop.client.get("/tasks", params={"func_name": "nightly_cleanup"}).json()):
        assert time.monotonic() < deadline
        time.sleep(0.05)  # another process: there is no event to wait for
    assert (nights[0]["source"], nights[0]["schedule"]) == ("scheduled", "nightly_cleanup")
    assert nights[0]["tags"] == ["nightly"]


def test_a_login_guards_the_tasks(start_shop: Callable[..., Shop]) -> None:
    """``--auth`` closes the dashboard, not the shop."""
    shop = start_shop("--auth", "ada:secret")
    shop.post("/orders", json=ORDER)
    assert shop.client.get("/tasks").status_code == 401
    answer = shop.client.post("/tasks/auth/login", data={"username": "ada", "password": "secret"})
    assert answer.status_code in (200, 302, 303)
    assert shop.client.get("/tasks").status_code == 200


def test_no_order_is_lost_in_a_power_cut(start_shop: Callable[..., Shop]) -> None:
    """Killed with work in hand, the next start finishes it: goods are taken once, each mail is accounted for."""
    shop = start_shop()
    report = shop.post("/reports", json={"rows": 5_000_000})
    orders = [shop.post("/orders", json=ORDER) for _ in range(20)]
    image = shop.post("/images", files={"file": ("x.png", picture(), "image/png")})
    shop.kill()

    shop = start_shop()
    assert {shop.ended(order["stock_task"])["status"] for order in orders} == {"success"}
    mails = {order["order_id"]: shop.ended(order["confirmation_task"])["status"] for order in orders}
    assert set(mails.values()) <= {"success", "interrupted"}
    sent = {path.stem for path in (shop.data / "outbox").glob("*.eml")}
    assert {order_id for order_id, status in mails.items() if status == "success"} <= sent
    assert shop.ended(image["task"])["status"] == "success"
    with contextlib.closing(sqlite3.connect(shop.data / "stock.db")) as stock:
        assert stock.execute("SELECT quantity FROM goods WHERE sku = 'tea'").fetchone() == (1_000_000 - 40,)
    assert shop.ended(report["task"], within=60)["status"] == "success"


def test_traffic_is_sent_and_summed_up(start_shop: Callable[..., Shop], project_root: Path) -> None:
    """The summary counts requests and tasks; the exit code tells whether all were accepted."""
    shop = start_shop("--auth", "ada:secret")
    command = [
        sys.executable, "-m", "examples.shop.traffic", "--url", str(shop.client.base_url), "--seconds", "2",
        "--rps", "15", "--auth", "ada:secret",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=project_root, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "202 ×" in done.stdout
    assert "send_confirmation" in done.stdout
    assert done.stdout.rstrip().splitlines()[-1].startswith("all ")
    shop.process.send_signal(signal.SIGTERM)
    assert shop.process.wait(40) in (0, -signal.SIGTERM)


def test_traffic_without_a_shop_says_what_to_do(project_root: Path, free_port: int) -> None:
    """No traceback."""
    command = [
        sys.executable,
        "-m",
        "examples.shop.traffic",
        "--url",
        f"http://127.0.0.1:{free_port}",
        "--seconds",
        "1",
    ]
    done = subprocess.run(command, cwd=project_root, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "make demo" in done.stderr
    assert "Traceback" not in done.stderr
