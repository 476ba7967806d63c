"""Settings of ``tiergate serve``: one frozen object, from flags > environment > file > defaults.

Environment variables are ``TIERGATE_`` and the name in capitals; the file is YAML with the same names, given by
``--config`` or ``TIERGATE_CONFIG``. A wrong value is refused at the start with the allowed range. An unknown name is
refused in the file and among the flags; in the environment it is ignored, because Kubernetes sets variables such as
``TIERGATE_SERVICE_HOST`` for a service of that name.
"""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

Port = Annotated[int, Field(ge=0, le=65535)]
ENV_PREFIX: Final = "TIERGATE_"


class SettingsError(ValueError):
    """A setting is unknown or out of range."""


class Settings(BaseSettings):
    """Everything that ``tiergate serve`` can be told; port 0 picks a free one."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, frozen=True, extra="forbid", env_ignore_empty=True)

    repository: Path = Field(default=Path("repository"), description="folder of built models, or bento:NAME[:VERSION]")
    policy: Path | None = Field(default=None, description="policy file (YAML); without one the defaults hold")
    remotes: Path | None = Field(default=None, description="file of the variants that run on other servers (YAML)")
    required_models: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="models without which the server is not ready; none means any"
    )
    host: str = Field(default="127.0.0.1", description="address of the HTTP and gRPC listeners")
    http_port: Port = Field(default=8000, description="port of the HTTP listener")
    grpc_port: Port = Field(default=8001, description="port of the gRPC listener")
    admin_host: str = Field(default="127.0.0.1", description="address of the admin listener")
    admin_port: Port = Field(default=8002, description="port of the admin listener")
    admin_token_file: Path | None = Field(
        default=None, description="file with the admin token; needed where the admin address is not loopback"
    )
    tls_cert_file: Path | None = Field(
        default=None, description="PEM certificate with its chain; with it HTTP and gRPC speak TLS, reloaded on change"
    )
    tls_key_file: Path | None = Field(default=None, description="PEM key of that certificate, without a password")
    tls_client_ca_file: Path | None = Field(
        default=None, description="PEM certificates that must have signed every client's (mTLS); none asks for none"
    )
    admin_tls: bool = Field(default=False, description="the admin listener speaks TLS too, with the same files")
    frontend: Literal["python", "pyvoy"] = Field(
        default="python", description="python: uvicorn and grpcio; pyvoy: Envoy, HTTP and gRPC on the HTTP port"
    )
    lanes: int = Field(default=0, ge=0, le=1024, description="worker lanes; 0 takes one for each core")
    pin_lanes: bool = Field(default=True, description="pin each lane to a core")
    memory_budget_mb: float | None = Field(
        default=None,
        gt=0.0,
        le=2.0**24,
        description="memory for loaded variants, in MiB of the manifests' measured sizes; others are loaded on demand",
    )
    unproven_int8: Literal["precise", "avoid", "allow"] = Field(
        default="precise",
        description="int8 variants not known to be right on this processor: precise computes exactly, or avoids",
    )
    inline_compute_ms: float = Field(
        default=0.1, ge=0.0, le=10.0, description="compute this short runs without a hand-over to a lane"
    )
    max_body_mib: float = Field(
        default=64.0, gt=0.0, le=2047.0, description="largest request body, counted after decompression"
    )
    max_connections: int = Field(default=4096, ge=1, le=1_000_000, description="open HTTP connections")
    max_timeout_s: float = Field(default=60.0, gt=0.0, le=3600.0, description="longest time a request may take")
    read_timeout_s: float = Field(
        default=30.0, gt=0.0, le=3600.0, description="time a client has to send a whole request"
    )
    drain_grace_s: float = Field(
        default=0.0, ge=0.0, le=3600.0, description="after SIGTERM: not ready, but still answering, for this long"
    )
    drain_timeout_s: float = Field(
        default=30.0, ge=0.0, le=3600.0, description="after that: time for requests inside to finish"
    )
    predictions: Path | None = Field(
        default=None, description="file in which predictions are kept for labels that come late; without one none are"
    )
    predictions_share: float = Field(default=1.0, gt=0.0, le=1.0, description="share of answers that are kept there")
    predictions_mb: float = Field(default=256.0, ge=1.0, le=2.0**20, description="size of that file, in MiB")
    predictions_hours: float = Field(default=24.0, gt=0.0, le=8784.0, description="hours that a prediction is kept")
    log_level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="least level logged")
    log_format: Literal["json", "text"] = Field(default="text", description="form of the log lines")
    record_arrivals: Path | None = Field(
        default=None,
        description="folder for the times, budgets and hints of requests, to tune on",
    )
    access_log: bool = Field(default=False, description="log every answered request too")
    metrics: bool = Field(default=True, description="count requests and runs for /metrics")
    decisions_kept: int = Field(
        default=64, ge=0, le=100_000, description="last decisions of each model that the admin listener explains"
    )
    trace_endpoint: str | None = Field(
        default=None, description="URL of an OpenTelemetry collector (OTLP over HTTP); none is traced without"
    )
    trace_ratio: float = Field(
        default=0.01, ge=0.0, le=1.0, description="share of requests traced where their caller has not decided"
    )

    @property
    def max_body_bytes(self) -> int:
        """The largest request body in bytes."""
        return int(self.max_body_mib * 2**20)

    @property
    def memory_budget_bytes(self) -> int | None:
        """The memory budget in bytes, ``None`` where there is none."""
        return None if self.memory_budget_mb is None else int(self.memory_budget_mb * 2**20)

    @field_validator("trace_endpoint")
    @classmethod
    def _is_web_address(cls, value: str | None) -> str | None:
        if value is not None and (urlsplit(value).scheme not in ("http", "https") or not urlsplit(value).hostname):
            raise ValueError("allowed is a URL such as http://127.0.0.1:4318")
        return value

    @field_validator("required_models", mode="before")
    @classmethod
    def _split_names(cls, value: object) -> object:
        """Read the comma-separated form that flags and the environment use."""
        return tuple(filter(None, map(str.strip, value.split(",")))) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _admin_is_guarded(self) -> Settings:
        if self.admin_token_file is None and not is_loopback(self.admin_host):
            raise ValueError(
                f"admin_host {self.admin_host} is not a loopback address, and there is no admin_token_file: "
                "give one, or keep the admin listener on 127.0.0.1"
            )
        return self

    @model_validator(mode="after")
    def _tls_is_whole(self) -> Settings:
        if (self.tls_cert_file is None) != (self.tls_key_file is None):
            given, missing = ("cert", "key") if self.tls_key_file is None else ("key", "cert")
            raise ValueError(f"tls_{given}_file is given without tls_{missing}_file; TLS needs both")
        if self.tls_cert_file is None and (self.tls_client_ca_file is not None or self.admin_tls):
            name = "admin_tls" if self.admin_tls else "tls_client_ca_file"
            raise ValueError(f"{name} needs TLS: give tls_cert_file and tls_key_file too")
        if self.tls_cert_file is not None and self.frontend == "pyvoy":
            raise ValueError("frontend pyvoy offers no TLS here: use frontend python, or end TLS in front of it")
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Keep flags, environment and file, in this order."""
        del settings_cls, dotenv_settings, file_secret_settings
        return init_settings, env_settings


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can reach the address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def read_settings(flags: dict[str, Any], config: Path | None = None) -> Settings:
    """Merge flags, environment, file and defaults.

    Raises:
        SettingsError: A value is out of range, a name is unknown, or the file cannot be read.
    """
    config = config or (Path(os.environ["TIERGATE_CONFIG"]) if os.environ.get("TIERGATE_CONFIG") else None)
    from_file = _read_file(config) if config else {}
    set_names = {name.upper() for name, value in os.environ.items() if value}
    from_environment = {name for name in Settings.model_fields if f"{ENV_PREFIX}{name.upper()}" in set_names}
    merged = {name: value for name, value in from_file.items() if name not in from_environment} | flags
    try:
        return Settings(**merged)
    except ValidationError as error:
        raise SettingsError(_explain(error)) from None


def _read_file(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise SettingsError(f"config file {path} cannot be read: {error}") from None
    if not isinstance(content, dict):
        raise SettingsError(f"config file {path} must hold a mapping of settings; it holds {type(content).__name__}")
    unknown = sorted(set(map(str, content)) - set(Settings.model_fields))
    if unknown:
        raise SettingsError(f"config file {path} has unknown settings: {', '.join(unknown)}")
    return content


def _explain(error: ValidationError) -> str:
    problems = []
    for item in error.errors():
        where = ".".join(map(str, item["loc"]))
        given = "" if not where else f" (given {item['input']!r})"
        problems.append(f"{where}: {item['msg']}{given}" if where else item["msg"].removeprefix("Value error, "))
    return "; ".join(problems)
