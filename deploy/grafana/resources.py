# ruff: noqa: INP001 - deploy is no package of ours: this is run from a clone
"""What the process takes, and which variants take it."""

from __future__ import annotations

from typing import Final

from deploy.grafana.panels import Page, Query, Row, graph, stacked
from deploy.grafana.queries import JOB, OURS, VARIANT, rate

RESOURCES: Final = Page(
    "tiergate-resources",
    "tiergate: memory and CPU",
    "What the process takes, and which variants take it.",
    (
        Row(
            "Memory",
            (
                graph(
                    "Resident memory of the process",
                    "bytes",
                    Query(f"process_resident_memory_bytes{{{JOB}}}", "{{instance}}"),
                ),
                stacked(
                    "Held by variants",
                    "bytes",
                    Query(f'tiergate_variant_memory_bytes{{{OURS}, kind="loaded"}}', f"{VARIANT} {{{{instance}}}}"),
                    about="By the manifests' measured sizes.",
                ),
                graph(
                    "Beyond what variants may take",
                    "bytes",
                    Query(f"instance:tiergate_memory_beyond_variants:bytes{{{JOB}}}", "{{instance}}"),
                    about="Resident, less the memory budget, or without one less what variants hold.",
                    limit=512 * 2**20,
                ),
                graph(
                    "Comings and goings",
                    "cps",
                    Query(rate("tiergate_variant_loads_total", "cause"), "loaded: {{cause}}"),
                    Query(rate("tiergate_variant_evictions_total", "model"), "evicted: {{model}}"),
                    about="Loads on demand hold requests up: where they are frequent, the memory budget is too small.",
                ),
            ),
        ),
        Row(
            "CPU",
            (
                graph(
                    "CPU of the process",
                    "short",
                    Query(f"rate(process_cpu_seconds_total{{{JOB}}}[$__rate_interval])", "{{instance}}"),
                    about="Cores.",
                ),
                stacked(
                    "CPU of runs",
                    "short",
                    Query(rate("tiergate_variant_cpu_seconds_total", "model, variant"), VARIANT),
                    about="Cores, by variant.",
                ),
                graph(
                    "CPU of an answer",
                    "s",
                    Query(
                        rate("tiergate_variant_cpu_seconds_total", "model, variant")
                        + " / "
                        + rate("tiergate_requests_total", "model, variant", f'{OURS}, outcome="ok"'),
                        VARIANT,
                    ),
                    about="CPU-seconds of runs for each answer.",
                ),
            ),
        ),
        Row(
            "Process",
            (
                graph("Open files", "short", Query(f"process_open_fds{{{JOB}}}", "{{instance}}")),
                graph(
                    "Garbage collections",
                    "cps",
                    Query(rate("python_gc_collections_total", "instance, generation", JOB), "{{generation}}"),
                ),
                graph("Uptime", "s", Query(f"time() - process_start_time_seconds{{{JOB}}}", "{{instance}}")),
            ),
        ),
    ),
)
