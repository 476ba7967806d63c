from __future__ import annotations

import pytest

from service.api.hardware import decode_hardware, decode_hints
from service.domain.errors import InvalidRequest
from service.domain.inference import ClientHardware

MIB, GIB = 2.0**20, 2.0**30


@pytest.mark.parametrize(
    ("said", "hardware"),
    [
        ("phone", ClientHardware(class_name="phone")),
        (
            '{"memory_mb": 512, "accelerator": "none", "isa": ["neon"]}',
            ClientHardware(memory_bytes=512 * MIB, accelerator="none", isa=("neon",)),
        ),
        ({"memory_mb": 1.5}, ClientHardware(memory_bytes=1.5 * MIB)),
        (
            {"mobile": True, "save_data": False, "network": "3g", "rtt_ms": 270},
            ClientHardware(is_mobile=True, saves_data=False, network="3g", network_s=0.27),
        ),
        ("{}", ClientHardware()),
    ],
)
def test_hardware_is_read(said: object, hardware: ClientHardware) -> None:
    assert decode_hardware(said) == hardware


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("", "is ''; allowed is a name"),
        ("My Phone", "is 'My Phone'"),
        (5, "is 5; allowed is a class name or a JSON object"),
        (True, "is True"),
        ("{", "no JSON object"),
        ("{}{}", "no JSON object"),
        ('{"memory_mb": 0}', r"> 0.* - at `\$.memory_mb`"),
        ('{"memory_mb": "512"}', "got `str`"),
        ('{"memory_mb": true}', "got `bool`"),
        ('{"memory": 512}', "unknown field `memory`; allowed keys are memory_mb"),
        ('{"isa": ["a b"]}', r"\$.isa"),
        ({"isa": ["x"] * 65}, r"\$.isa"),
        ('{"network": "6g"}', "has network '6g'; allowed are slow-2g, 2g, 3g, 4g"),
        ('{"rtt_ms": -1}', "rtt_ms"),
        ('{"a":' * 700, "no JSON object"),
        ("x" * 5000, "allowed is a class name or a JSON object"),
    ],
)
def test_hardware_is_refused(said: object, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        decode_hardware(said)


@pytest.mark.parametrize(
    ("headers", "hardware"),
    [
        ({}, None),
        ({"sec-ch-ua-mobile": "?1"}, ClientHardware(is_mobile=True)),
        ({"sec-ch-ua-mobile": "?0"}, ClientHardware(is_mobile=False)),
        ({"device-memory": "0.5"}, ClientHardware(memory_bytes=GIB / 2)),
        ({"save-data": "on"}, ClientHardware(saves_data=True)),
        (
            {"ect": "3g", "rtt": "250"},
            ClientHardware(None, None, network="3g", network_s=0.25),
        ),
        ({"sec-ch-ua-mobile": "yes", "device-memory": "lots", "rtt": "nan", "ect": "6g"}, None),
    ],
)
def test_hints_are_read_and_broken_ones_ignored(headers: dict[str, str], hardware: ClientHardware | None) -> None:
    assert decode_hints(headers) == hardware
