"""Who gets JSON, and who gets which text."""

from __future__ import annotations

import pytest

from fastapi_taskflow.telemetry.negotiation import MetricsFormat, negotiate, wants_json

PROMETHEUS_2_42 = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PROMETHEUS_3_14 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)
PROTOBUF = (
    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited," + PROMETHEUS_2_42
)
OLD_PROMETHEUS = "application/openmetrics-text; version=0.0.1,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
FIREFOX = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (None, "json"),
        ("", "json"),
        ("*/*", "json"),
        ("application/json", "json"),
        ("application/json, text/plain, */*", "json"),
        (FIREFOX, "json"),
        ("application/*", "json"),
        ("image/png", "json"),
        ("nonsense", "json"),
        (PROMETHEUS_2_42, "openmetrics"),
        (PROMETHEUS_3_14, "openmetrics"),
        (PROTOBUF, "openmetrics"),
        ("application/openmetrics-text", "openmetrics"),
        ('Application/OpenMetrics-Text; Version="1.0.0"', "openmetrics"),
        ("application/openmetrics-text;version=2.0.0, text/plain;q=0.1", "prometheus"),
        (OLD_PROMETHEUS, "prometheus"),
        ("text/plain", "prometheus"),
        ("text/plain;version=0.0.4;q=1,*/*;q=0.1", "prometheus"),
        ("text/*", "prometheus"),
        ("text/plain;version=0.0.4, application/openmetrics-text;q=0.5", "prometheus"),
        ("text/plain;q=0.5, application/json;q=0.4", "prometheus"),
        ("text/plain;q=0.4, application/json;q=0.5", "json"),
        ("application/json;q=0, */*", "openmetrics"),
        ("text/plain;q=nonsense, application/json;q=0.1", "json"),
        ("text/plain;q=7, application/json;q=0.1", "json"),
    ],
)
def test_accept_decides(accept: str | None, expected: str) -> None:
    """The most welcome form wins; among equals JSON, since a scraper always says what it wants."""
    assert negotiate(accept) == expected
    assert wants_json(accept) is (expected == "json")


@pytest.mark.parametrize("chosen", list(MetricsFormat))
def test_the_query_parameter_decides_outright(chosen: MetricsFormat) -> None:
    """Whatever the header says."""
    assert negotiate(PROMETHEUS_2_42, chosen.value) is chosen
    assert negotiate("application/json", chosen.value) is chosen


def test_an_unknown_format_is_refused() -> None:
    """The message says what there is."""
    with pytest.raises(ValueError, match="json, prometheus, openmetrics, not 'xml'"):
        negotiate(None, "xml")
