from __future__ import annotations

import pytest

from service.domain.errors import InvalidRequest
from service.domain.inference import ClientHardware
from service.domain.policy_file import HardwareClass, HardwareMatch, PolicyFile
from service.policy.hardware import choose_class

DEFAULTS = PolicyFile().hardware_classes


def test_choose_class_takes_the_name_that_the_client_gave_before_what_it_described() -> None:
    assert choose_class(ClientHardware("arm64", is_mobile=True), DEFAULTS) == "arm64"


def test_choose_class_refuses_a_name_that_is_no_class_and_lists_the_classes() -> None:
    with pytest.raises(InvalidRequest, match="'toaster' is not a class here; allowed are mobile, low-data"):
        choose_class(ClientHardware("toaster"), DEFAULTS)


@pytest.mark.parametrize(
    ("described", "name"),
    [
        (ClientHardware(is_mobile=True), "mobile"),
        (ClientHardware(is_mobile=False), ""),
        (ClientHardware(saves_data=True), "low-data"),
        (ClientHardware(network="2g"), "slow-network"),
        (ClientHardware(network="4g"), ""),
        (ClientHardware(memory_bytes=512 * 2**20), "low-memory"),
        (ClientHardware(memory_bytes=1024 * 2**20), ""),
        (ClientHardware(accelerator="webgpu"), "browser-webgpu"),
        (ClientHardware(accelerator="wasm"), "browser-wasm"),
        (ClientHardware(isa=("neon",)), "arm64"),
        (ClientHardware(isa=("sse4", "avx2")), "server-avx2"),
        (ClientHardware(isa=("avx2", "avx512_vnni")), "server-vnni"),
        (ClientHardware(is_mobile=True, saves_data=True), "mobile"),
        (ClientHardware(), ""),
    ],
)
def test_choose_class_takes_the_first_class_whose_conditions_hold(described: ClientHardware, name: str) -> None:
    assert choose_class(described, DEFAULTS) == name


def test_choose_class_asks_every_condition_of_a_class() -> None:
    classes = {"small-phone": HardwareClass(match=HardwareMatch(is_mobile=True, below_memory_mb=512))}
    assert choose_class(ClientHardware(is_mobile=True), classes) == ""
    assert choose_class(ClientHardware(is_mobile=True, memory_bytes=2**20), classes) == "small-phone"


@pytest.mark.parametrize("match", [None, HardwareMatch()])
def test_choose_class_gives_a_class_without_conditions_only_by_name(match: HardwareMatch | None) -> None:
    classes = {"named": HardwareClass(match=match)}
    assert choose_class(ClientHardware(is_mobile=True), classes) == ""
    assert choose_class(ClientHardware("named"), classes) == "named"
