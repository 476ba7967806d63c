"""The real Prometheus and Alertmanager watch a real gateway: a fault is put in, and the alert comes to a webhook.

The rules and configurations are those of deploy/prometheus, a minute in a second (``tests.deploy.shortened``).
"""

from __future__ import annotations

import json
import math
import re
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.deploy.monitoring import MINUTE_IN_A_SECOND, ROOT, Prometheus, needs_monitoring, shipped_rules, watching
from tests.deploy.shortened import shorten_expression
from tests.integration.gateway_process import rewrite, running_gateway, write_sums

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.integration.gateway_process import GatewayProcess

pytestmark = needs_monitoring

SOUND = "models: {sums: {default_budget_ms: 900000}}"
BROKEN = "models: {sums: {default_budget_ms: -1}}"
# Full really takes tens of milliseconds; with nothing else allowed every answer is late.
TOO_SLOW = "models: {sums: {default_budget_ms: 2, variants: [full]}}"
DRIFT = "/v2/models/sums/variants/quantized/drift"
ASKED = "asked"
BETWEEN_REQUESTS_S = 0.05
PATIENCE_S = 300.0
# What this test puts in. Others may fire where a busy machine is slow to answer four scrapes a second.
FAULTS = {"TiergatePolicyReloadFailed", "TiergateVariantQuarantined", "TiergateBudgetBurnFast"}
# Shadow runs wait for an idle machine, inputs are compared where the build has left a reference, and every variant of
# this gateway is its own.
MAY_BE_EMPTY = {
    "tiergate_agreement_ratio",
    "tiergate_endpoint_calls_total",
    "tiergate_endpoint_ejected",
    "tiergate_endpoint_inflight_calls",
    "tiergate_endpoint_up",
    "tiergate_input_drift_score",
    "tiergate_remote_panic",
    "tiergate_remote_retries_refused_total",
    "tiergate_remote_retries_total",
}


@contextmanager
def traffic(gateway: GatewayProcess) -> Iterator[None]:
    """Ask ten to twenty times a second, one question after the other, while the block runs."""
    done = threading.Event()
    tensor = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1.0, 1.0, 1.0, 1.0]}
    question = json.dumps({"id": ASKED, "inputs": [tensor]}).encode()

    def ask() -> None:
        while not done.wait(BETWEEN_REQUESTS_S):
            gateway.call("POST", "/v2/models/sums/infer", question, {"Content-Type": "application/json"})

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        yield
    finally:
        done.set()
        asking.join()


def firing(prometheus: Prometheus) -> set[str]:
    return {series["metric"]["alertname"] for series in prometheus.query('ALERTS{alertstate="firing"}')}


def expressions_of_dashboards() -> dict[str, str]:
    """Return every expression by where it stands, with everything chosen, a minute in a second."""
    found = {}
    for path in sorted((ROOT / "deploy" / "grafana").glob("*.json")):
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel.get("targets", ()):
                asked = re.sub(r"\$(job|model)\b", ".*", target["expr"]).replace("$__rate_interval", "5m")
                found[f"{path.stem}: {panel['title']} {target['refId']}"] = shorten_expression(
                    asked, MINUTE_IN_A_SECOND
                )
    return found


def expressions_of_runbook() -> list[str]:
    text = (ROOT / "docs" / "runbook.md").read_text()
    return [found.strip() for found in re.findall(r"```promql\n(.*?)```", text, re.DOTALL)]


def metrics_in(expression: str) -> set[str]:
    """Return the names of the metrics that an expression reads."""
    outside_of_strings = re.sub(r'"[^"]*"', "", expression)
    names = re.findall(r"[a-zA-Z_:][a-zA-Z0-9_:]*", outside_of_strings)
    return {name for name in names if "tiergate_" in name or name.startswith(("tiergate:", "process_", "python_"))}


def without_data(prometheus: Prometheus) -> set[str]:
    """Return the expressions of the dashboards that have no number to show, less those that may have none yet."""
    return {
        where
        for where, asked in expressions_of_dashboards().items()
        if not any(math.isfinite(float(series["value"][1])) for series in prometheus.query(asked))
        and not metrics_in(asked) & MAY_BE_EMPTY
    }


def metrics_of(gateway: GatewayProcess) -> set[str]:
    """Return the name of every metric that a gateway offers, with the suffixes of counters and histograms."""
    lines = gateway.call("GET", "/metrics")[2].decode().splitlines()
    kinds = dict(line.split()[2:4] for line in lines if line.startswith("# TYPE"))
    parts = {
        name + part for name, kind in kinds.items() if kind == "histogram" for part in ("_bucket", "_sum", "_count")
    }
    return set(kinds) | parts


def control(gateway: GatewayProcess, path: str, **wanted: object) -> None:
    """Post to the admin listener."""
    body = json.dumps(wanted).encode()
    status, _, content = gateway.call("POST", path, body, {"Content-Type": "application/json"}, where=gateway.admin)
    assert status == 200, content


def show_everything(gateway: GatewayProcess, prometheus: Prometheus) -> None:
    """See that every expression that people are shown can be evaluated, has data, and reads metrics that exist."""
    missing, end_s = without_data(prometheus), time.monotonic() + PATIENCE_S
    while missing and time.monotonic() < end_s:  # a scrape that a busy machine misses leaves holes of a moment
        missing &= without_data(prometheus)
    assert not missing
    recorded = {rule["record"] for rule in shipped_rules() if "record" in rule}
    offered = metrics_of(gateway) | recorded | {"up"}
    runbook = expressions_of_runbook()
    for asked in runbook:
        prometheus.query(asked)
    for asked in (*expressions_of_dashboards().values(), *runbook, *(rule["expr"] for rule in shipped_rules())):
        assert metrics_in(asked) <= offered, asked


@pytest.mark.timeout(1800)
def test_faults_of_a_gateway_arrive_at_a_webhook_and_dashboards_have_data(tmp_path: Path) -> None:
    write_sums(tmp_path / "repository")
    policy = tmp_path / "policy.yaml"
    policy.write_text(SOUND)
    flags = ["--policy", str(policy), "--memory-budget-mb", "64", "--predictions", str(tmp_path / "predictions")]
    with (
        running_gateway(tmp_path / "repository", *flags) as gateway,
        watching(gateway, tmp_path) as (prometheus, hook),
    ):
        with traffic(gateway):
            # However few a second this machine answers: with more asked for, a busy one would never get there.
            prometheus.wait_until("model:tiergate_offered:increase5m > 1")
            (burned,) = prometheus.wait_until('model:tiergate_burn_rate:5m{model="sums"}')
            assert float(burned["value"][1]) == 0
            assert not firing(prometheus) & FAULTS

            rewrite(policy, BROKEN)
            refused = hook.wait_for("TiergatePolicyReloadFailed")
            assert refused.receiver == "tickets"
            assert refused.annotations["runbook_url"] == "docs/runbook.md#tiergatepolicyreloadfailed"

            control(gateway, DRIFT, action="quarantine")
            out = hook.wait_for("TiergateVariantQuarantined")
            assert (out.receiver, out.labels["variant"]) == ("pager", "quantized")
            control(gateway, DRIFT, action="restore")

            # A label that comes late; an answer of one number has one class.
            control(gateway, "/v2/models/sums/feedback", labels=[{"id": ASKED, "label": 0}])
            prometheus.wait_until("tiergate_accuracy_estimate_ratio >= 0")
            show_everything(gateway, prometheus)

            rewrite(policy, TOO_SLOW)
            burning = hook.wait_for("TiergateBudgetBurnFast")
            assert (burning.receiver, burning.labels["model"]) == ("pager", "sums")

            rewrite(policy, SOUND)
            hook.wait_for("TiergateBudgetBurnFast", "resolved")
        gateway.stop()
        down = hook.wait_for("TiergateTargetDown")
        assert down.labels["instance"] == gateway.http
        hook.wait_for("TiergateNoData")
