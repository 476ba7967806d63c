# ruff: noqa: INP001 - deploy is no package of ours: this is run from a clone
"""What is asked, what is answered, by whom, and how quickly."""

from __future__ import annotations

from typing import Final

from deploy.grafana.panels import Page, Query, Row, graph, stacked, tile
from deploy.grafana.queries import JOB, OURS, VARIANT, met, quantile, rate

OVERVIEW: Final = Page(
    "tiergate-overview",
    "tiergate: overview",
    "What is asked, what is answered, by whom, and how quickly.",
    (
        Row(
            "Now",
            (
                tile("Requests", "reqps", Query(f"sum(rate(tiergate_requests_total{{{OURS}}}[$__rate_interval]))")),
                tile("Budgets met, 5 min", "percentunit", Query(met("5m")), "Refused requests count as missed."),
                tile("p99, slowest variant", "s", Query(f"max({quantile(0.99, 'tiergate_request_duration_seconds')})")),
                tile("Queued", "short", Query(f"sum(tiergate_queue_depth{{{OURS}}})")),
                tile(
                    "Lanes busy",
                    "percentunit",
                    Query(f"avg(rate(tiergate_lane_busy_seconds_total{{{JOB}}}[$__rate_interval]))"),
                    limit=0.95,
                ),
                tile(
                    "Alerts firing",
                    "short",
                    Query('count(ALERTS{alertname=~"Tiergate.*", alertstate="firing"}) or vector(0)'),
                    limit=1,
                ),
            ),
        ),
        Row(
            "Requests",
            (
                stacked("By outcome", "reqps", Query(rate("tiergate_requests_total", "outcome"), "{{outcome}}")),
                graph(
                    "Budgets met by model, 5 min",
                    "percentunit",
                    Query(
                        f"1 - model:tiergate_missed:increase5m{{{OURS}}} / model:tiergate_offered:increase5m{{{OURS}}}",
                        "{{model}}",
                    ),
                    about="Share of what was offered. No model: requests turned away before they were read.",
                ),
                stacked(
                    "Refused for load, and past their deadline",
                    "reqps",
                    Query(rate("tiergate_shed_total", "criticality, reason"), "{{criticality}}: {{reason}}"),
                    Query(rate("tiergate_expired_total", "state"), "deadline while {{state}}"),
                ),
            ),
        ),
        Row(
            "Latency",
            (
                graph(
                    "Total, p50",
                    "s",
                    Query(quantile(0.5, "tiergate_request_duration_seconds"), VARIANT),
                    about="Median.",
                ),
                graph("Total, p99", "s", Query(quantile(0.99, "tiergate_request_duration_seconds"), VARIANT)),
                graph("Queue, p99", "s", Query(quantile(0.99, "tiergate_queue_duration_seconds"), VARIANT)),
                graph("Compute, p99", "s", Query(quantile(0.99, "tiergate_compute_duration_seconds"), VARIANT)),
                graph(
                    "Predicted over real compute, median",
                    "short",
                    Query(quantile(0.5, "tiergate_predicted_over_actual_ratio"), VARIANT),
                    about="A prediction is a high quantile with a margin, so a little over 1 is right.",
                ),
                graph(
                    "Choosing a run, p99",
                    "s",
                    Query(quantile(0.99, "tiergate_routing_decision_seconds", "model"), "{{model}}"),
                ),
            ),
        ),
        Row(
            "Who answers",
            (
                stacked(
                    "Share of each variant",
                    "percentunit",
                    Query(
                        rate("tiergate_requests_total", "model, variant", f'{OURS}, outcome="ok"')
                        + " / ignoring(variant) group_left "
                        + rate("tiergate_requests_total", "model", f'{OURS}, outcome="ok"'),
                        VARIANT,
                    ),
                    about="Of the answers of its model; choose one model to read it.",
                ),
                stacked("Why", "reqps", Query(rate("tiergate_routing_decisions_total", "reason"), "{{reason}}")),
                stacked(
                    "Regret",
                    "short",
                    Query(rate("tiergate_regret_total", "model, cause"), "{{model}}: {{cause}}"),
                    about="Accuracy given up per second against what the budgets alone allowed, summed over requests.",
                ),
            ),
        ),
        Row(
            "Queue and lanes",
            (
                graph(
                    "Queued by model", "short", Query(f"sum by (model) (tiergate_queue_depth{{{OURS}}})", "{{model}}")
                ),
                graph(
                    "Lanes busy, each",
                    "percentunit",
                    Query(
                        f"rate(tiergate_lane_busy_seconds_total{{{JOB}}}[$__rate_interval])", "{{instance}} {{lane}}"
                    ),
                    limit=0.95,
                ),
                graph(
                    "Rows in a run, mean",
                    "short",
                    Query(
                        rate("tiergate_batch_size_sum", "model, variant")
                        + " / "
                        + rate("tiergate_batch_size_count", "model, variant"),
                        VARIANT,
                    ),
                ),
                graph("Inside", "short", Query(f"tiergate_inflight_requests{{{JOB}}}", "{{instance}}")),
                stacked("Cascades", "reqps", Query(rate("tiergate_cascade_total", "outcome"), "{{outcome}}")),
                graph(
                    "Later than the p99 they claimed",
                    "percentunit",
                    Query(
                        f"variant:tiergate_p99_claim_exceeded:increase1h{{{OURS}}}"
                        f" / variant:tiergate_answered:increase1h{{{OURS}}}",
                        VARIANT,
                    ),
                    about="Share of the answers of the last hour; 1 % is right.",
                    limit=0.02,
                ),
                graph("Failures", "cps", Query(rate("tiergate_variant_failures_total", "model, variant"), VARIANT)),
            ),
        ),
    ),
)
