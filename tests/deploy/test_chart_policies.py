"""What must hold of every object in every case, whatever the values: safety, names that meet, ports, time to drain."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.deploy.chart import CASES, case_values, pods

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.deploy.chart import Object, Release

_OUTSIDE = {  # what the cases say that the cluster has
    "ConfigMap": {"recipes"},
    "Secret": {"tiergate-tls", "tiergate-clients", "tiergate-admin-token", "digits-authority", "images-client"},
    "PersistentVolumeClaim": {"models", "triton-models"},
    "ServiceAccount": {"default"},
}

pytestmark = pytest.mark.parametrize("case", CASES)


def containers(release: Release) -> Iterator[tuple[str, Object]]:
    """Yield every container with its kind: ``init``, ``job`` or ``server``."""
    for item, spec in pods(release):
        yield from (("init", one) for one in spec.get("initContainers", []))
        yield from (("job" if item["kind"] == "Job" else "server", one) for one in spec["containers"])


def mounted(spec: Object) -> Iterator[tuple[str, str]]:
    """Yield kind and name of everything that a pod's volumes need."""
    for volume in spec.get("volumes", []):
        if "configMap" in volume:
            yield "ConfigMap", volume["configMap"]["name"]
        elif "secret" in volume:
            yield "Secret", volume["secret"]["secretName"]
        elif "persistentVolumeClaim" in volume:
            yield "PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]


def labels_of_pods(release: Release) -> list[Object]:
    """Return the labels of each kind of pod."""
    return [item["spec"].get("labels") or item["spec"]["template"]["metadata"]["labels"] for item, _ in pods(release)]


def ports_of_pods(release: Release, selector: Object) -> set[str]:
    """Return the names of the ports of every pod that a selector takes."""
    found = set()
    for (_, spec), labels in zip(pods(release), labels_of_pods(release), strict=True):
        if selector.items() <= labels.items():
            found |= {port["name"] for container in spec["containers"] for port in container["ports"]}
    return found


def test_every_container_is_bounded_and_may_do_little(releases: Mapping[str, Release], case: str) -> None:
    found = list(containers(releases[case]))
    assert found
    for _, container in found:
        for bound in ("requests", "limits"):
            assert set(container["resources"][bound]) >= {"cpu", "memory"}, container["name"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["imagePullPolicy"] in ("Always", "IfNotPresent")
        assert re.search(r":[^/:]+$|@sha256:[0-9a-f]{64}$", container["image"]), container["image"]
        assert not container["image"].endswith(":latest")
        assert "." not in container["image"].partition("/")[0].partition(":")[0], "an image must name no registry"


def test_every_pod_is_of_the_restricted_kind(releases: Mapping[str, Release], case: str) -> None:
    for item, spec in pods(releases[case]):
        if item["kind"] == "ServingRuntime":  # its other half
            spec = releases[case].one("InferenceService")["spec"]["predictor"]  # noqa: PLW2901 - the same pod
        context = spec["securityContext"]
        assert (context["runAsNonRoot"], context["seccompProfile"]) == (True, {"type": "RuntimeDefault"})
        assert context["runAsUser"] > 0
        assert spec["automountServiceAccountToken"] is False
        # Else a Service named tiergate-admin would set TIERGATE_ADMIN_PORT to what is no port.
        assert spec["enableServiceLinks"] is False


def test_telemetry_of_the_runtime_is_off(releases: Mapping[str, Release], case: str) -> None:
    for kind, container in containers(releases[case]):
        if kind != "init" and container["name"] != "triton":
            assert {"name": "ORT_DISABLE_TELEMETRY", "value": "1"} in container["env"], container["name"]


def test_every_server_has_three_probes_at_ports_that_it_has(releases: Mapping[str, Release], case: str) -> None:
    for kind, container in containers(releases[case]):
        if kind != "server":
            continue
        names = {port["name"]: port["containerPort"] for port in container["ports"]}
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            at = container[probe].get("httpGet", container[probe].get("grpc", {"port": "http"}))
            assert at["port"] in names or at["port"] in names.values(), f"{container['name']} {probe}"
        alive, ready = (str(container[probe]) for probe in ("livenessProbe", "readinessProbe"))
        assert "ready" not in alive  # a pod that is not ready must not be killed for it
        assert "ready" in ready or "grpc" in ready


def test_gateways_have_time_to_drain(releases: Mapping[str, Release], case: str) -> None:
    release = releases[case]
    settings = yaml.safe_load(release.one("ConfigMap", "-settings")["data"]["settings.yaml"])
    (container,) = [one for _, one in containers(release) if one["name"] in ("gateway", "kserve-container")]
    pause_s = float(container["lifecycle"]["preStop"]["exec"]["command"][1])
    owners = [spec for item, spec in pods(release) if item["kind"] == "Deployment"]
    owners += [item["spec"]["predictor"] for item in release.of("InferenceService")]
    (owner,) = owners
    needed_s = pause_s + settings["drain_grace_s"] + settings["drain_timeout_s"]
    assert needed_s < owner["terminationGracePeriodSeconds"] <= needed_s + 10


def test_selectors_select_and_ports_are_there(releases: Mapping[str, Release], case: str) -> None:
    release = releases[case]
    for item in release.objects:
        spec = item.get("spec", {})
        if item["kind"] == "Service":
            offered = ports_of_pods(release, spec["selector"])
            assert {port["targetPort"] for port in spec["ports"]} <= offered, item["metadata"]["name"]
        elif item["kind"] in ("Deployment", "StatefulSet"):
            assert spec["selector"]["matchLabels"].items() <= spec["template"]["metadata"]["labels"].items()
        elif item["kind"] == "PodDisruptionBudget":
            assert ports_of_pods(release, spec["selector"]["matchLabels"])
        elif item["kind"] == "ServiceMonitor":
            wanted = spec["selector"]["matchLabels"].items()
            (service,) = [one for one in release.of("Service") if wanted <= one["metadata"]["labels"].items()]
            assert {end["port"] for end in spec["endpoints"]} <= {port["name"] for port in service["spec"]["ports"]}
    assert len({(item["kind"], item["metadata"]["name"]) for item in release.objects}) == len(release.objects)


def test_what_is_referred_to_exists(releases: Mapping[str, Release], case: str) -> None:
    release = releases[case]
    there = {(item["kind"], item["metadata"]["name"]) for item in release.objects}
    there |= {(kind, name) for kind, names in _OUTSIDE.items() for name in names}
    for item, spec in pods(release):
        assert set(mounted(spec)) <= there
        if item["kind"] != "ServingRuntime":
            assert ("ServiceAccount", spec["serviceAccountName"]) in there
        names = {volume["name"] for volume in spec["volumes"]}
        for container in (*spec.get("initContainers", []), *spec["containers"]):
            assert {mount["name"] for mount in container["volumeMounts"]} <= names
    for item in (*release.of("HorizontalPodAutoscaler"), *release.of("ScaledObject")):
        target = item["spec"]["scaleTargetRef"]
        assert (target["kind"], target["name"]) in there
        assert "replicas" not in release.one("Deployment")["spec"]
    for item in (*release.of("HTTPRoute"), *release.of("GRPCRoute")):
        backend = item["spec"]["rules"][0]["backendRefs"][0]
        (service,) = [one for one in release.of("Service") if one["metadata"]["name"] == backend["name"]]
        assert backend["port"] in [port["port"] for port in service["spec"]["ports"]]


def test_files_that_change_in_running_pods_are_mounted_as_folders(releases: Mapping[str, Release], case: str) -> None:
    mounts: list[Any] = [mount for _, container in containers(releases[case]) for mount in container["volumeMounts"]]
    assert [mount for mount in mounts if "subPath" in mount] == []


def test_only_what_is_allowed_passes_the_network(releases: Mapping[str, Release], case: str) -> None:
    release = releases[case]
    if case_values(case).get("networkPolicy", {}).get("enabled") is False:
        assert release.of("NetworkPolicy") == []
        return
    guarded = [item["spec"]["podSelector"]["matchLabels"] for item in release.of("NetworkPolicy")]
    for labels in labels_of_pods(release):
        assert any(selector.items() <= labels.items() for selector in guarded), labels
    for item in release.of("NetworkPolicy"):
        spec = item["spec"]
        assert spec["policyTypes"] == ["Ingress", "Egress"]
        assert all(rule["from"] for rule in spec["ingress"])
        assert all(rule["to"] for rule in spec["egress"])
        offered = ports_of_pods(release, spec["podSelector"]["matchLabels"]) if spec["ingress"] else set()
        assert {port["port"] for rule in spec["ingress"] for port in rule["ports"]} <= offered
