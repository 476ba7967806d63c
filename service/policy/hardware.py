"""From what a client said of its device to a hardware class of the policy file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.domain.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from service.domain.inference import ClientHardware
    from service.domain.policy_file import HardwareClass, HardwareMatch

_MEBIBYTE = 2.0**20


def choose_class(hardware: ClientHardware, classes: Mapping[str, HardwareClass]) -> str:
    """Return the name of the device's class, or '' when nothing is known that a class asks for.

    A name given by the client decides; otherwise the first class, in the file's order, whose conditions all hold.

    Raises:
        InvalidRequest: The client named a class that the policy file does not have.
    """
    if hardware.class_name is not None:
        if hardware.class_name not in classes:
            raise InvalidRequest(
                f"client_hardware '{hardware.class_name}' is not a class here; allowed are {', '.join(classes)}, "
                "or a JSON object of capabilities"
            )
        return hardware.class_name
    return next((name for name, item in classes.items() if item.match and _holds(item.match, hardware)), "")


def _holds(match: HardwareMatch, hardware: ClientHardware) -> bool:
    checks: list[bool] = []
    if match.is_mobile is not None:
        checks.append(hardware.is_mobile is match.is_mobile)
    if match.saves_data is not None:
        checks.append(hardware.saves_data is match.saves_data)
    if match.accelerators:
        checks.append(hardware.accelerator in match.accelerators)
    if match.isa:
        checks.append(bool(set(match.isa) & set(hardware.isa)))
    if match.below_memory_mb is not None:
        memory = hardware.memory_bytes
        checks.append(memory is not None and memory < match.below_memory_mb * _MEBIBYTE)
    if match.networks:
        checks.append(hardware.network in match.networks)
    return bool(checks) and all(checks)
