"""Exceptions as storable facts."""

from __future__ import annotations

from fastapi_taskflow.task.outcome import MAX_ERROR_CHARS, failure_from, storable_text


class RudeError(Exception):
    """Its text cannot be had."""

    def __str__(self) -> str:
        """Fail."""
        msg = "no"
        raise RuntimeError(msg)


def test_failure_has_type_message_and_trace() -> None:
    """Builtins go by their plain name, others by their full one."""
    try:
        int("x")
    except ValueError as error:
        failure = failure_from(error)
    assert failure.error_type == "ValueError"
    assert "invalid literal" in failure.message
    assert "int(" in (failure.stacktrace or "")
    assert failure_from(RudeError()).error_type == f"{__name__}.RudeError"


def test_an_exception_whose_text_fails_is_described_all_the_same() -> None:
    """A broken ``__str__`` hides nothing."""
    assert failure_from(RudeError()).message == "<RudeError whose str() failed: RuntimeError>"


def test_text_is_cut_in_the_middle_and_made_storable() -> None:
    """NUL and lone surrogates are spelled out, ends are kept."""
    assert storable_text("a\0b\ud800c", 100) == "a\\x00b\\ud800c"
    cut = storable_text("x" * MAX_ERROR_CHARS + "end", MAX_ERROR_CHARS)
    assert cut.startswith("xxx")
    assert cut.endswith("end")
    assert "3 characters left out" in cut
