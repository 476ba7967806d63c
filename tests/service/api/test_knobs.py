from __future__ import annotations

from typing import Any

import pytest

from service.api.knobs import decode_knobs
from service.domain.errors import InvalidRequest
from service.domain.inference import NO_KNOBS, ClientHardware, Criticality

CRITICAL, NORMAL, SHEDDABLE = Criticality.CRITICAL, Criticality.NORMAL, Criticality.SHEDDABLE

ACCEPTED: list[tuple[dict[str, Any], dict[str, str], str, object]] = [
    ({"latency_budget_ms": 20}, {}, "budget_s", 0.02),
    ({"latency_budget_ms": 0.5}, {}, "budget_s", 0.0005),
    ({"latency_budget_ms": "20.5"}, {}, "budget_s", 0.0205),
    ({"latency_budget_ms": "2e1"}, {}, "budget_s", 0.02),
    ({"latency_budget_ms": 3_600_000}, {}, "budget_s", 3600.0),
    ({"latency_budget_ms": None}, {"x-latency-budget-ms": "7"}, "budget_s", 0.007),
    ({"latency_budget_ms": 5}, {"x-latency-budget-ms": "7"}, "budget_s", 0.005),
    ({}, {"x-latency-budget-ms": "7"}, "budget_s", 0.007),
    ({"timeout": 2500}, {}, "timeout_s", 0.0025),
    ({"timeout": "2500"}, {}, "timeout_s", 0.0025),
    ({"timeout": 0}, {}, "timeout_s", None),
    ({"timeout": 0}, {"x-request-timeout-ms": "9"}, "timeout_s", 0.009),
    ({"timeout": 2500}, {"x-request-timeout-ms": "9"}, "timeout_s", 0.0025),
    ({"min_accuracy": 0}, {}, "min_accuracy", 0.0),
    ({"min_accuracy": "1"}, {}, "min_accuracy", 1.0),
    ({"variant": "pruned-50"}, {}, "variant", "pruned-50"),
    ({"tier": "quantized"}, {}, "tier", "quantized"),
    ({"priority": 0}, {}, "criticality", NORMAL),
    ({"priority": 1}, {}, "criticality", CRITICAL),
    ({"priority": "2"}, {}, "criticality", NORMAL),
    ({"priority": 3}, {}, "criticality", SHEDDABLE),
    ({"priority": 2**64 - 1}, {}, "criticality", SHEDDABLE),
    ({}, {"x-criticality": "Sheddable"}, "criticality", SHEDDABLE),
    ({"priority": 1}, {"x-criticality": "sheddable"}, "criticality", CRITICAL),
    ({"priority": 0}, {"x-criticality": "critical"}, "criticality", CRITICAL),
    ({"client_hardware": "phone"}, {"x-client-hardware": "laptop"}, "hardware", ClientHardware(class_name="phone")),
    ({}, {"x-client-hardware": "laptop"}, "hardware", ClientHardware(class_name="laptop")),
    ({}, {"device-memory": "4"}, "hardware", ClientHardware(memory_bytes=4.0 * 2**30)),
]

NO_BUDGETS: tuple[Any, ...] = (
    0,
    -1,
    1e12,
    float("inf"),
    float("nan"),
    True,
    "",
    "nan",
    "inf",
    "1_0",
    " 5",
    "5 ms",
    "\u0665",
    [],
    {},
)

REFUSED: list[tuple[dict[str, Any], dict[str, str], str]] = [
    *[({"latency_budget_ms": value}, {}, "'latency_budget_ms'.*above 0 and at most 3600000") for value in NO_BUDGETS],
    ({}, {"x-latency-budget-ms": "0"}, "'x-latency-budget-ms' is '0'"),
    ({}, {"x-request-timeout-ms": "soon"}, "'x-request-timeout-ms' is 'soon'"),
    *[
        ({"timeout": value}, {}, "'timeout'.*a whole number from 0 to 3600000000")
        for value in (-1, 1.5, 3_600_000_001, False, "x")
    ],
    *[({"min_accuracy": value}, {}, "'min_accuracy'.*from 0 to 1") for value in (-0.1, 1.1, "high", True)],
    *[({"priority": value}, {}, "'priority'.*whole number") for value in (-1, 2**65, "first", 1.5)],
    *[
        ({"variant": value}, {}, "'variant'.*1 to 64 characters")
        for value in ("", "../x", "Full", "a" * 65, 5, "a\n", "a/b", "a\0")
    ],
    ({"tier": "a b"}, {}, "'tier' is 'a b'"),
    ({}, {"x-criticality": "urgent"}, "'x-criticality' is 'urgent'; allowed are critical, normal, sheddable"),
    ({"client_hardware": 5}, {}, "'client_hardware' is 5"),
]


@pytest.mark.parametrize(("parameters", "headers", "knob", "value"), ACCEPTED)
def test_knob_is_read(parameters: dict[str, Any], headers: dict[str, str], knob: str, value: object) -> None:
    assert getattr(decode_knobs(parameters, headers), knob) == (
        pytest.approx(value) if isinstance(value, float) else value
    )


@pytest.mark.parametrize(("parameters", "headers", "message"), REFUSED)
def test_knob_is_refused_by_name(parameters: dict[str, Any], headers: dict[str, str], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        decode_knobs(parameters, headers)


def test_knobs_ignore_what_is_no_knob() -> None:
    parameters = {"binary_data_output": True, "sequence_id": 5, "colour": "blue"}
    assert decode_knobs(parameters, {"user-agent": "curl"}) is NO_KNOBS


def test_deadline_wins_over_timeout_parameter_and_header() -> None:
    knobs = decode_knobs({"timeout": 9_000_000}, {"x-request-timeout-ms": "8000"}, deadline_s=1.5)
    assert knobs.timeout_s == 1.5


@pytest.mark.parametrize(("deadline_s", "timeout_s"), [(-0.1, 0.0), (1e6, 3600.0)])
def test_deadline_is_kept_in_range(deadline_s: float, timeout_s: float) -> None:
    assert decode_knobs({}, {}, deadline_s=deadline_s).timeout_s == timeout_s


def test_malformed_timeout_is_refused_even_when_a_deadline_wins() -> None:
    with pytest.raises(InvalidRequest, match="'timeout'"):
        decode_knobs({"timeout": "x"}, {}, deadline_s=1.0)


@pytest.mark.parametrize(
    ("parameters", "headers"),
    [
        ({"latency_budget_ms": 5}, {"x-latency-budget-ms": "soon"}),
        ({"timeout": 5}, {"x-request-timeout-ms": "soon"}),
        ({"priority": 1}, {"x-criticality": "soon"}),
        ({"client_hardware": "phone"}, {"x-client-hardware": "Soon!"}),
    ],
)
def test_malformed_header_is_refused_even_when_a_parameter_wins(
    parameters: dict[str, Any], headers: dict[str, str]
) -> None:
    with pytest.raises(InvalidRequest, match=r"is '[Ss]oon"):
        decode_knobs(parameters, headers)


def test_pin_from_the_name_is_a_variant() -> None:
    assert decode_knobs({}, {}, pinned="small").variant == "small"
    assert decode_knobs({"variant": "small"}, {}, pinned="small").variant == "small"


def test_pin_is_refused_when_parameter_and_name_disagree() -> None:
    with pytest.raises(InvalidRequest, match="'variant' is 'full', but the model's name pins 'small'"):
        decode_knobs({"variant": "full"}, {}, pinned="small")


def test_refusal_shows_no_more_than_a_line_of_the_value() -> None:
    with pytest.raises(InvalidRequest) as caught:
        decode_knobs({"latency_budget_ms": "9" * 100_000}, {})
    assert len(str(caught.value)) < 300
