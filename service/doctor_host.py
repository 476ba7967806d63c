"""The host, as ``tiergate doctor`` sees it: processor, cores, open files, ports, certificate, optional parts."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

from service.app import read_token
from service.findings import Finding
from service.frontends.sockets import ListenError, bind
from service.frontends.tls import TlsError, TlsFiles, usable_until
from service.settings import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from service.engine.host import Host
    from service.findings import Level
    from service.settings import Settings

_SPARE_FILES: Final = 128
_SOON_S: Final = 14 * 86400.0
_EXACT: Final = frozenset({"avx512_vnni", "avx_vnni", "amx_int8"})
_PARTS: Final = (
    ("build", "torch", "`tiergate build`", "pip install 'tiergate[build]'"),
    ("bento", "bentoml", "`bentoml serve` and `tiergate export --to bento`", "pip install 'tiergate[bento]'"),
    ("pyvoy", "pyvoy", "`--frontend pyvoy`", "pip install 'tiergate[pyvoy]'"),
    ("otel", "opentelemetry.exporter", "`--trace-endpoint`", "pip install 'tiergate[otel]'"),
)
_PROGRAMS: Final = (
    ("node", "node", "proving edge exports", "install Node.js 20 or later"),
    ("h2load", "h2load", "`make bench`", "install nghttp2-client"),
)


def processor(host: Host) -> Finding:
    """Tell which int8 arithmetic the processor has."""
    shown = f"{host.processor}: {', '.join(host.isa) or 'no known instruction sets'}"
    if _EXACT & set(host.isa):
        return Finding("processor", "ok", shown)
    if "avx2" in host.isa:
        advice = (
            "int8 is slower than with VNNI, and may be cut off at 16 bits: prefer nodes with VNNI for int8 variants"
        )
        return Finding("processor", "warn", f"{shown}; no VNNI", advice)
    if "asimd" in host.isa:
        return Finding("processor", "ok", f"{shown}; int8 variants are routed where they are proven on ARM")
    advice = "int8 variants are computed the exact way; measure with --measure whether they still are worth it"
    return Finding("processor", "warn", shown, advice)


def cores(host: Host, settings: Settings) -> Iterator[Finding]:
    """Tell how many lanes there would be, and whether the cores' time suffices for them."""
    lanes = settings.lanes or host.cores
    shown = f"{lanes} lanes on {host.cores} cores" + (
        "" if host.quota_cores is None else f", of which the cgroup gives the time of {host.quota_cores:g}"
    )
    if lanes > host.usable_cores + 0.5:
        most = max(1, int(host.usable_cores))
        advice = f"--lanes {most}: more busy threads than the limit allows are throttled, in waves of 100 ms"
        yield Finding("lanes", "warn", shown, advice)
    elif host.usable_cores < 2:  # noqa: PLR2004 - one core for the lane, one for the event loop
        yield Finding("lanes", "warn", shown, "give it two cores: requests are decoded beside what is computed")
    else:
        yield Finding("lanes", "ok", shown)


def open_files(host: Host, settings: Settings) -> Finding:
    """Tell whether the connections that the settings allow can be had, on HTTP and gRPC."""
    needed = 2 * settings.max_connections + _SPARE_FILES
    shown = f"{host.open_files} open files are allowed; {settings.max_connections} connections to each listener"
    if host.open_files >= needed:
        return Finding("open files", "ok", shown)
    advice = f"ulimit -n {needed}, or --max-connections {max(1, (host.open_files - _SPARE_FILES) // 2)}"
    return Finding("open files", "warn", f"{shown} may take {needed}", advice)


def ports(settings: Settings) -> Iterator[Finding]:
    """Tell of every listener whether its port is free, and no other listener's."""
    listeners = [("http_port", settings.host), ("grpc_port", settings.host), ("admin_port", settings.admin_host)]
    if settings.frontend == "pyvoy":  # which answers gRPC on the HTTP port
        del listeners[1]
    with ExitStack() as bound:
        for name, host in listeners:
            port: int = getattr(settings, name)
            try:
                bound.enter_context(bind(host, port, name))
            except ListenError as error:
                advice = f"end what listens there, or give another --{name.replace('_', '-')}, or another address"
                yield Finding(name, "fail", str(error), advice)
            else:
                yield Finding(name, "ok", f"{host} port {port} is free" if port else "a free one is taken")


def certificates(settings: Settings, now_s: float) -> Iterator[Finding]:
    """Tell whether the listeners' certificate can be used with its key, and when it expires."""
    if settings.tls_cert_file is None or settings.tls_key_file is None:
        return
    try:
        left_s = usable_until(TlsFiles(settings.tls_cert_file, settings.tls_key_file, settings.tls_client_ca_file))
        left_s -= now_s
    except TlsError as error:
        yield Finding("certificate", "fail", str(error), "give a PEM certificate that is valid, and its key")
        return
    level: Level = "fail" if left_s <= 0 else "warn" if left_s < _SOON_S else "ok"
    shown = f"{settings.tls_cert_file} expires in {left_s / 86400.0:.1f} days"
    yield Finding("certificate", level, shown, "" if level == "ok" else "renew it; the new file is taken while serving")


def admin_token(settings: Settings) -> Iterator[Finding]:
    """Tell whether the admin listener's token can be read, where there is one."""
    if settings.admin_token_file is None:
        return
    try:
        read_token(settings)
    except SettingsError as error:
        yield Finding("admin token", "fail", str(error), "write a token there that this user may read")
    else:
        yield Finding("admin token", "ok", f"{settings.admin_token_file} holds one")


def optional_parts(settings: Settings) -> Iterator[Finding]:
    """Tell which optional parts are here; one that a setting needs must be."""
    version = ".".join(map(str, sys.version_info[:3]))
    yield Finding("python", "ok", version)
    wanted = {"pyvoy": settings.frontend == "pyvoy", "otel": settings.trace_endpoint is not None}
    here = [(*part, _is_installed(part[1])) for part in _PARTS]
    here += [(*program, shutil.which(program[1]) is not None) for program in _PROGRAMS]
    for name, _, purpose, how, is_here in here:
        if is_here:
            yield Finding(name, "ok", "is here")
        else:
            level: Level = "fail" if wanted.get(name) else "ok"
            yield Finding(name, level, f"is absent; {purpose} needs it", how)


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # its parent is absent
        return False
