"""Values: the schema is the code's, refuses slips of the hand readably, and refuses what does not go together."""

from __future__ import annotations

import importlib.util
import sys
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from service.settings import Settings
from tests.deploy.chart import CHART, ROOT

if TYPE_CHECKING:
    from types import ModuleType

    from tests.deploy.chart import Helm

SILENT = {name: {"enabled": False} for name in ("queueDepth", "budgetMissedRatio", "laneBusyRatio")}
MTLS = {"secretName": "certificate", "clientCaSecretName": "clients"}
TLS, KSERVE = {"secretName": "certificate"}, {"enabled": True, "storageUri": "pvc://a"}
SLIPS: list[tuple[dict[str, Any], str]] = [
    ({"replicaCoutn": 3}, "at '': additional properties 'replicaCoutn' not allowed"),
    ({"replicaCount": "three"}, "at '/replicaCount': got string, want integer"),
    ({"models": {"souce": "pvc"}}, "at '/models': additional properties 'souce' not allowed"),
    ({"models": {"source": "s3"}}, "at '/models/source': value must be one of 'pvc', 'image', 'init'"),
    ({"models": {"path": "../etc"}}, "at '/models/path'"),
    ({"settings": {"drain_grace": 5}}, "at '/settings': additional properties 'drain_grace' not allowed"),
    ({"settings": {"host": "::"}}, "at '/settings': additional properties 'host' not allowed"),
    ({"settings": {"http_port": 0}}, "at '/settings/http_port': minimum: got 0, want 1"),
    ({"settings": {"drain_grace_s": None}}, "at '/settings': missing property 'drain_grace_s'"),
    ({"settings": {"log_level": "loud"}}, "at '/settings/log_level': value must be one of"),
    ({"policy": {"default": {"default_budget": 5}}}, "at '/policy/default': additional properties 'default_budget'"),
    ({"policy": {"default": {"default_budget_ms": -1}}}, "at '/policy/default/default_budget_ms': exclusiveMinimum"),
    ({"resources": {"limits": {"cpu": None}}}, "at '/resources/limits': missing property 'cpu'"),
    ({"resources": {"limits": {"memory": "1 GB"}}}, "at '/resources/limits/memory'"),
    ({"image": {"digest": "sha256:beef"}}, "at '/image/digest'"),
    ({"autoscaling": {"mode": "vpa"}}, "at '/autoscaling/mode': value must be one of 'none', 'hpa', 'keda'"),
    ({"autoscaling": {"signals": {"queueDepth": {"target": 0}}}}, "at '/autoscaling/signals/queueDepth/target'"),
    ({"monitoring": {"serviceMonitor": True}}, "at '/monitoring/serviceMonitor': got boolean, want object"),
    ({"podLabels": {"app.kubernetes.io/name": "mine"}}, "invalid propertyName 'app.kubernetes.io/name'"),
    ({"podLabels": {"team": "a" * 64}}, "at '/podLabels/team': maxLength: got 64, want 63"),
    ({"podAnnotations": {"checksum/settings": "0"}}, "invalid propertyName 'checksum/settings'"),
    ({"triton": {"replicas": 0}}, "at '/triton/replicas': minimum: got 0, want 1"),
]  # fmt: skip
MISFITS: list[tuple[dict[str, Any], str]] = [
    ({"admin": {"enabled": True}}, "admin.enabled needs a token"),
    ({"admin": {"enabled": True, "token": "a", "existingSecret": "b"}}, "both given"),
    ({"tls": {"clientCaSecretName": "clients"}}, "clientCaSecretName needs tls.secretName"),
    ({"tls": TLS, "settings": {"frontend": "pyvoy"}}, "settings.frontend is pyvoy"),
    ({"tls": MTLS | {"admin": True}}, "leave tls.admin off"),
    ({"tls": MTLS, "monitoring": {"serviceMonitor": {"enabled": True}}}, "give monitoring.serviceMonitor.tlsConfig"),
    ({"tls": TLS, "probes": {"readiness": "grpc"}}, "gRPC probe cannot speak TLS"),
    ({"settings": {"http_port": 8001}}, "http_port 8001, grpc_port 8001 and admin_port 8002 must differ"),
    ({"service": {"httpPort": 8001}}, "service.httpPort and service.grpcPort are both 8001"),
    ({"build": {"enabled": True}, "models": {"source": "init", "init": {"image": "m:1"}}}, "set it to pvc"),
    ({"models": {"source": "init"}}, "give models.init.image"),
    ({"models": {"source": "image"}}, "give models.image.reference"),
    ({"policy": {"schema_version": 1}, "policyConfigMap": "mine"}, "policy and policyConfigMap are both given"),
    ({"autoscaling": {"mode": "keda"}}, "autoscaling.keda.serverAddress"),
    ({"autoscaling": {"minReplicas": 5, "maxReplicas": 4}}, "minReplicas 5 is above maxReplicas 4"),
    ({"autoscaling": {"mode": "hpa", "signals": SILENT}}, "autoscaling.signals are all disabled"),
    ({"exclusiveCores": True, "resources": {"limits": {"cpu": "1500m"}}}, "they are 2 and 1500m"),
    ({"routes": {"http": {"enabled": True}}}, "routes.http.enabled needs routes.http.parentRefs"),
    ({"triton": {"enabled": True}}, "triton.enabled needs triton.image"),
    ({"kserve": {"enabled": True}}, "kserve.enabled needs kserve.storageUri"),
    ({"kserve": KSERVE, "autoscaling": {"mode": "hpa"}}, "it is KServe that scales"),
]  # fmt: skip


def sync_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("deploy_sync", ROOT / "deploy" / "sync.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    before = list(sys.path)
    spec.loader.exec_module(module)
    sys.path[:] = before
    return module


def test_chart_has_what_is_written_elsewhere() -> None:
    assert sync_script().stale() == [], "run: python deploy/sync.py"


def test_schema_knows_every_setting_and_every_policy_field() -> None:
    schema, decided = sync_script().values_schema(), sync_script().CHART_DECIDES
    assert set(schema["properties"]["settings"]["properties"]) == set(Settings.model_fields) - decided
    assert decided & set(Settings.model_fields)
    assert set(schema["definitions"]["policy-ModelPolicy"]["properties"]) >= {"default_budget_ms", "weight", "cascades"}


def test_every_value_is_in_the_schema_and_every_property_has_a_value() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    schema = sync_script().values_schema()
    free = {"global", "settings", "policy"}
    assert names(schema, schema, free) == names_of_values(values, schema, free)


def names(node: dict[str, Any], schema: dict[str, Any], free: set[str], where: str = "") -> set[str]:
    """Return the paths of every property that a schema names, references followed."""
    if "$ref" in node:
        node = schema["definitions"][node["$ref"].rpartition("/")[2]]
    found = set()
    for name, inner in node.get("properties", {}).items():
        if name not in free:
            found |= {f"{where}.{name}", *names(inner, schema, set(), f"{where}.{name}")}
    return found


def names_of_values(values: dict[str, Any], schema: dict[str, Any], free: set[str]) -> set[str]:
    """Return the paths of every value, down to where the schema leaves things open."""
    known = names(schema, schema, free)
    found, pending = set(), [("", values)]
    while pending:
        where, node = pending.pop()
        for name, inner in node.items():
            path = f"{where}.{name}"
            if path[1:] in free:
                continue
            found.add(path)
            if isinstance(inner, dict) and any(other.startswith(f"{path}.") for other in known):
                pending.append((path, inner))
    return found


@pytest.mark.parametrize(("values", "said"), SLIPS, ids=[said[:60] for _, said in SLIPS])
def test_slips_are_refused_with_their_place(helm: Helm, values: dict[str, Any], said: str) -> None:
    assert said in helm.refusal(values)


@pytest.mark.parametrize(("values", "said"), MISFITS, ids=[said for _, said in MISFITS])
def test_values_that_do_not_go_together_are_refused_with_what_to_do(
    helm: Helm, values: dict[str, Any], said: str
) -> None:
    assert said in helm.refusal(values)
