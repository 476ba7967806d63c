"""Documents as the peers' benchmark writes them."""

from __future__ import annotations

from typing import Any

ROUNDS = 3


def make_rounds(rate_hz: tuple[float, ...], p50_s: float = 0.0005, p99_s: float = 0.001) -> list[dict[str, Any]]:
    return [{"requests": 1000, "rate_hz": rate, "p50_s": p50_s, "p99_s": p99_s, "errors": 0} for rate in rate_hz]


def make_document(
    rate_hz: dict[str, float] | None = None,
    p50_s: dict[str, float] | None = None,
    p99_s: dict[str, float] | None = None,
    errors: dict[str, int] | None = None,
    model: str = "mlp",
    bare_s: float = 0.00001,
    requests: int = 1000,
) -> dict[str, Any]:
    """Return results of three equal rounds over one connection for the servers named in any of the figures."""
    figures = (rate_hz or {}, p50_s or {}, p99_s or {}, errors or {})
    servers = list(dict.fromkeys(name for each in figures for name in each)) or ["tiergate"]
    rows = [_row(server, model, figures, requests) for server in servers]
    bare = {"requests": 2000, "rate_hz": 1.0 / bare_s, "p50_s": bare_s, "p99_s": bare_s, "errors": 0}
    key = {"server": "bare runtime call", "model": model, "protocol": "none", "connections": 1}
    return {
        "command": "python -m loadtests.peer_bench",
        "machine": {"cpu": "a processor", "cores": 2, "system": "Linux x86_64"},
        "commit": "abc1234",
        "date": "2026-01-02",
        "placement": "shared by all",
        "rounds": ROUNDS,
        "duration_s": 2.0,
        "peers": [
            {"key": "triton", "title": "Triton", "setting": "as it comes", "packages": ["a==1"], "not_available": None},
            {"key": "ray", "title": "Ray Serve", "setting": "", "packages": ["b==2"], "not_available": "no wheel"},
        ],
        "results": [{**key, "rounds": [bare] * ROUNDS}, *rows],
        "failures": {"Ray Serve, mlp, gRPC": "it answered nothing\nand said why at length"},
    }


def _row(
    server: str,
    model: str,
    figures: tuple[dict[str, float], dict[str, float], dict[str, float], dict[str, int]],
    requests: int,
) -> dict[str, Any]:
    rate_hz, p50_s, p99_s, errors = figures
    one = {
        "requests": requests,
        "rate_hz": rate_hz.get(server, 1000.0),
        "p50_s": p50_s.get(server, 0.0005),
        "p99_s": p99_s.get(server, 0.001),
        "errors": errors.get(server, 0),
    }
    key = {"server": server, "model": model, "protocol": "gRPC", "connections": 1}
    return {**key, "rounds": [one] * ROUNDS}
