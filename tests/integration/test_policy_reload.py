"""Another policy for a running gateway: through its file, by a signal, over the admin listener, and under load."""

from __future__ import annotations

import json
import signal
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from service.cli import main
from tests.integration.clients import Question, ask_grpc, ask_plain
from tests.integration.gateway_process import ROOMY_MS, TIGHT_MS, rewrite, running_gateway, until, write_sums

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.integration.gateway_process import GatewayProcess

PATH = "/v2/policy"
TIGHT = f"models: {{sums: {{default_budget_ms: {TIGHT_MS}}}}}"
WIDE = f"models: {{sums: {{default_budget_ms: {ROOMY_MS}}}}}"
THRIFTY = f"models: {{sums: {{default_budget_ms: {ROOMY_MS}, objective: cost}}}}"
CHANGED = f"models.sums.default_budget_ms: {ROOMY_MS} -> {TIGHT_MS}"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "policy.yaml"
    path.write_text(WIDE)
    return path


@pytest.fixture
def governed(tmp_path: Path, file: Path) -> Iterator[GatewayProcess]:
    """A gateway with a policy file and an admin token."""
    write_sums(tmp_path / "repository")
    (tmp_path / "token").write_text("open sesame\n")
    with running_gateway(
        tmp_path / "repository", "--policy", str(file), "--admin-token-file", str(tmp_path / "token")
    ) as running:
        yield running


def put(gateway: GatewayProcess, content: str, **headers: str) -> tuple[int, dict[str, str], dict[str, object]]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    sent = {"Authorization": "Bearer open sesame", "Content-Type": "application/yaml", **named}
    return gateway.call("PUT", PATH, content.encode(), sent, where=gateway.admin)


def wait_for(gateway: GatewayProcess, line: str, value: float) -> None:
    """Ask until a metric has come so far."""
    until(lambda: gateway.metric(line) >= value)


def variant(gateway: GatewayProcess) -> str:
    return str(ask_plain(gateway, Question()).answer["variant"])


def test_file_is_noticed_and_a_bad_one_leaves_the_old(governed: GatewayProcess, file: Path, tmp_path: Path) -> None:
    assert variant(governed) == "full"
    rewrite(file, TIGHT)
    wait_for(governed, 'tiergate_policy_reloads_total{outcome="applied"}', 1)
    assert variant(governed) == "quantized"
    rewrite(file, "models: {sums: {default_budget_ms: -1}}")
    wait_for(governed, 'tiergate_policy_reloads_total{outcome="refused"}', 1)
    assert variant(governed) == "quantized"
    rewrite(file, WIDE)
    governed.process.send_signal(signal.SIGHUP)
    wait_for(governed, 'tiergate_policy_reloads_total{outcome="applied"}', 2)
    assert variant(governed) == "full"
    assert governed.metric('tiergate_policy_reloads_total{outcome="refused"}') == 1
    assert governed.metric("tiergate_policy_info{") == 1
    log = (tmp_path / "gateway.log").read_text()
    assert log.count("policy refused") == 1
    assert "line 1: models.sums.default_budget_ms is -1" in log
    assert CHANGED in log


def test_admin_listener_reads_and_replaces_the_policy(governed: GatewayProcess, file: Path) -> None:
    token = {"Authorization": "Bearer open sesame"}
    assert governed.call("GET", PATH, where=governed.admin)[0] == 401
    assert governed.call("GET", PATH)[0] == 403
    assert governed.call("PUT", PATH, TIGHT.encode())[0] == 403
    status, headers, body = governed.call("GET", PATH, headers=token, where=governed.admin)
    assert (status, body) == (200, WIDE.encode())
    as_json = governed.call("GET", PATH, headers={**token, "Accept": "application/json"}, where=governed.admin)[2]
    assert as_json["models"]["sums"]["max_queued"] == 1000
    status, _, said = put(governed, "models: {sums: {default_budget_ms: -1}}")
    assert (status, "default_budget_ms is -1; it must be greater than 0" in str(said["error"])) == (400, True)
    assert put(governed, TIGHT, If_Match='"another"')[0] == 412
    assert variant(governed) == "full"
    status, replaced, said = put(governed, TIGHT, If_Match=headers["etag"])
    assert (status, said["kept_in"]) == (200, "file")
    assert replaced["etag"] != headers["etag"]
    assert (variant(governed), ask_grpc(governed, Question()).answer["variant"]) == ("quantized", "quantized")
    assert file.read_text() == TIGHT
    assert governed.metric(f"tiergate_policy_info{{digest={replaced['etag']}}}") == 1


def test_commands_show_and_apply_a_policy(
    governed: GatewayProcess, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site = ["--url", f"http://{governed.admin}", "--token-file", str(tmp_path / "token")]
    assert main(["policy", "show", *site]) == 0
    digest, content = capsys.readouterr().out.splitlines()
    assert content == WIDE
    (tmp_path / "new.yaml").write_text(TIGHT)
    new = str(tmp_path / "new.yaml")
    assert main(["policy", "apply", new, *site, "--if-match", "another"]) == 2
    assert "answered 412" in capsys.readouterr().err
    assert main(["policy", "apply", new, *site, "--if-match", digest.removeprefix("# digest ")]) == 0
    said = capsys.readouterr().out
    assert CHANGED in said
    assert "kept in its policy file" in said
    assert (variant(governed), file.read_text()) == ("quantized", TIGHT)
    assert main(["policy", "show", "--json", *site]) == 0
    assert json.loads(capsys.readouterr().out)["models"]["sums"]["default_budget_ms"] == TIGHT_MS
    assert main(["policy", "apply", new, "--url", f"http://{governed.admin}"]) == 2
    assert "answered 401" in capsys.readouterr().err


def test_reloads_under_load_lose_no_request(governed: GatewayProcess) -> None:
    def ask(_: int) -> str:
        reply = ask_plain(governed, Question())
        return reply.refused or str(reply.answer["variant"])

    with ThreadPoolExecutor(8) as pool:
        asked = pool.map(ask, range(240))
        statuses = [put(governed, (THRIFTY, WIDE)[number % 2])[0] for number in range(16)]
        ends = Counter(asked)
    assert statuses == [200] * 16
    assert sum(ends.values()) == 240
    assert set(ends) <= {"full", "quantized", "distilled"}, ends
    assert governed.metric('tiergate_policy_reloads_total{outcome="applied"}') == 16


def test_policy_is_held_in_memory_where_there_is_no_file(tmp_path: Path) -> None:
    write_sums(tmp_path / "repository")
    with running_gateway(tmp_path / "repository", TIERGATE_POLICY="") as gateway:
        status, _, said = gateway.call("PUT", PATH, TIGHT.encode(), where=gateway.admin)
        assert (status, said["kept_in"]) == (200, "memory")
        assert variant(gateway) == "quantized"


def test_pyvoy_frontend_notices_the_file_and_survives_a_hangup(tmp_path: Path, file: Path) -> None:
    pytest.importorskip("pyvoy", reason="the optional frontend pyvoy is not installed")
    write_sums(tmp_path / "repository")
    with running_gateway(tmp_path / "repository", "--frontend", "pyvoy", "--policy", str(file)) as gateway:
        gateway.process.send_signal(signal.SIGHUP)
        rewrite(file, TIGHT)
        wait_for(gateway, 'tiergate_policy_reloads_total{outcome="applied"}', 1)
        assert variant(gateway) == "quantized"
        assert gateway.stop() == 0
