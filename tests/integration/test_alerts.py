"""The real Prometheus and Alertmanager watch a real gateway: a fault is put in, and the alert comes to a webhook.

The rules and configurations are those of deploy/prometheus, a minute in a second (``tests.deploy.shortened``).
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.deploy.monitoring import Prometheus, Webhook, needs_monitoring, watching
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


def test_faults_of_a_gateway_arrive_at_a_webhook(tmp_path: Path) -> None:
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

            policy.write_text(TOO_SLOW)
            burning = hook.wait_for("TiergateBudgetBurnFast")
            assert (burning.receiver, burning.labels["model"]) == ("pager", "sums")

            policy.write_text(SOUND)
            hook.wait_for("TiergateBudgetBurnFast", "resolved")
        gateway.stop()
        down = hook.wait_for("TiergateTargetDown")
        assert down.labels["instance"] == gateway.http
        hook.wait_for("TiergateNoData")
