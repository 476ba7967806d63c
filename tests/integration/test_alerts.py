"""The real Prometheus and Alertmanager watch a real gateway: a fault is put in, and the alert comes to a webhook.

The rules and configurations are those of deploy/prometheus, a minute in a second (``tests.deploy.shortened``).
"""

from __future__ import annotations

import json
import math
import re
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.deploy.monitoring import MINUTE_IN_A_SECOND, ROOT, Prometheus, needs_monitoring, shipped_rules, watching
from tests.deploy.shortened import shorten_expression
from tests.integration.clients import Question, ask_plain
from tests.integration.gateway_process import running_gateway, write_sums

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.integration.gateway_process import GatewayProcess

pytestmark = needs_monitoring

SOUND = "models: {sums: {default_budget_ms: 60000}}"
BROKEN = "models: {sums: {default_budget_ms: -1}}"
# Full really takes tens of milliseconds; with nothing else allowed every answer is late.
TOO_SLOW = "models: {sums: {default_budget_ms: 2, variants: [full]}}"
BETWEEN_REQUESTS_S = 0.05


@contextmanager
def traffic(gateway: GatewayProcess) -> Iterator[None]:
    """Ask about ten times a second, one question after the other, while the block runs."""
    done = threading.Event()

    def ask() -> None:
        while not done.wait(BETWEEN_REQUESTS_S):
            ask_plain(gateway, Question())

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


def metrics_in(expression: str) -> set[str]:
    """Return the names of the metrics that an expression reads."""
    outside_of_strings = re.sub(r'"[^"]*"', "", expression)
    names = re.findall(r"[a-zA-Z_:][a-zA-Z0-9_:]*", outside_of_strings)
    return {name for name in names if "tiergate_" in name or name.startswith(("tiergate:", "process_", "python_"))}


def without_data(prometheus: Prometheus) -> set[str]:
    """Return the expressions of the dashboards that have no number to show."""
    return {
        where
        for where, asked in expressions_of_dashboards().items()
        if not any(math.isfinite(float(series["value"][1])) for series in prometheus.query(asked))
    }


def test_faults_of_a_gateway_arrive_at_a_webhook_and_dashboards_have_data(tmp_path: Path) -> None:
    write_sums(tmp_path / "repository")
    policy = tmp_path / "policy.yaml"
    policy.write_text(SOUND)
    with (
        running_gateway(tmp_path / "repository", "--policy", str(policy)) as gateway,
        watching(gateway, tmp_path) as (prometheus, hook),
    ):
        with traffic(gateway):
            prometheus.wait_until("model:tiergate_offered:increase5m > 20")
            assert prometheus.value("model:tiergate_burn_rate:5m") == 0
            assert not firing(prometheus)

            policy.write_text(BROKEN)
            refused = hook.wait_for("TiergatePolicyReloadFailed")
            assert refused.receiver == "tickets"
            assert refused.annotations["runbook_url"] == "docs/runbook.md#tiergatepolicyreloadfailed"

            # A rate needs two scrapes and a rule two evaluations: the slowest come after two seconds.
            while missing := without_data(prometheus):
                assert not missing, missing
            recorded_or_scraped = prometheus.metric_names()
            for asked in (*expressions_of_dashboards().values(), *(rule["expr"] for rule in shipped_rules())):
                assert metrics_in(asked) <= recorded_or_scraped, asked

            policy.write_text(TOO_SLOW)
            burning = hook.wait_for("TiergateBudgetBurnFast")
            assert (burning.receiver, burning.labels["model"]) == ("pager", "sums")

            policy.write_text(SOUND)
            hook.wait_for("TiergateBudgetBurnFast", "resolved")
        gateway.stop()
        down = hook.wait_for("TiergateTargetDown")
        assert down.labels["instance"] == gateway.http
        hook.wait_for("TiergateNoData")
