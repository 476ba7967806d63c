"""Where a tune takes arrivals, budgets and base policy from: files, stand-ins, or a gateway that has recorded them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from loadtests.tuner.recording import read_recording, read_recording_file
from loadtests.tuner.writing import parse_base, read_base
from service.policy_client import Site, fetch_arrivals, fetch_policy

if TYPE_CHECKING:
    import argparse

    from loadtests.tuner.recording import Mix
    from loadtests.tuner.request import Source
    from service.domain.policy_file import PolicyFile


class Traffic(NamedTuple):
    """Traces by name or as read, budgets in seconds with their shares, and the policy to improve upon."""

    traces: tuple[str | Source, ...]
    mix: Mix
    base: PolicyFile


def read_traffic(parsed: argparse.Namespace, budget_s: float) -> Traffic:
    """Return what the flags name; ``budget_s`` is that of requests that ask for none.

    Raises:
        LoadError: A file is not there, or not valid.
        GatewayRefused: The gateway cannot be reached, or records nothing.
    """
    base = read_base(parsed.base)
    if parsed.gateway:
        site = Site.of(parsed.gateway, parsed.token_file)
        recorded, mix = read_recording(fetch_arrivals(site, parsed.model), parsed.gateway, budget_s)
        if parsed.base is None:
            base = parse_base(fetch_policy(site)[0], f"the policy of {parsed.gateway}")
        return Traffic((recorded,), mix, base)
    if parsed.arrivals:
        recorded, mix = read_recording_file(parsed.arrivals, budget_s)
        return Traffic((recorded,), mix, base)
    return Traffic(tuple(parsed.trace), ((budget_s, 1.0),), base)
