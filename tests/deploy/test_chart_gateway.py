"""The chart beside the code: the gateway takes its files, and its queries ask for metrics that exist."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import trustme
import yaml

from service.cli import build_parser
from service.domain.policy_file import PolicyFile
from service.domain.remotes_file import RemotesFile
from service.engine.policy_reader import read_policy
from service.engine.remotes_reader import read_certificates, read_remotes
from service.settings import Settings, read_settings
from service.telemetry.metrics import Metrics
from tests.builders import ModelPlan, write_model
from tests.deploy.chart import CASES, CHART, ROOT, case_values, pods

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.deploy.chart import Object, Release

ADAPTER = ROOT / "deploy" / "helm" / "prometheus-adapter-values.yaml"


def gateway(release: Release) -> Object:
    """Return the gateway's container."""
    found: list[Object] = [
        container
        for _, spec in pods(release)
        for container in spec["containers"]
        if container["name"] in ("gateway", "kserve-container")
    ]
    assert len(found) == 1
    return found[0]


def files(release: Release, folder: Path) -> Path:
    """Write what the gateway finds below /etc/tiergate, the token aside."""
    names = {item["metadata"]["name"].rpartition("-")[2] for item in release.of("ConfigMap")}
    for suffix in ("settings", "policy", *(names & {"remotes"})):
        (folder / suffix).mkdir()
        for name, content in release.one("ConfigMap", f"-{suffix}")["data"].items():
            (folder / suffix / name).write_text(content.replace("/etc/tiergate", str(folder)))
    (folder / "admin").mkdir()
    (folder / "admin" / "token").write_text("open sesame")
    return folder


@pytest.mark.parametrize("case", CASES)
def test_gateway_takes_the_settings_the_policy_and_the_arguments(
    releases: Mapping[str, Release], case: str, tmp_path: Path
) -> None:
    release, folder = releases[case], files(releases[case], tmp_path)
    settings = read_settings({}, folder / "settings" / "settings.yaml")
    parsed = build_parser().parse_args(gateway(release)["args"])
    ports = {port["name"]: port["containerPort"] for port in gateway(release)["ports"]}
    assert ports["http"] == settings.http_port
    assert ports.get("grpc", settings.grpc_port) == settings.grpc_port
    assert ports.get("admin", settings.admin_port) == settings.admin_port
    assert str(parsed.config) == "/etc/tiergate/settings/settings.yaml"
    assert settings.host == "0.0.0.0"  # noqa: S104 - a pod's address is for its cluster
    assert ("admin" in ports) == (settings.admin_host != "127.0.0.1")
    assert settings.policy == folder / "policy" / "policy.yaml"
    wanted = PolicyFile.model_validate({"schema_version": 1, **case_values(case).get("policy", {})})
    assert read_policy(settings.policy).policy == wanted
    if settings.remotes is not None:
        remotes = RemotesFile.model_validate(yaml.safe_load(settings.remotes.read_text()))
        assert set(remotes.remotes) == {"digits", "images"}
        assert len(remotes.remotes["digits"]["full"].endpoints) == 2
    assert (settings.remotes is None) == (case not in ("gpu", "remotes"))


def test_certificates_for_remotes_lie_where_the_remotes_file_names_them(
    releases: Mapping[str, Release], tmp_path: Path
) -> None:
    release = releases["remotes"]
    (pod,) = [spec for item, spec in pods(release) if item["kind"] == "Deployment"]
    secrets = {volume["name"]: volume["secret"]["secretName"] for volume in pod["volumes"] if "secret" in volume}
    mounts = {mount["name"]: mount["mountPath"] for mount in gateway(release)["volumeMounts"]}
    authority = trustme.CA()
    pair = authority.issue_cert("gateway.example.org")
    for volume, secret in secrets.items():
        folder = tmp_path / mounts[volume].removeprefix("/etc/tiergate/")
        folder.mkdir(parents=True)
        authority.cert_pem.write_to_path(folder / "ca.crt")
        if secret == "images-client":  # noqa: S105 - a name
            pair.cert_chain_pems[0].write_to_path(folder / "tls.crt")
            pair.private_key_pem.write_to_path(folder / "tls.key")
    path = files(release, tmp_path) / "remotes" / "remotes.yaml"
    trust = read_certificates(read_remotes(path), path.parent)
    assert {name: (item.ca is None, item.certificate is None) for name, item in trust.items()} == {
        ("digits", "full"): (False, True),
        ("images", "full"): (False, False),
    }


def test_build_job_has_arguments_that_the_program_takes(releases: Mapping[str, Release]) -> None:
    job = releases["maximal"].one("Job")["spec"]["template"]["spec"]["containers"][0]
    parsed = build_parser().parse_args(job["args"])
    assert (parsed.recipe, str(parsed.output)) == ("/recipes/tumours.py", "/models/repository")
    assert gateway(releases["maximal"])["args"][1] == str(parsed.output)


def test_pods_wait_until_the_volume_has_a_model(releases: Mapping[str, Release], tmp_path: Path) -> None:
    (wait,) = [
        one
        for item, spec in pods(releases["maximal"])
        for one in spec.get("initContainers", [])
        if item["kind"] == "Deployment"
    ]
    write_model(tmp_path / "repository", ModelPlan())
    shell, flag, script = wait["command"]
    done = subprocess.run([shell, flag, script.replace("/models", str(tmp_path))], timeout=300, check=True)
    assert done.returncode == 0
    looks = script.replace("/models", str(tmp_path / "empty")).partition("until ")[2].partition(";")[0]
    assert subprocess.run([shell, flag, looks], timeout=300, check=False).returncode != 0


@pytest.mark.parametrize("case", CASES)
def test_lanes_follow_the_cpu_limit_or_the_cores_of_its_own(releases: Mapping[str, Release], case: str) -> None:
    release = releases[case]
    names = {one["name"]: one for one in gateway(release)["env"]}
    settings = yaml.safe_load(release.one("ConfigMap", "-settings")["data"]["settings.yaml"])
    if case_values(case).get("exclusiveCores"):
        assert "TIERGATE_LANES" not in names
        assert settings["pin_lanes"] is True
        assert gateway(release)["resources"]["limits"] == gateway(release)["resources"]["requests"]
    else:
        limit = names["TIERGATE_LANES"]["valueFrom"]["resourceFieldRef"]
        assert (limit["resource"], limit["containerName"]) == ("limits.cpu", gateway(release)["name"])
        assert settings["pin_lanes"] is False  # all pods of a node would pin to its first cores
    assert "lanes" not in settings


def test_ports_of_the_chart_are_the_defaults_of_the_code() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))["settings"]
    for name in ("http_port", "grpc_port", "admin_port", "drain_timeout_s"):
        assert values[name] == Settings.model_fields[name].default


def test_the_admin_listener_stays_inside_the_pod_unless_it_is_asked_for(releases: Mapping[str, Release]) -> None:
    for case, release in releases.items():
        is_open = bool(case_values(case).get("admin", {}).get("enabled"))
        ports = {
            one["metadata"]["name"]: [port["name"] for port in one["spec"]["ports"]] for one in release.of("Service")
        }
        assert [name for name, offered in ports.items() if "admin" in offered] == [
            name for name in ports if name.endswith("-admin") and is_open
        ]
        assert any(name.endswith("-admin") for name in ports) == is_open


def queries(releases: Mapping[str, Release]) -> list[str]:
    """Return every query that scaling goes by, with the adapter's own templates filled in."""
    triggers = releases["keda"].one("ScaledObject")["spec"]["triggers"]
    adapter = yaml.safe_load(ADAPTER.read_text(encoding="utf-8"))["rules"]["custom"]
    filled = [
        rule["metricsQuery"]
        .replace("<<.Series>>", rule["seriesQuery"].partition("{")[0])
        .replace("<<.LabelMatchers>>", 'namespace="models"')
        .replace("<<.GroupBy>>", "pod")
        for rule in adapter
    ]
    return [trigger["metadata"]["query"] for trigger in triggers] + filled


def exposed() -> set[str]:
    """Return the names of the series that a gateway may expose."""
    found = set()
    for family in Metrics().registry.collect():
        found |= {family.name, f"{family.name}_total", *(sample.name for sample in family.samples)}
    return found | {"tiergate_queue_depth", "tiergate_lane_busy_ratio"}  # read from the engine while it runs


def test_scaling_asks_for_metrics_that_exist(releases: Mapping[str, Release]) -> None:
    asked = queries(releases)
    assert len(asked) == 6
    for query in asked:
        named = set(re.findall(r"tiergate_\w+", query))
        assert named
        assert named <= exposed()


def test_scaling_queries_are_promql(releases: Mapping[str, Release], tmp_path: Path) -> None:
    if shutil.which("promtool") is None:
        pytest.skip("there is no promtool")
    rules = [{"record": f"scaling:{index}", "expr": query} for index, query in enumerate(queries(releases))]
    path = tmp_path / "rules.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "scaling", "rules": rules}]}))
    done = subprocess.run(["promtool", "check", "rules", str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_hpa_asks_the_adapter_for_what_it_makes(releases: Mapping[str, Release]) -> None:
    spec = releases["maximal"].one("HorizontalPodAutoscaler")["spec"]
    asked = {metric["pods"]["metric"]["name"]: metric["pods"]["target"] for metric in spec["metrics"]}
    made = {
        rule.get("name", {}).get("as") or rule["seriesQuery"].partition("{")[0]
        for rule in yaml.safe_load(ADAPTER.read_text(encoding="utf-8"))["rules"]["custom"]
    }
    assert set(asked) == made
    assert asked["tiergate_budget_missed_ratio"]["averageValue"] == "50m"


def test_keda_takes_silence_for_a_failure_and_not_for_idleness(releases: Mapping[str, Release]) -> None:
    spec = releases["keda"].one("ScaledObject")["spec"]
    assert {trigger["metadata"]["ignoreNullValues"] for trigger in spec["triggers"]} == {"false"}
    assert spec["fallback"]["replicas"] >= spec["minReplicaCount"]
    assert not [trigger for trigger in spec["triggers"] if "vector(0)" in trigger["metadata"]["query"]]


def rule_files() -> list[Any]:
    paths = sorted((CHART / "files" / "prometheus").glob("*.yaml"))
    return [yaml.safe_load(path.read_text(encoding="utf-8")) for path in paths]


def test_every_alert_of_the_chart_has_a_runbook_that_exists(releases: Mapping[str, Release]) -> None:
    rules = [rule for item in releases["maximal"].of("PrometheusRule") for group in item["spec"]["groups"]
             for rule in group["rules"]]  # fmt: skip
    assert rules == [rule for file in rule_files() for group in file["groups"] for rule in group["rules"]]
    alerts = [rule for rule in rules if "alert" in rule]
    assert alerts
    for alert in alerts:
        page, _, anchor = alert["annotations"]["runbook_url"].partition("#")
        text = (ROOT / page).read_text(encoding="utf-8")
        headings = [re.sub(r"[^\w -]", "", line.lstrip("# ")).strip().lower().replace(" ", "-")
                    for line in text.splitlines() if line.startswith("#")]  # fmt: skip
        assert anchor in headings, alert["alert"]


def test_the_job_that_alerts_look_for_is_the_job_of_the_monitor(releases: Mapping[str, Release]) -> None:
    (endpoint,) = releases["maximal"].one("ServiceMonitor")["spec"]["endpoints"]
    assert endpoint["relabelings"] == [{"targetLabel": "job", "replacement": "tiergate"}]
    expressions = [rule["expr"] for file in rule_files() for group in file["groups"] for rule in group["rules"]]
    for matcher in {found for text in expressions for found in re.findall(r'job=~"([^"]+)"', text)}:
        assert re.fullmatch(matcher, "tiergate")


def test_dashboards_arrive_whole(releases: Mapping[str, Release]) -> None:
    data = releases["maximal"].one("ConfigMap", "-dashboards")["data"]
    wanted = {path.name: path.read_text(encoding="utf-8") for path in (CHART / "files" / "grafana").glob("*.json")}
    assert data == wanted
    assert wanted
    assert sum(map(len, wanted.values())) < 900_000, "a ConfigMap holds 1 MiB"
