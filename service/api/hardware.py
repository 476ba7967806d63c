"""What a client says of its device: the ``client_hardware`` knob, and browsers' Client Hints.

The knob is a class name of the policy file (``"phone"``) or a JSON object with any of these keys:

    memory_mb      device memory in MiB, above 0
    accelerator    "none", "cuda", "npu", ...
    isa            a list of names, such as ["neon"]
    mobile         true or false
    save_data      true or false
    network        "slow-2g", "2g", "3g" or "4g"
    rtt_ms         round-trip time; it is taken off the budget

A malformed knob is an error. A malformed hint is ignored, as structured headers demand (RFC 9651): browsers send hints
to every path once a reply has asked for them, and a proxy's mistake in one is no reason to refuse a request.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec

from service.api.names import NAME, NAME_RULE, shown
from service.domain.errors import InvalidRequest
from service.domain.inference import ClientHardware

if TYPE_CHECKING:
    from collections.abc import Mapping

HINT_HEADERS: Final = frozenset({"sec-ch-ua-mobile", "device-memory", "save-data", "ect", "rtt"})

ACCEPT_CH: Final = (b"accept-ch", b"Sec-CH-UA-Mobile, Device-Memory, Save-Data, ECT, RTT")
"""The reply header after which a browser sends these hints, on secure connections only."""

_MIB: Final = 2.0**20
_GIB: Final = 2.0**30
_NETWORKS: Final = ("slow-2g", "2g", "3g", "4g")
_MAX_TEXT: Final = 4096
_KNOB: Final = "knob 'client_hardware'"

_Word = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")]


class _Device(msgspec.Struct, forbid_unknown_fields=True):
    memory_mb: Annotated[float, msgspec.Meta(gt=0, le=1e9)] | None = None
    accelerator: _Word | None = None
    isa: Annotated[tuple[_Word, ...], msgspec.Meta(max_length=64)] = ()
    mobile: bool | None = None
    save_data: bool | None = None
    network: str | None = None
    rtt_ms: Annotated[float, msgspec.Meta(ge=0, le=3_600_000)] = 0.0


def decode_hardware(value: object) -> ClientHardware:
    """Read the ``client_hardware`` knob: a class name, a JSON object as text, or a decoded JSON object.

    Raises:
        InvalidRequest: It is neither, or a key of the object has a value that is not allowed.
    """
    if isinstance(value, dict):
        return _decode_device(value)
    if not isinstance(value, str) or len(value) > _MAX_TEXT:
        message = f"{_KNOB} is {shown(value)}; allowed is a class name or a JSON object"
        raise InvalidRequest(message)
    if value.lstrip().startswith("{"):
        return _decode_device(_json_object(value))
    if NAME.fullmatch(value) is None:
        message = f"{_KNOB} is {shown(value)}; allowed is {NAME_RULE}, or a JSON object"
        raise InvalidRequest(message)
    return ClientHardware(class_name=value)


def decode_hints(headers: Mapping[str, str]) -> ClientHardware | None:
    """Read Client Hints from lower-case headers; ``None`` where there are none that can be read."""
    mobile = {"?1": True, "?0": False}.get(headers.get("sec-ch-ua-mobile", ""))
    memory = _hint(headers, "device-memory")
    network = headers.get("ect", "").lower()
    rtt_ms = _hint(headers, "rtt")
    hints = ClientHardware(
        memory_bytes=memory * _GIB if memory else None,
        is_mobile=mobile,
        saves_data=True if headers.get("save-data", "").lower() == "on" else None,
        network=network if network in _NETWORKS else None,
        network_s=(rtt_ms or 0.0) / 1000.0,
    )
    return None if hints == ClientHardware() else hints


def _json_object(text: str) -> Any:  # noqa: ANN401 - JSON decodes to anything; the next step types it
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        message = f"{_KNOB} is {shown(text)}, which is no JSON object: {error}"
        raise InvalidRequest(message) from None


def _decode_device(value: object) -> ClientHardware:
    try:
        device = msgspec.convert(value, _Device)
    except msgspec.ValidationError as error:
        message = f"{_KNOB}: {error}; allowed keys are {', '.join(_Device.__struct_fields__)}"
        raise InvalidRequest(message) from None
    if device.network is not None and device.network not in _NETWORKS:
        message = f"{_KNOB} has network {shown(device.network)}; allowed are {', '.join(_NETWORKS)}"
        raise InvalidRequest(message)
    return ClientHardware(
        memory_bytes=None if device.memory_mb is None else device.memory_mb * _MIB,
        accelerator=device.accelerator,
        isa=device.isa,
        is_mobile=device.mobile,
        saves_data=device.save_data,
        network=device.network,
        network_s=device.rtt_ms / 1000.0,
    )


def _hint(headers: Mapping[str, str], name: str) -> float | None:
    """Return a hint as a number from 0 to an hour's worth of milliseconds, or ``None``."""
    try:
        value = float(headers[name])
    except (KeyError, ValueError):
        return None
    return value if 0.0 <= value <= 3_600_000.0 else None  # noqa: PLR2004 - an hour in ms; also drops NaN
