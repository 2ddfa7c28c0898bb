"""Lines in files and on standard output."""

from __future__ import annotations

import io
import logging
import sys
from typing import TYPE_CHECKING, Any

import pytest

from fastapi_taskflow.errors import ConfigurationError
from fastapi_taskflow.task import lifecycle
from fastapi_taskflow.telemetry.lines import line_of, one_line
from fastapi_taskflow.telemetry.logs import FileLogger, ObserverPump, StdoutLogger
from fastapi_taskflow.telemetry.task_observer import lifecycle_event, log_event
from tests.unit.telemetry.samples import TRACE_ID, TRACEPARENT, failure, line, pending, started, told

if TYPE_CHECKING:
    from pathlib import Path

    from fastapi_taskflow.task.event import TaskEvent
    from fastapi_taskflow.telemetry.logs import TaskObserver


async def write(observer: TaskObserver, *events: TaskEvent) -> None:
    """Feed one observer."""
    pump = ObserverPump([observer])
    await pump.start()
    for event in events:
        pump.observe(event)
    await pump.stop()


def test_a_line_is_readable() -> None:
    """Time, level, id, name, attempt, message and the extra fields as JSON."""
    assert line_of(log_event(line("sent to ü", level="warning", to="ann", size=3))) == (
        '1970-01-01T00:01:45.000000Z WARNING  id-1 send_email attempt=1 sent to ü {"to": "ann", "size": 3}'
    )
    assert line_of(log_event(line("plain"))).endswith("attempt=1 plain")


def test_changes_of_status_are_readable() -> None:
    """The status with its duration, error and trace; levels by how bad it is."""
    running = started(traceparent=TRACEPARENT)
    failed = line_of(lifecycle_event(told("finished", lifecycle.fail(running, failure(), at=103.0))))
    assert " ERROR    id-1 send_email attempt=1 failed " in failed
    assert '"duration": 1.0, "error_type": "ConnectionError", "error": "no route"' in failed
    assert f'"trace_id": "{TRACE_ID}", "span_id": "00f067aa0ba902b7"' in failed
    retried = line_of(lifecycle_event(told("retried", lifecycle.retry(running, failure(), at=103.0, run_at=104.0))))
    assert " WARNING  id-1 send_email attempt=1 retried " in retried
    waiting = lifecycle.retry(running, failure(), at=103.0, run_at=104.0)
    again = line_of(lifecycle_event(told("started", lifecycle.start(waiting, at=104.0, owner="me"))))
    assert "error" not in again
    assert line_of(lifecycle_event(told("enqueued", pending()))).endswith("INFO     id-1 send_email attempt=0 enqueued")
    cancelled = line_of(lifecycle_event(told("finished", lifecycle.cancel(pending(), at=1.0, reason="asked"))))
    assert ' WARNING  id-1 send_email attempt=0 cancelled {"error": "asked"}' in cancelled


@pytest.mark.parametrize(
    "evil",
    [
        "a\nb",
        "a\r\nb",
        "\x1b[31mred",
        "a\x85b",
        "a\u2028b",
        "a\u2029b",
        "a\x00b",
        "a\x0bb\x0cc",
        "\u202etxt",
        "\x7f",
        "\ud800",
    ],
)
def test_nothing_can_break_or_fake_a_line(evil: str) -> None:
    """Line breaks, terminal codes and marks that turn text around are spelled out, in message, name and extra."""
    event = line(evil, note=evil)
    text = line_of(log_event(told("logged", started(func_name=evil), log=event.log)))
    assert len(text.splitlines()) == 1
    assert text.isprintable()
    assert one_line("tab\there") == "tab\\there"


def test_extra_that_is_no_json_is_told_all_the_same() -> None:
    """Objects, keys that are no text, and circles."""
    circle: dict[str, Any] = {}
    circle["self"] = circle
    assert line_of(log_event(line("x", when=complex(1)))).endswith('{"when": "(1+0j)"}')
    assert line_of(log_event(line("x", odd={(1, 2): 3}))).endswith("{'odd': {(1, 2): 3}}")
    assert line_of(log_event(line("x", circle=circle))).endswith("{'circle': {'self': {...}}}")


async def test_a_file_gets_one_line_for_each_event(tmp_path: Path) -> None:
    """Also what is no valid Unicode, and appended to what is there."""
    path = tmp_path / "tasks.log"
    path.write_text("before\n")
    await write(FileLogger(path), line("one"), line("two\nlines"), line("\ud800"), told("started", started()))
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[0] == "before"
    assert [text.split("attempt=1 ")[1] for text in lines[1:]] == [
        "one",
        "two\\nlines",
        "\\ud800",
        'started {"span_id": "00f067aa0ba902b7"}',
    ]


async def test_a_file_can_be_kept_to_the_tasks_own_lines(tmp_path: Path) -> None:
    """``lifecycle=False`` is what ``log_file`` does unless told otherwise."""
    await write(FileLogger(tmp_path / "tasks.log", lifecycle=False), line("one"), told("started", started()))
    assert len((tmp_path / "tasks.log").read_text().splitlines()) == 1


async def test_a_file_is_rotated(tmp_path: Path) -> None:
    """At ``max_bytes`` a new file begins, and ``backup_count`` old ones are kept."""
    path = tmp_path / "tasks.log"
    await write(FileLogger(path, max_bytes=200, backup_count=2), *(line(f"{number:0100}") for number in range(6)))
    assert [(tmp_path / f"tasks.log.{number}").exists() for number in (1, 2, 3)] == [True, True, False]
    assert f"{5:0100}" in path.read_text()


async def test_a_file_that_logrotate_moved_is_opened_anew(tmp_path: Path) -> None:
    """``watched`` goes on in a new file under the old name."""
    path = tmp_path / "tasks.log"
    logger = FileLogger(path, mode="watched")
    logger.startup()
    logger.on_log(log_event(line("one")))
    path.rename(tmp_path / "tasks.log.1")
    logger.on_log(log_event(line("two")))
    logger.shutdown()
    logger.shutdown()
    assert path.read_text().endswith("two\n")
    assert (tmp_path / "tasks.log.1").read_text().endswith("one\n")


async def test_a_folder_that_is_missing_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A log file that cannot be opened stops neither the app nor its tasks."""
    with caplog.at_level(logging.ERROR, "fastapi_taskflow.observers"):
        await write(FileLogger(tmp_path / "missing" / "tasks.log"), line())
    failed, left_out = caplog.records
    assert failed.exc_info is not None
    assert isinstance(failed.exc_info[1], FileNotFoundError)
    assert left_out.message == "observer FileLogger could not start and is left out"


@pytest.mark.parametrize("mode", ["rotate", "watched"])
def test_a_write_that_fails_is_the_pumps_to_log(tmp_path: Path, mode: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk is raised to the pump, not printed on standard error."""
    logger = FileLogger(tmp_path / "tasks.log", mode=mode)
    logger.startup()

    def full(_: object) -> str:
        raise OSError("no space left")

    assert logger._handler is not None
    monkeypatch.setattr(logger._handler, "format", full)
    with pytest.raises(OSError, match="no space left"):
        logger.on_log(log_event(line()))
    logger.shutdown()


@pytest.mark.parametrize("wrong", [{"mode": "weekly"}, {"max_bytes": 0}, {"backup_count": 0}])
def test_wrong_options_are_refused(tmp_path: Path, wrong: dict[str, Any]) -> None:
    """When the app is built, not when the first line is written."""
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        FileLogger(tmp_path / "tasks.log", **wrong)


async def test_standard_output_gets_the_same_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """One for each event, and none for changes if they are not wanted."""
    await write(StdoutLogger(), line("one"), told("started", started()))
    await write(StdoutLogger(lifecycle=False), line("two"), told("started", started()))
    assert [text.split("attempt=1 ")[1][:7] for text in capsys.readouterr().out.splitlines()] == [
        "one",
        "started",
        "two",
    ]


async def test_standard_output_of_another_encoding(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the terminal's encoding lacks is spelled out."""
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    await write(StdoutLogger(), line("café ✓"))
    assert raw.getvalue().endswith(b"caf\\xe9 \\u2713\n")
