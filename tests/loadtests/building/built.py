"""Results of the build bench made of numbers, every bar met, for tests to spoil."""

from __future__ import annotations

from typing import Any

KEY = "k" * 64
SPEEDS = {
    "full": 12e-3,
    "quantized": 3e-3,
    "pruned": 2.8e-3,
    "pruned-quantized": 1e-3,
    "distilled": 0.8e-3,
    "distilled-quantized": 0.3e-3,
}


def variant(tier: str, parent: str | None, file_bytes: int, macs: int, **others: Any) -> dict[str, Any]:  # noqa: ANN401 - fields of several types
    facts: dict[str, Any] = {"tier": tier, "parent": parent, "state": "routable"}
    facts |= {"file_bytes": file_bytes, "macs": macs}
    facts |= {"is_packed": False, "is_int8": tier.endswith("quantized"), "accuracy": 0.95}
    return facts | {"lost": 20, "gained": 20} | others


def facts(**variants: dict[str, Any]) -> dict[str, Any]:
    every = {name.replace("_", "-"): one for name, one in variants.items()}
    head = {"build_key": KEY, "built_at": "2026-11-22T00:00:00+00:00", "rows": 20_000, "load_average": 0.1}
    return head | {"recipe": "images", "variants": every}


def cell(batch: int = 1, threads: int = 1, **speeds: float) -> dict[str, Any]:
    times_s = {name.replace("_", "-"): value for name, value in speeds.items()} or SPEEDS
    blocks = {name: [value * (1 + 0.01 * (place % 3 - 1)) for place in range(9)] for name, value in times_s.items()}
    return {"batch": batch, "threads": threads, "predicted_s": dict(times_s), "blocks_s": blocks}


def entry(found: Any) -> dict[str, Any]:  # noqa: ANN401 - each part has its own form
    machine = {"cpu": "a processor", "cores": 2}
    run = {"command": "bench", "commit": "abc", "date": "2026-11-22", "machine": machine, "load_average": 0.1}
    return {"build_key": KEY, "run": run, "found": found}


def results() -> dict[str, Any]:
    images = facts(
        full=variant("full", None, 40_000_000, 400),
        quantized=variant("quantized", "full", 10_000_000, 400),
        pruned=variant("pruned", "full", 10_000_000, 100),
        pruned_quantized=variant("pruned-quantized", "pruned", 2_500_000, 100),
        distilled=variant("distilled", "full", 2_000_000, 10),
        distilled_quantized=variant("distilled-quantized", "distilled", 500_000, 10, lost=900, gained=200),
    )
    download = facts(
        full=variant("full", None, 40_000_000, 400),
        download=variant("pruned-quantized", "full", 1_000_000, 400, is_packed=True, is_int8=False),
    )
    text = facts(
        full=variant("full", None, 40_000_000, 400),
        distilled_quantized=variant("distilled-quantized", "full", 1_000_000, 10, is_int8=False),
    )
    same = {name: {"lost": 20, "gained": 20, "right": 19_000} for name in ("full", "pruned", "pruned-quantized")}
    fresh = {"rows": 20_000, "variants": same}
    return {
        "build": {"images": images, "text": text, "digits-download": download},
        "accuracy": {"images": entry(fresh)},
        "saturation": {"images": entry({"quantized": {"rows": 512, "agreement": 1.0, "loss": 0.0}})},
        "latency": {
            "images": entry([cell(), cell(batch=4)]),
            "text": entry([cell(full=0.02, distilled_quantized=0.002)]),
        },
    }
