"""The remotes file: which variants run on other servers, and where these are.

Written by the operator and read at the start. It is no part of the policy file, which administrators replace over the
wire: which addresses this server connects to is nothing that a request may decide.
"""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

REMOTES_SCHEMA_VERSION: Final = 1
_HOST: Final = re.compile(r"^(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)$")


def _checked(address: str) -> str:
    parts = urlsplit(address)
    host, _, port = parts.netloc.rpartition(":")
    is_plain = not (parts.path or parts.query or parts.fragment)
    if parts.scheme in ("grpc", "http") and is_plain and _HOST.match(host) and port.isdecimal() and int(port) < 2**16:
        return address
    raise ValueError("must be grpc://HOST:PORT or http://HOST:PORT")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RemoteVariant(_Strict):
    """Where one variant runs: equal servers of the Open Inference Protocol."""

    endpoints: tuple[Annotated[str, AfterValidator(_checked)], ...] = Field(
        min_length=1, max_length=64, description="grpc://HOST:PORT or http://HOST:PORT"
    )
    model: str = Field(default="", max_length=256, description="its name there; MODEL--VARIANT where empty")
    version: str = Field(default="", max_length=64, description="its version there; empty leaves it to the server")
    calls: int = Field(default=4, ge=1, le=64, description="calls under way to each endpoint at a time")


class RemotesFile(_Strict):
    """All remote variants of one gateway: model -> variant -> where it runs."""

    schema_version: Literal[1] = REMOTES_SCHEMA_VERSION
    remotes: dict[str, dict[str, RemoteVariant]] = Field(default_factory=dict)
