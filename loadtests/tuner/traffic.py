"""Where a tune takes arrivals and base policy from: files, stand-ins, or a gateway that has recorded them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from loadtests.tuner.recording import read_recording, read_recording_file
from loadtests.tuner.writing import parse_base, read_base
from service.policy_client import Site, fetch_arrivals, fetch_policy

if TYPE_CHECKING:
    import argparse

    from loadtests.tuner.request import Source
    from service.domain.policy_file import PolicyFile


class Traffic(NamedTuple):
    """Traces by name or as read, and the policy to improve upon."""

    traces: tuple[str | Source, ...]
    base: PolicyFile


def read_traffic(parsed: argparse.Namespace) -> Traffic:
    """Return what the flags name.

    Raises:
        LoadError: A file is not there, or not valid.
        GatewayRefused: The gateway cannot be reached, or records nothing.
    """
    base = read_base(parsed.base)
    if parsed.gateway:
        site = Site.of(parsed.gateway, parsed.token_file)
        recorded = read_recording(fetch_arrivals(site, parsed.model), parsed.gateway)
        if parsed.base is None:
            base = parse_base(fetch_policy(site)[0], f"the policy of {parsed.gateway}")
        return Traffic((recorded,), base)
    if parsed.arrivals:
        return Traffic((read_recording_file(parsed.arrivals),), base)
    return Traffic(tuple(parsed.trace), base)
