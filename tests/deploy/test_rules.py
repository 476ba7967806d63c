"""The alert rules as they are shipped: promtool's verdict, and that each has all that whoever is woken by it needs."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import Any, Final

import pytest

from tests.deploy.monitoring import PROMTOOL, ROOT, SHIPPED, needs_promtool, read_yaml, shipped_rules
from tests.deploy.shortened import duration_ms, shorten_expression, shortened

AMTOOL: Final = shutil.which("amtool")
TEST_FILES: Final = sorted((SHIPPED / "tests").glob("*.yaml"))
RULES: Final = shipped_rules()
ALERTS: Final = [rule for rule in RULES if "alert" in rule]
RUNBOOK: Final = "docs/runbook.md"


def run(*command: str) -> None:
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert result.returncode == 0, result.stdout + result.stderr


@needs_promtool
def test_prometheus_takes_the_example_configuration_and_its_rules() -> None:
    run(str(PROMTOOL), "check", "config", str(SHIPPED / "prometheus.yaml"))


@pytest.mark.skipif(AMTOOL is None, reason="amtool is not installed (Debian: prometheus-alertmanager)")
def test_alertmanager_takes_the_example_configuration() -> None:
    run(str(AMTOOL), "check-config", str(SHIPPED / "alertmanager.yaml"))


@needs_promtool
@pytest.mark.parametrize("path", TEST_FILES, ids=lambda path: path.stem)
def test_alerts_fire_where_they_must_and_nowhere_else(path: Any) -> None:  # noqa: ANN401 - a path, from a list of them
    run(str(PROMTOOL), "test", "rules", str(path))


def test_every_alert_is_tried_where_it_must_fire_and_where_it_must_not() -> None:
    cases = [
        case for path in TEST_FILES for test in read_yaml(path)["tests"] for case in test.get("alert_rule_test", [])
    ]
    names = {alert["alert"] for alert in ALERTS}
    assert {case["alertname"] for case in cases if case["exp_alerts"]} == names
    assert {case["alertname"] for case in cases if not case["exp_alerts"]} == names


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_alert_says_how_bad_it_is_what_it_saw_and_where_to_read_on(alert: dict[str, Any]) -> None:
    assert set(alert["annotations"]) == {"summary", "description", "runbook_url"}
    assert alert["labels"]["severity"] in {"critical", "warning"}
    assert alert["annotations"]["runbook_url"] == f"{RUNBOOK}#{alert['alert'].lower()}"
    # An absent series has no labels and no value.
    assert "{{" in alert["annotations"]["description"] or "absent" in alert["expr"]


def test_runbook_has_a_section_for_each_alert_and_no_other() -> None:
    sections = re.findall(r"^## (Tiergate\w+)$", (ROOT / RUNBOOK).read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(sections) == sorted(alert["alert"] for alert in ALERTS)


def test_runbook_says_of_each_alert_what_it_means_how_to_look_what_to_do_and_how_to_silence_it() -> None:
    text = (ROOT / RUNBOOK).read_text(encoding="utf-8")
    for section in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        name = section.split("\n", 1)[0]
        assert re.findall(r"^\*\*(\w+)\.\*\*", section, re.MULTILINE) == ["Means", "Look", "Do", "Silence"], name
        assert f"alertname={name}" in section
        assert "```promql" in section, name
    links = set(re.findall(r"\(#(\w+)\)", text))
    assert links <= {alert["alert"].lower() for alert in ALERTS}


def test_every_window_of_the_burn_rate_has_the_same_rules() -> None:
    by_window: dict[str, list[str]] = {}
    for rule in RULES:
        if found := re.fullmatch(
            r"model:tiergate_(?:missed|offered|burn_rate):(?:increase)?(\d+[mhd])", rule.get("record", "")
        ):
            window = found[1]
            by_window.setdefault(window, []).append(f"{rule['record']}: {rule['expr']}".replace(window, "WINDOW"))
    assert list(by_window) == ["5m", "30m", "1h", "6h", "3d"]
    assert len({tuple(rules) for rules in by_window.values()}) == 1


def test_rules_are_shortened_in_their_times_only() -> None:
    for rule in RULES:
        quick = shorten_expression(rule["expr"], 60)
        windows = re.findall(r"\[(\w+)\]|offset (\w+)", rule["expr"])
        quick_windows = re.findall(r"\[(\w+)\]|offset (\w+)", quick)
        assert [duration_ms(a or b) for a, b in windows] == [60 * duration_ms(a or b) for a, b in quick_windows]
        without = re.compile(r"(?<=\[)\w+(?=\])|(?<=offset )\w+")
        assert without.sub("", quick) == without.sub("", rule["expr"])


def test_no_rule_counts_seconds_by_a_number() -> None:
    assert not [rule["expr"] for rule in RULES if re.search(r"\b(60|300|600|900|1800|3600|86400)\b", rule["expr"])]


def test_times_of_configurations_are_shortened_and_nothing_else() -> None:
    quick = shortened({"route": {"group_wait": "30s", "routes": [{"repeat_interval": "1h"}]}, "job": "30s"}, 60)
    assert quick == {"route": {"group_wait": "500ms", "routes": [{"repeat_interval": "60000ms"}]}, "job": "30s"}
    with pytest.raises(ValueError, match="no duration"):
        shortened({"for": "soon"}, 60)
