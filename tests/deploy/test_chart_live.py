"""What the chart renders, with a real gateway: probes, a policy that comes as the kubelet brings it, the end."""

from __future__ import annotations

import ssl
import subprocess
import sys
import urllib.request
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest
import trustme
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.deploy.chart import NEWEST, ROOT, pods
from tests.deploy.cluster import running_cluster
from tests.integration.clients import Question, ask_plain
from tests.integration.gateway_process import ROOMY_MS, TIGHT_MS, running_gateway, until, write_sums

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.deploy.chart import Helm, Object, Release
    from tests.deploy.cluster import Cluster
    from tests.integration.gateway_process import GatewayProcess

HEALTH = ROOT / "deploy" / "container" / "health.py"
PATIENCE_S = 300.0
PROBES = ("startupProbe", "livenessProbe", "readinessProbe")
WIDE = {"settings": {"drain_grace_s": 600}, "policy": {"models": {"sums": {"default_budget_ms": ROOMY_MS}}}}
TIGHT = {**WIDE, "policy": {"models": {"sums": {"default_budget_ms": TIGHT_MS}}}}


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with running_cluster(NEWEST) as running:
        yield running


def mount(folder: Path, files: dict[str, str], generation: int) -> None:
    """Put a ConfigMap's files into a folder as the kubelet does: behind a link that is turned in one step."""
    content = folder / f"..{generation}"
    content.mkdir(parents=True)
    for name, text in files.items():
        (content / name).write_text(text.replace("/etc/tiergate", str(folder.parent)))
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(f"..data/{name}")
    (folder / "..new").symlink_to(content.name)
    (folder / "..new").rename(folder / "..data")


def config(release: Release, suffix: str) -> dict[str, str]:
    files: dict[str, str] = release.one("ConfigMap", suffix)["data"]
    return files


def container(release: Release) -> Object:
    spec: Object = next(spec for item, spec in pods(release) if item["kind"] == "Deployment")["containers"][0]
    return spec


def probe(gateway: GatewayProcess, probed: Object, etc: Path = Path("/etc/tiergate")) -> bool:
    """Probe as the kubelet does: a status from 200 to 399 whatever the certificate, SERVING, or exit status 0."""
    if "exec" in probed:
        places = {"python": sys.executable, "/opt/tiergate/health.py": str(HEALTH)}
        command = [places.get(word, word.replace("/etc/tiergate", str(etc))) for word in probed["exec"]["command"]]
        command += [f"--port={gateway.admin.rpartition(':')[2]}"]  # the tests' gateways take free ports
        return subprocess.run(command, capture_output=True, timeout=PATIENCE_S, check=False).returncode == 0
    if "grpc" in probed:
        with grpc.insecure_channel(gateway.grpc) as channel:
            said = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE_S)
        return bool(said.status == health_pb2.HealthCheckResponse.SERVING)
    url = f"{probed['httpGet'].get('scheme', 'http').lower()}://{gateway.http}{probed['httpGet']['path']}"
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE_S, context=ssl._create_unverified_context()) as reply:  # noqa: S310, S323
            return bool(reply.status < 400)
    except OSError:
        return False


def test_probes_and_policy_in_the_life_of_a_pod(helm: Helm, cluster: Cluster, tmp_path: Path) -> None:
    release = helm.install(cluster, "answers", WIDE)
    rendered = container(release)
    by_grpc = container(helm.upgrade(cluster, "answers", WIDE | {"probes": {"readiness": "grpc"}}))["readinessProbe"]
    for suffix in ("settings", "policy"):
        mount(tmp_path / "etc" / suffix, config(release, f"-{suffix}"), 1)
    write_sums(tmp_path / "models")
    at_home = ("--host", "127.0.0.1", "--lanes", "1")  # a pod's address is for its cluster, not for this machine
    settings = str(tmp_path / "etc" / "settings" / "settings.yaml")
    with running_gateway(tmp_path / "models", "--config", settings, *at_home, TIERGATE_POLICY="") as gateway:
        probes = [rendered[name] for name in PROBES]
        for one in (*probes, by_grpc):
            until(partial(probe, gateway, one))  # some give up sooner than a busy machine answers
        assert ask_plain(gateway, Question()).answer["variant"] == "full"
        after = helm.upgrade(cluster, "answers", TIGHT)
        mount(tmp_path / "etc" / "policy", config(after, "-policy"), 2)
        until(lambda: gateway.metric('tiergate_policy_reloads_total{outcome="applied"}') == 1)
        assert ask_plain(gateway, Question()).answer["variant"] == "quantized"
        gateway.process.terminate()
        until(lambda: not probe(gateway, rendered["readinessProbe"]))
        assert not probe(gateway, by_grpc)
        until(partial(probe, gateway, rendered["livenessProbe"]))  # a pod that drains must not be killed for it
        assert not ask_plain(gateway, Question()).refused
        assert gateway.stop() == 0


@pytest.mark.parametrize("case", ["tls", "mtls"])
def test_probes_reach_a_gateway_behind_tls_with_what_the_secrets_hold(helm: Helm, case: str, tmp_path: Path) -> None:
    release, etc = helm.render(case), tmp_path / "etc"
    for suffix in ("settings", "policy"):
        mount(etc / suffix, config(release, f"-{suffix}"), 1)
    authority = trustme.CA()
    pair = authority.issue_cert("tiergate.models.svc")
    chain = b"".join(blob.bytes() for blob in pair.cert_chain_pems).decode()
    mount(etc / "tls", {"tls.crt": chain, "tls.key": pair.private_key_pem.bytes().decode()}, 1)
    mount(etc / "client-ca", {"ca.crt": authority.cert_pem.bytes().decode()}, 1)
    mount(etc / "admin", {"token": "open sesame"}, 1)
    write_sums(tmp_path / "models")
    at_home = ("--host", "127.0.0.1", "--admin-host", "127.0.0.1", "--lanes", "1")
    flags = ("--config", str(etc / "settings" / "settings.yaml"), *at_home)
    with running_gateway(tmp_path / "models", *flags, TIERGATE_POLICY="") as gateway:
        probes = [container(release)[name] for name in PROBES]
        for one in probes:
            until(partial(probe, gateway, one, etc))
        assert all(("exec" in one) == (case == "mtls") for one in probes)
        # Plain HTTP is not answered, and under mTLS neither is a client without a certificate.
        path = {"path": "/v2/health/live"}
        assert not probe(gateway, {"httpGet": path})
        over_tls = {"httpGet": path | {"scheme": "HTTPS"}}
        until(lambda: probe(gateway, over_tls) == (case == "tls"))
        words = ["--port=8002", "--token-file=/etc/tiergate/admin/token", *(["--tls"] if case == "tls" else [])]
        asked = {"exec": {"command": ["python", "/opt/tiergate/health.py", "--ready", *words]}}
        until(partial(probe, gateway, asked, etc))
        (etc / "admin" / "token").unlink()
        (etc / "admin" / "token").write_text("wrong")
        assert not probe(gateway, asked, etc)
