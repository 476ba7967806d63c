# ruff: noqa: INP001 - deploy is no package of ours: this is run from a clone
"""How accurate each variant is believed to be, by which evidence, and what was done about it."""

from __future__ import annotations

from typing import Final

from deploy.grafana.panels import Page, Query, Row, graph, stacked, tile
from deploy.grafana.queries import OURS, VARIANT, rate

_WORST: Final = "Of several gateways, the worst."
_ANSWERED: Final = rate("tiergate_requests_total", "model, variant", f'{OURS}, outcome="ok"')
_ROUTED: Final = f"min by (model, variant) (tiergate_accuracy_routed_ratio{{{OURS}}})"

DRIFT: Final = Page(
    "tiergate-drift",
    "tiergate: accuracy and drift",
    "How accurate each variant is believed to be, by which evidence, and what was done about it.",
    (
        Row(
            "Now",
            (
                tile("Quarantined", "short", Query(f"sum(tiergate_variant_quarantined{{{OURS}}})"), limit=1),
                tile("Demoted", "short", Query(f'sum(tiergate_drift_state{{{OURS}, state="demoted"}})'), limit=1),
                tile("Warned of", "short", Query(f'sum(tiergate_drift_state{{{OURS}, state="warned"}})'), limit=1),
                tile("Highest score of a variant", "short", Query(f"max(tiergate_drift_score{{{OURS}}})"), limit=1),
                tile(
                    "Highest score of an input", "short", Query(f"max(tiergate_input_drift_score{{{OURS}}})"), limit=1
                ),
                tile(
                    "Accuracy of answers",
                    "percentunit",
                    Query(
                        f"sum({_ANSWERED} * on (model, variant) {_ROUTED}) / sum({_ANSWERED})",
                    ),
                    "Mean of the accuracies that routing reckons with, by who answered.",
                ),
            ),
        ),
        Row(
            "Accuracy",
            (
                graph(
                    "Believed now",
                    "percentunit",
                    Query(
                        f'min by (model, variant) (tiergate_accuracy_estimate_ratio{{{OURS}, bound="value"}})', VARIANT
                    ),
                    about=f"By labels, or else without them. {_WORST}",
                ),
                graph(
                    "By the manifest",
                    "percentunit",
                    Query(f"min by (model, variant) (tiergate_accuracy_claimed_ratio{{{OURS}}})", VARIANT),
                ),
                graph(
                    "Routed by",
                    "percentunit",
                    Query(_ROUTED, VARIANT),
                    about=f"The manifest's, until a variant is demoted. {_WORST}",
                ),
                graph(
                    "Lowest that is believed possible",
                    "percentunit",
                    Query(
                        f'min by (model, variant) (tiergate_accuracy_estimate_ratio{{{OURS}, bound="low"}})', VARIANT
                    ),
                    about="Lower end of the 95 % interval.",
                ),
                graph(
                    "Agreement with full, in shadow runs",
                    "percentunit",
                    Query(f"min by (model, variant) (tiergate_agreement_ratio{{{OURS}}})", VARIANT),
                    about=_WORST,
                ),
                graph(
                    "Agreement that the manifest allows",
                    "percentunit",
                    Query(f"min by (model, variant) (tiergate_agreement_allowed_ratio{{{OURS}}})", VARIANT),
                ),
            ),
        ),
        Row(
            "Evidence",
            (
                graph(
                    "Scores of variants",
                    "short",
                    Query(
                        f"max by (model, variant, detector) (tiergate_drift_score{{{OURS}}})",
                        f"{VARIANT} {{{{detector}}}}",
                    ),
                    about="1 is where a detector speaks up.",
                    limit=1,
                ),
                graph(
                    "Scores of inputs",
                    "short",
                    Query(f"max by (model, input) (tiergate_input_drift_score{{{OURS}}})", "{{model}} {{input}}"),
                    limit=1,
                ),
                stacked(
                    "Variants by state",
                    "short",
                    Query(f"sum by (state) (tiergate_drift_state{{{OURS}}})", "{{state}}"),
                ),
                stacked("Shadow runs", "cps", Query(rate("tiergate_shadow_runs_total", "outcome"), "{{outcome}}")),
                graph(
                    "Share run in the shadow",
                    "percentunit",
                    Query(f"max by (model, variant) (tiergate_shadow_share_ratio{{{OURS}}})", VARIANT),
                ),
                stacked("Labels", "cps", Query(rate("tiergate_feedback_total", "outcome"), "{{outcome}}")),
            ),
        ),
    ),
)
