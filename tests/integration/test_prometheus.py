"""A real Prometheus scrapes a real server, and finds the trace of a task from its metrics."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.integration.conftest import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.integration.conftest import Server

pytestmark = pytest.mark.prometheus

APP = """
from fastapi import BackgroundTasks, FastAPI
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from fastapi_taskflow import TaskAdmin, TaskManager

trace.set_tracer_provider(TracerProvider())
manager = TaskManager()
app = FastAPI()

@manager.task()
async def send_email() -> None: ...

@manager.task()
async def refund() -> None: ...

@manager.task(retries=1)
def resize() -> None:
    raise ValueError("no image")

@app.get("/ready")
async def ready() -> None: ...

@app.post("/orders")
async def order(background_tasks: BackgroundTasks) -> str:
    background_tasks.add_task(resize)
    return background_tasks.add_task(send_email)

TaskAdmin(app, manager, auto_install=True)
"""

CONFIG = """
global:
  scrape_interval: 200ms
  scrape_timeout: 200ms
scrape_configs:
  - job_name: shop
    metrics_path: /tasks/metrics
    static_configs:
      - targets: ["{target}"]
"""


@pytest.fixture
def server(start_server: Callable[..., Server]) -> Server:
    """The app under uvicorn."""
    return start_server(APP)


@pytest.fixture
def scraper(prometheus: str, server: Server, tmp_path: Path, free_port: int) -> Iterator[httpx.Client]:
    """A client of a Prometheus that scrapes the app."""
    config = tmp_path / "prometheus.yml"
    config.write_text(CONFIG.format(target=server.url.removeprefix("http://")))
    listen = f"127.0.0.1:{free_port}"
    command = [
        prometheus, f"--config.file={config}", f"--storage.tsdb.path={tmp_path / 'data'}",
        f"--web.listen-address={listen}", "--enable-feature=exemplar-storage", "--log.level=error",
    ]  # fmt: skip
    process = subprocess.Popen(command)
    try:
        with httpx.Client(base_url=f"http://{listen}") as client:
            wait_for(lambda: ready(client), bool)
            yield client
    finally:
        process.terminate()
        process.wait(20)


def ready(client: httpx.Client) -> bool:
    """Tell whether Prometheus answers."""
    try:
        return client.get("/-/ready").is_success
    except httpx.TransportError:
        return False


def query(client: httpx.Client, text: str) -> dict[str, float]:
    """Return the value of each series, by its task."""
    result = client.get("/api/v1/query", params={"query": text}).raise_for_status().json()["data"]["result"]
    return {item["metric"].get("task", ""): float(item["value"][1]) for item in result}


def exemplars(client: httpx.Client, text: str) -> list[dict[str, Any]]:
    """Return the exemplars of some series."""
    params = {"query": text, "start": "0", "end": "9999999999"}
    result = client.get("/api/v1/query_exemplars", params=params).raise_for_status().json()["data"]
    return [exemplar for series in result for exemplar in series["exemplars"]]


def test_prometheus_counts_tasks_and_finds_their_traces(scraper: httpx.Client, server: Server) -> None:
    """Counters start at 0, follow the tasks, and a duration leads to the trace of the task that took it."""
    zero = wait_for(lambda: query(scraper, 'taskflow_tasks_finished_total{status="failed"}'), bool)
    assert zero == {"send_email": 0, "refund": 0, "resize": 0}

    with httpx.Client(base_url=server.url) as client:
        task_ids = [client.post("/orders").json() for _ in range(3)]
        trace_ids = {client.get(f"/tasks/{task_id}").json()["trace_id"] for task_id in task_ids}
    assert len(trace_ids) == 3
    done = 'taskflow_tasks_finished_total{status=~"success|failed"} > 0'
    finished = wait_for(lambda: query(scraper, done), lambda found: found == {"send_email": 3, "resize": 3})
    assert finished == {"send_email": 3, "resize": 3}
    assert query(scraper, "taskflow_task_retries_total") == {"send_email": 0, "refund": 0, "resize": 3}
    assert query(scraper, "taskflow_task_duration_seconds_count") == {"send_email": 3, "refund": 0, "resize": 6}
    assert query(scraper, 'taskflow_task_duration_seconds_bucket{le="1800.0"}')["send_email"] == 3
    assert query(scraper, "taskflow_tasks_pending") == {"": 0}
    assert query(scraper, "up") == {"": 1}

    selector = 'taskflow_task_duration_seconds_bucket{task="send_email"}'
    found = wait_for(lambda: exemplars(scraper, selector), bool)
    # Which of the three it is depends on their order and on the moment of the scrape.
    assert {exemplar["labels"]["trace_id"] for exemplar in found} <= trace_ids
    assert {len(exemplar["labels"]["span_id"]) for exemplar in found} == {16}


def test_promtool_accepts_what_a_server_answers(promtool: str, server: Server) -> None:
    """The text of a real answer passes ``promtool check metrics``."""
    answer = httpx.get(f"{server.url}/tasks/metrics", headers={"Accept": "text/plain"})
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert answer.headers["vary"] == "Accept"
    done = subprocess.run([promtool, "check", "metrics"], input=answer.content, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
