# ruff: noqa: INP001 - deploy is no package of ours: this is run from a clone
"""What differs from node to node, and the servers that variants run on elsewhere."""

from __future__ import annotations

from typing import Final

from deploy.grafana.panels import Page, Query, Row, graph, stacked
from deploy.grafana.queries import JOB, OURS, VARIANT, rate

_SERVER: Final = f"{VARIANT} {{{{endpoint}}}}"

FLEET: Final = Page(
    "tiergate-fleet",
    "tiergate: nodes and servers",
    "What differs from node to node, and the servers that variants run on elsewhere.",
    (
        Row(
            "Nodes",
            (
                graph(
                    "Not known to be right here",
                    "short",
                    Query(
                        f"sum by (treatment, model, variant) (tiergate_variant_unproven{{{OURS}}})",
                        f"{VARIANT}: {{{{treatment}}}}",
                    ),
                    about="Gateways on whose processor an int8 variant is not proven, and what they do about it.",
                ),
                graph(
                    "Median run by node",
                    "s",
                    Query(
                        "histogram_quantile(0.5, "
                        + rate("tiergate_compute_duration_seconds_bucket", "instance, model, variant, le")
                        + ")",
                        f"{VARIANT} {{{{instance}}}}",
                    ),
                    about="Nodes that differ are no fault: each pod learns how fast it is.",
                ),
                graph(
                    "Lanes busy by node",
                    "percentunit",
                    Query(f"instance:tiergate_lane_busy:ratio15m{{{JOB}}}", "{{instance}}"),
                ),
            ),
        ),
        Row(
            "Servers of remote variants",
            (
                graph(
                    "Servers up",
                    "short",
                    Query(
                        f"sum by (instance, model, variant) (tiergate_endpoint_up{{{OURS}}})",
                        f"{VARIANT} {{{{instance}}}}",
                    ),
                    about="Seen from each gateway.",
                ),
                graph(
                    "Ejected for their failures",
                    "percentunit",
                    Query(f"avg_over_time(tiergate_endpoint_ejected{{{OURS}}}[10m])", _SERVER),
                    about="Share of ten minutes.",
                    limit=0.5,
                ),
                graph(
                    "Panic",
                    "short",
                    Query(f"tiergate_remote_panic{{{OURS}}}", f"{VARIANT} {{{{instance}}}}"),
                    about="1 where so many servers are ejected that ejections do not count.",
                    limit=1,
                ),
                stacked(
                    "Calls by outcome",
                    "cps",
                    Query(rate("tiergate_endpoint_calls_total", "outcome"), "{{outcome}}"),
                ),
                graph(
                    "Calls under way",
                    "short",
                    Query(f"sum by (endpoint) (tiergate_endpoint_inflight_calls{{{OURS}}})", "{{endpoint}}"),
                ),
                graph(
                    "Repeated calls",
                    "cps",
                    Query(rate("tiergate_remote_retries_total", "model, variant"), f"{VARIANT}: repeated"),
                    Query(rate("tiergate_remote_retries_refused_total", "model, variant"), f"{VARIANT}: budget spent"),
                    about="At most a tenth of the calls are repeated; the rest goes to other variants.",
                ),
            ),
        ),
    ),
)
