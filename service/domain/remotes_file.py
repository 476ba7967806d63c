"""The remotes file: which variants run on other servers, and where these are.

Written by the operator and read at the start. It is no part of the policy file, which administrators replace over the
wire: which addresses this server connects to is nothing that a request may decide.
"""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

REMOTES_SCHEMA_VERSION: Final = 1
_SECURE: Final = ("grpcs", "https")
_SCHEMES: Final = ("grpc", "http", *_SECURE)
_HOST: Final = re.compile(r"^(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)$")


def _checked(address: str) -> str:
    parts = urlsplit(address)
    host, _, port = parts.netloc.rpartition(":")
    is_plain = not (parts.path or parts.query or parts.fragment)
    if parts.scheme in _SCHEMES and is_plain and _HOST.match(host) and port.isdecimal() and int(port) < 2**16:
        return address
    raise ValueError("must be grpc://HOST:PORT or http://HOST:PORT, or with TLS grpcs://HOST:PORT or https://HOST:PORT")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TlsFiles(_Strict):
    """PEM files for connections to servers; paths are relative to the remotes file."""

    ca_file: str = Field(default="", description="whom to believe; empty believes whom the system believes")
    client_cert_file: str = Field(default="", description="the certificate to show, with its chain")
    client_key_file: str = Field(default="", description="its private key, without a passphrase")

    @model_validator(mode="after")
    def _belong_together(self) -> Self:
        if bool(self.client_cert_file) != bool(self.client_key_file):
            raise ValueError("client_cert_file and client_key_file belong together")
        return self


class RemoteVariant(_Strict):
    """Where one variant runs: equal servers of the Open Inference Protocol."""

    endpoints: tuple[Annotated[str, AfterValidator(_checked)], ...] = Field(
        min_length=1, max_length=64, description="grpc://HOST:PORT or http://HOST:PORT, with TLS grpcs:// or https://"
    )
    tls: TlsFiles = Field(default_factory=TlsFiles, description="certificates for grpcs:// and https://")
    model: str = Field(default="", max_length=256, description="its name there; MODEL--VARIANT where empty")
    version: str = Field(default="", max_length=64, description="its version there; empty leaves it to the server")
    calls: int = Field(default=4, ge=1, le=64, description="calls under way to each endpoint at a time, on average")

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if len(set(self.endpoints)) < len(self.endpoints):
            raise ValueError("endpoints names a server twice")
        if self.tls != TlsFiles() and not all(address.startswith(_SECURE) for address in self.endpoints):
            raise ValueError("tls is given, but an endpoint is neither grpcs:// nor https://")
        return self


class RemotesFile(_Strict):
    """All remote variants of one gateway: model -> variant -> where it runs."""

    schema_version: Literal[1] = REMOTES_SCHEMA_VERSION
    remotes: dict[str, dict[str, RemoteVariant]] = Field(default_factory=dict)
