# ruff: noqa: INP001 - deploy is no package of ours: this is run from a clone
"""How fast the error budget of the objective is spent."""

from __future__ import annotations

from typing import Final

from deploy.grafana.panels import Page, Query, Row, graph, stacked, tile
from deploy.grafana.queries import LOST, OURS, VARIANT, met, rate

SLO: Final = Page(
    "tiergate-slo",
    "tiergate: error budget",
    "How fast the error budget is spent. Missed: late, refused for load, past the deadline, or failed.",
    (
        Row(
            "Objective",
            (
                tile(
                    "Objective", "percentunit", Query("tiergate:budget_objective:ratio"), "Budgets met, over 30 days."
                ),
                tile("Budgets met, 1 h", "percentunit", Query(met("1h"))),
                tile("Budgets met, 3 d", "percentunit", Query(met("3d"))),
                tile("Burn rate, 1 h", "short", Query(f"max(model:tiergate_burn_rate:1h{{{OURS}}})"), limit=14.4),
                tile("Burn rate, 6 h", "short", Query(f"max(model:tiergate_burn_rate:6h{{{OURS}}})"), limit=6),
                tile(
                    "Spent in 3 d",
                    "percentunit",
                    Query(f"max(model:tiergate_burn_rate:3d{{{OURS}}}) * 3 / 30"),
                    "Share of the 30 days' error budget, of the worst model.",
                    limit=0.1,
                ),
            ),
        ),
        Row(
            "Burn rates",
            (
                graph(
                    "Fast: 1 h and 5 min",
                    "short",
                    Query(f"model:tiergate_burn_rate:1h{{{OURS}}}", "{{model}} 1 h"),
                    Query(f"model:tiergate_burn_rate:5m{{{OURS}}}", "{{model}} 5 min"),
                    limit=14.4,
                ),
                graph(
                    "Medium: 6 h and 30 min",
                    "short",
                    Query(f"model:tiergate_burn_rate:6h{{{OURS}}}", "{{model}} 6 h"),
                    Query(f"model:tiergate_burn_rate:30m{{{OURS}}}", "{{model}} 30 min"),
                    limit=6,
                ),
                graph(
                    "Slow: 3 d and 6 h",
                    "short",
                    Query(f"model:tiergate_burn_rate:3d{{{OURS}}}", "{{model}} 3 d"),
                    Query(f"model:tiergate_burn_rate:6h{{{OURS}}}", "{{model}} 6 h"),
                    limit=1,
                ),
            ),
        ),
        Row(
            "Where it goes",
            (
                stacked(
                    "Late answers, by variant",
                    "reqps",
                    Query(rate("tiergate_budget_missed_total", "model, variant"), VARIANT),
                ),
                stacked(
                    "No answer, by outcome",
                    "reqps",
                    Query(
                        rate("tiergate_requests_total", "model, outcome", f"{OURS}, {LOST}"), "{{model}} {{outcome}}"
                    ),
                ),
                graph(
                    "Alerts",
                    "short",
                    Query(
                        'sum by (alertname, severity) (ALERTS{alertname=~"Tiergate.*", alertstate="firing"})',
                        "{{alertname}}",
                    ),
                ),
            ),
        ),
    ),
)
